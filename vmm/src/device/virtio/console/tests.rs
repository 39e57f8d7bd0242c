use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use proptest::prelude::*;

use super::super::testing::{Buffer, Rig, hostile};
use super::control::*;
use super::*;
use crate::device::serial;

const TO_DRIVER: usize = CONTROL_IN;
const FROM_DRIVER: usize = CONTROL_OUT;

/// A console, a port to a socket, and a port to a file; the console's output, and the other ends.
struct Bench {
    rig: Rig,
    console: serial::Console,
    peer: UnixStream,
    file: std::fs::File,
}

fn bench() -> Bench {
    let console = serial::Console::new(false);
    let (ours, peer) = UnixStream::pair().unwrap();
    peer.set_nonblocking(true).unwrap();
    let file = tempfile::tempfile().unwrap();
    let named = vec![
        ("agent".to_owned(), End::stream(ours).unwrap()),
        ("log".to_owned(), End::file(file.try_clone().unwrap())),
    ];
    let device = VirtioConsole::new(End::Console(console.clone()), named).unwrap();
    Bench { rig: Rig::new(Box::new(device)), console, peer, file }
}

impl Bench {
    fn say(&mut self, port: u32, event: u16, value: u16) {
        let message = Message { port, event, value }.to_bytes();
        self.rig.request(FROM_DRIVER, &[Buffer::Out(message)]);
    }

    /// The next thing the driver is told.
    fn hear(&mut self) -> Option<(Message, Vec<u8>)> {
        self.rig.submit(TO_DRIVER, &[Buffer::In(64)]);
        self.rig.kick(TO_DRIVER);
        let used = self.rig.used(TO_DRIVER)?;
        let bytes = &used.bytes[..used.written as usize];
        Some((Message::from_bytes(bytes[..8].try_into().unwrap()), bytes[8..].to_vec()))
    }

    /// As Linux's driver begins; all ports are set up and open.
    fn started() -> Bench {
        let mut bench = bench();
        bench.say(0, DEVICE_READY, 1);
        (0..3).for_each(|port| {
            assert_eq!(bench.hear().unwrap().0, Message { port, event: PORT_ADD, value: 1 })
        });
        for port in 0..3 {
            bench.say(port, PORT_READY, 1);
            bench.hear().unwrap();
            bench.hear().unwrap();
            bench.say(port, PORT_OPEN, 1);
        }
        bench
    }
}

#[test]
fn the_driver_is_told_of_every_port() {
    let mut bench = bench();
    assert_eq!(bench.hear(), None, "nothing before it asks");
    bench.rig.start(u64::MAX);
    bench.say(0, DEVICE_READY, 1);
    for port in 0..3 {
        assert_eq!(bench.hear(), Some((Message { port, event: PORT_ADD, value: 1 }, vec![])));
    }
    bench.say(0, PORT_READY, 1);
    bench.say(1, PORT_READY, 1);
    let told = |port, event, name: &[u8]| Some((Message { port, event, value: 1 }, name.to_vec()));
    assert_eq!(bench.hear(), told(0, CONSOLE_PORT, b""));
    assert_eq!(bench.hear(), told(0, PORT_OPEN, b""));
    assert_eq!(bench.hear(), told(1, PORT_NAME, b"agent"));
    assert_eq!(bench.hear(), told(1, PORT_OPEN, b""));
}

#[test]
fn queues_belong_to_ports() {
    let queues: Vec<_> = (0..8).map(port_of).collect();
    let all = [
        Some((0, true)),
        Some((0, false)),
        None,
        None,
        Some((1, true)),
        Some((1, false)),
        Some((2, true)),
        Some((2, false)),
    ];
    assert_eq!(queues, all);
    assert!((0..MAX_PORTS).all(|port| port_of(input_queue(port)) == Some((port, true))));
}

#[test]
fn output_reaches_console_socket_and_file() {
    let mut bench = Bench::started();
    for (port, text) in [(0, "to the console"), (1, "to the socket"), (2, "to the file")] {
        bench.rig.request(input_queue(port) + 1, &[Buffer::Out(text.into())]);
    }
    assert_eq!(bench.console.bytes(), b"to the console");
    let mut bytes = [0; 64];
    let count = bench.peer.read(&mut bytes).unwrap();
    assert_eq!(&bytes[..count], b"to the socket");
    let mut text = String::new();
    std::io::Seek::rewind(&mut bench.file).unwrap();
    bench.file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "to the file");
}

#[test]
fn input_waits_until_somebody_in_the_guest_reads() {
    let mut bench = Bench::started();
    bench.say(1, PORT_OPEN, 0);
    bench.peer.write_all(b"hello").unwrap();
    bench.rig.submit(4, &[Buffer::In(3)]);
    bench.rig.kick(4);
    assert!(bench.rig.used(4).is_none());
    bench.say(1, PORT_OPEN, 1);
    assert_eq!(bench.rig.used(4).unwrap().bytes, b"hel");
    assert_eq!(&bench.rig.request(4, &[Buffer::In(16)]).bytes[..2], b"lo");
    bench.rig.submit(4, &[Buffer::In(16)]);
    bench.rig.kick(4);
    bench.peer.write_all(b"later").unwrap();
    bench.rig.run();
    assert_eq!(bench.rig.used(4).unwrap().written, 5, "without a notification");
}

