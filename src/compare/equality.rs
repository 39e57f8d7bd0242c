//! What is not equal between the contenders (pure): conditions that differ, and what differs by nature.

use hv_common::Kind;

use super::conditions::Conditions;
use super::peers::{self, Form};
use super::{Contender, Report};

/// Whose conditions those of `who` should equal: a machine's those of `vm`, a container's those of `ctr`.
pub fn reference(who: &Contender) -> Option<Kind> {
    let Contender::Peer(name) = who else { return None };
    Some(match peers::find(name)?.form {
        Form::Machine { .. } => Kind::Vm,
        Form::Directory | Form::Bundle => Kind::Ctr,
    })
}

/// Sentences, each a mark on the comparison; empty when all are alike.
pub fn marks(report: &Report) -> Vec<String> {
    let mut marks = Vec::new();
    let own = |kind: Kind| conditions(report, &kind.into());
    for who in &report.contenders {
        let Some(theirs) = conditions(report, who) else { continue };
        // hv's own kinds are what is compared; of them only the processors have to be the same.
        let same = who
            .kind()
            .map(|_| report.contenders.first())
            .map(|first| first.and_then(|first| conditions(report, first)));
        for (name, one, other) in same.flatten().map(|first| theirs.unequal(first)).unwrap_or_default() {
            if name == "CPU set" {
                marks.push(format!("{who}: {name} {one}, others {other}"));
            }
        }
        if let Some(kind) = reference(who)
            && let Some(ours) = own(kind)
        {
            let differing = theirs.unequal(ours);
            marks.extend(
                differing
                    .into_iter()
                    .map(|(name, one, other)| format!("{who}: {name} {one}, {kind} {other}")),
            );
        }
    }
    for who in &report.contenders {
        if let Contender::Peer(name) = who
            && let Some(adapter) = peers::find(name)
            && !adapter.mark.is_empty()
        {
            marks.push(format!("{who}: {}", adapter.mark));
        }
    }
    marks
}

fn conditions<'a>(report: &'a Report, who: &Contender) -> Option<&'a Conditions> {
    report.samples.iter().filter(|sample| sample.kind == *who).find_map(|sample| sample.conditions.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::example;

    #[test]
    fn what_differs_is_a_mark_and_what_is_equal_is_none() {
        let mut report = example::report(2);
        let crun = Contender::Peer("crun".into());
        report.contenders.push(crun.clone());
        let ctr = Conditions { cpus: "0-1".into(), seccomp: Some(2), ..Conditions::default() };
        let mut sample = report.samples[0].clone();
        sample.kind = crun;
        sample.conditions = Some(Conditions { seccomp: Some(0), memory: Some(64 << 20), ..ctr.clone() });
        report.samples.push(sample.clone());
        sample.kind = Kind::Ctr.into();
        sample.conditions = Some(ctr.clone());
        report.samples.push(sample.clone());
        sample.kind = Kind::Process.into();
        report.samples.push(sample.clone());
        assert_eq!(
            marks(&report),
            ["crun: memory limit 64 MiB, ctr none", "crun: system call filter none, ctr yes"]
        );
        sample.kind = Kind::Vm.into();
        sample.conditions = Some(Conditions { cpus: "1".into(), ..ctr });
        report.samples.push(sample);
        assert_eq!(marks(&report)[0], "vm: CPU set 1, others 0-1");
    }
}
