//! The image that was typed: a path, or the name of one in the store.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use hv_common::Root;
use hv_image::content::{Platform, ProcessConfig, Startable};
use hv_image::dirs::Dirs;
use hv_image::reference::Reference;
use hv_image::{OpenError, root_tar};

use crate::cmd::image;
use crate::error::{Failure, Result};

/// An image, opened.
#[derive(Debug)]
pub struct Opened {
    /// Its root file system.
    pub root: Root,
    /// What it says is to be run; nothing, where it cannot say it.
    pub process: ProcessConfig,
}

/// Opens what `typed` means. What exists is a path; so is what can be nothing else.
///
/// # Errors
/// There is neither a file nor an image of this name, or it cannot be started.
pub fn open(typed: &Path, writable: bool) -> Result<Opened> {
    let name = match as_name(typed) {
        Some(name) => name,
        None => {
            let root = open_path(typed, writable)?;
            return Ok(Opened { root, process: ProcessConfig::default() });
        }
    };
    if writable {
        return Err(Failure::refused(format!(
            "--rw changes a raw ext4 file, and `{name}` is an image of the store, which never changes"
        ))
        .hint("leave --rw out: what the run writes goes with it"));
    }
    let startable = startable(name)?;
    let root = hv_image::open(&startable.path, false)?;
    Ok(Opened { root, process: startable.config.config })
}

/// The file or directory that `typed` means, for who starts it several times.
///
/// # Errors
/// As [`open`].
pub fn file(typed: &Path) -> Result<PathBuf> {
    match as_name(typed) {
        Some(name) => Ok(startable(name)?.path),
        None => typed
            .canonicalize()
            .map_err(|source| Failure::new(format!("cannot open image {}", typed.display()), source)),
    }
}

/// The image of this name for this machine, whatever else there is: a program for another would only say `exec format
/// error`.
fn startable(name: &str) -> Result<Startable> {
    let store = image::store()?;
    let found = image::find(&store, name).map_err(|failure| match name.parse::<Reference>() {
        Ok(_) => failure,
        Err(bad) => Failure::new(format!("there is no file {name}, and it cannot name an image"), bad),
    })?;
    Ok(store.startable(&found.image, Some(&Platform::default()))?)
}

/// A raw image, a directory, or a tar of a root file system.
fn open_path(path: &Path, writable: bool) -> Result<Root> {
    match hv_image::open(path, writable) {
        Err(OpenError::Archive { .. }) => {
            // Apart from the files of the store's images, which prune compares with the store.
            let cache = Dirs::of_this_user()?.startable().join("tars");
            Ok(root_tar::open(path, writable, &cache)?)
        }
        opened => Ok(opened?),
    }
}

/// The name, if it is to be looked for in the store.
fn as_name(typed: &Path) -> Option<&str> {
    let text = OsStr::to_str(typed.as_os_str())?;
    let is_path = text.starts_with('/') || text.starts_with('.') || text.ends_with('/');
    (!is_path && typed.symlink_metadata().is_err()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exists_and_what_looks_like_a_path_is_no_name() {
        for path in ["/nowhere", "./alpine", "../alpine", "src", "Cargo.toml", "alpine/"] {
            assert_eq!(as_name(Path::new(path)), None, "{path}");
        }
        for name in ["alpine", "ghcr.io/a/b:1", "nowhere.img"] {
            assert_eq!(as_name(Path::new(name)), Some(name));
        }
    }
}
