//! Debian's kernel for virtual machines: found, downloaded and verified by apt, unpacked by dpkg-deb.
//! Nothing is installed on the host, so it needs no root.

use std::fs;
use std::io::ErrorKind::{NotFound, PermissionDenied};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{StoreError, at};

/// Depends on the newest kernel of its kind.
const NEWEST: &str = "linux-image-cloud-amd64";

/// A version of a package.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub name: String,
    pub version: String,
}

/// The newest kernel's package.
pub(super) fn newest(report: &mut dyn FnMut(&str)) -> Result<Package, StoreError> {
    report("looking for Debian's newest kernel for virtual machines");
    if let Some(package) = look_up(&run("ask apt for a kernel", &["apt-cache", "show", NEWEST])) {
        return Ok(package);
    }
    let unknown = |why: String| StoreError::Program { doing: format!("find Debian's package {NEWEST}"), why };
    if !rustix::process::geteuid().is_root() {
        return Err(unknown("apt does not know it; run `apt-get update` as root first".into()));
    }
    report("updating apt's lists");
    run("update apt's lists", &["apt-get", "update", "-qq"])?;
    let shown = run("ask apt for a kernel", &["apt-cache", "show", NEWEST]);
    look_up(&shown).ok_or_else(|| unknown("apt does not know it, not even after `apt-get update`".into()))
}

fn look_up(shown: &Result<String, StoreError>) -> Option<Package> {
    dependency(shown.as_ref().ok()?)
}

/// The first kernel on the first `Depends:` line, with the version that is asked for: apt shows the
/// candidate's record first.
fn dependency(record: &str) -> Option<Package> {
    let depends = record.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    let wanted = depends.split([',', '|']).map(str::trim).find(|one| one.starts_with("linux-image-"))?;
    let mut words = wanted.split_ascii_whitespace();
    let name = words.next()?;
    let version = match (words.next(), words.next()) {
        (Some("(="), Some(version)) => version.strip_suffix(')')?,
        _ => "",
    };
    let is_safe =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.~:".contains(&byte));
    (is_safe(name) && is_safe(version)).then(|| Package { name: name.into(), version: version.into() })
}

/// Fills `dir` with `vmlinuz`, `config-RELEASE` and `lib/modules/RELEASE` from the package; gives the
/// release.
pub(super) fn fetch(
    package: &Package,
    dir: &Path,
    report: &mut dyn FnMut(&str),
) -> Result<String, StoreError> {
    let work = dir.join("work");
    let unpacked = work.join("unpacked");
    fs::create_dir_all(&unpacked).map_err(at("make", &unpacked))?;
    report(&format!("downloading {}", package.name));
    let wanted = match package.version.as_str() {
        "" => package.name.clone(),
        version => format!("{}={version}", package.name),
    };
    // apt's own user could not write here; what it downloads is verified all the same.
    let options = ["-o", "APT::Sandbox::User=root", "-o", "APT::Get::AllowUnauthenticated=false"];
    let download = [&["apt-get", "-q"][..], &options, &["download", &wanted]].concat();
    run_in(&work, &format!("download {wanted}"), &download)?;
    let archive = entries(&work)?.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
    let missing = |what: &str| StoreError::Program {
        doing: format!("unpack {wanted}"),
        why: format!("it has no {what}"),
    };
    let archive = archive.ok_or_else(|| missing("file"))?;
    report(&format!("unpacking {}", package.name));
    let (from, to) = (archive.to_string_lossy(), unpacked.to_string_lossy());
    run("unpack the package", &["dpkg-deb", "-x", &from, &to])?;
    let release = keep(&unpacked, dir).map_err(|what| missing(&what))?;
    fs::remove_dir_all(&work).map_err(at("remove", &work))?;
    Ok(release)
}

