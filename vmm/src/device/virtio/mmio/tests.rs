use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::super::handshake::status::{DEVICE_NEEDS_RESET, FAILED};
use super::super::queue::Virtqueue;
use super::super::testing::{Action, Buffer, Descriptor, MEMORY, Rig, hostile, live};
use super::super::{ActivateError, Activation, DeviceError, Event, Progress};
use super::*;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Counts what is done to it, and answers requests by filling their buffers with 7.
#[derive(Default)]
pub struct Probe {
    config: [u8; 6],
    refuse: bool,
    pub counts: Arc<Counts>,
    active: Option<(Activation, Virtqueue)>,
}

#[derive(Default)]
pub struct Counts {
    pub activations: AtomicUsize,
    pub resets: AtomicUsize,
}

impl VirtioDevice for Probe {
    fn name(&self) -> &str {
        "probe"
    }
    fn device_type(&self) -> u32 {
        42
    }
    fn features(&self) -> u64 {
        0b101
    }
    fn queue_sizes(&self) -> &[u16] {
        &[16, 8]
    }
    fn config(&self) -> &[u8] {
        &self.config
    }
    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.config[offset..offset + data.len()].copy_from_slice(data);
    }
    fn activate(&mut self, mut activation: Activation) -> Result<(), ActivateError> {
        self.counts.activations.fetch_add(1, Ordering::Relaxed);
        if self.refuse {
            return Err(ActivateError::Host { operation: "be live", source: io::ErrorKind::Other.into() });
        }
        let queue = activation.take_queue(0)?;
        self.active = Some((activation, queue));
        Ok(())
    }
    fn reset(&mut self) {
        self.counts.resets.fetch_add(1, Ordering::Relaxed);
        self.active = None;
    }
    fn handle(&mut self, _event: Event) -> Result<Progress, DeviceError> {
        let Some((activation, queue)) = &mut self.active else { return Ok(Progress::Done) };
        queue.serve(&activation.memory, &activation.interrupt, |chain| {
            Some(chain.writable.copy_from(&vec![7; chain.writable.len().min(1 << 20)]) as u32)
        })
    }
}

impl Probe {
    /// One that cannot be activated.
    pub fn refusing() -> Probe {
        Probe { refuse: true, ..Probe::default() }
    }
}

fn probe() -> (Rig, Arc<Counts>) {
    let probe = Probe::default();
    let counts = Arc::clone(&probe.counts);
    (Rig::untouched(Box::new(probe)), counts)
}

fn started() -> Rig {
    Rig::new(Box::new(Probe::default()))
}

fn activations(counts: &Counts) -> usize {
    counts.activations.load(Ordering::Relaxed)
}

#[test]
fn registers_identify_the_device() {
    let (rig, _) = probe();
    assert_eq!(rig.read(0x00), 0x7472_6976);
    assert_eq!((rig.read(0x04), rig.read(0x08)), (2, 42));
    rig.write(0x14, 0);
    assert_eq!(rig.read(0x10) & 0xff, 0b101);
    rig.write(0x14, 1);
    assert_eq!(rig.read(0x10), 1, "VERSION_1");
    rig.write(0x14, 2);
    assert_eq!(rig.read(0x10), 0);
    assert_eq!((rig.read(0xb0), rig.read(0xbc)), (u32::MAX, u32::MAX), "no shared memory");
}

#[test]
fn requests_are_answered_and_interrupt() {
    let mut rig = started();
    let used = rig.request(0, &[Buffer::Out(vec![1]), Buffer::In(4)]);
    assert_eq!((used.written, used.bytes), (4, vec![7; 4]));
    assert_eq!(rig.interrupts(), 1);
    assert_eq!(rig.read(0x60), 1, "interrupt status");
    rig.write(0x64, 1);
    assert_eq!(rig.read(0x60), 0);
}

#[test]
fn bug_01_queue_registers_locked_after_activation() {
    let mut rig = started();
    rig.write(0x30, 0);
    for (register, value) in
        [(0x38, 3), (0x80, 1), (0x84, u32::MAX), (0x90, 0), (0xa0, 0xffff_fff0), (0x44, 0)]
    {
        rig.write(register, value);
        assert_eq!(rig.read(0x44), 1, "{register:#x}");
        assert_eq!(rig.request(0, &[Buffer::In(4)]).written, 4, "{register:#x}");
    }
    rig.write(0x24, 0);
    rig.write(0x20, 0);
    rig.write(0x70, live().into());
    assert_eq!(rig.request(0, &[Buffer::In(4)]).written, 4);
}

#[test]
fn bug_01_a_ready_queue_keeps_its_addresses() {
    let (mut rig, counts) = probe();
    rig.negotiate(u64::MAX);
    rig.set_up_queues();
    rig.write(0x30, 0);
    rig.write(0x80, 0xdead_0000);
    rig.write(0x70, live().into());
    assert_eq!((rig.status(), activations(&counts)), (live(), 1));
    assert_eq!(rig.request(0, &[Buffer::In(4)]).written, 4);
}

