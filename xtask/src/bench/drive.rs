//! The drive that measurements bring into the testbed: a Debian root with QEMU for the emulated host, and with the
//! load generators for guests, which all boot from it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::testbed::image::{self, make_disk, make_executable};
use crate::{apt, cache};

/// Counts up when the steps below change in a way that changes the result.
const RECIPE: &str = "1";
/// Beside Debian's minimal base.
const PACKAGES: [&str; 4] = ["fio", "iperf3", "iproute2", "qemu-system-x86"];
/// A guest's first process, for monitors that bring none: runs the program that the kernel's command line names
/// as `bench=`, then resets the machine.
const INIT: &str = "#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
for word in $(cat /proc/cmdline); do
    case $word in bench=*) \"${word#bench=}\" </dev/null >/dev/ttyS0 2>&1 ;; esac
done
echo b >/proc/sysrq-trigger
sleep 100
";

/// The drive, a raw ext4 image, with `scripts` (name and text) in its `/bench`. Made once (about a minute).
///
/// # Errors
/// A package is missing, this process is not root while it has to be made, or a step failed.
pub fn make(scripts: &[(&str, &str)]) -> Result<PathBuf> {
    let versions = PACKAGES.iter().map(|name| apt::candidate(name)).collect::<Result<Vec<_>>>()?;
    let parts: Vec<&str> = [RECIPE, INIT].into_iter().chain(versions.iter().map(String::as_str)).collect();
    let base = cache::entry("bench", &cache::digest(&parts), bootstrap)?;
    let texts: Vec<&str> = scripts.iter().flat_map(|(name, text)| [*name, *text]).collect();
    let name = format!("drive-{}", cache::digest(&[parts, texts].concat()));
    let dir = cache::entry("bench", &name, |dir| {
        let root = base.join("rootfs");
        for (name, text) in scripts {
            let script = root.join("bench").join(name);
            fs::write(&script, text).with_context(|| format!("write {}", script.display()))?;
            make_executable(&script)?;
        }
        make_disk(&root, &dir.join("drive.img"), 16, &cache::root()?.join("bench.log"))
    })?;
    Ok(dir.join("drive.img"))
}

fn bootstrap(dir: &Path) -> Result<()> {
    apt::install(&["mmdebstrap", "e2fsprogs"])?;
    if !apt::is_root()? {
        bail!(
            "the measurements' drive is made as root, once; run: sudo --preserve-env=HOME,XDG_CACHE_HOME,PATH cargo xtask bench"
        );
    }
    let root = dir.join("rootfs");
    let log = cache::root()?.join("bench.log");
    image::bootstrap("making the measurements' root file system", &PACKAGES, &root, &log)?;
    for name in ["bench", "hv"] {
        fs::create_dir(root.join(name)).with_context(|| format!("create /{name}"))?;
    }
    let init = root.join("bench/init");
    fs::write(&init, INIT).with_context(|| format!("write {}", init.display()))?;
    make_executable(&init)
}
