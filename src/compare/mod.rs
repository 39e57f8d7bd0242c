//! One image as a bare process, as a container and as a microVM, measured alike.
//!
//! # Layout
//! - [`contender`], [`schedule`]: who is launched, and when (pure); [`sandbox`]: what is started and ended;
//!   [`launch`]: one launch, timed from outside; [`measure`]: all of them; [`enclosure`]: the cgroup that a microVM is
//!   measured in; [`cold`]: out of the page cache with it;
//! - [`peers`]: other runtimes as guests; [`conditions`]: what limits really held; [`equality`]: for whom they differ (pure);
//! - [`scale`]: sandboxes beside each other, and many at once; [`inside`]: workloads in each, as ratios;
//! - [`ablate`]: what each switch costs;
//! - [`overhead`]: what the harness itself adds;
//! - [`sample`]: what it gave; [`memory`]: the ledger; [`host`]: where it was;
//! - [`rows`]: which figures are shown and what they mean; [`stats`]: medians and ratios (pure);
//!   [`figures`]: those of one report (pure); [`against`]: of two (pure);
//! - [`isolation`]: what each wall stops: `hv drill`;
//! - [`report`]: the forms they are shown in, and reading one back.

pub mod ablate;
pub mod against;
pub mod cold;
pub mod conditions;
pub mod contender;
pub mod enclosure;
pub mod equality;
#[cfg(test)]
pub mod example;
pub mod figures;
pub mod host;
pub mod inside;
pub mod isolation;
pub mod launch;
pub mod measure;
pub mod memory;
pub mod overhead;
pub mod peers;
pub mod report;
pub mod rows;
pub mod sample;
pub mod sandbox;
pub mod scale;
pub mod schedule;
pub mod stats;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use ablate::Ablation;
pub use contender::Contender;
pub use host::Host;
pub use inside::Inside;
pub use launch::Setup;
pub use memory::Ledger;
pub use sample::Sample;
pub use scale::Scale;
pub use schedule::{Launch, Role, Schedule};

/// Version of [`Report`] as JSON. Version 1 had neither roles nor figures; it is still read.
pub const REPORT_VERSION: u32 = 2;

/// A finished comparison: every sample, nothing dropped.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_VERSION`].
    pub version: u32,
    /// The version of hv that measured.
    #[serde(default)]
    pub hv: String,
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
    /// Blocks before them that do not count.
    #[serde(default = "one")]
    pub warm_up: usize,
    /// Why it ended when it did.
    #[serde(default)]
    pub stopped: String,
    /// Who was launched, in the order of the columns.
    #[serde(rename = "kinds")]
    pub contenders: Vec<Contender>,
    /// Who was asked for and cannot run here, and why.
    pub skipped: BTreeMap<Contender, String>,
    /// Every launch, the warm-up too.
    pub samples: Vec<Sample>,
    /// Sandboxes beside each other, when that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// What each switch costs, when that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ablation: Option<Ablation>,
    /// Workloads inside, when that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<Inside>,
}

fn one() -> usize {
    1
}

impl Report {
    /// Launches of `who` in this role that count: not the warm-up, not failed.
    pub fn counted<'a>(&'a self, who: &'a Contender, role: Role) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.kind == *who
                && sample.role == role
                && sample.block >= self.warm_up
                && sample.failure.is_none()
        })
    }

    /// The very first launch of `who`, which found nothing warm.
    pub fn first(&self, who: &Contender) -> Option<&Sample> {
        self.samples.iter().find(|sample| sample.kind == *who && sample.failure.is_none())
    }
}
