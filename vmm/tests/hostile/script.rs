//! What a hostile guest does, as a program: half of it is nonsense, the other half is almost right, so that it
//! comes past the first check.

use hv_vmm::device::virtio::TransportKind;

use super::guest::program::{ECAM, MMIO, Program, REGION};
use super::guest::{RESET, print};
use super::random::Random;

/// Rings of a queue, from 32 MiB on: table, available ring and used ring.
const RINGS: u32 = 32 << 20;
const RING_STEP: u32 = 0x4000;
const QUEUES: usize = 16;
/// What descriptors point to.
const BUFFERS: u32 = 48 << 20;
const BUFFERS_LEN: u32 = 8 << 20;
/// Distance of two devices' registers.
const MMIO_STEP: u32 = 0x1000;
const SLOT_STEP: u32 = 0x8000;
/// What the guest prints when it has come to the end of its script.
pub const FINISHED: &str = "came to the end";

/// A device as the guest knows it.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    pub queues: usize,
    pub kind: u32,
}

/// Ports that somebody answers, or did on a PC.
const PORTS: [(u16, u16); 12] = [
    (0x3f8, 8),
    (0x60, 5),
    (0x600, 8),
    (0x4f0, 8),
    (0x500, 16),
    (0x70, 2),
    (0xcf8, 8),
    (0x20, 2),
    (0xa0, 2),
    (0x40, 4),
    (0x80, 1),
    (0x92, 1),
];

struct Script<'a> {
    program: Program,
    random: &'a mut Random,
    transport: TransportKind,
    devices: &'a [Known],
    /// By device and queue: how far the available ring is filled.
    available: Vec<[u16; QUEUES]>,
}

/// A program of this many acts against these devices.
pub fn write(random: &mut Random, transport: TransportKind, devices: &[Known], acts: usize) -> Program {
    let available = vec![[0; QUEUES]; devices.len()];
    let mut script = Script { program: Program::new(), random, transport, devices, available };
    for device in 0..devices.len() {
        if transport == TransportKind::Pci {
            script.enable(device);
        }
        script.start(device);
    }
    for _ in 0..acts {
        script.act();
    }
    // The UART as it was, to be understood.
    let uart = &mut script.program;
    uart.output(0x3fb, 3, 1).output(0x3f9, 0, 1).output(0x3fc, 0, 1);
    uart.bytes(&print(FINISHED)).bytes(RESET);
    script.program
}

