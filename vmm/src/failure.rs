//! Why a guest gave no result, in words for its user: from how the machine ended, how far the guest
//! came, and what its console said last.

use std::time::Duration;

use hv_common::{Phase, SandboxError, Timeline};

use crate::end::End;
use crate::probe::ProbeError;

/// How many of the console's last lines are shown.
const LINES: usize = 15;
/// And how long a line may be.
const COLUMNS: usize = 200;

/// What is known of a guest that gave no result.
pub struct Evidence<'a> {
    /// How its machine ended, if it did.
    pub end: Option<&'a End>,
    /// What was learned from hv-init's connection, if it broke.
    pub loss: Option<String>,
    /// What the probe found, if it was asked.
    pub probe: Option<ProbeError>,
    /// It had this long to start its workload, and that is over.
    pub too_late: Option<Duration>,
    /// The last output of its console.
    pub console: Vec<u8>,
    /// How far it came.
    pub timeline: &'a Timeline,
}

impl Evidence<'_> {
    /// The error for it.
    pub fn explain(self) -> SandboxError {
        let console = readable(&self.console);
        let reached_init = self.timeline.at(Phase::Init).is_some();
        let what = match (self.end, panic_line(&console)) {
            (Some(End::Emulation { .. }), _) => not_native(),
            (Some(end @ End::Filter(_)), _) => end.to_string(),
            (None, _) if self.probe.is_some() => not_native(),
            (
                Some(
                    end @ (End::Pin { .. }
                    | End::Internal(_)
                    | End::FailedEntry(_)
                    | End::Run(_)
                    | End::Unknown(_)),
                ),
                _,
            ) => {
                format!("{end}; `hv check` shows what this host's KVM can do{}", last_lines(&console))
            }
            (_, Some(panic)) => format!("the guest kernel panicked: {panic}{}", last_lines(&console)),
            (Some(End::Panic), None) => format!("the guest kernel panicked{}", last_lines(&console)),
            (None, None) if self.too_late.is_some() => self.late(reached_init, &console),
            (_, None) if !reached_init => {
                format!(
                    "the guest never reached hv-init{}; run it with --console to see all that its kernel says{}",
                    self.how(),
                    last_lines(&console)
                )
            }
            (_, None) => format!(
                "the guest ended without saying how its workload ended{}{}",
                self.how(),
                last_lines(&console)
            ),
        };
        let source = match (self.end, self.probe) {
            (Some(end @ End::Emulation { .. }), _) => Some(end.to_string().into()),
            (_, Some(probe)) => Some(probe.into()),
            _ => None,
        };
        SandboxError { what, source }
    }

    fn late(&self, reached_init: bool, console: &str) -> String {
        let seconds = self.too_late.unwrap_or_default().as_secs_f32();
        let how_far = if reached_init {
            "reached hv-init, but has not started its command"
        } else {
            "never reached hv-init"
        };
        format!("the guest {how_far} within the {seconds} s of --boot-timeout{}", last_lines(console))
    }

    fn how(&self) -> String {
        match (self.end, &self.loss) {
            (Some(end), _) => format!(": {end}"),
            (None, Some(loss)) => format!(": {loss}"),
            (None, None) => String::new(),
        }
    }
}

fn not_native() -> String {
    "this host's KVM cannot run a guest kernel's code natively, only emulate it, and not all of it; \
     `hv check` shows why; run the image with `hv ctr` here, or microVMs on a host with hardware virtualisation"
        .into()
}

/// Text that is safe to print on a terminal, whatever the guest wrote.
fn readable(console: &[u8]) -> String {
    String::from_utf8_lossy(console).chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}

/// What the kernel said it panicked of.
fn panic_line(console: &str) -> Option<&str> {
    let (_, rest) = console.rsplit_once("Kernel panic - not syncing: ")?;
    rest.lines().next().map(|line| cut(line.trim()))
}

fn last_lines(console: &str) -> String {
    let lines: Vec<&str> = console.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return " (its console is empty)".into();
    }
    let shown = &lines[lines.len().saturating_sub(LINES)..];
    shown.iter().fold("; its console ends with".to_owned(), |text, line| text + "\n  | " + cut(line))
}

/// The line's start, at most [`COLUMNS`] characters.
fn cut(line: &str) -> &str {
    line.char_indices().nth(COLUMNS).map_or(line, |(end, _)| &line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(end: Option<End>, console: &str, init: bool) -> SandboxError {
        let timeline = Timeline::new().unwrap();
        if init {
            timeline.mark(Phase::Init);
        }
        let console = console.as_bytes().to_vec();
        Evidence { end: end.as_ref(), loss: None, probe: None, too_late: None, console, timeline: &timeline }
            .explain()
    }

    #[test]
    fn a_panic_is_named_with_the_kernels_words() {
        let console =
            "[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n[    1.1] more\r\n";
        let error = explain(Some(End::Reset), console, false);
        assert!(
            error.what.starts_with("the guest kernel panicked: VFS: Unable to mount root fs;"),
            "{}",
            error.what
        );
        assert!(error.what.ends_with("\n  | [    1.1] more"));
    }

    #[test]
    fn how_far_the_guest_came_is_told() {
        let early = explain(Some(End::TripleFault), "", false).what;
        assert!(early.contains("never reached hv-init") && early.contains("triple fault"), "{early}");
        assert!(explain(Some(End::Reset), "", true).what.contains("without saying how its workload ended"));
    }

    #[test]
    fn a_late_guest_is_told_apart_from_one_that_ended() {
        let timeline = Timeline::new().unwrap();
        let too_late = Some(Duration::from_millis(1500));
        let explain = |end: Option<&End>| {
            let console = b"waiting for a disk\n".to_vec();
            Evidence { end, loss: None, probe: None, too_late, console, timeline: &timeline }.explain().what
        };
        let late = explain(None);
        assert!(late.contains("never reached hv-init within the 1.5 s of --boot-timeout;"), "{late}");
        assert!(late.ends_with("| waiting for a disk"), "{late}");
        assert!(explain(Some(&End::Panic)).starts_with("the guest kernel panicked;"));
        timeline.mark(Phase::Init);
        assert!(explain(None).contains("has not started its command within the 1.5 s"));
    }

    #[test]
    fn emulated_kernels_point_at_check() {
        let error = explain(Some(End::Emulation { rip: 16, bytes: vec![0xf0] }), "", false);
        assert!(error.what.contains("hv check"));
        assert!(error.source.unwrap().to_string().contains("f0"));
    }

    #[test]
    fn hostile_consoles_are_cut_and_cleaned() {
        let console = format!("\u{1b}[2J{}\n", "x".repeat(10_000)).repeat(50);
        let error = explain(Some(End::Reset), &console, false);
        assert!(error.what.len() < LINES * (COLUMNS + 10) + 300);
        assert!(!error.what.contains('\u{1b}'));
    }
}
