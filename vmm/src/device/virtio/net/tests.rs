//! The device with a driver on real queue memory; the link is a pair of datagram sockets.

use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use virtio_bindings::virtio_net as spec;
use vm_memory::{Bytes, GuestAddress};

use super::header::LEN;
use super::link::{Link, features_of};
use super::{Counters, Mac, Net, Settings};
use crate::device::virtio::rate_limit::Limits;
use crate::device::virtio::testing::{Buffer, Rig, hostile};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const ALL: u32 = 0x7f;
/// Any frame: a header that asks for nothing, and 60 bytes.
const FRAME: [u8; LEN + 60] = [0; LEN + 60];

/// What the device asked of its link.
#[derive(Default)]
struct Asked {
    offloads: u32,
    pairs: u16,
}

struct Pairs {
    ours: Vec<File>,
    asked: Arc<Mutex<Asked>>,
}

impl Link for Pairs {
    fn queues(&self) -> &[File] {
        &self.ours
    }

    fn offloads(&self) -> u32 {
        ALL
    }

    fn set_offloads(&self, offloads: u32) -> io::Result<()> {
        self.asked.lock().unwrap().offloads = offloads;
        Ok(())
    }

    fn use_pairs(&mut self, pairs: u16) -> io::Result<()> {
        self.asked.lock().unwrap().pairs = pairs;
        Ok(())
    }
}

struct Host {
    ends: Vec<UnixDatagram>,
    asked: Arc<Mutex<Asked>>,
    counters: Arc<Counters>,
}

impl Host {
    fn send(&self, queue: usize, frame: &[u8]) {
        self.ends[queue].send(frame).unwrap();
    }

    /// The next frame that the guest sent, if there is one.
    fn received(&self, queue: usize) -> Option<Vec<u8>> {
        let mut frame = vec![0; 70_000];
        let len = self.ends[queue].recv(&mut frame).ok()?;
        frame.truncate(len);
        Some(frame)
    }
}

fn device_with(pairs: usize, rx: Limits, tx: Limits) -> (Box<Net>, Host) {
    let mut ours = Vec::new();
    let mut ends = Vec::new();
    for _ in 0..pairs {
        let (one, other) = UnixDatagram::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        other.set_nonblocking(true).unwrap();
        ours.push(File::from(OwnedFd::from(one)));
        ends.push(other);
    }
    let asked = Arc::<Mutex<Asked>>::default();
    let link = Pairs { ours, asked: Arc::clone(&asked) };
    let settings = Settings { mac: MAC, mtu: 1500, rx, tx };
    let net = Box::new(Net::new("eth0", Box::new(link), &settings).unwrap());
    let counters = Arc::clone(&net.counters);
    (net, Host { ends, asked, counters })
}

fn device(pairs: usize) -> (Box<Net>, Host) {
    device_with(pairs, Limits::default(), Limits::default())
}

/// All but these features.
fn without(bits: &[u32]) -> u64 {
    bits.iter().fold(u64::MAX, |mask, bit| mask & !(1 << bit))
}

/// No segments for the guest: any frame fits in 1530 bytes.
fn small_frames() -> u64 {
    without(&[
        spec::VIRTIO_NET_F_GUEST_TSO4,
        spec::VIRTIO_NET_F_GUEST_TSO6,
        spec::VIRTIO_NET_F_GUEST_UFO,
        spec::VIRTIO_NET_F_GUEST_USO4,
        spec::VIRTIO_NET_F_GUEST_USO6,
    ])
}

fn give(rig: &mut Rig, queue: usize, count: usize, len: usize) {
    for _ in 0..count {
        rig.submit(queue, &[Buffer::In(len)]);
    }
    rig.kick(queue);
}

/// A frame from the host, with its length in it and a pattern behind.
fn frame(len: usize) -> Vec<u8> {
    let mut frame = vec![0; LEN];
    frame.extend((0..len).map(|i| (i * 7 + len) as u8));
    frame
}

/// The next frame at the guest, put together from its buffers; and how many they were.
fn taken(rig: &mut Rig, queue: usize) -> Option<(Vec<u8>, usize)> {
    let first = rig.used(queue)?;
    let buffers = usize::from(u16::from_le_bytes([first.bytes[10], first.bytes[11]]));
    let mut frame = first.bytes[..first.written as usize].to_vec();
    for _ in 1..buffers {
        let more = rig.used(queue).expect("all of a frame's buffers come together");
        frame.extend_from_slice(&more.bytes[..more.written as usize]);
    }
    frame[10..12].fill(0);
    Some((frame, buffers))
}

