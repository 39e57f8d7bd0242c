//! The containers' state on disk: a directory each, below `--root`. It is locked by whoever works on the
//! container, and written by rename; what a killed `create` has left is removed by the next command that
//! comes across it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use hv_common::cgroup::Group;
use hv_common::procfs;
use hv_container::oci::{Config, gate_waits};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::vm::{self, Boot};
use super::{Fault, Result};

/// What is known of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub id: String,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// Its process on the host; 0 before there is one.
    pub pid: i32,
    /// When that was started, as /proc has it: numbers are used again.
    pub started: u64,
    /// When it was created.
    pub created: String,
    /// Who created it.
    pub owner: u32,
    /// It is not finished.
    pub creating: bool,
    /// Its cgroup.
    pub group: Group,
    /// What it was made of.
    pub config: Config,
    /// It is a VM, and its process the monitor.
    #[serde(default)]
    pub vm: Option<Boot>,
}

/// Where a container is in its life, in the words of the specification, and `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Being made.
    Creating,
    /// Waits for `start`.
    Created,
    /// Its process runs.
    Running,
    /// Its process is frozen.
    Paused,
    /// Its process has ended.
    Stopped,
}

impl Status {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// The directory of all containers.
pub struct Store {
    root: PathBuf,
}

/// A container's directory, locked.
pub struct Held {
    /// Where it is.
    pub path: PathBuf,
    dir: OwnedFd,
}

impl Store {
    /// In `root`, or where it is kept for this user.
    pub fn new(root: Option<PathBuf>) -> Store {
        let own = || match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) if !rustix::process::geteuid().is_root() => Path::new(&dir).join("hv-oci"),
            _ => "/run/hv-oci".into(),
        };
        Store { root: root.unwrap_or_else(own) }
    }

    /// Where they are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes a container's directory; nobody else has made one of that name.
    pub fn create(&self, id: &str) -> Result<Held> {
        let path = self.path(id)?;
        let failed = |source| Fault::because(format_args!("cannot make {}", path.display()), source);
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&self.root).map_err(failed)?;
        self.sweep(id);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Fault::new(format!(
                    "a container with the id {id:?} exists already: delete it, or take another"
                )));
            }
            other => other.map_err(failed)?,
        }
        self.hold(id)
    }

    /// Locks a container's directory.
    pub fn hold(&self, id: &str) -> Result<Held> {
        let path = self.path(id)?;
        let absent = || Fault::new(format!("container {id:?} does not exist"));
        loop {
            let dir = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(absent()),
                other => other.map_err(|source| {
                    Fault::because(format_args!("cannot open {}", path.display()), source)
                })?,
            };
            rustix::io::retry_on_intr(|| flock(&dir, FlockOperation::LockExclusive))
                .map_err(|source| Fault::because(format_args!("cannot lock {}", path.display()), source))?;
            // Somebody may have removed it meanwhile, and somebody else made it anew.
            let (held, there) = (dir.metadata(), fs::metadata(&path));
            match (held, there) {
                (Ok(held), Ok(there)) if held.ino() == there.ino() => {
                    return Ok(Held { path, dir: dir.into() });
                }
                (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => return Err(absent()),
                _ => {}
            }
        }
    }

    /// The record of a container, for looking at it alone.
    pub fn record(&self, id: &str) -> Result<(PathBuf, Record)> {
        self.sweep(id);
        let path = self.path(id)?;
        match read(&path) {
            Ok(record) => Ok((path, record)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Fault::new(format!("container {id:?} does not exist")))
            }
            Err(source) => {
                Err(Fault::because(format_args!("cannot read the state of container {id:?}"), source))
            }
        }
    }

    /// All containers.
    pub fn list(&self) -> Vec<(PathBuf, Record)> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut ids: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        ids.sort();
        ids.iter().filter_map(|id| self.record(id).ok()).collect()
    }

    /// A container's directory. A name is one of a file, and nothing more.
    fn path(&self, id: &str) -> Result<PathBuf> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        if id.is_empty() || id.len() > 255 || !id.chars().all(fits) || id == "." || id == ".." {
            return Err(Fault::new(format!(
                "{id:?} cannot name a container: use letters, digits, `_`, `+`, `-` and `.`"
            )));
        }
        Ok(self.root.join(id))
    }

    /// Removes what a `create` has left that was killed: nobody holds its lock.
    fn sweep(&self, id: &str) {
        let Ok(path) = self.path(id) else { return };
        let unfinished = match read(&path) {
            Ok(record) if record.creating => Some(record),
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.exists() => None,
            _ => return,
        };
        let Ok(dir) = File::open(&path) else { return };
        if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err() {
            return;
        }
        // Looked at again under the lock: it may have been finished meanwhile.
        match (unfinished, read(&path)) {
            (_, Ok(record)) if record.creating => {
                record.kill();
                // What cannot be removed now, the next command tries again.
                if record.group.destroy().is_ok() {
                    let _ = fs::remove_dir_all(&path);
                }
            }
            (None, Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                let _ = fs::remove_dir_all(&path);
            }
            _ => {}
        }
    }
}

