//! Two reports side by side, in 80 columns.

use std::fmt::Write;

use super::text::{amount, entry, short};
use crate::compare::Report;
use crate::compare::against::{self, Change};

/// The table of all figures that both reports have; a mark where they differ.
pub fn render(before: &Report, after: &Report, changes: &[Change]) -> String {
    let mut out = String::new();
    entry(&mut out, "first", &place(before));
    entry(&mut out, "second", &place(after));
    for caveat in against::caveats(before, after) {
        entry(&mut out, "differ", &caveat);
    }
    let _ = writeln!(out, "\n{:<8}{:<19}{:>11}{:>11}   second/first [95%]", "", "median", "first", "second");
    for change in changes {
        let (first, second) = (amount(change.unit, change.before), amount(change.unit, change.after));
        let _ = write!(out, "{:<8.7}{:<19}{first:>11}{second:>11}", change.who, change.label);
        let mark = if change.differs { " differs" } else { "" };
        let range = change
            .ratio
            .interval
            .map_or(String::new(), |ends| format!(" [{}..{}]", short(ends.low), short(ends.high)));
        let _ = writeln!(out, "   {}x{range}{mark}", short(change.ratio.ratio));
    }
    let count = changes.iter().filter(|change| change.differs).count();
    let _ = writeln!(out, "\n{count} of {} figures differ", changes.len());
    out
}

fn place(report: &Report) -> String {
    let host = &report.host;
    format!("{}: hv {}, {}, Linux {}, {} blocks", report.image, report.hv, host.cpu, host.kernel, report.runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::example;

    #[test]
    fn it_fits_80_columns() {
        let (one, mut two) = (example::report(5), example::report(5));
        two.samples.iter_mut().for_each(|sample| sample.cpu_ns *= 1000);
        two.contenders.reverse();
        let changes = against::changes(&one, &two);
        let text = render(&one, &two, &changes);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("differs") && text.contains("3 of "), "{text}");
    }
}
