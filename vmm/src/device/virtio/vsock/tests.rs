use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::testing::{Action, Buffer, Rig, hostile};
use super::bridge::MOST;
use super::packet::{BOTH, NO_MORE_RECEIVE, NO_MORE_SEND, Op, STREAM};
use super::*;

const GUEST: u64 = 3;
const PORT: u32 = 1024;
const EPHEMERAL: u32 = 50_000;
/// What the guest of these tests has room for.
const GUEST_ROOM: u32 = 128 << 10;
const GUEST_BUFFER: usize = 4096;

/// A guest with the vsock driver, and the directory of the host's sockets.
struct Guest {
    rig: Rig,
    dir: TempDir,
    buffers: usize,
}

impl Guest {
    /// One that has given the device room for this many packets.
    fn new(buffers: usize) -> Guest {
        let dir = tempfile::tempdir().unwrap();
        let device = Vsock::new(GUEST as u32, &dir.path().join("vsock")).unwrap();
        let mut guest = Guest { rig: Rig::new(Box::new(device)), dir, buffers: 0 };
        guest.make_room(buffers);
        guest
    }

    fn make_room(&mut self, buffers: usize) {
        (0..buffers).for_each(|_| {
            self.rig.submit(TO_GUEST, &[Buffer::In(GUEST_BUFFER)]);
        });
        self.buffers += buffers;
        self.rig.kick(TO_GUEST);
    }

    fn header(&self, op: Op) -> Header {
        Header {
            src_cid: GUEST,
            dst_cid: HOST_CID,
            src_port: EPHEMERAL,
            dst_port: PORT,
            kind: STREAM,
            op: op as u16,
            buf_alloc: GUEST_ROOM,
            ..Header::default()
        }
    }

    fn send(&mut self, header: Header, payload: &[u8]) {
        let header = Header { len: payload.len() as u32, ..header };
        self.rig.request(FROM_GUEST, &[Buffer::Out(header.bytes().to_vec()), Buffer::Out(payload.to_vec())]);
    }

    fn say(&mut self, op: Op) {
        self.send(self.header(op), &[]);
    }

    /// The next packet that the device sent; the buffer goes back to it.
    fn hear(&mut self) -> Option<(Header, Vec<u8>)> {
        self.rig.run();
        let used = self.rig.used(TO_GUEST)?;
        self.buffers -= 1;
        self.make_room(1);
        let header = Header::parse(used.bytes[..Header::BYTES].try_into().unwrap());
        assert_eq!(used.written, 44 + header.len);
        assert_eq!((header.src_cid, header.dst_cid, header.kind), (HOST_CID, GUEST, STREAM));
        let payload = used.bytes[Header::BYTES..used.written as usize].to_vec();
        Some((header, payload))
    }

    fn hear_op(&mut self) -> Option<(Op, u32)> {
        self.hear().map(|(header, _)| (Op::from_number(header.op).unwrap(), header.flags))
    }

    fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.dir.path().join(format!("vsock_{port}"))).unwrap()
    }

    /// A connection of the guest's to the host, established.
    fn connect(&mut self) -> UnixStream {
        let listener = self.listen(PORT);
        self.say(Op::Request);
        let (socket, _) = listener.accept().unwrap();
        assert_eq!(self.hear_op(), Some((Op::Response, 0)));
        socket.set_nonblocking(true).unwrap();
        socket
    }

    /// Asks from the host for a port of the guest.
    fn connect_from_host(&self, line: &str) -> UnixStream {
        let mut socket = UnixStream::connect(self.dir.path().join("vsock")).unwrap();
        socket.write_all(line.as_bytes()).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }
}

fn read(mut socket: &UnixStream) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    match socket.read(&mut bytes) {
        Ok(count) => bytes.truncate(count),
        Err(error) if error.kind() == ErrorKind::WouldBlock => bytes.clear(),
        Err(error) => panic!("{error}"),
    }
    bytes
}

/// The other end has closed, or shut down for writing.
fn at_end(mut socket: &UnixStream) -> bool {
    matches!(socket.read(&mut [0]), Ok(0))
}

#[test]
fn guest_connects_and_both_talk() {
    let mut guest = Guest::new(8);
    let mut host = guest.connect();
    guest.send(guest.header(Op::Data), b"from the guest");
    assert_eq!(read(&host), b"from the guest");
    host.write_all(b"from the host").unwrap();
    let (header, payload) = guest.hear().unwrap();
    assert_eq!((header.op, header.src_port, header.dst_port), (Op::Data as u16, PORT, EPHEMERAL));
    assert_eq!(payload, b"from the host");
    assert_eq!(header.fwd_cnt, 14, "carries what has left the buffer");
    assert_eq!(guest.hear_op(), None);
}

