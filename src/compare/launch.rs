//! One launch, timed from outside, as a sample.

use std::path::PathBuf;
use std::time::Duration;

use hv_common::phase;
use nix::sys::resource::{UsageWho, getrusage};

use super::conditions::Conditions;
use super::sample::Sample;
use super::sandbox::{Prepared, Sandbox};
use super::{Launch, Role, cold};
use crate::error::{Failure, Result};

/// What the default workload runs: it says a word, and waits for one.
pub const WAITING: [&str; 3] = ["/bin/sh", "-c", "echo ready; read -r line"];

/// A static program of the host that is executed in the sandbox.
#[derive(Debug, Clone)]
pub struct Injected(pub PathBuf);

/// What every launch of one comparison has in common.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The hv to run: this program.
    pub hv: PathBuf,
    /// The image.
    pub image: PathBuf,
    /// The image as a directory, for other runtimes.
    pub root: PathBuf,
    /// The guest's kernel, for other monitors.
    pub kernel: Option<PathBuf>,
    /// What is changed in the bundle of an OCI runtime.
    pub edit: Option<fn(&mut serde_json::Value)>,
    /// The guest's kernel and modules, as `hv vm` takes them.
    pub machine: Vec<std::ffi::OsString>,
    /// Memory limit in bytes, the same for both kinds.
    pub memory: u64,
    /// Processors, the same for both kinds.
    pub cpus: u32,
    /// The command; [`WAITING`] when empty.
    pub command: Vec<std::ffi::OsString>,
    /// The program that the command names, when it is not the image's.
    pub injected: Option<Injected>,
    /// Files that a cold start has to read again: the image and the kernel.
    pub files: Vec<PathBuf>,
    /// A launch that takes longer than this is ended and counted as failed.
    pub deadline: Duration,
}

/// Makes one launch. Failures are part of the sample.
pub fn launch(setup: &Setup, launch: &Launch, block: usize, place: usize) -> Sample {
    let mut sample = Sample::empty(launch.who.clone(), launch.role, block, place);
    if let Err(error) = run(setup, &mut sample) {
        sample.failure = Some(error.message());
    }
    sample
}

fn run(setup: &Setup, sample: &mut Sample) -> Result<()> {
    let prepared = Prepared::new(setup, &sample.kind)?;
    if sample.role == Role::Cold {
        cold::drop_pages(&setup.files)?;
    }
    let cpu_before = cpu_of_children()?;
    let mut sandbox = prepared.start(true)?;
    sample.asked = sandbox.asked;
    let outcome = observe(setup, &mut sandbox, sample);
    let ended = sandbox.end();
    sample.cpu_ns = cpu_of_children()?.saturating_sub(cpu_before);
    let (gone, status) = ended?;
    sample.gone = gone;
    sample.status = status.code();
    let Some(figures) = sandbox.figures()? else {
        // Another runtime: it says nothing of its phases, and its status is the workload's.
        if !status.success() && setup.command.is_empty() {
            let said = sandbox.last_words();
            return Err(Failure::refused(format!("{} ended with {status}: {said}", sample.kind)));
        }
        return outcome;
    };
    // A command of the user's may end as it likes; without figures, it is hv that failed.
    if !status.success() && (setup.command.is_empty() || figures.is_empty()) {
        let said = sandbox.last_words();
        return Err(Failure::refused(format!("hv {} ended with {status}: {said}", sample.kind)));
    }
    outcome?;
    sample.take_stats(&figures)
}

/// Waits for the first byte, reads the memory while the workload waits, then tells it to end.
fn observe(setup: &Setup, sandbox: &mut Sandbox, sample: &mut Sample) -> Result<()> {
    sample.first_byte = sandbox.first_byte()?;
    if sample.first_byte.is_some() {
        sample.memory = sandbox.ledger();
        if sample.block == 0 && sample.role == Role::Main {
            sample.conditions = Some(Conditions::of(sandbox.workload()));
        }
    } else if setup.command.is_empty() {
        return Err(Failure::refused("the workload wrote nothing"));
    }
    if setup.command.is_empty() {
        sample.told_to_end = Some(phase::now());
        sandbox.tell_to_end()?;
    }
    Ok(())
}

/// Processor time of all children reaped so far, and theirs, in nanoseconds.
fn cpu_of_children() -> Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_err(|source| Failure::new("cannot read the children's processor time", source))?;
    let ns =
        |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000_000 + time.tv_usec() as u64 * 1000;
    Ok(ns(usage.user_time()) + ns(usage.system_time()))
}
