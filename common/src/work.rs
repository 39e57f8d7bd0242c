//! What `hv-probe work` says about one workload: a line of JSON each, on its standard output.

use serde::{Deserialize, Serialize};

/// How a workload went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// How often its operation was done.
    pub operations: u64,
    /// How long all of them took, by the clock inside (CLOCK_MONOTONIC); nanoseconds.
    pub nanoseconds: u64,
    /// The file system that it worked on, if on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Why it could not be done; the counts say nothing then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Outcome {
    /// Nanoseconds an operation; none of a workload that failed.
    pub fn per_operation(&self) -> Option<f64> {
        let done = self.failure.is_none() && self.operations > 0;
        done.then(|| self.nanoseconds as f64 / self.operations as f64)
    }
}

/// The names of all workloads, in the order in which they are done. `empty` does nothing, and so shows what the telling
/// costs.
pub const NAMES: [&str; 17] = [
    "empty",
    "cpu",
    "memory-latency",
    "memory-bandwidth",
    "page-fault",
    "syscall",
    "fork-exec",
    "pipe",
    "file-create",
    "file-stat",
    "file-read",
    "fsync",
    "block-random",
    "block-sequential",
    "tcp-round-trip",
    "tcp-stream",
    "timer",
];

/// The workload that does nothing.
pub const EMPTY: &str = NAMES[0];
