//! A driver for tests: rings in real guest memory, registers and event loop as a machine has them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::{EventManager, SubscriberOps};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::handshake::status;
use super::mmio::{self, QUEUE_NOTIFY};
use super::{VirtioDevice, pci};
use crate::device::line::tests::Edges;
use crate::device::message::{Message, Messages, Router};
use crate::device::pci::Function;
use crate::device::{Device, Subscriber};
use crate::memory::GuestMemory;

/// How long a device may take.
const PATIENCE: Duration = Duration::from_secs(30);
pub const MEMORY: u64 = 64 << 20;
const BUFFERS: u64 = 1 << 20;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A buffer of a request: bytes for the device, or room for bytes from it.
pub enum Buffer {
    Out(Vec<u8>),
    In(usize),
}

/// A request that came back.
#[derive(Debug)]
pub struct Used {
    pub written: u32,
    /// All `In` buffers, one after the other.
    pub bytes: Vec<u8>,
}

pub struct Rig {
    pub memory: GuestMemory,
    pub transport: Arc<dyn Device>,
    edges: Arc<Edges>,
    /// The function, where the transport is PCI.
    pub function: Option<Arc<pci::Transport>>,
    events: EventManager<Subscriber>,
    queues: Vec<DriverQueue>,
    /// Where the next buffer goes.
    pub next_buffer: u64,
}

struct DriverQueue {
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    next_available: u16,
    next_used: u16,
    free: Vec<u16>,
    outstanding: HashMap<u16, Outstanding>,
}

/// A request's descriptors, and address and length of its `In` buffers.
type Outstanding = (Vec<u16>, Vec<(u64, usize)>);

impl DriverQueue {
    fn new(index: u64, size: u16) -> Self {
        let base = 0x1000 + index * 0x8000;
        DriverQueue {
            size,
            descriptors: base,
            available: base + 0x4000,
            used: base + 0x6000,
            next_available: 0,
            next_used: 0,
            free: (0..size).rev().collect(),
            outstanding: HashMap::new(),
        }
    }
}

impl Rig {
    /// A device that no driver has touched.
    pub fn untouched(device: Box<dyn VirtioDevice>) -> Rig {
        let (memory, place) = (guest_memory(), mmio::Place::nth(0).unwrap());
        let transport = Arc::new(mmio::Transport::new(device, place, memory.clone()).unwrap());
        Rig::over(memory, transport, None)
    }

    /// The same on a PCI bus; memory and MSI-X are enabled, and vectors go nowhere but to their events.
    pub fn untouched_pci(device: Box<dyn VirtioDevice>) -> Rig {
        let (memory, place) = (guest_memory(), pci::Place::nth(0).unwrap());
        let function = Arc::new(pci::Transport::new(device, place, memory.clone()).unwrap());
        function.messages().unwrap().attach(Arc::new(Nowhere));
        let rig = Rig::over(memory, function.clone(), Some(function));
        rig.enable_pci();
        rig
    }

    fn over(memory: GuestMemory, transport: Arc<dyn Device>, function: Option<Arc<pci::Transport>>) -> Rig {
        let mut events = EventManager::new().unwrap();
        events.add_subscriber(transport.subscriber().unwrap());
        let edges = Arc::new(Edges::default());
        if let Some(line) = transport.interrupt() {
            line.connect(edges.clone());
        }
        Rig { memory, transport, function, edges, events, queues: Vec::new(), next_buffer: BUFFERS }
    }

    /// As a bus driver does before it looks at the device.
    fn enable_pci(&self) {
        let Some(function) = &self.function else { return };
        function.write_config(0x04, &6u16.to_le_bytes());
        let msix = self.capability(0x11).unwrap();
        function.write_config(msix + 2, &0x8000u16.to_le_bytes());
        for vector in 0..self.messages().events().len() as u64 {
            for (at, word) in [(0, 0xfee0_0000), (4, 0), (8, 0x20 + vector as u32), (12, 0)] {
                self.transport.write(0x4000 + 16 * vector + at, &u32::to_le_bytes(word));
            }
        }
    }

    /// Where the first capability of this number is in the configuration space.
    pub fn capability(&self, id: u8) -> Option<u8> {
        let function = self.function.as_ref()?;
        let byte = |at: u8| {
            let mut byte = [0];
            function.read_config(at, &mut byte);
            byte[0]
        };
        let mut at = byte(0x34);
        while at != 0 && byte(at) != id {
            at = byte(at + 1);
        }
        (at != 0).then_some(at)
    }

    /// The transport's messages, where it is PCI.
    pub fn messages(&self) -> &dyn Messages {
        self.transport.messages().unwrap()
    }

