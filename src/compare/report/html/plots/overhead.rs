//! What work costs inside: ratios to the bare process.

use super::super::svg::{Anchor, Canvas, logarithmic};
use super::{Plot, colour, digits, table};
use crate::compare::figures::{Comparison, Figure};
use crate::compare::inside::catalogue::WORKLOADS;
use crate::compare::report::inside::columns;
use crate::compare::{Contender, Report};

const LINE: f64 = 36.0;

/// A dot with its interval for each workload and contender, on a logarithmic scale.
pub fn draw(report: &Report, figures: &[Figure]) -> Option<Plot> {
    report.inside.as_ref()?;
    let (base, others) = columns(report)?;
    let find = |id: &str| figures.iter().find(|figure| figure.id == id);
    let rows: Vec<(&str, &Figure)> =
        WORKLOADS.iter().filter_map(|workload| Some((workload.name, find(workload.time)?))).collect();
    let ratios =
        rows.iter().flat_map(|(_, figure)| others.iter().filter_map(|(_, name)| figure.ratios.get(name)));
    let (low, high) =
        ratios.map(ends).fold((0.8, 1.25), |(low, high), (l, h)| (f64::min(low, l), f64::max(high, h)));
    let (across, marks) = logarithmic(low, high, |value| format!("{}×", digits(value)));
    let bottom = rows.len() as f64 * LINE + 8.0;
    let mut canvas = Canvas::new(bottom + 24.0);
    canvas.scale(&marks, bottom, 0.0);
    canvas.line((across(1.0), 0.0), (across(1.0), bottom), "axis");
    let mut lines = Vec::new();
    for (place, (name, figure)) in rows.iter().enumerate() {
        let top = place as f64 * LINE;
        canvas.word(0.0, top + 12.0, Anchor::Start, "small", name);
        for (number, (who, ratio)) in others.iter().enumerate() {
            let Some(found) = figure.ratios.get(ratio) else { continue };
            let y = top + 19.0 + 9.0 * number as f64;
            let (class, (from, to)) = (colour(report, who), ends(found));
            canvas.line((across(from), y), (across(to), y), &format!("tick {class}"));
            canvas.dot(
                across(found.paired.ratio),
                y,
                4.0,
                &class,
                &format!("{name}, {ratio}: {}", words(found)),
            );
        }
        let time =
            |who: &Contender| figure.of.get(who).map_or("–".to_owned(), |found| digits(found.median));
        let ratio = |name: &String| figure.ratios.get(name).map_or("–".to_owned(), words);
        let mut line = vec![(*name).to_owned(), time(&base)];
        line.extend(others.iter().map(|(_, name)| ratio(name)));
        if let Some(workload) = WORKLOADS.iter().find(|workload| workload.name == *name) {
            let exits = find(workload.exits).and_then(|figure| figure.of.values().next());
            line.push(exits.map_or("–".to_owned(), |found| digits(found.median)));
            line.push(workload.nature.word().to_owned());
        }
        lines.push(line);
    }
    let unit = format!("{base}, ns");
    let mut headings = vec!["an operation of", unit.as_str()];
    headings.extend(others.iter().map(|(_, name)| name.as_str()));
    headings.extend(["VM exits", "cost is"]);
    Some(Plot {
        title: "What work costs inside",
        caption: format!(
            "Time of an operation over that in {base}: 1× is as fast, to the right is slower, logarithmic; lines are 95 % \
             intervals. Structural costs are the wall's own, implementation costs are of how this one is built."
        ),
        svg: canvas.finish(
            "Overhead inside",
            "A dot for each workload and contender; the table below has the values.",
        ),
        legend: others.iter().map(|(who, _)| (colour(report, who), who.to_string())).collect(),
        table: table(&headings, &lines),
    })
}

fn ends(comparison: &Comparison) -> (f64, f64) {
    let ratio = comparison.paired.ratio;
    comparison.paired.interval.map_or((ratio, ratio), |ends| (ends.low, ends.high))
}

fn words(comparison: &Comparison) -> String {
    let (low, high) = ends(comparison);
    let mark = if comparison.differs { "" } else { "~" };
    format!("{mark}{}× [{}–{}]", digits(comparison.paired.ratio), digits(low), digits(high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{example, figures};

    #[test]
    fn every_workload_has_a_dot_for_each_wall() {
        let report = example::with_inside(5);
        let plot = draw(&report, &figures::all(&report)).unwrap();
        assert_eq!(plot.svg.matches("<circle").count(), 2 * WORKLOADS.len());
        assert!(plot.table.contains("vm/process") && plot.table.contains("structural"));
        assert!(!plot.svg.contains("NaN"));
        let without = example::report(5);
        assert!(draw(&without, &figures::all(&without)).is_none());
    }
}
