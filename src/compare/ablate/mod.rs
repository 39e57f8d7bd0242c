//! What each switch costs: a start with everything as usual, beside starts with one thing changed.
//!
//! Each block holds, in random order, the usual start twice (the second is the A/A twin) and one start for every switch. A
//! microVM's switches are options of `hv vm`. A container's are parts of the OCI bundle that `hv oci run` is given, since
//! `hv ctr` has no way to leave a wall out.
//!
//! - [`switches`]: the table; [`run`]: the launches; [`effects`]: what they say (pure).

pub mod effects;
pub mod run;
pub mod switches;

use serde::{Deserialize, Serialize};

use super::Contender;

/// Everything that was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ablation {
    /// Counted blocks; one more before them is run and dropped.
    pub blocks: usize,
    /// All launches in their order.
    pub trials: Vec<Trial>,
}

/// One start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Its block; 0 is the one that does not count.
    pub block: usize,
    /// What was started: `vm`, or `hv-oci` with a bundle.
    pub kind: Contender,
    /// What was changed: the name of a switch, `usual` or `twin`.
    pub switch: String,
    /// The harness was about to start it.
    pub asked: u64,
    /// The harness read its first byte.
    pub first_byte: u64,
    /// The harness reaped it.
    pub gone: u64,
    /// Why it does not count, if it does not.
    pub failure: Option<String>,
}

/// The switch of a start as usual, and of its twin.
pub const USUAL: &str = "usual";
/// As [`USUAL`], once more.
pub const TWIN: &str = "twin";

impl Trial {
    /// Nanoseconds to the first byte.
    pub fn ready(&self) -> f64 {
        self.first_byte.saturating_sub(self.asked) as f64
    }

    /// Nanoseconds until all was gone: the workload is told to end as soon as it is ready.
    pub fn whole(&self) -> f64 {
        self.gone.saturating_sub(self.asked) as f64
    }
}
