//! `hv check`: what this host offers to either kind, found out by trying.
//!
//! Everything that would change this process (namespaces, mounts, users) is tried in a process of its
//! own: [`attempt`](mod@attempt).

pub mod attempt;
mod table;

use std::io::{self, Write};
use std::process::Command;

use hv_common::Id;
use hv_common::cgroup::{self, Layout, Shape};
use serde::Serialize;

use crate::cli::CheckArgs;
use crate::error::{self, Failure, Result};
use crate::{backend, cmd};

pub use attempt::{Attempt, run as attempt};

/// How much of something there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It works.
    Ok,
    /// A part works, or only for some users.
    Limited,
    /// It does not work.
    Missing,
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was tried.
    pub what: &'static str,
    /// Whether it worked.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What the user can do; empty where nothing needs doing.
    pub mend: String,
}

impl Row {
    /// It works.
    pub fn ok(what: &'static str, found: impl Into<String>) -> Row {
        Row { what, state: State::Ok, found: found.into(), mend: String::new() }
    }

    /// It does not work, or only in part.
    pub fn lacking(
        what: &'static str,
        state: State,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Row {
        Row { what, state, found: found.into(), mend: mend.into() }
    }

    fn works(&self) -> bool {
        self.state != State::Missing
    }
}

/// What `hv check` found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// A microVM can run here.
    pub vm: bool,
    /// A container can run here.
    pub ctr: bool,
    /// Everything that was tried.
    pub rows: Vec<Row>,
}

/// Tries everything and prints the table. Status: 0 if both kinds can run, 1 if only containers can, 2 if
/// only microVMs can, 3 if neither can.
///
/// # Errors
/// The table cannot be printed.
pub fn run(args: &CheckArgs) -> Result<u8> {
    cmd::tidy_store()?;
    let report = report()?;
    let text = if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { table::render(&report) };
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|source| Failure::new("cannot print the table", source))?;
    Ok(match (report.vm, report.ctr) {
        (true, true) => 0,
        (false, true) => 1,
        (true, false) => 2,
        (false, false) => 3,
    })
}

fn report() -> Result<Report> {
    let mut rows = backend::check_vm();
    let vm = rows.iter().all(Row::works);
    rows.push(check_cgroups()?);
    let first = rows.len();
    rows.extend(Attempt::ALL.into_iter().map(try_apart));
    let needed = |row: &Row| attempt::NEEDED_BY_A_CONTAINER.iter().any(|needed| needed.what() == row.what);
    let ctr = rows[first..].iter().filter(|row| needed(row)).all(Row::works);
    Ok(Report { vm, ctr, rows })
}

fn check_cgroups() -> Result<Row> {
    const WHAT: &str = "cgroup limits";
    let layout = Layout::detect()?;
    let id = Id::random().map_err(|source| Failure::new("cannot draw a name", source))?;
    if layout.shape() == Shape::Absent {
        let mend = "mount -t cgroup2 cgroup2 /sys/fs/cgroup";
        return Ok(Row::lacking(WHAT, State::Missing, "no cgroup file system is mounted", mend));
    }
    let probed = cgroup::probe(&layout, &id);
    let usable: Vec<&str> =
        probed.iter().filter(|(_, result)| result.is_ok()).map(|(controller, _)| controller.name()).collect();
    let found =
        format!("{}: {}", layout.shape(), if usable.is_empty() { "none".into() } else { usable.join(", ") });
    let state = if usable.is_empty() { State::Missing } else { State::Limited };
    let refused = probed.iter().find_map(|(_, result)| result.as_ref().err());
    Ok(match refused {
        None => Row::ok(WHAT, found),
        Some(cgroup::Error::Limit { controller, why, mend, .. }) => {
            Row::lacking(WHAT, state, format!("{found}; {controller}: {why}"), *mend)
        }
        Some(other) => Row::lacking(WHAT, state, format!("{found}; {}", error::chain(other)), ""),
    })
}

/// Has `attempt` made by another process of this program.
fn try_apart(attempt: Attempt) -> Row {
    let what = attempt.what();
    let answer = Command::new("/proc/self/exe").arg("check-attempt").arg(attempt.word()).output();
    let answer = match answer {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => return Row::lacking(what, State::Missing, error.to_string(), "mount /proc"),
    };
    match answer.trim_end_matches('\n').split_once('\t') {
        Some(("ok", found)) => Row::ok(what, found),
        Some(("limited", found)) => Row::lacking(what, State::Limited, found, attempt.mend()),
        Some(("missing", found)) => Row::lacking(what, State::Missing, found, attempt.mend()),
        _ => Row::lacking(what, State::Missing, "the attempt ended without an answer", attempt.mend()),
    }
}
