//! Control groups behind one small interface: cgroup v2, v1, and both side by side ("hybrid").
//!
//! - [`layout`]: which hierarchies there are and where this process stands in them;
//! - `v2`, `v1`: making a sandbox's directories in a hierarchy of that version;
//! - `limit`: the files that set a limit;
//! - `freeze`: holding all processes of a sandbox;
//! - [`Group`] (`group`): a control group at a place of somebody else's choice, with all that the OCI runtime
//!   specification has for it: `resources` (what is asked for), `settings` (files and values), `devices`;
//! - `end`: killing everything in a set of directories, and removing them.
//!
//! A sandbox's directories are `hv/ID` below a place that the layout alone decides ([`places`]), so
//! that they can be written down before they are made. The directory `hv` itself, which all
//! sandboxes of a host share, stays.

mod devices;
mod end;
mod figures;
mod files;
mod freeze;
mod group;
pub mod layout;
mod limit;
mod resources;
mod settings;
mod v1;
mod v2;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

pub use end::destroy;
pub use group::{Group, Place as GroupPlace};
pub use layout::{Controller, Layout, Shape};
pub use resources::{Cpu, Memory, Pids, Resources};

use crate::spec::{Id, Limits};

/// The directory that holds the sandboxes' own, in each hierarchy.
const PARENT: &str = "hv";
/// Period over which a share of processor time is given, in microseconds (the kernel's default).
const CPU_PERIOD: u64 = 100_000;

/// What went wrong with a control group.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {operation} {path}")]
    File {
        /// What was tried.
        operation: String,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A limit that was asked for cannot be set.
    #[error("cannot limit {controller}: {why}; {mend}")]
    Limit {
        /// The controller that sets such limits.
        controller: Controller,
        /// Why it cannot be used.
        why: String,
        /// What the user can do.
        mend: &'static str,
        /// The kernel's refusal, where it came to that.
        source: Option<Box<Error>>,
    },
    /// Neither version's freezer is there.
    #[error(
        "this host has no freezer for it: cgroup v2 of Linux 5.2, or the freezer controller of v1, in which hv may \
         make directories"
    )]
    NoFreezer,
    /// Processes went on.
    #[error("processes in {0} did not stop within 5 seconds; they go on")]
    NotFrozen(PathBuf),
    /// Processes stayed although they were killed.
    #[error("processes in {0} do not end although they were killed: {1:?}")]
    StillRunning(PathBuf, Vec<i32>),
}

impl Error {
    fn new(operation: impl Into<String>, path: &Path, source: std::io::Error) -> Error {
        Error::File { operation: operation.into(), path: path.to_owned(), source }
    }
}

/// One directory of a sandbox.
#[derive(Debug)]
struct Dir {
    path: PathBuf,
    /// The controllers that work in it.
    controllers: Vec<Controller>,
    /// In the unified hierarchy.
    unified: bool,
}

/// The control group of one sandbox: a directory in each hierarchy that it needs. Dropping it kills
/// what is left in it and removes it.
#[derive(Debug)]
pub struct Cgroup {
    dirs: Vec<Dir>,
    fd: Option<OwnedFd>,
}

/// Every directory that [`Cgroup::create`] may make for `id`: what to write down beforehand, and to
/// hand to [`destroy`] afterwards.
pub fn places(layout: &Layout, id: &Id) -> Vec<PathBuf> {
    let unified = layout.unified.iter().flat_map(v2::parents);
    let v1 = v1::hierarchies(layout).into_iter().map(|hierarchy| hierarchy.own);
    unified.chain(v1).map(|parent| parent.join(PARENT).join(id.as_str())).collect()
}

impl Cgroup {
    /// Makes the control group of sandbox `id` and sets its limits. None when nothing can be made
    /// (no cgroups, or no permission) and no limit was asked for.
    ///
    /// # Errors
    /// A limit that was asked for cannot be set: the error names the controller and the mend.
    pub fn create(id: &Id, limits: &Limits) -> Result<Option<Cgroup>, Error> {
        Cgroup::create_in(&Layout::detect()?, id, limits)
    }

