//! The workspace's test programs: built once, listed, and run by name.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::progress::{self, Step};
use crate::workspace;

/// How long one test program may take, in seconds.
pub const LIMIT_SECONDS: u32 = 900;

/// One test program.
pub struct Program {
    /// `package/target`, for people.
    pub label: String,
    /// The executable.
    pub path: PathBuf,
    /// Where its package is; tests run there.
    pub package_dir: PathBuf,
    /// The names of its tests.
    pub tests: Vec<String>,
}

impl Program {
    /// The tests for which `wanted` holds for one of the segments of their paths.
    pub fn tests_with_segment(&self, wanted: &[&str]) -> Vec<&str> {
        self.tests.iter().map(String::as_str).filter(|name| has_segment(name, wanted)).collect()
    }

    /// The other tests.
    pub fn tests_without_segment(&self, unwanted: &[&str]) -> Vec<&str> {
        self.tests.iter().map(String::as_str).filter(|name| !has_segment(name, unwanted)).collect()
    }

    /// Runs the named tests here, and returns what it printed.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn run(&self, tests: &[&str], env: &[(String, String)]) -> Result<Output> {
        Command::new("timeout")
            .args(["--kill-after=5", &LIMIT_SECONDS.to_string()])
            .arg(&self.path)
            .args(["--show-output", "--exact"])
            .args(tests)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.package_dir)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run the tests of {}", self.label))
    }
}

/// True when one of the `::`-separated parts of `name` is one of `wanted`.
fn has_segment(name: &str, wanted: &[&str]) -> bool {
    name.split("::").any(|segment| wanted.contains(&segment))
}

/// Builds hv, hv-init and every test program, in the dev profile.
///
/// # Errors
/// Something does not compile.
pub fn build(log: &Path) -> Result<Vec<Program>> {
    let root = workspace::root();
    let step = Step::start("building hv and its tests");
    let error_log = File::options().create(true).append(true).open(log).context("open the build's log")?;
    // In one command: with the features that the tests ask of libraries, so that nothing is compiled twice.
    let output = Command::new("cargo")
        .args(["build", "--workspace", "--bins", "--tests", "--message-format=json-render-diagnostics"])
        .current_dir(root)
        .stdin(Stdio::null())
        .stderr(error_log)
        .output()
        .context("run cargo build --tests")?;
    if !output.status.success() {
        let text = std::fs::read(log).unwrap_or_default();
        anyhow::bail!("the tests do not compile:\n{}", progress::tail(&text, 100));
    }
    step.done();
    executables(&String::from_utf8_lossy(&output.stdout)).into_iter().map(list).collect()
}

/// The test programs named in cargo's messages.
fn executables(messages: &str) -> Vec<Program> {
    let mut seen = HashSet::new();
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["profile"]["test"] == true)
        .filter_map(|message| {
            let path = PathBuf::from(message["executable"].as_str()?);
            let package_dir = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
            // The root package is `hv`; the others are called after their directories.
            let package = match package_dir.strip_prefix(workspace::root()) {
                Ok(path) if path == Path::new("") => "hv".to_owned(),
                Ok(path) => path.display().to_string(),
                Err(_) => package_dir.display().to_string(),
            };
            let target = message["target"]["name"].as_str()?;
            let kind = message["target"]["kind"][0].as_str()?;
            let label = format!("{package}/{target} ({kind})");
            seen.insert(path.clone()).then(|| Program { label, path, package_dir, tests: Vec::new() })
        })
        .collect()
}

/// Asks the program for the names of its tests.
fn list(mut program: Program) -> Result<Program> {
    let output = Command::new(&program.path)
        .args(["--list", "--format=terse"])
        .current_dir(&program.package_dir)
        .output()
        .with_context(|| format!("list the tests of {}", program.label))?;
    ensure!(output.status.success(), "{} does not list its tests: {}", program.label, output.status);
    program.tests = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect();
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_compared_whole() {
        assert!(has_segment("vm::boots", &["vm"]));
        assert!(has_segment("exit::vm::code", &["ctr", "vm"]));
        assert!(!has_segment("kvm::tests::opens", &["vm"]));
        assert!(!has_segment("vm_starts", &["vm"]));
    }

    #[test]
    fn only_test_programs_are_taken_and_only_once() {
        let artifact = |test: bool, path: &str| {
            let manifest = workspace::root().join("vmm/Cargo.toml");
            let manifest = manifest.display();
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"{manifest}","profile":{{"test":{test}}},"target":{{"name":"hv-vmm","kind":["lib"]}},"executable":"{path}"}}"#
            )
        };
        let messages =
            [artifact(true, "/t/a"), artifact(false, "/t/b"), artifact(true, "/t/a"), "noise".into()];
        let found = executables(&messages.join("\n"));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].label, "vmm/hv-vmm (lib)");
        assert_eq!(found[0].package_dir, workspace::root().join("vmm"));
    }
}
