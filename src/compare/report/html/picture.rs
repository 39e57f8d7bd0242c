//! One plot as a file of its own, for a document that shows pictures: the README's is made so.

use super::escaped;
use super::page::STYLE;
use super::plots::{self, Plot};
use crate::compare::{Report, figures};

/// Width of the picture in pixels.
const WIDTH: f64 = 720.0;
const MARGIN: f64 = 16.0;
/// One line of the legend.
const LINE: f64 = 22.0;
/// About what a letter takes at this size: legends need no more precision.
const LETTER: f64 = 7.2;
const KEY: f64 = 14.0;

/// Where the time until the first byte goes, as an SVG file; None when nothing was launched.
pub fn render(report: &Report) -> Option<String> {
    let figures = figures::all(report);
    plots::first(report, &figures).map(|(plot, height)| standalone(&plot, height))
}

fn standalone(plot: &Plot, plot_height: f64) -> String {
    let (legend, legend_height) = legend(&plot.legend);
    let height = MARGIN + plot_height + legend_height + MARGIN;
    let below = MARGIN + plot_height;
    let inner = WIDTH - 2.0 * MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui,sans-serif\" font-size=\"14\">\
         <style>{STYLE}</style><rect width=\"100%\" height=\"100%\" style=\"fill:var(--paper)\"/>\
         <svg x=\"{MARGIN}\" y=\"{MARGIN}\" width=\"{inner}\" height=\"{plot_height}\">{}</svg>\
         <svg x=\"{MARGIN}\" y=\"{below}\" width=\"{inner}\" height=\"{legend_height}\">{legend}</svg></svg>\n",
        plot.svg
    )
}

/// The legend's entries, as many a line as fit, and how high that is.
fn legend(entries: &[(String, String)]) -> (String, f64) {
    let (mut x, mut y, mut out) = (0.0, LINE, String::new());
    for (class, word) in entries {
        let width = KEY + 6.0 + word.chars().count() as f64 * LETTER + 18.0;
        if x > 0.0 && x + width > WIDTH - 2.0 * MARGIN {
            (x, y) = (0.0, y + LINE);
        }
        out.push_str(&format!(
            "<rect class=\"{class}\" x=\"{x:.0}\" y=\"{:.0}\" width=\"{KEY}\" height=\"{KEY}\"/><text x=\"{:.0}\" y=\"{y:.0}\" style=\"fill:var(--ink)\">{}</text>",
            y - KEY + 2.0,
            x + KEY + 6.0,
            escaped(word)
        ));
        x += width;
    }
    (out, if entries.is_empty() { 0.0 } else { y + 8.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::example;

    #[test]
    fn it_stands_alone() {
        let picture = render(&example::report(12)).unwrap();
        assert!(picture.starts_with("<svg xmlns="));
        assert_eq!(picture.matches("<svg").count(), picture.matches("</svg>").count());
        assert!(picture.contains("its first byte") && !picture.contains("NaN"));
        assert!(!picture.contains("<script") && !picture.contains("href"));
    }

    #[test]
    fn a_long_legend_breaks_into_lines() {
        let entries: Vec<_> =
            (0..12).map(|n| (format!("phase{n}"), "a rather long word".to_owned())).collect();
        let (text, height) = legend(&entries);
        assert!(height > 2.0 * LINE, "{height}");
        assert_eq!(text.matches("<rect").count(), 12);
    }
}
