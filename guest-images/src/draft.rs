//! Files that appear whole or not at all, even when the power fails.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

/// Temporary names start with this. One that is older than [`STALE`] was left by a crash.
const PREFIX: &str = ".new-";
const STALE: Duration = Duration::from_secs(3600);

/// A file being written: without a name, where the file system can, so that a crash leaves nothing.
#[derive(Debug)]
pub(crate) struct Draft {
    file: File,
    dir: PathBuf,
    /// Its temporary name, where the file system knows no nameless files.
    name: Option<PathBuf>,
}

impl Draft {
    /// Makes `dir` if need be, and an empty file in it.
    pub(crate) fn new(dir: &Path) -> io::Result<Draft> {
        std::fs::create_dir_all(dir)?;
        let mode = Mode::from_raw_mode(0o644);
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let (file, name) = match rustix::fs::open(dir, flags | OFlags::TMPFILE, mode) {
            Ok(file) => (file, None),
            // EISDIR is how file systems and kernels answer that do not know the flag.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let name = dir.join(temporary()?);
                (rustix::fs::open(&name, flags | OFlags::CREATE | OFlags::EXCL, mode)?, Some(name))
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Draft { file: file.into(), dir: dir.into(), name })
    }

    /// The file, open for reading and writing.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name in the directory; a file of that name is replaced in one step.
    pub(crate) fn publish(mut self, name: &str) -> io::Result<()> {
        self.file.sync_all()?;
        let temporary = match self.name.take() {
            Some(temporary) => temporary,
            None => link(&self.file, &self.dir)?,
        };
        rename(&temporary, &self.dir, name)
    }
}

/// Gives a file that is in `dir` without a name a temporary one.
fn link(file: &File, dir: &Path) -> io::Result<PathBuf> {
    let temporary = dir.join(temporary()?);
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, nameless, CWD, &temporary, AtFlags::SYMLINK_FOLLOW)?;
    Ok(temporary)
}

fn rename(temporary: &Path, dir: &Path, name: &str) -> io::Result<()> {
    let renamed = std::fs::rename(temporary, dir.join(name));
    if renamed.is_err() {
        let _ = std::fs::remove_file(temporary);
    }
    renamed?;
    File::open(dir)?.sync_all()?;
    sweep(dir);
    Ok(())
}

/// Gives what [`nameless`] has made in `dir` a name there; a file of that name is replaced in one step.
pub(crate) fn adopt(file: &File, dir: &Path, name: &str) -> io::Result<()> {
    match link(file, dir) {
        Ok(temporary) => {
            file.sync_all()?;
            rename(&temporary, dir, name)
        }
        // Its name was removed, on a file system that knows no nameless files: it has none for good.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let draft = Draft::new(dir)?;
            let mut source = file;
            io::Seek::rewind(&mut source)?;
            io::copy(&mut source, &mut draft.file())?;
            draft.publish(name)
        }
        Err(error) => Err(error),
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = std::fs::remove_file(name);
        }
    }
}

/// Writes `contents` as `dir/name`.
pub(crate) fn write(dir: &Path, name: &str, contents: &[u8]) -> io::Result<()> {
    let draft = Draft::new(dir)?;
    io::Write::write_all(&mut draft.file(), contents)?;
    draft.publish(name)
}

/// A file without a name in `dir`, open for reading and writing.
pub(crate) fn nameless(dir: &Path) -> io::Result<File> {
    // Where the draft has a name, dropping it removes that.
    Draft::new(dir)?.file().try_clone()
}

fn temporary() -> io::Result<String> {
    let mut bytes = [0u8; 8];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{PREFIX}{:016x}", u64::from_ne_bytes(bytes)))
}

/// Removes what crashes left. Failing is no harm: the next one tries again.
fn sweep(dir: &Path) {
    let now = SystemTime::now();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let ours = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
        let written = entry.metadata().and_then(|metadata| metadata.modified()).ok();
        let age = written.and_then(|written| now.duration_since(written).ok());
        if ours && age.is_some_and(|age| age > STALE) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;

    use super::*;

    #[test]
    fn a_draft_replaces_a_file_in_one_step_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "name", b"old").unwrap();
        write(dir.path(), "name", b"new").unwrap();
        drop(Draft::new(dir.path()).unwrap());
        assert_eq!(std::fs::read(dir.path().join("name")).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_nameless_file_is_adopted_with_or_without_the_kernels_help() {
        let dir = tempfile::tempdir().unwrap();
        let file = nameless(dir.path()).unwrap();
        io::Write::write_all(&mut &file, b"whole").unwrap();
        adopt(&file, dir.path(), "name").unwrap();
        let path = dir.path().join("had-a-name");
        let unlinked = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        io::Write::write_all(&mut &unlinked, b"other").unwrap();
        adopt(&unlinked, dir.path(), "other").unwrap();
        assert_eq!(std::fs::read(dir.path().join("name")).unwrap(), b"whole");
        assert_eq!(std::fs::read(dir.path().join("other")).unwrap(), b"other");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_a_crash_left_is_removed_once_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let old = File::create(dir.path().join(".new-old")).unwrap();
        old.set_times(FileTimes::new().set_modified(SystemTime::now() - 2 * STALE)).unwrap();
        File::create(dir.path().join(".new-young")).unwrap();
        write(dir.path(), "name", b"x").unwrap();
        assert!(!dir.path().join(".new-old").exists());
        assert!(dir.path().join(".new-young").exists());
    }

    #[test]
    fn bug_19_a_link_in_the_place_of_a_file_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("soft")).unwrap();
        std::fs::hard_link(&victim, dir.path().join("hard")).unwrap();
        for name in ["soft", "hard"] {
            write(dir.path(), name, b"new").unwrap();
            let found = std::fs::symlink_metadata(dir.path().join(name)).unwrap();
            assert!(found.is_file(), "{name}");
            assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), b"new", "{name}");
        }
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }
}
