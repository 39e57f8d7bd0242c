//! The first screen: answers in 80 columns.

use std::collections::BTreeSet;
use std::fmt::Write;

use hv_common::Kind;

use crate::compare::rows::{Row, SECTIONS, Unit};
use crate::compare::sample::TOTAL;
use crate::compare::stats::{Summary, paired_ratio};
use crate::compare::{Host, Report, Sample};

const WIDTH: usize = 80;
const INDENT: usize = 8;
const LABEL: usize = 19;
const RATIO: usize = 7;

/// The report as a table.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    header(&mut out, report);
    let mut notes = Vec::new();
    let width = (WIDTH - LABEL - RATIO) / report.kinds.len().max(1);
    let _ = write!(out, "{:<LABEL$}", "median [min..max]");
    for kind in &report.kinds {
        let _ = write!(out, "{:>width$}", kind.word());
    }
    let _ =
        writeln!(out, "{}", if has_ratio(report) { format!("{:>RATIO$}", "vm/ctr") } else { String::new() });
    for section in SECTIONS {
        let _ = writeln!(out, "{}", section.title);
        for row in section.rows {
            line(&mut out, report, row, width, &mut notes);
        }
    }
    exits(&mut out, report);
    reasons(&mut out, report);
    footer(&mut out, report, &notes);
    out
}

fn header(out: &mut String, report: &Report) {
    let host = &report.host;
    entry(out, "image", &report.image);
    entry(out, "runs", &report.workload);
    entry(out, "limits", &report.limits);
    let Host { cpu, cpus, kernel, cgroup, .. } = host;
    entry(out, "host", &format!("{cpu}, {cpus} cpus, Linux {kernel}, cgroup {cgroup}"));
    if let Some(kernel) = &report.guest_kernel {
        entry(out, "guest", kernel);
    }
    if !host.stamps.is_empty() {
        let why = host.stamps.join("; ");
        entry(out, "stamp", &format!("not comparable with other machines: {why}"));
    }
    out.push('\n');
}

/// A name and its words, wrapped and indented.
fn entry(out: &mut String, name: &str, words: &str) {
    let mut column = out.len();
    let _ = write!(out, "{name:<INDENT$}");
    for word in words.split(' ') {
        if out.len() - column + 1 + word.len() > WIDTH && !out.ends_with("  ") {
            out.push('\n');
            column = out.len();
            let _ = write!(out, "{:INDENT$}", "");
        } else if !out.ends_with("  ") {
            out.push(' ');
        }
        out.push_str(word);
    }
    out.push('\n');
}

fn has_ratio(report: &Report) -> bool {
    [Kind::Ctr, Kind::Vm].iter().all(|kind| report.kinds.contains(kind))
}

