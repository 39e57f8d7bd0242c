//! What each switch does to a start: a dot with its interval, left of the line when it is faster.

use super::super::svg::{Anchor, Canvas};
use super::{Plot, ms, table};
use crate::compare::Report;
use crate::compare::ablate::effects::{self, Effect};
use crate::compare::figures::Figure;

const LINE: f64 = 34.0;

/// One line for each switch of each subject.
pub fn draw(report: &Report, _: &[Figure]) -> Option<Plot> {
    let effects: Vec<Effect> = effects::all(report).into_iter().filter(|effect| effect.n > 0).collect();
    let ends =
        |effect: &Effect| effect.interval.map_or((effect.difference, effect.difference), |i| (i.low, i.high));
    let furthest = effects.iter().map(ends).map(|(low, high)| low.abs().max(high.abs())).fold(0.0, f64::max);
    if furthest <= 0.0 {
        return None;
    }
    let place = |ns: f64| 0.5 + 0.5 * (ns / furthest).clamp(-1.0, 1.0);
    let bottom = effects.len() as f64 * LINE + 4.0;
    let mut canvas = Canvas::new(bottom + 24.0);
    let marks = [-1.0, -0.5, 0.0, 0.5, 1.0].map(|share| (place(share * furthest), ms(share * furthest)));
    canvas.scale(&marks, bottom, 0.0);
    for (number, effect) in effects.iter().enumerate() {
        let y = number as f64 * LINE + 26.0;
        let class = format!("of-{}", if effect.kind.kind().is_some() { "vm" } else { "ctr" });
        let (low, high) = ends(effect);
        let words = format!("{}, {}: {}", effect.kind, effect.label, ms(effect.difference));
        canvas.word(
            0.0,
            y - 9.0,
            Anchor::Start,
            if effect.differs { "small strong" } else { "small" },
            &words,
        );
        canvas.bar(place(low), y - 2.0, place(high) - place(low), 4.0, &class, &words);
        canvas.dot(place(effect.difference), y, 5.0, &class, &words);
    }
    let lines: Vec<Vec<String>> = effects
        .iter()
        .map(|effect| {
            let range =
                effect.interval.map_or("too few".into(), |i| format!("{} to {}", ms(i.low), ms(i.high)));
            let verdict = if effect.differs { "yes" } else { "no" };
            let name = format!("{}, {}", effect.kind, effect.label);
            vec![name, ms(effect.changed), ms(effect.difference), range, verdict.into()]
        })
        .collect();
    Some(Plot {
        title: "One change at a time",
        caption: "By how much the time to the first byte changes when one thing is changed: the median of the differences within \
                  the blocks and its 95 % interval; right of the middle is slower. Differences beyond the noise are bold."
            .into(),
        svg: canvas.finish("Effect of each switch on the start", "A dot with its interval for each switch; the table below has the values."),
        legend: Vec::new(),
        table: table(&["change", "first byte", "difference", "95 %", "beyond the noise"], &lines),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::example;

    #[test]
    fn every_switch_with_launches_is_a_dot() {
        let plot = draw(&example::with_ablation(5), &[]).unwrap();
        assert_eq!(plot.svg.matches("<circle").count(), plot.table.matches("<tr>").count() - 1);
        assert!(!plot.svg.contains("NaN") && plot.table.contains("devices on PCI"));
        assert!(draw(&example::report(2), &[]).is_none());
    }
}
