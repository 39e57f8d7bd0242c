//! A virtio device with its transport, its event loop and real queue memory. The driver is whatever the input says:
//! it begins as an honest one, so that inputs reach the queues at once.

use std::sync::Arc;

use event_manager::{EventManager, SubscriberOps};
use hv_vmm::device::pci::Function;
use hv_vmm::device::virtio::mmio::{self, QUEUE_NOTIFY};
use hv_vmm::device::virtio::{VirtioDevice, pci};
use hv_vmm::device::{Device, Subscriber};
use hv_vmm::memory::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use crate::input::Input;

/// Of guest memory: rings, then buffers.
const MEMORY: u64 = 2 << 20;
const BUFFERS: u64 = 1 << 20;
const RING_STEP: u64 = 0x4000;
/// Rings of this many queues have room.
const QUEUES: usize = 24;
/// Descriptors that the honest driver uses.
const SIZE: u16 = 16;
/// All of an honest driver's status bits.
const LIVE: u8 = 15;
/// What an event loop may turn round for one input.
const TURNS: usize = 20_000;

/// The device.
pub struct Rig {
    memory: GuestMemory,
    transport: Arc<dyn Device>,
    /// Where the transport is PCI.
    function: Option<Arc<pci::Transport>>,
    events: EventManager<Subscriber>,
    /// How far each available ring is filled.
    available: Vec<u16>,
}

impl Rig {
    /// A device on virtio-mmio.
    pub fn mmio(device: Box<dyn VirtioDevice>) -> Rig {
        let (memory, queues) = (memory(), device.queue_sizes().len());
        let place = mmio::Place::nth(0).expect("there is a first place");
        let transport = mmio::Transport::new(device, place, memory.clone()).expect("eventfds can be made");
        Rig::over(memory, Arc::new(transport), None, queues)
    }

    /// The same on a PCI bus.
    pub fn pci(device: Box<dyn VirtioDevice>) -> Rig {
        let (memory, queues) = (memory(), device.queue_sizes().len());
        let place = pci::Place::nth(0).expect("there is a first place");
        let function = pci::Transport::new(device, place, memory.clone()).expect("eventfds can be made");
        let function = Arc::new(function);
        function.write_config(4, &6u16.to_le_bytes());
        Rig::over(memory, function.clone(), Some(function), queues)
    }

    fn over(
        memory: GuestMemory,
        transport: Arc<dyn Device>,
        function: Option<Arc<pci::Transport>>,
        queues: usize,
    ) -> Rig {
        let mut events = EventManager::new().expect("an epoll instance can be made");
        events.add_subscriber(transport.subscriber().expect("virtio devices have events"));
        Rig { memory, transport, function, events, available: vec![0; queues.min(QUEUES)] }
    }

    /// The whole initialisation, Virtio 1.2, section 3.1.1, with those of the offered features that are in `mask`.
    pub fn start(&mut self, mask: u64) {
        for status in [0, 1, 3] {
            self.set(0x70, status);
        }
        for page in 0..2 {
            self.set(0x14, page);
            let offered = self.get(0x10);
            self.set(0x24, page);
            // Version 1 is not left out: nothing works without.
            let mask = (mask >> (32 * page)) as u32 | u32::from(page == 1);
            self.set(0x20, offered & mask);
        }
        self.set(0x70, 11);
        for queue in 0..self.available.len() {
            let base = rings(queue);
            self.set(0x30, queue as u32);
            self.set(0x38, SIZE.into());
            for (register, address) in [(0x80, base), (0x90, base + 0x1000), (0xa0, base + 0x2000)] {
                self.set(register, address as u32);
                self.set(register + 4, (address >> 32) as u32);
            }
            self.poke(base + 0x1000, &[0; 0x100]);
            self.poke(base + 0x2000, &[0; 0x100]);
            self.set(0x44, 1);
            self.available[queue] = 0;
        }
        self.set(0x70, LIVE.into());
        self.run();
    }

    /// Whether the device comes up once more for an honest driver.
    ///
    /// # Panics
    /// It does not.
    pub fn must_come_up(&mut self) {
        if let Some(function) = &self.function {
            function.write_config(4, &6u16.to_le_bytes());
        }
        self.start(u64::MAX);
        assert_eq!(self.get(0x70) as u8, LIVE, "does not come up any more");
        self.run();
    }

    /// Does what the input says, until its end; `beside` is what its host's side does with bytes.
    pub fn obey(&mut self, input: &mut Input, mut beside: impl FnMut(&[u8])) {
        while !input.is_empty() {
            match input.u8() % 12 {
                0 | 1 => self.write(input),
                2 => self.read(input),
                3 => self.start(input.u64()),
                4..=6 => self.request(input),
                7 => self.notify(input.u8().into()),
                8 => {
                    let at = rings(0) + u64::from(input.u16()) * 2;
                    self.poke(at, input.block());
                }
                9 => {
                    let queue = self.some_queue(input.u8());
                    self.available[queue] = input.u16();
                    self.poke(rings(queue) + 0x1002, &self.available[queue].to_le_bytes());
                }
                10 => {
                    beside(input.block());
                    self.run();
                }
                _ => self.configure(input),
            }
        }
        self.run();
    }