fn line(out: &mut String, report: &Report, row: &Row, width: usize, notes: &mut Vec<String>) {
    let _ = write!(out, "  {:<1$}", row.label, LABEL - 2);
    for kind in &report.kinds {
        let cell = cell(report, row, *kind, notes);
        let _ = write!(out, "{cell:>width$}");
    }
    if has_ratio(report)
        && let Some(ratio) = ratio(report, row)
    {
        let _ = write!(out, "{:>RATIO$}", times(ratio));
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
}

fn cell(report: &Report, row: &Row, kind: Kind, notes: &mut Vec<String>) -> String {
    if let Some(why) = (row.absent)(kind) {
        return why.into();
    }
    let counted: Vec<&Sample> = report.counted(kind).collect();
    match Summary::of(counted.iter().filter_map(|sample| (row.of)(sample))) {
        Some(summary) => {
            if summary.n < counted.len() {
                notes.push(format!("{} of {kind}: {} of {} launches", row.label, summary.n, counted.len()));
            }
            shown(row.unit, summary)
        }
        None => "not measured".into(),
    }
}

fn ratio(report: &Report, row: &Row) -> Option<f64> {
    let of = |kind, block| report.counted(kind).find(|sample| sample.block == block).and_then(row.of);
    paired_ratio((0..=report.runs).map(|block| (of(Kind::Vm, block), of(Kind::Ctr, block))))
        .filter(|r| *r > 0.0)
}

fn shown(unit: Unit, summary: Summary) -> String {
    // From ten seconds and ten thousand on, a larger unit keeps the column narrow.
    let (scale, suffix) = match unit {
        Unit::Time if summary.max >= 9.995e9 => (1e9, "s"),
        Unit::Time => (1e6, ""),
        Unit::Bytes => (1024.0 * 1024.0, ""),
        Unit::Count if summary.max >= 9.995e5 => (1e6, "M"),
        Unit::Count if summary.max >= 9999.5 => (1e3, "k"),
        Unit::Count => (1.0, ""),
    };
    // A sign or a suffix takes the place of a digit, so that columns never touch.
    let narrow = !suffix.is_empty() || summary.min < 0.0;
    let digits = |value: f64| if narrow { shorter(value / scale) } else { short(value / scale) };
    let [median, min, max] = [summary.median, summary.min, summary.max].map(digits);
    format!("{median}{suffix} [{min}..{max}]")
}

/// A ratio; one that a figure of almost nothing gives says no more than that.
fn times(ratio: f64) -> String {
    if ratio < 9999.5 { format!("{}x", short(ratio)) } else { ">9999x".into() }
}

/// About three significant digits, no exponent; whole counts below a hundred without decimals.
fn short(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 99.95 || magnitude == 0.0 => format!("{value:.0}"),
        magnitude if magnitude >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// About two significant digits; what rounds to nothing has no sign.
fn shorter(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 9.95 => format!("{value:.0}"),
        magnitude if magnitude < 0.05 => "0".into(),
        _ => format!("{value:.1}"),
    }
}

/// VM exits by reason, the median of each, most frequent first.
fn exits(out: &mut String, report: &Report) {
    let counted: Vec<&Sample> = report.counted(Kind::Vm).collect();
    let names: BTreeSet<&String> = counted.iter().flat_map(|sample| sample.crossings.keys()).collect();
    let median = |name: &String| {
        let counts = counted.iter().map(|sample| sample.crossings.get(name).copied().unwrap_or(0) as f64);
        Summary::of(counts).map_or(0.0, |summary| summary.median)
    };
    let mut reasons: Vec<(f64, &String)> = names.into_iter().map(|name| (median(name), name)).collect();
    reasons.retain(|(count, name)| *count > 0.0 && *name != TOTAL);
    reasons.sort_by(|one, other| other.0.total_cmp(&one.0));
    if !reasons.is_empty() {
        let words: Vec<String> = reasons.iter().map(|(count, name)| format!("{name} {count:.0}")).collect();
        entry(out, "exits", &words.join(", "));
    }
}

/// What could not be measured, and why: each reason once.
fn reasons(out: &mut String, report: &Report) {
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for sample in &report.samples {
        let gaps = sample.memory.gaps.iter().cloned();
        let failure = sample.failure.iter().map(|why| format!("launch failed: {why}"));
        for why in gaps.chain(failure) {
            *seen.entry(format!("{}: {why}", sample.kind)).or_default() += 1;
        }
    }
    for (why, times) in
        seen.into_iter().chain(report.skipped.iter().map(|(kind, why)| (format!("{kind}: {why}"), 0)))
    {
        let times = if times == 0 { String::new() } else { format!(" ({times} times)") };
        entry(out, "absent", &format!("{why}{times}"));
    }
}

fn footer(out: &mut String, report: &Report, notes: &[String]) {
    for note in notes {
        entry(out, "fewer", note);
    }
    let failed = report.samples.iter().filter(|sample| sample.failure.is_some()).count();
    let Report { runs, seed, .. } = report;
    let ratio = if has_ratio(report) { "; vm/ctr is the median of the ratios in each block" } else { "" };
    let blocks = format!("{runs} blocks in random order (seed {seed}), 1 more dropped as warm-up");
    entry(out, "order", &format!("{blocks}; {failed} launches failed{ratio}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_wrap_at_80_columns() {
        let mut out = String::new();
        entry(&mut out, "host", &"word ".repeat(40));
        assert!(out.lines().count() > 2);
        assert!(out.lines().all(|line| line.len() <= WIDTH && line.len() > INDENT), "{out}");
        assert!(out.starts_with("host    word word"));
    }

    #[test]
    fn ratios_stay_in_their_column() {
        assert_eq!(times(14.84), "14.8x");
        assert_eq!(times(77338.0), ">9999x");
        assert!([0.001, 9999.4, 1e12].iter().all(|ratio| times(*ratio).len() < RATIO));
    }

    #[test]
    fn columns_never_touch() {
        let column = (WIDTH - LABEL - RATIO) / [Kind::Process, Kind::Ctr, Kind::Vm].len();
        for (unit, median) in [
            (Unit::Bytes, -1.793 * 1048576.0),
            (Unit::Bytes, -123.9 * 1048576.0),
            (Unit::Bytes, 1023.9 * 1048576.0),
            (Unit::Time, 9.99e9),
            (Unit::Time, 123.4e9),
            (Unit::Count, 9999.4),
            (Unit::Count, 999_000.0),
            (Unit::Count, 9e8),
        ] {
            let cell = shown(unit, Summary { n: 1, median, min: median, max: median });
            assert!(cell.len() < column, "{cell:?} fills a column of {column}");
        }
    }

    #[test]
    fn nothing_has_no_sign() {
        assert_eq!([shorter(-0.04), shorter(0.0), shorter(-0.06)], ["0", "0", "-0.1"]);
    }

    #[test]
    fn three_digits() {
        assert_eq!(short(1234.4), "1234");
        assert_eq!(short(99.96), "100");
        assert_eq!(short(12.34), "12.3");
        assert_eq!(short(0.567), "0.57");
    }
}
