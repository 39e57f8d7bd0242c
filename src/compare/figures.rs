//! From samples to figures (pure): what each contender's samples say, and how they stand to each other.

use std::collections::BTreeMap;

use hv_common::Kind;
use serde::{Deserialize, Serialize};

use super::equality::reference;
use super::inside::catalogue::{WORKLOADS, Workload};
use super::inside::{Inside, Round};
use super::rows::{Row, SECTIONS, Unit};
use super::scale::Scale;
use super::scale::values::{VALUES, Value};
use super::stats::{Estimate, Paired, Random, differs, noise_floor, rank_correlation};
use super::{Contender, Report, Role, Sample};

/// Who of hv's own is compared with whom: the first over the second.
const RATIOS: [(Kind, Kind); 3] =
    [(Kind::Vm, Kind::Ctr), (Kind::Ctr, Kind::Process), (Kind::Vm, Kind::Process)];

/// Who of those that were launched is compared with whom; another runtime with hv's own of its sort.
fn pairs(report: &Report) -> Vec<(Contender, Contender)> {
    let own = RATIOS.iter().map(|(over, under)| (Contender::from(*over), Contender::from(*under)));
    let peers = report.contenders.iter().filter_map(|who| Some((who.clone(), reference(who)?.into())));
    let launched = |who: &Contender| report.contenders.contains(who);
    own.chain(peers).filter(|(over, under)| launched(over) && launched(under)).collect()
}

/// The name of the ratio that the tables show: of the two strongest walls that were launched.
pub fn shown_ratio(report: &Report) -> Option<String> {
    pairs(report).first().map(|(over, under)| format!("{over}/{under}"))
}

/// The names of the ratios of other runtimes.
pub fn of_peers(report: &Report) -> Vec<String> {
    let peers = pairs(report).into_iter().filter(|(over, _)| over.kind().is_none());
    peers.map(|(over, under)| format!("{over}/{under}")).collect()
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
    /// Why there is no ratio where both have values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub no_ratio: BTreeMap<String, String>,
}

/// Values by block.
type Series = BTreeMap<usize, f64>;

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

/// All figures of `report`, in the order of the rows; the cold start after them, then those of sandboxes beside
/// each other.
pub fn all(report: &Report) -> Vec<Figure> {
    let rows = SECTIONS.iter().flat_map(|section| section.rows);
    let mut figures: Vec<Figure> = rows.map(|row| of_row(report, row, Role::Main)).collect();
    let ready = SECTIONS.iter().flat_map(|section| section.rows).find(|row| row.id == "start.ready");
    figures.extend(ready.map(|row| Figure {
        id: "start.ready-cold".into(),
        label: "ask to 1st, cold".into(),
        ..of_row(report, row, Role::Cold)
    }));
    figures.extend(
        report.scale.iter().flat_map(|scale| VALUES.iter().map(|value| of_rounds(report, scale, value))),
    );
    figures.extend(report.inside.iter().flat_map(|inside| {
        WORKLOADS.iter().flat_map(|workload| {
            let time = of_work(report, inside, workload, workload.time, Unit::Time, Round::time);
            [time, of_work(report, inside, workload, workload.exits, Unit::Count, Round::exits)]
        })
    }));
    figures
}

/// One figure of a workload inside: the time or the exits of an operation.
fn of_work(
    report: &Report,
    inside: &Inside,
    workload: &Workload,
    id: &str,
    unit: Unit,
    read: fn(&Round, &str) -> Option<f64>,
) -> Figure {
    let series = |who: &Contender, role: Role| -> Series {
        let counted = inside.counted(who, role);
        counted.filter_map(|round| Some((round.round, read(round, workload.name)?))).collect()
    };
    let main = |who: &Contender| series(who, Role::Main);
    let floor = |who: &Contender| twins_differ(report, id, who, &main(who), &series(who, Role::Twin));
    Figure { label: workload.name.into(), ..Figure::new(report, id, unit, main, floor) }
}

fn of_row(report: &Report, row: &Row, role: Role) -> Figure {
    let id = if role == Role::Cold { format!("{}-cold", row.id) } else { row.id.to_owned() };
    let series = |who: &Contender| by_block(report, row, who, role);
    let floor = |who: &Contender| floor(report, row, who);
    let figure = Figure { label: row.label.into(), ..Figure::new(report, &id, row.unit, series, floor) };
    Figure { id: row.id.into(), ..figure }
}

/// No two rounds of one contender are made alike within one block: what cannot be told apart is not known.
fn of_rounds(report: &Report, scale: &Scale, value: &Value) -> Figure {
    let series = |who: &Contender| {
        scale.counted(who).filter_map(|round| Some((round.round, (value.of)(round)?))).collect()
    };
    Figure { label: value.label.into(), ..Figure::new(report, value.id, value.unit, series, |_| None) }
}

