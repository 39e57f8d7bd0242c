//! A page of counters that survives fork: parent and child see the same bytes.

use std::io;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

const PAGE: usize = 4096;
const SLOTS: usize = PAGE / size_of::<AtomicU64>();

/// One anonymous page, shared with every child made after it.
#[derive(Debug)]
pub struct SharedPage(NonNull<[AtomicU64; SLOTS]>);

// SAFETY: the page is only reached through atomics and stays mapped until drop.
unsafe impl Send for SharedPage {}
// SAFETY: as above.
unsafe impl Sync for SharedPage {}

impl SharedPage {
    /// A page of zeros.
    ///
    /// # Errors
    /// As mmap(2).
    pub fn new() -> io::Result<SharedPage> {
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no existing memory.
        let page = unsafe {
            mmap_anonymous(null_mut(), PAGE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)?
        };
        NonNull::new(page.cast()).map(SharedPage).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn slots(&self) -> &[AtomicU64; SLOTS] {
        // SAFETY: mapped in `new` for exactly this many atomics, page aligned, unmapped only in drop.
        unsafe { self.0.as_ref() }
    }

    /// The value in `slot`. Panics if there is no such slot.
    pub fn get(&self, slot: usize) -> u64 {
        self.slots()[slot].load(Ordering::Acquire)
    }

    /// Stores `value` in `slot` unless something is there already.
    pub fn set_if_zero(&self, slot: usize, value: u64) {
        let _ = self.slots()[slot].compare_exchange(0, value, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this page, and no reference outlives self.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), PAGE) };
    }
}
