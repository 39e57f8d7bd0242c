//! Sandboxes beside each other, in 80 columns.

use std::fmt::Write;

use super::text::{COLUMNS, LABEL, RATIO, WIDTH, entry, line};
use crate::compare::Report;
use crate::compare::figures::{self, Figure};

/// A table of the rounds' figures; nothing when no round was made.
pub fn render(out: &mut String, report: &Report, figures: &[Figure]) {
    let Some(scale) = &report.scale else { return };
    let ratio = figures::shown_ratio(report);
    for (number, columns) in report.contenders.chunks(COLUMNS).enumerate() {
        let width = (WIDTH - LABEL - RATIO) / columns.len().max(1);
        let ratio = ratio.as_deref().filter(|_| number == 0);
        let _ = write!(out, "{:<LABEL$}", "beside each other");
        for who in columns {
            let _ = write!(out, "{:>width$}", who.word());
        }
        out.push('\n');
        for figure in figures.iter().filter(|figure| figure.id.starts_with("scale.")) {
            line(out, figure, columns, width, |_| None, ratio);
        }
    }
    let rounds = scale.rounds.iter().map(|round| round.round + 1).max().unwrap_or(0);
    let words = format!(
        "{rounds} rounds of {} one after another, then {} at once; MiB and ms; slopes are per sandbox",
        scale.resident, scale.at_once
    );
    entry(out, "rounds", &words);
}

#[cfg(test)]
mod tests {
    use crate::compare::example;
    use crate::compare::report::text;

    #[test]
    fn the_table_fits_80_columns_and_is_there_when_it_was_measured() {
        let with = text::render(&example::with_scale(5));
        assert!(with.lines().all(|line| line.chars().count() <= 80), "{with}");
        assert!(with.contains("each more (PSS)") && with.contains("5 rounds of 8"), "{with}");
        assert!(!text::render(&example::report(5)).contains("beside each other"));
    }
}
