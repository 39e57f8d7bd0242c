//! The end of a set of cgroup directories: everything in them is killed, then they are removed.
//! Works on paths alone, so that the directories of a monitor that is dead can be ended too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{Error, files};

/// How long killed processes may take to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to leave a directory alone that the kernel still calls busy: it is told to nobody when the
/// last process has really left a v1 cgroup.
const BUSY: Duration = Duration::from_millis(1);

/// Kills every process in the directories and below them, and removes them. Directories that do not
/// exist count as removed.
///
/// # Errors
/// Processes do not end, or a directory cannot be removed. The other directories are removed all the same.
pub fn destroy(dirs: &[PathBuf]) -> Result<(), Error> {
    let mut result = Ok(());
    for dir in dirs.iter().filter(|dir| dir.join("cgroup.procs").exists()) {
        // Empty already is the rule: then nobody is to be killed.
        if fs::remove_dir(dir).is_err() {
            result = result.and(destroy_tree(dir));
        }
    }
    result
}

fn destroy_tree(dir: &Path) -> Result<(), Error> {
    kill(dir)?;
    let entries = fs::read_dir(dir).map_err(|source| Error::new("list", dir, source))?;
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        destroy_tree(&entry.path())?;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(BUSY);
            }
            other => return other.map_err(|source| Error::new("remove cgroup", dir, source)),
        }
    }
}

/// The processes in one directory.
pub(super) fn procs(dir: &Path) -> Result<Vec<i32>, Error> {
    Ok(files::pids(&files::read(&dir.join("cgroup.procs"))?))
}

/// Kills every process in one directory and waits until they are gone: with `cgroup.kill` (v2, Linux
/// 5.14) in one go, else frozen where there is a freezer, so that none can fork away.
pub(super) fn kill(dir: &Path) -> Result<(), Error> {
    let at_once = files::try_write(&dir.join("cgroup.kill"), "1").is_ok();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if !at_once {
            files::write_if_present(&dir.join("freezer.state"), "FROZEN")?;
        }
        let victims = open(&procs(dir)?);
        if !at_once {
            let still = procs(dir)?;
            // A number that is still listed after it was opened belongs to a process of this cgroup.
            for (_, victim) in victims.iter().filter(|(pid, _)| still.contains(pid)) {
                // The process may have ended by itself.
                let _ = pidfd_send_signal(victim, Signal::KILL);
            }
            files::write_if_present(&dir.join("freezer.state"), "THAWED")?;
        }
        for (_, victim) in &victims {
            wait_for(victim, deadline);
        }
        let left = procs(dir)?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::StillRunning(dir.to_owned(), left));
        }
    }
}

fn open(pids: &[i32]) -> Vec<(i32, OwnedFd)> {
    let open_one = |pid: &i32| pidfd_open(Pid::from_raw(*pid)?, PidfdFlags::empty()).ok();
    pids.iter().filter_map(|pid| Some((*pid, open_one(pid)?))).collect()
}

/// Waits until the process has ended. Giving up is noticed by the caller, who looks who is left.
fn wait_for(process: &OwnedFd, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
    let _ = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout));
}
