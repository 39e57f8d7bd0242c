//! One sandbox's directory, held by its monitor.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use super::journal::{self, Resource};
use super::{Error, JOURNAL, LOCK, STATE, State, UNBORN};
use crate::kind::Kind;
use crate::procfs;
use crate::spec::Id;

/// How often a directory is made anew whose birth another command took for a death.
const ATTEMPTS: usize = 16;

/// A sandbox's directory. Dropping it removes the directory and releases the name; what the journal
/// lists must have been removed before.
#[derive(Debug)]
pub struct Entry {
    id: Id,
    dir: PathBuf,
    journal: File,
    /// Locked as long as it is open. Close-on-exec, like every file Rust opens: a child that executes
    /// something does not keep its monitor's sandbox alive.
    lock: Option<File>,
    removed: bool,
}

impl Entry {
    pub(super) fn create(store: &Path, id: &Id) -> Result<Entry, Error> {
        let mut result = Err(io::ErrorKind::Interrupted.into());
        for _ in 0..ATTEMPTS {
            let unborn = Id::random().map_err(|source| Error::new("draw a name in", store, source))?;
            let unborn = store.join(format!("{UNBORN}{unborn}"));
            match prepare(&unborn) {
                Ok((lock, journal)) => return Entry::name(store, id, &unborn, lock, journal),
                // Whoever reaps may have removed the directory before its lock was held.
                Err(error) => result = Err(error),
            }
            let _ = fs::remove_dir_all(&unborn);
        }
        result.map_err(|source| Error::new("make a directory in", store, source))
    }

    /// Gives the directory its name, if nobody has that name.
    fn name(store: &Path, id: &Id, unborn: &Path, lock: File, journal: File) -> Result<Entry, Error> {
        let dir = store.join(id.as_str());
        match renameat_with(CWD, unborn, CWD, &dir, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(Entry { id: id.clone(), dir, journal, lock: Some(lock), removed: false }),
            Err(error) => {
                let _ = fs::remove_dir_all(unborn);
                Err(match error {
                    rustix::io::Errno::EXIST => Error::NameTaken(id.clone()),
                    error => Error::new("make directory", &dir, error),
                })
            }
        }
    }

    /// The sandbox's name.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// The directory: place for sockets and other files of the run. They go with it, without a
    /// journal entry; directories in it must be empty by then.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes down that `resource` is about to be made.
    ///
    /// # Errors
    /// The journal cannot be written: do not make the resource.
    pub fn record(&self, resource: &Resource) -> Result<(), Error> {
        let written = journal::line(resource).and_then(|line| (&self.journal).write_all(line.as_bytes()));
        written.map_err(|source| Error::new("write", &self.dir.join(JOURNAL), source))
    }

    /// Writes down that process `pid` belongs to the sandbox.
    ///
    /// # Errors
    /// As [`Entry::record`].
    pub fn record_process(&self, pid: i32) -> Result<(), Error> {
        let found = procfs::start_time(pid);
        match found.map_err(|source| Error::new("read the start time of a process for", &self.dir, source))? {
            Some(start_time) => self.record(&Resource::Process { pid, start_time }),
            None => Ok(()),
        }
    }

    /// Tells readers that the sandbox runs, with the address ranges of its guest's memory in the
    /// process `holder`, or in this one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn tell(&self, kind: Kind, holder: Option<i32>, guest_memory: &[Range<u64>]) -> Result<(), Error> {
        let path = self.dir.join(STATE);
        let tell = || -> io::Result<()> {
            let monitor = std::process::id() as i32;
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let state = State {
                id: self.id.clone(),
                kind,
                monitor,
                monitor_started: procfs::start_time(monitor)?.unwrap_or(0),
                holder,
                guest_memory: guest_memory.iter().map(|range| (range.start, range.end)).collect(),
                created: since_1970.as_secs(),
            };
            let unfinished = self.dir.join("state.json.new");
            fs::write(&unfinished, serde_json::to_vec(&state)?)?;
            fs::rename(&unfinished, &path)
        };
        tell().map_err(|source| Error::new("write", &path, source))
    }

    /// Lets go of the directory in a child of its monitor: what is written down there is none of its business. The
    /// lock stays, as long as what is returned lives: the sandbox is not dead before the child is.
    pub fn disown(mut self) -> Option<File> {
        self.removed = true;
        self.lock.take()
    }

    /// Removes the directory, after everything in the journal has been removed.
    ///
    /// # Errors
    /// Something in the directory cannot be removed.
    pub fn remove(mut self) -> Result<(), Error> {
        self.removed = true;
        remove_dir(&self.dir)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Once removed, the name may be somebody else's already.
        if !self.removed {
            // What cannot be removed is left to the next command.
            let _ = remove_dir(&self.dir);
        }
    }
}

fn prepare(unborn: &Path) -> io::Result<(File, File)> {
    fs::create_dir(unborn)?;
    let lock = File::options().create_new(true).write(true).open(unborn.join(LOCK))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    let journal = File::options().create_new(true).append(true).open(unborn.join(JOURNAL))?;
    (&journal).write_all(journal::header()?.as_bytes())?;
    Ok((lock, journal))
}

/// Removes a sandbox's directory whose lock the caller holds: the lock last, since a directory with
/// other files always has one. Goes one level deep and no further: nothing that was mounted or put
/// there by mistake is lost.
pub(super) fn remove_dir(dir: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|source| Error::new("list", dir, source))?,
    };
    for entry in entries.flatten().filter(|entry| entry.file_name() != LOCK) {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        absent(if is_dir { fs::remove_dir(&path) } else { fs::remove_file(&path) })
            .map_err(|source| Error::new("remove", &path, source))?;
    }
    let lock = dir.join(LOCK);
    absent(fs::remove_file(&lock)).map_err(|source| Error::new("remove", &lock, source))?;
    absent(fs::remove_dir(dir)).map_err(|source| Error::new("remove", dir, source))
}

/// Removing what is not there has succeeded.
pub(super) fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
