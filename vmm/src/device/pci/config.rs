//! A function's configuration space: the type 0 header and a list of capabilities.
//! PCI Local Bus 3.0, chapter 6.
//!
//! Bytes, and for each which bits the guest may change. The one 64-bit memory region does not move.

use crate::device::Range;

const LEN: usize = 256;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BAR_LOW: usize = 0x10;
const BAR_HIGH: usize = 0x14;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
/// The first capability's offset: behind the header.
const FIRST: usize = 0x40;

/// Command: the function answers in memory.
const MEMORY_SPACE: u16 = 1 << 1;
/// Command: it may reach memory. Command: it may not use its interrupt pin.
const BUS_MASTER: u16 = 1 << 2;
const NO_PIN: u16 = 1 << 10;
/// Status: there is a list of capabilities.
const HAS_CAPABILITIES: u16 = 1 << 4;
/// Base address register: 64 bits wide, not prefetchable.
const MEMORY_64: u32 = 0b100;

/// Who a function says it is.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Vendor, also of the subsystem.
    pub vendor: u16,
    /// The vendor's number for it.
    pub device: u16,
    /// The subsystem's number.
    pub subsystem: u16,
    /// Base class, sub-class and programming interface, a byte each, the base class the highest.
    pub class: u32,
    /// Revision.
    pub revision: u8,
}

/// The configuration space of one function.
pub struct ConfigSpace {
    bytes: [u8; LEN],
    writable: [u8; LEN],
    region: Range,
    /// The guest has asked the lower, the upper half of the base address register for its size.
    sizing: [bool; 2],
    /// Where the last capability points to the next, and where that would be.
    link: usize,
    next: usize,
}

impl ConfigSpace {
    /// One without capabilities, whose memory is `region`: a power of two long, and a multiple of that.
    pub fn new(identity: Identity, region: Range) -> ConfigSpace {
        let mut space = ConfigSpace {
            bytes: [0; LEN],
            writable: [0; LEN],
            region,
            sizing: [false; 2],
            link: CAPABILITIES,
            next: FIRST,
        };
        space.put(0x00, &identity.vendor.to_le_bytes());
        space.put(0x02, &identity.device.to_le_bytes());
        space.put(STATUS, &HAS_CAPABILITIES.to_le_bytes());
        space.put(0x08, &[identity.revision]);
        space.put(0x09, &identity.class.to_le_bytes()[..3]);
        space.put(0x2c, &identity.vendor.to_le_bytes());
        space.put(0x2e, &identity.subsystem.to_le_bytes());
        let command = MEMORY_SPACE | BUS_MASTER | NO_PIN;
        space.writable[COMMAND..COMMAND + 2].copy_from_slice(&command.to_le_bytes());
        space.writable[INTERRUPT_LINE] = 0xff;
        space
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Appends a capability: its number, and what follows number and link. Bits set in `writable` (as long
    /// as `body`) are the guest's. Its offset; None if there is no more room.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Option<u8> {
        let at = self.next;
        let end = at + 2 + body.len();
        if end > LEN || body.len() != writable.len() {
            return None;
        }
        self.bytes[self.link] = at as u8;
        self.bytes[at] = id;
        self.put(at + 2, body);
        self.writable[at + 2..end].copy_from_slice(writable);
        self.link = at + 1;
        self.next = end.next_multiple_of(4);
        u8::try_from(at).ok()
    }

    /// Whether the function answers in its memory.
    pub fn answers_in_memory(&self) -> bool {
        self.u16(COMMAND as u8) & MEMORY_SPACE != 0
    }

    /// The 16 bits at this offset; 0 behind the end.
    pub fn u16(&self, at: u8) -> u16 {
        let at = usize::from(at);
        self.bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).map_or(0, u16::from_le_bytes)
    }

    /// The 32 bits at this offset; 0 behind the end.
    pub fn u32(&self, at: u8) -> u32 {
        let at = usize::from(at);
        self.bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
    }

    /// The guest reads; bytes behind the end are 0.
    pub fn read(&self, offset: u8, data: &mut [u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            *byte = match at {
                BAR_LOW..BAR_HIGH => self.bar_low().to_le_bytes()[at - BAR_LOW],
                BAR_HIGH..0x18 => self.bar_high().to_le_bytes()[at - BAR_HIGH],
                _ => self.bytes.get(at).copied().unwrap_or(0),
            };
        }
    }

