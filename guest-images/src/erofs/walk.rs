//! Fills a tree from a directory on the host, which may be changed meanwhile by somebody hostile.
//!
//! Every file is first opened with `O_PATH`, below the directory that was opened before it, without
//! following links or crossing mounts; what that descriptor is, is what is packed. Only regular files
//! and directories are then opened for reading, through that descriptor.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat};
use rustix::io::Errno;

use super::data::{Data, DataArea};
use super::disk;
use super::tree::{Kind, Metadata, Node, NodeId, Tree};
use super::{PackError, WriteError};

/// The largest list of extended attributes, and the largest value: the kernel's own limits.
const MAX_XATTR: usize = 64 << 10;

/// A directory that is being read.
struct Level {
    node: NodeId,
    identity: Identity,
    /// What is still to do, last name first.
    names: Vec<OsString>,
}

/// What tells one file from another, however many names it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(stat: &Stat) -> Identity {
        Identity { device: stat.st_dev, inode: stat.st_ino }
    }
}

struct Walker<'a> {
    area: &'a mut DataArea,
    tree: Tree,
    /// Where we are; only for messages.
    path: PathBuf,
    /// Files with more than one name.
    linked: HashMap<Identity, NodeId>,
}

/// Packs what is in `dir`; `path` is its name in messages.
pub(super) fn walk(dir: &OwnedFd, path: &Path, area: &mut DataArea) -> Result<Tree, PackError> {
    let io = |doing| move |error: Errno| PackError::Io { doing, path: path.into(), source: error.into() };
    let stat = rustix::fs::fstat(dir).map_err(io("open"))?;
    let metadata = metadata(dir.as_fd(), &stat).map_err(io("read the attributes of"))?;
    let mut walker = Walker { area, tree: Tree::new(metadata), path: path.into(), linked: HashMap::new() };
    let mut here = rustix::fs::openat(dir, ".", READ_DIRECTORY, Mode::empty()).map_err(io("open"))?;
    let names = walker.list(&here)?;
    let mut above = vec![Level { node: Tree::ROOT, identity: Identity::of(&stat), names }];
    while let Some(level) = above.last_mut() {
        let Some(name) = level.names.pop() else {
            above.pop();
            if let Some(level) = above.last() {
                here = walker.leave(&here, level.identity)?;
            }
            continue;
        };
        let node = level.node;
        walker.path.push(&name);
        match walker.add(&here, node, &name)? {
            Some((below, level)) => {
                here = below;
                above.push(level);
            }
            None => {
                walker.path.pop();
            }
        }
    }
    Ok(walker.tree)
}

