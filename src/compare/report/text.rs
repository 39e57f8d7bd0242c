//! The first screen: answers in 80 columns.

use std::fmt::Write;

use hv_common::Kind;

use crate::compare::rows::{Row, SECTIONS, Unit};
use crate::compare::stats::{Summary, paired_ratio};
use crate::compare::{Report, Sample};

const LABEL: usize = 22;
const RATIO: usize = 7;

/// The report as a table.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    header(&mut out, report);
    let mut notes = Vec::new();
    let width = (80 - LABEL - RATIO) / report.kinds.len().max(1);
    let _ = write!(out, "{:<LABEL$}", "median [min-max]");
    for kind in &report.kinds {
        let _ = write!(out, "{:>width$}", kind.word());
    }
    let _ = writeln!(out, "{}", if has_ratio(report) { format!("{:>RATIO$}", "vm/ctr") } else { String::new() });
    for section in SECTIONS {
        let _ = writeln!(out, "{}", section.title);
        for row in section.rows {
            line(&mut out, report, row, width, &mut notes);
        }
    }
    reasons(&mut out, report);
    footer(&mut out, report, &notes);
    out
}

fn header(out: &mut String, report: &Report) {
    let host = &report.host;
    let _ = writeln!(out, "image   {}", report.image);
    let _ = writeln!(out, "runs    {}", report.workload);
    let _ = writeln!(out, "limits  {}", report.limits);
    let _ = writeln!(out, "host    {}, {} cpus, Linux {}, cgroup {}", host.cpu, host.cpus, host.kernel, host.cgroup);
    if let Some(kernel) = &report.guest_kernel {
        let _ = writeln!(out, "guest   {kernel}");
    }
    for stamp in &host.stamps {
        let _ = writeln!(out, "stamp   not comparable with other machines: {stamp}");
    }
    let _ = writeln!(out);
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
        let _ = write!(out, "{:>RATIO$}", format!("{}x", short(ratio)));
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
    paired_ratio((0..=report.runs).map(|block| (of(Kind::Vm, block), of(Kind::Ctr, block)))).filter(|r| *r > 0.0)
}

fn shown(unit: Unit, summary: Summary) -> String {
    let scale = match unit {
        Unit::Time => 1e6,
        Unit::Bytes => 1024.0 * 1024.0,
        Unit::Count => 1.0,
    };
    let [median, min, max] = [summary.median, summary.min, summary.max].map(|value| short(value / scale));
    format!("{median} [{min}-{max}]")
}

/// About three significant digits, no exponent.
fn short(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 99.95 => format!("{value:.0}"),
        magnitude if magnitude >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
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
    for (why, times) in seen.into_iter().chain(report.skipped.iter().map(|(kind, why)| (format!("{kind}: {why}"), 0))) {
        let _ = match times {
            0 => writeln!(out, "not measured: {why}"),
            times => writeln!(out, "not measured: {why} ({times} times)"),
        };
    }
}

fn footer(out: &mut String, report: &Report, notes: &[String]) {
    for note in notes {
        let _ = writeln!(out, "fewer samples: {note}");
    }
    let failed = report.samples.iter().filter(|sample| sample.failure.is_some()).count();
    let _ = writeln!(
        out,
        "{} blocks in random order (seed {}), 1 more dropped as warm-up; {failed} launches failed.",
        report.runs, report.seed
    );
    if has_ratio(report) {
        let _ = writeln!(out, "vm/ctr is the median of the ratios within each block.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits() {
        assert_eq!(short(1234.4), "1234");
        assert_eq!(short(99.96), "100");
        assert_eq!(short(12.34), "12.3");
        assert_eq!(short(0.567), "0.57");
    }
}
