//! `hv drill`: what each wall of a container stops, found by leaving the others out.

use crate::drill::{Drill, free, stops};
use crate::hostile::emulated;

#[test]
fn every_attempt_is_stopped_or_known_not_to_be() {
    // Seven runs, each of fifty processes.
    if emulated() {
        return println!("skipped: takes minutes here, and says the same as on the machine itself");
    }
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: a bare process needs root");
    }
    let report = Drill::new().run(&["process", "ctr"]);
    assert!(report["drill"].as_array().unwrap().len() >= 50);
    // Nodes can be made, and do not work; the counter is in the processor.
    assert_eq!(free(&report, "ctr"), ["block-device", "fine-clock"]);
    for (attempt, expected) in [
        ("reboot", &["seccomp", "capability"][..]),
        ("mount", &["seccomp", "capability", "namespace"]),
        ("keyring", &["seccomp"]),
        ("sysctl", &["read-only"]),
        ("signal-host", &["namespace"]),
        ("loopback-port", &["namespace"]),
        ("many-processes", &["cgroup"]),
        ("much-memory", &["cgroup"]),
    ] {
        assert_eq!(stops(&report, attempt, "ctr"), expected, "{attempt}");
    }
    let rows = report["drill"].as_array().unwrap();
    let unclear: Vec<_> = rows.iter().filter(|row| row.to_string().contains("unclear")).collect();
    assert!(unclear.is_empty(), "{unclear:#?}");
    // Nothing stops a bare process's signals, mounts and sockets.
    let free = free(&report, "process");
    for attempt in ["signal-host", "mount", "loopback-port", "reboot", "many-processes"] {
        assert!(free.iter().any(|name| name == attempt), "{attempt} of {free:?}");
    }
}
