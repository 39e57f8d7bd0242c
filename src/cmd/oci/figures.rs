//! What a container uses, in runc's words for `events`. What this host does not count is 0 or left out.

use std::collections::BTreeMap;

use hv_common::cgroup::{Controller, Group};
use serde_json::{Value, json};

/// How often a process was killed because memory ran out.
pub fn oom_kills(group: &Group) -> u64 {
    let key = "oom_kill";
    group.keyed(Controller::Memory, ("memory.events", key), ("memory.oom_control", key)).unwrap_or(0)
}

/// All figures.
pub fn of(group: &Group) -> Value {
    let pids = |file: &str| group.number(Controller::Pids, file, file).unwrap_or(0);
    json!({
        "cpu": cpu(group),
        "memory": memory(group),
        "pids": {"current": pids("pids.current"), "limit": pids("pids.max")},
        "blkio": blocks(group),
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

/// In nanoseconds.
fn cpu(group: &Group) -> Value {
    let stat = |v2: &str, v1: &str| group.keyed(Controller::Cpu, ("cpu.stat", v2), ("cpu.stat", v1));
    let usage = |v1: &str, v2: &str| {
        let nanoseconds = group.number(Controller::Cpuacct, "", v1);
        nanoseconds
            .or_else(|| stat(v2, v2).map(|microseconds| microseconds.saturating_mul(1000)))
            .unwrap_or(0)
    };
    let each = group.text(Controller::Cpuacct, "", "cpuacct.usage_percpu").map(|(_, text)| text);
    let each: Vec<u64> =
        each.unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let throttled = stat("throttled_usec", "").map(|microseconds| microseconds.saturating_mul(1000));
    let throttled = throttled.or_else(|| stat("", "throttled_time"));
    json!({
        "usage": {
            "total": usage("cpuacct.usage", "usage_usec"),
            "percpu": each,
            "kernel": usage("cpuacct.usage_sys", "system_usec"),
            "user": usage("cpuacct.usage_user", "user_usec"),
        },
        "throttling": {
            "periods": stat("nr_periods", "nr_periods").unwrap_or(0),
            "throttledPeriods": stat("nr_throttled", "nr_throttled").unwrap_or(0),
            "throttledTime": throttled.unwrap_or(0),
        },
    })
}

/// In bytes.
fn memory(group: &Group) -> Value {
    const MEMORY: Controller = Controller::Memory;
    let number = |v2: &str, v1: &str| group.number(MEMORY, v2, v1).unwrap_or(0);
    let cache = group.keyed(MEMORY, ("memory.stat", "file"), ("memory.stat", "total_cache"));
    let failed = group.keyed(MEMORY, ("memory.events", "max"), ("", ""));
    let (unified, text) = group.text(MEMORY, "memory.stat", "memory.stat").unwrap_or_default();
    let swap = |v2: &str, v1: &str| {
        // v2 counts swap alone, v1 both together; runc's figure is of both.
        let memory = match v2 {
            "memory.swap.current" if unified => number("memory.current", ""),
            "memory.swap.max" if unified => number("memory.max", ""),
            _ => 0,
        };
        number(v2, v1).saturating_add(memory)
    };
    json!({
        "cache": cache.unwrap_or(0),
        "usage": {
            "usage": number("memory.current", "memory.usage_in_bytes"),
            "max": number("memory.peak", "memory.max_usage_in_bytes"),
            "limit": number("memory.max", "memory.limit_in_bytes"),
            "failcnt": failed.unwrap_or_else(|| number("", "memory.failcnt")),
        },
        "swap": {
            "usage": swap("memory.swap.current", "memory.memsw.usage_in_bytes"),
            "limit": swap("memory.swap.max", "memory.memsw.limit_in_bytes"),
        },
        "raw": raw(&text),
        "oomKills": oom_kills(group),
    })
}

/// `KEY NUMBER` a line.
fn raw(text: &str) -> BTreeMap<&str, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(key, value)| Some((key, value.trim().parse().ok()?))).collect()
}

fn blocks(group: &Group) -> Value {
    let read = |v1: &str| group.text(Controller::Io, "io.stat", v1);
    let bytes = read("blkio.throttle.io_service_bytes_recursive");
    let served = read("blkio.throttle.io_serviced_recursive");
    let entries = |text: Option<(bool, String)>, keys: [(&str, &str); 2]| match text {
        Some((true, text)) => of_io_stat(&text, keys),
        Some((false, text)) => of_blkio(&text),
        None => Vec::new(),
    };
    json!({
        "ioServiceBytesRecursive": entries(bytes, [("rbytes", "Read"), ("wbytes", "Write")]),
        "ioServicedRecursive": entries(served, [("rios", "Read"), ("wios", "Write")]),
    })
}

fn entry(device: &str, operation: &str, value: u64) -> Option<Value> {
    let (major, minor) = device.split_once(':')?;
    let (major, minor): (u64, u64) = (major.parse().ok()?, minor.parse().ok()?);
    Some(json!({"major": major, "minor": minor, "op": operation, "value": value}))
}

/// cgroup v2: `8:0 rbytes=1 wbytes=2 rios=3 ...`.
fn of_io_stat(text: &str, keys: [(&str, &str); 2]) -> Vec<Value> {
    let mut found = Vec::new();
    for (device, rest) in text.lines().filter_map(|line| line.split_once(' ')) {
        for (key, value) in rest.split_whitespace().filter_map(|word| word.split_once('=')) {
            let known = keys.iter().find(|(known, _)| *known == key);
            found.extend(known.and_then(|(_, operation)| entry(device, operation, value.parse().ok()?)));
        }
    }
    found
}

/// cgroup v1: `8:0 Read 1`, and a total at the end.
fn of_blkio(text: &str) -> Vec<Value> {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .filter_map(|words| match words[..] {
            [device, operation, value] => entry(device, operation, value.parse().ok()?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_block_figures_become_the_same() {
        let v2 =
            of_io_stat("8:0 rbytes=5 wbytes=6 rios=7\nbroken\n", [("rbytes", "Read"), ("wbytes", "Write")]);
        assert_eq!(v2, of_blkio("8:0 Read 5\n8:0 Write 6\nTotal 11\n"));
        assert_eq!(v2[1], json!({"major": 8, "minor": 0, "op": "Write", "value": 6}));
        assert_eq!(raw("a 1\nb x\n"), BTreeMap::from([("a", 1)]));
    }
}
