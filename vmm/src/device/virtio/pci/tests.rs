use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::super::handshake::status::DEVICE_NEEDS_RESET;
use super::super::mmio::tests::{Counts, Probe};
use super::super::testing::{Buffer, Rig, hostile, live};
use super::vectors::NO_VECTOR;
use super::*;

fn probe() -> (Rig, Arc<Counts>) {
    let probe = Probe::default();
    let counts = Arc::clone(&probe.counts);
    (Rig::untouched_pci(Box::new(probe)), counts)
}

fn started() -> Rig {
    Rig::new_pci(Box::new(Probe::default()))
}

fn function(rig: &Rig) -> &Transport {
    rig.function.as_ref().unwrap()
}

fn config<const N: usize>(rig: &Rig, offset: u8) -> [u8; N] {
    let mut data = [0xaa; N];
    function(rig).read_config(offset, &mut data);
    data
}

fn u16_at(rig: &Rig, offset: u64) -> u16 {
    let mut data = [0xaa; 2];
    rig.transport.read(offset, &mut data);
    u16::from_le_bytes(data)
}

/// Kind, offset and length of every virtio capability.
fn capabilities(rig: &Rig) -> Vec<(u8, u32, u32)> {
    let mut found = Vec::new();
    let [mut at] = config(rig, 0x34);
    while at != 0 {
        let [id, next, _, kind] = config(rig, at);
        if id == 9 {
            let [offset, len] = [8, 12].map(|part| u32::from_le_bytes(config(rig, at + part)));
            found.push((kind, offset, len));
        }
        at = next;
    }
    found
}

#[test]
fn the_function_says_what_it_is_and_where() {
    let (rig, _) = probe();
    assert_eq!(config(&rig, 0), [0xf4, 0x1a, 0x40 + 42, 0x10]);
    assert_eq!(capabilities(&rig), [(1, 0, 0x38), (2, 0x3000, 8), (3, 0x1000, 1), (4, 0x2000, 6), (5, 0, 0)]);
    let msix = rig.capability(0x11).unwrap();
    assert_eq!(config(&rig, msix + 2), [2, 0x80], "three vectors, enabled");
    assert_eq!(u32::from_le_bytes(config(&rig, 0x10)), rig.transport.range().base as u32 | 4);
    assert_eq!(u16_at(&rig, 0x12), 2, "queues");
}

#[test]
fn requests_are_answered_and_each_queue_has_its_vector() {
    let mut rig = started();
    let used = rig.request(0, &[Buffer::Out(vec![1]), Buffer::In(4)]);
    assert_eq!((used.written, used.bytes), (4, vec![7; 4]));
    let events = rig.messages().events();
    let raised: Vec<_> = events.iter().map(|event| event.read().unwrap_or(0)).collect();
    assert_eq!(raised, [0, 1, 0], "the vector of queue 0, not that of changes, not that of queue 1");
    assert_eq!((rig.read(0x60), rig.read(0x60)), (1, 0), "reading acknowledges");
}

#[test]
fn doorbells_are_an_address_each() {
    let (rig, _) = probe();
    let base = rig.transport.range().base;
    let doorbells = rig.transport.doorbells();
    assert!(doorbells.iter().all(|doorbell| doorbell.value.is_none()));
    assert_eq!(doorbells.iter().map(|d| d.address - base).collect::<Vec<_>>(), [0x3000, 0x3004]);
}

#[test]
fn a_function_whose_memory_is_off_does_not_answer() {
    let rig = started();
    function(&rig).write_config(4, &[0, 0]);
    let mut word = [0xff; 4];
    rig.transport.read(4, &mut word);
    assert_eq!(word, [0xff; 4]);
    rig.transport.write(0x14, &[0]);
    function(&rig).write_config(4, &[2, 0]);
    assert_eq!(rig.status(), live(), "the reset did not arrive");
}

