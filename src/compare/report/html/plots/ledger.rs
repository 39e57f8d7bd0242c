//! Where the memory of an idle sandbox is, with what does not add up hatched.

use super::super::svg::{Anchor, Canvas, linear};
use super::{Plot, digits, mib, table};
use crate::compare::figures::Figure;
use crate::compare::{Contender, Report};

const BAR: f64 = 26.0;
const LINE: f64 = 54.0;
/// Figure, class, words.
const PARTS: [(&str, &str, &str); 4] = [
    ("memory.monitor", "phase1", "monitor"),
    ("memory.processes", "phase2", "processes"),
    ("memory.guest", "phase4", "guest memory"),
    ("memory.residual", "hatched", "the cgroup's figure less these"),
];

/// One bar for each contender.
pub fn draw(report: &Report, figures: &[Figure]) -> Option<Plot> {
    let of = |id: &str, who: &Contender| {
        figures
            .iter()
            .find(|figure| figure.id == id)
            .and_then(|figure| figure.of.get(who))
            .map(|estimate| estimate.median)
    };
    let total = |who: &Contender| {
        PARTS.iter().filter_map(|(id, ..)| of(id, who)).filter(|bytes| *bytes > 0.0).sum::<f64>()
    };
    let end = report.contenders.iter().map(total).fold(0.0, f64::max);
    if end <= 0.0 {
        return None;
    }
    let (end, marks) = linear(end / (1024.0 * 1024.0), |value| format!("{} MiB", digits(value)));
    let bottom = report.contenders.len() as f64 * LINE + 6.0;
    let mut canvas = Canvas::new(bottom + 24.0);
    canvas.scale(&marks, bottom, 0.0);
    let mut lines = Vec::new();
    for (place, who) in report.contenders.iter().enumerate() {
        let top = place as f64 * LINE + 20.0;
        let sum = of("memory.sum", who).map_or("not measured".to_owned(), mib);
        canvas.word(0.0, top - 5.0, Anchor::Start, "strong", &format!("{who}  {sum}"));
        let mut x = 0.0;
        for (id, class, words) in PARTS {
            let bytes = of(id, who).unwrap_or(0.0);
            let width = bytes.max(0.0) / (1024.0 * 1024.0) / end;
            if width > 0.0 {
                canvas.bar(x, top, width, BAR, class, &format!("{who}, {words}: {}", mib(bytes)));
            }
            x += width;
        }
        let cells = PARTS.iter().map(|(id, ..)| of(id, who).map_or("none".to_owned(), mib));
        lines.push([who.to_string()].into_iter().chain(cells).collect());
    }
    let headings: Vec<&str> = ["idle"].into_iter().chain(PARTS.iter().map(|(.., words)| *words)).collect();
    Some(Plot {
        title: "Where the memory is",
        caption: "Read while the workload waits. Pages that are shared with others count by their share. Hatched: what the \
                  cgroup is charged with beyond what processes map, such as kernel memory on its behalf; where it is negative \
                  (pages charged elsewhere), only the table shows it."
            .into(),
        svg: canvas.finish("Memory of one idle sandbox", "A bar for each contender, cut into who holds the memory; the table below has the values."),
        legend: PARTS.map(|(_, class, words)| (class.to_owned(), words.to_owned())).into(),
        table: table(&headings, &lines),
    })
}
