//! The testbed's own disk and kernel, made from Debian's packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{apt, cache, progress};

/// Always names the current kernel for clouds: few drivers, everything for guests.
const KERNEL_METAPACKAGE: &str = "linux-image-cloud-amd64";
/// Counts up when the steps below change in a way that changes the result.
const RECIPE: &str = "1";
const HOST_PACKAGES: [&str; 3] = ["mmdebstrap", "e2fsprogs", "kmod"];
/// What is in the testbed beside Debian's minimal base.
const GUEST_PACKAGES: [&str; 16] = [
    "busybox-static",
    "crun",
    "e2fsprogs",
    "erofs-utils",
    "iproute2",
    "iputils-ping",
    "kmod",
    "mount",
    "nftables",
    "procps",
    "runc",
    "squashfs-tools",
    "strace",
    "uidmap",
    "util-linux",
    "util-linux-extra",
];
/// Free space on the testbed's disk beyond what its files take.
const SLACK_MIB: u64 = 256;
/// The first process: everything that may change between runs is on the second disk.
const FIRST_INIT: &str = "#!/bin/sh
mount -t devtmpfs -o nosuid dev /dev
mkdir -p /hv
tries=0
while [ ! -b /dev/nvme1n1 ] && [ $tries -lt 200 ]; do sleep 0.05; tries=$((tries + 1)); done
mount -t ext4 /dev/nvme1n1 /hv
exec /hv/testbed/init
";

/// What a testbed is booted from, all in one directory of the cache.
pub struct Host {
    dir: PathBuf,
}

impl Host {
    /// The testbed's root disk, a raw ext4 image.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("host.img")
    }

    /// Debian's kernel, as the package has it.
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("bzImage")
    }

    /// The directory `lib/modules/<version>` of that kernel.
    pub fn modules(&self) -> PathBuf {
        self.dir.join("modules")
    }

    /// What it was made from: the name of its directory in the cache, a digest.
    pub fn name(&self) -> std::borrow::Cow<'_, str> {
        self.dir.file_name().unwrap_or_default().to_string_lossy()
    }

    /// The kernel's version, as `uname -r` prints it.
    ///
    /// # Errors
    /// The cache entry is damaged.
    pub fn kernel_version(&self) -> Result<String> {
        let path = self.dir.join("kernel-version");
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }
}

/// Finds the testbed's host in the cache, or makes it (about a minute).
///
/// # Errors
/// A package is missing, this process is not root while something has to be made, or a step failed.
pub fn host() -> Result<Host> {
    let meta_version = apt::candidate(KERNEL_METAPACKAGE)?;
    let package = kernel_package(&meta_version)?;
    let version = apt::candidate(&package)?;
    let name = cache::digest(&[RECIPE, FIRST_INIT, &GUEST_PACKAGES.join(" "), &package, &version]);
    let dir = cache::entry("testbed", &name, |dir| build(dir, &package, &version))?;
    Ok(Host { dir })
}

fn kernel_package(meta_version: &str) -> Result<String> {
    apt::dependencies(KERNEL_METAPACKAGE, meta_version)?
        .into_iter()
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("{KERNEL_METAPACKAGE} {meta_version} names no kernel package"))
}

fn build(dir: &Path, package: &str, version: &str) -> Result<()> {
    apt::install(&HOST_PACKAGES)?;
    if !apt::is_root()? {
        bail!(
            "the testbed's disk is made as root, once; run: sudo --preserve-env=HOME,XDG_CACHE_HOME cargo xtask testbed -- true"
        );
    }
    let log = cache::root()?.join("testbed.log");
    let root = dir.join("rootfs");
    bootstrap("making the testbed's root file system", &GUEST_PACKAGES, &root, &log)?;

    let unpacked = dir.join("kernel-package");
    apt::download_and_unpack(package, version, dir, &unpacked)?;
    let release = package.trim_start_matches("linux-image-");
    fs::write(dir.join("kernel-version"), release).context("write kernel-version")?;
    install_kernel(&unpacked, &root, release, &log)?;
    let init = root.join("init");
    fs::write(&init, FIRST_INIT).with_context(|| format!("write {}", init.display()))?;
    make_executable(&init)?;

    make_disk(&root, &dir.join("host.img"), SLACK_MIB, &log)?;
    fs::rename(root.join("boot").join(format!("vmlinuz-{release}")), dir.join("bzImage"))
        .context("keep the kernel")?;
    fs::rename(root.join("lib/modules").join(release), dir.join("modules")).context("keep the modules")?;
    cache::remove_tree(&unpacked)?;
    cache::remove_tree(&root)
}

