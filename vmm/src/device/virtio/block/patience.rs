//! How long a vCPU waits for a write to the host's page cache.
//!
//! Such a write is a copy, as a rule. But the host makes a writer wait when too much is not on the medium yet, or
//! when its file system is busy, and cannot always be asked beforehand (`RWF_NOWAIT` is refused for buffered writes by
//! ext4, for one). So it is timed: after one that took long, others are for the disk's own thread for a while, and
//! for twice as long if that happens again soon.

use std::time::{Duration, Instant};

/// What is long: many times what it takes to wake another thread for it.
const LONG: Duration = Duration::from_micros(500);
/// How many writes are left to another thread after the first long one, and at most.
const FIRST: u32 = 64;
const MOST: u32 = 4096;

/// One disk's.
#[derive(Debug, Default)]
pub struct Patience {
    /// Writes that are still for another thread.
    lost: u32,
    /// How many they were at first the last time, less one for each quick write since.
    penalty: u32,
}

impl Patience {
    /// Whether the vCPU may do the next write itself.
    pub fn is_left(&mut self) -> bool {
        let left = self.lost == 0;
        self.lost = self.lost.saturating_sub(1);
        left
    }

    /// Does a write, and looks at how long it takes.
    pub fn time<T>(&mut self, write: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = write();
        self.took(start.elapsed());
        result
    }

    fn took(&mut self, time: Duration) {
        if time > LONG {
            self.penalty = (2 * self.penalty).clamp(FIRST, MOST);
            self.lost = self.penalty;
        } else {
            self.penalty = self.penalty.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many writes are left to another thread now.
    fn lost(patience: &mut Patience) -> u32 {
        std::iter::from_fn(|| (!patience.is_left()).then_some(())).count() as u32
    }

    #[test]
    fn quick_writes_never_lose_it() {
        let mut patience = Patience::default();
        for _ in 0..1000 {
            assert!(patience.is_left());
            patience.took(LONG);
        }
    }

    #[test]
    fn long_ones_lose_it_for_longer_and_longer() {
        let mut patience = Patience::default();
        for expected in [FIRST, 2 * FIRST, 4 * FIRST] {
            patience.took(2 * LONG);
            assert_eq!(lost(&mut patience), expected);
            assert!(patience.is_left(), "it is tried again");
        }
        (0..100).for_each(|_| patience.took(2 * LONG));
        assert_eq!(lost(&mut patience), MOST);
        (0..MOST).for_each(|_| patience.took(Duration::ZERO));
        patience.took(2 * LONG);
        assert_eq!(lost(&mut patience), FIRST, "that was long ago");
    }
}
