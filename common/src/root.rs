//! An image opened for one start.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A file system that images come in, told apart by its superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// ext4 (or ext2 and ext3, which the same driver reads).
    Ext4,
    /// EROFS.
    Erofs,
    /// squashfs 4.
    Squashfs,
}

impl Format {
    /// The name that mount(2) knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Format::Ext4 => "ext4",
            Format::Erofs => "erofs",
            Format::Squashfs => "squashfs",
        }
    }
}

/// The root file system of a sandbox, opened. A run never changes it unless `writable`.
#[derive(Debug)]
pub enum Root {
    /// A raw file system image.
    Disk {
        /// Where it was found; only for messages.
        path: PathBuf,
        /// Opened read-only, or for both when `writable`.
        file: File,
        /// What its superblock says.
        format: Format,
        /// The user asked that the run may change the image (`--rw`).
        writable: bool,
    },
    /// A directory on the host; always read-only.
    Directory {
        /// Where it was found; only for messages.
        path: PathBuf,
        /// Opened with `O_PATH | O_DIRECTORY`.
        dir: OwnedFd,
    },
}
