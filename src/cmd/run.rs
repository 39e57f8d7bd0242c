//! `hv vm` and `hv ctr`: one sandbox in the foreground.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use hv_common::{Kind, Phase, Timeline};

use crate::cli::RunArgs;
use crate::error::{Failure, Result};
use crate::foreground::supervise::{self, Ended};
use crate::foreground::{Observer, Stats, Ward, signals};
use crate::plan::{self, Plan};
use crate::{backend, cmd};

/// Starts a sandbox of `kind` and stays with it; the status is the workload's.
///
/// # Errors
/// It cannot be started, or failed by itself.
pub fn run(kind: Kind, mut typed: RunArgs, timeline: Timeline) -> Result<u8> {
    // Before any thread exists.
    let signals = signals::take()?;
    let (dry_run, stats_file) = (typed.sandbox.dry_run, typed.sandbox.stats.take());
    let Plan { mut spec, machine, lowered, stop_signal } = plan::plan(kind, typed)?;
    let store = cmd::tidy_store()?;
    if dry_run {
        let would_be = store.path().join(spec.id.as_str());
        let prepared = backend::prepare(kind, &machine, &lowered, &mut spec, &would_be)?;
        return print(prepared.steps.into_iter().chain(prepared.backend.plan(&spec)).collect());
    }
    let entry = store.create(&spec.id)?;
    let prepared = backend::prepare(kind, &machine, &lowered, &mut spec, entry.dir())?;
    timeline.mark(Phase::Opened);
    let ward = Ward { signals: &signals, timeline: &timeline, stop_signal };
    let observer = Observer { memory: stats_file.is_some(), started: &mut || () };
    let stats = match supervise::own(&ward, prepared, spec, entry, observer)? {
        Ended::Well(stats) => *stats,
        Ended::Told(status) => return Ok(status),
    };
    if let Some(path) = stats_file {
        write(&path, &stats)?;
    }
    Ok(stats.exit.status())
}

fn print(steps: Vec<String>) -> Result<u8> {
    let mut out = io::stdout().lock();
    let width = steps.len().to_string().len();
    for (number, step) in steps.iter().enumerate() {
        writeln!(out, "{:>width$}  {step}", number + 1)
            .map_err(|source| Failure::new("cannot print the plan", source))?;
    }
    Ok(0)
}

fn write(path: &Path, stats: &Stats) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(stats)?;
    text.push(b'\n');
    fs::write(path, text).map_err(|source| Failure::new(format!("cannot write {}", path.display()), source))
}
