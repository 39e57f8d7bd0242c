//! Address to device.
//!
//! Both address spaces are sorted lists without overlaps, built once and then only read, so vCPU
//! threads look up without a lock. The guest may read and write anything: what nobody answers
//! reads as all ones and swallows writes, as on a real bus.

use std::sync::Arc;

use crate::device::{Device, Range, Space};

/// The devices of a machine by address.
#[derive(Default)]
pub struct Bus {
    ports: Vec<Slot>,
    memory: Vec<Slot>,
}

struct Slot {
    range: Range,
    device: Arc<dyn Device>,
}

/// Two devices want the same addresses.
#[derive(Debug, thiserror::Error)]
#[error("{new} at {range} would answer the same addresses as {old}")]
pub struct Overlap {
    new: String,
    range: Range,
    old: String,
}

impl Bus {
    /// Puts a device where its range says.
    ///
    /// # Errors
    /// Another device answers one of its addresses already.
    pub fn insert(&mut self, device: Arc<dyn Device>) -> Result<(), Overlap> {
        let range = device.range();
        let slots = match range.space {
            Space::Port => &mut self.ports,
            Space::Memory => &mut self.memory,
        };
        if let Some(slot) = slots.iter().find(|slot| slot.range.overlaps(&range)) {
            let (new, old) = (device.name().to_owned(), slot.device.name().to_owned());
            return Err(Overlap { new, range, old });
        }
        let at = slots.partition_point(|slot| slot.range.base < range.base);
        slots.insert(at, Slot { range, device });
        Ok(())
    }

    /// The guest reads `data.len()` bytes at `address`.
    pub fn read(&self, space: Space, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((device, offset)) = self.find(space, address, data.len()) {
            device.read(offset, data);
        }
    }

    /// The guest writes `data` at `address`.
    pub fn write(&self, space: Space, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.find(space, address, data.len()) {
            device.write(offset, data);
        }
    }

    /// The device that answers all of `len` bytes at `address`, and the offset in it.
    fn find(&self, space: Space, address: u64, len: usize) -> Option<(&dyn Device, u64)> {
        let slots = match space {
            Space::Port => &self.ports,
            Space::Memory => &self.memory,
        };
        let after = slots.partition_point(|slot| slot.range.base <= address);
        let slot = slots.get(after.checked_sub(1)?)?;
        let offset = address - slot.range.base;
        let end = offset.checked_add(len as u64)?;
        (end <= slot.range.len).then(|| (&*slot.device, offset))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Recorder(Range, Mutex<Vec<(u64, Vec<u8>)>>);

    impl Device for Recorder {
        fn name(&self) -> &str {
            "recorder"
        }
        fn range(&self) -> Range {
            self.0
        }
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }
        fn write(&self, offset: u64, data: &[u8]) {
            self.1.lock().unwrap().push((offset, data.to_vec()));
        }
    }

    fn recorder(range: Range) -> Arc<Recorder> {
        Arc::new(Recorder(range, Mutex::default()))
    }

    #[test]
    fn accesses_reach_the_device_at_that_address_only() {
        let mut bus = Bus::default();
        let low = recorder(Range::memory(0x1000, 0x10));
        let high = recorder(Range::memory(0x1010, 0x10));
        bus.insert(high.clone()).unwrap();
        bus.insert(low.clone()).unwrap();
        bus.write(Space::Memory, 0x100c, &[1, 2, 3, 4]);
        bus.write(Space::Memory, 0x1010, &[5]);
        bus.write(Space::Port, 0x1010, &[6]);
        assert_eq!(*low.1.lock().unwrap(), [(0xc, vec![1, 2, 3, 4])]);
        assert_eq!(*high.1.lock().unwrap(), [(0, vec![5])]);
    }

    #[test]
    fn accesses_across_an_edge_reach_nobody() {
        let mut bus = Bus::default();
        let device = recorder(Range::memory(0x1000, 0x10));
        bus.insert(device.clone()).unwrap();
        bus.write(Space::Memory, 0x100e, &[1, 2, 3, 4]);
        bus.write(Space::Memory, 0xffe, &[1, 2, 3, 4]);
        bus.write(Space::Memory, u64::MAX, &[1, 2]);
        let mut data = [0; 8];
        bus.read(Space::Memory, 0x100c, &mut data);
        assert_eq!(data, [0xff; 8]);
        assert!(device.1.lock().unwrap().is_empty());
    }

    #[test]
    fn overlapping_devices_are_refused() {
        let mut bus = Bus::default();
        bus.insert(recorder(Range::ports(0x60, 5))).unwrap();
        assert!(bus.insert(recorder(Range::ports(0x64, 1))).is_err());
        assert!(bus.insert(recorder(Range::ports(0x50, 0x40))).is_err());
        assert!(bus.insert(recorder(Range::ports(0x65, 1))).is_ok());
        assert!(bus.insert(recorder(Range::memory(0x60, 5))).is_ok(), "another address space");
    }
}
