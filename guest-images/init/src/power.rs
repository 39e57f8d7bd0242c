//! The guest's end.

use hv_common::starter::Failure;
use hv_common::sys::signal;
use rustix::mount::{MountFlags, mount_remount};
use rustix::process::{WaitOptions, wait};
use rustix::system::RebootCommand;

use crate::Doing;

/// Kills every process but this one, and waits until they are gone.
pub fn end_other_processes() {
    // As PID 1 alone: otherwise these would be other people's processes.
    if !rustix::process::getpid().is_init() {
        return;
    }
    // None left is an error, and fine.
    let _ = signal::send(-1, libc::SIGKILL as u8);
    while wait(WaitOptions::empty()).is_ok() {}
}

/// Leaves a writable root disk clean: all of it written, and its file system marked as unmounted.
pub fn make_root_read_only() -> Result<(), Failure> {
    rustix::fs::sync();
    mount_remount("/", MountFlags::RDONLY, "").doing("cannot make the root disk read-only before the end")
}

/// Switches the machine off by a reset: the monitor takes that for the end, and there is no kernel
/// without it, as there is without power-off.
pub fn power_off() -> ! {
    loop {
        if rustix::system::reboot(RebootCommand::Restart).is_err() {
            // Not PID 1 of a machine: then it is enough to end.
            std::process::exit(1);
        }
    }
}
