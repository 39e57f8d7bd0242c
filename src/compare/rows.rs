//! Which figures are shown, in which order, and what each means: the one table that the text
//! report, the JSON and the documentation follow.

use hv_common::Kind;

use serde::{Deserialize, Serialize};

use super::sample::Sample;

/// The unit of a row's samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Nanoseconds, shown as milliseconds.
    #[serde(rename = "ns")]
    Time,
    /// Bytes, shown as MiB.
    #[serde(rename = "bytes")]
    Bytes,
    /// A count.
    #[serde(rename = "count")]
    Count,
}

/// One figure.
pub struct Row {
    /// Its name in files: it stays the same when the label is said better.
    pub id: &'static str,
    /// What the reader sees.
    pub label: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// Reads it off a launch.
    pub of: fn(&Sample) -> Option<f64>,
    /// Why a kind has no such figure, where it has none by its nature.
    pub absent: fn(Kind) -> Option<&'static str>,
}

/// A heading and its rows.
pub struct Section {
    /// The heading.
    pub title: &'static str,
    /// Its rows.
    pub rows: &'static [Row],
}

type Read = fn(&Sample) -> Option<f64>;

const fn row(id: &'static str, label: &'static str, unit: Unit, of: Read) -> Row {
    Row { id, label, unit, of, absent: |_| None }
}

const fn vm_only(id: &'static str, label: &'static str, unit: Unit, of: Read) -> Row {
    Row { id, label, unit, of, absent: |kind| (kind != Kind::Vm).then_some("no guest") }
}

fn no_cgroup(kind: Kind) -> Option<&'static str> {
    (kind == Kind::Process).then_some("no cgroup")
}

/// All figures.
pub const SECTIONS: &[Section] = &[
    Section {
        title: "start, ms",
        rows: &[
            row("start.launch", "hv runs", Unit::Time, Sample::launch),
            row("start.open", "+ image opened", Unit::Time, Sample::open),
            row("start.boundary", "+ boundary ready", Unit::Time, Sample::boundary),
            vm_only("start.kernel", "+ kernel entered", Unit::Time, Sample::kernel),
            Row {
                id: "start.init",
                label: "+ init entered",
                unit: Unit::Time,
                of: Sample::init,
                absent: |kind| (kind == Kind::Process).then_some("no init"),
            },
            row("start.exec", "+ workload exec'd", Unit::Time, Sample::exec),
            row("start.output", "+ its first byte", Unit::Time, Sample::output),
            row("start.ready", "= ask to 1st byte", Unit::Time, Sample::ready),
        ],
    },
    Section {
        title: "end, ms",
        rows: &[
            row("end.exit", "told to exit seen", Unit::Time, Sample::exit),
            row("end.clean", "+ all gone", Unit::Time, Sample::clean),
            row("end.gone", "= told to gone", Unit::Time, Sample::end),
            row("end.cpu", "processor time", Unit::Time, Sample::cpu),
        ],
    },
    Section {
        title: "memory while idle, MiB",
        rows: &[
            row("memory.monitor", "monitor (PSS)", Unit::Bytes, |s| s.memory.monitor.map(|b| b as f64)),
            row("memory.processes", "processes (PSS)", Unit::Bytes, |s| s.memory.processes.map(|b| b as f64)),
            vm_only("memory.guest", "guest resident", Unit::Bytes, |s| s.memory.guest.map(|b| b as f64)),
            row("memory.sum", "= sum", Unit::Bytes, |s| s.memory.sum().map(|b| b as f64)),
            Row {
                id: "memory.cgroup",
                label: "cgroup's figure",
                unit: Unit::Bytes,
                of: |s| s.memory.cgroup.map(|b| b as f64),
                absent: no_cgroup,
            },
            Row {
                id: "memory.residual",
                label: "cgroup less PSS",
                unit: Unit::Bytes,
                of: |s| s.memory.residual().map(|b| b as f64),
                absent: no_cgroup,
            },
        ],
    },
    Section {
        title: "crossings",
        rows: &[vm_only("crossings.exits", "VM exits", Unit::Count, Sample::exits)],
    },
];
