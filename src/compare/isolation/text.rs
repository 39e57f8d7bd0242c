//! The table of the drill, in 80 columns.

use std::fmt::Write;

use hv_common::Kind;
use hv_common::drill::Outcome;
use nix::errno::Errno;

use super::Isolation;
use super::reachable;
use super::verdict::{Stop, Verdict};
use crate::compare::report::text::entry;

const NAME: usize = 17;
/// Widths of the columns; the container's is the widest, for it has the most walls.
const WIDTHS: [(Kind, usize); 3] = [(Kind::Process, 16), (Kind::Ctr, 28), (Kind::Vm, 18)];

/// All of it.
pub fn render(isolation: &Isolation) -> String {
    let mut out = String::new();
    answer(&mut out, isolation);
    out.push('\n');
    reachable(&mut out, isolation);
    out.push('\n');
    table(&mut out, isolation);
    out.push('\n');
    legend(&mut out, isolation);
    out
}

fn answer(out: &mut String, isolation: &Isolation) {
    entry(out, "image", &isolation.image);
    let host = &isolation.host;
    entry(out, "host", &format!("{}, Linux {}, cgroup {}", host.cpu, host.kernel, host.cgroup));
    let said = |kind: &Kind| {
        let (free, tried) = isolation.not_stopped(*kind);
        (tried > 0).then(|| format!("{free} of {tried} by {kind}"))
    };
    let all: Vec<String> = isolation.kinds.iter().filter_map(said).collect();
    entry(out, "answer", &format!("attempts that nothing stops: {}", all.join(", ")));
}

fn width(kind: Kind) -> usize {
    WIDTHS.iter().find(|(of, _)| *of == kind).map_or(0, |(_, width)| *width)
}

/// What is there to be attacked, as counts.
fn reachable(out: &mut String, isolation: &Isolation) {
    line(out, "reachable", isolation.kinds.iter().map(|kind| (*kind, kind.word().to_owned())));
    for (label, cell) in reachable::ROWS {
        let cells = isolation
            .kinds
            .iter()
            .map(|kind| (*kind, isolation.reachable.get(kind).map_or("not measured".into(), cell)));
        line(out, label, cells);
    }
}

fn line(out: &mut String, label: &str, cells: impl Iterator<Item = (Kind, String)>) {
    let mut line = format!("{label:<NAME$}");
    for (kind, cell) in cells {
        let _ = write!(line, "{cell:<0$}", width(kind));
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

fn table(out: &mut String, isolation: &Isolation) {
    line(out, "attempt", isolation.kinds.iter().map(|kind| (*kind, kind.word().to_owned())));
    for row in &isolation.drill {
        let cell = |kind: &Kind| (*kind, row.of.get(kind).map_or("not measured".into(), short_stops));
        line(out, &row.name, isolation.kinds.iter().map(cell));
    }
}

/// The words of a cell, so short that a column holds them.
fn short_stops(verdict: &Verdict) -> String {
    let stops = stops(verdict);
    stops.replace("capability", "caps").replace("namespace", "ns")
}

/// What stops it, in words: `seccomp+capability`, `not stopped`.
pub fn stops(verdict: &Verdict) -> String {
    if !verdict.was_tried() {
        return "not tried".into();
    }
    if verdict.stopped_by.is_empty() {
        return "not stopped".into();
    }
    let words: Vec<String> = verdict.stopped_by.iter().map(|stop| word(stop, verdict.outcome)).collect();
    words.join("+")
}

fn word(stop: &Stop, outcome: Outcome) -> String {
    match stop {
        Stop::Seccomp => "seccomp".into(),
        Stop::Capability => "capability".into(),
        Stop::ReadOnly => "read-only".into(),
        Stop::Hidden => "hidden".into(),
        Stop::Namespace(name) => format!("namespace:{name}"),
        Stop::Cgroup => "cgroup".into(),
        Stop::Root => "its root".into(),
        Stop::GuestKernel if outcome == Outcome::Through => "guest kernel only".into(),
        Stop::GuestKernel => "guest kernel".into(),
        Stop::Machine => "not there".into(),
        Stop::Host => "host".into(),
        Stop::Unclear => "unclear".into(),
    }
}

/// What the attempt gave, in a word: `through`, `EPERM`.
pub fn outcome(outcome: Outcome) -> String {
    match outcome {
        Outcome::Through => "through".into(),
        Outcome::Nothing => "nothing".into(),
        Outcome::Error(number) => match Errno::from_raw(number) {
            Errno::UnknownErrno => format!("error {number}"),
            known => format!("{known:?}"),
        },
        Outcome::Killed(signal) => format!("signal {signal}"),
        Outcome::NotTried => "not tried".into(),
    }
}

fn legend(out: &mut String, isolation: &Isolation) {
    entry(
        out,
        "words",
        "each wall named stops the attempt by itself, found by leaving the others out; ns:X, a namespace of its own; \
         its root, not below its root directory; host, refused to a bare process too; guest kernel only, done to the guest's own kernel; not there, its \
         machine has none. docs/isolation.md says what each attempt tries, and why it hurts nobody",
    );
    for (run, why) in &isolation.skipped {
        entry(out, "absent", &format!("{run}: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_fit_their_columns() {
        let longest = vec![Stop::Seccomp, Stop::Capability, Stop::Namespace("cgroup".into())];
        let verdict = Verdict { outcome: Outcome::Error(1), stopped_by: longest };
        assert_eq!(short_stops(&verdict), "seccomp+caps+ns:cgroup");
        assert!(short_stops(&verdict).len() < width(Kind::Ctr));
        let columns: usize = WIDTHS.iter().map(|(_, width)| width).sum();
        assert!(NAME + columns <= 80);
    }

    #[test]
    fn outcomes_have_names() {
        assert_eq!(outcome(Outcome::Error(1)), "EPERM");
        assert_eq!(outcome(Outcome::Killed(9)), "signal 9");
        assert_eq!(outcome(Outcome::Through), "through");
    }
}
