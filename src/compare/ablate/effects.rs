//! What the launches say of each switch (pure): by how much a start changes, block by block.

use std::collections::BTreeMap;

use serde::Serialize;

use super::switches::{self, Switch};
use super::{Ablation, TWIN, Trial, USUAL};
use crate::compare::stats::{
    Estimate, Interval, PRACTICAL, Paired, Random, interval_of_median, median, noise_floor,
};
use crate::compare::{Contender, Report};

/// What one switch does to the time to the first byte. Nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effect {
    /// What was started.
    pub kind: Contender,
    /// The switch; `twin` is the A/A comparison.
    pub switch: String,
    /// What the reader sees.
    #[serde(skip)]
    pub label: &'static str,
    /// Blocks with both starts.
    pub n: usize,
    /// The usual start, median.
    pub usual: f64,
    /// The start with the switch, median.
    pub changed: f64,
    /// Median of the differences within the blocks.
    pub difference: f64,
    /// Its interval; absent with fewer than three blocks.
    pub interval: Option<Interval>,
    /// True when the interval excludes 0 and the difference exceeds 5 per cent of the usual start and the noise floor.
    pub differs: bool,
    /// Why there is no figure, where every launch failed.
    pub failure: Option<String>,
}

/// The effects of all switches, the twin of each subject first.
pub fn all(report: &Report) -> Vec<Effect> {
    let Some(ablation) = &report.ablation else { return Vec::new() };
    let mut subjects: Vec<&Contender> = Vec::new();
    for trial in &ablation.trials {
        if !subjects.contains(&&trial.kind) {
            subjects.push(&trial.kind);
        }
    }
    subjects.sort();
    subjects.into_iter().flat_map(|who| of(report.seed, ablation, who)).collect()
}

fn of(seed: u64, ablation: &Ablation, who: &Contender) -> Vec<Effect> {
    let usual = starts(ablation, who, USUAL);
    let twin = starts(ablation, who, TWIN);
    let pairs: Vec<_> = twin.iter().map(|(block, at)| (usual.get(block).copied(), Some(*at))).collect();
    let mut random = Random::new(seed, &format!("ablate/{who}/twin"));
    let floor = Paired::of(&pairs, &mut random).and_then(|same| noise_floor(&same)).unwrap_or(0.0);
    let twins = [(TWIN, "the same once more")];
    let changes = switches::of(who).iter().map(|Switch { id, label, .. }| (*id, *label));
    twins
        .into_iter()
        .chain(changes)
        .map(|(id, label)| effect(ablation, who, (id, label), &usual, floor))
        .collect()
}

fn effect(
    ablation: &Ablation,
    who: &Contender,
    (id, label): (&str, &'static str),
    usual: &BTreeMap<usize, f64>,
    floor: f64,
) -> Effect {
    let changed = starts(ablation, who, id);
    let differences: Vec<f64> =
        changed.iter().filter_map(|(block, at)| Some(at - usual.get(block)?)).collect();
    let middle = |series: &BTreeMap<usize, f64>| {
        Estimate::of(&series.values().copied().collect::<Vec<f64>>()).map_or(0.0, |all| all.median)
    };
    let (usual, difference) = (middle(usual), median(&differences).unwrap_or(0.0));
    let interval = interval_of_median(&differences);
    let failure = trials(ablation, who, id).find_map(|trial| trial.failure.clone());
    let surely = interval.is_some_and(|ends| ends.low > 0.0 || ends.high < 0.0);
    Effect {
        kind: who.clone(),
        switch: id.into(),
        label,
        n: differences.len(),
        usual,
        changed: middle(&changed),
        difference,
        interval,
        differs: surely && difference.abs() > f64::max(PRACTICAL, floor) * usual,
        failure: failure.filter(|_| differences.is_empty()),
    }
}

fn trials<'a>(
    ablation: &'a Ablation,
    who: &'a Contender,
    switch: &'a str,
) -> impl Iterator<Item = &'a Trial> {
    ablation
        .trials
        .iter()
        .filter(move |trial| trial.kind == *who && trial.switch == switch && trial.block > 0)
}

/// Nanoseconds to the first byte, by block.
fn starts(ablation: &Ablation, who: &Contender, switch: &str) -> BTreeMap<usize, f64> {
    let counted = trials(ablation, who, switch).filter(|trial| trial.failure.is_none());
    counted.map(|trial| (trial.block, trial.ready())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::example;

    #[test]
    fn a_switch_that_costs_differs_and_the_twin_does_not() {
        let effects = all(&example::with_ablation(9));
        let of = |switch: &str| effects.iter().find(|effect| effect.switch == switch).unwrap();
        assert!(!of(TWIN).differs, "{:?}", of(TWIN));
        let pci = of("transport-pci");
        assert!(pci.differs && (25e6..35e6).contains(&pci.difference) && pci.n == 9, "{pci:?}");
        assert!(!of("balloon").differs, "{:?}", of("balloon"));
        let failed = of("huge-pages");
        assert_eq!((failed.n, failed.failure.as_deref()), (0, Some("no pool")));
        assert!(all(&example::report(3)).is_empty());
    }
}
