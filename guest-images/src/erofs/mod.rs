//! Packs a file tree into one read-only EROFS image.
//!
//! The same image is what a container mounts and what a microVM has as its disk. Nothing in it is
//! compressed: the kernel reads file data from the page cache of the image, and sandboxes share it.
//!
//! # Layout of an image
//! Block 0 has the superblock. Whole blocks of file data follow, in the order in which they were stored;
//! then inodes, each with its extended attributes and what of its data does not fill a block; then the
//! blocks of large directories.
//!
//! # Layout of the code
//! [`tree`]: files without data; [`data`]: their data; `layout` decides where inodes go, `write` writes
//! them, `disk` has the format's structures. `walk` fills a tree from a directory; nothing else knows
//! about directories. A merge of layers fills one just as well ([`crate::layer`]).

pub mod data;
mod disk;
mod layout;
mod sparse;
pub mod tree;
mod walk;
mod write;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use hv_common::{Format, Root};

pub use data::{Data, DataArea};
pub(crate) use sparse::chunked_bytes;
pub use tree::{BadEntry, Kind, MAX_NAME, Metadata, Node, NodeId, Tree};

/// Changes whenever equal trees would become other bytes than before, so that images which an older hv has made
/// are not taken for this one's.
pub const WRITER: u32 = 2;

/// An image cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A source of data failed.
    #[error("cannot read its data")]
    Source(#[source] io::Error),
    /// A source of data ended early.
    #[error("it became shorter while it was read: stop what writes to it, and try again")]
    Shorter,
    /// Extended attributes are too large for the format.
    #[error("its extended attributes are larger than EROFS can hold (64 KiB one, 256 KiB all of a file)")]
    Attributes,
    /// A tree cannot have a name.
    #[error("a name cannot be in the image")]
    Tree(#[source] BadEntry),
    /// There are more blocks than the format has numbers for.
    #[error("the image would be larger than 16 TiB")]
    TooLarge,
    /// The image's file cannot be written.
    #[error("cannot write the image")]
    Image(#[from] io::Error),
}

/// A directory cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file in it cannot be looked at.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// `open`, `list` or `read the attributes of`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file in it is somebody else's, and may not be read.
    #[error("cannot read {}: it is not yours; run hv as root, or give it an image file", path.display())]
    Denied {
        /// The file.
        path: PathBuf,
    },
    /// A file in it was replaced by another while it was looked at.
    #[error("{} changed while it was packed: stop what writes to it, and try again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A file in it cannot be put into an image.
    #[error("cannot pack {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: WriteError,
    },
    /// A name in it cannot be put into an image.
    #[error("cannot pack {}", path.display())]
    Name {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: BadEntry,
    },
    /// The image cannot be written.
    #[error("cannot write an image of {} in {}", path.display(), scratch.display())]
    Image {
        /// The directory.
        path: PathBuf,
        /// Where the image's nameless file is.
        scratch: PathBuf,
        /// Why.
        source: WriteError,
    },
}

/// Packs a directory into a read-only image in a nameless file in `scratch` (made if need be); the file
/// is gone with its last descriptor. A disk image is passed on as it is.
///
/// Owners, permissions, times, extended attributes, hard links, devices and holes are kept. What is
/// mounted below the directory is not followed: an empty directory or file is in its place. Symbolic
/// links are never followed, and nothing outside of the directory is opened.
///
/// # Errors
/// [`PackError`] names the file that cannot be packed.
pub fn pack(root: &Root, scratch: &Path) -> Result<Root, PackError> {
    let (path, dir) = match root {
        Root::Directory { path, dir } => (path, dir),
        Root::Disk { path, file, format, writable } => {
            let copy = file.try_clone();
            let file = copy.map_err(|source| PackError::Io { doing: "open", path: path.clone(), source })?;
            return Ok(Root::Disk { path: path.clone(), file, format: *format, writable: *writable });
        }
    };
    let failed = |source| PackError::Image { path: path.clone(), scratch: scratch.into(), source };
    let mut area = DataArea::new(scratch).map_err(failed)?;
    let tree = walk::walk(dir, path, &mut area)?;
    let written = area.complete(&tree).map_err(failed)?;
    // A descriptor that cannot write: read-only is enforced outside of the sandbox.
    let file = File::open(format!("/proc/self/fd/{}", written.as_raw_fd()));
    let file = file.map_err(|source| failed(source.into()))?;
    Ok(Root::Disk { path: path.clone(), file, format: Format::Erofs, writable: false })
}

#[cfg(test)]
pub(crate) mod tests;
