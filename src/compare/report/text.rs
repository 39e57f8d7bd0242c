//! The first screen: answers in 80 columns.

use std::collections::BTreeSet;
use std::fmt::Write;

use hv_common::Kind;

use super::{absent, beside, inside, switches};
use crate::compare::figures::{self, Comparison, Figure};
use crate::compare::rows::{SECTIONS, Unit};
use crate::compare::sample::TOTAL;
use crate::compare::stats::{DRIFT, Estimate, median};
use crate::compare::{Contender, Host, Report, Role, Sample};

pub(super) const WIDTH: usize = 80;
const INDENT: usize = 8;
pub(super) const LABEL: usize = 19;
/// At least so wide is the column of ratios.
pub(super) const RATIO: usize = 7;

/// Columns that fit beside the labels; others have a table of their own.
pub(super) const COLUMNS: usize = 3;

/// The report as a table.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let figures = figures::all(report);
    header(&mut out, report);
    answers(&mut out, report, &figures);
    let ratio = figures::shown_ratio(report);
    for (number, columns) in report.contenders.chunks(COLUMNS).enumerate() {
        table(&mut out, report, &figures, columns, ratio.as_deref().filter(|_| number == 0));
    }
    beside::render(&mut out, report, &figures);
    inside::render(&mut out, report, &figures);
    switches::render(&mut out, report);
    exits(&mut out, report);
    absent::render(&mut out, report, &figures);
    footer(&mut out, report, &figures);
    out
}

/// What a reader wants to know first, in sentences.
fn answers(out: &mut String, report: &Report, figures: &[Figure]) {
    let of_peers = figures::of_peers(report);
    let shown = figures::shown_ratio(report).filter(|name| !of_peers.contains(name));
    for (entry, name) in
        shown.map(|name| ("answer", name)).into_iter().chain(of_peers.into_iter().map(|name| ("peer", name)))
    {
        answer(out, figures, entry, &name);
    }
}

fn answer(out: &mut String, figures: &[Figure], title: &str, name: &str) {
    let (over, under) = name.split_once('/').unwrap_or((name, ""));
    let said = |id: &str, what: &str| -> Option<String> {
        let ratio = figures.iter().find(|figure| figure.id == id)?.ratios.get(name)?;
        let interval = ratio.paired.interval?;
        let verdict = if ratio.differs { "" } else { " (within the noise)" };
        let [middle, low, high] = [ratio.paired.ratio, interval.low, interval.high].map(short);
        Some(format!("{middle}x [{low}..{high}]{verdict} {what}"))
    };
    let all: Vec<String> =
        [("start.ready", "to the first byte"), ("end.cpu", "of processor time"), ("memory.sum", "of memory")]
            .into_iter()
            .filter_map(|(id, what)| said(id, what))
            .collect();
    if !all.is_empty() {
        entry(out, title, &format!("{over} takes {} of what {under} takes", all.join(", ")));
        out.push('\n');
    }
}

