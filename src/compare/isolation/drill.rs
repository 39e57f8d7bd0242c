//! Runs the drill: on the host itself, as each kind, and in a container with walls left out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hv_common::drill::{Around, Found, MOST};
use hv_common::{Kind, Wall};

use super::around::Surroundings;
use super::verdict::with_walls;
use crate::error::{Failure, Result};

/// Memory of container and microVM alike, small enough that more than it can be asked for.
pub const MEMORY: u64 = 192 << 20;
/// Their limit of processes.
pub const PIDS: u32 = 96;
/// How often a run is looked at that has not ended.
const LOOK: Duration = Duration::from_millis(5);

/// What to run, and as what.
pub struct Setup {
    /// The hv to run: this program.
    pub hv: PathBuf,
    /// The image.
    pub image: PathBuf,
    /// The guest's kernel and modules, as `hv vm` takes them.
    pub machine: Vec<OsString>,
    /// The static program that makes the attempts.
    pub probe: PathBuf,
    /// A run that takes longer is ended.
    pub deadline: Duration,
}

/// What the runs found, by their names, and why others found nothing.
pub type Runs = (BTreeMap<String, Found>, BTreeMap<String, String>);

/// Runs all of it for these kinds; `progress` is told of each run.
///
/// # Errors
/// What the attempts are after cannot be made, or the drill on the host failed.
pub fn run(setup: &Setup, kinds: &[Kind], mut progress: impl FnMut(&str)) -> Result<Runs> {
    let surroundings = Surroundings::make()?;
    let around = surroundings.around();
    let limited = Around { memory: Some(MEMORY), pids: Some(PIDS), ..around.clone() };
    let mut found = BTreeMap::new();
    let mut skipped = BTreeMap::new();
    progress("host");
    found.insert("host".to_owned(), on_host(setup, &limited)?);
    let runs = kinds.iter().flat_map(|kind| runs_of(*kind));
    for (name, kind, lowered) in runs {
        progress(&name);
        match inside(setup, kind, &lowered, &limited) {
            Ok(one) => drop(found.insert(name, one)),
            Err(error) => drop(skipped.insert(name, error.message())),
        }
    }
    Ok((found, skipped))
}

/// The runs of one kind: their names, and the walls that are left out.
fn runs_of(kind: Kind) -> Vec<(String, Kind, Vec<Wall>)> {
    let mut runs = vec![(kind.word().to_owned(), kind, Vec::new())];
    if kind == Kind::Ctr {
        runs.push((with_walls(&[]), kind, Wall::ALL.to_vec()));
        for wall in Wall::ALL {
            let others = Wall::ALL.into_iter().filter(|other| *other != wall);
            runs.push((with_walls(&[wall]), kind, others.collect()));
        }
    }
    runs
}

/// As whoever calls hv, with no wall at all.
fn on_host(setup: &Setup, around: &Around) -> Result<Found> {
    let mut command = Command::new(&setup.probe);
    command.args(drill_words(around)?);
    finish(command, setup.deadline)
}

fn drill_words(around: &Around) -> Result<[OsString; 2]> {
    Ok(["drill".into(), serde_json::to_string(around)?.into()])
}

fn inside(setup: &Setup, kind: Kind, lowered: &[Wall], around: &Around) -> Result<Found> {
    let mut command = Command::new(&setup.hv);
    command.arg(kind.word()).arg("--no-tty");
    if kind != Kind::Process {
        command.arg("--memory").arg(MEMORY.to_string()).arg("--pids").arg(PIDS.to_string());
    }
    if kind == Kind::Vm {
        command.args(&setup.machine);
    }
    if !lowered.is_empty() {
        let words: Vec<&str> = lowered.iter().map(|wall| wall.word()).collect();
        command.arg("--lower").arg(words.join(","));
    }
    command.arg("--inject").arg(&setup.probe).arg("--rootfs").arg(&setup.image);
    command.args(["--", "hv-probe"]).args(drill_words(around)?);
    finish(command, setup.deadline)
}

/// Runs it to its end, and reads what it found.
fn finish(mut command: Command, patience: Duration) -> Result<Found> {
    let file =
        || tempfile::tempfile().map_err(|source| Failure::new("cannot make a file for the drill", source));
    let (stdout, stderr) = (file()?, file()?);
    let copy =
        |file: &File| file.try_clone().map_err(|source| Failure::new("cannot copy a descriptor", source));
    command.stdin(Stdio::null()).stdout(copy(&stdout)?).stderr(copy(&stderr)?);
    let mut child = command.spawn().map_err(|source| Failure::new("cannot run hv", source))?;
    let deadline = Instant::now() + patience;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Failure::refused(format!("it took longer than {} s", patience.as_secs())));
            }
            Err(source) => return Err(Failure::new("cannot wait for hv", source)),
        }
    };
    if !status.success() {
        let said = read(stderr).unwrap_or_default();
        let said =
            String::from_utf8_lossy(&said).lines().last().unwrap_or("no message").escape_debug().to_string();
        return Err(Failure::refused(format!("hv ended with {status}: {said}")));
    }
    let text = read(stdout).map_err(|source| Failure::new("cannot read what the drill found", source))?;
    Found::read(&text).map_err(|source| Failure::new("cannot read what the drill found", source))
}

fn read(mut file: File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(bytes)
}
