//! The tuned microVM kernel: Debian's kernel source, `make tinyconfig`, and the fragment in
//! `guest-images/kernel/microvm.config`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{apt, cache, progress, workspace};

const SOURCE_PACKAGE: &str = "linux-source-6.1";
const FRAGMENT: &str = "guest-images/kernel/microvm.config";
/// Counts up when the steps below change in a way that changes the result.
const RECIPE: &str = "1";
const BUILD_PACKAGES: [&str; 9] =
    ["build-essential", "flex", "bison", "bc", "libelf-dev", "libssl-dev", "lz4", "xz-utils", "cpio"];

/// The directory with the tuned kernel's `vmlinux`, `bzImage`, `config` and `System.map`; built when it
/// is not in the cache.
///
/// # Errors
/// A package is missing, an option of the fragment did not survive Kconfig, or the build failed.
pub fn tuned() -> Result<PathBuf> {
    let fragment = fragment()?;
    let version = apt::candidate(SOURCE_PACKAGE)?;
    cache::entry("kernels", &entry_name(&fragment, &version), |dir| build(dir, &fragment, &version))
}

/// The same directory if it has been built already.
///
/// # Errors
/// The fragment or the cache cannot be read.
pub fn tuned_if_cached() -> Result<Option<PathBuf>> {
    let dir = cache::root()?.join("kernels").join(entry_name(&fragment()?, &apt::candidate(SOURCE_PACKAGE)?));
    Ok(dir.is_dir().then_some(dir))
}

fn fragment() -> Result<String> {
    let path = workspace::root().join(FRAGMENT);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

fn entry_name(fragment: &str, version: &str) -> String {
    // What it says, not how it is explained.
    let said: Vec<&str> = options(fragment).collect();
    format!("tuned-{}", cache::digest(&[RECIPE, &said.join("\n"), version]))
}

/// The lines of a fragment that are not comments.
fn options(fragment: &str) -> impl Iterator<Item = &str> {
    fragment.lines().filter(|line| line.starts_with("CONFIG_") || line.starts_with("# CONFIG_"))
}

fn build(dir: &Path, fragment: &str, version: &str) -> Result<()> {
    apt::install(&BUILD_PACKAGES)?;
    let work = dir.join("work");
    let unpacked = work.join("package");
    fs::create_dir(&work).with_context(|| format!("create {}", work.display()))?;
    apt::download_and_unpack(SOURCE_PACKAGE, version, &work, &unpacked)?;
    let archive = unpacked.join(format!("usr/src/{SOURCE_PACKAGE}.tar.xz"));
    let log = cache::root()?.join("kernel.log");
    let mut untar = Command::new("tar");
    untar.arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(&work);
    progress::run("unpacking the kernel source", &mut untar, &log)?;

    let tree = work.join(SOURCE_PACKAGE);
    configure(&tree, fragment, &log)?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut make = Command::new("make");
    make.args(["--silent", &format!("--jobs={jobs}"), "vmlinux", "bzImage"]);
    progress::run("building the tuned kernel (some minutes)", reproducible(make.current_dir(&tree)), &log)?;

    let mut strip = Command::new("objcopy");
    strip.arg("--strip-all").arg(tree.join("vmlinux")).arg(dir.join("vmlinux"));
    progress::run("stripping the kernel", &mut strip, &log)?;
    for (from, to) in
        [("arch/x86/boot/bzImage", "bzImage"), (".config", "config"), ("System.map", "System.map")]
    {
        fs::copy(tree.join(from), dir.join(to)).with_context(|| format!("copy the kernel's {from}"))?;
    }
    cache::remove_tree(&work)
}

/// tinyconfig, the fragment on top, and the proof that all of the fragment was kept.
fn configure(tree: &Path, fragment: &str, log: &Path) -> Result<()> {
    let make = |target: &str| {
        let mut command = Command::new("make");
        command.args(["--silent", target]).current_dir(tree);
        progress::run(&format!("make {target}"), &mut command, log)
    };
    make("tinyconfig")?;
    let base = tree.join("base.config");
    fs::rename(tree.join(".config"), &base).context("keep tinyconfig's result")?;
    let wanted = tree.join("microvm.config");
    fs::write(&wanted, fragment).context("write the fragment into the tree")?;
    let mut merge = Command::new("scripts/kconfig/merge_config.sh");
    merge.arg("-n").arg(&base).arg(&wanted).current_dir(tree);
    progress::run("merging the kernel's configuration", &mut merge, log)?;
    make("olddefconfig")?;

    let config = fs::read_to_string(tree.join(".config")).context("read the kernel's .config")?;
    let lost = not_kept(fragment, &config);
    if !lost.is_empty() {
        bail!("{FRAGMENT}: Kconfig did not keep:\n  {}", lost.join("\n  "));
    }
    ensure!(options(fragment).next().is_some(), "{FRAGMENT} names no option");
    Ok(())
}

/// The lines of `fragment` that `config` does not satisfy. An option that is to be off may be absent.
fn not_kept<'a>(fragment: &'a str, config: &str) -> Vec<&'a str> {
    let set: std::collections::HashSet<&str> = config.lines().collect();
    let kept = |line: &str| match line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set")) {
        Some(option) => {
            let assigned = format!("{option}=");
            !config.lines().any(|line| line.starts_with(&assigned))
        }
        None => set.contains(line),
    };
    options(fragment).filter(|line| !kept(line)).collect()
}

/// No build time, user or host in the result.
fn reproducible(command: &mut Command) -> &mut Command {
    command
        .env("KBUILD_BUILD_TIMESTAMP", "1970-01-01")
        .env("KBUILD_BUILD_USER", "hv")
        .env("KBUILD_BUILD_HOST", "hv")
        .env("KBUILD_BUILD_VERSION", "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_kconfig_dropped_are_named() {
        let fragment =
            "# words\nCONFIG_A=y\nCONFIG_B=y\nCONFIG_N=64\n# CONFIG_C is not set\n# CONFIG_D is not set\n";
        let config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_N=8\nCONFIG_D=y\n";
        assert_eq!(not_kept(fragment, config), ["CONFIG_B=y", "CONFIG_N=64", "# CONFIG_D is not set"]);
    }

    #[test]
    fn explaining_an_option_does_not_rebuild_the_kernel() {
        let plain = entry_name("CONFIG_A=y\n# CONFIG_B is not set\n", "1");
        assert_eq!(plain, entry_name("# why\nCONFIG_A=y\n\n# CONFIG_B is not set\n", "1"));
        assert_ne!(plain, entry_name("CONFIG_A=y\n", "1"));
        assert_ne!(plain, entry_name("CONFIG_A=y\n# CONFIG_B is not set\n", "2"));
    }

    #[test]
    fn an_option_is_not_confused_with_a_longer_name() {
        assert!(not_kept("# CONFIG_VT is not set\n", "CONFIG_VT_CONSOLE=y\n").is_empty());
    }
}
