//! In which order things are measured: randomised complete blocks.
//!
//! Each block holds every contender once, in an order drawn from a printed seed, so that whatever drifts on
//! the host (frequency, page cache, other load) falls on all alike. Some blocks hold each a second time, as
//! its twin, and once from cold files. The first blocks warm caches up and are not counted.

use serde::{Deserialize, Serialize};

use super::Contender;

/// Twins and cold launches are made in so many blocks, spread over all.
const EXTRA_BLOCKS: usize = 10;

/// Why something is launched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// To be counted.
    #[default]
    Main,
    /// The same once more: the A/A comparison that tells what this host cannot tell apart.
    Twin,
    /// After the image's and the kernel's pages were dropped from the page cache.
    Cold,
}

/// One launch to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Who.
    pub who: Contender,
    /// Why.
    pub role: Role,
}

/// What to measure, in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The seed that gives this order again.
    pub seed: u64,
    /// Blocks at the front that are run and not counted.
    pub warm_up: usize,
    /// All blocks in order.
    pub blocks: Vec<Vec<Launch>>,
}

impl Schedule {
    /// `runs` counted blocks of `contenders` after `warm_up` others, each shuffled; `extra` are the roles
    /// that some blocks have beside the main one.
    pub fn new(contenders: &[Contender], runs: usize, warm_up: usize, extra: &[Role], seed: u64) -> Schedule {
        let mut random = fastrand::Rng::with_seed(seed);
        let every = (runs / EXTRA_BLOCKS).max(1);
        let block = |number: usize| {
            let with_extra = number >= warm_up && (number - warm_up).is_multiple_of(every);
            let roles = [Role::Main].into_iter().chain(extra.iter().copied().filter(|_| with_extra));
            let mut block: Vec<Launch> = roles
                .flat_map(|role| contenders.iter().map(move |who| Launch { who: who.clone(), role }))
                .collect();
            random.shuffle(&mut block);
            block
        };
        Schedule { seed, warm_up, blocks: (0..runs + warm_up).map(block).collect() }
    }

    /// Launches in all.
    pub fn launches(&self) -> usize {
        self.blocks.iter().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use hv_common::Kind;

    use super::*;

    fn all() -> [Contender; 3] {
        [Kind::Process, Kind::Ctr, Kind::Vm].map(Contender::from)
    }

    fn of_role(block: &[Launch], role: Role) -> Vec<Contender> {
        let mut found: Vec<_> =
            block.iter().filter(|launch| launch.role == role).map(|launch| launch.who.clone()).collect();
        found.sort();
        found
    }

    #[test]
    fn every_block_holds_every_contender_once() {
        let schedule = Schedule::new(&all(), 40, 1, &[], 7);
        assert_eq!((schedule.blocks.len(), schedule.launches()), (41, 123));
        assert!(schedule.blocks.iter().all(|block| of_role(block, Role::Main) == all()));
    }

    #[test]
    fn ten_blocks_hold_twins_too_and_none_of_the_warm_up() {
        for runs in [10, 40, 95] {
            let schedule = Schedule::new(&all(), runs, 3, &[Role::Twin, Role::Cold], 7);
            let with_twins: Vec<usize> =
                (0..schedule.blocks.len()).filter(|n| schedule.blocks[*n].len() == 9).collect();
            assert!((10..=11).contains(&with_twins.len()), "{runs}: {with_twins:?}");
            assert!(with_twins.iter().all(|number| *number >= 3));
            assert_eq!(of_role(&schedule.blocks[with_twins[1]], Role::Twin), all());
        }
    }

    #[test]
    fn seed_decides_the_order() {
        let with = |seed| Schedule::new(&all(), 20, 1, &[Role::Twin], seed);
        assert_eq!(with(7), with(7));
        assert_ne!(with(7).blocks, with(8).blocks);
        assert!(with(7).blocks.iter().any(|block| *block != with(7).blocks[1]));
    }
}
