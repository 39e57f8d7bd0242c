//! From samples to figures (pure): what each contender's samples say, and how they stand to each other.

use std::collections::BTreeMap;

use hv_common::Kind;
use serde::{Deserialize, Serialize};

use super::rows::{Row, SECTIONS, Unit};
use super::stats::{Estimate, Paired, Random, differs, noise_floor, rank_correlation};
use super::{Contender, Report, Role, Sample};

/// Who is compared with whom: the first over the second.
const RATIOS: [(Kind, Kind); 3] =
    [(Kind::Vm, Kind::Ctr), (Kind::Ctr, Kind::Process), (Kind::Vm, Kind::Process)];

/// The name of the ratio that the tables show: of the two strongest walls that were launched.
pub fn shown_ratio(report: &Report) -> Option<String> {
    let launched = |kind: &Kind| report.contenders.contains(&Contender::from(*kind));
    RATIOS
        .iter()
        .find(|(over, under)| launched(over) && launched(under))
        .map(|(over, under)| format!("{over}/{under}"))
}

/// One figure of all contenders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Its stable name, such as `start.ready`.
    pub id: String,
    /// What the reader sees.
    pub label: String,
    /// The unit of all values.
    pub unit: Unit,
    /// What each contender's samples say.
    pub of: BTreeMap<Contender, Estimate>,
    /// How they stand to each other, by `vm/ctr` and the like.
    pub ratios: BTreeMap<String, Comparison>,
}

/// One contender over another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The ratio and what belongs to it.
    #[serde(flatten)]
    pub paired: Paired,
    /// What cannot be told apart today, as a share; absent when no twins were launched.
    pub floor: Option<f64>,
    /// True when the interval excludes 1 and the effect exceeds both five per cent and the floor.
    pub differs: bool,
}

/// All figures of `report`, in the order of the rows; the cold start after them.
pub fn all(report: &Report) -> Vec<Figure> {
    let rows = SECTIONS.iter().flat_map(|section| section.rows);
    let mut figures: Vec<Figure> = rows.map(|row| figure(report, row, Role::Main)).collect();
    let ready = SECTIONS.iter().flat_map(|section| section.rows).find(|row| row.id == "start.ready");
    figures.extend(ready.map(|row| Figure {
        id: "start.ready-cold".into(),
        label: "ask to 1st, cold".into(),
        ..figure(report, row, Role::Cold)
    }));
    figures
}

fn figure(report: &Report, row: &Row, role: Role) -> Figure {
    let samples = |who: &Contender| -> Vec<f64> { report.counted(who, role).filter_map(row.of).collect() };
    let of = report
        .contenders
        .iter()
        .filter_map(|who| Some((who.clone(), Estimate::of(&samples(who))?)))
        .collect();
    let ratios = RATIOS
        .into_iter()
        .filter_map(|(over, under)| {
            let name = format!("{over}/{under}");
            let comparison = compare(report, row, role, (&over.into(), &under.into()), &name)?;
            Some((name, comparison))
        })
        .collect();
    Figure { id: row.id.into(), label: row.label.into(), unit: row.unit, of, ratios }
}

/// The generator of one cell: `start.ready/vm`, `start.ready/vm/ctr`, `start.ready/vm/twin`.
fn random(report: &Report, row: &Row, what: &str, role: Role) -> Random {
    let id = if role == Role::Cold { format!("{}-cold", row.id) } else { row.id.to_owned() };
    Random::new(report.seed, &format!("{id}/{what}"))
}

fn compare(
    report: &Report,
    row: &Row,
    role: Role,
    (over, under): (&Contender, &Contender),
    name: &str,
) -> Option<Comparison> {
    let (of_over, of_under) = (by_block(report, row, over, role), by_block(report, row, under, role));
    let pairs: Vec<_> =
        of_over.iter().map(|(block, value)| (Some(*value), of_under.get(block).copied())).collect();
    let paired = Paired::of(&pairs, &mut random(report, row, name, role))?;
    let floors = [over, under].map(|who| floor(report, row, who));
    let floor = floors.into_iter().flatten().reduce(f64::max);
    let differs = differs(paired.ratio, paired.interval, floor.unwrap_or(0.0));
    Some(Comparison { paired, floor, differs })
}

fn by_block(report: &Report, row: &Row, who: &Contender, role: Role) -> BTreeMap<usize, f64> {
    report.counted(who, role).filter_map(|sample| Some((sample.block, (row.of)(sample)?))).collect()
}

/// What the A/A pairs of one contender cannot tell apart.
pub fn floor(report: &Report, row: &Row, who: &Contender) -> Option<f64> {
    let (one, twin) = (by_block(report, row, who, Role::Main), by_block(report, row, who, Role::Twin));
    let pairs: Vec<_> = twin.iter().map(|(block, value)| (one.get(block).copied(), Some(*value))).collect();
    noise_floor(&Paired::of(&pairs, &mut random(report, row, &format!("{who}/twin"), Role::Main))?)
}

/// How the time until the first byte went with the order of the launches; see [`rank_correlation`].
pub fn drift(report: &Report, who: &Contender) -> Option<f64> {
    let ready: Vec<f64> = report.counted(who, Role::Main).filter_map(Sample::ready).collect();
    rank_correlation(&ready)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::example;

    #[test]
    fn a_ratio_has_its_floor_and_its_verdict() {
        let report = example::report(20);
        let figures = all(&report);
        let ready = figures.iter().find(|figure| figure.id == "start.ready").unwrap();
        let ratio = ready.ratios["vm/ctr"];
        assert!((9.0..11.0).contains(&ratio.paired.ratio) && ratio.differs, "{ratio:?}");
        assert!((0.0..0.1).contains(&ratio.floor.unwrap()), "{ratio:?}");
        let own = ready.of[&Contender::from(Kind::Ctr)];
        assert_eq!(own.n, 20);
        assert!(own.interval.is_some());
        assert!(figures.iter().all(|figure| !figure.ratios.contains_key("vm/vm")));
    }

    #[test]
    fn figures_do_not_depend_on_who_else_was_there() {
        let report = example::report(12);
        let mut fewer = report.clone();
        fewer.contenders.retain(|who| *who != Contender::from(Kind::Process));
        let of = |report: &Report| all(report).into_iter().find(|f| f.id == "start.ready").unwrap();
        let ctr = Contender::from(Kind::Ctr);
        assert_eq!(of(&report).of[&ctr], of(&fewer).of[&ctr]);
    }

    #[test]
    fn drift_is_seen() {
        let mut report = example::report(20);
        let vm = Contender::from(Kind::Vm);
        assert!(drift(&report, &vm).unwrap().abs() < 0.6);
        for sample in report.samples.iter_mut().filter(|sample| sample.kind == vm) {
            sample.first_byte = Some(sample.asked + 1_000_000 * (1 + sample.block as u64));
        }
        assert_eq!(drift(&report, &vm), Some(1.0));
    }
}