fn read(path: &Path) -> io::Result<Record> {
    let text = fs::read(path.join("state.json"))?;
    serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

impl Held {
    /// Its descriptor.
    pub fn dir(&self) -> impl AsFd + '_ {
        &self.dir
    }

    /// The record.
    pub fn record(&self) -> Result<Record> {
        read(&self.path).map_err(|source| Fault::because("cannot read the container's state", source))
    }

    /// Writes the record.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        let (new, there) = (self.path.join("state.json.new"), self.path.join("state.json"));
        fs::write(&new, serde_json::to_vec(record)?)?;
        fs::rename(new, there)
    }

    /// Removes the directory: the name is free.
    pub fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.path)
            .map_err(|source| Fault::because(format_args!("cannot remove {}", self.path.display()), source))
    }
}

impl Record {
    /// Its process, if it is still there and has not ended.
    pub fn process(&self) -> Option<OwnedFd> {
        let process = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let state = stat.rsplit_once(") ")?.1.chars().next()?;
        let same = procfs::parse_start_time(&stat) == Some(self.started);
        (same && !"ZXx".contains(state)).then_some(process)
    }

    /// Where it is in its life; `path` is its directory.
    pub fn status(&self, path: &Path) -> Status {
        match self.process() {
            _ if self.creating => Status::Creating,
            None => Status::Stopped,
            Some(_) if gate_waits(path) => Status::Created,
            Some(_) if self.held() => Status::Paused,
            Some(_) => Status::Running,
        }
    }

    fn held(&self) -> bool {
        self.vm.as_ref().map_or_else(|| self.group.frozen(), vm::held)
    }

    /// Kills its process and waits until it has ended.
    pub fn kill(&self) {
        let Some(process) = self.process() else { return };
        // Gone already: all the better.
        let _ = pidfd_send_signal(&process, Signal::KILL);
        if self.group.frozen() {
            let _ = self.group.freeze(false);
        }
        let mut ends = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        let _ = rustix::io::retry_on_intr(|| rustix::event::poll(&mut ends, Some(&limit)));
    }

    /// The state as the specification has it, for `state` and for hooks.
    pub fn state(&self, status: Status) -> serde_json::Value {
        let root = self.config.root.as_ref().map(|root| self.bundle.join(&root.path));
        let pid = if status == Status::Stopped { 0 } else { self.pid };
        let annotations: &BTreeMap<String, String> = &self.config.annotations;
        serde_json::json!({
            "ociVersion": super::SPEC_VERSION,
            "id": self.id,
            "pid": pid,
            "status": status.word(),
            "bundle": self.bundle,
            "rootfs": root,
            "created": self.created,
            "owner": self.owner.to_string(),
            "annotations": annotations,
        })
    }
}
