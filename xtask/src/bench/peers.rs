//! Other monitors: found on this machine's PATH, or absent.

use std::env;
use std::path::{Path, PathBuf};

/// The first executable of this name on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    find(name, &env::var_os("PATH")?)
}

fn find(name: &str, path: &std::ffi::OsStr) -> Option<PathBuf> {
    env::split_paths(path).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_executables_are_found() {
        assert!(find("sh", "/nowhere:/bin".as_ref()).is_some());
        assert!(find("passwd", "/etc".as_ref()).is_none());
    }
}
