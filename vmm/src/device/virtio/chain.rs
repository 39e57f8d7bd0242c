//! A descriptor chain that has been validated: buffers in guest memory, still the guest's to change.

use vm_memory::{Address, GuestAddress, GuestMemoryBackend};

use crate::memory::{GuestMemory, GuestSlice};

/// One request: the buffers that the driver made available with one entry of the ring.
///
/// Its descriptors were read once, and every range was found to lie in guest memory. The bytes in them
/// are still under the guest's hands: read each once, into a value of one's own, before believing it.
#[derive(Debug)]
pub struct Chain<'m> {
    /// Where the chain starts in the descriptor table: how the used ring names it.
    pub head: u16,
    /// What the driver wrote for the device.
    pub readable: Buffers<'m>,
    /// What the device may write.
    pub writable: Buffers<'m>,
}

/// A sequence of guest memory slices, used as if it were contiguous.
#[derive(Debug, Default, Clone)]
pub struct Buffers<'m> {
    slices: Vec<GuestSlice<'m>>,
    len: usize,
    /// Of the last byte, until the end is cut off.
    last: Option<GuestAddress>,
}

impl<'m> Buffers<'m> {
    /// Adds a range of guest memory at the end; false if any of it is outside.
    pub(super) fn push(&mut self, memory: &'m GuestMemory, address: GuestAddress, len: usize) -> bool {
        let Some(total) = self.len.checked_add(len) else { return false };
        for slice in memory.get_slices(address, len) {
            let Ok(slice) = slice else { return false };
            self.slices.push(slice);
        }
        if len > 0 {
            // In guest memory, as was just found, so that this does not overflow.
            self.last = Some(address.unchecked_add(len as u64 - 1));
        }
        self.len = total;
        true
    }

    /// Bytes in all slices.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slices, in order.
    pub fn slices(&self) -> &[GuestSlice<'m>] {
        &self.slices
    }

    /// Takes the last byte off, and says where it is in guest memory. None if there is none, or if the end was
    /// cut off before.
    pub fn take_last(&mut self) -> Option<GuestAddress> {
        let last = self.last.take()?;
        self.truncate(self.len - 1);
        Some(last)
    }