#[test]
fn tells_address_mtu_and_link() {
    let (net, _host) = device(1);
    let rig = Rig::new(net);
    let words = [0x100, 0x104, 0x108].map(|offset| rig.read(offset).to_le_bytes()).concat();
    assert_eq!(words, [2, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0xdc, 5]);
}

#[test]
fn frames_pass_both_ways_as_they_are() {
    let (net, host) = device(1);
    let mut rig = Rig::new(net);
    let mut sent = frame(1000);
    sent[0] = 2; // To be ignored: "data valid" is for the other direction.
    assert_eq!(
        rig.request(1, &[Buffer::Out(sent[..5].to_vec()), Buffer::Out(sent[5..].to_vec())]).written,
        0
    );
    assert_eq!(host.received(0).unwrap(), frame(1000));
    give(&mut rig, 0, 64, 1526);
    host.send(0, &sent);
    rig.run();
    let (got, buffers) = taken(&mut rig, 0).unwrap();
    assert!(got == sent && buffers == 1);
    let counted =
        [&host.counters.rx_bytes, &host.counters.tx_bytes, &host.counters.rx_frames].map(|c| c.get());
    assert_eq!(counted, [1000, 1000, 1]);
}

#[test]
fn a_long_frame_is_spread_over_buffers_that_come_together() {
    let (net, host) = device(1);
    let mut rig = Rig::new(net);
    give(&mut rig, 0, 100, 1000);
    for len in [65_000, 1, 988, 989] {
        host.send(0, &frame(len));
        rig.run();
        let (got, buffers) = taken(&mut rig, 0).unwrap();
        assert!(got == frame(len), "{len}");
        assert_eq!(buffers, (LEN + len).div_ceil(1000), "{len}");
        give(&mut rig, 0, buffers, 1000);
    }
}

#[test]
fn without_merging_a_frame_has_one_chain() {
    let (net, host) = device(1);
    let mut rig = Rig::with_features(net, small_frames() & without(&[spec::VIRTIO_NET_F_MRG_RXBUF]));
    rig.submit(0, &[Buffer::In(12), Buffer::In(1518)]);
    rig.submit(0, &[Buffer::In(12), Buffer::In(100)]);
    rig.submit(0, &[Buffer::In(12), Buffer::In(1518)]);
    rig.kick(0);
    for len in [1518, 101, 100, 1400] {
        host.send(0, &frame(len));
    }
    rig.run();
    for len in [1518, 100, 1400] {
        let (got, buffers) = taken(&mut rig, 0).unwrap();
        assert!(got == frame(len) && buffers == 1, "{len}");
    }
    assert_eq!(host.counters.rx_dropped.get(), 1, "what does not fit its chain");
}

#[test]
fn bug_14_a_full_ring_resumes_when_the_driver_adds_buffers() {
    let (net, host) = device(1);
    let mut rig = Rig::with_features(net, small_frames());
    give(&mut rig, 0, 4, 2000);
    for n in 0..10 {
        host.send(0, &frame(100 + n));
    }
    rig.run();
    let mut seen = 0;
    while seen < 10 {
        let mut here = 0;
        while let Some((got, _)) = taken(&mut rig, 0) {
            assert!(got == frame(100 + seen));
            (seen, here) = (seen + 1, here + 1);
        }
        assert!(here > 0, "stalled after {seen} frames");
        // No event of the link comes any more: the driver's notification must do.
        give(&mut rig, 0, here, 2000);
    }
    assert_eq!(host.counters.rx_dropped.get(), 0);
}

#[test]
fn bug_14_a_driver_with_little_room_gets_what_fits() {
    let (net, host) = device(1);
    let mut rig = Rig::new(net);
    give(&mut rig, 0, 8, 1526);
    host.send(0, &frame(100));
    host.send(0, &frame(60_000));
    host.send(0, &frame(5000));
    rig.run();
    assert!(taken(&mut rig, 0).unwrap() == (frame(100), 1));
    assert!(taken(&mut rig, 0).unwrap() == (frame(5000), 4));
    assert_eq!(host.counters.rx_dropped.get(), 1);
}

#[test]
fn a_driver_that_was_given_much_is_waited_for() {
    let (net, host) = device(1);
    let mut rig = Rig::new(net);
    give(&mut rig, 0, 64, 1526);
    for len in [60_000, 60_001] {
        host.send(0, &frame(len));
    }
    rig.run();
    assert!(taken(&mut rig, 0).unwrap() == (frame(60_000), 40));
    assert!(taken(&mut rig, 0).is_none(), "24 buffers are too few");
    give(&mut rig, 0, 40, 1526);
    assert!(taken(&mut rig, 0).unwrap() == (frame(60_001), 40));
    assert_eq!(host.counters.rx_dropped.get(), 0);
}

