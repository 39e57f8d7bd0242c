//! What is running on this host and how to clean up after it. There is no daemon: each sandbox has a
//! directory below the runtime directory, and whoever comes next cleans up after the dead.
//!
//! - [`Store`]: the runtime directory; finds, lists and reaps sandboxes;
//! - [`Entry`]: one sandbox's directory, held by its monitor: a lock for its life, a [`journal`] of
//!   what the start makes, written before it is made, and `state.json` for readers.
//!
//! A sandbox is alive as long as somebody holds its lock (flock(2)): the kernel releases it however
//! the monitor ends. A directory appears under its name only when its lock is held already.

mod entry;
pub mod journal;
mod reap;
mod runtime_dir;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use entry::Entry;
pub use journal::Resource;
pub use reap::Reaped;

use crate::kind::Kind;
use crate::spec::Id;

const LOCK: &str = "lock";
const JOURNAL: &str = "journal";
const STATE: &str = "state.json";
/// Directories that are just being made begin with this: no sandbox's name begins with a full stop.
const UNBORN: &str = ".new-";

/// One running sandbox, as `state.json` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its name.
    pub id: Id,
    /// Its kind.
    pub kind: Kind,
    /// Process id of its monitor.
    pub monitor: i32,
    /// Start time of the monitor, in clock ticks since the host started.
    pub monitor_started: u64,
    /// The process that holds the guest's memory, where it is not the monitor itself but its child.
    #[serde(default)]
    pub holder: Option<i32>,
    /// Address ranges of guest memory there, as first and one-past-last address.
    pub guest_memory: Vec<(u64, u64)>,
    /// When it was created, in seconds since 1970.
    pub created: u64,
}

/// What went wrong with the state on disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {operation} {path}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Somebody else could change what is in the runtime directory.
    #[error("will not use {path} as runtime directory: {why}; remove it, or set XDG_RUNTIME_DIR")]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The name is taken.
    #[error("a sandbox named `{0}` is running; choose another --name")]
    NameTaken(Id),
}

impl Error {
    fn new(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
        Error::File { operation, path: path.to_owned(), source: source.into() }
    }
}

/// The runtime directory.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The runtime directory of the calling user: `/run/hv` for root, else `hv` in XDG_RUNTIME_DIR, else
    /// `/tmp/hv-UID`. Made if it is not there; refused if somebody else could write to it.
    ///
    /// # Errors
    /// It cannot be made, or is not safe to use.
    pub fn open() -> Result<Store, Error> {
        Store::open_at(&runtime_dir::of_this_user())
    }

    /// The runtime directory `dir`, with the same checks.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_at(dir: &Path) -> Result<Store, Error> {
        runtime_dir::make_and_check(dir)?;
        Ok(Store { dir: dir.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Makes the directory of a new sandbox and takes its lock.
    ///
    /// # Errors
    /// The name is taken, or the directory cannot be made.
    pub fn create(&self, id: &Id) -> Result<Entry, Error> {
        Entry::create(&self.dir, id)
    }

    /// The sandboxes that tell their state, in the order of their names.
    ///
    /// # Errors
    /// The runtime directory cannot be read.
    pub fn list(&self) -> Result<Vec<State>, Error> {
        let mut states: Vec<State> =
            self.names()?.into_iter().filter_map(|name| read_state(&self.dir.join(name)).ok()).collect();
        states.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(states)
    }

    /// What sandbox `id` tells; None if there is none, or it is not running yet.
    pub fn state(&self, id: &Id) -> Option<State> {
        read_state(&self.dir.join(id.as_str())).ok()
    }

    fn names(&self) -> Result<Vec<String>, Error> {
        let entries = std::fs::read_dir(&self.dir).map_err(|source| Error::new("list", &self.dir, source))?;
        let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        Ok(directories.filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }
}

fn read_state(dir: &Path) -> io::Result<State> {
    let text = std::fs::read(dir.join(STATE))?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_at(&dir.path().join("hv")).unwrap();
        (dir, store)
    }

    fn id(name: &str) -> Id {
        Id::try_from(name.to_string()).unwrap()
    }

    #[test]
    fn names_are_unique_while_alive() {
        let (_guard, store) = store();
        let first = store.create(&id("web")).unwrap();
        assert!(matches!(store.create(&id("web")), Err(Error::NameTaken(_))));
        first.remove().unwrap();
        store.create(&id("web")).unwrap();
    }

    #[test]
    fn state_is_told_and_forgotten() {
        let (_guard, store) = store();
        let entry = store.create(&id("a")).unwrap();
        assert_eq!(store.state(&id("a")), None, "not running yet");
        let range = 0x1000..0x3000;
        entry.tell(Kind::Vm, None, std::slice::from_ref(&range)).unwrap();
        let state = store.state(&id("a")).unwrap();
        assert_eq!(state.monitor, std::process::id() as i32);
        assert_eq!(state.guest_memory, [(0x1000, 0x3000)]);
        assert_eq!(store.list().unwrap(), [state]);
        drop(entry);
        assert_eq!(store.list().unwrap(), []);
        assert_eq!(std::fs::read_dir(store.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_living_are_not_reaped() {
        let (_guard, store) = store();
        let entry = store.create(&id("a")).unwrap();
        assert!(store.reap().unwrap().is_empty());
        assert!(entry.dir().exists());
    }

    #[test]
    fn many_starts_and_reaps_at_once() {
        let (_guard, store) = store();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let store = &store;
                scope.spawn(move || {
                    for number in 0..50 {
                        let entry = store.create(&id(&format!("s{thread}-{number}"))).unwrap();
                        for reaped in store.reap().unwrap() {
                            assert!(reaped.problem.is_none(), "{reaped:?}");
                        }
                        assert!(entry.dir().join(LOCK).exists(), "reaped while alive");
                        entry.remove().unwrap();
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(store.path()).unwrap().count(), 0);
    }
}