#[test]
fn the_region_is_reached_through_the_configuration_space() {
    let (rig, _) = probe();
    let access = rig.capability(0x11).unwrap() + 12;
    assert_eq!(config::<4>(&rig, access)[3], 5);
    let aim = |bar: u8, offset: u32, len: u32| {
        function(&rig).write_config(access + 4, &[bar]);
        function(&rig).write_config(access + 8, &offset.to_le_bytes());
        function(&rig).write_config(access + 12, &len.to_le_bytes());
    };
    aim(0, 0x14, 1);
    function(&rig).write_config(access + 16, &[1]);
    assert_eq!((rig.status(), config::<1>(&rig, access + 16)), (1, [1]));
    for (bar, offset, len) in [(1, 0x14, 1), (0, 0x8014, 1), (0, u32::MAX, 1), (0, 0x14, 0), (0, 0x14, 8)] {
        aim(bar, offset, len);
        function(&rig).write_config(access + 16, &[3]);
        assert_eq!(rig.status(), 1, "{bar} {offset:#x} {len}");
    }
    aim(0, 0x14, 4);
    function(&rig).write_config(access + 16, &[3]);
    assert_eq!(rig.status(), 1, "of another width than was said");
    aim(0, 0x13, 2);
    function(&rig).write_config(access + 16, &[3, 0]);
    assert_eq!(rig.status(), 1, "misaligned");
}

#[test]
fn bug_01_queue_registers_locked_after_activation() {
    let mut rig = started();
    rig.write(0x30, 0);
    for (register, value) in
        [(0x38, 3), (0x80, 1), (0x84, u32::MAX), (0x90, 0), (0xa0, 0xffff_fff0), (0x44, 0)]
    {
        let before = rig.read(register);
        rig.write(register, value);
        assert_eq!((rig.read(register), rig.read(0x44)), (before, 1), "{register:#x}");
        assert_eq!(rig.request(0, &[Buffer::In(4)]).written, 4, "{register:#x}");
    }
    rig.write(0x24, 0);
    rig.write(0x20, 0);
    assert_ne!(rig.read(0x20), 0, "features");
}

#[test]
fn bug_02_status_bits_come_in_order_and_go_by_reset_only() {
    let (mut rig, counts) = probe();
    for out_of_order in [2, 4, 8, 6, 12, 14, 15, 9, 5] {
        rig.write(0x70, out_of_order);
        assert_eq!(rig.status(), 0, "{out_of_order}");
    }
    rig.start(u64::MAX);
    for fewer in [1, 3, 11, 7] {
        rig.write(0x70, fewer);
        assert_eq!(rig.status(), live(), "{fewer:#x}");
    }
    rig.write(0x70, 0);
    assert_eq!((rig.status(), u16_at(&rig, 0x10), u16_at(&rig, 0x1a)), (0, NO_VECTOR, NO_VECTOR));
    rig.start(u64::MAX);
    assert_eq!(counts.activations.load(Ordering::Relaxed), 2);
}

#[test]
fn bug_02_failed_activation_shows_and_interrupts() {
    let mut rig = Rig::untouched_pci(Box::new(Probe::refusing()));
    rig.negotiate(u64::MAX);
    rig.transport.write(0x10, &0u16.to_le_bytes());
    rig.set_up_queues();
    rig.write(0x70, live().into());
    assert_eq!(rig.status(), live() | DEVICE_NEEDS_RESET);
    assert_eq!((rig.interrupts(), rig.read(0x60)), (1, 2), "the vector of changes");
}

#[test]
fn bug_03_queue_selector_and_vectors_out_of_range() {
    let (mut rig, _) = probe();
    rig.negotiate(u64::MAX);
    for selector in [2, 3, 0x100, 0xffff] {
        rig.write(0x30, selector);
        assert_eq!((rig.read(0x34), rig.read(0x44), u16_at(&rig, 0x1e)), (0, 0, 0));
        [0x38, 0x44, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4].iter().for_each(|register| rig.write(*register, 1));
        rig.transport.write(0x1a, &[0, 0]);
        assert_eq!((rig.read(0x44), u16_at(&rig, 0x1a)), (0, NO_VECTOR));
        rig.write(0x50, selector);
    }
    rig.write(0x30, 1);
    for vector in [3u16, 4, 0x100, 0x7fff, NO_VECTOR] {
        for field in [0x10, 0x1a] {
            rig.transport.write(field, &0u16.to_le_bytes());
            assert_eq!(u16_at(&rig, field), 0);
            rig.transport.write(field, &vector.to_le_bytes());
            assert_eq!(u16_at(&rig, field), NO_VECTOR, "{vector}");
        }
    }
}