    /// As [`Cgroup::create`], in a layout that is known already.
    ///
    /// # Errors
    /// As [`Cgroup::create`].
    pub fn create_in(layout: &Layout, id: &Id, limits: &Limits) -> Result<Option<Cgroup>, Error> {
        let limited = limited(limits);
        let mut cgroup = Cgroup { dirs: Vec::new(), fd: None };
        if let Some(place) = &layout.unified {
            let required: Vec<Controller> =
                limited.iter().copied().filter(|controller| !layout.v1.contains_key(controller)).collect();
            let wanted = v2::CONTROLLERS.iter().filter(|controller| !layout.v1.contains_key(controller));
            match v2::create(place, id, &wanted.copied().collect::<Vec<_>>(), &required) {
                Ok((dir, fd)) => {
                    cgroup.dirs.push(dir);
                    cgroup.fd = Some(fd);
                }
                Err(error) if !required.is_empty() => return Err(error),
                Err(_) => {}
            }
        }
        for hierarchy in v1::hierarchies(layout) {
            match v1::create(&hierarchy, id) {
                Ok(dir) => cgroup.dirs.push(dir),
                Err(error) => {
                    if let Some(controller) = hierarchy.controllers.iter().find(|one| limited.contains(one)) {
                        return Err(unusable(*controller, error));
                    }
                }
            }
        }
        for controller in limited {
            cgroup.limit(controller, limits)?;
        }
        Ok(Some(cgroup).filter(|cgroup| !cgroup.dirs.is_empty()))
    }

    fn limit(&self, controller: Controller, limits: &Limits) -> Result<(), Error> {
        let dir = self.dir(controller).ok_or(Error::Limit {
            controller,
            why: format!("no cgroup hierarchy with the {controller} controller is mounted"),
            mend: "mount one, or start without this limit",
            source: None,
        })?;
        limit::set(&dir.path, dir.unified, controller, limits).map_err(|error| Error::Limit {
            controller,
            why: "the kernel refuses the value".into(),
            mend: "ask for another value, or start without this limit",
            source: Some(Box::new(error)),
        })
    }

    fn dir(&self, controller: Controller) -> Option<&Dir> {
        self.dirs.iter().find(|dir| dir.controllers.contains(&controller))
    }

