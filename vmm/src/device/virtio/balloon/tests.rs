//! The balloon with a driver on real queue memory.

use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::{Balloon, Handle, PAGE, Statistics, feature};
use crate::device::virtio::testing::{Buffer, MEMORY, Rig, hostile};

/// Somewhere between the rings and the buffers of the rig.
const FREE: u64 = 32 << 20;

fn device() -> (Box<Balloon>, Handle) {
    let balloon = Balloon::new(0).unwrap();
    let handle = balloon.handle();
    (Box::new(balloon), handle)
}

fn numbers(pages: impl IntoIterator<Item = u64>) -> Buffer {
    Buffer::Out(pages.into_iter().flat_map(|page| (page as u32).to_le_bytes()).collect())
}

/// The pages from [`FREE`] on that still hold what was written to them.
fn kept(rig: &Rig, pages: u64) -> Vec<u64> {
    let byte = |page: &u64| rig.memory.read_obj::<u8>(GuestAddress(FREE + page * PAGE)).unwrap();
    (0..pages).filter(|page| byte(page) != 0).collect()
}

fn fill(rig: &Rig, pages: u64) {
    rig.memory.write_slice(&vec![7; (pages * PAGE) as usize], GuestAddress(FREE)).unwrap();
}

#[test]
fn pages_in_the_balloon_are_the_hosts() {
    let (balloon, handle) = device();
    let mut rig = Rig::new(balloon);
    fill(&rig, 8);
    let first = FREE / PAGE;
    rig.request(0, &[numbers([5, 2, 3, 3].map(|page| first + page))]);
    assert_eq!(kept(&rig, 8), [0, 1, 4, 6, 7]);
    assert_eq!(handle.inflated(), 3 * PAGE);
    assert_eq!(rig.request(1, &[numbers([first + 2])]).written, 0);
}

#[test]
fn bug_09_numbers_of_no_page_are_passed_over() {
    let (balloon, handle) = device();
    let mut rig = Rig::new(balloon);
    let last = MEMORY / PAGE - 1;
    rig.request(0, &[numbers([last + 1, u64::from(u32::MAX), u64::from(u32::MAX) - 1, last, 1 << 31])]);
    assert_eq!(handle.inflated(), PAGE);
    rig.request(0, &[Buffer::Out(vec![1, 2, 3])]);
    rig.request(0, &[Buffer::In(64)]);
    assert_eq!(handle.inflated(), PAGE);
    // A request as long as the guest likes costs no more than a bounded one.
    rig.request(0, &[Buffer::Out(vec![0xff; 20 << 20])]);
    assert!(!rig.failed());
}

#[test]
fn reported_pages_are_the_hosts() {
    let (balloon, handle) = device();
    let mut rig = Rig::new(balloon);
    // The rig's buffers follow each other from 1 MiB on: 3 pages less a bit, so that 2 are whole.
    let address = GuestAddress(1 << 20);
    rig.memory.write_slice(&[7; 3 * PAGE as usize], address).unwrap();
    rig.request(3, &[Buffer::In(3 * PAGE as usize - 1)]);
    let bytes: Vec<u8> =
        (0..3).map(|page| rig.memory.read_obj(GuestAddress(address.0 + page * PAGE)).unwrap()).collect();
    assert_eq!(bytes, [0, 0, 7]);
    assert_eq!(handle.reported(), 2 * PAGE);
}

#[test]
fn queues_are_numbered_without_gaps() {
    let (balloon, handle) = device();
    let mut rig = Rig::with_features(balloon, !feature::STATS_VQ);
    rig.request(2, &[Buffer::In(8192)]);
    assert_eq!(handle.reported(), 8192);
}

#[test]
fn the_target_is_told_and_the_answer_clamped() {
    let (balloon, handle) = device();
    let mut rig = Rig::new(balloon);
    rig.interrupts();
    let generation = rig.read(0xfc);
    handle.set_target(10 << 20);
    rig.run();
    assert_eq!((rig.read(0x100), rig.interrupts()), ((10 << 20) / PAGE as u32, 1));
    assert_ne!(rig.read(0xfc), generation);
    handle.set_target(10 << 20);
    rig.run();
    assert_eq!(rig.interrupts(), 0, "no news");
    rig.write(0x104, 100);
    assert_eq!(handle.actual(), 100 * PAGE);
    // bug_09: Cloud Hypervisor 7903 and 8098 counted with what the guest claimed.
    rig.write(0x104, u32::MAX);
    assert_eq!(handle.actual(), MEMORY);
    rig.write(0x100, 7);
    assert_eq!(rig.read(0x100), (10 << 20) / PAGE as u32, "the target is not the driver's");
    rig.write(0x70, 0);
    assert_eq!(handle.actual(), 0);
    handle.set_target(u64::MAX);
    assert_eq!(handle.target(), u64::from(u32::MAX) * PAGE);
}

fn entry(tag: u16, value: u64) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()
}

#[test]
fn statistics_come_when_they_are_asked_for() {
    let (balloon, handle) = device();
    let mut rig = Rig::new(balloon);
    rig.submit(2, &[Buffer::Out(entry(4, 1))]);
    rig.kick(2);
    assert!(rig.used(2).is_none(), "kept until it is wanted");
    let asking = thread::spawn(move || handle.statistics(Duration::from_secs(60)));
    while rig.used(2).is_none() {
        rig.wait();
    }
    let said = [entry(5, 1000), entry(0xffff, 1), entry(4, 300), vec![1, 2, 3]].concat();
    rig.submit(2, &[Buffer::Out(said)]);
    rig.kick(2);
    let expected = Statistics { free: Some(300), total: Some(1000), ..Statistics::default() };
    assert_eq!(asking.join().unwrap(), Some(expected));
}

#[test]
fn bug_09_statistics_without_end_are_cut() {
    let (balloon, handle) = device();
    let mut rig = Rig::new(balloon);
    let many: Vec<u8> = (0..100_000).flat_map(|n| entry(4, n)).collect();
    for _ in 0..5 {
        rig.submit(2, &[Buffer::Out(many.clone())]);
    }
    rig.kick(2);
    assert_eq!(std::iter::from_fn(|| rig.used(2)).count(), 4, "one is kept");
    assert!(handle.statistics(Duration::ZERO).is_none(), "a guest that does not answer is not waited for");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn survives_any_ring(actions in hostile(4)) {
        let (balloon, handle) = device();
        let mut rig = Rig::new(balloon);
        rig.survive(&actions);
        prop_assert!(handle.actual() <= MEMORY);
    }

    #[test]
    fn exactly_the_named_pages_go(pages in proptest::collection::vec(0..64u64, 0..100)) {
        let (balloon, _handle) = device();
        let mut rig = Rig::new(balloon);
        fill(&rig, 64);
        rig.request(0, &[numbers(pages.iter().map(|page| FREE / PAGE + page)), Buffer::In(1)]);
        let expected: Vec<u64> = (0..64).filter(|page| !pages.contains(page)).collect();
        prop_assert_eq!(kept(&rig, 64), expected);
    }
}
