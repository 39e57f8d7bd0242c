//! What went through a network device.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::device::virtio::Meter;

/// A number that only grows, read from other threads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The number so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Frames and their bytes, without the headers of virtio; from the guest's point of view.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames that the guest received.
    pub rx_frames: Counter,
    /// Bytes in them.
    pub rx_bytes: Counter,
    /// Frames for the guest that did not fit what it had room for.
    pub rx_dropped: Counter,
    /// Frames that the guest sent.
    pub tx_frames: Counter,
    /// Bytes in them.
    pub tx_bytes: Counter,
    /// Frames of the guest that were malformed, or that the host did not take.
    pub tx_dropped: Counter,
}

impl Counters {
    pub(super) fn received(&self, len: usize) {
        self.rx_frames.add(1);
        self.rx_bytes.add(len as u64);
    }

    pub(super) fn sent(&self, len: usize) {
        self.tx_frames.add(1);
        self.tx_bytes.add(len as u64);
    }
}

impl Meter for Counters {
    fn read(&self) -> hv_common::Counters {
        [
            ("rx_frames", &self.rx_frames),
            ("rx_bytes", &self.rx_bytes),
            ("rx_dropped", &self.rx_dropped),
            ("tx_frames", &self.tx_frames),
            ("tx_bytes", &self.tx_bytes),
            ("tx_dropped", &self.tx_dropped),
        ]
        .map(|(name, counter)| (name.to_owned(), counter.get()))
        .into()
    }
}
