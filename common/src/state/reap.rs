//! Cleaning up after monitors that did not end by themselves.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::journal::{self, Journal, Resource};
use super::{Error, JOURNAL, LOCK, Store, UNBORN, entry};
use crate::cgroup;
use crate::procfs;
use crate::spec::Id;

/// A sandbox whose monitor was dead.
#[derive(Debug)]
pub struct Reaped {
    /// Its name.
    pub name: String,
    /// What could not be cleaned up, if anything; the next command tries again.
    pub problem: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Store {
    /// Cleans up after every sandbox whose monitor is dead: kills what is left of it, removes its
    /// cgroups, files and directory. Safe beside other commands that start, end or reap sandboxes.
    ///
    /// # Errors
    /// The runtime directory cannot be read.
    pub fn reap(&self) -> Result<Vec<Reaped>, Error> {
        let mut reaped = Vec::new();
        for name in self.names()? {
            let dir = self.path().join(&name);
            let Some(_lock) = take_lock(&dir, FlockOperation::NonBlockingLockExclusive) else { continue };
            let problem = bury(&dir).err();
            if problem.is_some() || !name.starts_with(UNBORN) {
                reaped.push(Reaped { name, problem });
            }
        }
        Ok(reaped)
    }

    /// Cleans up after sandbox `id`, whose monitor is ending: waits until its lock is free. Nothing is done
    /// if there is no such sandbox any more.
    ///
    /// # Errors
    /// Something of it cannot be removed; the next command tries again.
    pub fn bury(&self, id: &Id) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let dir = self.path().join(id.as_str());
        match take_lock(&dir, FlockOperation::LockExclusive) {
            Some(_lock) => bury(&dir),
            None => Ok(()),
        }
    }
}

/// The lock of a dead sandbox; None if it lives, or is gone, or somebody else is reaping it.
fn take_lock(dir: &Path, how: FlockOperation) -> Option<File> {
    let path = dir.join(LOCK);
    let lock = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A directory without a lock is empty: just made, or almost removed.
            let _ = fs::remove_dir(dir);
            return None;
        }
        other => other.ok()?,
    };
    flock(&lock, how).ok()?;
    // Another command may have removed the directory, and a third made one of this name, meanwhile.
    let (held, named) = (lock.metadata().ok()?, fs::metadata(&path).ok()?);
    (held.ino() == named.ino() && held.dev() == named.dev()).then_some(lock)
}

fn bury(dir: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let text = fs::read_to_string(dir.join(JOURNAL)).unwrap_or_default();
    let journal = Journal::parse(&text);
    let this_boot = journal.boot == journal::boot()?;
    let mut cgroups: Vec<PathBuf> = Vec::new();
    for resource in journal.resources.into_iter().rev() {
        match resource {
            Resource::Process { pid, start_time } if this_boot => kill(pid, start_time)?,
            Resource::Cgroup(path) if this_boot => cgroups.push(path),
            Resource::File(path) => {
                let removed = entry::absent(fs::remove_file(&path));
                removed.map_err(|source| Error::new("remove", &path, source))?;
            }
            Resource::Process { .. } | Resource::Cgroup(_) => {}
        }
    }
    cgroup::destroy(&cgroups)?;
    Ok(entry::remove_dir(dir)?)
}

/// Kills process `pid` if it is still the one that started at `start_time`. It is looked at after a
/// handle on it was taken, so that the number cannot pass to another process in between.
fn kill(pid: i32, start_time: u64) -> io::Result<()> {
    let Some(Ok(process)) = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
        return Ok(());
    };
    if procfs::start_time(pid)? == Some(start_time) {
        match pidfd_send_signal(&process, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;
    use crate::spec::Limits;

    /// Leaves a sandbox behind as a killed monitor does: everything there, nobody holding the lock.
    fn abandon(store: &Store, name: &str, resources: &[Resource]) {
        let entry = store.create(&Id::try_from(name.to_string()).unwrap()).unwrap();
        for resource in resources {
            entry.record(resource).unwrap();
        }
        fs::write(entry.dir().join("socket"), "").unwrap();
        let dir = entry.dir().to_owned();
        let grave = dir.with_extension("kept");
        fs::rename(&dir, &grave).unwrap();
        drop(entry);
        fs::rename(&grave, &dir).unwrap();
    }

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").spawn().unwrap()
    }

    #[test]
    fn the_dead_are_buried_with_all_they_left() {
        let guard = tempfile::tempdir().unwrap();
        let store = Store::open_at(&guard.path().join("hv")).unwrap();
        let file = guard.path().join("left");
        fs::write(&file, "").unwrap();
        let (mut by_number, mut in_cgroup) = (sleeper(), sleeper());
        let start_time = procfs::start_time(by_number.id() as i32).unwrap().unwrap();
        let mut resources =
            vec![Resource::File(file.clone()), Resource::Process { pid: by_number.id() as i32, start_time }];
        let id = Id::random().unwrap();
        let cgroup = cgroup::Cgroup::create(&id, &Limits::default()).ok().flatten();
        if let Some(cgroup) = &cgroup {
            resources.extend(cgroup.paths().map(|path| Resource::Cgroup(path.to_owned())));
            cgroup.add(in_cgroup.id() as i32).unwrap();
        } else {
            in_cgroup.kill().unwrap();
        }
        abandon(&store, "dead", &resources);

        let reaped = store.reap().unwrap();

        assert_eq!(reaped.len(), 1);
        assert!(reaped[0].problem.is_none(), "{:?}", reaped[0].problem);
        assert!(!by_number.wait().unwrap().success());
        assert!(!in_cgroup.wait().unwrap().success());
        assert!(!file.exists());
        assert!(cgroup.iter().flat_map(|cgroup| cgroup.paths()).all(|path| !path.exists()));
        assert_eq!(fs::read_dir(store.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_monitor_that_is_just_ending_is_waited_for() {
        let guard = tempfile::tempdir().unwrap();
        let store = Store::open_at(&guard.path().join("hv")).unwrap();
        let id = Id::random().unwrap();
        abandon(&store, id.as_str(), &[]);
        let held = File::open(store.path().join(id.as_str()).join(LOCK)).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        std::thread::scope(|scope| {
            let burial = scope.spawn(|| store.bury(&id).unwrap());
            drop(held);
            burial.join().unwrap();
        });
        assert_eq!(fs::read_dir(store.path()).unwrap().count(), 0);
        store.bury(&id).unwrap();
    }

    #[test]
    fn another_process_with_the_same_number_lives_on() {
        let guard = tempfile::tempdir().unwrap();
        let store = Store::open_at(&guard.path().join("hv")).unwrap();
        let mut other = sleeper();
        abandon(&store, "dead", &[Resource::Process { pid: other.id() as i32, start_time: 1 }]);
        assert_eq!(store.reap().unwrap().len(), 1);
        assert!(other.try_wait().unwrap().is_none(), "killed by mistake");
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn unborn_and_empty_directories_go_silently() {
        let guard = tempfile::tempdir().unwrap();
        let store = Store::open_at(&guard.path().join("hv")).unwrap();
        fs::create_dir(store.path().join(".new-1")).unwrap();
        fs::create_dir(store.path().join(".new-2")).unwrap();
        fs::write(store.path().join(".new-2/lock"), "").unwrap();
        assert!(store.reap().unwrap().is_empty());
        assert_eq!(fs::read_dir(store.path()).unwrap().count(), 0);
    }
}
