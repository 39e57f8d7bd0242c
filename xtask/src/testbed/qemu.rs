//! One QEMU process: its command line, the four serial ports, and its end.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::image::Host;
use super::{Run, Streams};
use crate::progress::tail;

/// Names of the serial ports, in the order of their numbers in the guest (from 1).
const PORTS: [&str; 4] = ["stdin", "stdout", "stderr", "status"];
/// How long the emulated host may take to start the command.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// How many lines of the host's console are shown when it dies.
const CONSOLE_TAIL_LINES: usize = 40;

/// Exit status when nobody reads the command's output any more, as if SIGPIPE had ended it.
const OUTPUT_CLOSED: u8 = 128 + 13;

/// What the threads around the machine report.
enum Event {
    /// One line from the status port.
    Status(String),
    /// The command wrote something.
    Output,
    /// What the command wrote could not be passed on.
    OutputClosed,
    /// The status port was closed: the machine is gone.
    Gone,
}

/// Boots `host` with `disk` as its second disk, runs the command and returns its exit status.
///
/// # Errors
/// QEMU did not start, the emulated host died before the command ended, or the time was up.
pub fn run(host: &Host, disk: &Path, run: &Run, streams: Streams, dir: &Path) -> Result<u8> {
    let listeners = PORTS
        .iter()
        .map(|port| {
            let path = dir.join(port);
            UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))
        })
        .collect::<Result<Vec<_>>>()?;
    let log_path = dir.join("qemu.log");
    let log = File::create(&log_path).with_context(|| format!("create {}", log_path.display()))?;
    let console = dir.join("console.log");
    let mut machine = Machine::start(&arguments(host, disk, run, dir, &console), log)?;

    let mut connected = Vec::with_capacity(PORTS.len());
    for (port, listener) in PORTS.iter().zip(listeners) {
        let stream = machine
            .accept(&listener)
            .with_context(|| format!("QEMU did not open the {port} port"))
            .map_err(|error| with_tail(error, "QEMU", &log_path))?;
        connected.push(stream);
    }
    let [stdin, stdout, stderr, status]: [UnixStream; 4] =
        connected.try_into().map_err(|_| anyhow!("QEMU opened too few ports"))?;

    feed(stdin, streams.stdin);
    let (report, events) = mpsc::channel();
    let outputs =
        [drain(stdout, streams.stdout, report.clone()), drain(stderr, streams.stderr, report.clone())];
    watch(status, report);
    let code =
        wait(&events, run.timeout, run.silence).map_err(|error| with_tail(error, "the host", &console));
    machine.stop();
    for output in outputs {
        if output.join().is_err() {
            bail!("a thread that passes the command's output on died");
        }
    }
    code
}

/// The time that the caller gave was up.
#[derive(Debug)]
pub struct TimeUp(Duration);

impl std::fmt::Display for TimeUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the command did not end within {} s", self.0.as_secs())
    }
}

impl std::error::Error for TimeUp {}

/// The status that the command ended with.
fn wait(events: &Receiver<Event>, timeout: Option<Duration>, silence: Option<Duration>) -> Result<u8> {
    let started = Instant::now();
    let mut running = false;
    loop {
        let limit = match (running, timeout) {
            (false, timeout) => Some(timeout.unwrap_or(BOOT_LIMIT)),
            (true, timeout) => timeout,
        };
        let event = match limit {
            Some(limit) => {
                match events.recv_timeout(next(limit.saturating_sub(started.elapsed()), silence)) {
                    Ok(event) => event,
                    Err(RecvTimeoutError::Timeout) if running && started.elapsed() < limit => {
                        bail!("the testbed's host stood still: no output for {silence:?}")
                    }
                    Err(RecvTimeoutError::Timeout) if running => return Err(TimeUp(limit).into()),
                    Err(RecvTimeoutError::Timeout) => {
                        bail!("the testbed did not boot within {} s", limit.as_secs())
                    }
                    Err(RecvTimeoutError::Disconnected) => Event::Gone,
                }
            }
            None => events.recv().unwrap_or(Event::Gone),
        };
        match event {
            Event::Status(line) if line == "started" => running = true,
            Event::Status(line) => {
                return line
                    .strip_prefix("exit ")
                    .and_then(|code| code.parse().ok())
                    .with_context(|| format!("the testbed said {line:?}"));
            }
            Event::Output => {}
            Event::OutputClosed => return Ok(OUTPUT_CLOSED),
            Event::Gone => bail!("the testbed's host died before the command ended"),
        }
    }
}

/// How long to wait for the next event: until the time is up, or it has been silent for too long.
fn next(left: Duration, silence: Option<Duration>) -> Duration {
    silence.map_or(left, |silence| left.min(silence))
}

/// Reads the status port line by line.
fn watch(status: UnixStream, report: Sender<Event>) {
    thread::spawn(move || {
        for line in BufReader::new(status).lines().map_while(Result::ok) {
            if report.send(Event::Status(line)).is_err() {
                return;
            }
        }
        // Nobody listens any more once the exit status has been read.
        let _ = report.send(Event::Gone);
    });
}