    /// A device that is live, with all that it offers.
    pub fn new(device: Box<dyn VirtioDevice>) -> Rig {
        Rig::with_features(device, u64::MAX)
    }

    pub fn with_features(device: Box<dyn VirtioDevice>, mask: u64) -> Rig {
        Rig::untouched(device).started(mask)
    }

    /// A live device on a PCI bus.
    pub fn new_pci(device: Box<dyn VirtioDevice>) -> Rig {
        Rig::untouched_pci(device).started(u64::MAX)
    }

    fn started(mut self, mask: u64) -> Rig {
        self.start(mask);
        assert_eq!(self.status(), live());
        self
    }

    /// The whole initialisation, Virtio 1.2, section 3.1.1.
    pub fn start(&mut self, mask: u64) {
        self.enable_pci();
        self.negotiate(mask);
        self.set_up_queues();
        self.write(0x70, live().into());
    }

    pub fn negotiate(&mut self, mask: u64) {
        self.write(0x70, 0);
        self.write(0x70, 1);
        self.write(0x70, 3);
        for page in 0..2 {
            self.write(0x14, page);
            let offered = self.read(0x10);
            self.write(0x24, page);
            self.write(0x20, offered & (mask >> (32 * page)) as u32);
        }
        self.write(0x70, 11);
    }

    pub fn set_up_queues(&mut self) {
        self.queues.clear();
        for index in 0.. {
            self.write(0x30, index);
            let size = self.read(0x34);
            if size == 0 {
                break;
            }
            let queue = DriverQueue::new(index.into(), size as u16);
            self.memory.write_slice(&[0; 0x4000], GuestAddress(queue.available)).unwrap();
            self.write(0x38, size);
            for (register, address) in
                [(0x80, queue.descriptors), (0x90, queue.available), (0xa0, queue.used)]
            {
                self.write(register, address as u32);
                self.write(register + 4, (address >> 32) as u32);
            }
            if self.function.is_some() {
                self.transport.write(0x1a, &(index as u16 + 1).to_le_bytes());
            }
            self.write(0x44, 1);
            self.queues.push(queue);
        }
    }

    /// Reads a register, named as in virtio-mmio, whatever the transport.
    pub fn read(&self, offset: u64) -> u32 {
        let mut word = [0; 4];
        let (at, width) = if self.function.is_some() { as_pci(offset, 0) } else { (offset, 4) };
        self.transport.read(at, &mut word[..width]);
        u32::from_le_bytes(word)
    }

    /// Writes a register, named as in virtio-mmio, whatever the transport.
    pub fn write(&self, offset: u64, value: u32) {
        let (at, width) = if self.function.is_some() { as_pci(offset, value) } else { (offset, 4) };
        self.transport.write(at, &value.to_le_bytes()[..width]);
    }

    pub fn status(&self) -> u8 {
        self.read(0x70) as u8
    }

    pub fn failed(&self) -> bool {
        self.status() & status::DEVICE_NEEDS_RESET != 0
    }

    /// How often the guest has been interrupted since the last call.
    pub fn interrupts(&self) -> u64 {
        match self.transport.interrupt() {
            Some(_) => self.edges.take(),
            None => self.messages().events().iter().map(|event| event.read().unwrap_or(0)).sum(),
        }
    }

    /// Makes a request available, without a notification.
    pub fn submit(&mut self, queue: usize, buffers: &[Buffer]) -> u16 {
        let ring = &mut self.queues[queue];
        let chain: Vec<u16> = buffers.iter().map(|_| ring.free.pop().unwrap()).collect();
        let mut incoming = Vec::new();
        for (at, buffer) in buffers.iter().enumerate() {
            let (len, write) = match buffer {
                Buffer::Out(bytes) => (bytes.len(), 0),
                Buffer::In(len) => (*len, WRITE),
            };
            if self.next_buffer + len as u64 > MEMORY {
                self.next_buffer = BUFFERS;
            }
            let address = self.next_buffer;
            self.next_buffer += len as u64;
            match buffer {
                Buffer::Out(bytes) => self.memory.write_slice(bytes, GuestAddress(address)).unwrap(),
                Buffer::In(_) => incoming.push((address, len)),
            }
            let next = chain.get(at + 1).copied();
            let flags = write | if next.is_some() { NEXT } else { 0 };
            let descriptor = Descriptor { address, len: len as u32, flags, next: next.unwrap_or(0) };
            descriptor.store(&self.memory, ring.descriptors + 16 * u64::from(chain[at]));
        }
        let head = chain[0];
        ring.outstanding.insert(head, (chain, incoming));
        self.make_available(queue, head);
        head
    }