#[test]
fn bug_03_a_device_without_vectors_works_without_interrupts() {
    let mut rig = started();
    rig.write(0x30, 0);
    rig.transport.write(0x1a, &NO_VECTOR.to_le_bytes());
    assert_eq!(rig.request(0, &[Buffer::In(4)]).written, 4);
    assert_eq!(rig.interrupts(), 0);
}

#[test]
fn bug_04_accesses_that_are_no_fields_are_harmless() {
    let mut rig = started();
    for len in [0, 1, 2, 3, 5, 8, 16] {
        let mut data = vec![0xaa; len];
        rig.transport.read(0, &mut data);
        assert_eq!(data, vec![0; len], "{len} bytes wide");
    }
    for (offset, len) in [(0x14, 2), (0x14, 4), (0x13, 2), (0x11, 4), (0x21, 4)] {
        rig.transport.write(offset, &vec![0; len]);
    }
    for offset in (0x38..0x3000).step_by(0x34).chain([0x6000, 0x7ffc, u64::MAX - 3, u64::MAX]) {
        rig.transport.read(offset, &mut [0; 4]);
        rig.transport.write(offset, &[0xff; 4]);
    }
    assert_eq!(rig.status(), live());
    assert_eq!(rig.request(0, &[Buffer::In(4)]).written, 4);
}

#[test]
fn bug_05_the_region_stays_where_it_is() {
    let mut rig = started();
    let range = rig.transport.range();
    for address in [0u32, 0xfee0_0000, 0xffff_8000, 0x1000] {
        function(&rig).write_config(0x10, &address.to_le_bytes());
        function(&rig).write_config(0x14, &address.to_le_bytes());
        assert_eq!(rig.transport.range(), range);
        assert_eq!(u32::from_le_bytes(config(&rig, 0x10)), range.base as u32 | 4);
    }
    assert_eq!(rig.request(0, &[Buffer::In(4)]).written, 4);
}

/// Region or configuration space; where; what is written, or how much is read.
fn accesses() -> impl Strategy<Value = Vec<(bool, bool, u64, Vec<u8>)>> {
    let offset = prop_oneof![
        6 => 0..0x40u64,
        1 => 0x1000..0x1008u64,
        2 => 0x2000..0x2010u64,
        2 => 0x3000..0x3010u64,
        3 => 0x4000..0x4040u64,
        1 => 0x5000..0x5010u64,
        1 => any::<u64>(),
    ];
    let value =
        prop_oneof![proptest::collection::vec(any::<u8>(), 0..9), proptest::collection::vec(0..20u8, 1..5),];
    proptest::collection::vec((any::<bool>(), any::<bool>(), offset, value), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn survives_any_registers(accesses in accesses()) {
        let mut rig = started();
        for (region, write, offset, mut data) in accesses {
            match (region, write) {
                (true, true) => rig.transport.write(offset, &data),
                (true, false) => rig.transport.read(offset, &mut data),
                (false, true) => function(&rig).write_config(offset as u8, &data),
                (false, false) => function(&rig).read_config(offset as u8, &mut data),
            }
            rig.run();
        }
        rig.start(u64::MAX);
        prop_assert_eq!(rig.status(), live());
        prop_assert_eq!(rig.request(0, &[Buffer::In(4)]).written, 4);
    }

    #[test]
    fn survives_any_ring(hostile in hostile(2)) {
        let mut rig = started();
        rig.survive(&hostile);
    }
}
