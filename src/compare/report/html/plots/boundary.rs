//! What crosses the microVM's wall: exits by reason.

use std::collections::BTreeSet;

use super::super::svg::{Anchor, Canvas, linear};
use super::{Plot, digits, table};
use crate::compare::figures::Figure;
use crate::compare::sample::TOTAL;
use crate::compare::stats::median;
use crate::compare::{Contender, Report, Role, Sample};

const LINE: f64 = 34.0;
/// The reasons that are drawn, most frequent first.
const SHOWN: usize = 8;

/// One bar for each of the most frequent reasons.
pub fn draw(report: &Report, _: &[Figure]) -> Option<Plot> {
    let vm = Contender::from(hv_common::Kind::Vm);
    let samples: Vec<&Sample> = report.counted(&vm, Role::Main).collect();
    let names: BTreeSet<&String> = samples.iter().flat_map(|sample| sample.crossings.keys()).collect();
    let middle = |name: &String| {
        let counts: Vec<f64> =
            samples.iter().map(|sample| sample.crossings.get(name).copied().unwrap_or(0) as f64).collect();
        median(&counts).unwrap_or(0.0)
    };
    let mut reasons: Vec<(f64, &String)> = names.into_iter().map(|name| (middle(name), name)).collect();
    reasons.retain(|(count, _)| *count > 0.0);
    reasons.sort_by(|one, other| other.0.total_cmp(&one.0));
    let end = reasons.first()?.0;
    let (end, marks) = linear(end, digits);
    let drawn = reasons.len().min(SHOWN);
    let bottom = drawn as f64 * LINE + 4.0;
    let mut canvas = Canvas::new(bottom + 24.0);
    canvas.scale(&marks, bottom, 0.0);
    for (place, (count, name)) in reasons.iter().take(SHOWN).enumerate() {
        let top = place as f64 * LINE;
        let class = if *name == TOTAL { "phase0" } else { "of-vm" };
        canvas.word(0.0, top + 13.0, Anchor::Start, "small", &format!("{name}  {}", digits(*count)));
        canvas.bar(0.0, top + 17.0, count / end, 11.0, class, &format!("{name}: {count}"));
    }
    let lines: Vec<Vec<String>> =
        reasons.iter().map(|(count, name)| vec![(*name).clone(), digits(*count)]).collect();
    Some(Plot {
        title: "What crosses the wall",
        caption: "Exits from the guest over the machine's whole life, medians, by the kernel's own counters. The total holds \
                  reasons that the kernel does not count apart."
            .into(),
        svg: canvas.finish("VM exits by reason", "A bar for each reason; the table below has all."),
        legend: Vec::new(),
        table: table(&["reason", "exits"], &lines),
    })
}