#[test]
fn a_peer_that_hangs_up_closes_the_port() {
    let mut bench = Bench::started();
    drop(bench.peer);
    let (_, peer) = UnixStream::pair().unwrap();
    bench.peer = peer;
    bench.rig.submit(4, &[Buffer::In(16)]);
    bench.rig.kick(4);
    assert_eq!(bench.hear().unwrap().0, Message { port: 1, event: PORT_OPEN, value: 0 });
    bench.rig.request(5, &[Buffer::Out(vec![1; 100])]);
    assert!(!bench.rig.failed(), "what is written to it goes nowhere");
}

#[test]
fn bug_15_a_slow_reader_gets_every_byte_once_and_nothing_is_kept() {
    let mut bench = Bench::started();
    let data: Vec<u8> = (0..1 << 20).map(|at: u32| (at / 251 + at % 251) as u8).collect();
    for piece in data.chunks(32 << 10) {
        bench.rig.submit(5, &[Buffer::Out(piece.to_vec())]);
    }
    bench.rig.kick(5);
    let mut got = Vec::new();
    let mut piece = [0; 4093];
    while got.len() < data.len() {
        match bench.peer.read(&mut piece) {
            Ok(count) => got.extend_from_slice(&piece[..count]),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        bench.rig.run();
    }
    assert!(got == data);
    assert_eq!((0..).take_while(|_| bench.rig.used(5).is_some()).count(), 32);
}

#[test]
fn bug_17_a_file_does_not_grow_for_ever() {
    let mut bench = Bench::started();
    for _ in 0..FILE_LIMIT / (1 << 20) + 2 {
        bench.rig.request(7, &[Buffer::Out(vec![7; 1 << 20])]);
    }
    assert_eq!(bench.file.metadata().unwrap().len(), FILE_LIMIT);
    assert_eq!(bench.hear().unwrap().0, Message { port: 2, event: PORT_OPEN, value: 0 });
}

#[test]
fn bug_09_control_messages_leave_nothing_behind() {
    let mut bench = bench();
    for _ in 0..10_000 {
        bench.say(0, DEVICE_READY, 1);
        bench.say(1, PORT_READY, 1);
        bench.say(77, PORT_READY, 1);
        bench.say(u32::MAX, PORT_OPEN, 1);
        bench.say(1, 0x4711, 9);
    }
    assert_eq!((0..100).map_while(|_| bench.hear()).count(), 5, "as often as there is something to say");
}

#[test]
fn messages_that_are_too_short_are_none() {
    let mut bench = bench();
    for len in 1..8 {
        bench.rig.request(FROM_DRIVER, &[Buffer::Out(vec![0; len])]);
    }
    bench.rig.request(FROM_DRIVER, &[Buffer::In(8)]);
    assert!(!bench.rig.failed());
    assert_eq!(bench.hear(), None);
}

#[test]
fn a_driver_of_one_port_needs_no_control_queue() {
    let console = serial::Console::new(false);
    let device = VirtioConsole::new(End::Console(console.clone()), vec![]).unwrap();
    let mut rig = Rig::with_features(Box::new(device), !MULTIPORT);
    rig.request(1, &[Buffer::Out(b"early".to_vec())]);
    assert_eq!(console.bytes(), b"early");
    rig.kick(2);
    rig.kick(3);
    assert!(!rig.failed());
}

#[test]
fn more_ports_than_there_can_be_are_left_out() {
    let named =
        (0..40).map(|number| (format!("p{number}"), End::Console(serial::Console::new(false)))).collect();
    let device = VirtioConsole::new(End::Console(serial::Console::new(false)), named).unwrap();
    assert_eq!(device.ports.len(), MAX_PORTS);
    assert_eq!(device.queue_sizes().len(), 2 * (MAX_PORTS + 1));
}

#[test]
fn sockets_are_connected_to_and_files_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let at = |file: &str| dir.path().join(file);
    let listener = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let (stream, file) = (End::open(&at("socket")).unwrap(), End::open(&at("log")).unwrap());
    assert!(matches!(stream, End::Stream(_)) && matches!(file, End::File { .. }));
    listener.accept().unwrap();
    drop(listener);
    assert!(End::open(&at("socket")).unwrap_err().to_string().contains("connect to the socket"));
    assert!(End::open(&at("no/such")).unwrap_err().to_string().contains("append to the file"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn survives_any_ring(hostile in hostile(8), peer in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut bench = bench();
        bench.peer.write_all(&peer).unwrap();
        bench.rig.survive(&hostile);
    }
}
