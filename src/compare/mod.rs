//! One image as a bare process, as a container and as a microVM, measured alike.
//!
//! # Layout
//! - [`schedule`]: who is launched when (pure); [`launch`]: one launch, timed from outside;
//!   [`enclosure`]: the cgroup that a microVM is measured in;
//! - [`sample`]: what it gave; [`memory`]: the ledger; [`host`]: where it was;
//! - [`rows`]: which figures are shown and what they mean; [`stats`]: medians and ratios (pure);
//! - [`report`]: the forms they are shown in.

pub mod enclosure;
pub mod host;
pub mod launch;
pub mod memory;
pub mod report;
pub mod rows;
pub mod sample;
pub mod schedule;
pub mod stats;

use std::collections::BTreeMap;

use hv_common::Kind;
use serde::{Deserialize, Serialize};

pub use host::Host;
pub use launch::Setup;
pub use sample::Sample;
pub use schedule::Schedule;

/// Version of [`Report`] as JSON.
pub const REPORT_VERSION: u32 = 1;

/// A finished comparison: every sample, nothing dropped.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_VERSION`].
    pub version: u32,
    /// The image, escaped for display.
    pub image: String,
    /// The command.
    pub workload: String,
    /// Limits that hold for container and microVM alike.
    pub limits: String,
    /// The guest's kernel, when there was a guest.
    pub guest_kernel: Option<String>,
    /// Where it ran.
    pub host: Host,
    /// Gives the order again.
    pub seed: u64,
    /// Counted blocks.
    pub runs: usize,
    /// Kinds that were launched, in the order of the columns.
    pub kinds: Vec<Kind>,
    /// Kinds that were asked for and cannot run here, and why.
    pub skipped: BTreeMap<Kind, String>,
    /// Every launch, the warm-up (block 0) too.
    pub samples: Vec<Sample>,
}

impl Report {
    /// Launches of `kind` that count: not the warm-up, not failed.
    pub fn counted(&self, kind: Kind) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| {
            sample.kind == kind && sample.block >= Schedule::WARM_UP && sample.failure.is_none()
        })
    }
}

/// Launches everything in `schedule`; `progress` is told before each launch.
pub fn measure(setup: &Setup, schedule: &Schedule, mut progress: impl FnMut(usize, Kind)) -> Vec<Sample> {
    let mut samples = Vec::with_capacity(schedule.launches());
    for (block, kinds) in schedule.blocks.iter().enumerate() {
        for (place, kind) in kinds.iter().enumerate() {
            progress(samples.len(), *kind);
            samples.push(launch::launch(setup, *kind, block, place));
        }
    }
    samples
}
