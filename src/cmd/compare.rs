//! `hv compare`: one image, three walls, one table.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hv_common::Kind;
use hv_common::cgroup::Layout;

use crate::backend;
use crate::cli::CompareArgs;
use crate::compare::report::text;
use crate::compare::{self, Host, REPORT_VERSION, Report, Schedule, Setup, launch};
use crate::error::{Failure, Result};

/// Measures, prints the table, writes the JSON. The status is 1 when a launch failed.
///
/// # Errors
/// Nothing can be measured, or the report cannot be written.
pub fn run(args: &CompareArgs) -> Result<u8> {
    let image = args
        .image
        .canonicalize()
        .map_err(|source| Failure::new(format!("cannot open image {}", args.image.display()), source))?;
    let (kinds, skipped) = usable(&args.kinds);
    if kinds.is_empty() {
        let reasons: Vec<String> = skipped.iter().map(|(kind, why)| format!("{kind}: {why}")).collect();
        let why = reasons.join("; ");
        return Err(Failure::refused(format!("none of the kinds can run here ({why}); see `hv check`")));
    }
    let cgroup = Layout::detect().map_or_else(|_| "none".into(), |layout| layout.shape().to_string());
    let host = Host::look(cgroup);
    let setup = setup(args, image)?;
    let schedule = Schedule::new(&kinds, args.runs as usize, args.seed.unwrap_or_else(|| fastrand::u64(..)));
    let samples = compare::measure(&setup, &schedule, progress(schedule.launches()));
    finish_progress();
    let report = Report {
        version: REPORT_VERSION,
        image: display(&setup.image),
        workload: workload(&setup),
        limits: format!(
            "{} MiB of memory, {} cpu, for container and microVM alike",
            args.memory >> 20,
            args.cpus
        ),
        guest_kernel: kinds.contains(&Kind::Vm).then(|| guest_kernel(args)),
        host,
        seed: schedule.seed,
        runs: args.runs as usize,
        kinds,
        skipped,
        samples,
    };
    if let Some(path) = &args.json {
        write_json(&report, path)?;
    }
    std::io::stdout()
        .write_all(text::render(&report).as_bytes())
        .map_err(|source| Failure::new("cannot print the report", source))?;
    Ok(u8::from(report.samples.iter().any(|sample| sample.failure.is_some())))
}

/// The kinds that can run here, and why the others cannot.
fn usable(asked: &[Kind]) -> (Vec<Kind>, BTreeMap<Kind, String>) {
    let mut kinds = Vec::new();
    let mut skipped = BTreeMap::new();
    for kind in asked {
        match obstacle(*kind) {
            _ if kinds.contains(kind) => {}
            Some(why) => drop(skipped.insert(*kind, why)),
            None => kinds.push(*kind),
        }
    }
    (kinds, skipped)
}

fn obstacle(kind: Kind) -> Option<String> {
    match kind {
        Kind::Vm => backend::obstacle_to_vm(),
        Kind::Process if !nix::unistd::geteuid().is_root() => {
            Some("changing the root directory needs root".into())
        }
        Kind::Process | Kind::Ctr => None,
    }
}

fn setup(args: &CompareArgs, image: PathBuf) -> Result<Setup> {
    let mut machine = Vec::new();
    for (option, value) in [("--kernel", &args.kernel), ("--modules", &args.modules)] {
        if let Some(value) = value {
            machine.extend([OsString::from(option), value.clone().into_os_string()]);
        }
    }
    Ok(Setup {
        hv: std::env::current_exe()
            .map_err(|source| Failure::new("cannot find hv's own program file", source))?,
        image,
        machine,
        memory: args.memory,
        cpus: args.cpus,
        command: args.command.clone(),
        deadline: Duration::from_secs(args.timeout),
    })
}

fn display(path: &Path) -> String {
    path.display().to_string().escape_debug().collect()
}

fn workload(setup: &Setup) -> String {
    if setup.command.is_empty() {
        return format!("{} '{}'", launch::WAITING[..2].join(" "), launch::WAITING[2]);
    }
    let words: Vec<String> =
        setup.command.iter().map(|word| word.to_string_lossy().escape_debug().collect()).collect();
    words.join(" ")
}

fn guest_kernel(args: &CompareArgs) -> String {
    args.kernel.as_deref().map_or_else(|| "the default of `hv kernel ls`".into(), display)
}

/// Tells a person at a terminal how far it is; silent otherwise.
fn progress(launches: usize) -> impl FnMut(usize, Kind) {
    let shown = std::io::stderr().is_terminal();
    move |done, kind| {
        if shown {
            eprint!("\r\x1b[K{}/{launches} {kind}", done + 1);
        }
    }
}

fn finish_progress() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

/// Writes beside the file and renames, so that a report is whole or absent.
fn write_json(report: &Report, path: &Path) -> Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |source| Failure::new(format!("cannot write {}", path.display()), source);
    let mut text = serde_json::to_vec_pretty(report)?;
    text.push(b'\n');
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    file.write_all(&text).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