    /// The directories, as they were made.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.dirs.iter().map(|dir| dir.path.as_path())
    }

    /// The directory in the unified hierarchy, for `CLONE_INTO_CGROUP`. A process that was cloned into
    /// it still has to be put into the v1 hierarchies with [`Cgroup::add_cloned`].
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Puts a process, with all its threads, into every directory.
    ///
    /// # Errors
    /// The process is gone, or the kernel refuses.
    pub fn add(&self, pid: i32) -> Result<(), Error> {
        self.dirs.iter().try_for_each(|dir| dir.add(pid))
    }

    /// Completes the move of a process that was cloned into [`Cgroup::fd`]: the v1 directories.
    /// Nothing is left to do where only v2 is there.
    ///
    /// # Errors
    /// As [`Cgroup::add`].
    pub fn add_cloned(&self, pid: i32) -> Result<(), Error> {
        self.dirs.iter().filter(|dir| !dir.unified).try_for_each(|dir| dir.add(pid))
    }

    /// The processes in it.
    ///
    /// # Errors
    /// The directory is gone.
    pub fn procs(&self) -> Result<Vec<i32>, Error> {
        self.dirs.first().map_or(Ok(Vec::new()), |dir| end::procs(&dir.path))
    }

    /// Kills every process in it, also those that are just being forked, and waits until they are gone.
    ///
    /// # Errors
    /// Processes do not end, or the directory cannot be read.
    pub fn kill(&self) -> Result<(), Error> {
        self.dirs.iter().try_for_each(|dir| end::kill(&dir.path))
    }

    /// Kills what is left in it and removes its directories.
    ///
    /// # Errors
    /// Processes do not end, or a directory cannot be removed.
    pub fn remove(mut self) -> Result<(), Error> {
        self.destroy()
    }

    fn destroy(&mut self) -> Result<(), Error> {
        let paths: Vec<PathBuf> = self.dirs.drain(..).map(|dir| dir.path).collect();
        destroy(&paths)
    }

    /// Bytes of memory charged to it now, page cache included. None without a memory controller.
    ///
    /// # Errors
    /// The figure cannot be read.
    pub fn memory_current(&self) -> Result<Option<u64>, Error> {
        self.figure(Controller::Memory, "memory.current", "memory.usage_in_bytes")
    }

    /// The most memory ever charged to it, in bytes. None without a memory controller, or on v2
    /// before Linux 5.19.
    ///
    /// # Errors
    /// The figure cannot be read.
    pub fn memory_peak(&self) -> Result<Option<u64>, Error> {
        self.figure(Controller::Memory, "memory.peak", "memory.max_usage_in_bytes")
    }

    fn figure(&self, controller: Controller, v2: &str, v1: &str) -> Result<Option<u64>, Error> {
        let Some(dir) = self.dir(controller) else { return Ok(None) };
        files::number(&dir.path.join(if dir.unified { v2 } else { v1 }))
    }

    /// How many of its processes the kernel's memory killer has ended.
    ///
    /// # Errors
    /// The count cannot be read.
    pub fn oom_kills(&self) -> Result<Option<u64>, Error> {
        let Some(dir) = self.dir(Controller::Memory) else { return Ok(None) };
        let file = if dir.unified { "memory.events" } else { "memory.oom_control" };
        Ok(files::keyed(&files::read(&dir.path.join(file))?, "oom_kill"))
    }

    /// Processor time its processes have used, in nanoseconds.
    ///
    /// # Errors
    /// The figure cannot be read.
    pub fn cpu_usage_ns(&self) -> Result<Option<u64>, Error> {
        if let Some(dir) = self.dirs.iter().find(|dir| dir.controllers.contains(&Controller::Cpuacct)) {
            return files::number(&dir.path.join("cpuacct.usage"));
        }
        // cpu.stat of the unified hierarchy counts with or without the controller.
        let Some(dir) = self.dirs.iter().find(|dir| dir.unified) else { return Ok(None) };
        let stat = files::read(&dir.path.join("cpu.stat"))?;
        Ok(files::keyed(&stat, "usage_usec").map(|microseconds| microseconds.saturating_mul(1000)))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Whoever must know whether it worked calls `remove`; a later `hv` command tries again.
        let _ = self.destroy();
    }
}

impl Dir {
    fn add(&self, pid: i32) -> Result<(), Error> {
        files::write(&self.path.join("cgroup.procs"), &pid.to_string())
    }
}

/// The controllers that these limits need.
fn limited(limits: &Limits) -> Vec<Controller> {
    let wanted = [
        (Controller::Memory, limits.memory.is_some()),
        (Controller::Cpu, limits.millicpus.is_some()),
        (Controller::Pids, limits.pids.is_some()),
    ];
    wanted.into_iter().filter_map(|(controller, wanted)| wanted.then_some(controller)).collect()
}

/// Microseconds of processor time in each [`CPU_PERIOD`].
fn cpu_quota(millicpus: u32) -> u64 {
    u64::from(millicpus) * CPU_PERIOD / 1000
}

fn unusable(controller: Controller, error: Error) -> Error {
    let mend = if rustix::process::geteuid().is_root() {
        "give this process a cgroup in which it may make others, or start without this limit"
    } else {
        "run hv as root, or under `systemd-run --user --scope -p Delegate=yes`, or start without this limit"
    };
    Error::Limit {
        controller,
        why: "a cgroup with that controller cannot be made".into(),
        mend,
        source: Some(Box::new(error)),
    }
}

