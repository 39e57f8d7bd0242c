//! The upper directory of an overlay becomes a layer: what was changed, and what is gone.
//!
//! Overlay keeps a removed name as a character device 0:0 and a replaced directory as one with the attribute
//! `trusted.overlay.opaque` (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"); a layer
//! has `.wh.NAME` and `.wh..wh..opq` (OCI image specification, "Image Layer Filesystem Changeset").

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use super::write::{Body, Writer};
use crate::erofs::Metadata;

/// The largest attribute (XATTR_SIZE_MAX of linux/limits.h).
const MAX_XATTR: usize = 64 << 10;

/// A layer cannot be made of a directory.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct ChangesError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ChangesError + 'a {
    move |source| ChangesError { operation, path: path.to_owned(), source }
}

/// Writes the layer of the overlay's directory `upper`; how many entries it has. Times later than `latest` (in seconds
/// since 1970) become that: what SOURCE_DATE_EPOCH is for. The same tree gives the same bytes: entries are sorted,
/// times are whole seconds, and of attributes those are kept that mean the same elsewhere (`user.`,
/// `security.capability`).
///
/// Nothing may change in the directory meanwhile. Symbolic links in it are not followed.
///
/// # Errors
/// Something cannot be read or written.
pub fn changes(upper: &Path, latest: Option<i64>, out: impl Write) -> Result<u64, ChangesError> {
    let mut walk = Walk { upper, latest, writer: Writer::new(out), links: HashMap::new(), entries: 0 };
    // Not recursive: a build may have made directories deeper than a stack.
    let mut pending = walk.list(Path::new(""))?;
    while let Some(path) = pending.pop() {
        if walk.one(&path)? {
            pending.extend(walk.list(&path)?);
        }
    }
    let Walk { writer, entries, .. } = walk;
    let flushed = writer.finish().and_then(|mut out| out.flush());
    flushed.map_err(failed("write the layer of", upper))?;
    Ok(entries)
}

struct Walk<'a, W> {
    upper: &'a Path,
    latest: Option<i64>,
    writer: Writer<W>,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), PathBuf>,
    entries: u64,
}

impl<W: Write> Walk<'_, W> {
    /// What is in a directory, the last name first.
    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>, ChangesError> {
        let full = self.upper.join(dir);
        let list = || -> io::Result<Vec<PathBuf>> {
            fs::read_dir(&full)?.map(|entry| Ok(dir.join(entry?.file_name()))).collect()
        };
        let mut names = list().map_err(failed("list", &full))?;
        names.sort_by(|one, other| other.as_os_str().as_bytes().cmp(one.as_os_str().as_bytes()));
        Ok(names)
    }

    /// Writes one entry; whether it is a directory.
    fn one(&mut self, path: &Path) -> Result<bool, ChangesError> {
        let full = self.upper.join(path);
        let found = fs::symlink_metadata(&full).map_err(failed("look at", &full))?;
        let kind = found.file_type();
        if kind.is_socket() {
            // Its listener is gone; tar has no word for it.
            return Ok(false);
        }
        if kind.is_char_device() && found.rdev() == 0 {
            self.whiteout(path, &found)?;
            return Ok(false);
        }
        let metadata = self.metadata(&full, &found)?;
        let name = path.as_os_str().as_bytes();
        self.entries += 1;
        if !kind.is_dir() && found.nlink() > 1 {
            if let Some(first) = self.links.get(&(found.dev(), found.ino())) {
                let first = first.as_os_str().as_bytes();
                let plain = Metadata { xattrs: Default::default(), ..metadata };
                let written = self.writer.entry(name, &plain, Body::HardLink(first));
                return written.map(|()| false).map_err(failed("write the layer of", &full));
            }
            self.links.insert((found.dev(), found.ino()), path.to_owned());
        }
        let (major, minor) = (major(found.rdev()), minor(found.rdev()));
        let target;
        let body = if kind.is_dir() {
            Body::Directory
        } else if kind.is_symlink() {
            target =
                fs::read_link(&full).map_err(failed("read the link", &full))?.into_os_string().into_vec();
            Body::Link(&target)
        } else if kind.is_char_device() {
            Body::Character(major, minor)
        } else if kind.is_block_device() {
            Body::Block(major, minor)
        } else if kind.is_fifo() {
            Body::Fifo
        } else {
            self.file(name, &metadata, &full, found.size())?;
            return Ok(false);
        };
        self.writer.entry(name, &metadata, body).map_err(failed("write the layer of", &full))?;
        if kind.is_dir() && is_opaque(&full) {
            let marker = path.join(".wh..wh..opq");
            self.marker(&marker, &metadata)?;
        }
        Ok(kind.is_dir())
    }

    fn file(&mut self, name: &[u8], metadata: &Metadata, full: &Path, size: u64) -> Result<(), ChangesError> {
        let options = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = File::options().read(true).custom_flags(options.bits() as i32).open(full);
        let file = file.map_err(failed("open", full))?;
        let written = self.writer.entry(name, metadata, Body::File(size));
        written.and_then(|()| self.writer.data(size, file)).map_err(failed("write the layer of", full))
    }

    fn whiteout(&mut self, path: &Path, found: &fs::Metadata) -> Result<(), ChangesError> {
        let mut name = b".wh.".to_vec();
        name.extend(path.file_name().unwrap_or_default().as_bytes());
        let marker = path.with_file_name(OsStr::from_bytes(&name));
        let metadata = Metadata { seconds: self.seconds(found), ..Metadata::default() };
        self.entries += 1;
        self.marker(&marker, &metadata)
    }

    fn marker(&mut self, path: &Path, like: &Metadata) -> Result<(), ChangesError> {
        let metadata = Metadata { seconds: like.seconds, ..Metadata::default() };
        let written = self.writer.entry(path.as_os_str().as_bytes(), &metadata, Body::File(0));
        written.map_err(failed("write the layer of", &self.upper.join(path)))
    }

    fn seconds(&self, found: &fs::Metadata) -> i64 {
        self.latest.map_or(found.mtime(), |latest| found.mtime().min(latest))
    }

    fn metadata(&self, full: &Path, found: &fs::Metadata) -> Result<Metadata, ChangesError> {
        let mut metadata = Metadata {
            permissions: (found.mode() & 0o7777) as u16,
            uid: found.uid(),
            gid: found.gid(),
            seconds: self.seconds(found),
            nanoseconds: 0,
            xattrs: Default::default(),
        };
        for name in xattr_names(full).map_err(failed("list the attributes of", full))? {
            if name != b"security.capability" && !name.starts_with(b"user.")
                || name.starts_with(b"user.overlay.")
            {
                continue;
            }
            let mut value = vec![0; MAX_XATTR];
            let length = rustix::fs::lgetxattr(full, &name[..], &mut value)
                .map_err(|errno| failed("read an attribute of", full)(errno.into()))?;
            value.truncate(length);
            metadata.xattrs.insert(name, value);
        }
        Ok(metadata)
    }
}

fn xattr_names(full: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut list = vec![0; MAX_XATTR];
    let length = match rustix::fs::llistxattr(full, &mut list) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    Ok(list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

fn is_opaque(full: &Path) -> bool {
    let mut value = [0; 1];
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        rustix::fs::lgetxattr(full, *name, &mut value).is_ok_and(|length| value[..length] == *b"y")
    })
}
