//! Where hv keeps things for this user.
//!
//! Users: the XDG base directories (<https://specifications.freedesktop.org/basedir-spec/>). Root: the
//! system's own, never a user's that `sudo` passed on in the environment.

use std::ffi::OsString;
use std::path::PathBuf;

/// The directories of one user. None of them need exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// What can be made again: unpacked kernels. `~/.cache/hv` or `/var/cache/hv`.
    pub cache: PathBuf,
    /// What the user put here: installed kernels. `~/.local/share/hv` or `/var/lib/hv`.
    pub data: PathBuf,
}

/// Installed for all users by root.
pub const SYSTEM_DATA: &str = "/var/lib/hv";
const SYSTEM_CACHE: &str = "/var/cache/hv";

/// The environment does not say where this user's files are.
#[derive(Debug, thiserror::Error)]
#[error("cannot tell where to keep files: set HOME to an absolute path")]
pub struct NoHome;

impl Dirs {
    /// The directories of the user that this process runs as.
    ///
    /// # Errors
    /// Not root, and neither HOME nor the XDG variables name an absolute path.
    pub fn of_this_user() -> Result<Dirs, NoHome> {
        Dirs::of(rustix::process::geteuid().is_root(), |name| std::env::var_os(name))
    }

    /// Where unpacked kernels are cached: what [`crate::kernel::open`] wants.
    pub fn unpacked(&self) -> PathBuf {
        self.cache.join("unpacked")
    }

    /// Where nameless files of a run are made, on disk and not in memory: what [`crate::erofs::pack`] wants.
    pub fn scratch(&self) -> PathBuf {
        self.cache.join("scratch")
    }

    /// Where images are kept: what [`crate::content::Store::of`] opens.
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// Where the files are that images are started from: they can be made again.
    pub fn startable(&self) -> PathBuf {
        self.cache.join("images")
    }

    /// Where kernels are installed.
    pub fn kernels(&self) -> PathBuf {
        self.data.join("kernels")
    }

    fn of(root: bool, env: impl Fn(&str) -> Option<OsString>) -> Result<Dirs, NoHome> {
        if root {
            return Ok(Dirs { cache: SYSTEM_CACHE.into(), data: SYSTEM_DATA.into() });
        }
        // The specification: a relative path is invalid and is to be ignored.
        let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let place = |variable: &str, below_home: &str| {
            let base = absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)));
            base.map(|base| base.join("hv")).ok_or(NoHome)
        };
        Ok(Dirs { cache: place("XDG_CACHE_HOME", ".cache")?, data: place("XDG_DATA_HOME", ".local/share")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(root: bool, env: &[(&str, &str)]) -> Result<Dirs, NoHome> {
        Dirs::of(root, |name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn users_have_xdg_directories() {
        let home = dirs(false, &[("HOME", "/home/u"), ("XDG_CACHE_HOME", "relative")]).unwrap();
        assert_eq!(home.cache, PathBuf::from("/home/u/.cache/hv"));
        assert_eq!(home.data, PathBuf::from("/home/u/.local/share/hv"));
        let xdg = dirs(false, &[("XDG_CACHE_HOME", "/c"), ("XDG_DATA_HOME", "/d")]).unwrap();
        assert_eq!(xdg.data, PathBuf::from("/d/hv"));
        assert!(dirs(false, &[("HOME", "")]).is_err());
    }

    #[test]
    fn root_has_the_systems_whatever_the_environment() {
        let root = dirs(true, &[("HOME", "/home/u"), ("XDG_DATA_HOME", "/home/u/x")]).unwrap();
        assert_eq!(root.data, PathBuf::from("/var/lib/hv"));
    }
}
