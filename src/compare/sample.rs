//! One measured launch: from "asked" to "all gone", with the memory in between.

use std::collections::BTreeMap;

use hv_common::Phase;
use serde::{Deserialize, Serialize};

use super::Contender;
use super::conditions::Conditions;
use super::memory::Ledger;
use super::schedule::Role;
use crate::error::{Failure, Result};
use crate::foreground::Stats;

/// The crossing that counts all VM exits.
pub const TOTAL: &str = "total";

/// What one launch gave. Instants are nanoseconds of the host's monotonic clock.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// The block it was run in; 0 is the warm-up.
    pub block: usize,
    /// Its place in that block.
    pub place: usize,
    /// What was launched.
    pub kind: Contender,
    /// Why it was launched; absent in files of version 1, which knew no other.
    #[serde(default)]
    pub role: Role,
    /// The harness was about to start hv.
    pub asked: u64,
    /// What the monitor marked.
    pub phases: BTreeMap<Phase, u64>,
    /// The harness read the workload's first byte.
    pub first_byte: Option<u64>,
    /// The harness closed the workload's standard input, which ends it.
    pub told_to_end: Option<u64>,
    /// The harness reaped hv.
    pub gone: u64,
    /// Processor time of hv and all it started and waited for, nanoseconds.
    pub cpu_ns: u64,
    /// What held for the workload, looked at in the first block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Conditions>,
    /// Memory while the workload was waiting.
    pub memory: Ledger,
    /// VM exits by reason.
    pub crossings: BTreeMap<String, u64>,
    /// hv's exit status.
    pub status: Option<i32>,
    /// Why this launch does not count, if it does not.
    pub failure: Option<String>,
}

impl Sample {
    /// A launch of which nothing is known yet.
    pub fn empty(kind: Contender, role: Role, block: usize, place: usize) -> Sample {
        Sample {
            block,
            place,
            kind,
            role,
            asked: 0,
            phases: BTreeMap::new(),
            first_byte: None,
            told_to_end: None,
            gone: 0,
            cpu_ns: 0,
            conditions: None,
            memory: Ledger::default(),
            crossings: BTreeMap::new(),
            status: None,
            failure: None,
        }
    }

    /// Takes over what the monitor wrote about the run (`--stats`).
    ///
    /// # Errors
    /// It is not what a monitor writes.
    pub fn take_stats(&mut self, json: &[u8]) -> Result<()> {
        let stats: Stats = serde_json::from_slice(json)
            .map_err(|source| Failure::new("cannot read the run's figures", source))?;
        self.phases = stats.phases;
        self.crossings = stats.crossings;
        Ok(())
    }

    /// Nanoseconds from one instant to the other.
    fn between(from: Option<u64>, to: Option<u64>) -> Option<f64> {
        Some(to?.checked_sub(from?)? as f64)
    }

    /// The instant of a phase.
    pub fn at(&self, phase: Phase) -> Option<u64> {
        self.phases.get(&phase).copied()
    }

    /// Asked until hv's own code runs: the cost of starting a process.
    pub fn launch(&self) -> Option<f64> {
        Sample::between(Some(self.asked), self.at(Phase::Launch))
    }

    /// Until image and limits are opened and checked.
    pub fn open(&self) -> Option<f64> {
        Sample::between(self.at(Phase::Launch), self.at(Phase::Opened))
    }

    /// Until the wall stands.
    pub fn boundary(&self) -> Option<f64> {
        Sample::between(self.at(Phase::Opened), self.at(Phase::Boundary))
    }

    /// Until the guest's kernel runs its first instruction.
    pub fn kernel(&self) -> Option<f64> {
        Sample::between(self.at(Phase::Boundary), self.at(Phase::Kernel))
    }

    /// Until PID 1 runs its first instruction: in a microVM, the guest kernel's own start.
    pub fn init(&self) -> Option<f64> {
        let from = self.at(Phase::Kernel).or_else(|| self.at(Phase::Boundary));
        Sample::between(from, self.at(Phase::Init))
    }

    /// Until the workload is about to be executed.
    pub fn exec(&self) -> Option<f64> {
        let from = self.at(Phase::Init).or_else(|| self.at(Phase::Boundary));
        Sample::between(from, self.at(Phase::Exec))
    }

    /// Until its first byte is read outside.
    pub fn output(&self) -> Option<f64> {
        Sample::between(self.at(Phase::Exec), self.first_byte)
    }

    /// Asked until the first byte: what a user waits for.
    pub fn ready(&self) -> Option<f64> {
        Sample::between(Some(self.asked), self.first_byte)
    }

    /// Told to end until the monitor knows that it has ended.
    pub fn exit(&self) -> Option<f64> {
        Sample::between(self.told_to_end.or(self.first_byte), self.at(Phase::Exit))
    }

    /// Until everything is removed and hv is reaped.
    pub fn clean(&self) -> Option<f64> {
        Sample::between(self.at(Phase::Exit), Some(self.gone))
    }

    /// Told to end until everything is removed and what was started is reaped.
    pub fn end(&self) -> Option<f64> {
        Sample::between(self.told_to_end.or(self.first_byte), Some(self.gone))
    }

    /// Processor time of the whole launch.
    pub fn cpu(&self) -> Option<f64> {
        Some(self.cpu_ns as f64)
    }

    /// VM exits, all reasons together.
    pub fn exits(&self) -> Option<f64> {
        self.crossings.get(TOTAL).map(|count| *count as f64)
    }
}
