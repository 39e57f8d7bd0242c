//! What work costs inside: the same workloads in each sandbox, as ratios to the bare process.
//!
//! A round starts one sandbox of one contender with hv's own program in it (`hv-probe`) and has it do all
//! workloads, one after the other, each at the harness's word. How long they took is told by the clock inside; the
//! exits that each caused are read outside, between two of them. Rounds of the contenders come in random order, like
//! the blocks of single launches, and a round gives one value of each figure.

pub mod catalogue;
pub mod run;

use hv_common::work::{EMPTY, Outcome};
use serde::{Deserialize, Serialize};

use super::{Contender, Role};

/// Everything that was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Inside {
    /// Which share of each workload's operations was done, in per cent.
    pub percent: u32,
    /// All rounds in the order in which they were made, failed ones too.
    pub rounds: Vec<Round>,
}

/// One round of one contender.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Which round; the first warms up and does not count.
    pub round: usize,
    /// Whose.
    pub kind: Contender,
    /// To be counted, or the same once more for the noise floor.
    pub role: Role,
    /// What each workload gave.
    pub done: Vec<Done>,
    /// Why this round does not count, if it does not.
    pub failure: Option<String>,
}

/// One workload in one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// What the program inside says.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// VM exits while it ran, with those of being told to and of telling; None without a guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exits: Option<u64>,
}

impl Inside {
    /// Rounds of `who` in this role that count: not the first, not failed.
    pub fn counted<'a>(&'a self, who: &'a Contender, role: Role) -> impl Iterator<Item = &'a Round> {
        self.rounds.iter().filter(move |round| {
            round.kind == *who && round.role == role && round.round > 0 && round.failure.is_none()
        })
    }

    /// Counted rounds of each contender.
    pub fn count(&self) -> usize {
        self.rounds.iter().map(|round| round.round).max().unwrap_or(0)
    }
}

impl Round {
    fn done(&self, name: &str) -> Option<&Done> {
        self.done.iter().find(|done| done.outcome.name == name)
    }

    /// Nanoseconds an operation of this workload, by the clock inside.
    pub fn time(&self, name: &str) -> Option<f64> {
        self.done(name)?.outcome.per_operation()
    }

    /// VM exits an operation, less those that the empty workload has.
    pub fn exits(&self, name: &str) -> Option<f64> {
        let (done, empty) = (self.done(name)?, self.done(EMPTY)?);
        let caused = done.exits?.saturating_sub(empty.exits?);
        done.outcome.per_operation()?;
        Some(caused as f64 / done.outcome.operations as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::example;

    #[test]
    fn exits_are_an_operation_s_and_less_those_of_telling() {
        let done = |name: &str, operations, exits| Done {
            outcome: Outcome { name: name.into(), operations, nanoseconds: 900, place: None, failure: None },
            exits,
        };
        let mut round = Round {
            round: 1,
            kind: hv_common::Kind::Vm.into(),
            role: Role::Main,
            done: vec![done(EMPTY, 1, Some(30)), done("pipe", 300, Some(630)), done("cpu", 300, Some(20))],
            failure: None,
        };
        assert_eq!(round.exits("pipe"), Some(2.0));
        assert_eq!(round.exits("cpu"), Some(0.0), "never less than none");
        assert_eq!((round.time("pipe"), round.time("timer")), (Some(3.0), None));
        round.done[1].outcome.failure = Some("no".into());
        assert_eq!((round.exits("pipe"), round.time("pipe")), (None, None));
    }

    #[test]
    fn the_first_round_and_failed_ones_do_not_count() {
        let mut inside = example::with_inside(3).inside.unwrap();
        let ctr = hv_common::Kind::Ctr.into();
        assert_eq!((inside.counted(&ctr, Role::Main).count(), inside.count()), (3, 3));
        inside.rounds.iter_mut().filter(|round| round.round == 2).for_each(|round| {
            round.failure = Some("no".into());
        });
        assert_eq!(inside.counted(&ctr, Role::Main).count(), 2);
    }
}
