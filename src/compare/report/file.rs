//! A report as a JSON file (`docs/report-format.md`): written whole or not at all, and read as if somebody
//! hostile had written it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::compare::ablate::effects::{self, Effect};
use crate::compare::figures::{self, Figure};
use crate::compare::{Inside, REPORT_VERSION, Report, Scale};
use crate::error::{Failure, Result};

/// The largest file that is read, in bytes.
const SIZE_LIMIT: u64 = 256 << 20;
/// The most samples, blocks and contenders that are taken.
const SAMPLES_LIMIT: usize = 1_000_000;
const CONTENDERS_LIMIT: usize = 32;
/// Longer words are cut when they are shown.
const WORD_LIMIT: usize = 1000;

/// The file's content: the report, and the figures that its samples give.
#[derive(Serialize)]
struct Content<'a> {
    #[serde(flatten)]
    report: &'a Report,
    figures: Vec<Figure>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    effects: Vec<Effect>,
}

/// The one field that is looked at before the others.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Writes beside the file and renames, so that it is whole or absent.
///
/// # Errors
/// The file cannot be written.
pub fn write(report: &Report, path: &Path) -> Result<()> {
    let content = Content { report, figures: figures::all(report), effects: effects::all(report) };
    let mut text = serde_json::to_vec_pretty(&content)?;
    text.push(b'\n');
    place(&text, path)
}

/// Writes `content` as `path`, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn place(content: &[u8], path: &Path) -> Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |source| Failure::new(format!("cannot write {}", path.display()), source);
    // As readable as the user's other files: the umask takes away what it takes from them.
    let readable = std::fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(dir).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Reads a report back; what it says of its figures is not believed but computed again.
