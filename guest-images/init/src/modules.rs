//! Kernel modules from the initramfs.

use std::fs::{self, File};
use std::io;

use hv_common::starter::Failure;
use rustix::io::Errno;

/// Loads the modules in this order; one that the kernel has already is fine.
pub fn load(paths: &[String]) -> Result<(), Failure> {
    paths.iter().try_for_each(|path| {
        let failed = |error| Failure::new(format!("cannot load the kernel module {path}"), error);
        let file = File::open(path).map_err(failed)?;
        insert(&file).map_err(failed)?;
        // The kernel has its own copy: this gives the guest the memory of the file back.
        fs::remove_file(path).map_err(failed)
    })
}

fn insert(file: &File) -> io::Result<()> {
    match rustix::system::finit_module(file, c"", 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Modules that are loaded once the workload runs, when nobody finds the initramfs any more.
#[derive(Default)]
pub struct Later(Vec<File>);

impl Later {
    /// Opens them. The workload does without them, so that it is no failure if one is not there.
    pub fn open(paths: &[String]) -> Later {
        let open = |path: &String| {
            let file = File::open(path).ok()?;
            fs::remove_file(path).ok()?;
            Some(file)
        };
        Later(paths.iter().filter_map(open).collect())
    }

    /// Loads them in this order, as far as the kernel takes them.
    pub fn load(self) {
        for file in self.0 {
            let _ = insert(&file);
        }
    }
}