/// Moves what is needed; says what is not there.
fn keep(unpacked: &Path, dir: &Path) -> Result<String, String> {
    let boot = entries(&unpacked.join("boot")).unwrap_or_default();
    let release = |path: &PathBuf| Some(path.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned());
    let release = boot.iter().find_map(release).ok_or("boot/vmlinuz-RELEASE")?;
    let config = format!("config-{release}");
    let moved = |from: PathBuf, to: PathBuf| fs::rename(from, to).is_ok();
    if !moved(unpacked.join("boot").join(format!("vmlinuz-{release}")), dir.join("vmlinuz")) {
        return Err("boot/vmlinuz-RELEASE".into());
    }
    moved(unpacked.join("boot").join(&config), dir.join(&config));
    let modules = dir.join("lib/modules");
    fs::create_dir_all(&modules).map_err(|error| format!("place for modules: {error}"))?;
    let found = ["lib/modules", "usr/lib/modules"]
        .iter()
        .any(|place| moved(unpacked.join(place).join(&release), modules.join(&release)));
    if found { Ok(release) } else { Err(format!("lib/modules/{release}")) }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let listed = fs::read_dir(dir).map_err(at("read", dir))?;
    Ok(listed.flatten().map(|entry| entry.path()).collect())
}

fn run(doing: &str, words: &[&str]) -> Result<String, StoreError> {
    run_in(Path::new("/"), doing, words)
}

/// Runs a program; gives what it prints. What it says when it fails becomes the error.
fn run_in(dir: &Path, doing: &str, words: &[&str]) -> Result<String, StoreError> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(dir).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
    let failed = |why: String| StoreError::Program { doing: doing.into(), why };
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if matches!(error.kind(), NotFound | PermissionDenied) => {
            let program = if words[0] == "dpkg-deb" { "dpkg-deb" } else { "apt" };
            return Err(StoreError::NotDebian { program });
        }
        Err(error) => return Err(failed(error.to_string())),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(failed(format!("{} failed ({}): {}", words[0], output.status, last.join("; "))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_apt_prints_never_becomes_an_option(record in "(Depends: ?)?[-a-z=(), |$./]{0,60}\n?.{0,20}") {
            if let Some(package) = dependency(&record) {
                prop_assert!(package.name.starts_with("linux-image-") && !package.name.contains(['/', ' ', '=']));
            }
        }
    }

    #[test]
    fn the_kernel_is_read_from_aptss_record() {
        let record = "Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\n\
            Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n\nPackage: old\nDepends: linux-image-5 (= 5)\n";
        let package = dependency(record).unwrap();
        assert_eq!(
            package,
            Package { name: "linux-image-6.1.0-56-cloud-amd64".into(), version: "6.1.192-2".into() }
        );
        let open = dependency("Depends: x, linux-image-6.12-cloud-amd64\n").unwrap();
        assert_eq!((open.name.as_str(), open.version.as_str()), ("linux-image-6.12-cloud-amd64", ""));
        assert_eq!(dependency("Depends: linux-image-$(x)\n"), None);
        assert_eq!(dependency("N: nothing\n"), None);
    }

    #[test]
    fn a_failing_program_is_quoted() {
        let error = run("try", &["sh", "-c", "echo one >&2; echo two >&2; exit 3"]).unwrap_err().to_string();
        assert!(error.starts_with("cannot try: sh failed") && error.ends_with("one; two"), "{error}");
        assert!(matches!(run("try", &["no-such-program-of-hv"]), Err(StoreError::NotDebian { .. })));
    }

    #[test]
    fn what_is_needed_of_a_package_is_kept() {
        let work = tempfile::tempdir().unwrap();
        let (unpacked, dir) = (work.path().join("unpacked"), work.path().join("kernel"));
        fs::create_dir_all(unpacked.join("boot")).unwrap();
        fs::create_dir_all(unpacked.join("usr/lib/modules/6.1-x/kernel")).unwrap();
        fs::create_dir_all(&dir).unwrap();
        assert!(keep(&unpacked, &dir).unwrap_err().contains("vmlinuz"));
        fs::write(unpacked.join("boot/vmlinuz-6.1-x"), b"kernel").unwrap();
        fs::write(unpacked.join("boot/config-6.1-x"), b"").unwrap();
        assert_eq!(keep(&unpacked, &dir).unwrap(), "6.1-x");
        assert!(dir.join("vmlinuz").is_file() && dir.join("config-6.1-x").is_file());
        assert!(dir.join("lib/modules/6.1-x/kernel").is_dir());
    }
}