    /// The guest writes. What it may not change stays as it is.
    pub fn write(&mut self, offset: u8, data: &[u8]) {
        for (half, register) in [BAR_LOW, BAR_HIGH].into_iter().enumerate() {
            if let (true, Ok(word)) = (usize::from(offset) == register, <[u8; 4]>::try_from(data)) {
                // The low four bits are no address: some write them, some do not.
                self.sizing[half] = u32::from_le_bytes(word) | 0xf == u32::MAX;
            }
        }
        for (at, byte) in (usize::from(offset)..).zip(data) {
            if let (Some(old), Some(mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *old = *old & !mask | byte & mask;
            }
        }
    }

    fn bar_low(&self) -> u32 {
        let address = if self.sizing[0] { self.size_mask() } else { self.region.base };
        address as u32 & !0xf | MEMORY_64
    }

    fn bar_high(&self) -> u32 {
        let address = if self.sizing[1] { self.size_mask() } else { self.region.base };
        (address >> 32) as u32
    }

    fn size_mask(&self) -> u64 {
        !(self.region.len - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: u64 = 0xe100_8000;

    fn space() -> ConfigSpace {
        let identity =
            Identity { vendor: 0x1af4, device: 0x1042, subsystem: 0x40, class: 0x01_80_00, revision: 1 };
        ConfigSpace::new(identity, Range::memory(BASE, 0x8000))
    }

    fn read(space: &ConfigSpace, offset: u8) -> u32 {
        let mut word = [0xaa; 4];
        space.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    #[test]
    fn the_header_says_who_it_is() {
        let space = space();
        assert_eq!(read(&space, 0), 0x1042_1af4);
        assert_eq!(read(&space, 8), 0x0180_0001);
        assert_eq!(read(&space, 0x2c), 0x0040_1af4);
        assert_eq!(read(&space, 0x3c) >> 8, 0, "no interrupt pin");
    }

    #[test]
    fn capabilities_are_a_list() {
        let mut space = space();
        assert_eq!(space.add_capability(9, &[1, 2, 3], &[0, 0xf0, 0]), Some(0x40));
        assert_eq!(space.add_capability(0x11, &[7; 10], &[0; 10]), Some(0x48));
        assert_eq!(read(&space, 0x34) as u8, 0x40);
        assert_eq!(read(&space, 0x40), 0x0201_4809);
        assert_eq!(read(&space, 0x48), 0x0707_0011);
        space.write(0x42, &[0xff, 0xff]);
        assert_eq!(read(&space, 0x40), 0xf201_4809, "only what is the guest's");
        assert_eq!(space.add_capability(1, &[0; 200], &[0; 200]), None);
    }

    #[test]
    fn a_base_address_register_tells_its_size() {
        let mut space = space();
        for all_ones in [u32::MAX, 0xffff_fff0] {
            space.write(0x10, &all_ones.to_le_bytes());
            space.write(0x14, &all_ones.to_le_bytes());
            assert_eq!((read(&space, 0x10), read(&space, 0x14)), (0xffff_8004, u32::MAX));
            space.write(0x10, &(BASE as u32).to_le_bytes());
            space.write(0x14, &[0; 4]);
            assert_eq!((read(&space, 0x10), read(&space, 0x14)), (0xe100_8004, 0));
        }
        for absent in [0x18, 0x1c, 0x20, 0x24, 0x30] {
            space.write(absent, &[0xff; 4]);
            assert_eq!(read(&space, absent), 0, "{absent:#x}");
        }
    }

    #[test]
    fn bug_05_a_base_address_register_does_not_move() {
        let mut space = space();
        for address in [0, 0x8000, 0xc000_0000u32, 0xfee0_0000, 0xffff_0000, 0xfff8_0000] {
            space.write(0x10, &address.to_le_bytes());
            space.write(0x14, &0x7fff_ffffu32.to_le_bytes());
            assert_eq!((read(&space, 0x10), read(&space, 0x14)), (0xe100_8004, 0), "{address:#x}");
        }
        space.write(0x10, &[0xff]);
        space.write(0x12, &[0xff, 0xff]);
        assert_eq!(read(&space, 0x10), 0xe100_8004, "pieces of a register");
    }

    proptest! {
        #[test]
        fn any_access_leaves_what_is_not_the_guests(
            accesses in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..9)), 0..40)
        ) {
            let mut space = space();
            space.add_capability(9, &[1; 14], &[0; 14]).unwrap();
            for (offset, data) in accesses {
                space.write(offset, &data);
                space.read(offset, &mut vec![0; data.len()]);
            }
            prop_assert_eq!(read(&space, 0), 0x1042_1af4);
            prop_assert_eq!(read(&space, 0x40), 0x0101_0009);
            prop_assert_eq!(space.u16(0xff), 0);
        }
    }
}