impl Script<'_> {
    fn act(&mut self) {
        let device = self.random.below(self.devices.len() as u32) as usize;
        match self.random.below(40) {
            0..=2 => self.start(device),
            3..=17 => self.request(device),
            18..=24 => self.register(device),
            25..=27 => self.configuration_space(device),
            28..=31 => self.port(),
            32 => self.string_io(),
            33..=36 => self.anywhere(device),
            37 => _ = self.program.load64(self.registers(device)),
            38 => self.ring_fields(device),
            _ => self.notify(device),
        }
    }

    fn registers(&self, device: usize) -> u32 {
        match self.transport {
            TransportKind::Mmio => MMIO + device as u32 * MMIO_STEP,
            TransportKind::Pci => REGION + device as u32 * SLOT_STEP,
        }
    }

    /// Memory and bus master on; every vector somewhere; MSI-X on.
    fn enable(&mut self, device: usize) {
        let (slot, registers) = (ECAM + device as u32 * SLOT_STEP, self.registers(device));
        self.program.store16(slot + 4, 6);
        for vector in 0..8 {
            let at = registers + 0x4000 + 16 * vector;
            self.program.store32(at, 0xfee0_0000).store32(at + 4, 0).store32(at + 8, 0x40 + vector);
            self.program.store32(at + 12, 0);
        }
        self.program.store16(slot + 0x74 + 2, 0x8000);
    }

    /// Writes a register, named as in virtio-mmio, whatever the transport.
    fn set(&mut self, device: usize, register: u32, value: u32) {
        let base = self.registers(device);
        let program = &mut self.program;
        if self.transport == TransportKind::Mmio {
            program.store32(base + register, value);
            return;
        }
        match register {
            0x14 => program.store32(base, value),
            0x24 => program.store32(base + 8, value),
            0x30 => program.store16(base + 0x16, value as u16),
            0x38 => program.store16(base + 0x18, value as u16),
            0x44 => program.store16(base + 0x1c, value as u16),
            0x50 => program.store16(base + 0x3000 + 4 * (value & 0x3ff), value as u16),
            0x70 => program.store8(base + 0x14, value as u8),
            0x80..0x88 => program.store32(base + register - 0x60, value),
            0x90..0x98 => program.store32(base + register - 0x68, value),
            _ => program.store32(base + (register - 0x70) % 0x40, value),
        };
    }

    /// The whole initialisation, Virtio 1.2, section 3.1.1; now and then with something wrong in it.
    fn start(&mut self, device: usize) {
        let base = self.registers(device);
        let (offered, accepted) = if self.transport == TransportKind::Mmio {
            (base + 0x10, base + 0x20)
        } else {
            (base + 4, base + 0xc)
        };
        for status in [0, 1, 3] {
            self.set(device, 0x70, status);
        }
        let mask = if self.random.once_in(3) { self.random.next() } else { u64::MAX };
        for (page, mask) in [(0, mask as u32), (1, (mask >> 32) as u32 | 1)] {
            self.set(device, 0x14, page);
            self.set(device, 0x24, page);
            self.program.copy32(offered, accepted, mask);
        }
        self.set(device, 0x70, 11);
        for queue in 0..self.devices[device].queues {
            if !self.random.once_in(30) {
                self.set_up(device, queue);
            }
        }
        self.set(device, 0x70, 15);
    }

    fn rings(device: usize, queue: usize) -> u32 {
        RINGS + (device * QUEUES + queue) as u32 * RING_STEP
    }

    fn set_up(&mut self, device: usize, queue: usize) {
        let base = Self::rings(device, queue);
        self.set(device, 0x30, queue as u32);
        let size = if self.random.once_in(10) { self.random.number() as u32 } else { 16 };
        self.set(device, 0x38, size);
        for (register, at) in [(0x80, base), (0x90, base + 0x1000), (0xa0, base + 0x2000)] {
            let wrong = self.random.once_in(60);
            let address = if wrong { self.random.number() } else { at.into() };
            self.set(device, register, address as u32);
            self.set(device, register + 4, (address >> 32) as u32);
        }
        self.set(device, 0x44, 1);
        self.program.store32(base + 0x1000, 0).store32(base + 0x2000, 0);
        self.available[device][queue] = 0;
    }

    fn buffer(&mut self) -> u32 {
        BUFFERS + self.random.below(BUFFERS_LEN - 0x2_0000)
    }

    /// A chain of descriptors, made available; the driver is as often honest as not.
    fn request(&mut self, device: usize) {
        let Known { queues, kind } = self.devices[device];
        let queue = self.random.below(queues as u32) as usize;
        let base = Self::rings(device, queue);
        let head = self.random.below(12) as u16;
        let links = 1 + self.random.below(4) as u16;
        let header = self.buffer();
        self.header(kind, header);
        for link in 0..links {
            let address = match self.random.below(30) {
                0 => self.random.number(),
                1 => 64 << 20,
                _ if link == 0 => header.into(),
                _ => self.buffer().into(),
            };
            let len = match self.random.below(12) {
                0 => self.random.number() as u32,
                1 => 0x1_0000,
                2..=4 => 16,
                5 => 1,
                6 => 12,
                7 => 512,
                8 => 44,
                _ => self.random.below(2048),
            };
            let more = if link + 1 < links { 1 } else { 0 };
            // The last is most often the device's to write.
            let write = if more == 0 && self.random.below(3) > 0 || self.random.once_in(4) { 2 } else { 0 };
            let odd = if self.random.once_in(25) { self.random.below(16) as u16 } else { 0 };
            let next =
                if self.random.once_in(40) { self.random.next() as u16 } else { (head + link + 1) % 16 };
            let at = base + 16 * u32::from((head + link) % 16);
            let tail = u64::from(len) | u64::from(more | write | odd) << 32 | u64::from(next) << 48;
            self.program.store64(at, address).store64(at + 8, tail);
        }
        let index = self.available[device][queue];
        self.program.store16(base + 0x1000 + 4 + 2 * u32::from(index % 16), head);
        let step = if self.random.once_in(60) { self.random.next() as u16 } else { 1 };
        self.available[device][queue] = index.wrapping_add(step);
        self.program.store16(base + 0x1002, index.wrapping_add(step));
        if !self.random.once_in(4) {
            self.set(device, 0x50, queue as u32);
        }
    }

    /// What requests to a device of this type begin with.
    fn header(&mut self, kind: u32, at: u32) {
        let random = &mut *self.random;
        let words: Vec<u64> = match kind {
            // Disk: type; sector. A range to discard: sector; count and flags.
            2 => {
                let any = random.next() & 0xffff;
                let sector = if random.once_in(4) { random.number() } else { random.next() % 8192 };
                vec![random.of(&[0, 1, 0, 1, 4, 8, 11, 13, any]), sector, random.next() % 64]
            }
            // Console: port, event and value.
            3 => vec![(random.next() % 4) | ((random.next() % 9) << 32) | ((random.next() % 3) << 48)],
            // Balloon: page numbers, of the buffers for the most part.
            5 => (0..8)
                .map(|_| {
                    let page = u64::from(BUFFERS >> 12) + random.next() % 0x700;
                    if random.once_in(8) { random.next() } else { page | (page + 1) << 32 }
                })
                .collect(),
            // Socket: addresses, ports, length, type and operation, flags and credit. Section 5.10.6.
            19 => {
                let (any, other) = (random.next(), random.next());
                let mut cid = |usual| if random.once_in(20) { random.number() } else { usual };
                let (from, to) = (cid(3), cid(2));
                let ports = u64::from(random.below(8) + 1000) | random.of(&[1024, 1025, 52, 7]) << 32;
                let len = random.of(&[0, 0, 0, 16, 100, any & 0xffff_ffff]);
                let (operation, flags) = (1 | ((random.next() % 9) << 16), random.next() % 4);
                let credit = random.of(&[0x4_0000, 0, other & 0xffff_ffff]);
                vec![from, to, ports, len | operation << 32, flags | credit << 32, other >> 32]
            }
            // Network: no offload, or any.
            _ => vec![if random.once_in(3) { random.next() } else { 0 }, random.next() & 0xff_ffff],
        };
        for (word, value) in (0..).zip(words) {
            self.program.store64(at + 8 * word, value);
        }
    }

    fn notify(&mut self, device: usize) {
        let queue =
            if self.random.once_in(5) { self.random.next() as u32 } else { self.random.below(QUEUES as u32) };
        self.set(device, 0x50, queue);
    }

    /// A field of a ring that is in use: flags, index, event index, anything.
    fn ring_fields(&mut self, device: usize) {
        let queue = self.random.below(self.devices[device].queues as u32) as usize;
        let part = self.random.of(&[0, 0x1000, 0x1000, 0x2000]);
        let at = Self::rings(device, queue) + part + 2 * self.random.below(64);
        let value = self.random.number() as u16;
        self.program.store16(at, value);
    }

    /// A register, whatever it is.
    fn register(&mut self, device: usize) {
        let len = if self.transport == TransportKind::Mmio {
            0x140
        } else {
            self.random.of(&[0x40, 0x3040, 0x5010])
        };
        let at = self.registers(device) + self.random.below(len);
        self.store(at);
    }

    fn configuration_space(&mut self, device: usize) {
        if self.transport == TransportKind::Pci {
            let at = ECAM + device as u32 * SLOT_STEP + self.random.below(0x100);
            self.store(at);
            if self.random.once_in(4) {
                self.enable(device);
            }
        } else {
            let at = self.registers(device) + 0x100 + self.random.below(0x40);
            self.store(at);
        }
    }

    /// All that is between 3 and 4 GiB; interrupt controllers, which are the host's kernel, less often.
    fn anywhere(&mut self, device: usize) {
        let at = match self.random.below(40) {
            0 => 0xfec0_0000 + self.random.below(0x40),
            1 => ECAM + self.random.below(0x10_0000),
            2 => 0xc000_0000 + self.random.below(0x3ec0_0000),
            3 => REGION + self.random.below(0x100_0000),
            4..=9 => MMIO + self.random.below(0x1_8000),
            10..=16 => ECAM + self.random.below(0x8_0000),
            _ => self.registers(device) + self.random.below(0x1000),
        };
        self.store(at);
    }

    /// A write of any width, or a read. What the words of an MSI-X entry choose may be the processor's end.
    fn store(&mut self, at: u32) {
        let (value, small) = (self.random.number(), self.random.below(16));
        match self.random.below(7) {
            0 => self.program.store8(at, value as u8),
            1 => self.program.store16(at, value as u16),
            2 => self.program.store32(at & !3, small),
            3 => self.program.store32(at, value as u32),
            4 => self.program.store16(at & !1, small as u16),
            5 => self.program.load32(at),
            _ => self.program.store64(at & !7, value),
        };
    }

    fn some_port(&mut self) -> u16 {
        if self.random.once_in(3) {
            return self.random.next() as u16;
        }
        let (base, len) = self.random.of(&PORTS);
        base + self.random.below(len.into()) as u16
    }

    fn port(&mut self) {
        let (port, width) = (self.some_port(), self.random.of(&[1, 1, 2, 4]));
        let value = self.random.number() as u32;
        // What ends the machine is worth only a few rounds.
        let ends = matches!(port, 0x61..=0x64 | 0x5fd..=0x601 | 0x502..=0x505);
        if self.random.once_in(3) || ends && !self.random.once_in(200) {
            self.program.input(port, width);
        } else {
            self.program.output(port, value, width);
        }
    }

    fn string_io(&mut self) {
        let port = self.random.of(&[0x3f8, 0x3fd, 0x602, 0x60, 0xcfc, 0x510]);
        let (address, count, width) = (self.buffer(), self.random.below(5000), self.random.of(&[1, 2, 4]));
        let out = self.random.below(2) == 0;
        self.program.string_io(port, address, count, width, out);
    }
}
