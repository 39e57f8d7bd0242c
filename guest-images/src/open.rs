//! Opens what the user named as an image.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hv_common::{Format, Root};
use rustix::fs::{FileType, FlockOperation, Mode, OFlags};

use crate::superblock::{self, Foreign, Superblock};

/// A path that does not name an image that hv starts.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be opened or read.
    #[error("cannot {doing} image {}", path.display())]
    Io {
        /// `open`, `read` or `lock`.
        doing: &'static str,
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is neither a regular file nor a directory.
    #[error("{} is {what}: give hv a raw image file or a directory", path.display())]
    Special {
        /// The image.
        path: PathBuf,
        /// With article.
        what: &'static str,
    },
    /// It has no bytes.
    #[error("image {} is empty", path.display())]
    Empty {
        /// The image.
        path: PathBuf,
    },
    /// It is another kind of file.
    #[error("{} is {what}: {mend}", path.display())]
    Foreign {
        /// The image.
        path: PathBuf,
        /// With article.
        what: &'static str,
        /// What to do with it.
        mend: &'static str,
    },
    /// It is an archive, and only an image can be used here.
    #[error(
        "{} is {what}: `hv ctr` and `hv vm` start it, here it has to be unpacked (`tar -C DIR -xf FILE`)",
        path.display()
    )]
    Archive {
        /// The file.
        path: PathBuf,
        /// With article.
        what: &'static str,
    },
    /// It is nothing that hv knows.
    #[error("{} has no ext4, EROFS or squashfs superblock and is no tar archive: give hv one of these, or a directory", path.display())]
    Unknown {
        /// The image.
        path: PathBuf,
    },
    /// The file system cannot be used.
    #[error("cannot use the {} image {}: {why}", format.name(), path.display())]
    Unusable {
        /// The image.
        path: PathBuf,
        /// Its file system.
        format: Format,
        /// What is the matter, and what to do.
        why: &'static str,
    },
    /// The file is shorter than its file system.
    #[error(
        "image {} is truncated: its {} file system has {expected} bytes, the file {actual}; copy it again",
        path.display(), format.name()
    )]
    Truncated {
        /// The image.
        path: PathBuf,
        /// Its file system.
        format: Format,
        /// Bytes that its superblock claims.
        expected: u64,
        /// Bytes that are there.
        actual: u64,
    },
    /// Writing was asked for where it cannot be.
    #[error("cannot change {} in place: {why}; leave `--rw` out", path.display())]
    NotWritable {
        /// The image.
        path: PathBuf,
        /// `it is a directory`, or its format.
        why: String,
    },
    /// Another sandbox has it open for writing, or has it open while writing was asked for.
    #[error("image {} is in use by another sandbox: {why}", path.display())]
    Busy {
        /// The image.
        path: PathBuf,
        /// Which of the two.
        why: &'static str,
    },
}

/// Opens the image at `path`: a raw disk image (recognised by its superblock) or a directory.
///
/// A symbolic link is followed, then only a regular file or a directory is opened, so nothing
/// happens to a device. Any number of sandboxes may have an image open for reading; one that is
/// opened `writable` has it to itself. The lock (flock(2)) ends with the last descriptor.
///
/// # Errors
/// [`OpenError`] says what the path names instead, and what the user can do.
pub fn open(path: &Path, writable: bool) -> Result<Root, OpenError> {
    let io = |doing| {
        move |error: rustix::io::Errno| OpenError::Io { doing, path: path.into(), source: error.into() }
    };
    // O_PATH opens nothing: no device is touched, no FIFO waits for a writer.
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(io("open"))?;
    let stat = rustix::fs::fstat(&found).map_err(io("open"))?;
    match special(FileType::from_raw_mode(stat.st_mode)) {
        Some(what) => Err(OpenError::Special { path: path.into(), what }),
        None if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            directory(path, found, writable)
        }
        None => disk(path, &found, writable),
    }
}

fn special(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile | FileType::Directory => None,
        FileType::BlockDevice => Some("a block device"),
        FileType::CharacterDevice => Some("a character device"),
        FileType::Fifo => Some("a FIFO"),
        FileType::Socket => Some("a socket"),
        _ => Some("a special file"),
    }
}

fn directory(path: &Path, dir: OwnedFd, writable: bool) -> Result<Root, OpenError> {
    if writable {
        return Err(OpenError::NotWritable { path: path.into(), why: "it is a directory".into() });
    }
    Ok(Root::Directory { path: path.into(), dir })
}

fn disk(path: &Path, found: &OwnedFd, writable: bool) -> Result<Root, OpenError> {
    let io = |doing| move |source| OpenError::Io { doing, path: path.into(), source };
    // The very inode that was looked at, whatever the name means by now.
    let same = format!("/proc/self/fd/{}", found.as_raw_fd());
    let file = OpenOptions::new().read(true).write(writable).open(same).map_err(io("open"))?;
    let length = file.metadata().map_err(io("read"))?.len();
    if length == 0 {
        return Err(OpenError::Empty { path: path.into() });
    }
    lock(path, &file, writable)?;
    let superblock = recognise(&file).map_err(io("read"))?.map_err(|foreign| name_foreign(path, foreign))?;
    check(path, &superblock, length, writable)?;
    Ok(Root::Disk { path: path.into(), file, format: superblock.format, writable })
}

fn recognise(file: &File) -> io::Result<Result<Superblock, Foreign>> {
    // Every superblock that hv starts is in the first page; only what is refused is read further.
    let start = read_start(file, 4096)?;
    match superblock::recognise(&start) {
        Err(Foreign::Known { .. } | Foreign::Archive(_) | Foreign::Unknown) => {
            Ok(superblock::recognise(&read_start(file, superblock::HEAD)?))
        }
        decided => Ok(decided),
    }
}

