//! The testbed's second disk: what the working tree built, and what is to be run, made anew for each run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::image::{Host, make_disk, make_executable};
use crate::{cache, kernel, rootfs};

/// Free space on the disk, for what a run writes below /hv.
const SLACK_MIB: u64 = 1024;
const INIT: &str = include_str!("guest/init.sh");

/// What goes on the disk beside the fixed part.
pub struct Contents<'a> {
    /// Directory that has `hv`, `hv-init` and `hv-probe`.
    pub bin_dir: &'a Path,
    /// More files for /hv/bin.
    pub extra: &'a [PathBuf],
    /// Words of the command to run.
    pub command: &'a [String],
    /// More environment variables for it.
    pub env: &'a [(String, String)],
}

/// Makes the disk as `image`, using `staging` (which must not exist yet) for the tree it is made from.
///
/// # Errors
/// A program is missing, or a file operation failed.
pub fn make(host: &Host, contents: &Contents<'_>, staging: &Path, image: &Path) -> Result<()> {
    for dir in ["bin", "testbed", "kernels/debian", "images"] {
        let dir = staging.join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    }
    for program in ["hv", "hv-init", "hv-probe"] {
        let from = contents.bin_dir.join(program);
        ensure!(from.is_file(), "{} is not there; build it first", from.display());
        place(&from, &staging.join("bin").join(program))?;
    }
    for file in contents.extra {
        let name = file.file_name().with_context(|| format!("{} has no file name", file.display()))?;
        place(file, &staging.join("bin").join(name))?;
    }
    let mut env = fixed_env(host)?;
    let release = host.kernel_version()?;
    link(&format!("/boot/vmlinuz-{release}"), &staging.join("kernels/debian/bzImage"))?;
    link(&format!("/lib/modules/{release}"), &staging.join("kernels/debian/modules"))?;
    if let Some(tuned) = kernel::tuned_if_cached()? {
        fs::create_dir_all(staging.join("kernels/tuned")).context("create kernels/tuned")?;
        for name in ["vmlinux", "bzImage"] {
            place(&tuned.join(name), &staging.join("kernels/tuned").join(name))?;
        }
        env.push(("HV_TEST_KERNEL".into(), "/hv/kernels/tuned/vmlinux".into()));
    }
    copy_tree(&rootfs::demo()?, &staging.join("images"))?;
    env.extend_from_slice(contents.env);

    let init = staging.join("testbed/init");
    fs::write(&init, INIT).with_context(|| format!("write {}", init.display()))?;
    make_executable(&init)?;
    let command = staging.join("testbed/command");
    fs::write(&command, script(&env, contents.command))
        .with_context(|| format!("write {}", command.display()))?;
    make_disk(staging, image, SLACK_MIB, &cache::root()?.join("testbed.log"))?;
    cache::remove_tree(staging)
}

/// What every command in the testbed is told.
fn fixed_env(host: &Host) -> Result<Vec<(String, String)>> {
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let release = host.kernel_version()?;
    Ok(vec![
        pair("HV_BIN_DIR", "/hv/bin".into()),
        pair("HV_TEST_VM", "1".into()),
        pair("HV_TEST_DEBIAN_KERNEL", format!("/boot/vmlinuz-{release}")),
        pair("HV_TEST_MODULES", format!("/lib/modules/{release}")),
        pair("HV_TEST_IMAGES", "/hv/images".into()),
    ])
}

/// The shell script that becomes the command.
fn script(env: &[(String, String)], command: &[String]) -> String {
    let mut text = String::new();
    for (name, value) in env {
        text.push_str(&format!("export {name}={}\n", quoted(value)));
    }
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    text.push_str(&format!("exec {}\n", words.join(" ")));
    text
}

/// `word` so that a POSIX shell reads it back unchanged.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A hard link where that is possible, else a copy.
fn place(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

fn link(target: &str, at: &Path) -> Result<()> {
    std::os::unix::fs::symlink(target, at).with_context(|| format!("link {}", at.display()))
}

/// Copies what is in `from` into the directory `to`, links as links.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let status =
        Command::new("cp").args(["-a", "--link"]).arg(from.join(".")).arg(to).status().context("run cp")?;
    ensure!(status.success(), "copy {} to {}: {status}", from.display(), to.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        let words = ["a b", "it's", "$HOME `x` \\ \" *", "", "-n", "line\nbreak"].map(str::to_owned);
        let env = [("NAME".to_owned(), "va'lue $x".to_owned())];
        let command: Vec<String> = ["sh", "-c", r#"printf '%s|' "$NAME" "$@""#, "sh"]
            .map(str::to_owned)
            .into_iter()
            .chain(words)
            .collect();
        let output = Command::new("sh").arg("-c").arg(script(&env, &command)).output().expect("run sh");
        assert_eq!(
            String::from_utf8(output.stdout).expect("UTF-8"),
            "va'lue $x|a b|it's|$HOME `x` \\ \" *||-n|line\nbreak|"
        );
    }
}
