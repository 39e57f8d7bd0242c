//! Kernel modules from the initramfs.

use std::fs::{self, File};

use hv_common::starter::Failure;
use rustix::io::Errno;

/// Loads the modules in this order; one that the kernel has already is fine.
pub fn load(paths: &[String]) -> Result<(), Failure> {
    paths.iter().try_for_each(|path| {
        let failed = |error| Failure::new(format!("cannot load the kernel module {path}"), error);
        let file = File::open(path).map_err(failed)?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error.into())),
        }
        // The kernel has its own copy: this gives the guest the memory of the file back.
        fs::remove_file(path).map_err(failed)
    })
}
