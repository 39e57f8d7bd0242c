//! What work costs inside, in 80 columns: what an operation takes in a bare process, and the others as ratios to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use hv_common::Kind;

use super::text::{WIDTH, entry, short};
use crate::compare::figures::{Comparison, Figure};
use crate::compare::inside::catalogue::{Nature, WORKLOADS};
use crate::compare::{Contender, Report, Role};

const LABEL: usize = 18;
const TIME: usize = 9;
const RATIO: usize = 21;
const EXITS: usize = 8;
const _: () = assert!(LABEL + TIME + 2 * RATIO + EXITS + 2 < WIDTH);

/// Who the others are compared with, and they: by the names of their ratios.
pub fn columns(report: &Report) -> Option<(Contender, Vec<(Contender, String)>)> {
    let known = [Kind::Process, Kind::Ctr, Kind::Vm].map(Contender::from);
    let mut there = known.into_iter().filter(|who| report.contenders.contains(who));
    let base = there.next()?;
    let others = there.map(|who| (who.clone(), format!("{who}/{base}"))).collect();
    Some((base, others))
}

/// A table of the workloads; nothing when none was done.
pub fn render(out: &mut String, report: &Report, figures: &[Figure]) {
    let (Some(inside), Some((base, others))) = (&report.inside, columns(report)) else { return };
    let find = |id: &str| figures.iter().find(|figure| figure.id == id);
    let _ = write!(out, "{:<LABEL$}{:>TIME$}", "inside, ns an op.", base.word());
    for (_, name) in &others {
        let _ = write!(out, "{name:>RATIO$}");
    }
    let has_vm = report.contenders.contains(&Kind::Vm.into());
    let _ = writeln!(out, "{}", if has_vm { format!("{:>EXITS$}", "exits") } else { String::new() });
    for workload in WORKLOADS {
        let Some(figure) = find(workload.time) else { continue };
        let time = figure.of.get(&base).map_or("–".to_owned(), |estimate| short(estimate.median));
        let _ = write!(out, "  {:<1$}{time:>TIME$}", workload.name, LABEL - 2);
        for (_, name) in &others {
            let cell = figure.ratios.get(name).map_or("–".to_owned(), ratio);
            let _ = write!(out, "{cell:>RATIO$}");
        }
        if has_vm {
            let exits = find(workload.exits).and_then(|figure| figure.of.get(&Contender::from(Kind::Vm)));
            let exits = exits.map_or("–".to_owned(), |estimate| short(estimate.median));
            let _ = write!(out, "{exits:>EXITS$}");
        }
        let mark = if workload.nature == Nature::Structural { "s" } else { "i" };
        let _ = writeln!(out, " {mark}");
    }
    let words = format!(
        "{} rounds in random order after one as warm-up, {} % of the operations; s structural: of the wall itself, i \
         implementation: of how it is built; ~ no difference beyond the noise{}",
        inside.count(),
        inside.percent,
        if inside.rounds.iter().any(|round| round.role == Role::Twin) {
            ""
        } else {
            " (5 %, floor not measured)"
        }
    );
    entry(out, "inside", &words);
    places(out, report);
}

fn ratio(comparison: &Comparison) -> String {
    let mark = if comparison.differs || comparison.paired.interval.is_none() { "" } else { "~" };
    let ends = comparison.paired.interval;
    let ends = ends.map_or(String::new(), |ends| format!(" [{}..{}]", short(ends.low), short(ends.high)));
    format!("{mark}{}x{ends}", short(comparison.paired.ratio))
}

/// On which file systems each contender worked, and what it could not do.
fn places(out: &mut String, report: &Report) {
    let mut on = BTreeMap::<&Contender, BTreeSet<String>>::new();
    let mut failed = BTreeMap::<String, usize>::new();
    for round in report.inside.iter().flat_map(|inside| &inside.rounds) {
        for outcome in round.done.iter().map(|done| &done.outcome) {
            let group = outcome.name.split('-').next().unwrap_or_default();
            if let Some(place) = &outcome.place {
                on.entry(&round.kind).or_default().insert(format!("{group} {place}"));
            }
            if let Some(why) = &outcome.failure {
                *failed.entry(format!("{}: {}: {why}", round.kind, outcome.name)).or_default() += 1;
            }
        }
        if let Some(why) = &round.failure {
            *failed.entry(format!("{}: round inside failed: {why}", round.kind)).or_default() += 1;
        }
    }
    let all: Vec<String> = on
        .into_iter()
        .map(|(who, places)| format!("{who}: {}", places.into_iter().collect::<Vec<_>>().join(", ")))
        .collect();
    if !all.is_empty() {
        entry(out, "files", &format!("worked on, {}", all.join("; ")));
    }
    for (why, times) in failed {
        entry(out, "absent", &format!("{why} ({times} times)"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::example;
    use crate::compare::report::text;

    #[test]
    fn the_table_fits_and_shows_ratios_exits_and_their_nature() {
        let mut report = example::with_inside(6);
        let shown = text::render(&report);
        assert!(shown.lines().all(|line| line.chars().count() <= WIDTH), "{shown}");
        let pipe = shown.lines().find(|line| line.starts_with("  pipe")).unwrap();
        assert!(pipe.contains("1.3") && pipe.contains("2.00 s") && pipe.contains("1.1"), "{pipe}");
        assert!(!shown.contains("fewer "), "rounds are no launches: {shown}");
        assert!(shown.contains("file overlay") && shown.contains("6 rounds in random order"), "{shown}");
        let rounds = &mut report.inside.as_mut().unwrap().rounds;
        rounds[0].done[3].outcome.failure = Some("no memory".into());
        rounds[1].failure = Some("it ended".into());
        let shown = text::render(&report);
        assert!(
            shown.contains("memory-bandwidth: no memory (1 times)") && shown.contains("it ended"),
            "{shown}"
        );
    }

    #[test]
    fn without_a_bare_process_the_container_is_the_base() {
        let mut report = example::with_inside(3);
        report.contenders.remove(0);
        let (base, others) = columns(&report).unwrap();
        assert_eq!((base.word(), others[0].1.as_str(), others.len()), ("ctr", "vm/ctr", 1));
        report.contenders.clear();
        assert!(columns(&report).is_none());
    }
}
