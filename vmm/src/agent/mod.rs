//! The monitor's side of hv-init: control messages and the workload's streams, over unix sockets that
//! the guest's vsock device connects to.
//!
//! # Layout
//! - [`Listeners`]: the sockets, bound before the guest runs. [`Agent`]: the threads that serve them.
//! - `outcome`: what has been learned of the workload; `pump`: a stream to a socket and back; `wait`:
//!   waiting that can be given up.
//!
//! One thread a stream: a reader that stops holds up nothing but its own stream, all the way into the
//! guest. Nothing is read that cannot be handed on, so nothing piles up here.

mod outcome;
mod pump;
mod wait;

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hv_common::wire::{self, FromGuest, ToGuest, port};
use hv_common::{Stdio, Timeline};

pub use self::outcome::{Outcome, Start};
use self::pump::Output;
use self::wait::Cancel;
use crate::threads;

/// How long the guest may take to read a control message before it counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(2);

/// The agent cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket.
    #[error("cannot listen on {}", .0.display())]
    Listen(PathBuf, #[source] io::Error),
    /// A thread or descriptor.
    #[error("cannot {0}")]
    Host(&'static str, #[source] io::Error),
}

/// The path that the vsock device is given: port P of the guest's connections is at this path with `_P`.
pub fn vsock_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("vsock")
}

/// The sockets that hv-init will connect to, bound. Dropping removes them.
pub struct Listeners {
    control: Listener,
    streams: Vec<Listener>,
    paths: Paths,
}

/// Where the sockets are; removed when this goes.
#[derive(Default)]
struct Paths(Vec<PathBuf>);

impl Drop for Paths {
    fn drop(&mut self) {
        for path in &self.0 {
            // Whoever removes the run's directory removes it too.
            let _ = fs::remove_file(path);
        }
    }
}

impl Listeners {
    /// Binds the sockets in the run's own directory: control, and either the three standard streams or
    /// the terminal.
    ///
    /// # Errors
    /// As bind(2): the path may be too long (107 bytes), or somebody has the socket already.
    pub fn bind(runtime_dir: &Path, terminal: bool) -> Result<Listeners, Error> {
        let streams: &[u32] =
            if terminal { &[port::TERMINAL] } else { &[port::STDIN, port::STDOUT, port::STDERR] };
        let mut paths = Paths::default();
        let mut bind = |port: &u32| Listener::bind(runtime_dir, *port, &mut paths);
        let control = bind(&port::CONTROL)?;
        let streams = streams.iter().map(bind).collect::<Result<_, _>>()?;
        Ok(Listeners { control, streams, paths })
    }
}

/// One bound socket, which accepts one connection.
struct Listener(UnixListener);

impl Listener {
    fn bind(runtime_dir: &Path, port: u32, paths: &mut Paths) -> Result<Listener, Error> {
        let path = runtime_dir.join(format!("vsock_{port}"));
        let failed = |error| Error::Listen(path.clone(), error);
        let socket = UnixListener::bind(&path).map_err(failed)?;
        paths.0.push(path.clone());
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Listener(socket))
    }

    /// The one connection, and the end of the socket. None when cancelled or broken.
    fn accept(self, cancel: &Cancel) -> Option<UnixStream> {
        cancel.readable(self.0.as_fd()).ok()?;
        self.0.accept().ok().map(|(stream, _)| stream)
    }
}

/// The threads that serve one guest's hv-init. Dropping ends them.
pub struct Agent {
    outcome: Outcome,
    control: Arc<Mutex<Option<UnixStream>>>,
    cancel: Cancel,
    threads: Vec<JoinHandle<()>>,
    terminal: Option<OwnedFd>,
    /// Removed when it is dropped.
    _paths: Paths,
}

impl Agent {
    /// Starts serving: `stdio` is where the workload's streams go.
    ///
    /// # Errors
    /// The host gives no thread or descriptor.
    pub fn start(mut listeners: Listeners, stdio: Stdio, timeline: &Timeline) -> Result<Agent, Error> {
        let host = |what| move |error| Error::Host(what, error);
        let outputs = if matches!(stdio, Stdio::Terminal) { 1 } else { 2 };
        let mut agent = Agent {
            outcome: Outcome::new(outputs, timeline.clone()).map_err(host("make an eventfd"))?,
            control: Arc::default(),
            cancel: Cancel::new().map_err(host("make an eventfd"))?,
            threads: Vec::new(),
            terminal: None,
            _paths: std::mem::take(&mut listeners.paths),
        };
        agent.serve(listeners, stdio, timeline).map_err(host("start the agent's threads"))?;
        Ok(agent)
    }

