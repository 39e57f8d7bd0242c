//! Time against memory: one point a contender.

use super::super::svg::{Anchor, Canvas, logarithmic};
use super::{Plot, colour, digits, mib, ms, table};
use crate::compare::Report;
use crate::compare::figures::Figure;

const TOP: f64 = 22.0;
const BOTTOM: f64 = 222.0;

/// A plane with both scales logarithmic.
pub fn draw(report: &Report, figures: &[Figure]) -> Option<Plot> {
    let of = |id: &str| figures.iter().find(|figure| figure.id == id);
    let (ready, memory) = (of("start.ready")?, of("memory.sum")?);
    let points: Vec<_> = report
        .contenders
        .iter()
        .filter_map(|who| Some((who, ready.of.get(who)?.median, memory.of.get(who)?.median)))
        .filter(|(_, time, bytes)| *time > 0.0 && *bytes > 0.0)
        .collect();
    let range = |value: fn(&(&crate::compare::Contender, f64, f64)) -> f64| {
        let values = points.iter().map(value);
        values.clone().reduce(f64::min).zip(values.reduce(f64::max))
    };
    let (fast, slow) = range(|point| point.1)?;
    let (small, large) = range(|point| point.2)?;
    let (across, marks) = logarithmic(fast / 2e6, slow / 0.5e6, |value| format!("{} ms", digits(value)));
    let mebi = 1024.0 * 1024.0;
    let (up, steps) =
        logarithmic(small / mebi / 2.0, large / mebi * 2.0, |value| format!("{} MiB", digits(value)));
    let height = |share: f64| BOTTOM - share * (BOTTOM - TOP);
    let mut canvas = Canvas::new(BOTTOM + 24.0);
    canvas.scale(&marks, BOTTOM, TOP);
    for (share, word) in &steps {
        canvas.line((0.0, height(*share)), (1.0, height(*share)), "grid");
        canvas.word(0.0, height(*share) - 3.0, Anchor::Start, "small", word);
    }
    for (who, time, bytes) in &points {
        let (x, y) = (across(*time / 1e6), height(up(*bytes / mebi)));
        canvas.dot(x, y, 6.0, &colour(report, who), &format!("{who}: {}, {}", ms(*time), mib(*bytes)));
        canvas.word(x, y - 11.0, Anchor::at(x), "strong", who.word());
    }
    let lines: Vec<Vec<String>> =
        points.iter().map(|(who, time, bytes)| vec![who.to_string(), ms(*time), mib(*bytes)]).collect();
    Some(Plot {
        title: "The trade",
        caption: "Time to the first byte against memory while idle, both logarithmic: the lower left corner costs least.".into(),
        svg: canvas.finish("Start time against memory", "A point for each contender; the table below has the values."),
        legend: Vec::new(),
        table: table(&["", "first byte", "memory"], &lines),
    })
}
