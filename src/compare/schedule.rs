//! In which order things are measured: randomised complete blocks.
//!
//! Each block holds every kind once, in an order drawn from a printed seed, so that whatever drifts
//! on the host (frequency, page cache, other load) falls on all kinds alike. The first block warms
//! caches up and is not counted.

use hv_common::Kind;

/// What to measure, in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The seed that gives this order again.
    pub seed: u64,
    /// Blocks in order; the first [`Schedule::WARM_UP`] are dropped.
    pub blocks: Vec<Vec<Kind>>,
}

impl Schedule {
    /// Blocks that are run and not counted.
    pub const WARM_UP: usize = 1;

    /// `runs` counted blocks of `kinds`, each shuffled.
    pub fn new(kinds: &[Kind], runs: usize, seed: u64) -> Schedule {
        let mut random = fastrand::Rng::with_seed(seed);
        let block = |_| {
            let mut block = kinds.to_vec();
            random.shuffle(&mut block);
            block
        };
        Schedule { seed, blocks: (0..runs + Schedule::WARM_UP).map(block).collect() }
    }

    /// Launches in all.
    pub fn launches(&self) -> usize {
        self.blocks.iter().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 3] = [Kind::Process, Kind::Ctr, Kind::Vm];

    #[test]
    fn every_block_holds_every_kind_once() {
        let schedule = Schedule::new(&KINDS, 40, 7);
        assert_eq!(schedule.blocks.len(), 41);
        for block in &schedule.blocks {
            let mut sorted = block.clone();
            sorted.sort();
            assert_eq!(sorted, KINDS);
        }
    }

    #[test]
    fn seed_decides_the_order() {
        assert_eq!(Schedule::new(&KINDS, 20, 7), Schedule::new(&KINDS, 20, 7));
        assert_ne!(Schedule::new(&KINDS, 20, 7).blocks, Schedule::new(&KINDS, 20, 8).blocks);
    }

    #[test]
    fn order_is_not_the_same_in_every_block() {
        let schedule = Schedule::new(&KINDS, 40, 7);
        assert!(schedule.blocks.iter().any(|block| *block != schedule.blocks[0]));
    }
}