    fn serve(&mut self, listeners: Listeners, stdio: Stdio, timeline: &Timeline) -> io::Result<()> {
        let mut streams = listeners.streams.into_iter();
        let output = |sink: OwnedFd| Output { sink, timeline: timeline.clone() };
        match stdio {
            Stdio::Streams([stdin, stdout, stderr]) => {
                self.spawn_input("stdin", streams.next(), stdin)?;
                self.spawn_output("stdout", streams.next(), output(stdout))?;
                self.spawn_output("stderr", streams.next(), output(stderr))?;
            }
            Stdio::Terminal => {
                let (ours, callers) = UnixStream::pair()?;
                self.terminal = Some(callers.into());
                self.spawn_terminal(streams.next(), ours, timeline)?;
            }
        }
        let (outcome, cancel, control) =
            (self.outcome.clone(), self.cancel.clone(), Arc::clone(&self.control));
        self.spawn("control", move || serve_control(listeners.control, &outcome, &cancel, &control))
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(threads::spawn(name, body)?);
        Ok(())
    }

    fn spawn_input(&mut self, name: &str, listener: Option<Listener>, source: OwnedFd) -> io::Result<()> {
        let cancel = self.cancel.clone();
        self.spawn(name, move || {
            if let Some(guest) = listener.and_then(|listener| listener.accept(&cancel)) {
                pump::input(source, &guest, &cancel);
            }
        })
    }

    fn spawn_output(&mut self, name: &str, listener: Option<Listener>, output: Output) -> io::Result<()> {
        let (cancel, outcome) = (self.cancel.clone(), self.outcome.clone());
        self.spawn(name, move || {
            if let Some(guest) = listener.and_then(|listener| listener.accept(&cancel)) {
                output.run(&guest, &cancel);
            }
            outcome.output_ended();
        })
    }

    /// A terminal is one connection with a thread for each direction.
    fn spawn_terminal(
        &mut self,
        listener: Option<Listener>,
        ours: UnixStream,
        timeline: &Timeline,
    ) -> io::Result<()> {
        let (cancel, outcome) = (self.cancel.clone(), self.outcome.clone());
        let timeline = timeline.clone();
        self.spawn("terminal", move || {
            if let Some(guest) = listener.and_then(|listener| listener.accept(&cancel)) {
                pump::terminal(&ours, &guest, &cancel, timeline);
            }
            // The caller sees the end after the last byte.
            let _ = ours.shutdown(std::net::Shutdown::Both);
            outcome.output_ended();
        })
    }

    /// What is known of the workload.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// The caller's end of the workload's terminal.
    pub fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().map(AsFd::as_fd)
    }

    /// Tells hv-init something.
    ///
    /// # Errors
    /// It is not connected, or has stopped reading.
    pub fn send(&self, message: &ToGuest) -> io::Result<()> {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let control = control.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        wire::write_frame(control, message)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.cancel.cancel();
        for thread in self.threads.drain(..) {
            // A panic there has been reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

/// Reads control messages until hv-init hangs up or says nonsense.
fn serve_control(
    listener: Listener,
    outcome: &Outcome,
    cancel: &Cancel,
    control: &Mutex<Option<UnixStream>>,
) {
    let Some(stream) = listener.accept(cancel) else { return };
    let writer =
        stream.try_clone().and_then(|writer| writer.set_write_timeout(Some(PATIENCE)).map(|()| writer));
    match writer {
        Ok(writer) => *control.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer),
        Err(error) => return outcome.lost(&format!("its control connection broke: {error}")),
    }
    loop {
        match wire::read_frame(cancel.reader(&stream)) {
            Ok(Some(FromGuest::Started)) => outcome.started(),
            Ok(Some(FromGuest::Failed { what, errno, status })) => outcome.failed(what, errno, status),
            Ok(Some(FromGuest::Exited(exit))) => outcome.exited(exit),
            Ok(None) => return outcome.lost("it closed its control connection"),
            Err(error) => return outcome.lost(&format!("its control connection broke: {error}")),
        }
    }
}
