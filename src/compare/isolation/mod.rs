//! What each wall stops, measured: `hv drill`.
//!
//! - [`around`]: what the attempts are after: a process, sockets and a disk of the host's;
//! - [`drill`]: runs the attempts of [`hv_common::drill`] as each kind, and in a container with walls left out;
//! - [`verdict`]: what stopped each (pure);
//! - [`reachable`]: what is there to be attacked: system calls, capabilities, devices, namespaces;
//! - [`text`], [`csv`], [`html`]: the forms they are shown in.

pub mod around;
pub mod csv;
pub mod drill;
pub mod html;
pub mod reachable;
pub mod text;
pub mod verdict;

use std::collections::BTreeMap;

use hv_common::Kind;
use hv_common::drill::{Found, PROBES};
use serde::{Deserialize, Serialize};

use super::Host;
use reachable::Reachable;
use verdict::Verdict;

/// Version of [`Isolation`] as JSON.
pub const VERSION: u32 = 1;

/// What was found about the walls of one image's sandboxes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Isolation {
    /// [`VERSION`].
    pub version: u32,
    /// The version of hv that measured.
    pub hv: String,
    /// The image, escaped for display.
    pub image: String,
    /// Where it ran.
    pub host: Host,
    /// Which kinds were tried, in the order of the columns.
    pub kinds: Vec<Kind>,
    /// Who was asked for and could not be tried, and why.
    pub skipped: BTreeMap<String, String>,
    /// What a workload of each kind can reach.
    pub reachable: BTreeMap<Kind, Reachable>,
    /// Every attempt.
    pub drill: Vec<Row>,
    /// What each run found, by its name: `host`, `process`, `ctr`, `vm`, and `ctr/` with the walls that stood.
    pub runs: BTreeMap<String, Found>,
}

/// One attempt, and what stopped it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Its stable name.
    pub name: String,
    /// What it tries.
    pub tries: String,
    /// Why it hurts nobody.
    pub harmless: String,
    /// What came of it, by kind.
    pub of: BTreeMap<Kind, Verdict>,
}

/// The rows of these runs.
pub fn rows(kinds: &[Kind], runs: &BTreeMap<String, Found>) -> Vec<Row> {
    let row = |probe: &hv_common::drill::Probe| Row {
        name: probe.name.into(),
        tries: probe.tries.into(),
        harmless: probe.harmless.into(),
        of: kinds.iter().filter_map(|kind| Some((*kind, verdict::of(probe, *kind, runs)?))).collect(),
    };
    PROBES.iter().map(row).collect()
}

impl Isolation {
    /// How many attempts nothing stopped, of how many that were tried.
    pub fn not_stopped(&self, kind: Kind) -> (usize, usize) {
        let of = || self.drill.iter().filter_map(|row| row.of.get(&kind));
        (of().filter(|verdict| verdict.is_free()).count(), of().filter(|verdict| verdict.was_tried()).count())
    }
}
