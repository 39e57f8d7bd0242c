//! Real workloads, with Unix sockets in the place of vsock. Each test runs in a process of its own,
//! because PID 1 takes every child that ends, and with SIGCHLD blocked in all of its threads, because
//! a single one that does not block it would take it from the descriptor.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread::{self, JoinHandle};

use hv_common::exit::How;
use hv_common::root::Format;
use hv_common::spec::{Process, TerminalSize};
use hv_common::wire::{self, GuestRoot};

use super::*;

const ALONE: &str = "HV_INIT_TEST_ALONE";

/// Runs `body` as the only test of a new process.
fn alone(name: &str, body: fn()) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
    } else if std::env::var_os(ALONE).is_some() {
        body();
    } else {
        let name = format!("supervise::tests::{name}");
        let mut test = Command::new("env");
        test.arg("--block-signal=CHLD,PWR").arg(std::env::current_exe().unwrap());
        test.args([&name, "--exact", "--nocapture"]).env(ALONE, "1");
        let output = test.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{name} was not run");
    }
}

/// The host's side of a workload.
struct Host {
    control: UnixStream,
    streams: Vec<UnixStream>,
    guest: JoinHandle<Result<Exit, String>>,
}

fn config(script: &str, terminal: Option<TerminalSize>) -> GuestConfig {
    let process = Process {
        args: ["sh", "-c", script].iter().map(OsString::from).collect(),
        env: vec!["PATH=/usr/bin:/bin".into()],
        cwd: "/".into(),
        user: None,
        terminal,
        program: hv_common::Program::Image,
        landlock: Vec::new(),
    };
    let root = GuestRoot { format: Format::Erofs, writable: false };
    GuestConfig {
        version: wire::VERSION,
        hostname: "test".into(),
        modules: vec![],
        later: vec![],
        root,
        network: vec![],
        process,
        rights: None,
        given: wire::Given::default(),
        pids: None,
    }
}

fn start(config: GuestConfig) -> Host {
    let pair = || {
        let (host, guest) = UnixStream::pair().unwrap();
        guest.set_nonblocking(true).unwrap();
        (host, guest)
    };
    let (control, guest_control) = UnixStream::pair().unwrap();
    let count = if config.process.terminal.is_some() { 1 } else { 3 };
    let (streams, guest_streams): (Vec<_>, Vec<_>) = (0..count).map(|_| pair()).unzip();
    let guest = thread::spawn(move || {
        let mut guest_streams = guest_streams.into_iter().map(Into::into);
        let mut next = || guest_streams.next().unwrap();
        let connections = match count {
            1 => Connections::Terminal(next()),
            _ => Connections::Streams([next(), next(), next()]),
        };
        let prepared = prepare(&config, None).map_err(|failure| failure.to_string())?;
        let mut control = Control::of(guest_control.into());
        run(&config, &prepared, Later::default(), &mut control, connections)
            .map_err(|failure| failure.to_string())
    });
    Host { control, streams, guest }
}

impl Host {
    fn started(&self) {
        let message = wire::read_frame::<FromGuest>(&self.control).unwrap();
        assert_eq!(message, Some(FromGuest::Started));
    }

    fn order(&self, order: &ToGuest) {
        wire::write_frame(&self.control, order).unwrap();
    }

    fn read(&mut self, stream: usize) -> String {
        let mut text = String::new();
        self.streams[stream].read_to_string(&mut text).unwrap();
        text
    }

    fn read_exactly(&mut self, stream: usize, bytes: usize) -> Vec<u8> {
        let mut text = vec![0; bytes];
        self.streams[stream].read_exact(&mut text).unwrap();
        text
    }

    fn how(self) -> How {
        self.guest.join().unwrap().unwrap().how
    }
}

#[test]
fn streams_stay_apart_end_of_input_passes_and_the_status_comes_back() {
    alone("streams_stay_apart_end_of_input_passes_and_the_status_comes_back", || {
        let mut host = start(config("cat; echo err >&2; exit 3", None));
        host.started();
        host.streams[0].write_all(b"in\0put\n").unwrap();
        host.streams[0].shutdown(Shutdown::Write).unwrap();
        assert_eq!(host.read(1), "in\0put\n");
        assert_eq!(host.read(2), "err\n");
        assert_eq!(host.how(), How::Code(3));
    });
}

