//! The demo image: a root file system of busybox from Debian's package, as a directory and as raw images
//! of each kind that hv recognises.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::testbed::image::{make_disk, make_executable};
use crate::{apt, cache, progress};

const BUSYBOX_PACKAGE: &str = "busybox-static";
/// Counts up when the steps below change in a way that changes the result.
const RECIPE: &str = "1";
const DIRECTORIES: [&str; 16] = [
    "bin", "dev", "etc", "home", "mnt", "opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr/bin",
    "usr/sbin", "var/tmp",
];
const FILES: [(&str, &str); 5] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n\
         demo:x:1000:1000:demo:/home:/bin/sh\n",
    ),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\ndemo:x:1000:\nshared:x:2000:demo\n"),
    ("etc/hostname", "demo\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/os-release", "ID=hv-demo\nNAME=\"hv demo image\"\nPRETTY_NAME=\"hv demo image (busybox)\"\n"),
];

/// The directory of the cache with `demo/` (the tree) and `demo.ext4`, `demo.squashfs`, `demo.erofs`.
///
/// # Errors
/// A package is missing, or a step failed.
pub fn demo() -> Result<PathBuf> {
    let version = apt::candidate(BUSYBOX_PACKAGE)?;
    let files: String = FILES.iter().flat_map(|(path, text)| [*path, *text]).collect();
    let name = format!("demo-{}", cache::digest(&[RECIPE, &version, &files, &DIRECTORIES.join(" ")]));
    cache::entry("images", &name, |dir| build(dir, &version))
}

fn build(dir: &Path, version: &str) -> Result<()> {
    apt::install(&["e2fsprogs", "squashfs-tools", "erofs-utils"])?;
    let log = cache::root()?.join("image.log");
    let tree = dir.join("demo");
    let unpacked = dir.join("package");
    apt::download_and_unpack(BUSYBOX_PACKAGE, version, dir, &unpacked)?;
    populate(&tree, &unpacked.join("bin/busybox"))?;
    cache::remove_tree(&unpacked)?;

    make_disk(&tree, &dir.join("demo.ext4"), 16, &log)?;
    let mut squashfs = Command::new("mksquashfs");
    squashfs.arg(&tree).arg(dir.join("demo.squashfs")).args([
        "-all-root",
        "-noappend",
        "-no-progress",
        "-quiet",
    ]);
    progress::run("making demo.squashfs", &mut squashfs, &log)?;
    let mut erofs = Command::new("mkfs.erofs");
    erofs.args(["--all-root", "-T0", "-U", "00000000-0000-0000-0000-000000000000"]);
    erofs.arg(dir.join("demo.erofs")).arg(&tree);
    progress::run("making demo.erofs", &mut erofs, &log)
}

/// Fills `tree` with directories, files, busybox and a link for each of its applets.
fn populate(tree: &Path, busybox: &Path) -> Result<()> {
    for dir in DIRECTORIES {
        fs::create_dir_all(tree.join(dir)).with_context(|| format!("create {dir}"))?;
    }
    set_mode(&tree.join("tmp"), 0o1777)?;
    set_mode(&tree.join("var/tmp"), 0o1777)?;
    set_mode(&tree.join("root"), 0o700)?;
    for (path, text) in FILES {
        fs::write(tree.join(path), text).with_context(|| format!("write {path}"))?;
    }
    let program = tree.join("bin/busybox");
    fs::copy(busybox, &program).context("copy busybox")?;
    make_executable(&program)?;
    let list = Command::new(&program).arg("--list-full").output().context("run busybox --list-full")?;
    ensure!(list.status.success(), "busybox --list-full: {}", list.status);
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|path| *path != "bin/busybox") {
        let link = tree.join(applet);
        if let Some(parent) = link.parent() {
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        }
        symlink("/bin/busybox", &link).with_context(|| format!("link {applet}"))?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {}", path.display()))
}
