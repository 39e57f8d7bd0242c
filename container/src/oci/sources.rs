//! What is mounted is opened by the monitor, with the caller's rights; a tmpfs is filled with what it covers.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::step::{BundleStep, Change, Copied, Place, Source};
use super::{birth, refuse};
use crate::error::Error;
use crate::idmap::IdMap;
use crate::step::Step;
use crate::sys;

/// Opens what steps mount, with the caller's rights.
pub(super) fn open(steps: &mut [Step], root: &OwnedFd, clones: bool, propagation: &str) -> Result<(), Error> {
    let shared = propagation.ends_with("shared");
    for step in steps {
        match step {
            Step::Bundle(BundleStep::Root(source)) => {
                let kind = if propagation.is_empty() || propagation.ends_with("private") {
                    libc::MS_PRIVATE
                } else {
                    libc::MS_SLAVE
                };
                open_source(source, clones, Some(kind), "root.path")?;
            }
            Step::Bundle(BundleStep::Bind(bind)) => {
                let field = format!("mounts ({})", bind.at);
                bind.directory = is_directory(&bind.source, &field)?;
                open_source(&mut bind.source, clones, (!shared).then_some(libc::MS_SLAVE), &field)?;
                if let Some((ids, recursive)) = &bind.ids {
                    map(&bind.source, ids, *recursive, &field)?;
                }
            }
            Step::Bundle(BundleStep::New(new)) if new.filesystem.as_c_str() == c"tmpfs" => {
                take_mode(new, root);
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_directory(source: &Source, field: &str) -> Result<bool, Error> {
    let Source::Path(path, _) = source else { return Ok(true) };
    let stat = rustix::fs::stat(path.as_c_str()).map_err(|errno| Error::Field {
        field: format!("{field} with source {}", path.to_string_lossy()),
        source: errno.into(),
    })?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory)
}

fn open_source(source: &mut Source, clones: bool, kind: Option<u64>, field: &str) -> Result<(), Error> {
    let Source::Path(path, recursive) = source else { return Ok(()) };
    if !clones {
        return Ok(());
    }
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if *recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let failed = |errno: Errno| Error::Field { field: field.to_owned(), source: errno.into() };
    let tree = open_tree(CWD, path.as_c_str(), flags).map_err(failed)?;
    if let Some(propagation) = kind {
        let change = Change { propagation, ..Change::default() };
        sys::change_mount(tree.as_fd(), change, true).map_err(failed)?;
    }
    *source = Source::Tree(tree);
    Ok(())
}

/// Maps the ids of the files of a tree that is attached nowhere yet.
fn map(source: &Source, ids: &IdMap, recursive: bool, field: &str) -> Result<(), Error> {
    let Source::Tree(tree) = source else {
        return Err(refuse(field, "only root in its own user namespace maps the ids of mounts"));
    };
    let space = birth::user_namespace(ids)?;
    sys::map_ids(tree.as_fd(), space.as_fd(), recursive).map_err(|errno| match errno {
        Errno::INVAL => {
            refuse(field, "its file system maps no ids (or does so already): see mount_setattr(2)")
        }
        errno => Error::Field { field: field.to_owned(), source: errno.into() },
    })
}

/// A tmpfs over a directory that is there has that directory's mode, if no other is asked for.
fn take_mode(new: &mut super::step::New, root: &OwnedFd) {
    if new.options.iter().any(|(key, _)| key.as_c_str() == c"mode") {
        return;
    }
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found =
        rustix::fs::openat2(root, new.at.path.as_c_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how);
    if let Ok(stat) = found.and_then(rustix::fs::fstat)
        && let Ok(mode) = CString::new(format!("{:o}", stat.st_mode & 0o7777))
    {
        new.options.push((c"mode".to_owned(), mode));
    }
}

/// The most files that a tmpfs is filled with.
const MOST: usize = 100_000;

/// What lies at a place of the root file system, for a tmpfs that is mounted over it.
pub(super) fn contents(root: &Path, at: &Place) -> Vec<Copied> {
    let mut found = Vec::new();
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .and_then(|root| rustix::fs::openat2(&root, at.path.as_c_str(), flags, Mode::empty(), how));
    if let Ok(dir) = dir {
        list(&dir, &PathBuf::new(), &mut found);
    }
    found
}

fn list(dir: &OwnedFd, path: &Path, found: &mut Vec<Copied>) {
    use rustix::fs::{AtFlags, FileType, openat, readlinkat, statat};
    let Ok(entries) = rustix::fs::Dir::read_from(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if [c".", c".."].contains(&name) || found.len() >= MOST {
            continue;
        }
        let Ok(stat) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let below = path.join(std::ffi::OsStr::new(name.to_string_lossy().as_ref()));
        let Ok(text) = CString::new(below.as_os_str().as_encoded_bytes()) else { continue };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let target = match kind {
            FileType::Symlink => readlinkat(dir, name, Vec::new()).ok(),
            FileType::Directory | FileType::RegularFile => None,
            // Sockets, pipes and devices are not copied.
            _ => continue,
        };
        found.push(Copied { path: text, mode: stat.st_mode, owner: (stat.st_uid, stat.st_gid), target });
        if kind == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Ok(inner) = openat(dir, name, flags, Mode::empty()) {
                list(&inner, &below, found);
            }
        }
    }
}
