//! The user's cache directory: whatever takes long to make is made once, under the digest of what it
//! was made from, and appears under its final name complete or not at all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// `$XDG_CACHE_HOME/hv`, else `~/.cache/hv`; created when missing.
///
/// # Errors
/// Neither variable is set, or the directory cannot be made.
pub fn root() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|dir| Path::new(dir).is_absolute()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
            .join(".cache"),
    };
    let root = base.join("hv");
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    Ok(root)
}

/// The first 16 hex digits of the SHA-256 of `parts`, each preceded by its length.
pub fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The directory `kind/name` of the cache, made by `build` if it is not there yet.
///
/// `build` gets an empty directory to fill; it is renamed to its final name when `build` returns `Ok`, and
/// removed otherwise. Two callers that want the same entry wait for one another.
///
/// # Errors
/// What `build` returns, or a failing file operation.
pub fn entry(kind: &str, name: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let parent = root()?.join(kind);
    let done = parent.join(name);
    if done.is_dir() {
        return Ok(done);
    }
    fs::create_dir_all(&parent).with_context(|| format!("create {}", parent.display()))?;
    let lock_path = parent.join(format!(".{name}.lock"));
    let lock = File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
    lock.lock().with_context(|| format!("lock {}", lock_path.display()))?;
    if done.is_dir() {
        return Ok(done);
    }
    let work = parent.join(format!(".{name}.part"));
    remove_tree(&work)?;
    fs::create_dir(&work).with_context(|| format!("create {}", work.display()))?;
    if let Err(error) = build(&work) {
        // The build's own error matters more than one from cleaning up after it.
        let _ = remove_tree(&work);
        return Err(error);
    }
    fs::rename(&work, &done).with_context(|| format!("rename to {}", done.display()))?;
    Ok(done)
}

/// Removes `path` and everything below it; absent is fine.
///
/// # Errors
/// A file could not be removed.
pub fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_separates_its_parts() {
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_eq!(digest(&["ab"]).len(), 16);
    }
}