    /// A chain: a header as it is in the input, and other descriptors.
    fn request(&mut self, input: &mut Input) {
        let queue = self.some_queue(input.u8());
        let shape = input.u8();
        let (head, links) = (u16::from(shape & 7), 1 + u16::from(shape >> 3 & 3));
        let header = BUFFERS + u64::from(input.u8()) * 64;
        self.poke(header, input.block());
        for link in 0..links {
            let (what, len) = (input.u8(), input.u16());
            let (mut address, mut len) = (BUFFERS + u64::from(what) * 0x1000 % BUFFERS, u32::from(len));
            if link == 0 {
                address = header;
            }
            if what == 0xff {
                (address, len) = (input.u64(), input.u32());
            }
            let more = u16::from(link + 1 < links);
            let odd = if what == 0xfe { input.u16() } else { 0 };
            let flags = more | u16::from(what & 1) << 1 | odd;
            let next = if what == 0xfd { input.u16() } else { (head + link + 1) % SIZE };
            let mut descriptor = [0; 16];
            descriptor[..8].copy_from_slice(&address.to_le_bytes());
            descriptor[8..12].copy_from_slice(&len.to_le_bytes());
            descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
            descriptor[14..].copy_from_slice(&next.to_le_bytes());
            self.poke(rings(queue) + 16 * u64::from((head + link) % SIZE), &descriptor);
        }
        let index = self.available[queue];
        self.poke(rings(queue) + 0x1004 + 2 * u64::from(index % SIZE), &head.to_le_bytes());
        self.available[queue] = index.wrapping_add(1);
        self.poke(rings(queue) + 0x1002, &self.available[queue].to_le_bytes());
        if shape & 0x80 == 0 {
            self.notify(queue);
        }
    }

    fn some_queue(&self, byte: u8) -> usize {
        usize::from(byte) % self.available.len()
    }

    fn notify(&mut self, queue: usize) {
        self.set(QUEUE_NOTIFY, queue as u32);
        self.run();
    }

    /// An access to the device's registers, of any width and alignment, as a vCPU could make it.
    fn write(&mut self, input: &mut Input) {
        let (offset, width) = self.place(input);
        let value = input.u64().to_le_bytes();
        self.transport.write(offset, &value[..width]);
        self.run();
    }

    fn read(&mut self, input: &mut Input) {
        let (offset, width) = self.place(input);
        self.transport.read(offset, &mut [0; 8][..width]);
    }

    /// Offset and width, together inside of what the device answers: the bus lets no others through.
    fn place(&self, input: &mut Input) -> (u64, usize) {
        let width = 1 << (input.u8() % 4);
        let last = self.transport.range().len - width as u64;
        (u64::from(input.u16()) % (last + 1), width)
    }

    /// An access to the configuration space: the host bridge lets aligned ones of 1, 2 and 4 bytes through.
    fn configure(&mut self, input: &mut Input) {
        let Some(function) = &self.function else { return };
        let (width, value) = (1 << (input.u8() % 3), input.u32().to_le_bytes());
        let offset = input.u8() & !(width as u8 - 1);
        function.write_config(offset, &value[..width]);
        function.read_config(offset, &mut [0; 4][..width]);
        self.run();
    }

    fn poke(&self, address: u64, bytes: &[u8]) {
        // What is not memory takes nothing.
        let _ = self.memory.write_slice(bytes, GuestAddress(address));
    }

    /// Reads a register, named as in virtio-mmio.
    fn get(&self, register: u64) -> u32 {
        let (at, width) = self.named(register, 0);
        let mut word = [0; 4];
        self.transport.read(at, &mut word[..width]);
        u32::from_le_bytes(word)
    }

    /// Writes a register, named as in virtio-mmio.
    fn set(&self, register: u64, value: u32) {
        let (at, width) = self.named(register, value);
        self.transport.write(at, &value.to_le_bytes()[..width]);
    }

    fn named(&self, register: u64, value: u32) -> (u64, usize) {
        if self.function.is_none() {
            return (register, 4);
        }
        match register {
            0x10 => (0x04, 4),
            0x14 => (0x00, 4),
            0x20 => (0x0c, 4),
            0x24 => (0x08, 4),
            0x30 => (0x16, 2),
            0x38 => (0x18, 2),
            0x44 => (0x1c, 2),
            QUEUE_NOTIFY => (0x3000 + 4 * u64::from(value % 256), 2),
            0x80..0x88 => (register - 0x60, 4),
            0x90..0x98 => (register - 0x68, 4),
            0xa0..0xa8 => (register - 0x70, 4),
            _ => (0x14, 1),
        }
    }

    /// Runs the event loop until nothing is left to do.
    ///
    /// # Panics
    /// It never ends.
    fn run(&mut self) {
        for _ in 0..TURNS {
            match self.events.run_with_timeout(0) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => panic!("the event loop failed: {error:?}"),
            }
        }
        panic!("the device keeps the event loop busy");
    }

    /// Waits for what the device does in the background.
    pub fn settle(&mut self) {
        self.transport.settle();
        self.run();
    }
}

fn rings(queue: usize) -> u64 {
    0x1000 + queue as u64 * RING_STEP
}

fn memory() -> GuestMemory {
    GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).expect("two MiB can be mapped")
}
