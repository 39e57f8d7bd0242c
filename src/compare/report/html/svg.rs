//! The shapes that plots are made of. Across, everything is a share of the width (0 to 1); down, pixels.

use std::fmt::Write;

use super::escaped;

/// Where a word stands in relation to its place.
#[derive(Debug, Clone, Copy)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// It is centred there.
    Middle,
    /// It ends there.
    End,
}

impl Anchor {
    /// The anchor that keeps a word within the plot at place `x`.
    pub fn at(x: f64) -> Anchor {
        match x {
            x if x < 0.1 => Anchor::Start,
            x if x > 0.9 => Anchor::End,
            _ => Anchor::Middle,
        }
    }
}

/// A plot in the making.
pub struct Canvas {
    shapes: String,
    height: f64,
}

impl Canvas {
    /// An empty plot of this height in pixels.
    pub fn new(height: f64) -> Canvas {
        Canvas { shapes: String::new(), height }
    }

    /// A rectangle; `says` is shown by a browser that points at it.
    pub fn bar(&mut self, x: f64, y: f64, width: f64, height: f64, class: &str, says: &str) {
        let (x, width) = (percent(x), percent(width));
        let says = escaped(says);
        let _ = write!(
            self.shapes,
            "<rect class=\"{class}\" x=\"{x}%\" y=\"{y:.1}\" width=\"{width}%\" height=\"{height:.1}\"><title>{says}</title></rect>"
        );
    }

    /// A word at a place; `y` is its base line.
    pub fn word(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, word: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (x, word) = (percent(x), escaped(word));
        let _ = write!(
            self.shapes,
            "<text class=\"{class}\" x=\"{x}%\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{word}</text>"
        );
    }

    /// A straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let (x1, x2) = (percent(from.0), percent(to.0));
        let _ = write!(
            self.shapes,
            "<line class=\"{class}\" x1=\"{x1}%\" y1=\"{:.1}\" x2=\"{x2}%\" y2=\"{:.1}\"/>",
            from.1, to.1
        );
    }

    /// A dot.
    pub fn dot(&mut self, x: f64, y: f64, radius: f64, class: &str, says: &str) {
        let (x, says) = (percent(x), escaped(says));
        let _ = write!(
            self.shapes,
            "<circle class=\"{class}\" cx=\"{x}%\" cy=\"{y:.1}\" r=\"{radius}\"><title>{says}</title></circle>"
        );
    }

    /// A broken line or, `filled`, the area that it encloses, between `top` and `bottom`; points are shares of the
    /// width and of that height (0 above).
    pub fn path(&mut self, points: &[(f64, f64)], (top, bottom): (f64, f64), class: &str, filled: bool) {
        let places: Vec<String> =
            points.iter().map(|(x, y)| format!("{:.2},{:.2}", x * 1000.0, y * 1000.0)).collect();
        let (shape, places) = (if filled { "polygon" } else { "polyline" }, places.join(" "));
        let _ = write!(
            self.shapes,
            "<svg x=\"0\" y=\"{top:.1}\" width=\"100%\" height=\"{:.1}\" viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\"><{shape} class=\"{class}\" points=\"{places}\"/></svg>",
            bottom - top
        );
    }

    /// Marks on a scale along `y`, with a faint line up to `top`.
    pub fn scale(&mut self, marks: &[(f64, String)], y: f64, top: f64) {
        self.line((0.0, y), (1.0, y), "axis");
        for (x, word) in marks {
            self.line((*x, top), (*x, y), "grid");
            self.word(*x, y + 16.0, Anchor::at(*x), "small", word);
        }
    }

    /// The whole, described in words for those who cannot see it.
    pub fn finish(self, title: &str, description: &str) -> String {
        let (title, description) = (escaped(title), escaped(description));
        format!(
            "<svg class=\"plot\" role=\"img\" width=\"100%\" height=\"{:.0}\"><title>{title}</title><desc>{description}</desc>{}</svg>",
            self.height, self.shapes
        )
    }
}

/// A share as a number of per cent that no browser misreads.
fn percent(share: f64) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    format!("{:.3}", share * 100.0)
}

/// A scale from 0 to `end`: the largest value drawn, and three to six round marks.
pub fn linear(end: f64, word: impl Fn(f64) -> String) -> (f64, Vec<(f64, String)>) {
    let end = if end.is_finite() && end > 0.0 { end } else { 1.0 };
    let rough = end / 4.0;
    let unit = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|n| n * unit).into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let marks = (0..=(end / step).floor() as u32).map(|n| f64::from(n) * step);
    (end, marks.map(|value| (value / end, word(value))).collect())
}

/// A logarithmic scale that holds `low` to `high`: where a value lies, and a mark at 1, 2 and 5 times each power of
/// ten, or at the powers alone when there are many.
pub fn logarithmic(
    low: f64,
    high: f64,
    word: impl Fn(f64) -> String,
) -> (impl Fn(f64) -> f64, Vec<(f64, String)>) {
    let (low, high) =
        if low > 0.0 && high.is_finite() && high >= low { (low * 0.9, high * 1.1) } else { (1.0, 10.0) };
    let (from, to) = (low.ln(), high.ln());
    let place = move |value: f64| ((value.max(low).ln() - from) / (to - from)).clamp(0.0, 1.0);
    let steps: &[f64] = if high / low > 100.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let marks = (first..=last)
        .flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)))
        .filter(|value| (low..=high).contains(value))
        .map(|value| (place(value), word(value)))
        .collect();
    (place, marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_round_marks_within() {
        let (end, marks) = linear(163.0, |value| format!("{value}"));
        assert_eq!(end, 163.0);
        assert_eq!(
            marks.iter().map(|(_, word)| word.as_str()).collect::<Vec<_>>(),
            ["0", "50", "100", "150"]
        );
        assert!(marks.iter().all(|(x, _)| (0.0..=1.0).contains(x)));
        let (place, marks) = logarithmic(9.0, 162.0, |value| format!("{value}"));
        assert_eq!(
            marks.iter().map(|(_, word)| word.as_str()).collect::<Vec<_>>(),
            ["10", "20", "50", "100"]
        );
        assert!(place(9.0) < place(10.0) && place(1e9) == 1.0 && place(0.0) == 0.0);
    }

    #[test]
    fn values_that_are_none_draw_nothing_odd() {
        let (_, marks) = linear(f64::NAN, |value| format!("{value}"));
        assert!(!marks.is_empty());
        let (place, _) = logarithmic(0.0, f64::INFINITY, |value| format!("{value}"));
        assert!((0.0..=1.0).contains(&place(3.0)));
        let mut canvas = Canvas::new(10.0);
        canvas.bar(f64::NAN, 0.0, f64::INFINITY, 5.0, "a", "<&>");
        let svg = canvas.finish("t", "d");
        assert!(!svg.contains("NaN") && !svg.contains("inf") && svg.contains("&lt;&amp;&gt;"), "{svg}");
    }
}