fn table(out: &mut String, report: &Report, figures: &[Figure], columns: &[Contender], ratio: Option<&str>) {
    // A long name would take the place that keeps three columns apart; the last lines say it in full.
    let fits = |name: &String| columns.len() < COLUMNS || name.len() < RATIO;
    let name = ratio.map(short_name).map(|name| if fits(&name) { name } else { "ratio".into() });
    let last = name.as_ref().map_or(RATIO, |name| RATIO.max(name.len() + 1));
    let width = (WIDTH - LABEL - last) / columns.len().max(1);
    let bracket = if report.runs < 3 { "median [min..max]" } else { "median [95%]" };
    let _ = write!(out, "{bracket:<LABEL$}");
    for who in columns {
        let _ = write!(out, "{:>width$}", who.word());
    }
    let _ = writeln!(out, "{}", name.map_or(String::new(), |name| format!("{name:>last$}")));
    for section in SECTIONS {
        let _ = writeln!(out, "{}", section.title);
        for row in section.rows {
            if let Some(figure) = figures.iter().find(|figure| figure.id == row.id) {
                line(out, figure, columns, width, row.absent, ratio);
            }
        }
        if let (true, Some(cold)) = (
            section.title.starts_with("start"),
            figures.iter().find(|figure| figure.id == "start.ready-cold"),
        ) && !cold.of.is_empty()
        {
            line(out, cold, columns, width, |_| None, ratio);
        }
    }
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
pub(in crate::compare) fn entry(out: &mut String, name: &str, words: &str) {
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

/// The name of a ratio so that its column holds it.
fn short_name(name: &str) -> String {
    name.replace("process", "proc")
}

/// One figure of all `columns`, with the ratio named `ratio` at the end.
pub(super) fn line(
    out: &mut String,
    figure: &Figure,
    columns: &[Contender],
    width: usize,
    absent: fn(Kind) -> Option<&'static str>,
    ratio: Option<&str>,
) {
    let _ = write!(out, "  {:<1$}", figure.label, LABEL - 2);
    for who in columns {
        let cell = match (who.kind().and_then(absent), figure.of.get(who)) {
            (Some(why), _) => why.to_owned(),
            (None, Some(estimate)) => shown(figure.unit, estimate),
            (None, None) => "not measured".into(),
        };
        let _ = write!(out, "{cell:>width$}");
    }
    if let Some(ratio) = ratio.and_then(|name| figure.ratios.get(name)) {
        let last = WIDTH - LABEL - width * columns.len();
        let _ = write!(out, "{:>last$}", times(ratio));
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
}

fn shown(unit: Unit, estimate: &Estimate) -> String {
    let (low, high) = estimate.interval.map_or((estimate.min, estimate.max), |ends| (ends.low, ends.high));
    // From ten seconds and ten thousand on, a larger unit keeps the column narrow.
    let (scale, suffix) = match unit {
        Unit::Time if high >= 9.995e9 => (1e9, "s"),
        Unit::Time => (1e6, ""),
        Unit::Bytes => (1024.0 * 1024.0, ""),
        Unit::Count if high >= 9.995e5 => (1e6, "M"),
        Unit::Count if high >= 9999.5 => (1e3, "k"),
        Unit::Count => (1.0, ""),
    };
    // A sign or a suffix takes the place of a digit, so that columns never touch.
    let narrow = !suffix.is_empty() || low < 0.0;
    let digits = |value: f64| if narrow { shorter(value / scale) } else { short(value / scale) };
    let [median, low, high] = [estimate.median, low, high].map(digits);
    format!("{median}{suffix} [{low}..{high}]")
}

/// A ratio, marked when it is no difference; one that a figure of almost nothing gives says no more than that.
fn times(ratio: &Comparison) -> String {
    let mark = if ratio.differs || ratio.paired.interval.is_none() { "" } else { "~" };
    match ratio.paired.ratio {
        ratio if ratio < 9999.5 => format!("{mark}{}x", short(ratio)),
        _ => ">9999x".into(),
    }
}

/// One value with its unit.
pub(super) fn amount(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Time => format!("{} ms", short(value / 1e6)),
        Unit::Bytes => format!("{} MiB", short(value / (1024.0 * 1024.0))),
        Unit::Count => short(value),
    }
}

/// About three significant digits, no exponent; whole counts below a hundred without decimals.
pub(super) fn short(value: f64) -> String {
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
    let vm = Contender::from(Kind::Vm);
    let counted: Vec<&Sample> = report.counted(&vm, Role::Main).collect();
    let names: BTreeSet<&String> = counted.iter().flat_map(|sample| sample.crossings.keys()).collect();
    let middle = |name: &String| {
        let counts = counted.iter().map(|sample| sample.crossings.get(name).copied().unwrap_or(0) as f64);
        median(&counts.collect::<Vec<f64>>()).unwrap_or(0.0)
    };
    let mut reasons: Vec<(f64, &String)> = names.into_iter().map(|name| (middle(name), name)).collect();
    reasons.retain(|(count, name)| *count > 0.0 && *name != TOTAL);
    reasons.sort_by(|one, other| other.0.total_cmp(&one.0));
    if !reasons.is_empty() {
        let words: Vec<String> = reasons.iter().map(|(count, name)| format!("{name} {count:.0}")).collect();
        entry(out, "exits", &words.join(", "));
    }
}

fn footer(out: &mut String, report: &Report, figures: &[Figure]) {
    let main = |who: &Contender| report.counted(who, Role::Main).count();
    // Rounds have a count of their own.
    let of_rounds = |figure: &Figure| figure.id.starts_with("scale.") || figure.id.starts_with("inside.");
    for figure in figures.iter().filter(|figure| !of_rounds(figure)) {
        for (who, estimate) in figure.of.iter().filter(|_| figure.id != "start.ready-cold") {
            if estimate.n < main(who) {
                entry(
                    out,
                    "fewer",
                    &format!("{} of {who}: {} of {} launches", figure.label, estimate.n, main(who)),
                );
            }
        }
    }
    first(out, report);
    noise(out, report, figures);
    let failed = report.samples.iter().filter(|sample| sample.failure.is_some()).count();
    let Report { runs, seed, warm_up, .. } = report;
    let ratio = figures::shown_ratio(report).map_or(String::new(), |name| {
        format!("; {} is the median of the ratios in each block", short_name(&name))
    });
    let blocks = format!("{runs} blocks in random order (seed {seed}), {warm_up} more dropped as warm-up");
    entry(out, "order", &format!("{blocks}; {failed} launches failed{ratio}"));
    if !report.stopped.is_empty() {
        entry(out, "end", &report.stopped);
    }
}

/// The very first launch of each: it found nothing warm, and is no part of the figures.
fn first(out: &mut String, report: &Report) {
    let of = |who: &Contender| Some(format!("{who} {}", short(report.first(who)?.ready()? / 1e6)));
    let all: Vec<String> = report.contenders.iter().filter_map(of).collect();
    if !all.is_empty() {
        entry(out, "first", &format!("ms to the first byte of the first launch of all: {}", all.join(", ")));
    }
}

/// What cannot be told apart here today, what lies far out, and what drifted.
fn noise(out: &mut String, report: &Report, figures: &[Figure]) {
    let ready = SECTIONS.iter().flat_map(|section| section.rows).find(|row| row.id == "start.ready");
    let floor =
        |who: &Contender| Some(format!("{who} {:.1} %", 100.0 * figures::floor(report, ready?, who)?));
    let floors: Vec<String> = report.contenders.iter().filter_map(floor).collect();
    let words = if floors.is_empty() {
        "not measured: too few pairs of equal launches".to_owned()
    } else {
        format!("two equal launches differ by up to {}; ~ marks what is no difference", floors.join(", "))
    };
    entry(out, "noise", &words);
    for who in &report.contenders {
        if let Some(rho) = figures::drift(report, who).filter(|rho| rho.abs() > DRIFT && report.runs >= 10) {
            entry(
                out,
                "drift",
                &format!(
                    "{who} went {} while it was measured (rank correlation {rho:.2})",
                    if rho > 0.0 { "up" } else { "down" }
                ),
            );
        }
        let far =
            figures.iter().find(|figure| figure.id == "start.ready").and_then(|figure| figure.of.get(who));
        if let Some(far) = far.filter(|estimate| estimate.flagged * 20 > estimate.n) {
            entry(
                out,
                "noisy",
                &format!("{} of {} starts of {who} lie far out; none was dropped", far.flagged, far.n),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::example;
    use crate::compare::stats::{Interval, Paired};

    #[test]
    fn entries_wrap_at_80_columns() {
        let mut out = String::new();
        entry(&mut out, "host", &"word ".repeat(40));
        assert!(out.lines().count() > 2);
        assert!(out.lines().all(|line| line.len() <= WIDTH && line.len() > INDENT), "{out}");
        assert!(out.starts_with("host    word word"));
    }

    fn comparison(ratio: f64, differs: bool) -> Comparison {
        let interval = Some(Interval { low: ratio * 0.9, high: ratio * 1.1 });
        Comparison { paired: Paired { n: 9, ratio, interval, shift: 0.0, p: 0.5 }, floor: None, differs }
    }

    #[test]
    fn ratios_stay_in_their_column() {
        assert_eq!(times(&comparison(14.84, true)), "14.8x");
        assert_eq!(times(&comparison(1.03, false)), "~1.03x");
        assert_eq!(times(&comparison(77338.0, true)), ">9999x");
        for ratio in [0.001, 9999.4, 1e12] {
            assert!([true, false].iter().all(|differs| times(&comparison(ratio, *differs)).len() < RATIO));
        }
    }

    #[test]
    fn the_whole_fits_80_columns_and_says_the_verdict() {
        for runs in [1, 2, 10, 40] {
            let text = render(&example::report(runs));
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
            assert!(text.contains(if runs < 3 { "[min..max]" } else { "[95%]" }), "{text}");
        }
        let text = render(&example::report(20));
        assert!(text.contains("answer  vm takes "), "{text}");
        assert!(text.contains("ask to 1st, cold") && text.contains("noise   two equal launches"), "{text}");
    }

    #[test]
    fn more_runtimes_have_a_table_of_their_own() {
        let mut report = example::report(5);
        report.contenders.push(Contender::try_from("crun".to_owned()).unwrap());
        report.contenders.swap(0, 3);
        let text = render(&report);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert_eq!(text.matches("median [95%]").count(), 2, "{text}");
        report.contenders =
            ["ctr", "process", "crun"].map(|word| Contender::try_from(word.to_owned()).unwrap()).into();
        for sample in report.samples.iter_mut().filter(|sample| sample.kind == Contender::from(Kind::Vm)) {
            sample.kind = Contender::Peer("crun".into());
        }
        report.contenders.remove(1);
        report.contenders.push(Contender::Peer("bwrap".into()));
        let text = render(&report);
        assert!(text.contains("  ratio\n") && text.contains("crun/ctr is the median"), "{text}");
    }

    #[test]
    fn columns_never_touch() {
        let column = (WIDTH - LABEL - RATIO) / COLUMNS;
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
            let estimate = Estimate { n: 1, median, interval: None, min: median, max: median, flagged: 0 };
            let cell = shown(unit, &estimate);
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
