//! Runs a program in a terminal: a person's, as far as the program can tell.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

const PATIENCE: Duration = Duration::from_secs(120);

/// A program in a terminal.
pub struct InTerminal {
    child: Child,
    ours: File,
    theirs: File,
    output: Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

impl InTerminal {
    /// Starts it in a terminal of this size.
    pub fn start(mut command: Command, rows: u16, cols: u16) -> InTerminal {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let theirs: OwnedFd = rustix::fs::open(&name, flags, rustix::fs::Mode::empty()).unwrap();
        let (ours, theirs) = (File::from(ours), File::from(theirs));
        set_size(&ours, rows, cols);
        for stream in [Command::stdin, Command::stdout, Command::stderr] {
            stream(&mut command, theirs.try_clone().unwrap());
        }
        let child = command.spawn().unwrap();
        let (tell, output) = channel();
        let mut reading = ours.try_clone().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reading.read(&mut buffer) {
                if tell.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        InTerminal { child, ours, theirs, output, seen: Vec::new() }
    }

    /// Types.
    pub fn type_in(&mut self, text: &str) {
        self.ours.write_all(text.as_bytes()).unwrap();
    }

    /// Gives the terminal another size, and tells the program as a terminal does.
    pub fn resize(&self, rows: u16, cols: u16) {
        set_size(&self.ours, rows, cols);
        kill_process(Pid::from_child(&self.child), Signal::WINCH).unwrap();
    }

    /// Waits until `text` was shown.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !String::from_utf8_lossy(&self.seen).contains(text) {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.extend(bytes),
                Err(_) => panic!("no {text:?} in {:?}", String::from_utf8_lossy(&self.seen)),
            }
        }
    }

    /// Whether `text` was shown by the time of the last [`InTerminal::wait_for`].
    pub fn has_shown(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.seen).contains(text)
    }

    /// The terminal's mode, as the next program would find it.
    pub fn mode(&self) -> Termios {
        tcgetattr(&self.theirs).unwrap()
    }

    /// Process id of the program.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for the end; the exit status, if it was one.
    #[track_caller]
    pub fn status(&mut self) -> Option<i32> {
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).unwrap();
        let limit = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)).unwrap();
        assert!(ended > 0, "did not end within {PATIENCE:?}: {:?}", String::from_utf8_lossy(&self.seen));
        self.child.wait().unwrap().code()
    }
}

impl Drop for InTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set_size(terminal: &File, rows: u16, cols: u16) {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}
