//! Long steps that never look stuck: on a terminal one line with the time so far, elsewhere a line
//! every half minute; a step that is over within two seconds says nothing. All of it on standard error;
//! standard output belongs to results.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How many lines of a failed command's log are shown.
const LOG_TAIL_LINES: usize = 40;

/// How long a step stays silent.
const SILENT: Duration = Duration::from_secs(2);

/// A step under way; its ticker stops and the closing line is printed when it is finished or dropped.
pub struct Step {
    label: String,
    started: Instant,
    /// Ends the ticking when dropped; the thread returns whether it has printed anything.
    ticker: Option<(Sender<()>, JoinHandle<bool>)>,
}

impl Step {
    /// Announces `label` and starts ticking.
    pub fn start(label: impl Into<String>) -> Self {
        let label = label.into();
        let started = Instant::now();
        let (stop, stopped) = mpsc::channel();
        let ticking = label.clone();
        let thread = std::thread::spawn(move || tick(&ticking, started, &stopped));
        Self { label, started, ticker: Some((stop, thread)) }
    }

    /// Ends the step with the word `done` and the time it took.
    pub fn done(mut self) {
        self.close("done");
    }

    fn close(&mut self, word: &str) {
        let Some((stop, thread)) = self.ticker.take() else { return };
        drop(stop);
        // The ticker only prints; if it panicked there is nothing to save.
        if thread.join().unwrap_or(false) {
            let clear = if std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
            eprintln!("{clear}{} ... {word} in {}", self.label, human(self.started.elapsed()));
        }
    }
}

/// Prints the time so far until `stopped` is closed; returns whether it printed anything.
fn tick(label: &str, started: Instant, stopped: &Receiver<()>) -> bool {
    let terminal = std::io::stderr().is_terminal();
    let mut period = SILENT;
    let mut printed = false;
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(period) {
        if terminal {
            eprint!("\r\x1b[K{label} ... {}", human(started.elapsed()));
            // A terminal that has gone away is no reason to stop the step.
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{label} ... {}", human(started.elapsed()));
        }
        period = Duration::from_secs(if terminal { 1 } else { 30 });
        printed = true;
    }
    printed
}

impl Drop for Step {
    fn drop(&mut self) {
        self.close("failed");
    }
}

/// Runs `command` as a step, its output going to `log`; a failure shows the end of the log.
///
/// # Errors
/// The command could not be started or did not succeed.
pub fn run(label: &str, command: &mut Command, log: &Path) -> Result<()> {
    let step = Step::start(label);
    let status = logged(command, log)?;
    if !status.success() {
        drop(step);
        let text = std::fs::read(log).unwrap_or_default();
        bail!("{label}: {status}; end of {}:\n{}", log.display(), tail(&text, LOG_TAIL_LINES));
    }
    step.done();
    Ok(())
}

/// Runs `command` with both outputs appended to `log`.
fn logged(command: &mut Command, log: &Path) -> Result<ExitStatus> {
    let out = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("open the log {}", log.display()))?;
    let err = out.try_clone().context("duplicate the log's descriptor")?;
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(out).stderr(err).status().with_context(|| format!("run {program}"))
}

/// The last `lines` lines of `text`, with anything that is not UTF-8 replaced.
pub fn tail(text: &[u8], lines: usize) -> String {
    let text = String::from_utf8_lossy(text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// `75 s` as `1m15s`.
pub fn human(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    if seconds < 60 {
        format!("{}.{}s", seconds, elapsed.subsec_millis() / 100)
    } else {
        format!("{}m{:02}s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_keeps_the_end() {
        assert_eq!(tail(b"a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail(b"a", 2), "a");
        assert_eq!(tail(b"", 2), "");
    }

    #[test]
    fn human_switches_to_minutes() {
        assert_eq!(human(Duration::from_millis(1250)), "1.2s");
        assert_eq!(human(Duration::from_secs(75)), "1m15s");
    }
}
