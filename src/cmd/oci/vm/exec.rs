//! `exec` in a container that is a VM: hv-init starts the process, and this one stands for it on the host: it carries its
//! streams and signals, and ends with its status.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use hv_common::sys::fork::{Side, fork};
use hv_common::wire::{self, FromGuest, Order, ToGuest, port};
use hv_container::oci::{self, config::Process};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};

use super::{Boot, console, give_terminal_of, plan};
use crate::cli::oci::ExecArgs;
use crate::cmd::oci::store::Record;
use crate::cmd::oci::{Fault, Result, create};
use crate::foreground::signals;
use crate::foreground::terminal::{self, Raw};

/// How long the guest may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts `process` in the guest, and waits for its end unless it is to be detached.
pub fn run(args: &ExecArgs, record: &Record, boot: &Boot, process: &Process) -> Result<u8> {
    if args.preserve_fds > 0 {
        return Err(Fault::new("--preserve-fds: descriptors of the host cannot be given to a VM's process"));
    }
    let size = process.terminal.then(|| match process.console_size {
        None if args.console_socket.is_none() => terminal::size(),
        _ => plan::size_of(Some(process)),
    });
    let order = Order {
        version: wire::VERSION,
        process: plan::command(process.clone(), size),
        rights: Some(oci::rights(process, record.config.linux.seccomp.as_ref())?),
    };
    let streams = match &args.console_socket {
        Some(path) if process.terminal => Some(give_terminal_of(console::connect(path)?, Some(process))?),
        Some(_) => return Err(Fault::new("--console-socket is for a process with a terminal")),
        None if process.terminal && args.detach => {
            return Err(Fault::new("a terminal needs --console-socket, or `exec` without --detach"));
        }
        None => None,
    };
    let store =
        hv_common::state::Store::open().map_err(|error| Fault::because("cannot find the VM", error))?;
    let dir = store.path().join(boot.sandbox.as_str());
    // Before any thread exists.
    let signals = signals::take().map_err(|failure| Fault::new(failure.message()))?;
    if !args.detach {
        let mut told = |word: std::result::Result<(), &Fault>| {
            let number = std::process::id() as i32;
            word.ok().and(args.pid_file.as_deref()).map_or(Ok(()), |path| create::write_pid(path, number))
        };
        return stand_for(&dir, &order, &signals, &mut told);
    }
    detach(args, streams, &dir, &order, &signals)
}

/// A process of its own stands for the guest's; its parent is whoever called hv, once hv has ended.
fn detach(
    args: &ExecArgs,
    streams: Option<OwnedFd>,
    dir: &Path,
    order: &Order,
    signals: &SignalFd,
) -> Result<u8> {
    let failed =
        |source: io::Error| Fault::because("cannot make a process that stands for the guest's", source);
    let (mut ours, mut theirs) = UnixStream::pair().map_err(failed)?;
    match fork().map_err(failed)? {
        Side::Parent { pid, .. } => {
            drop(theirs);
            let mut word = String::new();
            ours.read_to_string(&mut word).map_err(failed)?;
            match word.as_str() {
                STARTED => args
                    .pid_file
                    .as_deref()
                    .map_or(Ok(0), |path| create::write_pid(path, pid.as_raw_pid()).map(|()| 0)),
                "" => Err(Fault::new("the process that was to stand for the guest's was killed")),
                why => Err(Fault::new(why)),
            }
        }
        Side::Child => {
            drop(ours);
            let status = take_streams(streams).and_then(|()| {
                stand_for(dir, order, signals, &mut |word| {
                    let word = word.map_or_else(|fault| fault.message.as_str(), |()| STARTED);
                    let _ = theirs.write_all(word.as_bytes());
                    let _ = theirs.shutdown(Shutdown::Both);
                    Ok(())
                })
            });
            std::process::exit(status.map_or(1, i32::from));
        }
    }
}

/// What the child says when the guest's process runs.
const STARTED: &str = "started";

/// The terminal becomes the standard streams, and this process's own, so that it is told of its size.
fn take_streams(streams: Option<OwnedFd>) -> Result<()> {
    use std::os::fd::AsFd;
    let Some(terminal) = streams else { return Ok(()) };
    let take = || {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(&terminal)?;
        hv_common::sys::exec::set_standard_streams([terminal.as_fd(); 3])
    };
    take().map_err(|errno| Fault::because("cannot take the terminal", errno))
}

/// From the order to the status. `told` hears once how the start went.
fn stand_for(
    dir: &Path,
    order: &Order,
    signals: &SignalFd,
    told: &mut dyn FnMut(std::result::Result<(), &Fault>) -> Result<()>,
) -> Result<u8> {
    let begun = begin(dir, order);
    let session = match begun {
        Ok(session) => session,
        Err(fault) => {
            told(Err(&fault))?;
            return Err(fault);
        }
    };
    told(Ok(()))?;
    session.carry(order.process.terminal.is_some(), signals)
}

/// A process of the guest that runs.
struct Session {
    control: UnixStream,
    streams: Vec<UnixStream>,
}

