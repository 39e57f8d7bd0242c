//! Sandboxes beside each other: what each further one adds, whether those that run make the next start slower,
//! and how many at once fare.
//!
//! A round starts sandboxes of one contender one after another and leaves them idle; after each it looks at the
//! memory of all. Then it ends them and starts as many at once. Rounds of the contenders come in random order,
//! like the blocks of single launches, and a round gives one value of each figure.

pub mod run;
pub mod values;

use serde::{Deserialize, Serialize};

use super::Contender;

/// Everything that was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scale {
    /// Sandboxes that a round starts one after another.
    pub resident: usize,
    /// Sandboxes that a round starts at once.
    pub at_once: usize,
    /// All rounds in the order in which they were made, failed ones too.
    pub rounds: Vec<Round>,
}

impl Scale {
    /// Rounds of `who` that count.
    pub fn counted<'a>(&'a self, who: &'a Contender) -> impl Iterator<Item = &'a Round> {
        self.rounds.iter().filter(move |round| round.kind == *who && round.failure.is_none())
    }
}

/// One round of one contender.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Which round.
    pub round: usize,
    /// Whose.
    pub kind: Contender,
    /// The host's `MemAvailable` before the first start, bytes.
    pub available: Option<u64>,
    /// One after another: the first step is the first sandbox.
    pub steps: Vec<Step>,
    /// At once, in the order in which they were asked for.
    pub burst: Vec<Start>,
    /// Why this round does not count, if it does not.
    pub failure: Option<String>,
}

/// A start's two instants, nanoseconds of the host's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The harness was about to start it.
    pub asked: u64,
    /// The harness read its first byte.
    pub first_byte: u64,
}

impl Start {
    /// Nanoseconds between the two.
    pub fn took(&self) -> f64 {
        self.first_byte.saturating_sub(self.asked) as f64
    }
}

/// One more sandbox, and what all hold then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its start, beside those of the steps before.
    #[serde(flatten)]
    pub start: Start,
    /// Proportional set size of all sandboxes' processes together, guest memory included.
    pub pss: Option<u64>,
    /// Resident set size of the same: what is shared counts for each.
    pub rss: Option<u64>,
    /// The host's `MemAvailable`.
    pub available: Option<u64>,
}
