//! What passed in the testbed already. A boot of the emulated host with all of its tests takes minutes; a
//! test that passed there is not run again while every byte that it saw is the same: the test program, hv,
//! hv-init, the kernels and the images. Go's `go test` calls such a result cached.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::programs::Program;
use crate::workspace;

/// The passed tests of one program, in the target directory: the digest of what they saw in the first line,
/// then a name in each.
pub struct Remembered {
    path: PathBuf,
    digest: String,
    passed: HashSet<String>,
}

impl Remembered {
    /// Finds what `program` passed with the same bytes. `seen` is the digest of all that its tests share.
    ///
    /// # Errors
    /// The program cannot be read.
    pub fn of(program: &Program, seen: &str) -> Result<Self> {
        let digest = digest_of(&[&program.path], &[seen])?;
        let name = program.label.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let path = workspace::target_dir().join("xtask/passed").join(name);
        let passed = read(&path, &digest);
        Ok(Self { path, digest, passed })
    }

    /// True when `test` passed.
    pub fn has(&self, test: &str) -> bool {
        self.passed.contains(test)
    }

    /// Adds tests that passed just now.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, tests: impl IntoIterator<Item = String>) -> Result<()> {
        self.passed.extend(tests);
        let mut lines: Vec<&str> = self.passed.iter().map(String::as_str).collect();
        lines.sort_unstable();
        let text = format!("{}\n{}\n", self.digest, lines.join("\n"));
        let parent = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        fs::write(&self.path, text).with_context(|| format!("write {}", self.path.display()))
    }
}

/// Absent, of another digest, or damaged: nothing is remembered.
fn read(path: &Path, digest: &str) -> HashSet<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines();
    if lines.next() != Some(digest) {
        return HashSet::new();
    }
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The SHA-256 of the contents of `files` and of `words`.
///
/// # Errors
/// A file cannot be read.
pub fn digest_of(files: &[&Path], words: &[&str]) -> Result<String> {
    let mut hash = Sha256::new();
    for path in files {
        let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        hash.update(content.len().to_le_bytes());
        hash.update(&content);
    }
    for word in words {
        hash.update(word.len().to_le_bytes());
        hash.update(word.as_bytes());
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_bytes_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/passed");
        let mut first = Remembered { path: path.clone(), digest: "1".into(), passed: HashSet::new() };
        first.add(["vm::boots".to_owned(), "ctr::ends".to_owned()]).unwrap();
        assert_eq!(read(&path, "1").len(), 2);
        assert!(read(&path, "1").contains("vm::boots"));
        assert!(read(&path, "2").is_empty());
        assert!(read(&dir.path().join("absent"), "1").is_empty());
    }

    #[test]
    fn the_digest_covers_contents_and_words_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("program");
        fs::write(&file, "ab").unwrap();
        let one = digest_of(&[&file], &["c"]).unwrap();
        assert_ne!(one, digest_of(&[&file], &["d"]).unwrap());
        fs::write(&file, "a").unwrap();
        assert_ne!(one, digest_of(&[&file], &["bc"]).unwrap());
        assert!(digest_of(&[&dir.path().join("absent")], &[]).is_err());
    }
}
