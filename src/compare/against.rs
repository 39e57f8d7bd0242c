//! Two reports (pure): two hosts, or two versions of something.

use serde::Serialize;

use super::rows::{Row, SECTIONS, Unit};
use super::stats::{Random, Unpaired, differs, median};
use super::{Contender, Report, Role, figures};

/// The figures by which a second report is judged as slower or larger.
const JUDGED: [&str; 3] = ["start.ready", "end.cpu", "memory.sum"];

/// One figure of one contender in both reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// The figure's stable name.
    pub id: &'static str,
    /// What the reader sees.
    pub label: &'static str,
    /// The unit of both medians.
    pub unit: Unit,
    /// Whose.
    pub who: Contender,
    /// The median in the first report.
    pub before: f64,
    /// The median in the second report.
    pub after: f64,
    /// The second over the first.
    #[serde(flatten)]
    pub ratio: Unpaired,
    /// True when the interval excludes 1 and the effect exceeds five per cent and both noise floors.
    pub differs: bool,
}

impl Change {
    /// True for a figure that counts, is worse by more than `share`, and is surely worse at all.
    pub fn is_worse_by(&self, share: f64) -> bool {
        let surely = self.ratio.interval.is_some_and(|ends| ends.low > 1.0);
        JUDGED.contains(&self.id) && surely && self.ratio.ratio > 1.0 + share
    }
}

/// Every figure that both reports have.
pub fn changes(before: &Report, after: &Report) -> Vec<Change> {
    let common = before.contenders.iter().filter(|who| after.contenders.contains(who));
    common
        .flat_map(|who| {
            let rows = SECTIONS.iter().flat_map(|section| section.rows);
            rows.filter_map(move |row| change(before, after, who, row))
        })
        .collect()
}

fn change(before: &Report, after: &Report, who: &Contender, row: &'static Row) -> Option<Change> {
    let values =
        |report: &Report| -> Vec<f64> { report.counted(who, Role::Main).filter_map(row.of).collect() };
    let (old, new) = (values(before), values(after));
    let mut random =
        Random::new(before.seed ^ after.seed.rotate_left(1), &format!("{}/{who}/change", row.id));
    let ratio = Unpaired::of(&old, &new, &mut random)?;
    let floors = [before, after].map(|report| figures::floor(report, row, who).unwrap_or(0.0));
    let differs = differs(ratio.ratio, ratio.interval, f64::max(floors[0], floors[1]));
    Some(Change {
        id: row.id,
        label: row.label,
        unit: row.unit,
        who: who.clone(),
        before: median(&old)?,
        after: median(&new)?,
        ratio,
        differs,
    })
}

/// What keeps the two from being compared as equals; empty when nothing does.
pub fn caveats(before: &Report, after: &Report) -> Vec<String> {
    let mut caveats = Vec::new();
    for (what, one, other) in [
        ("image", &before.image, &after.image),
        ("workload", &before.workload, &after.workload),
        ("limits", &before.limits, &after.limits),
        ("processor", &before.host.cpu, &after.host.cpu),
        ("host kernel", &before.host.kernel, &after.host.kernel),
        ("cgroup version", &before.host.cgroup, &after.host.cgroup),
    ] {
        if one != other {
            caveats.push(format!("{what}: {one} and {other}"));
        }
    }
    if before.host.stamps != after.host.stamps {
        caveats.push("one of the hosts is stamped, the other is not, or differently".into());
    }
    caveats
}

#[cfg(test)]
mod tests {
    use hv_common::Kind;

    use super::*;
    use crate::compare::example;

    #[test]
    fn a_report_does_not_differ_from_itself() {
        let report = example::report(20);
        assert!(changes(&report, &report).iter().all(|change| !change.differs && !change.is_worse_by(0.0)));
        assert!(caveats(&report, &report).is_empty());
    }

    #[test]
    fn a_slower_start_is_seen_where_it_is() {
        let (before, mut after) = (example::report(20), example::report(20));
        for sample in after.samples.iter_mut().filter(|sample| sample.kind == Contender::from(Kind::Vm)) {
            sample.first_byte = sample.first_byte.map(|at| at + 30_000_000);
        }
        let all = changes(&before, &after);
        let worse: Vec<_> = all.iter().filter(|change| change.is_worse_by(0.05)).collect();
        assert_eq!(worse.len(), 1, "{worse:?}");
        assert_eq!((worse[0].id, worse[0].who.word()), ("start.ready", "vm"));
        assert!(!worse[0].is_worse_by(0.9));
        after.host.kernel = "7.0".into();
        assert_eq!(caveats(&before, &after), ["host kernel: 6.12.0 and 7.0"]);
    }
}
