//! Remembers what was found out about a kernel file, so that the next start reads two small records
//! instead of tens of megabytes.
//!
//! In the directory: `DIGEST.elf`, the unpacked kernel; `DIGEST.config`, its configuration; `DIGEST.json`,
//! a [`Record`]; and `at-DEV-INODE.json`, an [`Entry`] that leads from a file to its digest as long as
//! nothing about the file has changed. Everything can be deleted at any time.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::draft;

/// Records that another version of hv wrote are not read.
const VERSION: u32 = 1;

/// What changes when a file is written to or replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of an open file.
    pub(crate) fn of(file: &File) -> io::Result<Stamp> {
        let m = file.metadata()?;
        let (modified, changed) = ((m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()));
        Ok(Stamp { device: m.dev(), inode: m.ino(), size: m.size(), modified, changed })
    }

    /// A file that changed just now may change again without its times changing: clocks of file systems
    /// are coarse.
    fn is_settled(&self) -> bool {
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(self.changed.0.max(0).unsigned_abs());
        SystemTime::now().duration_since(changed).is_ok_and(|age| age > Duration::from_secs(2))
    }

    #[cfg(test)]
    pub(crate) fn inode_for_tests(&self) -> u64 {
        self.inode
    }

    #[cfg(test)]
    pub(crate) fn changed_earlier(mut self, by: Duration) -> Stamp {
        self.changed.0 -= by.as_secs() as i64;
        self
    }

    fn name(&self) -> String {
        format!("at-{:x}-{}.json", self.device, self.inode)
    }
}

/// What is known of the kernel with one digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    /// The kernel's release.
    pub release: Option<String>,
    /// Whether `DIGEST.config` exists.
    pub has_config: bool,
    /// The unpacked kernel; None where the file was an ELF already.
    pub unpacked: Option<Unpacked>,
}

/// The unpacked kernel, so that damage to it is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unpacked {
    /// As it was when it was last found to be whole.
    pub stamp: Stamp,
    /// SHA-256, hexadecimal.
    pub digest: String,
}

impl Record {
    /// A record of this version.
    pub(crate) fn new(release: Option<String>, has_config: bool, unpacked: Option<Unpacked>) -> Record {
        Record { version: VERSION, release, has_config, unpacked }
    }
}

#[derive(Serialize, Deserialize)]
struct Entry {
    version: u32,
    stamp: Stamp,
    digest: String,
}

/// The cache in one directory, which need not exist yet.
#[derive(Debug)]
pub(crate) struct Cache<'a>(pub &'a Path);

impl Cache<'_> {
    /// The digest of the file with this stamp, if it was seen before.
    pub(crate) fn digest(&self, stamp: &Stamp) -> Option<String> {
        let entry: Entry = self.read(&stamp.name())?;
        let sound = entry.digest.len() == 64 && entry.digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        (entry.version == VERSION && entry.stamp == *stamp && sound).then_some(entry.digest)
    }

    /// Remembers the digest of the file with this stamp.
    pub(crate) fn remember(&self, stamp: &Stamp, digest: &str) -> io::Result<()> {
        if !stamp.is_settled() {
            return Ok(());
        }
        self.set_entry(stamp, digest)
    }

    /// The same, however short ago the file changed.
    #[cfg(test)]
    pub(crate) fn remember_for_tests(&self, stamp: &Stamp, digest: &str) {
        self.set_entry(stamp, digest).unwrap();
    }

    fn set_entry(&self, stamp: &Stamp, digest: &str) -> io::Result<()> {
        let entry = Entry { version: VERSION, stamp: stamp.clone(), digest: digest.into() };
        self.write(&stamp.name(), &entry)
    }

    /// The record of this digest. A damaged one is as good as none.
    pub(crate) fn record(&self, digest: &str) -> Option<Record> {
        self.read(&format!("{digest}.json")).filter(|record: &Record| record.version == VERSION)
    }

    /// Writes the record of this digest.
    pub(crate) fn set_record(&self, digest: &str, record: &Record) -> io::Result<()> {
        self.write(&format!("{digest}.json"), record)
    }

    /// Where the unpacked kernel is kept.
    pub(crate) fn elf(&self, digest: &str) -> PathBuf {
        self.0.join(elf_name(digest))
    }

    /// Where the configuration is kept.
    pub(crate) fn config(&self, digest: &str) -> PathBuf {
        self.0.join(config_name(digest))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&std::fs::read(self.0.join(name)).ok()?).ok()
    }

    fn write(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        draft::write(self.0, name, &serde_json::to_vec(value)?)
    }
}

/// Name of the unpacked kernel.
pub(crate) fn elf_name(digest: &str) -> String {
    format!("{digest}.elf")
}

/// Name of the configuration.
pub(crate) fn config_name(digest: &str) -> String {
    format!("{digest}.config")
}
