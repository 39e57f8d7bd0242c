//! Where the time until the first byte goes: one bar a contender, the same colours for the same phase.

use super::super::svg::{Anchor, Canvas, linear};
use super::{Plot, digits, ms, table};
use crate::compare::figures::Figure;
use crate::compare::stats::median;
use crate::compare::{Contender, Report, Role, rows};

const BAR: f64 = 26.0;
const LINE: f64 = 54.0;

/// The phases that add up to the time until the first byte.
fn phases() -> impl Iterator<Item = &'static rows::Row> {
    let starts = rows::SECTIONS.iter().filter(|section| section.title.starts_with("start"));
    starts.flat_map(|section| section.rows).filter(|row| row.id != "start.ready")
}

/// Its height in pixels.
pub fn height(report: &Report) -> f64 {
    report.contenders.len() as f64 * LINE + 30.0
}

/// One bar for each contender that was launched.
pub fn draw(report: &Report, _: &[Figure]) -> Option<Plot> {
    let middle = |who: &Contender, row: &rows::Row| {
        let samples: Vec<f64> = report.counted(who, Role::Main).filter_map(row.of).collect();
        median(&samples).unwrap_or(0.0)
    };
    let total = |who: &Contender| phases().map(|row| middle(who, row)).sum::<f64>();
    let end = report.contenders.iter().map(total).fold(0.0, f64::max);
    if end <= 0.0 {
        return None;
    }
    let (end, marks) = linear(end / 1e6, |value| format!("{} ms", digits(value)));
    let bottom = height(report) - 24.0;
    let mut canvas = Canvas::new(height(report));
    canvas.scale(&marks, bottom, 0.0);
    let mut lines = Vec::new();
    for (place, who) in report.contenders.iter().enumerate() {
        let top = place as f64 * LINE + 20.0;
        canvas.word(0.0, top - 5.0, Anchor::Start, "strong", &format!("{who}  {}", ms(total(who))));
        let mut x = 0.0;
        for (number, row) in phases().enumerate() {
            let width = middle(who, row) / 1e6 / end;
            let label = row.label.trim_start_matches("+ ");
            if width > 0.0 {
                canvas.bar(
                    x,
                    top,
                    width,
                    BAR,
                    &format!("phase{number}"),
                    &format!("{who}, {label}: {}", ms(middle(who, row))),
                );
            }
            x += width;
        }
        let cells = phases().map(|row| digits(middle(who, row) / 1e6));
        lines.push([who.to_string()].into_iter().chain(cells).chain([digits(total(who) / 1e6)]).collect());
    }
    let labels: Vec<&str> = phases().map(|row| row.label.trim_start_matches("+ ")).collect();
    let headings: Vec<&str> = ["ms"].into_iter().chain(labels.iter().copied()).chain(["all"]).collect();
    let legend =
        labels.iter().enumerate().map(|(n, label)| (format!("phase{n}"), (*label).to_owned())).collect();
    Some(Plot {
        title: "Where the time goes",
        caption: "From asking hv to the workload's first byte, medians of each phase on one clock. The microVM has one \
                  block that nobody else has: the start of its own kernel (init entered)."
            .into(),
        svg: canvas.finish("Phases of a start", "A bar for each contender, cut into its phases; the table below has the values."),
        legend,
        table: table(&headings, &lines),
    })
}