/// Passes `from` on to the command. The thread may stay blocked in a read until this process ends.
fn feed(mut port: UnixStream, from: Option<Box<dyn Read + Send>>) {
    thread::spawn(move || {
        if let Some(mut from) = from {
            // A command that has gone away reads no more; that is not an error here.
            let _ = std::io::copy(&mut from, &mut port);
        }
        // Only our half: a full close would make QEMU drop what the guest has not read yet. The
        // descriptor stays open for the same reason.
        let _ = port.shutdown(Shutdown::Write);
        std::mem::forget(port);
    });
}

/// Passes the command's output on to `to`, and reports when that is not possible any more.
fn drain(mut port: UnixStream, mut to: Box<dyn Write + Send>, report: Sender<Event>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = port.read(&mut buffer) {
            if to.write_all(&buffer[..length]).and_then(|()| to.flush()).is_err() {
                // Nobody listens any more once the exit status has been read.
                let _ = report.send(Event::OutputClosed);
                return;
            }
            let _ = report.send(Event::Output);
        }
    })
}

/// Adds the end of a log to an error, unless the log has nothing to do with it.
fn with_tail(error: anyhow::Error, whose: &str, log: &Path) -> anyhow::Error {
    if error.is::<TimeUp>() {
        return error;
    }
    let text = std::fs::read(log).unwrap_or_default();
    let text = tail(&text, CONSOLE_TAIL_LINES);
    if text.is_empty() { error } else { anyhow!("{error:#}; end of the log of {whose}:\n{text}") }
}

/// The QEMU process; killed when this is dropped, or when this process dies.
struct Machine {
    child: Child,
}

impl Machine {
    fn start(arguments: &[OsString], log: File) -> Result<Self> {
        let error_log = log.try_clone().context("duplicate the log's descriptor")?;
        // setpriv makes the kernel end QEMU when xtask dies, however it dies.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(error_log)
            .spawn()
            .context("run qemu-system-x86_64")?;
        Ok(Self { child })
    }

    /// Waits for QEMU's connection, or for its early end.
    fn accept(&mut self, listener: &UnixListener) -> Result<UnixStream> {
        listener.set_nonblocking(true).context("make the socket non-blocking")?;
        let started = Instant::now();
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).context("make the connection blocking")?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("accept"),
            }
            if let Some(status) = self.child.try_wait().context("wait for QEMU")? {
                bail!("QEMU ended at once: {status}");
            }
            if started.elapsed() > Duration::from_secs(30) {
                bail!("no connection within 30 s");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(&mut self) {
        // Both only fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// QEMU's command line: no default devices, two NVMe disks (the kernel numbers them in this order), and
/// four serial ports.
fn arguments(host: &Host, disk: &Path, run: &Run, dir: &Path, console: &Path) -> Vec<OsString> {
    let mut all: Vec<OsString> = Vec::new();
    let mut add = |option: &str, value: OsString| {
        all.push(option.into());
        all.push(value);
    };
    let cpus = if run.count { 1 } else { run.cpus };
    if run.count {
        add("-accel", "tcg,thread=single".into());
        add("-icount", "shift=0,sleep=off".into());
    } else {
        add("-accel", "tcg,thread=multi".into());
    }
    add("-cpu", "max".into());
    add("-smp", cpus.to_string().into());
    add("-m", run.memory_mib.to_string().into());
    add("-M", "q35".into());
    add("-display", "none".into());
    add("-serial", joined("file:", console));
    add("-kernel", host.kernel().into());
    add("-append", "console=ttyS0 root=/dev/nvme0n1 rw init=/init panic=-1 quiet mitigations=off".into());
    let own = [("root".to_owned(), host.disk()), ("hv".to_owned(), PathBuf::from(disk))];
    let more = run.drives.iter().enumerate().map(|(number, path)| (format!("drive{number}"), path.clone()));
    for (id, path) in own.into_iter().chain(more) {
        let options = format!("if=none,id={id},format=raw,cache=unsafe,snapshot=on,file=");
        add("-drive", joined(&options, &path));
        add("-device", format!("nvme,drive={id},serial={id}").into());
    }
    add("-device", "virtio-serial-pci".into());
    for (index, port) in PORTS.iter().enumerate() {
        add("-chardev", joined(&format!("socket,id={port},path="), &dir.join(port)));
        add("-device", format!("virtserialport,nr={},chardev={port},name={port}", index + 1).into());
    }
    for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        all.push(flag.into());
    }
    all
}

/// `prefix` and a path, with the path's commas doubled as QEMU's options want them.
fn joined(prefix: &str, path: &Path) -> OsString {
    let mut text = OsString::from(prefix);
    text.push(path.to_string_lossy().replace(',', ",,"));
    text
}
