//! Which figures are shown, in which order, and what each means: the one table that the text
//! report, the JSON and the documentation follow.

use hv_common::Kind;

use super::sample::Sample;

/// The unit of a row's samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds, shown as milliseconds.
    Time,
    /// Bytes, shown as MiB.
    Bytes,
    /// A count.
    Count,
}

/// One figure.
pub struct Row {
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

const fn row(label: &'static str, unit: Unit, of: fn(&Sample) -> Option<f64>) -> Row {
    Row { label, unit, of, absent: |_| None }
}

const fn vm_only(label: &'static str, unit: Unit, of: fn(&Sample) -> Option<f64>) -> Row {
    Row { label, unit, of, absent: |kind| (kind != Kind::Vm).then_some("no guest") }
}

fn no_cgroup(kind: Kind) -> Option<&'static str> {
    (kind == Kind::Process).then_some("no cgroup")
}

/// All figures.
pub const SECTIONS: &[Section] = &[
    Section {
        title: "start, ms",
        rows: &[
            row("hv runs", Unit::Time, Sample::launch),
            row("+ image opened", Unit::Time, Sample::open),
            row("+ boundary ready", Unit::Time, Sample::boundary),
            vm_only("+ kernel entered", Unit::Time, Sample::kernel),
            Row {
                label: "+ init entered",
                unit: Unit::Time,
                of: Sample::init,
                absent: |kind| (kind == Kind::Process).then_some("no init"),
            },
            row("+ workload exec'd", Unit::Time, Sample::exec),
            row("+ its first byte", Unit::Time, Sample::output),
            row("= ask to 1st byte", Unit::Time, Sample::ready),
        ],
    },
    Section {
        title: "end, ms",
        rows: &[
            row("told to exit seen", Unit::Time, Sample::exit),
            row("+ all gone", Unit::Time, Sample::clean),
            row("processor time", Unit::Time, Sample::cpu),
        ],
    },
    Section {
        title: "memory while idle, MiB",
        rows: &[
            row("monitor (PSS)", Unit::Bytes, |s| s.memory.monitor.map(|b| b as f64)),
            row("processes (PSS)", Unit::Bytes, |s| s.memory.processes.map(|b| b as f64)),
            vm_only("guest resident", Unit::Bytes, |s| s.memory.guest.map(|b| b as f64)),
            row("= sum", Unit::Bytes, |s| s.memory.sum().map(|b| b as f64)),
            Row {
                label: "cgroup's figure",
                unit: Unit::Bytes,
                of: |s| s.memory.cgroup.map(|b| b as f64),
                absent: no_cgroup,
            },
            Row {
                label: "cgroup less PSS",
                unit: Unit::Bytes,
                of: |s| s.memory.residual().map(|b| b as f64),
                absent: no_cgroup,
            },
        ],
    },
    Section { title: "crossings", rows: &[vm_only("VM exits", Unit::Count, Sample::exits)] },
];
