//! What a guest can do to the device, and that it hurts nobody else.

use std::net::Shutdown;

use proptest::prelude::*;

use super::super::super::testing::{Action, hostile};
use super::super::bridge::MOST;
use super::super::packet::BOTH;
use super::*;

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
fn attack_35_packets_for_elsewhere_are_dropped_and_other_types_reset() {
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