impl Figure {
    /// What `series` of each contender say, one value a block, and the ratios of two.
    fn new(
        report: &Report,
        id: &str,
        unit: Unit,
        series: impl Fn(&Contender) -> Series,
        floor: impl Fn(&Contender) -> Option<f64>,
    ) -> Figure {
        let all: BTreeMap<&Contender, Series> =
            report.contenders.iter().map(|who| (who, series(who))).collect();
        let estimate = |values: &Series| Estimate::of(&values.values().copied().collect::<Vec<f64>>());
        let of = all.iter().filter_map(|(who, values)| Some(((*who).clone(), estimate(values)?))).collect();
        let mut figure = Figure {
            id: id.into(),
            label: id.into(),
            unit,
            of,
            ratios: BTreeMap::new(),
            no_ratio: BTreeMap::new(),
        };
        for (over, under) in pairs(report) {
            let (Some(one), Some(other)) = (all.get(&over), all.get(&under)) else { continue };
            let name = format!("{over}/{under}");
            // The generator of one cell: `start.ready/vm/ctr`.
            let random = Random::new(report.seed, &format!("{id}/{name}"));
            match compare(one, other, random) {
                Some(Ok(paired)) => {
                    let floor = [floor(&over), floor(&under)].into_iter().flatten().reduce(f64::max);
                    let differs = differs(paired.ratio, paired.interval, floor.unwrap_or(0.0));
                    figure.ratios.insert(name, Comparison { paired, floor, differs });
                }
                Some(Err(why)) => drop(figure.no_ratio.insert(name, why)),
                None => {}
            }
        }
        figure
    }
}

/// A ratio from the blocks that have both; None when none has, and the reason when too few have one: where a figure is
/// often zero or less, those few are not like the others.
fn compare(over: &Series, under: &Series, mut random: Random) -> Option<Result<Paired, String>> {
    let pairs: Vec<_> =
        over.iter().filter_map(|(block, value)| Some((Some(*value), Some(*under.get(block)?)))).collect();
    let positive = pairs.iter().filter(|(one, other)| *one > Some(0.0) && *other > Some(0.0)).count();
    if pairs.is_empty() {
        return None;
    }
    if positive * 10 < pairs.len() * 9 {
        return Some(Err(format!("{positive} of {} blocks have both values above zero", pairs.len())));
    }
    Paired::of(&pairs, &mut random).map(Ok)
}

fn by_block(report: &Report, row: &Row, who: &Contender, role: Role) -> Series {
    report.counted(who, role).filter_map(|sample| Some((sample.block, (row.of)(sample)?))).collect()
}

/// What the A/A pairs of one contender cannot tell apart.
pub fn floor(report: &Report, row: &Row, who: &Contender) -> Option<f64> {
    let (one, twin) = (by_block(report, row, who, Role::Main), by_block(report, row, who, Role::Twin));
    twins_differ(report, row.id, who, &one, &twin)
}

fn twins_differ(report: &Report, id: &str, who: &Contender, one: &Series, twin: &Series) -> Option<f64> {
    let pairs: Vec<_> = twin.iter().map(|(block, value)| (one.get(block).copied(), Some(*value))).collect();
    let mut random = Random::new(report.seed, &format!("{id}/{who}/twin"));
    noise_floor(&Paired::of(&pairs, &mut random)?)
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
    fn a_figure_that_is_often_negative_has_no_ratio_but_a_reason() {
        let mut report = example::report(10);
        let ctr = Contender::from(Kind::Ctr);
        for sample in report.samples.iter_mut().filter(|sample| sample.kind == ctr && sample.block > 3) {
            sample.memory.cgroup = Some(0);
        }
        let residual = all(&report).into_iter().find(|figure| figure.id == "memory.residual").unwrap();
        assert!(residual.ratios.is_empty(), "{residual:?}");
        assert_eq!(residual.no_ratio["vm/ctr"], "3 of 10 blocks have both values above zero");
        assert!(residual.of.contains_key(&ctr));
    }

    #[test]
    fn rounds_give_figures_and_ratios_of_their_own() {
        let report = example::with_scale(5);
        let figures = all(&report);
        let further = figures.iter().find(|figure| figure.id == "scale.further").unwrap();
        assert_eq!(further.of[&Contender::from(Kind::Vm)].n, 5);
        let ratio = &further.ratios["vm/ctr"];
        assert!(
            ratio.differs && ratio.floor.is_none() && (5.5..6.5).contains(&ratio.paired.ratio),
            "{ratio:?}"
        );
        assert!(all(&example::report(5)).iter().all(|figure| !figure.id.starts_with("scale.")));
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