#[test]
fn bug_02_status_bits_come_in_order() {
    let (rig, counts) = probe();
    for out_of_order in [2, 4, 8, 6, 12, 14, 15, 9, 5] {
        rig.write(0x70, out_of_order);
        assert_eq!(rig.status(), 0, "{out_of_order}");
    }
    rig.write(0x70, 1);
    rig.write(0x70, 3);
    rig.write(0x70, 7);
    assert_eq!(rig.status(), 3, "DRIVER_OK without FEATURES_OK");
    rig.write(0x70, 15);
    assert_eq!(rig.status(), 3, "both at once");
    assert_eq!(activations(&counts), 0);
}

#[test]
fn bug_02_status_bits_are_cleared_by_reset_only() {
    let (mut rig, counts) = probe();
    rig.start(u64::MAX);
    for fewer in [1, 3, 11, 7, 0x100, 0x10f, u32::MAX << 8] {
        rig.write(0x70, fewer);
        assert_eq!(rig.status(), live(), "{fewer:#x}");
    }
    rig.write(0x70, live().into());
    assert_eq!(activations(&counts), 1, "not twice");
    rig.write(0x70, u32::from(live() | DEVICE_NEEDS_RESET));
    assert_eq!(rig.status(), live(), "that bit is the device's");
    rig.write(0x70, u32::from(live() | FAILED));
    assert_eq!(rig.status(), live() | FAILED);
    rig.write(0x70, 0);
    assert_eq!(rig.status(), 0);
    assert!(counts.resets.load(Ordering::Relaxed) >= 1);
    rig.start(u64::MAX);
    assert_eq!((rig.status(), activations(&counts)), (live(), 2));
}

#[test]
fn bug_02_nothing_follows_failed_but_reset() {
    let (mut rig, counts) = probe();
    rig.negotiate(u64::MAX);
    rig.write(0x70, u32::from(11 | FAILED));
    rig.set_up_queues();
    rig.write(0x70, u32::from(live() | FAILED));
    assert_eq!((rig.status(), activations(&counts)), (11 | FAILED, 0));
}

#[test]
fn bug_02_features_that_were_not_offered_are_refused() {
    let (rig, _) = probe();
    for (low, high) in [(0b101, 0), (0b111, 1), (0b101, 3), (0, 0)] {
        rig.write(0x70, 0);
        rig.write(0x70, 1);
        rig.write(0x70, 3);
        for (page, value) in [(0, low), (1, high), (2, 77)] {
            rig.write(0x24, page);
            rig.write(0x20, value);
        }
        rig.write(0x70, 11);
        assert_eq!(rig.status(), 3, "{low:b} {high:b}");
    }
}

#[test]
fn bug_02_failed_activation_shows_and_can_be_repeated() {
    let probe = Probe::refusing();
    let counts = Arc::clone(&probe.counts);
    let mut rig = Rig::untouched(Box::new(probe));
    for attempt in 1..3 {
        rig.start(u64::MAX);
        assert_eq!(rig.status(), live() | DEVICE_NEEDS_RESET);
        assert_eq!(rig.read(0x60), 2, "configuration interrupt");
        rig.kick(0);
        assert_eq!(activations(&counts), attempt);
    }
}

#[test]
fn bug_02_impossible_queues_fail_activation() {
    let end = MEMORY as u32;
    let cases: [(&str, &[(u64, u32)]); 12] = [
        ("no size", &[(0x38, 0)]),
        ("not a power of two", &[(0x38, 12)]),
        ("above the largest", &[(0x38, 32)]),
        ("16 modulo 2^16", &[(0x38, 0x1_0010)]),
        ("misaligned descriptors", &[(0x80, 0x1008)]),
        ("misaligned available ring", &[(0x90, 0x5001)]),
        ("misaligned used ring", &[(0xa0, 0x7002)]),
        ("descriptors over the end", &[(0x80, end - 16)]),
        ("available ring over the end", &[(0x90, end - 2)]),
        ("used ring over the end", &[(0xa0, end - 4)]),
        ("around", &[(0x80, 0xffff_fff0), (0x84, u32::MAX)]),
        ("above", &[(0x94, 1)]),
    ];
    for (what, writes) in cases {
        let (mut rig, counts) = probe();
        rig.negotiate(u64::MAX);
        rig.set_up_queues();
        rig.write(0x30, 0);
        rig.write(0x44, 0);
        writes.iter().for_each(|(register, value)| rig.write(*register, *value));
        rig.write(0x44, 1);
        rig.write(0x70, live().into());
        assert_eq!((rig.failed(), activations(&counts)), (true, 0), "{what}");
        rig.kick(0);
        rig.start(u64::MAX);
        assert_eq!(rig.status(), live(), "{what}: a sane driver comes up afterwards");
    }
}