/// What the memory controller charges a running sandbox of this host, in bytes, and its processes in
/// that group. For an onlooker: the group stays its monitor's.
pub fn charged(layout: &Layout, id: &Id) -> Option<(u64, Vec<i32>)> {
    places(layout, id).into_iter().find_map(|dir| {
        let figure = ["memory.current", "memory.usage_in_bytes"];
        let bytes = figure.iter().find_map(|file| files::number(&dir.join(file)).ok().flatten())?;
        Some((bytes, end::procs(&dir).ok()?))
    })
}

/// Controllers that a sandbox could be limited with here, each with the reason if it cannot. Tries it
/// with a cgroup of its own, which it removes again.
pub fn probe(layout: &Layout, id: &Id) -> Vec<(Controller, Result<(), Error>)> {
    let memory = Limits { memory: Some(16 << 20), ..Limits::default() };
    let cpu = Limits { millicpus: Some(500), ..Limits::default() };
    let pids = Limits { pids: Some(64), ..Limits::default() };
    [(Controller::Memory, memory), (Controller::Cpu, cpu), (Controller::Pids, pids)]
        .into_iter()
        .map(|(controller, limits)| (controller, Cgroup::create_in(layout, id, &limits).map(drop)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// None where this process may not make cgroups: those tests then run in the testbed, as root.
    fn make(limits: &Limits) -> Option<Cgroup> {
        Cgroup::create(&Id::random().unwrap(), limits).ok().flatten()
    }

    #[test]
    fn holds_kills_and_goes() {
        let Some(cgroup) = make(&Limits::default()) else { return };
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        cgroup.add(child.id() as i32).unwrap();
        assert_eq!(cgroup.procs().unwrap(), [child.id() as i32]);
        let paths: Vec<PathBuf> = cgroup.paths().map(Path::to_owned).collect();
        cgroup.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(cgroup.procs().unwrap().is_empty());
        cgroup.remove().unwrap();
        assert!(paths.iter().all(|path| !path.exists()), "{paths:?}");
    }

    #[test]
    fn limits_arrive_in_the_kernel() {
        let limits = Limits { memory: Some(32 << 20), millicpus: Some(1500), pids: Some(20) };
        let Some(cgroup) = make(&limits) else { return };
        let read = |controller, v2: &str, v1: &str| {
            let dir = cgroup.dir(controller).unwrap();
            files::read(&dir.path.join(if dir.unified { v2 } else { v1 })).unwrap().trim().to_owned()
        };
        assert_eq!(read(Controller::Memory, "memory.max", "memory.limit_in_bytes"), "33554432");
        assert_eq!(read(Controller::Pids, "pids.max", "pids.max"), "20");
        assert!(read(Controller::Cpu, "cpu.max", "cpu.cfs_quota_us").starts_with("150000"));
        assert_eq!(cgroup.oom_kills().unwrap(), Some(0));
        assert!(cgroup.memory_current().unwrap().is_some());
        assert!(cgroup.cpu_usage_ns().unwrap().is_some());
    }

    #[test]
    fn what_is_made_was_announced() {
        let id = Id::random().unwrap();
        let layout = Layout::detect().unwrap();
        let Ok(Some(cgroup)) = Cgroup::create_in(&layout, &id, &Limits::default()) else { return };
        let announced = places(&layout, &id);
        assert!(cgroup.paths().all(|path| announced.iter().any(|place| place == path)));
        drop(cgroup);
        assert!(announced.iter().all(|place| !place.exists()));
    }

    #[test]
    fn a_limit_without_its_controller_is_an_error() {
        let limits = Limits { memory: Some(32 << 20), ..Limits::default() };
        let error = Cgroup::create_in(&Layout::default(), &Id::random().unwrap(), &limits).unwrap_err();
        assert!(error.to_string().contains("memory controller"), "{error}");
        let none = Cgroup::create_in(&Layout::default(), &Id::random().unwrap(), &Limits::default());
        assert!(none.unwrap().is_none());
    }

    #[test]
    fn quota_of_half_a_processor() {
        assert_eq!(cpu_quota(500), 50_000);
        assert_eq!(cpu_quota(4000), 400_000);
    }
}