/// Makes a minimal Debian system of this one's release at `root`, with `packages` and what they need.
///
/// # Errors
/// This process is not root, or mmdebstrap failed.
pub fn bootstrap(label: &str, packages: &[&str], root: &Path, log: &Path) -> Result<()> {
    let mut bootstrap = Command::new("mmdebstrap");
    bootstrap
        .args(["--variant=minbase", "--mode=root", "--aptopt=Acquire::Languages \"none\""])
        .args(["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"])
        .arg("--dpkgopt=path-exclude=/usr/share/locale/*")
        .arg(format!("--include={}", packages.join(",")))
        .arg(release_codename()?)
        .arg(root);
    progress::run(label, &mut bootstrap, log)?;
    cache::remove_tree(&root.join("var/cache/apt"))?;
    cache::remove_tree(&root.join("var/lib/apt/lists"))
}

/// Puts the unpacked package's kernel and modules where an installed package has them.
fn install_kernel(unpacked: &Path, root: &Path, release: &str, log: &Path) -> Result<()> {
    fs::create_dir_all(root.join("boot")).context("create boot/")?;
    for prefix in ["vmlinuz", "config"] {
        let name = format!("{prefix}-{release}");
        fs::copy(unpacked.join("boot").join(&name), root.join("boot").join(&name))
            .with_context(|| format!("copy {name}"))?;
    }
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(unpacked.join("lib/modules")).arg(root.join("lib/"));
    progress::run("copying the kernel's modules", &mut copy, log)?;
    let mut depmod = Command::new("depmod");
    depmod.arg("--basedir").arg(root).arg(release);
    progress::run("indexing the kernel's modules", &mut depmod, log)
}

/// Makes a raw ext4 image of `tree`, with `slack_mib` of free space.
///
/// # Errors
/// The tree cannot be measured, or mke2fs failed.
pub fn make_disk(tree: &Path, image: &Path, slack_mib: u64, log: &Path) -> Result<()> {
    // Every file takes at least a block and an inode; a tenth more covers directories and tables.
    let used_mib = tree_blocks(tree)? / 256;
    let size_mib = used_mib + used_mib / 8 + 16 + slack_mib;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs
        .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", "root_owner=0:0", "-d"])
        .arg(tree)
        .arg(image)
        .arg(format!("{size_mib}M"));
    progress::run(&format!("making {}", image.display()), &mut mke2fs, log)
}

/// How many blocks of 4 KiB the files below `tree` take.
fn tree_blocks(tree: &Path) -> Result<u64> {
    let mut blocks = 0;
    for entry in fs::read_dir(tree).with_context(|| format!("list {}", tree.display()))? {
        let entry = entry.with_context(|| format!("list {}", tree.display()))?;
        let meta = entry.metadata().with_context(|| format!("look at {}", entry.path().display()))?;
        blocks += 1 + meta.len().div_ceil(4096);
        if meta.is_dir() {
            blocks += tree_blocks(&entry.path())?;
        }
    }
    Ok(blocks)
}

/// The release of this Debian system, so that the testbed is of the same one.
///
/// # Errors
/// This is not Debian.
fn release_codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .context("/etc/os-release has no VERSION_CODENAME; the testbed is made from Debian's packages")
}

/// Sets mode 0755.
///
/// # Errors
/// The mode cannot be changed.
pub fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", path.display()))
}
