//! `hv drill`: harmless attempts from inside one image, by each kind, and what stopped them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use crate::backend;
use crate::cli::DrillArgs;
use crate::compare::Host;
use crate::compare::isolation::reachable::Reachable;
use crate::compare::isolation::{self, Isolation, csv, drill::Setup, html, text};
use crate::compare::report::file;
use crate::error::{Failure, Result};
use hv_common::Kind;
use hv_common::cgroup::Layout;

/// What makes the attempts, beside hv.
const PROBE: &str = "hv-probe";

/// Runs the drill and shows the table.
///
/// # Errors
/// It cannot be run, or a file cannot be written.
pub fn run(args: &DrillArgs) -> Result<u8> {
    let isolation = measure(args, &args.image)?;
    show(args, &isolation)?;
    Ok(u8::from(!isolation.skipped.is_empty()))
}

fn measure(args: &DrillArgs, image: &Path) -> Result<Isolation> {
    let image = image
        .canonicalize()
        .map_err(|source| Failure::new(format!("cannot open image {}", image.display()), source))?;
    let (kinds, unusable) = usable(&args.kinds);
    let host =
        Host::look(Layout::detect().map_or_else(|_| "none".into(), |layout| layout.shape().to_string()));
    let mut machine = Vec::new();
    for (option, value) in [("--kernel", &args.kernel), ("--modules", &args.modules)] {
        if let Some(value) = value {
            machine.extend([OsString::from(option), value.clone().into_os_string()]);
        }
    }
    let shown = image.display().to_string().escape_debug().to_string();
    let hv = std::env::current_exe()
        .map_err(|source| Failure::new("cannot find hv's own program file", source))?;
    let probe = hv.with_file_name(PROBE);
    if !probe.is_file() {
        return Err(Failure::refused(format!("{} is not there: install {PROBE} beside hv", probe.display())));
    }
    let setup = Setup { hv, image, machine, probe, deadline: Duration::from_secs(args.timeout) };
    let (runs, failed) = isolation::drill::run(&setup, &kinds, progress)?;
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    let skipped: BTreeMap<String, String> = failed.into_iter().chain(unusable).collect();
    let version = isolation::VERSION;
    let drill = isolation::rows(&kinds, &runs);
    let reachable = kinds.iter().filter_map(|kind| Some((*kind, Reachable::of(*kind, &runs)?))).collect();
    Ok(Isolation {
        version,
        hv: env!("CARGO_PKG_VERSION").into(),
        image: shown,
        host,
        kinds,
        skipped,
        reachable,
        drill,
        runs,
    })
}

/// The kinds that can run here, each once, and why others cannot.
fn usable(asked: &[Kind]) -> (Vec<Kind>, BTreeMap<String, String>) {
    let mut usable = Vec::new();
    let mut skipped = BTreeMap::new();
    for kind in asked {
        match obstacle(*kind) {
            _ if usable.contains(kind) => {}
            Some(why) => drop(skipped.insert(kind.to_string(), why)),
            None => usable.push(*kind),
        }
    }
    (usable, skipped)
}

fn obstacle(kind: Kind) -> Option<String> {
    match kind {
        Kind::Vm => backend::obstacle_to_vm(),
        Kind::Process if !rustix::process::geteuid().is_root() => {
            Some("changing the root directory needs root".into())
        }
        Kind::Process | Kind::Ctr => None,
    }
}

/// Tells a person at a terminal how far it is; silent otherwise.
fn progress(run: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{run}");
    }
}

/// The files that were asked for, then the table.
fn show(args: &DrillArgs, isolation: &Isolation) -> Result<()> {
    let json = || -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(isolation)?;
        text.push(b'\n');
        Ok(text)
    };
    if let Some(path) = &args.json {
        file::place(&json()?, path)?;
    }
    if let Some(dir) = &args.out {
        std::fs::create_dir_all(dir)
            .map_err(|source| Failure::new(format!("cannot make {}", dir.display()), source))?;
        file::place(&json()?, &dir.join("drill.json"))?;
        file::place(csv::render(isolation).as_bytes(), &dir.join("drill.csv"))?;
        file::place(html::render(isolation).as_bytes(), &dir.join("drill.html"))?;
    }
    std::io::stdout()
        .write_all(text::render(isolation).as_bytes())
        .map_err(|source| Failure::new("cannot print the table", source))
}
