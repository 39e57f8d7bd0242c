//! The initrd of all that boots in a measurement: busybox, which prints one line and resets the machine.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{cache, rootfs};

const INIT: &[u8] = b"#!/bin/sh\necho ready\nexec /bin/busybox reboot -f\n";
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// The archive's file, made anew.
///
/// # Errors
/// The demo image, where busybox comes from, cannot be made, or the file not written.
pub fn make() -> Result<PathBuf> {
    let busybox = rootfs::demo()?.join("demo/bin/busybox");
    let busybox = fs::read(&busybox).with_context(|| format!("read {}", busybox.display()))?;
    let dir = cache::root()?.join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let path = dir.join("bench-initrd");
    fs::write(&path, archive(&busybox)).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn archive(busybox: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for directory in ["bin", "dev", "proc"] {
        add(&mut archive, directory, DIRECTORY, 0, b"");
    }
    add(&mut archive, "dev/console", CHARACTER_DEVICE, 5, b"");
    add(&mut archive, "bin/busybox", PROGRAM, 0, busybox);
    add(&mut archive, "bin/sh", LINK, 0, b"busybox");
    add(&mut archive, "init", PROGRAM, 0, INIT);
    add(&mut archive, "TRAILER!!!", 0, 0, b"");
    archive
}

/// One entry of a newc archive (Documentation/driver-api/early-userspace/buffer-format.rst); a device has
/// the major number `major` and the minor number 1.
fn add(archive: &mut Vec<u8>, name: &str, mode: u32, major: u32, content: &[u8]) {
    let inode = archive.len() as u32;
    let minor = u32::from(major != 0);
    let (size, name_size) = (content.len() as u32, name.len() as u32 + 1);
    archive.extend_from_slice(b"070701");
    for field in [inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0] {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_begin_at_multiples_of_four() {
        let archive = archive(&[7; 4097]);
        assert_eq!(archive.len() % 4, 0);
        let magics = archive.windows(6).enumerate().filter(|(_, bytes)| bytes == b"070701");
        let starts: Vec<usize> = magics.map(|(at, _)| at).collect();
        assert_eq!(starts.len(), 8);
        assert!(starts.iter().all(|at| at % 4 == 0));
    }
}
