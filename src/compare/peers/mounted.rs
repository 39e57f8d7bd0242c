//! An image file as a directory, for runtimes that take nothing else: mounted once, read-only, for all launches.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::error::{Failure, Result};

/// The image as a directory; unmounted when dropped.
pub struct Root {
    path: PathBuf,
    mounted: Option<TempDir>,
}

impl Root {
    /// The directory itself, or the file mounted through a loop device.
    ///
    /// # Errors
    /// mount(8) refuses: what it said.
    pub fn of(image: &Path) -> Result<Root> {
        if image.is_dir() {
            return Ok(Root { path: image.to_path_buf(), mounted: None });
        }
        let dir = tempfile::tempdir()
            .map_err(|source| Failure::new("cannot make a directory to mount the image on", source))?;
        let done = Command::new("mount").args(["-o", "ro,loop"]).arg(image).arg(dir.path()).output();
        let done = done.map_err(|source| Failure::new("cannot run mount", source))?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            return Err(Failure::refused(format!(
                "cannot mount {}: {}",
                image.display(),
                said.trim().escape_debug()
            )));
        }
        Ok(Root { path: dir.path().to_path_buf(), mounted: Some(dir) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if self.mounted.is_some() {
            // A directory that is still mounted is not removed: TempDir then fails at its first file, read-only.
            let _ = Command::new("umount").arg(&self.path).output();
        }
    }
}