    /// Puts a descriptor index in the available ring.
    pub fn make_available(&mut self, queue: usize, head: u16) {
        let ring = &mut self.queues[queue];
        let slot = ring.available + 4 + 2 * u64::from(ring.next_available % ring.size);
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        ring.next_available = ring.next_available.wrapping_add(1);
        self.memory.write_obj(ring.next_available, GuestAddress(ring.available + 2)).unwrap();
    }

    pub fn kick(&mut self, queue: usize) {
        self.kick_without_running(queue);
        self.run();
    }

    pub fn kick_without_running(&self, queue: usize) {
        self.write(QUEUE_NOTIFY, queue as u32);
    }

    /// Runs the event loop once.
    pub fn step(&mut self) {
        self.events.run_with_timeout(0).unwrap();
    }

    /// Of what a device may write: used rings and buffers.
    pub fn checksum(&self) -> u64 {
        let mut bytes = vec![0; (2 * BUFFERS) as usize];
        self.memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        bytes.chunks(8).fold(0, |sum, chunk| {
            let word = chunk.iter().fold(0, |word: u64, byte| word << 8 | u64::from(*byte));
            sum.rotate_left(7) ^ word.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
    }

    /// Runs the event loop until nothing is left to do; fails when it never ends.
    pub fn run(&mut self) {
        for _ in 0..10_000 {
            if self.events.run_with_timeout(0).unwrap() == 0 {
                return;
            }
        }
        panic!("the device keeps the event loop busy");
    }

    /// Waits for an event, a timer's for example.
    pub fn wait(&mut self) {
        assert!(self.events.run_with_timeout(10_000).unwrap() > 0, "nothing happens any more");
    }

    /// One request, to the end.
    pub fn request(&mut self, queue: usize, buffers: &[Buffer]) -> Used {
        self.submit(queue, buffers);
        self.kick(queue);
        self.answer(queue)
    }

    /// The next request that comes back; waits for what the device does in the background.
    pub fn answer(&mut self, queue: usize) -> Used {
        let start = Instant::now();
        loop {
            if let Some(used) = self.used(queue) {
                return used;
            }
            assert!(start.elapsed() < PATIENCE, "the request was not answered");
            self.events.run_with_timeout(100).unwrap();
        }
    }

    /// The next request that came back.
    pub fn used(&mut self, queue: usize) -> Option<Used> {
        let ring = &mut self.queues[queue];
        let index: u16 = self.memory.read_obj(GuestAddress(ring.used + 2)).unwrap();
        if index == ring.next_used {
            return None;
        }
        let slot = ring.used + 4 + 8 * u64::from(ring.next_used % ring.size);
        let [head, written]: [u32; 2] = self.memory.read_obj(GuestAddress(slot)).unwrap();
        ring.next_used = ring.next_used.wrapping_add(1);
        // "Interrupt me for the next": `used_event`, behind the available ring.
        let used_event = ring.available + 4 + 2 * u64::from(ring.size);
        self.memory.write_obj(ring.next_used, GuestAddress(used_event)).unwrap();
        let (chain, incoming) = ring.outstanding.remove(&(head as u16)).expect("used, but not available");
        ring.free.extend(chain);
        let mut bytes = Vec::new();
        for (address, len) in incoming {
            let at = bytes.len();
            bytes.resize(at + len, 0);
            self.memory.read_slice(&mut bytes[at..], GuestAddress(address)).unwrap();
        }
        Some(Used { written, bytes })
    }

    /// Guest address of a descriptor.
    pub fn descriptor(&self, queue: usize, index: u16) -> u64 {
        self.queues[queue].descriptors + 16 * u64::from(index)
    }

    /// Guest address of the available ring.
    pub fn available(&self, queue: usize) -> u64 {
        self.queues[queue].available
    }

    /// Does what a hostile guest does; afterwards the device must still come up for a sane driver.
    pub fn survive(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Register(offset, value) => self.transport.write(*offset, value),
                Action::Read(offset, len) => self.transport.read(*offset, &mut vec![0; *len]),
                Action::Descriptor(queue, index, descriptor) => {
                    descriptor.store(&self.memory, self.descriptor(*queue, *index));
                }
                Action::Indirect(index, descriptor) => {
                    descriptor.store(&self.memory, BUFFERS + 16 * u64::from(*index));
                }
                Action::Bytes(address, bytes) => {
                    self.memory.write_slice(bytes, GuestAddress(*address)).unwrap();
                }
                Action::Available(queue, head) => self.make_available(*queue, *head),
                Action::Jump(queue, index) => {
                    self.memory.write_obj(*index, GuestAddress(self.available(*queue) + 2)).unwrap();
                    self.queues[*queue].next_available = *index;
                }
                Action::Kick(queue) => self.kick(*queue),
            }
        }
        self.run();
        self.start(u64::MAX);
        assert_eq!(self.status(), live(), "does not come up any more");
        self.run();
    }
}

