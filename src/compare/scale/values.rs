//! Which figures a round gives (pure): one value each.

use super::Round;
use crate::compare::rows::Unit;
use crate::compare::stats::{median, slope};

/// One figure of a round.
pub struct Value {
    /// Its stable name.
    pub id: &'static str,
    /// What the reader sees.
    pub label: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// Reads it off a round.
    pub of: fn(&Round) -> Option<f64>,
}

/// All figures of a round, in the order in which they are shown.
pub const VALUES: [Value; 9] = [
    Value { id: "scale.first", label: "first (PSS)", unit: Unit::Bytes, of: Round::first },
    Value { id: "scale.further", label: "each more (PSS)", unit: Unit::Bytes, of: Round::further },
    Value { id: "scale.shared", label: "of it shared", unit: Unit::Bytes, of: Round::shared },
    Value { id: "scale.available", label: "less available", unit: Unit::Bytes, of: Round::taken },
    Value { id: "scale.alone", label: "1st byte, alone", unit: Unit::Time, of: Round::alone },
    Value { id: "scale.slower", label: "+ each running", unit: Unit::Time, of: Round::slower },
    Value { id: "scale.latency", label: "at once: median", unit: Unit::Time, of: Round::latency },
    Value { id: "scale.latency-worst", label: "at once: slowest", unit: Unit::Time, of: Round::worst },
    Value { id: "scale.makespan", label: "at once: all", unit: Unit::Time, of: Round::makespan },
];

impl Round {
    /// Points (sandboxes that run, bytes of all).
    pub fn memory(&self, of: impl Fn(&super::Step) -> Option<u64>) -> Vec<(f64, f64)> {
        let all = self.steps.iter().enumerate();
        all.filter_map(|(before, step)| Some(((before + 1) as f64, of(step)? as f64))).collect()
    }

    /// Points (sandboxes that ran before, nanoseconds of the next one's start).
    pub fn starts(&self) -> Vec<(f64, f64)> {
        let all = self.steps.iter().enumerate();
        all.map(|(before, step)| (before as f64, step.start.took())).collect()
    }

    fn first(&self) -> Option<f64> {
        self.steps.first()?.pss.map(|bytes| bytes as f64)
    }

    /// The slope of the proportional set size: pages that all share are in it once, in the first.
    fn further(&self) -> Option<f64> {
        Some(slope(&self.memory(|step| step.pss))?.0)
    }

    /// What a further one maps and does not cost: resident less proportional.
    fn shared(&self) -> Option<f64> {
        Some(slope(&self.memory(|step| step.rss))?.0 - self.further()?)
    }

    /// How much less the host has available for each one; kernel memory and page cache are in it.
    fn taken(&self) -> Option<f64> {
        let before = self.available.map(|bytes| (0.0, bytes as f64));
        let points: Vec<_> = before.into_iter().chain(self.memory(|step| step.available)).collect();
        // Nothing has no sign.
        Some(0.0 - slope(&points)?.0)
    }

    fn alone(&self) -> Option<f64> {
        Some(self.steps.first()?.start.took())
    }

    fn slower(&self) -> Option<f64> {
        Some(slope(&self.starts())?.0)
    }

    fn latency(&self) -> Option<f64> {
        median(&self.burst.iter().map(super::Start::took).collect::<Vec<f64>>())
    }

    fn worst(&self) -> Option<f64> {
        self.burst.iter().map(super::Start::took).reduce(f64::max)
    }

    /// From the first that was asked for until the last that was ready.
    fn makespan(&self) -> Option<f64> {
        let first = self.burst.iter().map(|start| start.asked).min()?;
        let last = self.burst.iter().map(|start| start.first_byte).max()?;
        Some(last.saturating_sub(first) as f64)
    }
}

#[cfg(test)]
mod tests {
    use hv_common::Kind;

    use super::*;
    use crate::compare::scale::{Start, Step};

    fn value(round: &Round, id: &str) -> Option<f64> {
        (VALUES.iter().find(|value| value.id == id).unwrap().of)(round)
    }

    /// 10 MiB of which 4 are shared by all, 6 each; every running one adds 2 ms to 50.
    fn round() -> Round {
        let mib = |count: u64| count << 20;
        let steps = (0..8).map(|before| Step {
            start: Start { asked: 1000, first_byte: 1000 + 50_000_000 + before * 2_000_000 },
            pss: Some(mib(4 + 6 * (before + 1))),
            rss: Some(mib(10 * (before + 1))),
            available: Some(mib(900 - 7 * (before + 1))),
        });
        Round {
            round: 0,
            kind: Kind::Ctr.into(),
            available: Some(mib(900)),
            steps: steps.collect(),
            burst: [(10, 40), (12, 100), (15, 60)]
                .map(|(asked, first_byte)| Start { asked, first_byte })
                .into(),
            failure: None,
        }
    }

    #[test]
    fn slopes_tell_the_shared_from_the_own() {
        let round = round();
        let mib = |id| value(&round, id).unwrap() / 1_048_576.0;
        assert_eq!(
            ["scale.first", "scale.further", "scale.shared", "scale.available"].map(mib),
            [10.0, 6.0, 4.0, 7.0]
        );
        assert_eq!(value(&round, "scale.slower"), Some(2e6));
        assert_eq!(value(&round, "scale.alone"), Some(5e7));
    }

    #[test]
    fn makespan_is_from_the_first_asked_to_the_last_ready() {
        let round = round();
        let all = ["scale.latency", "scale.latency-worst", "scale.makespan"].map(|id| value(&round, id));
        assert_eq!(all, [Some(45.0), Some(88.0), Some(90.0)]);
    }

    #[test]
    fn labels_fit_their_column() {
        assert!(VALUES.iter().all(|value| value.label.len() <= 17));
    }

    #[test]
    fn one_sandbox_has_no_slope() {
        let mut round = round();
        round.steps.truncate(1);
        round.burst.clear();
        let known: Vec<&str> =
            VALUES.iter().filter(|value| (value.of)(&round).is_some()).map(|value| value.id).collect();
        assert_eq!(known, ["scale.first", "scale.available", "scale.alone"]);
    }
}