#[test]
fn nobody_listens() {
    let mut guest = Guest::new(4);
    guest.say(Op::Request);
    assert_eq!(guest.hear_op(), Some((Op::Reset, 0)));
    guest.send(guest.header(Op::Data), b"?");
    assert_eq!(guest.hear_op(), Some((Op::Reset, 0)));
    guest.say(Op::Reset);
    assert_eq!(guest.hear_op(), None, "a reset is not answered");
}

#[test]
fn host_connects() {
    let mut guest = Guest::new(4);
    let mut host = guest.connect_from_host("CONNECT 52\nearly");
    let (request, _) = guest.hear().unwrap();
    assert_eq!((request.op, request.dst_port), (Op::Request as u16, 52));
    assert!(read(&host).is_empty(), "not before the guest agrees");
    let reply = |op| Header {
        src_port: 52,
        dst_port: request.src_port,
        op: op as u16,
        ..Guest::header(&Guest::new(0), Op::Response)
    };
    guest.send(reply(Op::Response), &[]);
    assert_eq!(read(&host), format!("OK {}\n", request.src_port).as_bytes());
    assert_eq!(guest.hear().unwrap().1, b"early");
    guest.send(reply(Op::Data), b"hello");
    assert_eq!(read(&host), b"hello");
    host.write_all(b"again").unwrap();
    assert_eq!(guest.hear().unwrap().1, b"again");
    guest.send(reply(Op::Response), &[]);
    assert_eq!(guest.hear_op(), Some((Op::Reset, 0)), "a second response is a fault");
    assert!(at_end(&host));
}

#[test]
fn host_connects_to_nobody() {
    let mut guest = Guest::new(4);
    let host = guest.connect_from_host("CONNECT 52\n");
    let (request, _) = guest.hear().unwrap();
    let refuse = Header { src_port: 52, dst_port: request.src_port, ..guest.header(Op::Reset) };
    guest.send(refuse, &[]);
    assert!(at_end(&host));
    let rude = guest.connect_from_host("HELLO\n");
    guest.rig.run();
    assert!(at_end(&rude));
}

#[test]
fn host_that_connects_before_the_driver_is_up_is_served_later() {
    let dir = tempfile::tempdir().unwrap();
    let device = Vsock::new(GUEST as u32, &dir.path().join("vsock")).unwrap();
    let mut guest = Guest { rig: Rig::untouched(Box::new(device)), dir, buffers: 0 };
    let _host = guest.connect_from_host("CONNECT 9\n");
    guest.rig.run();
    guest.rig.start(u64::MAX);
    guest.make_room(1);
    assert_eq!(guest.hear_op(), Some((Op::Request, 0)));
}

#[test]
fn host_closes_half_and_the_guest_goes_on_sending() {
    let mut guest = Guest::new(8);
    let mut host = guest.connect();
    host.write_all(b"last words").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.hear().unwrap().1, b"last words");
    assert_eq!(guest.hear_op(), Some((Op::Shutdown, NO_MORE_SEND)));
    guest.send(guest.header(Op::Data), b"answer");
    assert_eq!(read(&host), b"answer");
    guest.send(Header { flags: BOTH, ..guest.header(Op::Shutdown) }, &[]);
    assert_eq!(guest.hear_op(), Some((Op::Reset, 0)), "which ends the guest's wait");
    assert!(at_end(&host));
}

#[test]
fn guest_closes_half_and_the_host_goes_on_sending() {
    let mut guest = Guest::new(8);
    let mut host = guest.connect();
    guest.send(guest.header(Op::Data), b"question");
    guest.send(Header { flags: NO_MORE_SEND, ..guest.header(Op::Shutdown) }, &[]);
    assert_eq!(read(&host), b"question");
    assert!(at_end(&host));
    host.write_all(b"answer").unwrap();
    assert_eq!(guest.hear().unwrap().1, b"answer");
    guest.send(guest.header(Op::Data), b"liar");
    assert_eq!(guest.hear_op(), Some((Op::Reset, 0)), "it said that it would not send");
}