pub fn guest_memory() -> GuestMemory {
    GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap()
}

/// Takes every message, and sends it to nobody.
struct Nowhere;

impl Router for Nowhere {
    fn route(&self, _messages: &[(usize, Message)]) -> io::Result<()> {
        Ok(())
    }
}

/// Where virtio-pci has what virtio-mmio has in a register, and how wide it is there.
fn as_pci(register: u64, value: u32) -> (u64, usize) {
    match register {
        0x10 => (0x04, 4),
        0x14 => (0x00, 4),
        0x20 => (0x0c, 4),
        0x24 => (0x08, 4),
        0x30 => (0x16, 2),
        0x34 | 0x38 => (0x18, 2),
        0x44 => (0x1c, 2),
        QUEUE_NOTIFY => (0x3000 + 4 * u64::from(value), 2),
        0x60 => (0x1000, 1),
        0x70 => (0x14, 1),
        0x80..0x88 => (register - 0x60, 4),
        0x90..0x98 => (register - 0x68, 4),
        0xa0..0xa8 => (register - 0x70, 4),
        other => panic!("virtio-pci has no register {other:#x}"),
    }
}

/// All of the driver's status bits of a live device.
pub fn live() -> u8 {
    status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK
}

#[derive(Debug, Clone)]
pub struct Descriptor {
    pub address: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

impl Descriptor {
    pub fn store(&self, memory: &GuestMemory, at: u64) {
        memory.write_obj(self.address, GuestAddress(at)).unwrap();
        memory.write_obj(self.len, GuestAddress(at + 8)).unwrap();
        memory.write_obj([self.flags, self.next], GuestAddress(at + 12)).unwrap();
    }
}

/// One thing that a hostile guest does.
#[derive(Debug, Clone)]
pub enum Action {
    Register(u64, Vec<u8>),
    Read(u64, usize),
    Descriptor(usize, u16, Descriptor),
    Indirect(u16, Descriptor),
    Bytes(u64, Vec<u8>),
    Available(usize, u16),
    Jump(usize, u16),
    Kick(usize),
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0..64u64).prop_map(|n| BUFFERS + 64 * n),
        1 => 0..MEMORY,
        1 => (0..64u64).prop_map(|n| MEMORY - n),
        1 => any::<u64>(),
    ]
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let len = prop_oneof![4 => 0..600u32, 2 => (0..8u32).prop_map(|n| 16 * n), 1 => any::<u32>()];
    let flags = prop_oneof![3 => Just(NEXT), 2 => Just(0), 2 => Just(WRITE), 3 => Just(NEXT | WRITE),
        1 => Just(INDIRECT), 1 => any::<u16>()];
    let next = prop_oneof![6 => 0..8u16, 1 => any::<u16>()];
    (address(), len, flags, next).prop_map(|(address, len, flags, next)| Descriptor {
        address,
        len,
        flags,
        next,
    })
}

/// What a hostile guest does to a device with this many queues.
pub fn hostile(queues: usize) -> impl Strategy<Value = Vec<Action>> {
    let queue = move || 0..queues;
    let status = prop_oneof![Just(0u8), Just(15), Just(11), any::<u8>()];
    let value = prop_oneof![
        any::<[u8; 4]>().prop_map(Vec::from),
        (0..40u32).prop_map(|value| value.to_le_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..9),
    ];
    let action = prop_oneof![
        2 => (0..0x200u64, value).prop_map(|(offset, value)| Action::Register(offset, value)),
        1 => status.prop_map(|s| Action::Register(0x70, vec![s, 0, 0, 0])),
        1 => (any::<u64>(), 0..9usize).prop_map(|(offset, len)| Action::Read(offset, len)),
        8 => (queue(), 0..8u16, descriptor()).prop_map(|(q, i, d)| Action::Descriptor(q, i, d)),
        2 => (0..8u16, descriptor()).prop_map(|(i, d)| Action::Indirect(i, d)),
        2 => (0..256u64, proptest::collection::vec(any::<u8>(), 1..64))
            .prop_map(|(at, bytes)| Action::Bytes(BUFFERS + 16 * at, bytes)),
        6 => (queue(), 0..9u16).prop_map(|(q, head)| Action::Available(q, head)),
        1 => (queue(), any::<u16>()).prop_map(|(q, index)| Action::Jump(q, index)),
        4 => queue().prop_map(Action::Kick),
    ];
    proptest::collection::vec(action, 1..40)
}