const READ_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Walker<'_> {
    fn io(&self, doing: &'static str) -> impl Fn(Errno) -> PackError {
        move |error| match error {
            Errno::ACCESS => PackError::Denied { path: self.path.clone() },
            error => PackError::Io { doing, path: self.path.clone(), source: error.into() },
        }
    }

    fn failed(&self, source: WriteError) -> PackError {
        PackError::File { path: self.path.clone(), source }
    }

    /// Names in a directory, last first.
    fn list(&self, dir: &OwnedFd) -> Result<Vec<OsString>, PackError> {
        let mut names = Vec::new();
        for entry in Dir::read_from(dir).map_err(self.io("list"))? {
            let name = entry.map_err(self.io("list"))?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    /// Adds one name; a directory that is to be read next is returned.
    fn add(
        &mut self,
        here: &OwnedFd,
        into: NodeId,
        name: &OsStr,
    ) -> Result<Option<(OwnedFd, Level)>, PackError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        let file = match rustix::fs::openat2(here, name, flags, Mode::empty(), resolve) {
            Ok(file) => file,
            Err(Errno::XDEV) => return self.add_mount_point(here, into, name).map(|()| None),
            // Removed since it was listed.
            Err(Errno::NOENT) => return Err(PackError::Changed { path: self.path.clone() }),
            Err(error) => return Err(self.io("open")(error)),
        };
        let stat = rustix::fs::fstat(&file).map_err(self.io("open"))?;
        if let Some(node) = self.linked.get(&Identity::of(&stat)) {
            let named = self.tree.link(into, name.as_bytes(), *node);
            return named
                .map(|()| None)
                .map_err(|source| PackError::Name { path: self.path.clone(), source });
        }
        let metadata = metadata(file.as_fd(), &stat).map_err(self.io("read the attributes of"))?;
        if !metadata.fits() {
            return Err(self.failed(WriteError::Attributes));
        }
        let kind = self.kind(&file, &stat, metadata.room())?;
        let directory = matches!(kind, Kind::Directory(_));
        let node = self.name(into, name, Node { metadata, kind })?;
        if directory {
            let dir =
                rustix::fs::openat(&file, ".", READ_DIRECTORY, Mode::empty()).map_err(self.io("open"))?;
            let names = self.list(&dir)?;
            return Ok(Some((dir, Level { node, identity: Identity::of(&stat), names })));
        }
        if stat.st_nlink > 1 {
            self.linked.insert(Identity::of(&stat), node);
        }
        Ok(None)
    }

    fn name(&mut self, into: NodeId, name: &OsStr, node: Node) -> Result<NodeId, PackError> {
        let path = &self.path;
        self.tree
            .add(into, name.as_bytes(), node)
            .map_err(|source| PackError::Name { path: path.clone(), source })
    }

    fn kind(&mut self, file: &OwnedFd, stat: &Stat, room: usize) -> Result<Kind, PackError> {
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory(BTreeMap::new()),
            FileType::RegularFile => Kind::File(self.contents(file, stat, room)?),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(file, "", Vec::new()).map_err(self.io("read"))?;
                let target = target.as_bytes();
                let stored = self.area.store(&mut &target[..], target.len() as u64, room);
                Kind::Link(stored.map_err(|source| self.failed(source))?)
            }
            FileType::CharacterDevice => Kind::Character { major, minor },
            FileType::BlockDevice => Kind::Block { major, minor },
            FileType::Fifo => Kind::Fifo,
            _ => Kind::Socket,
        })
    }

    fn contents(&mut self, file: &OwnedFd, stat: &Stat, room: usize) -> Result<Data, PackError> {
        let size = stat.st_size.unsigned_abs();
        if size == 0 {
            let nothing = self.area.store(&mut std::io::empty(), 0, room);
            return nothing.map_err(|source| self.failed(source));
        }
        let mut file = self.open_to_read(file)?;
        let stored = match has_holes(&file, stat) {
            true => self.area.store_sparse(&file, size),
            false => self.area.store(&mut file, size, room),
        };
        stored.map_err(|source| self.failed(source))
    }

    /// Opens the very file that `found` is, if possible without changing when it was last read.
    fn open_to_read(&self, found: &OwnedFd) -> Result<File, PackError> {
        let same = format!("/proc/self/fd/{}", found.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        let quiet = rustix::fs::openat(CWD, &same, flags | OFlags::NOATIME, Mode::empty());
        let opened = match quiet {
            // Only the owner may.
            Err(Errno::PERM) => rustix::fs::openat(CWD, &same, flags, Mode::empty()),
            other => other,
        };
        opened.map(File::from).map_err(self.io("open"))
    }

    /// What is mounted stays out: an empty directory or file stands in its place.
    fn add_mount_point(&mut self, here: &OwnedFd, into: NodeId, name: &OsStr) -> Result<(), PackError> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = rustix::fs::statat(here, name, flags).map_err(self.io("open"))?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory(BTreeMap::new()),
            _ => {
                let nothing = self.area.store(&mut std::io::empty(), 0, 0);
                Kind::File(nothing.map_err(|source| self.failed(source))?)
            }
        };
        self.name(into, name, Node { metadata: owner_and_times(&stat), kind }).map(|_| ())
    }

    /// Goes back up. The directory above is not kept open, so that depth costs no descriptors; it has to
    /// be the one that we came from.
    fn leave(&mut self, here: &OwnedFd, expected: Identity) -> Result<OwnedFd, PackError> {
        self.path.pop();
        let above = rustix::fs::openat(here, "..", READ_DIRECTORY, Mode::empty()).map_err(self.io("open"))?;
        let stat = rustix::fs::fstat(&above).map_err(self.io("open"))?;
        if Identity::of(&stat) == expected {
            Ok(above)
        } else {
            Err(PackError::Changed { path: self.path.clone() })
        }
    }
}

/// Whether a whole block of the file is a hole. Fewer blocks than bytes alone may be compression.
fn has_holes(file: &File, stat: &Stat) -> bool {
    let size = stat.st_size.unsigned_abs();
    let smaller = stat.st_blocks.unsigned_abs() * 512 + (disk::BLOCK as u64) <= size;
    if !smaller {
        return false;
    }
    let hole = rustix::fs::seek(file, SeekFrom::Hole(0)).is_ok_and(|hole| hole < size);
    // It is to be read from its start.
    rustix::fs::seek(file, SeekFrom::Start(0)).is_ok() && hole
}

fn owner_and_times(stat: &Stat) -> Metadata {
    Metadata {
        permissions: (stat.st_mode & 0o7777) as u16,
        uid: stat.st_uid,
        gid: stat.st_gid,
        seconds: stat.st_mtime,
        nanoseconds: stat.st_mtime_nsec as u32,
        xattrs: BTreeMap::new(),
    }
}

fn metadata(file: BorrowedFd<'_>, stat: &Stat) -> Result<Metadata, Errno> {
    Ok(Metadata { xattrs: xattrs(file)?, ..owner_and_times(stat) })
}

/// Extended attributes that EROFS can hold, of whatever kind of file `file` was opened by `O_PATH`.
fn xattrs(file: BorrowedFd<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    // The system calls for descriptors refuse O_PATH; the name leads to the file itself, also if that is a
    // symbolic link.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut all = BTreeMap::new();
    let mut list = vec![0; 256];
    let length = loop {
        match rustix::fs::listxattr(&path, &mut list[..]) {
            Ok(length) => break length,
            Err(Errno::RANGE) if list.len() < MAX_XATTR => list.resize(MAX_XATTR, 0),
            Err(Errno::NOTSUP) => return Ok(all),
            Err(error) => return Err(error),
        }
    };
    for name in list[..length].split(|byte| *byte == 0) {
        if disk::xattr_prefix(name).is_some()
            && let Some(value) = xattr(&path, name)?
        {
            all.insert(name.to_vec(), value);
        }
    }
    Ok(all)
}

/// None: removed since it was listed, or listed without having a value.
fn xattr(path: &str, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = vec![0; 256];
    loop {
        match rustix::fs::getxattr(path, OsStr::from_bytes(name), &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) if value.len() < MAX_XATTR => value.resize(MAX_XATTR, 0),
            Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}