#[test]
fn bug_02_a_queue_that_was_left_out_fails_a_device_that_needs_it() {
    let (mut rig, _) = probe();
    rig.negotiate(u64::MAX);
    rig.set_up_queues();
    rig.write(0x30, 0);
    rig.write(0x44, 0);
    rig.write(0x70, live().into());
    assert!(rig.failed());
    rig.negotiate(u64::MAX);
    rig.set_up_queues();
    rig.write(0x30, 1);
    rig.write(0x44, 0);
    rig.write(0x70, live().into());
    assert_eq!(rig.status(), live(), "the other one is not needed");
}

#[test]
fn bug_03_queue_selector_out_of_range() {
    let (mut rig, _) = probe();
    rig.negotiate(u64::MAX);
    for selector in [2, 3, 0x1_0000, u32::MAX] {
        rig.write(0x30, selector);
        assert_eq!((rig.read(0x34), rig.read(0x44)), (0, 0));
        [0x38, 0x44, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4].iter().for_each(|register| rig.write(*register, 1));
        assert_eq!(rig.read(0x44), 0);
        rig.write(QUEUE_NOTIFY, selector);
    }
    rig.write(0x30, 1);
    assert_eq!((rig.read(0x34), rig.read(0x44)), (8, 0));
}

#[test]
fn bug_04_accesses_that_are_no_registers_are_harmless() {
    let mut rig = started();
    for len in [0, 1, 2, 3, 5, 8, 16] {
        let mut data = vec![0xaa; len];
        rig.transport.read(0, &mut data);
        assert_eq!(data, vec![0; len], "{len} bytes wide");
        rig.transport.write(0x70, &vec![0; len]);
    }
    for offset in [1, 2, 3, 0x71, 0xb1] {
        assert_eq!(rig.read(offset), 0, "misaligned");
        rig.write(offset, 0);
    }
    for offset in [0x54, 0xf8, 0xfc, u64::MAX, u64::MAX - 3] {
        rig.read(offset);
        rig.write(offset, u32::MAX);
    }
    assert_eq!(rig.status(), live());
    assert_eq!(rig.request(0, &[Buffer::In(4)]).written, 4);
}

#[test]
fn bug_04_configuration_space_takes_any_width_and_has_an_end() {
    let rig = started();
    rig.transport.write(0x101, &[1, 2, 3]);
    rig.transport.write(0x104, &[4]);
    let mut data = [0xaa; 8];
    rig.transport.read(0x100, &mut data);
    assert_eq!(data, [0, 1, 2, 3, 4, 0, 0, 0]);
    rig.transport.write(0x104, &[9; 4]);
    rig.transport.write(u64::MAX, &[9; 4]);
    rig.transport.read(0x100, &mut data);
    assert_eq!(data, [0, 1, 2, 3, 4, 0, 0, 0], "a write over the end writes nothing");
    rig.transport.read(u64::MAX, &mut data);
    assert_eq!(data, [0; 8]);
}

fn descriptor(address: u64, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor { address, len, flags, next }
}

/// Chains that no device may be given: for each, the descriptors of the table, and of an indirect one.
fn bad_chains() -> Vec<(&'static str, Vec<Descriptor>, Vec<Descriptor>)> {
    let buffer = 2 << 20;
    let table = 1 << 20;
    let good = descriptor(buffer, 4, WRITE, 0);
    let many = |n: u16| {
        (1..=n).map(move |next| descriptor(buffer, 4, WRITE | if next < n { NEXT } else { 0 }, next))
    };
    let indirect = |len| vec![descriptor(table, len, INDIRECT, 0)];
    vec![
        ("points to itself", vec![descriptor(buffer, 4, WRITE | NEXT, 0)], vec![]),
        ("cycle of two", vec![descriptor(buffer, 4, NEXT, 1), descriptor(buffer, 4, NEXT, 0)], vec![]),
        ("next out of the table", vec![descriptor(buffer, 4, NEXT, 16)], vec![]),
        ("outside memory", vec![descriptor(MEMORY, 1, WRITE, 0)], vec![]),
        ("over the end", vec![descriptor(MEMORY - 3, 4, WRITE, 0)], vec![]),
        ("around", vec![descriptor(u64::MAX - 1, 4, WRITE, 0)], vec![]),
        ("4 GiB", vec![descriptor(buffer, u32::MAX, WRITE, 0)], vec![]),
        (
            "readable behind writable",
            vec![descriptor(buffer, 4, WRITE | NEXT, 1), descriptor(buffer, 4, 0, 0)],
            vec![],
        ),
        ("nested indirect", indirect(16), vec![descriptor(table, 16, INDIRECT, 0)]),
        ("indirect, not whole descriptors", indirect(17), vec![good.clone(), good.clone()]),
        ("indirect, empty", indirect(0), vec![good.clone()]),
        ("indirect table outside", vec![descriptor(MEMORY, 16, INDIRECT, 0)], vec![]),
        ("indirect next out of its table", indirect(32), vec![descriptor(buffer, 4, NEXT, 2), good]),
        ("longer than the queue", indirect(17 * 16), many(17).collect()),
        ("indirect cycle", indirect(16), vec![descriptor(buffer, 4, NEXT, 0)]),
    ]
}

