//! Limits hold, or the start is refused.

use crate::support::*;
use hv_common::exit::How;
use hv_common::{Backend, Limits};
use hv_container::{Bare, Namespaces};

/// Whether this process may make cgroups; without, what needs them is refused, which has its own test.
fn has_cgroups() -> bool {
    is_root() || skipped("only root may make cgroups")
}

fn limited(limits: Limits, script: &str) -> hv_common::Spec {
    let mut spec = spec(image(), &["sh", "-c", script]);
    spec.limits = limits;
    spec
}

#[test]
fn memory_beyond_the_limit_kills_and_says_so() {
    if !has_cgroups() {
        return;
    }
    let limits = Limits { memory: Some(32 << 20), ..Limits::default() };
    let outcome = run(limited(limits, "exec dd if=/dev/zero of=/dev/null bs=64M count=1"));
    assert_eq!((outcome.exit.how, outcome.exit.out_of_memory), (How::Signal(9), true), "{outcome:?}");
    let small = run(limited(limits, "exec dd if=/dev/zero of=/dev/null bs=1M count=1"));
    assert_eq!((small.exit.status(), small.exit.out_of_memory), (0, false), "{small:?}");
}

#[test]
fn the_writable_layer_counts_as_memory() {
    if !has_cgroups() {
        return;
    }
    let limits = Limits { memory: Some(32 << 20), ..Limits::default() };
    let outcome = run(limited(limits, "dd if=/dev/zero of=/big bs=1M count=64"));
    assert_ne!(outcome.exit.status(), 0, "{outcome:?}");
}

#[test]
fn a_memory_limit_too_small_to_start_is_an_error_not_a_hang() {
    if !has_cgroups() {
        return;
    }
    let limits = Limits { memory: Some(4096), ..Limits::default() };
    match start_on(&Namespaces::new(), limited(limits, "true")) {
        Err(error) => assert_eq!(error.status, 125, "{}", chain(&error)),
        Ok(running) => assert_ne!(running.finish().exit.status(), 0),
    }
}

#[test]
fn processes_beyond_the_limit_are_refused() {
    if !has_cgroups() {
        return;
    }
    let limits = Limits { pids: Some(8), ..Limits::default() };
    let outcome = run(limited(limits, "for i in $(seq 20); do sleep 100 & done; echo all"));
    assert!(outcome.stderr.contains("can't fork"), "{outcome:?}");
    let one = Limits { pids: Some(1), ..Limits::default() };
    let error = start_on(&Namespaces::new(), limited(one, "true")).err().unwrap();
    assert!(chain(&error).contains("at least 2"), "{}", chain(&error));
}

#[test]
fn processor_time_is_shared_out() {
    if !has_cgroups() {
        return;
    }
    let limits = Limits { millicpus: Some(100), ..Limits::default() };
    // Works until it has been held back; a limit that is not in force makes this endless.
    let script = "until grep -q 'nr_throttled [1-9]' /sys/fs/cgroup/cpu*/cpu.stat /sys/fs/cgroup/cpu.stat 2>/dev/null; \
        do :; done; echo held back";
    assert_eq!(run(limited(limits, script)).ok(), "held back\n");
}

#[test]
fn a_bare_process_has_limits_too() {
    if !has_cgroups() {
        return;
    }
    let limits = Limits { memory: Some(32 << 20), ..Limits::default() };
    let spec = limited(limits, "exec dd if=/dev/zero of=/tmp/x bs=64M count=1");
    let outcome = start_on(&Bare::new(), spec).unwrap().finish();
    assert_ne!(outcome.exit.status(), 0, "{outcome:?}");
}

both_ways! {
    fn limits_that_cannot_be_set_are_refused() {
        if is_root() {
            // The other way round is the test.
            return again_as_nobody(concat!(module_path!(), "::limits_that_cannot_be_set_are_refused"));
        }
        for limits in [
            Limits { memory: Some(1 << 30), ..Limits::default() },
            Limits { pids: Some(10), ..Limits::default() },
            Limits { millicpus: Some(100), ..Limits::default() },
        ] {
            let error = start_on(&Namespaces::new(), limited(limits, "true")).err().expect("never dropped in silence");
            assert!(chain(&error).contains("cannot limit"), "{}", chain(&error));
        }
    }
}

#[test]
fn plans_name_the_limits() {
    let plan =
        Namespaces::new().plan(&limited(Limits { pids: Some(77), ..Limits::default() }, "true")).join("\n");
    assert!(plan.contains("77"), "{plan}");
}
