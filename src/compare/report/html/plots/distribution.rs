//! Every start: the share of launches that were ready by a time.

use super::super::svg::{Anchor, Canvas, logarithmic};
use super::{Plot, colour, digits, ms, table};
use crate::compare::figures::Figure;
use crate::compare::stats::{median, quantile_if_known};
use crate::compare::{Contender, Report, Role, Sample};

const TOP: f64 = 14.0;
const BOTTOM: f64 = 214.0;
const HEIGHT: f64 = 262.0;

/// Sorted times of one contender, nanoseconds.
fn times(report: &Report, who: &Contender, role: Role) -> Vec<f64> {
    let mut times: Vec<f64> =
        report.counted(who, role).filter_map(Sample::ready).filter(|time| *time > 0.0).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// One curve for each contender, warm, and one for its cold starts.
pub fn draw(report: &Report, _: &[Figure]) -> Option<Plot> {
    let curves: Vec<(&Contender, Role, Vec<f64>)> = report
        .contenders
        .iter()
        .flat_map(|who| [Role::Main, Role::Cold].map(|role| (who, role, times(report, who, role))))
        .filter(|(_, _, times)| times.len() >= 2)
        .collect();
    let all = || curves.iter().flat_map(|(_, _, times)| times.iter().copied());
    let (low, high) = (all().reduce(f64::min)?, all().reduce(f64::max)?);
    let (place, marks) = logarithmic(low / 1e6, high / 1e6, |value| format!("{} ms", digits(value)));
    let place = |ns: f64| place(ns / 1e6);
    let mut canvas = Canvas::new(HEIGHT);
    canvas.scale(&marks, BOTTOM, TOP);
    for share in [0.5, 1.0] {
        let y = BOTTOM - share * (BOTTOM - TOP);
        canvas.line((0.0, y), (1.0, y), "grid");
        canvas.word(0.0, y - 3.0, Anchor::Start, "small", &format!("{:.0} %", share * 100.0));
    }
    for (number, (who, role, times)) in curves.iter().enumerate() {
        let colour = colour(report, who);
        if *role == Role::Main {
            canvas.path(&band(times, &place), (TOP, BOTTOM), &format!("band {colour}"), true);
        }
        let style = if *role == Role::Cold { "curve dashed" } else { "curve" };
        canvas.path(&steps(times, &place), (TOP, BOTTOM), &format!("{style} {colour}"), false);
        let y = BOTTOM + 22.0 + 5.0 * (number as f64 / 2.0).floor();
        for time in times.iter().filter(|_| *role == Role::Main) {
            canvas.line((place(*time), y), (place(*time), y + 4.0), &format!("tick {colour}"));
        }
    }
    Some(Plot {
        title: "Every start",
        caption: "The share of launches whose first byte had arrived by a time; the scale is logarithmic. Solid: warm, \
                  with the band that holds the true curve in 95 of 100 comparisons (Dvoretzky, Kiefer, Wolfowitz) and a tick for \
                  every launch. Dashed: the image's and the kernel's pages were out of the page cache."
            .into(),
        svg: canvas.finish("Distribution of the time to the first byte", "A rising curve for each contender; the table below has its quantiles."),
        legend: report.contenders.iter().map(|who| (colour(report, who), who.to_string())).collect(),
        table: table(&["first byte", "launches", "fastest", "median", "95 of 100", "slowest"], &lines(&curves)),
    })
}

/// A stair for sorted times: up by one share at each.
fn steps(times: &[f64], place: &impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    stair(times, place, 0.0)
}

fn stair(times: &[f64], place: &impl Fn(f64) -> f64, lift: f64) -> Vec<(f64, f64)> {
    let height = |count: usize| 1.0 - (count as f64 / times.len() as f64 + lift).clamp(0.0, 1.0);
    let mut points = vec![(0.0, height(0))];
    for (count, time) in times.iter().enumerate() {
        points.extend([(place(*time), height(count)), (place(*time), height(count + 1))]);
    }
    points.push((1.0, height(times.len())));
    points
}

/// The band around the stair: sqrt(ln(2 / 0.05) / 2n) up and down.
fn band(times: &[f64], place: &impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    let half = ((2.0f64 / 0.05).ln() / (2.0 * times.len() as f64)).sqrt();
    let mut outline = stair(times, place, half);
    outline.extend(stair(times, place, -half).into_iter().rev());
    outline
}

fn lines(curves: &[(&Contender, Role, Vec<f64>)]) -> Vec<Vec<String>> {
    let line = |(who, role, times): &(&Contender, Role, Vec<f64>)| {
        let far = quantile_if_known(times, 0.95).map_or("too few launches".to_owned(), ms);
        let ends = (times.first().copied().unwrap_or(0.0), times.last().copied().unwrap_or(0.0));
        let state = if *role == Role::Cold { ", cold" } else { "" };
        let middle = ms(median(times).unwrap_or(0.0));
        vec![format!("{who}{state}"), times.len().to_string(), ms(ends.0), middle, far, ms(ends.1)]
    };
    curves.iter().map(line).collect()
}
