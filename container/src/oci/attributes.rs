//! What the monitor sets about a process from outside: OOM score, scheduling, IO priority, processors.

use super::config::Process;
use super::refuse;
use crate::error::Error;
use crate::sys;

/// Policies of sched(7) by number.
const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];
/// `SCHED_FLAG_` of linux/sched.h.
const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 1),
    ("SCHED_FLAG_RECLAIM", 2),
    ("SCHED_FLAG_DL_OVERRUN", 4),
    ("SCHED_FLAG_KEEP_POLICY", 8),
    ("SCHED_FLAG_KEEP_PARAMS", 16),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 32),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 64),
];
/// `IOPRIO_CLASS_` of linux/ioprio.h.
const CLASSES: [(&str, u32); 3] = [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// Checked attributes.
#[derive(Debug)]
struct Attributes {
    oom: Option<i32>,
    scheduler: Option<sys::SchedAttr>,
    io: Option<u32>,
}

/// Whether everything makes sense.
pub(crate) fn check(process: &Process) -> Result<(), Error> {
    attributes(process)?;
    affinity(process, true)?;
    affinity(process, false).map(drop)
}

fn attributes(process: &Process) -> Result<Attributes, Error> {
    let scheduler = process.scheduler.as_ref().map(|scheduler| {
        let field = "process.scheduler";
        let policy = POLICIES.iter().find(|(name, _)| *name == scheduler.policy);
        let policy = policy.ok_or_else(|| refuse(field, "its policy is none of Linux"))?.1;
        if !(-20..=19).contains(&scheduler.nice) {
            return Err(refuse(field, "nice must be from -20 to 19"));
        }
        let mut flags = 0;
        for flag in &scheduler.flags {
            let found = FLAGS.iter().find(|(name, _)| name == flag);
            flags |= found.ok_or_else(|| refuse(field, &format!("`{flag}` is no flag of Linux")))?.1;
        }
        let (runtime, deadline, period) = (scheduler.runtime, scheduler.deadline, scheduler.period);
        let (nice, priority) = (scheduler.nice, scheduler.priority);
        Ok(sys::SchedAttr::new(policy, flags, nice, priority, [runtime, deadline, period]))
    });
    let io = process.io_priority.as_ref().map(|io| {
        let class = CLASSES.iter().find(|(name, _)| *name == io.class);
        let class = class.ok_or_else(|| refuse("process.ioPriority", "its class is none of Linux"))?.1;
        match io.priority {
            0..=7 => Ok(class << 13 | io.priority as u32),
            _ => Err(refuse("process.ioPriority", "priority must be from 0 to 7")),
        }
    });
    Ok(Attributes { oom: process.oom_score_adj, scheduler: scheduler.transpose()?, io: io.transpose()? })
}

/// Sets them for process `pid`, which has not executed its program yet.
pub(crate) fn apply(process: &Process, pid: i32) -> Result<(), Error> {
    let Attributes { oom, scheduler, io } = attributes(process)?;
    let failed = |field: &str, source| Error::Field { field: field.into(), source };
    if let Some(value) = oom {
        let now = hv_common::procfs::read_text(format!("/proc/{pid}/oom_score_adj")).unwrap_or_default();
        if now.trim().parse() != Ok(value) {
            std::fs::write(format!("/proc/{pid}/oom_score_adj"), value.to_string())
                .map_err(|source| failed("process.oomScoreAdj", source))?;
        }
    }
    if let Some(attributes) = scheduler {
        sys::set_scheduler(pid, &attributes).map_err(|errno| failed("process.scheduler", errno.into()))?;
    }
    if let Some(priority) = io {
        sys::set_io_priority(pid, priority).map_err(|errno| failed("process.ioPriority", errno.into()))?;
    }
    Ok(())
}

/// Sets the processors of a process that `exec` starts, before or after it is moved into its cgroup.
pub(crate) fn apply_affinity(process: &Process, pid: i32, before: bool) -> Result<(), Error> {
    let Some(mask) = affinity(process, before)? else { return Ok(()) };
    sys::set_affinity(pid, &mask)
        .map_err(|errno| Error::Field { field: "process.execCPUAffinity".into(), source: errno.into() })
}

fn affinity(process: &Process, before: bool) -> Result<Option<[u64; 64]>, Error> {
    let Some(affinity) = &process.exec_cpu_affinity else { return Ok(None) };
    let list = if before { &affinity.initial } else { &affinity.last };
    let Some(list) = list.as_ref().filter(|list| !list.trim().is_empty()) else { return Ok(None) };
    let bad = || refuse("process.execCPUAffinity", "it must be a list such as 0-3,7, up to 4095");
    let mut mask = [0u64; 64];
    for part in list.split(',') {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        let (first, last): (usize, usize) =
            (first.trim().parse().map_err(|_| bad())?, last.trim().parse().map_err(|_| bad())?);
        if first > last || last >= 64 * 64 {
            return Err(bad());
        }
        (first..=last).for_each(|cpu| mask[cpu / 64] |= 1 << (cpu % 64));
    }
    Ok(Some(mask))
}

/// All that would be set, for a test that compares.
#[cfg(test)]
pub(super) fn shown(process: &Process) -> String {
    let masks = [true, false].map(|before| affinity(process, before).map(|mask| mask.map(|mask| mask[0])));
    format!("{:?} {masks:?}", attributes(process))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Process {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn lists_of_processors() {
        let process = of(r#"{"execCPUAffinity":{"initial":"0-1, 65","final":""}}"#);
        let mask = affinity(&process, true).unwrap().unwrap();
        assert_eq!((mask[0], mask[1]), (3, 2));
        assert!(affinity(&process, false).unwrap().is_none());
        for bad in ["3-1", "x", "0-", "4096", "0,,1"] {
            assert!(
                affinity(&of(&format!(r#"{{"execCPUAffinity":{{"initial":"{bad}"}}}}"#)), true).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn what_linux_does_not_have_is_refused() {
        for bad in [
            r#"{"scheduler":{"policy":"SCHED_X"}}"#,
            r#"{"scheduler":{"policy":"SCHED_OTHER","nice":20}}"#,
            r#"{"scheduler":{"policy":"SCHED_OTHER","flags":["X"]}}"#,
            r#"{"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8}}"#,
            r#"{"ioPriority":{"class":"X"}}"#,
        ] {
            assert!(check(&of(bad)).is_err(), "{bad}");
        }
    }
}
