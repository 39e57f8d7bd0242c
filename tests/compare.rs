//! `hv compare`: every launch counted, every figure from its samples, every gap with a reason.

mod support;

use std::process::Command;

use hv_common::Kind;
use serde_json::Value;

use support::{Finished, finish, hv, image};

fn compare(kinds: &str, options: &[&str]) -> Command {
    let mut command = hv(&["compare", "--runs", "2", "--kinds", kinds]);
    if let Some(kernel) = std::env::var_os("HV_TEST_KERNEL") {
        command.arg("--kernel").arg(kernel);
    }
    command.args(options).arg(image::directory());
    command
}

fn measured(kinds: &str, options: &[&str]) -> (Finished, Value) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let json = file.path().to_str().unwrap();
    let done = finish(compare(kinds, &[&["--json", json], options].concat()), b"").expect(0);
    let report = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    (done, report)
}

/// The instants of each launch of this kind, in the order in which they must lie.
fn assert_in_order(report: &Value, kind: &str, phases: &[&str]) {
    let samples = report["samples"].as_array().unwrap();
    let of_kind: Vec<&Value> = samples.iter().filter(|sample| sample["kind"] == kind).collect();
    assert_eq!(of_kind.len(), 3, "two counted launches and the warm-up");
    for sample in of_kind {
        assert_eq!(sample["failure"], Value::Null);
        let marked = phases.iter().map(|phase| sample["phases"][phase].as_u64());
        let ends = [sample["first_byte"].as_u64(), sample["told_to_end"].as_u64()];
        let after = [sample["phases"]["exit"].as_u64(), sample["gone"].as_u64()];
        let all: Vec<u64> = [sample["asked"].as_u64()]
            .into_iter()
            .chain(marked)
            .chain(ends)
            .chain(after)
            .map(Option::unwrap)
            .collect();
        assert!(all.is_sorted(), "{kind}: {all:?}");
    }
}

fn as_root(body: impl FnOnce()) {
    if rustix::process::geteuid().is_root() { body() } else { println!("skipped: needs root") }
}

mod ctr {
    use super::*;

    #[test]
    fn phases_lie_in_order_on_one_clock() {
        as_root(|| {
            let (_, report) = measured("process,ctr", &[]);
            assert_in_order(&report, "process", &["launch", "opened", "boundary", "exec"]);
            assert_in_order(&report, "ctr", &["launch", "opened", "boundary", "init", "exec"]);
        });
    }

    #[test]
    fn the_table_fits_80_columns() {
        as_root(|| {
            let (done, _) = measured("process,ctr", &[]);
            assert!(done.text().lines().all(|line| line.chars().count() <= 80), "{}", done.text());
        });
    }

    #[test]
    fn the_ledger_adds_up() {
        as_root(|| {
            let (_, report) = measured("ctr", &[]);
            let ledger = &report["samples"][0]["memory"];
            let bytes = |row: &str| ledger[row].as_u64().unwrap_or_else(|| panic!("{row} in {ledger}"));
            assert!(bytes("monitor") > 100_000 && bytes("processes") > 50_000, "{ledger}");
            assert!(bytes("cgroup") > 0 && bytes("inside") > 0, "{ledger}");
        });
    }

    #[test]
    fn a_seed_gives_the_same_order_again() {
        as_root(|| {
            let order = |report: &Value| -> Vec<Value> {
                report["samples"].as_array().unwrap().iter().map(|sample| sample["kind"].clone()).collect()
            };
            let (_, first) = measured("process,ctr", &["--seed", "5"]);
            let (_, again) = measured("process,ctr", &["--seed", "5"]);
            assert_eq!(order(&first), order(&again));
            assert_eq!(first["seed"], 5);
        });
    }

    #[test]
    fn a_launch_that_fails_is_counted_and_named() {
        as_root(|| {
            let mut command = compare("ctr", &[]);
            command.args(["--", "/no/such/program"]);
            let done = finish(command, b"");
            let done = done.expect(1);
            assert!(done.text().contains("not measured"), "{}", done.text());
            assert!(done.text().contains("/no/such/program"), "{}", done.text());
            assert!(done.text().contains("3 launches failed"), "{}", done.text());
        });
    }
}

#[test]
fn a_kind_that_cannot_run_is_a_row_with_the_reason() {
    as_root(|| {
        if support::unavailable(Kind::Vm).is_none() {
            return println!("skipped: microVMs run here");
        }
        let (done, report) = measured("ctr,vm", &[]);
        assert!(done.text().contains("absent  vm: "), "{}", done.text());
        assert_eq!(report["kinds"], serde_json::json!(["ctr"]));
    });
}

mod vm {
    use super::*;

    #[test]
    fn all_three_kinds_side_by_side() {
        if let Some(reason) = support::unavailable(Kind::Vm) {
            return println!("skipped: {reason}");
        }
        let (done, report) = measured("process,ctr,vm", &[]);
        let phases = ["launch", "opened", "boundary", "kernel", "init", "exec"];
        assert_in_order(&report, "vm", &phases);
        assert!(done.text().contains("vm/ctr"), "{}", done.text());
        assert!(done.text().lines().all(|line| line.chars().count() <= 80), "{}", done.text());
        let sample =
            report["samples"].as_array().unwrap().iter().find(|sample| sample["kind"] == "vm").unwrap();
        assert!(sample["crossings"]["total"].as_u64().unwrap() > 100, "{sample}");
        assert!(sample["memory"]["guest"].as_u64().unwrap() > 10 << 20, "{sample}");
        assert!(sample["memory"]["cgroup"].as_u64().unwrap() > 10 << 20, "{sample}");
    }
}
