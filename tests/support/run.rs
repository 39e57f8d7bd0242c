//! Runs a program with a deadline, keeping its streams apart.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// How long a program may take: an emulated host starts a guest in a few seconds, several at once in more.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status; None if a signal ended it.
    pub status: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Asserts the status; shows everything if it is another.
    #[track_caller]
    pub fn expect(self, status: i32) -> Finished {
        assert_eq!(self.status, Some(status), "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }
}

/// Runs `command` to its end with these bytes on standard input.
#[track_caller]
pub fn finish(command: Command, stdin: &[u8]) -> Finished {
    let mut running = Running::start(command);
    running.write(stdin);
    running.finish()
}

/// Waits for a program that was started with its own streams, of which standard error is ours.
#[track_caller]
pub fn wait(mut child: Child) -> Finished {
    let (tell, events) = channel();
    read(child.stderr.take().unwrap(), tell, Event::Stderr);
    let deadline = Instant::now() + PATIENCE;
    let (stdout, stderr) = (Vec::new(), Vec::new());
    Running { child, events, input: None, deadline, open: 1, stdout, stderr }.finish()
}

enum Event {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    End,
}

/// A program that runs.
pub struct Running {
    child: Child,
    events: Receiver<Event>,
    input: Option<Sender<Vec<u8>>>,
    deadline: Instant,
    open: usize,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Running {
    /// Starts it with pipes for its three streams.
    #[track_caller]
    pub fn start(mut command: Command) -> Running {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (tell, events) = channel();
        let (input, chunks) = channel::<Vec<u8>>();
        let mut stdin = child.stdin.take().unwrap();
        // Ends, and closes the pipe, with the sender; a program need not read its input.
        thread::spawn(move || chunks.iter().try_for_each(|chunk| stdin.write_all(&chunk)));
        read(child.stdout.take().unwrap(), tell.clone(), Event::Stdout);
        read(child.stderr.take().unwrap(), tell, Event::Stderr);
        let deadline = Instant::now() + PATIENCE;
        Running {
            child,
            events,
            input: Some(input),
            deadline,
            open: 2,
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    /// Process id of the program.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Process id of what holds a microVM's guest: the program's one child.
    pub fn holder(&self) -> Pid {
        let pid = self.pid().as_raw_pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let first = children.split_whitespace().next().and_then(|child| Pid::from_raw(child.parse().ok()?));
        first.expect("a microVM that runs has a process of its own")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Queues bytes for its standard input.
    pub fn write(&mut self, bytes: &[u8]) {
        if let Some(input) = &self.input {
            let _ = input.send(bytes.to_vec());
        }
    }

    /// Closes its standard input after what was queued.
    pub fn end_input(&mut self) {
        self.input = None;
    }

    /// Waits until its standard output contains `text`.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.stdout).contains(text) {
            assert!(self.open > 0, "ended without {text:?}; {}", self.so_far());
            self.take_event(&format!("for {text:?}"));
        }
    }

    /// Whether its standard output contains `text` by now.
    pub fn has_printed(&mut self, text: &str) -> bool {
        while let Ok(event) = self.events.try_recv() {
            self.note(event);
        }
        String::from_utf8_lossy(&self.stdout).contains(text)
    }

    /// Waits until its standard error contains `text`.
    #[track_caller]
    pub fn wait_for_error(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.stderr).contains(text) {
            assert!(self.open > 0, "ended without {text:?}; {}", self.so_far());
            self.take_event(&format!("for {text:?}"));
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        self.end_input();
        while self.open > 0 {
            self.take_event("for the end of its output");
        }
        let status = self.wait();
        let stderr = String::from_utf8_lossy(&self.stderr).into_owned();
        Finished { status: status.code(), stdout: std::mem::take(&mut self.stdout), stderr }
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        let process = pidfd_open(self.pid(), PidfdFlags::empty()).unwrap();
        let left = self.deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)).unwrap();
        assert!(ended > 0, "its output ended, but it did not; {}", self.so_far());
        self.child.wait().unwrap()
    }

    #[track_caller]
    fn take_event(&mut self, waiting: &str) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.events.recv_timeout(left) {
            Ok(event) => self.note(event),
            Err(_) => panic!("waited {PATIENCE:?} {waiting}; {}", self.so_far()),
        }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Stdout(bytes) => self.stdout.extend(bytes),
            Event::Stderr(bytes) => self.stderr.extend(bytes),
            Event::End => self.open -= 1,
        }
    }

    fn so_far(&self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]).into_owned();
        format!("stdout: {}\nstderr: {}", text(&self.stdout), text(&self.stderr))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed leaves nothing running; one that succeeded has waited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(mut from: impl Read + Send + 'static, tell: Sender<Event>, event: fn(Vec<u8>) -> Event) {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if tell.send(event(buffer[..length].to_vec())).is_err() {
                return;
            }
        }
        let _ = tell.send(Event::End);
    });
}