#[test]
fn many_frames_are_few_interrupts() {
    let (net, host) = device(1);
    let mut rig = Rig::with_features(net, small_frames());
    give(&mut rig, 0, 100, 2000);
    rig.interrupts();
    for _ in 0..20 {
        host.send(0, &FRAME);
    }
    rig.run();
    assert_eq!(rig.interrupts(), 1);
    for _ in 0..20 {
        rig.submit(1, &[Buffer::Out(FRAME.to_vec())]);
    }
    rig.kick(1);
    assert_eq!(rig.interrupts(), 1);
}

#[test]
fn offloads_are_what_the_driver_takes() {
    let (net, host) = device(1);
    let mut rig = Rig::new(net);
    assert_eq!(host.asked.lock().unwrap().offloads, ALL);
    rig.start(small_frames());
    assert_eq!(host.asked.lock().unwrap().offloads, libc::TUN_F_CSUM);
    rig.start(!features_of(ALL));
    assert_eq!(host.asked.lock().unwrap().offloads, 0);
    give(&mut rig, 0, 64, 1526);
    host.send(0, &[[1; LEN].as_slice(), &[0; 60]].concat());
    rig.run();
    assert_eq!(taken(&mut rig, 0).unwrap().0[0], 0, "no flags for a driver without checksums");
}

#[test]
fn bug_14_frames_that_were_not_agreed_on_are_dropped() {
    let (net, host) = device(1);
    let mut rig = Rig::with_features(net, without(&[spec::VIRTIO_NET_F_HOST_TSO4]));
    let mut segmented = frame(5000);
    segmented[..LEN].copy_from_slice(&[1, 1, 54, 0, 0, 5, 34, 0, 16, 0, 0, 0]);
    for bad in [segmented, frame(13), vec![0; LEN - 1], frame(66_000)] {
        rig.request(1, &[Buffer::Out(bad)]);
        assert!(host.received(0).is_none());
    }
    assert_eq!(host.counters.tx_dropped.get(), 4);
    rig.request(1, &[Buffer::Out(FRAME.to_vec())]);
    assert_eq!(host.received(0).unwrap(), FRAME);
}

#[test]
fn bug_10_buffers_of_a_driver_that_is_gone_are_not_written() {
    let (net, host) = device(1);
    let mut rig = Rig::new(net);
    give(&mut rig, 0, 64, 1526);
    let before: [u8; 32] = rig.memory.read_obj(GuestAddress(1 << 20)).unwrap();
    rig.write(0x70, 0);
    host.send(0, &[9; 200]);
    rig.run();
    let after: [u8; 32] = rig.memory.read_obj(GuestAddress(1 << 20)).unwrap();
    assert_eq!(before, after);
    rig.start(u64::MAX);
    give(&mut rig, 0, 64, 1526);
    assert!(taken(&mut rig, 0).is_some(), "what waited at the link comes to the next driver");
}

#[test]
fn a_malformed_chain_breaks_this_device_only() {
    let (net, _host) = device(1);
    let mut rig = Rig::new(net);
    rig.submit(0, &[Buffer::Out(vec![0; 100])]);
    rig.kick(0);
    assert!(rig.failed(), "the driver offered bytes where it should give room");
    rig.start(u64::MAX);
    assert!(!rig.failed());
}

/// The command for this many pairs, and its answer.
fn set_pairs(rig: &mut Rig, control: usize, pairs: u16) -> u8 {
    let command = [4, 0, pairs.to_le_bytes()[0], pairs.to_le_bytes()[1]];
    let used = rig.request(control, &[Buffer::Out(command.to_vec()), Buffer::In(1)]);
    assert_eq!(used.written, 1);
    used.bytes[0]
}

#[test]
fn bug_14_pairs_are_bounded() {
    let (net, host) = device(4);
    let mut rig = Rig::new(net);
    assert_eq!(host.asked.lock().unwrap().pairs, 1);
    for (pairs, answer) in [(4, 0), (0, 1), (5, 1), (u16::MAX, 1), (2, 0)] {
        assert_eq!(set_pairs(&mut rig, 8, pairs), answer, "{pairs}");
    }
    assert_eq!(host.asked.lock().unwrap().pairs, 2);
    for bad in [vec![], vec![4], vec![4, 0], vec![4, 0, 1], vec![4, 1, 1, 0], vec![1, 1, 2, 0, 0, 0, 0, 9]] {
        let bad = if bad.is_empty() { vec![0xff] } else { bad };
        assert_eq!(rig.request(8, &[Buffer::Out(bad), Buffer::In(1)]).bytes, [1]);
    }
    assert_eq!(rig.request(8, &[Buffer::Out(vec![4, 0, 4, 0])]).written, 0, "no room for an answer");
    assert_eq!(host.asked.lock().unwrap().pairs, 2);
    rig.start(u64::MAX);
    assert_eq!(host.asked.lock().unwrap().pairs, 1, "the next driver begins with one");
}

