//! Figures that a script prints in the testbed's counting mode, with whatever peers this machine has in its `PATH`.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::testbed::{self, Streams};
use crate::{cache, progress};

/// The first of `PATH`'s directories that has this program.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// One figure that a script in the testbed printed: four words separated by tabs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// Whose: hv or a peer.
    pub whose: String,
    /// With which kernel, disk, ...
    pub with: String,
    /// What was measured, with its unit.
    pub what: String,
    /// How much.
    pub value: u64,
}

/// Runs `script` with bash in the testbed's counting mode, with `programs` in its `PATH`, and returns the figures
/// that it printed. What it says on standard error is passed on.
///
/// # Errors
/// The testbed failed, or the script did.
pub fn count(what: &str, script: &str, arguments: &[String], programs: Vec<PathBuf>) -> Result<Vec<Figure>> {
    let dir = cache::root()?.join("bench");
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let file = dir.join(format!("{what}.sh"));
    std::fs::write(&file, script).with_context(|| format!("write {}", file.display()))?;
    let mut command = vec!["bash".to_owned(), format!("/hv/bin/{what}.sh")];
    command.extend_from_slice(arguments);
    let mut extra = programs;
    extra.push(file);
    let run = testbed::Run {
        count: true,
        cpus: 1,
        memory_mib: 2048,
        timeout: Some(Duration::from_secs(900)),
        silence: None,
        release: true,
        drives: Vec::new(),
        extra,
        env: Vec::new(),
        command,
    };
    let step = progress::Step::start(format!("measuring {what} in the testbed"));
    let output = Shared::default();
    let streams = Streams { stdin: None, stdout: Box::new(output.clone()), ..Streams::inherited() };
    let status = testbed::run(&run, streams)?;
    step.done();
    ensure!(status == 0, "the script in the testbed ended with status {status}");
    let bytes = output.0.lock().map_err(|_| anyhow::anyhow!("a thread that reads the testbed died"))?.clone();
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(figure).collect())
}

fn figure(line: &str) -> Option<Figure> {
    let [whose, with, what, value] = line.split('\t').collect::<Vec<_>>()[..] else { return None };
    let value = value.parse().ok()?;
    Some(Figure { whose: whose.into(), with: with.into(), what: what.into(), value })
}

/// The middle one; of an even number, the lower of the two in the middle.
pub fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// A growing buffer that several owners write to.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut buffer = self.0.lock().map_err(|_| std::io::Error::other("its reader died"))?;
        buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_four_words_with_a_number_are_figures() {
        let wanted = Figure { whose: "hv".into(), with: "tuned".into(), what: "exit 1024".into(), value: 7 };
        assert_eq!(figure("hv\ttuned\texit 1024\t7"), Some(wanted));
        assert_eq!(figure("hv\ttuned\tus\tmany"), None);
        assert_eq!(figure("bench: words"), None);
    }

    #[test]
    fn the_median_is_one_of_the_values() {
        assert_eq!(median(vec![5, 1, 3]), Some(3));
        assert_eq!(median(vec![4, 1, 2, 3]), Some(2));
        assert_eq!(median(vec![]), None);
    }
}
