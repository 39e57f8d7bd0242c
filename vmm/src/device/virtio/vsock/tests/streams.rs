//! What connections do for a guest and a host that keep to the rules.

use std::net::Shutdown;

use super::super::packet::{BOTH, NO_MORE_RECEIVE, NO_MORE_SEND};
use super::*;

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
