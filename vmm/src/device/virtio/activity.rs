//! What a device has done, whichever it is: counted where its queues and its interrupt are.

use std::sync::atomic::{AtomicU64, Ordering};

use hv_common::Counters;

/// Counts since the machine's start. Threads of the device write them, the monitor reads them.
#[derive(Debug, Default)]
pub struct Activity {
    requests: AtomicU64,
    bytes_from_guest: AtomicU64,
    bytes_to_guest: AtomicU64,
    notifications: AtomicU64,
    interrupts: AtomicU64,
    errors: AtomicU64,
}

impl Activity {
    /// The device was given a request with so many bytes for it.
    pub(super) fn taken(&self, bytes: usize) {
        self.bytes_from_guest.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// It gave such a request back unserved, to be taken again.
    pub(super) fn returned(&self, bytes: usize) {
        self.bytes_from_guest.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// It has served a request, and written so many bytes.
    pub(super) fn served(&self, bytes: u32) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes_to_guest.fetch_add(bytes.into(), Ordering::Relaxed);
    }

    /// The driver woke it.
    pub(super) fn notified(&self) {
        self.notifications.fetch_add(1, Ordering::Relaxed);
    }

    /// It interrupted the driver.
    pub(super) fn interrupted(&self) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
    }

    /// The driver broke it, or it could not go on.
    pub(super) fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts, by name.
    pub fn read(&self) -> Counters {
        [
            ("requests", &self.requests),
            ("bytes_from_guest", &self.bytes_from_guest),
            ("bytes_to_guest", &self.bytes_to_guest),
            ("notifications", &self.notifications),
            ("interrupts", &self.interrupts),
            ("errors", &self.errors),
        ]
        .map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed)))
        .into()
    }
}