#[test]
fn a_reader_that_stops_holds_up_its_own_stream_alone() {
    alone("a_reader_that_stops_holds_up_its_own_stream_alone", || {
        // More than pipe and socket hold: the first writer stands still until it is read.
        let script =
            "yes 0123456789abcde | head -c 10000000 & yes error | head -c 3000000 >&2; wait; echo end";
        let mut host = start(config(script, None));
        host.started();
        let errors = host.read_exactly(2, 3_000_000);
        assert!(errors.chunks(6).all(|line| line == b"error\n"));
        let output = host.read(1);
        assert_eq!(output.len(), 10_000_004);
        assert!(output.as_bytes()[..10_000_000].chunks(16).all(|line| line == b"0123456789abcde\n"));
        assert_eq!(host.how(), How::Code(0));
    });
}

#[test]
fn what_was_written_before_the_end_still_arrives() {
    alone("what_was_written_before_the_end_still_arrives", || {
        let mut host = start(config("head -c 60000 /dev/zero; kill -9 $$", None));
        host.started();
        assert_eq!(host.read(1).len(), 60_000);
        assert_eq!(host.how(), How::Signal(9));
    });
}

#[test]
fn a_closed_output_breaks_the_workloads_pipe() {
    alone("a_closed_output_breaks_the_workloads_pipe", || {
        let mut host = start(config("exec yes", None));
        host.started();
        host.streams.remove(1);
        assert_eq!(host.how(), How::Signal(13));
    });
}

#[test]
fn signals_reach_the_workload() {
    alone("signals_reach_the_workload", || {
        let mut host =
            start(config("trap 'echo usr; exit 9' USR1; echo ready; while :; do sleep 0.01; done", None));
        host.started();
        assert_eq!(host.read_exactly(1, 6), b"ready\n");
        host.order(&ToGuest::Signal(libc::SIGUSR1 as u8));
        assert_eq!(host.read(1), "usr\n");
        assert_eq!(host.how(), How::Code(9));
    });
}

#[test]
fn without_a_monitor_there_is_no_workload() {
    alone("without_a_monitor_there_is_no_workload", || {
        let host = start(config("exec sleep 1000", None));
        host.started();
        drop((host.control, host.streams));
        assert_eq!(host.guest.join().unwrap().unwrap().how, How::Signal(9));
    });
}

#[test]
fn a_terminal_has_its_size_passes_bytes_and_hangs_up() {
    alone("a_terminal_has_its_size_passes_bytes_and_hangs_up", || {
        let script = "stty size; trap 'stty size; exit 4' WINCH; read line; echo got $line; \
            while :; do sleep 0.01; done";
        let mut host = start(config(script, Some(TerminalSize { rows: 31, cols: 97 })));
        host.started();
        assert_eq!(host.read_exactly(0, 7), b"31 97\r\n");
        host.streams[0].write_all(b"x\n").unwrap();
        assert_eq!(host.read_exactly(0, 3 + 7), b"x\r\ngot x\r\n");
        host.order(&ToGuest::Resize(TerminalSize { rows: 5, cols: 6 }));
        assert_eq!(host.read(0), "5 6\r\n");
        assert_eq!(host.how(), How::Code(4));
    });
}

#[test]
fn much_passes_through_a_terminal_in_both_directions() {
    alone("much_passes_through_a_terminal_in_both_directions", || {
        let script = "stty raw -echo; echo ready; head -c 1000000 | sha1sum; yes abc | head -c 1000000";
        let mut host = start(config(script, Some(TerminalSize { rows: 1, cols: 1 })));
        host.started();
        assert_eq!(host.read_exactly(0, 6), b"ready\n");
        host.streams[0].write_all(&[b'z'; 1_000_000]).unwrap();
        let output = host.read(0);
        let (digest, text) = output.split_once('\n').unwrap();
        assert_eq!(digest, "14f2601c456286d728e31c5119cbb75ea680db5e  -");
        assert_eq!(text.len(), 1_000_000);
        assert!(text.as_bytes().chunks(4).all(|line| line == b"abc\n"));
        assert_eq!(host.how(), How::Code(0));
    });
}

#[test]
fn a_program_that_is_not_there_is_no_start() {
    alone("a_program_that_is_not_there_is_no_start", || {
        let mut asked = config("", None);
        asked.process.args = vec!["/no/such".into()];
        let host = start(asked);
        let failure = host.guest.join().unwrap().unwrap_err();
        assert!(failure.contains("/no/such"), "{failure}");
    });
}

#[test]
fn orphans_are_taken_and_do_not_end_the_run() {
    alone("orphans_are_taken_and_do_not_end_the_run", || {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let mut host = start(config("(sh -c 'sleep 0.05; exit 5' &) ; sleep 0.2; echo done", None));
        host.started();
        assert_eq!(host.read(1), "done\n");
        assert_eq!(host.how(), How::Code(0));
        assert!(wait(WaitOptions::NOHANG).is_err(), "no child is left");
    });
}