#[test]
fn guest_that_receives_no_more_breaks_the_hosts_pipe() {
    let mut guest = Guest::new(8);
    let mut host = guest.connect();
    guest.send(Header { flags: NO_MORE_RECEIVE, ..guest.header(Op::Shutdown) }, &[]);
    assert_eq!(host.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    guest.send(guest.header(Op::Data), b"still sending");
    assert_eq!(read(&host), b"still sending");
}

#[test]
fn host_that_closes_lets_the_guest_read_what_it_sent() {
    let mut guest = Guest::new(8);
    let mut host = guest.connect();
    host.write_all(&[7; 10_000]).unwrap();
    drop(host);
    let (mut bytes, mut done) = (0, 0);
    while let Some((header, payload)) = guest.hear() {
        bytes += payload.len();
        if header.op == Op::Shutdown as u16 {
            done = header.flags;
        }
    }
    assert_eq!((bytes, done), (10_000, BOTH));
    guest.send(guest.header(Op::Data), b"to nobody");
    guest.say(Op::Reset);
    assert_eq!(guest.hear_op(), None);
}

#[test]
fn bug_15_ten_megabytes_arrive_in_order_whatever_the_reader_does() {
    let mut guest = Guest::new(8);
    let host = guest.connect();
    let data: Vec<u8> = (0..10 << 20).map(|i: u32| (i / 7) as u8).collect();
    let (mut sent, mut got) = (0, Vec::new());
    let (mut room, mut forwarded) = (256u32 << 10, 0);
    let mut turn = 0usize;
    while got.len() < data.len() {
        turn += 1;
        assert!(turn < 10_000, "stalled at {} of {sent} sent", got.len());
        let credit = (room - (sent as u32).wrapping_sub(forwarded)) as usize;
        let len = credit.min(64 << 10).min(data.len() - sent);
        if len > 0 {
            guest.send(guest.header(Op::Data), &data[sent..sent + len]);
            sent += len;
        }
        // A reader that lets everything fill up now and then.
        if len == 0 || turn % 9 < 5 {
            got.extend(read(&host));
        }
        while let Some((header, _)) = guest.hear() {
            assert_eq!(header.op, Op::CreditUpdate as u16);
            (room, forwarded) = (header.buf_alloc, header.fwd_cnt);
        }
    }
    assert!(got == data);
}

#[test]
fn host_to_guest_stops_at_the_guests_credit_and_asks_once() {
    let mut guest = Guest::new(64);
    let mut host = guest.connect();
    let data: Vec<u8> = (0..200_000u32).map(|i| (i / 3) as u8).collect();
    let mut written = 0;
    let mut got = Vec::new();
    let mut asked = 0;
    while got.len() < GUEST_ROOM as usize || asked == 0 {
        written += host.write(&data[written..]).unwrap_or(0);
        match guest.hear() {
            Some((header, _)) if header.op == Op::CreditRequest as u16 => asked += 1,
            Some((_, payload)) => got.extend(payload),
            None => {}
        }
    }
    assert_eq!(got.len(), GUEST_ROOM as usize, "not one byte more than there is room for");
    written += host.write(&data[written..]).unwrap_or(0);
    assert_eq!((guest.hear_op(), asked), (None, 1));
    guest.send(Header { fwd_cnt: GUEST_ROOM, ..guest.header(Op::CreditUpdate) }, &[]);
    while got.len() < data.len() {
        written += host.write(&data[written..]).unwrap_or(0);
        got.extend(guest.hear().map(|(_, payload)| payload).unwrap_or_default());
    }
    assert!(got == data);
}

#[test]
fn bug_25_a_full_guest_leaves_the_event_loop_idle() {
    let mut guest = Guest::new(1);
    let mut host = guest.connect();
    assert_eq!(guest.buffers, 1);
    host.write_all(&[1; 20_000]).unwrap();
    // Fails when the loop does not come to rest; there is one buffer, then none.
    guest.rig.run();
    host.write_all(&[1; 20_000]).unwrap();
    guest.rig.run();
    let mut got = 0;
    while let Some((_, payload)) = guest.hear() {
        got += payload.len();
    }
    assert_eq!(got, 40_000, "room that comes later is used");
}

#[test]
fn bug_09_a_guest_that_ignores_its_credit_is_reset() {
    let mut guest = Guest::new(4);
    let host = guest.connect();
    let mut sent = 0u64;
    loop {
        guest.send(guest.header(Op::Data), &[0; 60_000]);
        sent += 60_000;
        match guest.hear_op() {
            Some((Op::Reset, _)) => break,
            Some((Op::CreditUpdate, _)) | None => assert!(sent < 4 << 20, "nothing stops it"),
            other => panic!("{other:?}"),
        }
    }
    let mut delivered = 0;
    while !at_end(&host) {
        delivered += 1 + read(&host).len() as u64;
        guest.rig.run();
    }
    assert!(delivered >= 256 << 10, "what it had credit for is still delivered");
}

#[test]
fn closing_guest_does_not_wait_for_a_slow_reader() {
    let mut guest = Guest::new(4);
    let host = guest.connect();
    for _ in 0..6 {
        guest.send(guest.header(Op::Data), &[5; 50_000]);
    }
    guest.send(Header { flags: BOTH, ..guest.header(Op::Shutdown) }, &[]);
    let last = std::iter::from_fn(|| guest.hear_op()).last();
    assert_eq!(last, Some((Op::Reset, 0)), "at once, though nobody has read anything");
    let mut got = 0;
    loop {
        let count = read(&host).len();
        guest.rig.run();
        if count == 0 {
            break;
        }
        got += count;
    }
    assert_eq!(got, 300_000);
}

#[test]
fn credit_request_is_answered() {
    let mut guest = Guest::new(4);
    let _host = guest.connect();
    guest.say(Op::CreditRequest);
    let (header, _) = guest.hear().unwrap();
    assert_eq!((header.op, header.buf_alloc), (Op::CreditUpdate as u16, 256 << 10));
}

#[test]
fn packets_for_elsewhere_are_dropped_and_other_types_reset() {
    let mut guest = Guest::new(4);
    let _listener = guest.listen(PORT);
    guest.send(Header { dst_cid: 7, ..guest.header(Op::Request) }, &[]);
    guest.send(Header { src_cid: 4, ..guest.header(Op::Request) }, &[]);
    assert_eq!(guest.hear_op(), None);
    guest.send(Header { kind: 2, ..guest.header(Op::Request) }, &[]);
    assert_eq!(guest.hear_op(), Some((Op::Reset, 0)));
    guest.send(Header { op: 99, ..guest.header(Op::Request) }, &[]);
    assert_eq!(guest.hear_op(), Some((Op::Reset, 0)));
    assert!(!guest.rig.failed());
}

#[test]
fn bug_07_a_packet_that_claims_more_than_it_has_is_dropped() {
    let mut guest = Guest::new(4);
    let host = guest.connect();
    for len in [5, 4096, u32::MAX] {
        let header = Header { len, ..guest.header(Op::Data) };
        guest.rig.request(FROM_GUEST, &[Buffer::Out(header.bytes().to_vec()), Buffer::Out(vec![1; 4])]);
    }
    guest.rig.request(FROM_GUEST, &[Buffer::Out(vec![0; 43])]);
    guest.rig.request(FROM_GUEST, &[Buffer::In(64)]);
    assert!(read(&host).is_empty());
    let header = Header { len: 2, ..guest.header(Op::Data) };
    guest.rig.request(FROM_GUEST, &[Buffer::Out([&header.bytes()[..], b"okay"].concat())]);
    assert_eq!(read(&host), b"ok", "and no more than it claims is used");
}

#[test]
fn bug_07_a_buffer_too_small_for_a_header_breaks_the_device() {
    let mut guest = Guest::new(0);
    guest.rig.submit(TO_GUEST, &[Buffer::In(44)]);
    guest.say(Op::Request);
    assert!(guest.rig.failed());
    assert!(guest.rig.used(TO_GUEST).is_none());
}

#[test]
fn a_broken_device_hangs_up_on_the_host_at_once() {
    let mut guest = Guest::new(4);
    let host = guest.connect();
    guest.rig.make_available(FROM_GUEST, u16::MAX);
    guest.rig.kick(FROM_GUEST);
    assert!(guest.rig.failed());
    assert!(at_end(&host), "though the driver has not reset the device");
}

#[test]
fn bug_09_connections_are_bounded() {
    let mut guest = Guest::new(64);
    let listener = guest.listen(PORT);
    listener.set_nonblocking(true).unwrap();
    let mut accepted = Vec::new();
    let mut resets = 0;
    for port in 0..MOST as u32 + 10 {
        guest.send(Header { src_port: port, ..guest.header(Op::Request) }, &[]);
        accepted.extend(listener.accept());
        resets += usize::from(guest.hear_op().unwrap().0 == Op::Reset);
    }
    assert_eq!((accepted.len(), resets), (MOST, 10));
    let late = guest.connect_from_host("CONNECT 1\n");
    guest.rig.run();
    assert!(matches!((&late).read(&mut [0]), Ok(0) | Err(_)));
    guest.send(Header { src_port: 5, flags: BOTH, ..guest.header(Op::Shutdown) }, &[]);
    assert_eq!(guest.hear_op().unwrap().0, Op::Reset);
    guest.send(Header { src_port: 5, ..guest.header(Op::Request) }, &[]);
    assert_eq!(guest.hear_op().unwrap().0, Op::Response, "room again");
}

#[test]
fn bug_09_a_guest_that_takes_no_resets_cannot_make_them_pile_up() {
    let mut guest = Guest::new(0);
    for _ in 0..200 {
        guest.say(Op::Data);
    }
    for _ in 0..100 {
        let header = guest.header(Op::Data).bytes().to_vec();
        guest.rig.submit(FROM_GUEST, &[Buffer::Out(header)]);
    }
    guest.rig.kick(FROM_GUEST);
    let mut taken = 0;
    while guest.rig.used(FROM_GUEST).is_some() {
        taken += 1;
    }
    assert_eq!(taken, 56, "256 resets wait, and with them the other packets");
    guest.make_room(200);
    let mut resets = 0;
    while guest.hear_op().is_some() {
        resets += 1;
    }
    assert_eq!(resets, 300);
}

#[test]
fn same_ports_twice_is_a_fault() {
    let mut guest = Guest::new(4);
    let host = guest.connect();
    guest.say(Op::Request);
    assert_eq!(guest.hear_op(), Some((Op::Reset, 0)));
    assert!(at_end(&host));
}

#[test]
fn a_reset_of_the_device_closes_everything() {
    let mut guest = Guest::new(4);
    let host = guest.connect();
    guest.send(guest.header(Op::Data), b"before");
    guest.rig.start(u64::MAX);
    assert_eq!(read(&host), b"before");
    assert!(at_end(&host));
    guest.make_room(4);
    guest.send(guest.header(Op::Data), b"after");
    assert_eq!(guest.hear_op(), Some((Op::Reset, 0)));
}

#[test]
fn works_without_event_index() {
    let dir = tempfile::tempdir().unwrap();
    let device = Vsock::new(GUEST as u32, &dir.path().join("vsock")).unwrap();
    let rig = Rig::with_features(Box::new(device), !(1 << 29));
    let mut guest = Guest { rig, dir, buffers: 0 };
    guest.make_room(2);
    let mut host = guest.connect();
    guest.send(guest.header(Op::Data), b"x");
    assert_eq!(read(&host), b"x");
    host.write_all(b"y").unwrap();
    assert_eq!(guest.hear().unwrap().1, b"y");
}

/// A header with sane and insane fields.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let port = || prop_oneof![4 => 0..3u32, 1 => any::<u32>()];
    let small = || prop_oneof![4 => 0..70_000u32, 1 => any::<u32>()];
    let payload = proptest::collection::vec(any::<u8>(), 0..40);
    (port(), 0..9u16, 0..5u32, small(), small(), port(), payload).prop_map(
        |(src_port, op, flags, buf_alloc, fwd_cnt, extra, payload)| {
            let len = if extra == 2 { u32::MAX } else { payload.len() as u32 };
            let kind = if extra > 100 { extra as u16 } else { STREAM };
            let (src_cid, dst_cid) = (GUEST, HOST_CID);
            let header = Header {
                src_cid,
                dst_cid,
                src_port,
                dst_port: PORT,
                len,
                kind,
                op,
                flags,
                buf_alloc,
                fwd_cnt,
            };
            [&header.bytes()[..], &payload].concat()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn survives_any_ring(hostile in hostile(3)) {
        let mut guest = Guest::new(0);
        let _listener = guest.listen(PORT);
        guest.rig.survive(&hostile);
    }

    #[test]
    fn survives_any_packets(packets in proptest::collection::vec((packet(), 0..6u8), 1..60)) {
        let mut guest = Guest::new(4);
        let listener = guest.listen(PORT);
        listener.set_nonblocking(true).unwrap();
        let mut sockets = Vec::new();
        for (packet, host) in packets {
            guest.rig.request(FROM_GUEST, &[Buffer::Out(packet)]);
            sockets.extend(listener.accept().map(|(socket, _)| socket));
            match (host, sockets.last_mut()) {
                (0, _) => drop(sockets.pop()),
                (1, Some(socket)) => drop(socket.write(&[1; 5000])),
                (2, Some(socket)) => drop(socket.shutdown(Shutdown::Write)),
                (3, _) => while guest.hear().is_some() {},
                (4, _) => sockets.push(guest.connect_from_host("CONNECT 1\n")),
                _ => {}
            }
            guest.rig.run();
        }
        prop_assert!(!guest.rig.failed());
        guest.rig.survive(&[Action::Kick(0)]);
    }
}