    /// Cuts off and returns what is behind the first `at` bytes; None (and nothing changed) if there are
    /// not that many.
    pub fn split_off(&mut self, at: usize) -> Option<Buffers<'m>> {
        let rest_len = self.len.checked_sub(at)?;
        let mut before = 0;
        let mut index = 0;
        while index < self.slices.len() && before + self.slices[index].len() <= at {
            before += self.slices[index].len();
            index += 1;
        }
        let mut rest = self.slices.split_off(index);
        if at > before {
            // `at` is inside the slice that begins at `before`, so the split cannot be refused.
            let (head, tail) = rest.first()?.split_at(at - before).ok()?;
            self.slices.push(head);
            rest[0] = tail;
        }
        self.len = at;
        let last = if rest_len == 0 { None } else { self.last.take() };
        Some(Buffers { slices: rest, len: rest_len, last })
    }

    /// Drops the first `count` bytes; all if there are not that many.
    pub fn advance(&mut self, count: usize) {
        if count >= self.len {
            return *self = Buffers::default();
        }
        self.len -= count;
        let (mut left, mut gone) = (count, 0);
        while let Some(slice) = self.slices.get(gone).filter(|slice| slice.len() <= left) {
            left -= slice.len();
            gone += 1;
        }
        self.slices.drain(..gone);
        // `left` is inside the slice that is the first now, so this cannot be refused.
        if let Some(first) = self.slices.first_mut()
            && let Ok(rest) = first.offset(left)
        {
            *first = rest;
        }
    }

    /// Drops what is behind the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        while self.len > len {
            let Some(slice) = self.slices.pop() else { return };
            self.last = None;
            self.len -= slice.len();
            // The end is inside of it, if anywhere, so this cannot be refused.
            if let Some(kept) = len.checked_sub(self.len).filter(|kept| *kept > 0)
                && let Ok(head) = slice.subslice(0, kept)
            {
                self.slices.push(head);
                self.len = len;
            }
        }
    }

    /// Copies the first bytes out and drops them from the front; None (and nothing changed) if there are
    /// not enough. Each byte is read from guest memory once.
    pub fn take_array<const N: usize>(&mut self) -> Option<[u8; N]> {
        if self.len < N {
            return None;
        }
        let mut bytes = [0; N];
        self.copy_to(&mut bytes);
        self.advance(N);
        Some(bytes)
    }

    /// Copies from the front into `bytes`; how many there were.
    pub fn copy_to(&self, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        for slice in &self.slices {
            done += slice.copy_to(&mut bytes[done..]);
        }
        done
    }

    /// Copies `bytes` over the front; how many fitted.
    pub fn copy_from(&self, bytes: &[u8]) -> usize {
        let mut done = 0;
        for slice in &self.slices {
            let count = slice.len().min(bytes.len() - done);
            slice.copy_from(&bytes[done..done + count]);
            done += count;
        }
        done
    }

    /// Writes zeros over all of it.
    pub fn fill_zero(&self) {
        const ZEROS: [u8; 4096] = [0; 4096];
        for slice in &self.slices {
            let mut at = 0;
            while at < slice.len() {
                let count = (slice.len() - at).min(ZEROS.len());
                // `at` is below the slice's length, so the offset cannot be refused.
                if let Ok(part) = slice.offset(at) {
                    part.copy_from(&ZEROS[..count]);
                }
                at += count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 0x1000), (GuestAddress(0x1000), 0x1000)]).unwrap()
    }

    #[test]
    fn ranges_over_a_region_border_are_two_slices() {
        let memory = memory();
        let mut buffers = Buffers::default();
        assert!(buffers.push(&memory, GuestAddress(0xff0), 0x20));
        assert_eq!(buffers.slices().len(), 2);
        assert_eq!(buffers.copy_from(&[7; 64]), 0x20);
        let mut back = [0; 64];
        assert_eq!(buffers.copy_to(&mut back), 0x20);
        assert_eq!(back[..0x20], [7; 0x20]);
        assert!(!buffers.push(&memory, GuestAddress(0x1ff0), 0x11), "over the end");
        assert!(!buffers.push(&memory, GuestAddress(u64::MAX), 2), "around");
    }

    #[test]
    fn the_last_byte_has_an_address() {
        let memory = memory();
        let mut buffers = Buffers::default();
        assert_eq!(buffers.take_last(), None);
        assert!(buffers.push(&memory, GuestAddress(0x100), 8));
        assert!(buffers.push(&memory, GuestAddress(0xff8), 16));
        assert!(buffers.push(&memory, GuestAddress(0x200), 0));
        buffers.advance(1);
        assert_eq!(buffers.take_last(), Some(GuestAddress(0x1007)));
        assert_eq!((buffers.len(), buffers.take_last()), (22, None));
    }

    #[test]
    fn bug_08_a_header_is_read_once() {
        let memory = memory();
        let mut buffers = Buffers::default();
        assert!(buffers.push(&memory, GuestAddress(0xffc), 16));
        buffers.copy_from(&[1; 16]);
        let header = buffers.take_array::<8>();
        let mut all = Buffers::default();
        assert!(all.push(&memory, GuestAddress(0xffc), 16));
        all.copy_from(&[2; 16]);
        assert_eq!(header, Some([1; 8]), "what the guest writes later does not reach the copy");
        assert_eq!(buffers.len(), 8, "nobody can read it again");
        assert_eq!(buffers.take_array::<8>(), Some([2; 8]));
    }

    #[test]
    fn splits_everywhere() {
        let memory = memory();
        for at in 0..=24 {
            let mut buffers = Buffers::default();
            for address in [0x100, 0x200, 0x300] {
                assert!(buffers.push(&memory, GuestAddress(address), 8));
            }
            buffers.copy_from(&core::array::from_fn::<u8, 24, _>(|i| i as u8));
            let (mut front, mut back) = (buffers.clone(), buffers.clone());
            front.truncate(at);
            back.advance(at);
            let rest = buffers.split_off(at).unwrap();
            for (one, other) in [(&buffers, &front), (&rest, &back)] {
                let (mut bytes, mut same) = ([0xff; 24], [0xff; 24]);
                assert_eq!((one.copy_to(&mut bytes), one.len()), (other.copy_to(&mut same), other.len()));
                assert_eq!(bytes, same);
            }
            assert_eq!((buffers.len(), rest.len()), (at, 24 - at));
            let mut bytes = [0xff; 24];
            assert_eq!(buffers.copy_to(&mut bytes), at);
            assert_eq!(rest.copy_to(&mut bytes[at..]), 24 - at);
            assert_eq!(bytes, core::array::from_fn(|i| i as u8));
        }
        let mut buffers = Buffers::default();
        assert!(buffers.push(&memory, GuestAddress(0), 8));
        assert!(buffers.split_off(9).is_none());
        assert!(buffers.take_array::<9>().is_none());
        assert_eq!(buffers.len(), 8);
        buffers.fill_zero();
        assert_eq!(buffers.take_array::<8>(), Some([0; 8]));
        assert!(buffers.is_empty());
    }
}
