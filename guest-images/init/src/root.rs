//! The workload's root: the disk, an overlay on it, and the way there from the initramfs.

use std::ffi::CStr;
use std::path::Path;

use hv_common::root::Format;
use hv_common::starter::Failure;
use hv_common::wire::GuestRoot;
use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid, chmodat, chownat, mkdirat, stat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_move};
use rustix::thread::{Timespec, nanosleep};

use crate::Doing;
use crate::mounts::mount_making;

/// The first virtio-blk device.
const DISK: &CStr = c"/dev/vda";
/// Where the root is put together, in the initramfs.
const NEW: &CStr = c"/new";
const LOWER: &CStr = c"/lower";
const SCRATCH: &CStr = c"/scratch";
const UPPER: &CStr = c"/scratch/upper";
const WORK: &CStr = c"/scratch/work";
/// How long the disk may take to appear, in milliseconds.
const PATIENCE: u32 = 10_000;

/// Mounts the root disk and makes it this process's root, in place of the initramfs.
pub fn switch(root: &GuestRoot) -> Result<(), Failure> {
    wait_for_disk()?;
    if root.writable {
        mount_disk(root, NEW, MountFlags::empty(), c"")?;
    } else {
        // Without noload, ext4 would want to write what its journal holds.
        let options = if root.format == Format::Ext4 { c"noload" } else { c"" };
        mount_disk(root, LOWER, MountFlags::RDONLY, options)?;
        lay_overlay()?;
    }
    rustix::process::chdir(NEW).doing("cannot enter the new root")?;
    mount_move(".", "/").doing("cannot move the new root to /")?;
    rustix::process::chroot(".").doing("cannot change the root directory")
}

/// Drivers find the disk before PID 1 starts or while their module is loaded, so that it is there at the
/// first look, unless the kernel was told to probe asynchronously.
fn wait_for_disk() -> Result<(), Failure> {
    for _ in 0..PATIENCE {
        if stat(DISK).is_ok() {
            return Ok(());
        }
        let _ = nanosleep(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 });
    }
    let what = "no root disk (/dev/vda) appeared: this kernel lacks virtio-mmio or virtio-blk, built in or as a module";
    Err(Failure::plain(what))
}

fn mount_disk(root: &GuestRoot, place: &CStr, flags: MountFlags, options: &CStr) -> Result<(), Failure> {
    let name = root.format.name();
    let kind = match root.format {
        Format::Ext4 => c"ext4",
        Format::Erofs => c"erofs",
        Format::Squashfs => c"squashfs",
    };
    mount_making(DISK, place, kind, flags, options).map_err(|error| {
        let hint = match error {
            Errno::NODEV => format!(": this kernel lacks {name}, built in or as a module"),
            Errno::BADMSG | Errno::UCLEAN | Errno::INVAL => {
                ": it is damaged or uses what this kernel does not know (`--console` shows the kernel's words)".into()
            }
            _ => String::new(),
        };
        Failure::new(format!("cannot mount the root disk as {name}{hint}"), error)
    })
}

/// Writes go to memory and are gone with the guest.
fn lay_overlay() -> Result<(), Failure> {
    mount_making(c"tmpfs", SCRATCH, c"tmpfs", MountFlags::empty(), c"mode=755")
        .doing("cannot mount tmpfs for the writes of the root")?;
    for dir in [UPPER, WORK] {
        mkdirat(CWD, dir, Mode::from_raw_mode(0o755)).doing("cannot make the overlay's directories")?;
    }
    // The merged root has the upper directory's owner and mode: they are to be the image's.
    let image = stat(LOWER).doing("cannot look at the image's root")?;
    if (image.st_uid, image.st_gid) != (0, 0) {
        let (owner, group) = (Uid::from_raw(image.st_uid), Gid::from_raw(image.st_gid));
        chownat(CWD, UPPER, Some(owner), Some(group), AtFlags::empty())
            .doing("cannot set the root's owner")?;
    }
    if image.st_mode & 0o7777 != 0o755 {
        chmodat(CWD, UPPER, Mode::from_raw_mode(image.st_mode & 0o7777), AtFlags::empty())
            .doing("cannot set the root's mode")?;
    }
    let options = c"lowerdir=/lower,upperdir=/scratch/upper,workdir=/scratch/work";
    mount_making(c"overlay", NEW, c"overlay", MountFlags::empty(), options).map_err(|error| {
        let missing = error == Errno::NODEV && !Path::new("/sys/module/overlay").exists();
        let hint = if missing { ": this kernel lacks overlayfs, built in or as a module" } else { "" };
        Failure::new(format!("cannot lay an overlay over the root disk{hint}"), error)
    })
}
