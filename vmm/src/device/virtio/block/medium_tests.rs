//! Disks that are not a file in the page cache: direct I/O, and block devices.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::testing::{Buffer, Rig};
use super::*;

const BYTES: u64 = 1 << 20;
const BLOCK: u64 = 4096;

/// One request whose data begin at a page, as a kernel's do.
fn request(rig: &mut Rig, kind: u32, sector: u64, data: Buffer) -> (u8, Vec<u8>) {
    let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
    rig.next_buffer = rig.next_buffer.next_multiple_of(BLOCK) + BLOCK - header.len() as u64;
    let mut bytes = rig.request(0, &[Buffer::Out(header), data, Buffer::In(1)]).bytes;
    (bytes.pop().unwrap(), bytes)
}

/// Writes, reads back, flushes and discards through a device over this disk.
fn use_disk(disk: Disk, engine: Choice) -> Rig {
    let settings = Settings { engine, ..Settings::default() };
    let mut rig = Rig::new(Box::new(Block::new(disk, settings).unwrap()));
    let blocks: Vec<u8> = (0..2 * BLOCK).map(|at| (at / 512) as u8 + 1).collect();
    let done = request(&mut rig, spec::VIRTIO_BLK_T_OUT, 16, Buffer::Out(blocks.clone()));
    assert_eq!(done, (0, vec![]), "{engine:?}");
    assert_eq!(request(&mut rig, spec::VIRTIO_BLK_T_FLUSH, 0, Buffer::Out(vec![])).0, 0);
    let back = request(&mut rig, spec::VIRTIO_BLK_T_IN, 16, Buffer::In(blocks.len()));
    assert_eq!(back, (0, blocks));
    rig
}

#[test]
fn direct_io_moves_whole_blocks() {
    for engine in [Choice::Ring, Choice::Positioned] {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(BYTES).unwrap();
        match Disk::open(file.path(), false, true) {
            Err(DiskError::Direct(_)) => return println!("skipped: this file system has no direct I/O"),
            disk => drop(use_disk(disk.unwrap(), engine)),
        }
        let mut block = [0; BLOCK as usize];
        file.as_file().read_exact_at(&mut block, 2 * BLOCK).unwrap();
        assert_eq!((block[0], block[511], block[512]), (1, 1, 2));
    }
}

/// A loop device over a file, detached at the end.
struct Loop(PathBuf);

impl Loop {
    fn over(file: &Path) -> Option<Loop> {
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output().ok()?;
        let name = String::from_utf8(made.stdout).ok()?;
        made.status.success().then(|| Loop(name.trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

#[test]
fn a_block_device_is_written_and_gives_space_back() {
    for (engine, direct) in [(Choice::Ring, false), (Choice::Ring, true), (Choice::Positioned, true)] {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&vec![9; BYTES as usize], 0).unwrap();
        file.as_file().sync_all().unwrap();
        let Some(device) = Loop::over(file.path()) else {
            return println!("skipped: this user cannot make loop devices");
        };
        let disk = Disk::open(&device.0, false, direct).unwrap();
        assert_eq!(disk.sectors(), BYTES / 512);
        assert!(matches!(Disk::open(&device.0, false, direct), Err(DiskError::InUse)));
        let mut rig = use_disk(disk, engine);
        let full = file.as_file().metadata().unwrap().blocks();
        let range = [&0u64.to_le_bytes()[..], &1024u32.to_le_bytes(), &[0; 4]].concat();
        let (status, _) = request(&mut rig, spec::VIRTIO_BLK_T_DISCARD, 0, Buffer::Out(range));
        assert!(matches!(status, 0 | 2), "{status}: done, or this file system cannot");
        assert_eq!(request(&mut rig, spec::VIRTIO_BLK_T_FLUSH, 0, Buffer::Out(vec![])).0, 0);
        if status == 0 {
            let rest = file.as_file().metadata().unwrap().blocks();
            assert!(rest < full * 3 / 4, "{full} sectors before, {rest} now");
        }
        // The device's own cache is its kernel's: a reader of the device sees what was written.
        let mut start = vec![0; 512];
        File::open(&device.0).unwrap().read_exact(&mut start).unwrap();
        assert_eq!(start, vec![if status == 0 { 0 } else { 9 }; 512]);
    }
}
