//! A program from outside the root: hv's own, in images that hold nothing to measure or to try with.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;

use super::Failure;
use crate::spec::Program;

const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// The program to execute by descriptor, if there is one, as a sealed copy in memory: the workload may be root,
/// and reaches the file that it was executed from through `/proc/self/exe` (CVE-2019-5736).
///
/// # Errors
/// It cannot be read, or this host allows no programs in memory (`vm.memfd_noexec`).
pub fn sealed(program: &Program) -> Result<Option<OwnedFd>, Failure> {
    match program {
        Program::Image => Ok(None),
        Program::Injected(path) => copy(path).map(Some).map_err(|source| {
            Failure::new(format!("cannot take along the program {}", path.display()), source)
        }),
    }
}

fn copy(path: &Path) -> io::Result<OwnedFd> {
    let mut program = File::open(path)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = match memfd_create("injected", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 all of them can be executed, and the flag is not known.
        Err(Errno::INVAL) => memfd_create("injected", flags),
        other => other,
    };
    let mut copy = File::from(copy?);
    io::copy(&mut program, &mut copy)?;
    fcntl_add_seals(&copy, SEALS)?;
    Ok(copy.into())
}
