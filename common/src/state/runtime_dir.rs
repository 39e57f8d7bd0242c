//! Where the state lives, and whether it is safe there.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::Error;

/// The runtime directory of the calling user.
pub(super) fn of_this_user() -> PathBuf {
    if geteuid().is_root() {
        return PathBuf::from("/run/hv");
    }
    match env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute() && dir.is_dir()) {
        Some(dir) => dir.join("hv"),
        None => PathBuf::from(format!("/tmp/hv-{}", geteuid().as_raw())),
    }
}

/// Makes `dir` with mode 0700 unless it is there, and refuses one that is a symbolic link, belongs to
/// somebody else, or lets others write. (Nobody can swap it afterwards: its parent is the user's own,
/// root's, or sticky.)
pub(super) fn make_and_check(dir: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::new("make directory", dir, source));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(dir).map_err(|source| Error::new("look at", dir, source))?;
    let refuse = |why: String| Err(Error::Unsafe { path: dir.to_owned(), why });
    if !found.is_dir() {
        return refuse("it is not a directory".into());
    }
    if found.uid() != geteuid().as_raw() {
        return refuse(format!("it belongs to user {}", found.uid()));
    }
    if found.mode() & 0o022 != 0 {
        return refuse(format!("others can write to it (mode {:03o})", found.mode() & 0o777));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn made_private_and_accepted_again() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("hv");
        make_and_check(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        make_and_check(&dir).unwrap();
    }

    #[test]
    fn bug_19_what_others_could_change_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let link = parent.path().join("link");
        symlink(parent.path(), &link).unwrap();
        assert!(matches!(make_and_check(&link), Err(Error::Unsafe { .. })));
        let open = parent.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let error = make_and_check(&open).unwrap_err();
        assert!(error.to_string().contains("mode 777"), "{error}");
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(make_and_check(&file).is_err());
    }
}
