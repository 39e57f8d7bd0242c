//! Where things are in this working tree.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What everything is built for: static programs (see `.cargo/config.toml`).
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The working tree that this xtask was built from.
pub fn root() -> &'static Path {
    // xtask/ is a direct child of the workspace, so it has a parent.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// Cargo's target directory.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where cargo leaves the programs of `profile` (`debug` or `release`).
pub fn bin_dir(profile: &str) -> PathBuf {
    target_dir().join(TARGET).join(profile)
}

/// A fresh file for what one task's commands print, in the target directory.
///
/// # Errors
/// The directory or the file cannot be made.
pub fn log(task: &str) -> Result<PathBuf> {
    let dir = target_dir().join("xtask");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let path = dir.join(format!("{task}.log"));
    File::create(&path).with_context(|| format!("create {}", path.display()))?;
    Ok(path)
}
