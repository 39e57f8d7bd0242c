//! COPY and ADD. Sources are opened below their directory and targets in the root, by openat2(2): no symbolic link
//! leads out of either, whoever made it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hv_image::dockerfile::{Glob, Ignore, glob, ignore};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// The deepest tree that is copied.
const MAX_DEPTH: usize = 200;

/// Where files come from.
pub(crate) struct Source<'a> {
    pub(crate) root: OwnedFd,
    pub(crate) ignore: &'a Ignore,
    pub(crate) exclude: Vec<Glob>,
    /// Links that lead out lead to the root instead, as in a container; else they are refused.
    pub(crate) in_root: bool,
}

/// What the copies are given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    /// None: as the source has it.
    pub(crate) ids: Option<(u32, u32)>,
    pub(crate) mode: Option<u32>,
}

fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags, resolve: ResolveFlags) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

/// The names in a directory, sorted.
fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

impl Source<'_> {
    fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        open(
            self.root.as_fd(),
            path,
            flags,
            if self.in_root { ResolveFlags::IN_ROOT } else { ResolveFlags::BENEATH },
        )
    }

    fn leaves_out(&self, path: &Path) -> bool {
        let path = path.as_os_str().as_bytes();
        self.ignore.leaves_out(path) || self.exclude.iter().any(|glob| glob.matches(path))
    }

    /// The files that `pattern` means, sorted.
    pub(crate) fn find(&self, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let clean = ignore::clean(pattern);
        if !glob::is_pattern(&clean) {
            let path = PathBuf::from(&clean);
            if !clean.is_empty() && self.leaves_out(&path) && !self.ignore.has_exceptions() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the .dockerignore leaves it out"));
            }
            return self.open(&path, OFlags::PATH).map(|_| vec![path]);
        }
        let wrong = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        let glob = Glob::path(&clean).map_err(wrong)?;
        let mut found = Vec::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(dir) = pending.pop() {
            let opened = self.open(&dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
            for name in names(opened.as_fd())? {
                let path = dir.join(&name);
                if self.leaves_out(&path) {
                    continue;
                }
                let stat = rustix::fs::statat(&opened, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                if glob.matches(path.as_os_str().as_bytes()) {
                    found.push(path);
                } else if is(&stat, FileType::Directory) && path.components().count() < MAX_DEPTH {
                    pending.push(path);
                }
            }
        }
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no file fits the pattern"));
        }
        found.sort();
        Ok(found)
    }

    /// Adds all that a copy depends on: names, kinds, permissions, contents; not times.
    pub(crate) fn hash(&self, path: &Path, hash: &mut Sha256, depth: usize) -> io::Result<()> {
        let flags = if depth == 0 { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        let found = self.open(path, flags)?;
        let stat = rustix::fs::fstat(&found)?;
        hash.update(path.as_os_str().as_bytes());
        hash.update(format!("\0{:o} {}\0", stat.st_mode, stat.st_size));
        if is(&stat, FileType::Directory) {
            deep(depth)?;
            let dir = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            for name in names(dir.as_fd())? {
                let below = path.join(name);
                if !self.leaves_out(&below) || self.ignore.has_exceptions() {
                    self.hash(&below, hash, depth + 1)?;
                }
            }
        } else if is(&stat, FileType::Symlink) {
            hash.update(rustix::fs::readlinkat(&found, c"", Vec::new())?.to_bytes());
        } else if is(&stat, FileType::RegularFile) {
            let mut file = File::from(self.open(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
            io::copy(&mut file, &mut Feed(hash))?;
        }
        hash.update(b"\n");
        Ok(())
    }

    /// Whether it is a directory, links followed.
    pub(crate) fn is_directory(&self, path: &Path) -> io::Result<bool> {
        Ok(is(&rustix::fs::fstat(self.open(path, OFlags::PATH)?)?, FileType::Directory))
    }

    /// The file, to be read.
    pub(crate) fn file(&self, path: &Path) -> io::Result<File> {
        self.open(path, OFlags::RDONLY | OFlags::NONBLOCK).map(File::from)
    }

    /// Copies the file, or what is in the directory.
    pub(crate) fn copy(
        &self,
        path: &Path,
        into: BorrowedFd<'_>,
        name: &OsStr,
        owner: Owner,
    ) -> io::Result<()> {
        if self.is_directory(path)? {
            self.contents(path, into, owner, 0)
        } else {
            self.regular(path, into, name, owner)
        }
    }

    fn contents(&self, path: &Path, into: BorrowedFd<'_>, owner: Owner, depth: usize) -> io::Result<()> {
        deep(depth)?;
        let dir = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        for name in names(dir.as_fd())? {
            let below = path.join(&name);
            let stat = rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let directory = is(&stat, FileType::Directory);
            if self.leaves_out(&below) && !(directory && self.ignore.has_exceptions()) {
                continue;
            }
            if directory {
                match rustix::fs::mkdirat(into, &name, Mode::from_raw_mode(0o755)) {
                    Err(Errno::EXIST) => {}
                    other => other?,
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                let made = open(into, Path::new(&name), flags, ResolveFlags::BENEATH)?;
                self.contents(&below, made.as_fd(), owner, depth + 1)?;
                finish(made.as_fd(), &stat, owner)?;
            } else if is(&stat, FileType::Symlink) {
                let target = rustix::fs::readlinkat(&dir, &name, Vec::new())?;
                remove(into, &name)?;
                rustix::fs::symlinkat(&target, into, &name)?;
                let (uid, gid) = owner.ids.unwrap_or((stat.st_uid, stat.st_gid));
                let ids = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                rustix::fs::chownat(into, &name, ids.0, ids.1, AtFlags::SYMLINK_NOFOLLOW)?;
                rustix::fs::utimensat(into, &name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?;
            } else {
                self.regular(&below, into, &name, owner)?;
            }
        }
        Ok(())
    }

    fn regular(&self, path: &Path, into: BorrowedFd<'_>, name: &OsStr, owner: Owner) -> io::Result<()> {
        let mut from = self.file(path)?;
        let stat = rustix::fs::fstat(&from)?;
        if !is(&stat, FileType::RegularFile) {
            let why = format!("{} is neither a file, a directory nor a link", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let mut to = create(into, name)?;
        io::copy(&mut from, &mut to)?;
        finish(to.as_fd(), &stat, owner)
    }
}

/// Writes a file whose contents stand in the Dockerfile.
pub(crate) fn write(
    text: &str,
    into: BorrowedFd<'_>,
    name: &OsStr,
    owner: Owner,
    time: i64,
) -> io::Result<()> {
    let mut file = create(into, name)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    let mut stat = rustix::fs::fstat(&file)?;
    (stat.st_mode, stat.st_mtime, stat.st_mtime_nsec) = (0o100_644, time, 0);
    finish(file.as_fd(), &stat, owner)
}

fn create(into: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    remove(into, name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(into, name, flags, Mode::from_raw_mode(0o600))?.into())
}

fn remove(into: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(into, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}

fn finish(made: BorrowedFd<'_>, like: &Stat, owner: Owner) -> io::Result<()> {
    let (uid, gid) = owner.ids.unwrap_or((like.st_uid, like.st_gid));
    rustix::fs::fchown(made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    // After the owner: a change of that takes set-user-id away.
    rustix::fs::fchmod(made, Mode::from_raw_mode(owner.mode.unwrap_or(like.st_mode & 0o7777)))?;
    Ok(rustix::fs::futimens(made, &times(like))?)
}

fn deep(depth: usize) -> io::Result<()> {
    if depth < MAX_DEPTH { Ok(()) } else { Err(io::Error::other("its directories are more than 200 deep")) }
}

/// The directory `path` of a root, made where it is missing.
pub(crate) fn directory(root: BorrowedFd<'_>, path: &str, owner: Owner) -> io::Result<OwnedFd> {
    let mut so_far = PathBuf::new();
    let mut opened = open(root, &so_far, OFlags::RDONLY | OFlags::DIRECTORY, ResolveFlags::IN_ROOT)?;
    for part in ignore::clean(path).split('/').filter(|part| !part.is_empty()) {
        so_far.push(part);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        opened = match open(root, &so_far, flags, ResolveFlags::IN_ROOT) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                rustix::fs::mkdirat(&opened, part, Mode::from_raw_mode(0o755))?;
                let made = open(root, &so_far, flags, ResolveFlags::IN_ROOT)?;
                let (uid, gid) = owner.ids.unwrap_or((0, 0));
                rustix::fs::fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
                made
            }
            other => other?,
        };
    }
    Ok(opened)
}

/// Whether `path` of a root is a directory.
pub(crate) fn has_directory(root: BorrowedFd<'_>, path: &str) -> bool {
    open(root, Path::new(&ignore::clean(path)), OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::IN_ROOT)
        .is_ok()
}

struct Feed<'a>(&'a mut Sha256);

impl io::Write for Feed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