fn begin(dir: &Path, order: &Order) -> Result<Session> {
    let failed = |source: io::Error| Fault::because("cannot reach the guest", source);
    let control = connect(dir, port::ORDERS).map_err(failed)?;
    control.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    wire::write_frame(&control, order).map_err(failed)?;
    let gone = || Fault::new("the guest has closed the connection: it is just ending");
    let number: u32 = wire::read_frame(&control).map_err(failed)?.ok_or_else(gone)?;
    let count = if order.process.terminal.is_some() { 1 } else { 3 };
    let streams = (0..count).map(|_| connect(dir, number)).collect::<io::Result<_>>().map_err(failed)?;
    match wire::read_frame(&control).map_err(failed)?.ok_or_else(gone)? {
        FromGuest::Started => {}
        FromGuest::Failed { what, errno, status } => return Err(not_started(order, what, errno, status)),
        FromGuest::Exited(_) => return Err(gone()),
    }
    control.set_read_timeout(None).map_err(failed)?;
    Ok(Session { control, streams })
}

/// In words that clients look for: those that mean 126 and 127 to them.
fn not_started(order: &Order, what: String, errno: i32, status: u8) -> Fault {
    // A guest's words, which a terminal would obey.
    let what: String = what.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let program = order.process.args.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    let message = match (status, errno) {
        (127, _) if !program.contains('/') => {
            format!("exec: {program:?}: executable file not found in $PATH")
        }
        (127, _) => format!("exec: {program:?}: no such file or directory"),
        (126, libc::EACCES) => format!("exec: {program:?}: permission denied"),
        (_, 0) => what,
        (_, errno) => format!("{what}: {}", io::Error::from_raw_os_error(errno)),
    };
    Fault::with_status(message, status)
}

/// Connects to a port of the guest's, by way of the device's socket (docs/vsock).
fn connect(dir: &Path, port: u32) -> io::Result<UnixStream> {
    let opened = File::open(dir)?;
    let name = hv_vmm::agent::vsock_path(Path::new(""));
    // A path may be longer than a socket's address.
    let mut stream = UnixStream::connect(format!("/proc/self/fd/{}/{}", opened.as_raw_fd(), name.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "CONNECT {port}")?;
    let mut line = Vec::new();
    let mut byte = [0u8];
    while line.last() != Some(&b'\n') && line.len() < 32 {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    stream.set_read_timeout(None)?;
    if line.starts_with(b"OK ") { Ok(stream) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
}

impl Session {
    /// Carries streams and signals until the process has ended and all that it wrote is handed on.
    fn carry(self, interactive: bool, signals: &SignalFd) -> Result<u8> {
        let failed = |source: io::Error| Fault::because("cannot carry the process's streams", source);
        let raw = if interactive && io::stdin().is_terminal() {
            Raw::enter().map_err(|failure| Fault::new(failure.message()))?
        } else {
            None
        };
        if interactive && io::stdout().is_terminal() {
            // Whoever has the other end may have given it a size before this process was told of changes.
            let size = ToGuest::Resize(terminal::size());
            wire::write_frame(&self.control, &size).map_err(failed)?;
        }
        // Its end comes when the last thread of output has.
        let (working, done) = mpsc::channel::<()>();
        for (index, stream) in self.streams.iter().enumerate() {
            let (mut from, mut to) =
                (stream.try_clone().map_err(failed)?, stream.try_clone().map_err(failed)?);
            if index == 0 {
                thread::spawn(move || {
                    let _ = io::copy(&mut io::stdin(), &mut to);
                    // A terminal is told in-band that there is no more to come.
                    let _ = if interactive { to.write_all(&[4]) } else { to.shutdown(Shutdown::Write) };
                });
            }
            if index > 0 || interactive {
                let working = working.clone();
                thread::spawn(move || {
                    let _ = if index == 2 {
                        copy(&mut from, io::stderr())
                    } else {
                        copy(&mut from, io::stdout())
                    };
                    drop(working);
                });
            }
        }
        drop(working);
        let status = self.wait(signals);
        // Nobody sends through it: it ends.
        let _ = done.recv();
        drop(raw);
        status
    }

    fn wait(&self, signals: &SignalFd) -> Result<u8> {
        loop {
            let mut ends = [PollFd::new(&self.control, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
            match poll(&mut ends, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Fault::because("cannot wait for the guest", errno)),
            }
            let spoken = !ends[0].revents().is_empty();
            for signal in signals::pending(signals) {
                let message = match signal {
                    Signal::SIGWINCH | Signal::SIGCONT => ToGuest::Resize(terminal::size()),
                    signal => ToGuest::Signal(signal as i32 as u8),
                };
                // It may be just ending.
                let _ = wire::write_frame(&self.control, &message);
            }
            if spoken {
                return match wire::read_frame(&self.control) {
                    Ok(Some(FromGuest::Exited(exit))) => Ok(exit.status()),
                    // The whole VM has ended, and with it every process.
                    _ => Ok(128 + libc::SIGKILL as u8),
                };
            }
        }
    }
}

/// Copies at once what comes.
fn copy(from: &mut UnixStream, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            length => to.write_all(&buffer[..length]).and_then(|()| to.flush())?,
        }
    }
}
