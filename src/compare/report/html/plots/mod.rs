//! The plots, one a file. Each is drawn from figures that the report's tables show too.

mod boundary;
mod distribution;
mod ledger;
mod overhead;
mod phases;
mod scaling;
mod switches;
mod trade;

use super::table;
use crate::compare::Report;
use crate::compare::figures::Figure;

/// A plot with its words and its table.
pub struct Plot {
    /// Its heading.
    pub title: &'static str,
    /// What to see in it.
    pub caption: String,
    /// The picture.
    pub svg: String,
    /// What the colours mean: class and word.
    pub legend: Vec<(String, String)>,
    /// The same as a table.
    pub table: String,
}

type Draw = fn(&Report, &[Figure]) -> Option<Plot>;

/// All plots that the report has samples for.
pub fn all(report: &Report, figures: &[Figure]) -> Vec<Plot> {
    let draw: [Draw; 8] = [
        phases::draw,
        distribution::draw,
        ledger::draw,
        scaling::draw,
        overhead::draw,
        switches::draw,
        boundary::draw,
        trade::draw,
    ];
    draw.iter().filter_map(|draw| draw(report, figures)).collect()
}

/// Milliseconds of nanoseconds, with about three digits.
fn ms(ns: f64) -> String {
    format!("{} ms", digits(ns / 1e6))
}

/// MiB of bytes, with about three digits.
fn mib(bytes: f64) -> String {
    format!("{} MiB", digits(bytes / (1024.0 * 1024.0)))
}

fn digits(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 99.95 || magnitude == 0.0 => format!("{value:.0}"),
        magnitude if magnitude >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The colour of a contender: hv's own kinds have theirs, the others share what is left.
fn colour(report: &Report, who: &crate::compare::Contender) -> String {
    let place = report.contenders.iter().position(|one| one == who).unwrap_or(0);
    match who.kind() {
        Some(kind) => format!("of-{kind}"),
        None => format!("of-peer{}", place % 4),
    }
}