#[test]
fn every_pair_in_use_carries_frames() {
    let (net, host) = device(2);
    let mut rig = Rig::new(net);
    rig.request(1, &[Buffer::Out(FRAME.to_vec())]);
    assert!(host.received(0).is_some());
    rig.submit(3, &[Buffer::Out(FRAME.to_vec())]);
    rig.kick(3);
    assert!(host.received(1).is_none(), "not in use yet");
    give(&mut rig, 2, 64, 1526);
    assert_eq!(set_pairs(&mut rig, 4, 2), 0);
    assert_eq!(host.received(1).unwrap(), FRAME, "what waited");
    host.send(1, &frame(300));
    rig.run();
    assert!(taken(&mut rig, 2).unwrap().0 == frame(300));
}

#[test]
fn a_driver_without_several_pairs_has_its_control_queue_third() {
    let (net, _host) = device(4);
    let mut rig = Rig::with_features(net, without(&[spec::VIRTIO_NET_F_MQ]));
    assert_eq!(set_pairs(&mut rig, 2, 1), 0);
    assert_eq!(set_pairs(&mut rig, 2, 2), 1);
}

#[test]
fn limits_hold_frames_back_and_let_them_go() {
    let slow = Limits { operations: None, bytes: NonZeroU64::new(1000) };
    let (net, host) = device_with(1, slow, slow);
    let mut rig = Rig::with_features(net, small_frames());
    give(&mut rig, 0, 10, 2000);
    let start = Instant::now();
    for _ in 0..2 {
        host.send(0, &frame(1300));
        rig.submit(1, &[Buffer::Out(frame(1300))]);
    }
    rig.kick(1);
    let (mut received, mut sent) = (0, 0);
    loop {
        received += std::iter::from_fn(|| taken(&mut rig, 0)).count();
        sent += std::iter::from_fn(|| host.received(0)).count();
        if (received, sent) == (2, 2) {
            break;
        }
        assert!(received >= 1 && sent >= 1, "the first ones pass at once");
        rig.wait();
    }
    assert!(start.elapsed() >= Duration::from_millis(300), "1300 bytes are 300 too many for a second");
}

#[test]
fn a_link_that_is_gone_is_no_end() {
    let (net, host) = device(1);
    let mut rig = Rig::new(net);
    give(&mut rig, 0, 64, 1526);
    drop(host.ends);
    rig.request(1, &[Buffer::Out(FRAME.to_vec())]);
    rig.run();
    assert!(!rig.failed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn survives_any_ring(actions in hostile(5), frames in proptest::collection::vec(0..4000usize, 0..8)) {
        let (net, host) = device(2);
        let mut rig = Rig::new(net);
        for len in frames {
            host.send(len % 2, &frame(len));
        }
        rig.survive(&actions);
    }

    #[test]
    fn frames_arrive_whole_and_in_order(
        frames in proptest::collection::vec(0..5000usize, 1..20),
        room in proptest::collection::vec(12..3000usize, 120..200),
    ) {
        let (net, host) = device(1);
        let mut rig = Rig::new(net);
        for len in room {
            rig.submit(0, &[Buffer::In(len)]);
        }
        rig.kick(0);
        for len in &frames {
            host.send(0, &frame(*len));
        }
        rig.run();
        for len in &frames {
            match taken(&mut rig, 0) {
                Some((got, _)) => prop_assert!(got == frame(*len), "{}", len),
                // The driver has got back half of its room, and is waited for.
                None => break,
            }
        }
        prop_assert_eq!(host.counters.rx_dropped.get(), 0);
    }
}

/// Reading and writing a link's end as the device does.
#[test]
fn the_link_of_these_tests_keeps_frames_apart() {
    let (one, other) = UnixDatagram::pair().unwrap();
    let (mut one, mut other) = (File::from(OwnedFd::from(one)), File::from(OwnedFd::from(other)));
    one.write_all(b"ab").unwrap();
    one.write_all(b"c").unwrap();
    let mut buffer = [0; 8];
    assert_eq!((other.read(&mut buffer).unwrap(), other.read(&mut buffer).unwrap()), (2, 1));
}
