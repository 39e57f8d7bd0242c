//! Debian packages: what is installed, what could be, and how to get it. `apt` verifies what it fetches
//! against the signed package lists; nothing is fetched any other way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::{cache, progress};

/// Sees to it that every one of `packages` is installed: by apt when this process is root, else by
/// saying which one line would do it.
///
/// # Errors
/// Something is missing and this process may not install it, or apt failed.
pub fn install(packages: &[&str]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !is_root()? {
        bail!("Debian packages are missing; run: sudo apt-get install --no-install-recommends {names}");
    }
    if missing.iter().any(|package| candidate_in_lists(package).ok().flatten().is_none()) {
        update()?;
    }
    let log = log_file()?;
    progress::run(
        &format!("installing {names}"),
        apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&missing),
        &log,
    )
}

/// The version of `package` that apt would install, refreshing the package lists when they don't know it.
///
/// # Errors
/// apt does not know the package, or its lists could not be refreshed.
pub fn candidate(package: &str) -> Result<String> {
    if let Some(version) = candidate_in_lists(package)? {
        return Ok(version);
    }
    if !is_root()? {
        bail!("apt's lists do not have the package {package}; run: sudo apt-get update");
    }
    update()?;
    candidate_in_lists(package)?.with_context(|| format!("apt does not know the package {package}"))
}

/// Downloads `package` at exactly `version` into `dir`, without installing it, and unpacks it to `to`.
///
/// # Errors
/// The download or the unpacking failed.
pub fn download_and_unpack(package: &str, version: &str, dir: &Path, to: &Path) -> Result<()> {
    let log = log_file()?;
    let fetch = |log: &Path| {
        progress::run(
            &format!("downloading {package} {version}"),
            apt_get()
                .args(["download", "-o", "APT::Sandbox::User=root"])
                .arg(format!("{package}={version}"))
                .current_dir(dir),
            log,
        )
    };
    // Lists that are older than the archive name files that are gone from it.
    if let Err(error) = fetch(&log) {
        if !is_root()? {
            return Err(error.context("the package lists may be old; try: sudo apt-get update"));
        }
        update()?;
        fetch(&log)?;
    }
    let file = downloaded(package, dir)?;
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    let mut unpack = Command::new("dpkg-deb");
    progress::run(&format!("unpacking {package}"), unpack.arg("-x").arg(&file).arg(to), &log)?;
    fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
}

/// The packages that `package` at `version` depends on, first alternatives only.
///
/// # Errors
/// apt-cache could not be run.
pub fn dependencies(package: &str, version: &str) -> Result<Vec<String>> {
    let text = output(Command::new("apt-cache").args(["show", &format!("{package}={version}")]))?;
    Ok(first_alternatives(&text))
}

/// The `Depends:` line of a package's record, as bare names.
fn first_alternatives(record: &str) -> Vec<String> {
    let line = record.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or("");
    line.split(',')
        .filter_map(|dependency| dependency.split(['|', '(']).next())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// True when this process has user id 0.
///
/// # Errors
/// /proc is not mounted.
pub fn is_root() -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata("/proc/self").context("read the owner of /proc/self")?.uid() == 0)
}

fn missing(packages: &[&str]) -> Result<Vec<String>> {
    // dpkg-query fails when one of the names is unknown to it; what it prints is right all the same.
    let reply = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status} ${Package}\\n"])
        .args(packages)
        .stderr(Stdio::null())
        .output()
        .context("run dpkg-query (this task needs a Debian system)")?;
    let text = String::from_utf8_lossy(&reply.stdout);
    let installed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
    Ok(packages.iter().filter(|name| !installed.contains(*name)).map(|name| (*name).to_owned()).collect())
}

fn candidate_in_lists(package: &str) -> Result<Option<String>> {
    let text = output(Command::new("apt-cache").args(["policy", package]))?;
    let version = text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    Ok(version.filter(|version| *version != "(none)").map(str::to_owned))
}

fn update() -> Result<()> {
    progress::run("updating the package lists", apt_get().arg("update"), &log_file()?)
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet");
    command
}

fn downloaded(package: &str, dir: &Path) -> Result<PathBuf> {
    let prefix = format!("{package}_");
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry.with_context(|| format!("list {}", dir.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) && name.ends_with(".deb") {
            return Ok(entry.path());
        }
    }
    bail!("apt downloaded no {package} into {}", dir.display())
}

/// The standard output of a command that must succeed.
fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let reply = command.env("LC_ALL", "C").output().with_context(|| format!("run {name}"))?;
    ensure!(reply.status.success(), "{name}: {}", String::from_utf8_lossy(&reply.stderr).trim());
    Ok(String::from_utf8_lossy(&reply.stdout).into_owned())
}

fn log_file() -> Result<PathBuf> {
    Ok(cache::root()?.join("apt.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_bare_first_alternatives() {
        let record =
            "Package: m\nDepends: linux-image-6.1.0-50-cloud-amd64 (= 6.1.1-1), a | b, c:any\nSize: 1\n";
        assert_eq!(first_alternatives(record), ["linux-image-6.1.0-50-cloud-amd64", "a", "c:any"]);
        assert!(first_alternatives("Package: m\n").is_empty());
    }
}
