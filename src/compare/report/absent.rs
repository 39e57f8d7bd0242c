//! What is missing from the tables, and why: each reason once; and what is not equal between the contenders.

use std::collections::BTreeMap;

use super::text::entry;
use crate::compare::figures::{self, Figure};
use crate::compare::{Report, equality};

/// Gaps of samples, failed launches and rounds, contenders that cannot run here, ratios that would say nothing.
pub fn render(out: &mut String, report: &Report, figures: &[Figure]) {
    let mut seen = BTreeMap::<String, usize>::new();
    for sample in &report.samples {
        let gaps = sample.memory.gaps.iter().cloned();
        let failure = sample.failure.iter().map(|why| format!("launch failed: {why}"));
        for why in gaps.chain(failure) {
            *seen.entry(format!("{}: {why}", sample.kind)).or_default() += 1;
        }
    }
    for round in report.scale.iter().flat_map(|scale| &scale.rounds) {
        if let Some(why) = &round.failure {
            *seen.entry(format!("{}: round beside others failed: {why}", round.kind)).or_default() += 1;
        }
    }
    for (why, times) in seen {
        entry(out, "absent", &format!("{why} ({times} times)"));
    }
    for mark in equality::marks(report) {
        entry(out, "mark", &mark);
    }
    for (kind, why) in &report.skipped {
        entry(out, "absent", &format!("{kind}: {why}"));
    }
    let Some(shown) = figures::shown_ratio(report) else { return };
    for figure in figures {
        if let Some(why) = figure.no_ratio.get(&shown) {
            entry(
                out,
                "absent",
                &format!("{shown} of {}: {why}", figure.label.trim_start_matches(['+', '=', ' '])),
            );
        }
    }
}
