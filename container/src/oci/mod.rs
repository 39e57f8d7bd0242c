//! Bundles of the OCI runtime specification: `config.json` becomes a plan of the same steps that a
//! container of `hv ctr` is made of.
//!
//! # Layout
//! - [`config`], [`linux`]: what is written; `process`, `seccomp`, `attributes`, `options`: what it means;
//! - `step`: the steps that only a bundle needs; `mounts`, `plan`: `config.json` becomes a list of steps, pure;
//!   `sources`: the trees that they mount are opened;
//! - `spaces`: namespaces that are made and joined; `birth`: the monitor's side of a start; `gate`: what
//!   holds a created container back until it is started;
//! - `hooks`: programs around it; `create`, `exec`: the two ways to start a process.
//!
//! The container's process is the program itself, as PID 1 of its namespace where there is a new one: its
//! parent is whoever called hv.

pub(crate) mod attributes;
mod birth;
pub mod config;
mod create;
mod exec;
pub(crate) mod gate;
mod hooks;
pub mod linux;
mod mounts;
mod options;
mod plan;
mod process;
pub mod seal;
mod seccomp;
mod sources;
mod spaces;
pub(crate) mod step;

use std::path::{Path, PathBuf};

pub use config::Config;
pub use create::{Created, Creation, create};
pub use exec::{Execution, exec};
pub use gate::{Conn, Listener, NAME as GATE, waits as gate_waits};
pub use hooks::{Moment, run as run_hooks};
pub use options::KNOWN as MOUNT_OPTIONS;
pub use plan::Facts;
pub use process::{capabilities_not_granted, capability_names, rights};
pub use seccomp::{
    ACTIONS as SECCOMP_ACTIONS, ARCHITECTURES as SECCOMP_ARCHITECTURES, FLAGS as SECCOMP_FLAGS,
    OPERATORS as SECCOMP_OPERATORS,
};

use hv_common::cgroup::Group;

use crate::error::Error;

/// A bundle: its directory and what its `config.json` says.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Absolute.
    pub dir: PathBuf,
    /// What is written there.
    pub config: Config,
}

/// The longest `config.json` that is read, in bytes.
const LONGEST: u64 = 16 << 20;

impl Bundle {
    /// Reads `config.json` in `dir` and checks all of it that can be checked without looking at the host.
    ///
    /// # Errors
    /// It cannot be read, is no configuration, or asks for what hv does not do: the field is named.
    pub fn open(dir: &Path) -> Result<Bundle, Error> {
        let failed = |path: &Path, source| Error::System {
            operation: "open",
            object: path.display().to_string(),
            mend: "name the bundle's directory with --bundle; `hv oci spec` writes a config.json into it",
            source,
        };
        let dir = dir.canonicalize().map_err(|source| failed(dir, source))?;
        let path = dir.join("config.json");
        let file = std::fs::File::open(&path).map_err(|source| failed(&path, source))?;
        let mut text = Vec::new();
        use std::io::Read;
        file.take(LONGEST).read_to_end(&mut text).map_err(|source| failed(&path, source))?;
        let config = parse(&text)?;
        Ok(Bundle { dir, config })
    }

    /// The root file system's directory.
    pub fn root(&self) -> PathBuf {
        self.dir.join(self.config.root.as_ref().map_or("", |root| &root.path))
    }

    /// Its cgroups and what is written there, then the steps of its container's process, one a line.
    ///
    /// # Errors
    /// The configuration asks for what hv does not do, or this host has not.
    pub fn plan(&self, facts: &Facts) -> Result<Vec<String>, Error> {
        let linux = &self.config.linux;
        let resources = linux.resources.clone().unwrap_or_default();
        let mut lines = Vec::new();
        if let Some(path) = linux.cgroups_path.as_ref().filter(|path| !path.is_empty()) {
            let group = Group::at(&facts.layout, path, &resources)?;
            lines.extend(group.places().iter().map(|place| format!("make {}", place.path.display())));
        }
        lines.extend(resources.words(&facts.layout)?);
        let steps = plan::steps(self, facts, &plan::Wish::default())?;
        lines.extend(steps.iter().map(ToString::to_string));
        Ok(lines)
    }
}

/// Reads a configuration and checks it.
///
/// # Errors
/// It is no configuration, or asks for what hv does not do: the field is named.
pub fn parse(text: &[u8]) -> Result<Config, Error> {
    let config: Config = read("config.json", text)?;
    plan::check(&config)?;
    Ok(config)
}

/// Reads a process, as `exec --process` is given one.
///
/// # Errors
/// It is none.
pub fn parse_process(text: &[u8]) -> Result<config::Process, Error> {
    let process: config::Process = read("the process's file", text)?;
    process::check(&process)?;
    Ok(process)
}

/// Checks a process that was put together.
///
/// # Errors
/// It makes no sense: the field is named.
pub fn check_process(process: &config::Process) -> Result<(), Error> {
    process::check(process)
}

/// Reads limits, as `update` is given them.
///
/// # Errors
/// They are none.
pub fn parse_resources(text: &[u8]) -> Result<hv_common::cgroup::Resources, Error> {
    read("the file of limits", text)
}

/// Sends a process a signal by number.
///
/// # Errors
/// As kill(2).
pub fn signal(process: std::os::fd::BorrowedFd<'_>, signal: u8) -> std::io::Result<()> {
    Ok(crate::sys::send_signal(process, i32::from(signal))?)
}

/// Clients write `null` for what is not there.
fn read<T: serde::de::DeserializeOwned>(what: &str, text: &[u8]) -> Result<T, Error> {
    let failed = |error: serde_json::Error| Error::Refused(format!("{what} cannot be used: {error}"));
    let mut value: serde_json::Value = serde_json::from_slice(text).map_err(failed)?;
    without_nulls(&mut value);
    serde_json::from_value(value).map_err(failed)
}

fn without_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// A refusal that names the field.
pub(crate) fn refuse(field: &str, why: &str) -> Error {
    Error::Refused(format!("{field} of config.json cannot be honoured: {why}"))
}

#[cfg(test)]
mod fields;
#[cfg(test)]
mod tests;
