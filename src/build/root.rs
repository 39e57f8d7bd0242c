//! The file system of a step.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use hv_container::LoopDevice;
use hv_image::dirs::Dirs;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::error::{Failure, Result};

/// A directory of the build's own, in a mount namespace of its own.
pub(crate) struct Space {
    dir: tempfile::TempDir,
    next: Cell<usize>,
}

/// Layers over each other, read-only: the highest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lower(pub(crate) Vec<PathBuf>);

/// A root to be changed.
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    pub(crate) upper: PathBuf,
}

impl Space {
    pub(crate) fn enter(dirs: &Dirs) -> Result<Space> {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::refused(
                "hv build needs root: it mounts the layers over each other and makes files of any owner; use sudo",
            ));
        }
        let failed = |what: &'static str| move |source: nix::Error| Failure::new(what, source);
        unshare(CloneFlags::CLONE_NEWNS).map_err(failed("cannot make a mount namespace"))?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .map_err(failed("cannot make the build's mounts private"))?;
        let parent = dirs.scratch().join("build");
        let made = fs::create_dir_all(&parent).and_then(|()| tempfile::tempdir_in(&parent));
        let dir = made.map_err(|source| {
            Failure::new(format!("cannot make a directory in {}", parent.display()), source)
        })?;
        Ok(Space { dir, next: Cell::new(0) })
    }

    /// A new directory.
    pub(crate) fn directory(&self) -> Result<PathBuf> {
        let number = self.next.replace(self.next.get() + 1);
        let path = self.dir.path().join(number.to_string());
        fs::create_dir(&path)
            .map_err(|source| Failure::new(format!("cannot make {}", path.display()), source))?;
        Ok(path)
    }

    /// The image's file, mounted.
    pub(crate) fn image(&self, file: &Path) -> Result<Lower> {
        let at = self.directory()?;
        let failed = |errno| Failure::new(format!("cannot mount the image {}", file.display()), errno);
        let erofs = |source: &Path| {
            mount(Some(source), &at, Some("erofs"), MsFlags::MS_RDONLY | MsFlags::MS_NODEV, None::<&str>)
        };
        match erofs(file) {
            // Before Linux 6.12 only a block device can be mounted; it goes away with the mount.
            Err(Errno::ENOTBLK) => {
                let opened = fs::File::open(file).map_err(|source| {
                    Failure::new(format!("cannot open the image {}", file.display()), source)
                })?;
                let device = LoopDevice::attach(&opened, true)
                    .map_err(|source| Failure::new("cannot make a loop device for the image", source))?;
                erofs(Path::new(device.path())).map_err(failed)?;
            }
            other => other.map_err(failed)?,
        }
        Ok(Lower(vec![at]))
    }

    /// A root over `lower` with nothing changed yet.
    pub(crate) fn root(&self, lower: &Lower) -> Result<Root> {
        let dir = self.directory()?;
        let [path, upper, work, empty] = ["root", "upper", "work", "empty"].map(|name| dir.join(name));
        for dir in [&path, &upper, &work, &empty] {
            fs::create_dir(dir)
                .map_err(|source| Failure::new(format!("cannot make {}", dir.display()), source))?;
        }
        let below = if lower.0.is_empty() { vec![empty] } else { lower.0.clone() };
        let below: Vec<String> = below.iter().map(|path| path.display().to_string()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off,index=off",
            below.join(":"),
            upper.display(),
            work.display()
        );
        mount(Some("overlay"), &path, Some("overlay"), MsFlags::MS_NODEV, Some(options.as_str()))
            .map_err(|errno| Failure::new("cannot mount the layers over each other", errno))?;
        Ok(Root { path, upper })
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // The namespace takes it away in any case.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
            let _ = umount2(&entry.path(), MntFlags::MNT_DETACH);
        }
    }
}