#[test]
fn bug_06_bad_chains_break_the_device_and_only_until_reset() {
    let mut rig = started();
    for (what, table, indirect) in bad_chains() {
        for (index, descriptor) in (0u16..).zip(&table) {
            descriptor.store(&rig.memory, rig.descriptor(0, index));
        }
        for (index, descriptor) in (0..).zip(&indirect) {
            descriptor.store(&rig.memory, (1 << 20) + 16 * index);
        }
        rig.make_available(0, 0);
        rig.kick(0);
        assert!(rig.failed(), "{what}");
        assert_eq!(rig.read(0x60) & 2, 2, "{what}: configuration interrupt");
        rig.kick(0);
        rig.start(u64::MAX);
        assert_eq!(rig.request(0, &[Buffer::In(4)]).written, 4, "{what}: works again");
        rig.start(u64::MAX);
    }
}

#[test]
fn bug_06_longest_and_indirect_chains_are_fine() {
    let mut rig = started();
    let buffers: Vec<_> = (0..16).map(|_| Buffer::In(1)).collect();
    assert_eq!(rig.request(0, &buffers).written, 16);
    let descriptors = |n: u16| (1..=n).map(move |i| descriptor(2 << 20, 4, WRITE | u16::from(i < n), i));
    for (index, descriptor) in (0..).zip(descriptors(16)) {
        descriptor.store(&rig.memory, (1 << 20) + 16 * index);
    }
    descriptor(1 << 20, 256, INDIRECT, 0).store(&rig.memory, rig.descriptor(0, 3));
    rig.make_available(0, 3);
    rig.kick(0);
    assert!(!rig.failed());
}

#[test]
fn bug_06_head_out_of_the_table_and_index_that_runs_ahead() {
    let mut rig = started();
    rig.make_available(0, 16);
    rig.kick(0);
    assert!(rig.failed());
    for ahead in [17, 0x8000, 0xffff] {
        rig.start(u64::MAX);
        rig.survive(&[Action::Jump(0, ahead), Action::Kick(0)]);
        rig.survive(&[Action::Available(0, 0), Action::Jump(0, 0), Action::Kick(0)]);
    }
    rig.start(u64::MAX);
    assert_eq!(rig.request(0, &[Buffer::In(4)]).written, 4);
}

#[test]
fn interrupts_are_suppressed_as_the_driver_asks() {
    let mut rig = started();
    for _ in 0..3 {
        rig.submit(0, &[Buffer::In(1)]);
        rig.kick(0);
    }
    assert_eq!(rig.interrupts(), 1, "event index: only for the first, none was looked at since");
    let mut rig = Rig::with_features(Box::new(Probe::default()), !(1 << 29));
    rig.request(0, &[Buffer::In(1)]);
    assert_eq!(rig.interrupts(), 1);
    rig.memory.write_slice(&[1, 0], GuestAddress(rig.available(0))).unwrap();
    rig.request(0, &[Buffer::In(1)]);
    assert_eq!(rig.interrupts(), 0, "VIRTQ_AVAIL_F_NO_INTERRUPT");
}

#[test]
fn places_end_with_the_interrupts() {
    let last = layout::IO_APIC_PINS - layout::VIRTIO_MMIO_GSI - 1;
    assert_eq!(Place::nth(last).unwrap().gsi(), layout::IO_APIC_PINS - 1);
    assert!(Place::nth(last + 1).is_none());
    assert!(Place::nth(u32::MAX).is_none());
}

#[test]
fn describes_itself_to_the_machine() {
    let (rig, _) = probe();
    let doorbells = rig.transport.doorbells();
    assert_eq!(doorbells.iter().map(|d| d.value).collect::<Vec<_>>(), [Some(0), Some(1)]);
    assert!(doorbells.iter().all(|d| d.address == layout::VIRTIO_MMIO + QUEUE_NOTIFY));
    assert_eq!(rig.transport.range(), Range::memory(layout::VIRTIO_MMIO, WINDOW));
    let mut aml = Vec::new();
    rig.transport.aml(&mut aml);
    assert!(aml.windows(8).any(|bytes| bytes == b"LNRO0005"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn survives_anything(hostile in hostile(2)) {
        started().survive(&hostile);
    }
}
