//! What each switch costs, in 80 columns and as lines of CSV.

use std::fmt::Write;

use super::csv::quoted;
use super::text::{entry, short};
use crate::compare::ablate::effects::{self, Effect};
use crate::compare::{Ablation, Report};

/// A table of all switches; nothing when none was tried.
pub fn render(out: &mut String, report: &Report) {
    let Some(ablation) = &report.ablation else { return };
    let effects = effects::all(report);
    for who in effects.iter().filter(|effect| effect.switch == "twin") {
        let title = format!("{} with one change, ms", who.kind);
        let _ = writeln!(out, "{title:<30}{:>10}{:>12}   95% of the difference", "1st byte", "difference");
        let _ = writeln!(out, "  {:<28}{:>10}", "as usual", short(who.usual / 1e6));
        for effect in effects.iter().filter(|effect| effect.kind == who.kind) {
            line(out, effect);
        }
    }
    for effect in &effects {
        if let Some(why) = &effect.failure {
            entry(out, "absent", &format!("{}, {}: {why}", effect.kind, effect.label));
        }
    }
    let words = "blocks in random order; ~ marks what is no difference beyond the noise";
    entry(out, "changes", &format!("{} {words}", ablation.blocks));
}

fn line(out: &mut String, effect: &Effect) {
    if effect.n == 0 {
        let _ = writeln!(out, "  {:<28}{:>10}", effect.label, "absent");
        return;
    }
    let ms = |ns: f64| short(ns / 1e6 + 0.0);
    let mark = if effect.differs { "" } else { "~" };
    let difference =
        format!("{mark}{}{}", if effect.difference > 0.0 { "+" } else { "" }, ms(effect.difference));
    let interval =
        effect.interval.map_or("too few".to_owned(), |ends| format!("{} to {}", ms(ends.low), ms(ends.high)));
    let _ = writeln!(out, "  {:<28}{:>10}{difference:>12}   {interval}", effect.label, ms(effect.changed));
}

/// A line for each launch.
pub fn csv(ablation: &Ablation) -> String {
    let mut out = String::from("kind,switch,block,asked,first_byte,gone,failure\r\n");
    for trial in &ablation.trials {
        let failure = quoted(trial.failure.as_deref().unwrap_or_default());
        let _ = write!(
            out,
            "{},{},{},{},{},{},{failure}\r\n",
            trial.kind,
            quoted(&trial.switch),
            trial.block,
            trial.asked,
            trial.first_byte,
            trial.gone
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::example;
    use crate::compare::report::text;

    #[test]
    fn the_table_fits_80_columns_and_says_what_differs() {
        let text = text::render(&example::with_ablation(9));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let line = |label: &str| text.lines().find(|line| line.contains(label)).unwrap();
        assert!(line("devices on PCI").contains(" +3") || line("devices on PCI").contains(" +2"), "{text}");
        assert!(line("the same once more").contains('~'), "{text}");
        assert!(line("memory of huge pages").contains("absent") && text.contains("no pool"), "{text}");
    }

    #[test]
    fn every_launch_is_a_line() {
        let ablation = example::with_ablation(2).ablation.unwrap();
        let text = csv(&ablation);
        assert_eq!(text.split_terminator("\r\n").count(), 1 + ablation.trials.len());
    }
}