///
/// # Errors
/// The file cannot be read, is too large, is no report, is of a newer version, or contradicts itself.
pub fn read(path: &Path) -> Result<Report> {
    let failed = |source| Failure::new(format!("cannot read {}", path.display()), source);
    let file = File::open(path).map_err(failed)?;
    let mut text = Vec::new();
    file.take(SIZE_LIMIT + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > SIZE_LIMIT {
        return Err(Failure::refused(format!("{} is too large for a report of hv compare", path.display())));
    }
    parse(&text).map_err(|why| Failure::refused(format!("{} {why}", path.display())))
}

fn parse(text: &[u8]) -> std::result::Result<Report, String> {
    let no_report = |error: serde_json::Error| format!("is no report of hv compare: {error}");
    let Versioned { version } = serde_json::from_slice(text).map_err(no_report)?;
    if version == 0 || version > REPORT_VERSION {
        return Err(format!(
            "is a report of version {version}; this hv reads up to {REPORT_VERSION}: take a newer hv"
        ));
    }
    let mut report: Report = serde_json::from_slice(text).map_err(no_report)?;
    let blocks = report.runs.saturating_add(report.warm_up);
    if blocks > SAMPLES_LIMIT || report.samples.len() > SAMPLES_LIMIT {
        return Err("has more blocks or samples than a report can have".into());
    }
    if report.contenders.is_empty() || report.contenders.len() > CONTENDERS_LIMIT {
        return Err("names no contender, or too many".into());
    }
    if report.scale.iter().any(|scale| starts(scale) > SAMPLES_LIMIT) {
        return Err("has more rounds or starts than a report can have".into());
    }
    if report.ablation.iter().any(|ablation| ablation.trials.len() > SAMPLES_LIMIT) {
        return Err("has more launches of switches than a report can have".into());
    }
    if report.inside.iter().any(|inside| outcomes(inside) > SAMPLES_LIMIT || inside.count() > SAMPLES_LIMIT) {
        return Err("has more rounds or workloads than a report can have".into());
    }
    if let Some(sample) = report.samples.iter().find(|sample| sample.block >= blocks) {
        return Err(format!("has a sample of block {}, and only {blocks} blocks", sample.block));
    }
    clean_all(&mut report);
    Ok(report)
}

/// Starts of all rounds, and the rounds.
fn starts(scale: &Scale) -> usize {
    scale.rounds.iter().map(|round| 1 + round.steps.len() + round.burst.len()).sum()
}

/// Workloads of all rounds, and the rounds.
fn outcomes(inside: &Inside) -> usize {
    inside.rounds.iter().map(|round| 1 + round.done.len()).sum()
}

fn clean_all(report: &mut Report) {
    let host = &mut report.host;
    let words =
        [&mut report.hv, &mut report.image, &mut report.workload, &mut report.limits, &mut report.stopped];
    let of_host = [&mut host.cpu, &mut host.kernel, &mut host.cgroup];
    let skipped = report.skipped.values_mut();
    let of_samples = report
        .samples
        .iter_mut()
        .flat_map(|sample| sample.failure.iter_mut().chain(sample.memory.gaps.iter_mut()));
    let of_rounds = report.scale.iter_mut().flat_map(|scale| &mut scale.rounds);
    let of_rounds = of_rounds.flat_map(|round| &mut round.failure);
    let trials = report.ablation.iter_mut().flat_map(|ablation| &mut ablation.trials);
    let of_trials = trials.flat_map(|trial| trial.failure.iter_mut().chain([&mut trial.switch]));
    for round in report.inside.iter_mut().flat_map(|inside| &mut inside.rounds) {
        let of_work = round.done.iter_mut().map(|done| &mut done.outcome);
        let words = of_work.flat_map(|outcome| {
            [&mut outcome.name].into_iter().chain(&mut outcome.place).chain(&mut outcome.failure)
        });
        words.chain(&mut round.failure).for_each(|word| *word = clean(word));
    }
    let all = words.into_iter().chain(of_host).chain(&mut host.stamps).chain(&mut report.guest_kernel);
    all.chain(skipped)
        .chain(of_samples)
        .chain(of_rounds)
        .chain(of_trials)
        .for_each(|word| *word = clean(word));
    let settings = std::mem::take(&mut host.settings);
    host.settings = settings.iter().map(|(name, value)| (clean(name), clean(value))).collect();
    for sample in &mut report.samples {
        let crossings = std::mem::take(&mut sample.crossings);
        if let Some(conditions) = &mut sample.conditions {
            conditions.cpus = clean(&conditions.cpus);
            conditions.namespaces.iter_mut().for_each(|name| *name = clean(name));
        }
        sample.crossings = crossings.into_iter().map(|(name, count)| (clean(&name), count)).collect();
    }
}

/// `word` without what a terminal or a browser would obey instead of show: control characters, and those
/// that turn the direction of writing or take no place.
fn clean(word: &str) -> String {
    let mut shown = String::new();
    for letter in word.chars().take(WORD_LIMIT) {
        let hidden = matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if letter.is_control() || hidden {
            shown.extend(letter.escape_unicode());
        } else {
            shown.push(letter);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::compare::example;
    use crate::compare::report::{csv, text};

    fn json(report: &Report) -> Vec<u8> {
        serde_json::to_vec(&Content { report, figures: figures::all(report), effects: Vec::new() }).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let report = example::report(6);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        write(&report, &path).unwrap();
        assert_eq!(text::render(&read(&path).unwrap()), text::render(&report));
    }

    #[test]
    fn truncated_at_any_place_it_is_refused() {
        let whole = json(&example::report(2));
        for length in (0..whole.len()).step_by(97) {
            assert!(parse(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn newer_versions_and_contradictions_are_named() {
        let mut report = example::report(2);
        report.version = 99;
        assert!(parse(&json(&report)).unwrap_err().contains("version 99"));
        let mut report = example::report(2);
        report.samples[3].block = 77;
        assert!(parse(&json(&report)).unwrap_err().contains("block 77"));
        let mut report = example::report(2);
        report.runs = usize::MAX;
        assert!(parse(&json(&report)).unwrap_err().contains("more blocks"));
        assert!(parse(b"{\"version\": 2}").unwrap_err().contains("no report"));
    }

    #[test]
    fn no_escape_of_a_terminal_is_left() {
        let mut report = example::report(2);
        report.image = "a\u{1b}]0;title\u{7}\u{202e}b".into();
        report.samples[0].failure = Some("\u{9b}31m\nred".into());
        report.host.settings.insert("\u{1b}[2J".into(), "x".into());
        let read = parse(&json(&report)).unwrap();
        let shown = text::render(&read);
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
        assert!(shown.contains("\\u{1b}]0;title"), "{shown}");
        assert!(read.host.settings.keys().all(|name| !name.contains('\u{1b}')));
    }

    #[test]
    fn figures_in_a_file_are_not_believed() {
        let mut content =
            serde_json::to_value(Content { report: &example::report(2), figures: vec![], effects: vec![] })
                .unwrap();
        content["figures"] = serde_json::json!("nonsense");
        assert!(parse(content.to_string().as_bytes()).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn damaged_reports_never_panic(at in 0usize..20_000, byte in proptest::num::u8::ANY) {
            static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| json(&example::report(1)));
            let mut text = WHOLE.clone();
            let at = at % text.len();
            text[at] = byte;
            if let Ok(report) = parse(&text) {
                csv::render(&report);
            }
        }
    }
}
