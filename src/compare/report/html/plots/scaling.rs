//! Sandboxes beside each other: what all hold against how many there are, and a start against how many run.

use super::super::svg::{Anchor, Canvas, linear};
use super::{Plot, colour, digits, mib, ms, table};
use crate::compare::figures::Figure;
use crate::compare::rows::Unit;
use crate::compare::scale::Round;
use crate::compare::stats::{Estimate, median, slope};
use crate::compare::{Contender, Report};

/// Height of one panel, with the words above it.
const PANEL: f64 = 170.0;
const HEAD: f64 = 24.0;
/// Room for the scale below a panel.
const FOOT: f64 = 30.0;

type Points = Vec<(f64, f64)>;

/// Two panels above each other, and the figures of all rounds below.
pub fn draw(report: &Report, figures: &[Figure]) -> Option<Plot> {
    let scale = report.scale.as_ref()?;
    let points =
        |who: &Contender, of: fn(&Round) -> Points| -> Points { scale.counted(who).flat_map(of).collect() };
    let memory: Vec<_> = report
        .contenders
        .iter()
        .map(|who| (who, points(who, |round| round.memory(|step| step.pss))))
        .collect();
    let starts: Vec<_> = report.contenders.iter().map(|who| (who, points(who, Round::starts))).collect();
    if memory.iter().chain(&starts).all(|(_, points)| points.is_empty()) {
        return None;
    }
    let mut canvas = Canvas::new(2.0 * (HEAD + PANEL + FOOT));
    let most = scale.resident.max(1) as f64;
    panel(&mut canvas, report, 0.0, most, ("Memory of all (PSS) by how many there are", mib), &memory);
    panel(
        &mut canvas,
        report,
        HEAD + PANEL + FOOT,
        most,
        ("First byte by how many run already", ms),
        &starts,
    );
    let headings: Vec<&str> =
        ["beside each other"].into_iter().chain(report.contenders.iter().map(Contender::word)).collect();
    Some(Plot {
        title: "Beside each other",
        caption: format!(
            "Above: what the processes of all sandboxes hold, guest memory included, and the line through it (Theil and Sen); its \
             slope is what each further one costs. Below: the time to the first byte beside idle ones. Every dot is one \
             sandbox. In the table: medians of the rounds with their 95 % interval, and {} at once.",
            scale.at_once
        ),
        svg: canvas.finish(
            "Memory and start time against the number of sandboxes",
            "Two panels of dots with a line for each contender; the table below has the slopes.",
        ),
        legend: report.contenders.iter().map(|who| (colour(report, who), who.to_string())).collect(),
        table: table(&headings, &lines(report, figures)),
    })
}

/// Dots and lines of all contenders; across, 0 to `most` sandboxes.
fn panel(
    canvas: &mut Canvas,
    report: &Report,
    top: f64,
    most: f64,
    (title, word): (&str, fn(f64) -> String),
    series: &[(&Contender, Points)],
) {
    let (upper, bottom) = (top + HEAD, top + HEAD + PANEL);
    let highest = series.iter().flat_map(|(_, points)| points).map(|(_, y)| *y).fold(0.0, f64::max);
    let (highest, steps) = linear(highest, word);
    let height = |value: f64| bottom - (value / highest).clamp(0.0, 1.0) * PANEL;
    let (end, marks) = linear(most, digits);
    canvas.word(0.0, top + 14.0, Anchor::Start, "strong", title);
    canvas.scale(&marks, bottom, upper);
    for (share, word) in &steps {
        canvas.line((0.0, height(share * highest)), (1.0, height(share * highest)), "grid");
        canvas.word(0.0, height(share * highest) - 3.0, Anchor::Start, "small", word);
    }
    for (who, points) in series {
        let colour = colour(report, who);
        if let Some((slope, intercept)) = slope_of(points) {
            let share = |x: f64| (x / end, 1.0 - ((intercept + slope * x) / highest).clamp(0.0, 1.0));
            canvas.path(&[share(0.0), share(end)], (upper, bottom), &format!("curve {colour}"), false);
        }
        for (x, y) in points {
            canvas.dot(x / end, height(*y), 3.0, &colour, &format!("{who}, {}: {}", digits(*x), word(*y)));
        }
    }
}

/// The line through the medians at each number, so that many rounds cost no more than few.
fn slope_of(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let mut places: Vec<f64> = points.iter().map(|(x, _)| *x).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let middles: Points = places
        .into_iter()
        .filter_map(|place| {
            let here: Vec<f64> = points.iter().filter(|(x, _)| *x == place).map(|(_, y)| *y).collect();
            Some((place, median(&here)?))
        })
        .collect();
    slope(&middles)
}

fn lines(report: &Report, figures: &[Figure]) -> Vec<Vec<String>> {
    let of_rounds = figures.iter().filter(|figure| figure.id.starts_with("scale."));
    of_rounds
        .map(|figure| {
            let word = if figure.unit == Unit::Bytes { mib } else { ms };
            let cell = |estimate: &Estimate| {
                let ends =
                    estimate.interval.map_or((estimate.min, estimate.max), |ends| (ends.low, ends.high));
                format!("{} [{} to {}]", word(estimate.median), word(ends.0), word(ends.1))
            };
            let cells = report.contenders.iter().map(|who| figure.of.get(who).map_or("–".to_owned(), cell));
            [figure.label.clone()].into_iter().chain(cells).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{example, figures};

    #[test]
    fn every_start_is_a_dot_and_every_figure_a_line() {
        let report = example::with_scale(3);
        let plot = draw(&report, &figures::all(&report)).unwrap();
        assert_eq!(plot.svg.matches("<circle").count(), 2 * 3 * 3 * 8);
        assert_eq!(plot.table.matches("<tr>").count(), 10);
        assert!(!plot.svg.contains("NaN"));
        assert!(draw(&example::report(3), &[]).is_none());
    }

    #[test]
    fn rounds_that_failed_draw_nothing() {
        let mut report = example::with_scale(2);
        report.scale.as_mut().unwrap().rounds.iter_mut().for_each(|round| round.failure = Some("x".into()));
        assert!(draw(&report, &[]).is_none());
    }
}
