//! Holding all processes of a sandbox: the freezer, of v2 (Linux 5.2) or v1.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Cgroup, Controller, Dir, Error, files};

/// How long processes may take to stop: one in the middle of a disk's answer finishes that first.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often to look in v1, which tells nobody.
const LOOK: Duration = Duration::from_millis(1);

impl Cgroup {
    /// Holds every process in it, and those that they would make. None runs when this returns.
    ///
    /// # Errors
    /// There is no freezer, or a process does not stop; then all go on.
    pub fn freeze(&self) -> Result<(), Error> {
        let freezer = self.freezer()?;
        let frozen = freezer.set(true).and_then(|()| freezer.await_frozen());
        if frozen.is_err() {
            let _ = freezer.set(false);
        }
        frozen
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// There is no freezer, or it refuses.
    pub fn thaw(&self) -> Result<(), Error> {
        self.freezer()?.set(false)
    }

    fn freezer(&self) -> Result<Freezer<'_>, Error> {
        let unified = |dir: &&Dir| dir.unified && dir.path.join("cgroup.freeze").exists();
        if let Some(dir) = self.dirs.iter().find(unified) {
            return Ok(Freezer::V2(&dir.path));
        }
        self.dir(Controller::Freezer).map(|dir| Freezer::V1(&dir.path)).ok_or(Error::NoFreezer)
    }
}

/// A directory with a freezer.
enum Freezer<'a> {
    V2(&'a Path),
    V1(&'a Path),
}

impl Freezer<'_> {
    fn set(&self, frozen: bool) -> Result<(), Error> {
        match self {
            Freezer::V2(dir) => files::write(&dir.join("cgroup.freeze"), if frozen { "1" } else { "0" }),
            Freezer::V1(dir) => {
                files::write(&dir.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })
            }
        }
    }

    fn await_frozen(&self) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        match self {
            Freezer::V2(dir) => await_event(&dir.join("cgroup.events"), deadline),
            Freezer::V1(dir) => {
                let state = dir.join("freezer.state");
                while files::read(&state)?.trim() != "FROZEN" {
                    if Instant::now() >= deadline {
                        return Err(Error::NotFrozen(dir.to_path_buf()));
                    }
                    std::thread::sleep(LOOK);
                }
                Ok(())
            }
        }
    }
}

/// Waits until the events file says `frozen 1`. The kernel tells its readers of each change.
fn await_event(path: &Path, deadline: Instant) -> Result<(), Error> {
    let failed = |source| Error::new("read", path, source);
    let mut events = File::open(path).map_err(failed)?;
    loop {
        let mut text = String::new();
        events.rewind().and_then(|()| events.read_to_string(&mut text)).map_err(failed)?;
        if files::keyed(&text, "frozen") == Some(1) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::NotFrozen(path.to_owned()));
        }
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        // Interrupted or not: it is read again.
        let _ = poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout));
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::spec::{Id, Limits};

    #[test]
    fn holds_and_lets_go() {
        // None where this process may not make cgroups: then this runs in the testbed, as root.
        let made = Cgroup::create(&Id::random().unwrap(), &Limits::default());
        let Some(cgroup) = made.ok().flatten() else { return };
        let mut busy =
            Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap();
        let pid = busy.id() as i32;
        cgroup.add(pid).unwrap();
        let ticks = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            (fields[11].to_owned(), fields[12].to_owned())
        };
        for _ in 0..2 {
            cgroup.freeze().unwrap();
            let held = ticks();
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(ticks(), held, "it runs");
            cgroup.thaw().unwrap();
            let begun = Instant::now();
            while ticks() == held {
                assert!(begun.elapsed() < Duration::from_secs(20), "it stands still");
                std::thread::yield_now();
            }
        }
        cgroup.freeze().unwrap();
        cgroup.remove().unwrap();
        assert!(!busy.wait().unwrap().success());
    }
}
