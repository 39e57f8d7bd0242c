//! The balloon as the monitor sees it, from any thread.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hv_common::Counters;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Statistics;
use crate::device::virtio::Meter;

/// Pages of the balloon, whatever the guest's or the host's are.
pub(super) const PAGE: u64 = 4096;

/// Asks a guest for memory, and how it is doing. Clones are of the same balloon.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// What device and handles have in common.
#[derive(Debug)]
pub(super) struct Shared {
    /// Pages that the guest is asked for.
    pub target: AtomicU32,
    /// Pages that the guest says it has given, at most all that it has.
    pub actual: AtomicU32,
    /// Bytes that went back to the host because the guest reported them free.
    pub reported: AtomicU64,
    /// Bytes that went back because the balloon took them.
    pub inflated: AtomicU64,
    /// Wakes the device: the target is another, or statistics are wanted.
    pub wake: EventFd,
    pub statistics: Mutex<Told>,
    pub told: Condvar,
}

/// What the guest said last.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Somebody waits for news.
    pub wanted: bool,
    /// How often it has said something.
    pub times: u64,
    pub last: Statistics,
}

impl Shared {
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    /// Of a guest that is asked for `target` bytes.
    pub(super) fn new(target: u64) -> io::Result<Handle> {
        let shared = Shared {
            target: AtomicU32::new(pages(target)),
            actual: AtomicU32::default(),
            reported: AtomicU64::default(),
            inflated: AtomicU64::default(),
            wake: EventFd::new(EFD_NONBLOCK)?,
            statistics: Mutex::default(),
            told: Condvar::new(),
        };
        Ok(Handle { shared: Arc::new(shared) })
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Asks the guest to give `bytes` of its memory, whole pages of 4 KiB, to the host; or back to it what is
    /// over that. It follows when it can; [`Handle::actual`] tells.
    pub fn set_target(&self, bytes: u64) {
        self.shared.target.store(pages(bytes), Ordering::Release);
        self.wake();
    }

    /// Bytes that the guest is asked for.
    pub fn target(&self) -> u64 {
        u64::from(self.shared.target.load(Ordering::Acquire)) * PAGE
    }

    /// Bytes that the guest says it has given.
    pub fn actual(&self) -> u64 {
        u64::from(self.shared.actual.load(Ordering::Acquire)) * PAGE
    }

    /// Bytes that went back to the host because the guest reported them free, since its start.
    pub fn reported(&self) -> u64 {
        self.shared.reported.load(Ordering::Relaxed)
    }

    /// Bytes that went back to the host because they were put into the balloon, since the guest's start.
    pub fn inflated(&self) -> u64 {
        self.shared.inflated.load(Ordering::Relaxed)
    }

    /// Asks the guest how its memory is used; None if it does not answer in time, or has no driver that could.
    pub fn statistics(&self, patience: Duration) -> Option<Statistics> {
        let mut told = self.shared.told();
        let before = told.times;
        told.wanted = true;
        self.wake();
        let waiting = |told: &mut Told| told.times == before;
        let waited = self.shared.told.wait_timeout_while(told, patience, waiting);
        let (told, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        (!timeout.timed_out()).then_some(told.last)
    }

    fn wake(&self) {
        // Only a full counter can fail this, and then the device is about to wake anyway.
        let _ = self.shared.wake.write(1);
    }
}

impl Meter for Handle {
    fn read(&self) -> Counters {
        [
            ("target_bytes", self.target()),
            ("actual_bytes", self.actual()),
            ("inflated_bytes", self.inflated()),
            ("reported_bytes", self.reported()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// Whole pages; more than any guest has is all of it.
fn pages(bytes: u64) -> u32 {
    u32::try_from(bytes / PAGE).unwrap_or(u32::MAX)
}
