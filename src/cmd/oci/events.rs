//! `events`: a container's figures, once or again and again, and when memory has run out.

use std::time::Duration;

use hv_common::cgroup::{Controller, Group};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::store::{Status, Store};
use super::{Fault, Result};
use crate::cli::oci::EventsArgs;

/// Prints them.
pub fn run(store: &Store, args: &EventsArgs) -> Result<u8> {
    let (path, record) = store.record(&args.id)?;
    if record.status(&path) == Status::Stopped {
        return Err(Fault::new(format!("container {:?} is stopped: container not running", args.id)));
    }
    let interval = duration(&args.interval)?;
    let mut killed = oom_kills(&record.group);
    loop {
        print(&json!({"type": "stats", "id": record.id, "data": figures(&record.group)}))?;
        if args.stats {
            return Ok(0);
        }
        let Some(process) = record.process() else { return Ok(0) };
        let limit =
            Timespec { tv_sec: interval.as_secs() as i64, tv_nsec: i64::from(interval.subsec_nanos()) };
        let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)).unwrap_or(0) > 0;
        let now = oom_kills(&record.group);
        if now > killed {
            killed = now;
            print(&json!({"type": "oom", "id": record.id}))?;
        }
        if ended {
            return Ok(0);
        }
    }
}

fn print(event: &Value) -> Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout().lock(), "{event}").map_err(|source| Fault::because("cannot print", source))
}

fn oom_kills(group: &Group) -> u64 {
    let key = "oom_kill";
    group.keyed(Controller::Memory, ("memory.events", key), ("memory.oom_control", key)).unwrap_or(0)
}

/// The figures, in runc's words. What this host does not count is 0.
fn figures(group: &Group) -> Value {
    let usage = group.number(Controller::Cpuacct, "", "cpuacct.usage").or_else(|| {
        let microseconds =
            group.keyed(Controller::Cpu, ("cpu.stat", "usage_usec"), ("cpu.stat", "usage_usec"))?;
        Some(microseconds.saturating_mul(1000))
    });
    let throttled =
        |v2: &str, v1: &str| group.keyed(Controller::Cpu, ("cpu.stat", v2), ("cpu.stat", v1)).unwrap_or(0);
    let memory = |v2: &str, v1: &str| group.number(Controller::Memory, v2, v1).unwrap_or(0);
    let cache = group.keyed(Controller::Memory, ("memory.stat", "file"), ("memory.stat", "total_cache"));
    let pids = |file: &str| group.number(Controller::Pids, file, file).unwrap_or(0);
    json!({
        "cpu": {
            "usage": {"total": usage.unwrap_or(0)},
            "throttling": {
                "periods": throttled("nr_periods", "nr_periods"),
                "throttledPeriods": throttled("nr_throttled", "nr_throttled"),
            },
        },
        "memory": {
            "usage": {
                "usage": memory("memory.current", "memory.usage_in_bytes"),
                "max": memory("memory.peak", "memory.max_usage_in_bytes"),
                "limit": memory("memory.max", "memory.limit_in_bytes"),
            },
            "cache": cache.unwrap_or(0),
            "oomKills": oom_kills(group),
        },
        "pids": {"current": pids("pids.current"), "limit": pids("pids.max")},
    })
}

/// `5s`, `500ms`, `2m`.
fn duration(text: &str) -> Result<Duration> {
    let bad = || Fault::new(format!("--interval {text}: it must be a time such as 5s or 500ms"));
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| bad())?;
    match &text[digits..] {
        "ms" if number > 0 => Ok(Duration::from_millis(number)),
        "s" | "" if number > 0 => Ok(Duration::from_secs(number)),
        "m" if number > 0 => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(bad()),
    }
}
