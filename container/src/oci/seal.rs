//! A program file that cannot be written through by whoever gets hold of it.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hv_common::sys::exec::{CStringArray, execute_file};
use rustix::fs::{
    CWD, MemfdFlags, SealFlags, StatVfsMountFlags, fcntl_add_seals, fcntl_get_seals, fstatvfs, memfd_create,
};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::step::Change;
use crate::sys;

const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);
const OWN: &str = "/proc/self/exe";

/// Whether this process's own program file is on a read-only mount, or sealed.
///
/// # Errors
/// /proc is not there.
pub fn is_sealed() -> io::Result<bool> {
    let program = File::open(OWN)?;
    let read_only = fstatvfs(&program)?.f_flag.contains(StatVfsMountFlags::RDONLY);
    Ok(read_only || fcntl_get_seals(&program).is_ok_and(|seals| seals.contains(SEALS)))
}

/// The same program, out of reach.
///
/// # Errors
/// Neither a mount nor a copy can be made.
pub fn sealed_program() -> io::Result<OwnedFd> {
    read_only_mount().or_else(|_| copy())
}

/// A mount that is attached nowhere: nobody can make it writable again, because it is in nobody's mount
/// namespace.
fn read_only_mount() -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, OWN, flags)?;
    let change = Change { set: libc::MOUNT_ATTR_RDONLY, ..Change::default() };
    sys::change_mount(tree.as_fd(), change, false)?;
    Ok(tree)
}

fn copy() -> io::Result<OwnedFd> {
    let mut copy = File::from(memfd_create("hv-oci", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    io::copy(&mut File::open(OWN)?, &mut copy)?;
    fcntl_add_seals(&copy, SEALS)?;
    Ok(copy.into())
}

/// Executes it; returns only if that fails, and why.
pub fn execute(program: BorrowedFd<'_>, args: Vec<CString>, env: Vec<CString>) -> io::Error {
    execute_file(program, &CStringArray::new(args), &CStringArray::new(env)).into()
}