fn read_start(file: &File, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn name_foreign(path: &Path, foreign: Foreign) -> OpenError {
    let path = path.into();
    match foreign {
        Foreign::Known { what, mend } => OpenError::Foreign { path, what, mend },
        Foreign::Archive(what) => OpenError::Archive { path, what },
        Foreign::Unusable(format, why) => OpenError::Unusable { path, format, why },
        Foreign::Unknown => OpenError::Unknown { path },
    }
}

fn check(path: &Path, superblock: &Superblock, actual: u64, writable: bool) -> Result<(), OpenError> {
    let format = superblock.format;
    if superblock.size > actual {
        return Err(OpenError::Truncated { path: path.into(), format, expected: superblock.size, actual });
    }
    if writable && format != Format::Ext4 {
        let why = format!("{} can only be read", format.name());
        return Err(OpenError::NotWritable { path: path.into(), why });
    }
    if superblock.needs_recovery && !writable {
        // The kernel refuses to mount it from a read-only disk: it would have to replay the journal.
        let why = "it was not unmounted cleanly; run `e2fsck -fy` on it, or start it once with `--rw`";
        return Err(OpenError::Unusable { path: path.into(), format, why });
    }
    Ok(())
}

fn lock(path: &Path, file: &File, writable: bool) -> Result<(), OpenError> {
    let how = if writable {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    match rustix::fs::flock(file, how) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let why = if writable {
                "`--rw` needs it alone; wait until that one has ended"
            } else {
                "it was started with `--rw`; wait until it has ended"
            };
            Err(OpenError::Busy { path: path.into(), why })
        }
        // Some network file systems have no locks. Reading is then as safe as the user's own care.
        Err(rustix::io::Errno::NOLCK | rustix::io::Errno::NOTSUP | rustix::io::Errno::NOSYS) if !writable => {
            Ok(())
        }
        Err(error) => Err(OpenError::Io { doing: "lock", path: path.into(), source: error.into() }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn ext4(blocks: u32, length: u64) -> tempfile::NamedTempFile {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().write_all_at(&blocks.to_le_bytes(), 1024 + 4).unwrap();
        image.as_file().write_all_at(&[0x53, 0xef], 1024 + 56).unwrap();
        image.as_file().set_len(length).unwrap();
        image
    }

    #[test]
    fn a_symbolic_link_to_an_image_is_an_image() {
        let image = ext4(4, 4096);
        let dir = tempfile::tempdir().unwrap();
        symlink(image.path(), dir.path().join("link")).unwrap();
        let root = open(&dir.path().join("link"), false).unwrap();
        assert!(matches!(root, Root::Disk { format: Format::Ext4, writable: false, .. }));
        symlink(dir.path(), dir.path().join("dir")).unwrap();
        assert!(matches!(open(&dir.path().join("dir"), false), Ok(Root::Directory { .. })));
        assert!(matches!(open(dir.path(), true), Err(OpenError::NotWritable { .. })));
    }

    #[test]
    fn devices_and_fifos_are_refused_by_name_and_never_opened() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/dev/zero", dir.path().join("zero")).unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let message = |path: &Path| open(path, false).unwrap_err().to_string();
        assert!(message(&dir.path().join("zero")).contains("is a character device"));
        // A FIFO without a writer would hold an open(2) for reading up for ever.
        assert!(message(&fifo).contains("is a FIFO"));
        symlink("loop", dir.path().join("loop")).unwrap();
        assert!(matches!(open(&dir.path().join("loop"), false), Err(OpenError::Io { .. })));
    }

    #[test]
    fn empty_truncated_and_foreign_files_are_refused() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(open(empty.path(), false), Err(OpenError::Empty { .. })));
        let short = ext4(100, 4096);
        let refused = open(short.path(), false);
        assert!(
            matches!(refused, Err(OpenError::Truncated { expected: 102_400, actual: 4096, .. })),
            "{refused:?}"
        );
        let qcow2 = tempfile::NamedTempFile::new().unwrap();
        qcow2.as_file().write_all_at(b"QFI\xfb\0\0\0\x03", 0).unwrap();
        let message = open(qcow2.path(), false).unwrap_err().to_string();
        assert!(message.contains("qcow2") && message.contains("qemu-img convert -O raw"), "{message}");
    }

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        let image = ext4(4, 4096);
        let first = open(image.path(), false).unwrap();
        let second = open(image.path(), false).unwrap();
        assert!(matches!(open(image.path(), true), Err(OpenError::Busy { .. })));
        drop((first, second));
        let writer = open(image.path(), true).unwrap();
        assert!(matches!(open(image.path(), true), Err(OpenError::Busy { .. })));
        assert!(matches!(open(image.path(), false), Err(OpenError::Busy { .. })));
        drop(writer);
        open(image.path(), true).unwrap();
    }

    #[test]
    fn read_only_means_read_only() {
        let image = ext4(4, 4096);
        let Root::Disk { file, .. } = open(image.path(), false).unwrap() else { panic!("not a disk") };
        assert!(file.write_at(b"x", 0).is_err());
    }

    #[test]
    fn a_dirty_journal_is_refused_unless_writable() {
        let image = ext4(4, 4096);
        image.as_file().write_all_at(&[4], 1024 + 96).unwrap();
        let message = open(image.path(), false).unwrap_err().to_string();
        assert!(message.contains("e2fsck"), "{message}");
        open(image.path(), true).unwrap();
    }
}
