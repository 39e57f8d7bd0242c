//! `hv compare`: every launch counted, every figure from its samples, every gap with a reason.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

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

mod peers {
    use super::*;

    /// What `--list-kinds` says of this runtime.
    fn listed(name: &str) -> String {
        let done = finish(hv(&["compare", "--list-kinds"]), b"").expect(0);
        done.text()
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{name} is not listed"))
            .into()
    }

    #[test]
    fn every_kind_is_listed_and_absent_ones_have_a_reason() {
        for name in ["process", "ctr", "vm", "runc", "crun", "bwrap", "docker", "firecracker"] {
            let line = listed(name);
            assert!(line.contains("can run here") || line.contains("absent: "), "{line}");
        }
        let mut command = compare("lxc", &[]);
        command.env("PATH", "");
        assert!(finish(command, b"").expect(125).stderr.contains("use process, ctr, vm, or one of"));
    }

    #[test]
    fn an_absent_runtime_is_a_row_with_the_reason() {
        as_root(|| {
            let mut command = compare("ctr,runc", &[]);
            command.env("PATH", "/nonexistent");
            let done = finish(command, b"").expect(0);
            assert!(done.text().contains("absent  runc: there is no runc in PATH"), "{}", done.text());
        });
    }

    /// Launches `name` beside hv's own, unless it is absent, and returns its first launch.
    fn beside_ctr(name: &str) -> Option<(Finished, Value)> {
        if listed(name).contains("absent: ") {
            println!("skipped: {}", listed(name));
            return None;
        }
        let (done, report) = measured(&format!("ctr,{name}"), &["--memory", "128M"]);
        let samples = report["samples"].as_array().unwrap();
        let of_peer: Vec<&Value> = samples.iter().filter(|sample| sample["kind"] == name).collect();
        assert_eq!(of_peer.len(), 3);
        assert!(of_peer.iter().all(|sample| sample["failure"] == Value::Null), "{of_peer:?}");
        assert!(done.text().lines().all(|line| line.chars().count() <= 80), "{}", done.text());
        let first = (*of_peer.iter().find(|sample| sample["block"] == 0).unwrap()).clone();
        assert!(first["first_byte"].as_u64() > first["asked"].as_u64(), "{first}");
        Some((done, first))
    }

    #[test]
    fn an_oci_runtime_has_the_limits_of_a_container() {
        as_root(|| {
            let Some((done, first)) = beside_ctr("runc") else { return };
            let conditions = &first["conditions"];
            assert_eq!(conditions["memory"], 128 << 20, "{conditions}");
            assert_eq!(conditions["millicpus"], 1000, "{conditions}");
            assert_eq!(conditions["seccomp"], 2, "{conditions}");
            assert!(first["memory"]["processes"].as_u64().unwrap() > 50_000, "{first}");
            assert!(!done.text().contains("runc: memory limit"), "{}", done.text());
        });
    }

    #[test]
    fn what_a_runtime_lacks_is_a_mark() {
        as_root(|| {
            let Some((done, first)) = beside_ctr("bwrap") else { return };
            assert_eq!(first["conditions"]["memory"], 128 << 20, "the harness limits it: {first}");
            assert!(
                done.text().contains("mark    bwrap: system call filter none, ctr yes"),
                "{}",
                done.text()
            );
        });
    }
}

/// What the harness adds is measured by itself, against a loop without it. How much it is, the machine's load decides.
#[test]
fn the_harness_measures_itself() {
    as_root(|| {
        let mut command = hv(&["compare", "--overhead", "10"]);
        command.arg(image::directory());
        let text = finish(command, b"").expect(0).text();
        let ratio = text.split(": ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse::<f64>();
        assert!((0.2..5.0).contains(&ratio.unwrap()), "{text}");
        assert!(text.contains("10 pairs"), "{text}");
    });
}

mod switches {
    use super::*;

    #[test]
    fn one_wall_less_at_a_time() {
        as_root(|| {
            let dir = tempfile::tempdir().unwrap();
            let mut command = hv(&["compare", "--runs", "4", "--ablate", "--kinds", "ctr", "--out"]);
            command.arg(dir.path()).arg(image::directory());
            let done = finish(command, b"").expect(0);
            let text = done.text();
            assert!(
                text.contains("hv-oci with one change, ms") && text.contains("no network namespace"),
                "{text}"
            );
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            let json = dir.path().join("report.json");
            let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
            let effects = report["effects"].as_array().unwrap();
            assert!(effects.len() >= 9 && effects.iter().all(|effect| effect["n"] == 4), "{effects:?}");
            let trials = report["ablation"]["trials"].as_array().unwrap().len();
            assert_eq!(trials, 5 * (effects.len() + 1), "every switch, the usual and its twin");
            let lines = std::fs::read_to_string(dir.path().join("switches.csv")).unwrap().lines().count();
            assert_eq!(lines, 1 + trials);
            reports::recomputed(&json);
        });
    }
}

mod scale {
    use super::*;

    fn round(report: &Value, kind: &str) -> Value {
        let rounds = report["scale"]["rounds"].as_array().unwrap();
        assert_eq!(rounds.len(), 6, "three rounds of both: {rounds:?}");
        rounds.iter().find(|round| round["kind"] == kind).unwrap().clone()
    }

    #[test]
    fn sandboxes_beside_each_other_hold_more_and_more() {
        as_root(|| {
            let dir = tempfile::tempdir().unwrap();
            let mut command = hv(&["compare", "--quick", "--scale", "--kinds", "process,ctr", "--out"]);
            command.arg(dir.path()).arg(image::directory());
            let done = finish(command, b"").expect(0);
            let text = done.text();
            assert!(text.contains("each more (PSS)") && text.contains("4 at once"), "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            let json = dir.path().join("report.json");
            let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
            let round = round(&report, "ctr");
            let held: Vec<u64> =
                round["steps"].as_array().unwrap().iter().map(|step| step["pss"].as_u64().unwrap()).collect();
            assert!(held.len() == 4 && held.is_sorted() && held[3] > held[0] + 300_000, "{held:?}");
            assert_eq!(round["burst"].as_array().unwrap().len(), 4);
            let lines = std::fs::read_to_string(dir.path().join("scale.csv")).unwrap().lines().count();
            assert_eq!(lines, 1 + 6 * 8);
            assert!(
                std::fs::read_to_string(dir.path().join("report.html"))
                    .unwrap()
                    .contains("Beside each other")
            );
            reports::recomputed(&json);
        });
    }

    #[test]
    fn a_command_that_may_not_wait_is_refused_before_anything_is_measured() {
        let mut command = compare("process", &["--scale"]);
        command.args(["--", "/bin/true"]);
        let done = finish(command, b"").expect(125);
        assert!(done.stderr.contains("leave out `-- CMD`, or these"), "{}", done.stderr);
    }

    #[test]
    fn a_round_that_fails_is_named_and_ends_with_status_1() {
        as_root(|| {
            // No shell: nothing waits.
            let empty = tempfile::tempdir().unwrap();
            let mut command = hv(&["compare", "--runs", "1", "--scale", "--kinds", "ctr"]);
            command.arg(empty.path());
            let done = finish(command, b"").expect(1);
            assert!(done.text().contains("round beside others failed"), "{}", done.text());
        });
    }
}

mod inside {
    use super::*;

    /// The rounds of a comparison of these kinds with a share of the work inside, and where its files are.
    fn worked(kinds: &str, runs: &str, share: &str) -> (Finished, tempfile::TempDir, Value) {
        support::probe();
        let dir = tempfile::tempdir().unwrap();
        let mut command = hv(&["compare", "--runs", runs, "--kinds", kinds, share, "--out"]);
        command.arg(dir.path());
        if let Some(kernel) = std::env::var_os("HV_TEST_KERNEL") {
            command.arg("--kernel").arg(kernel);
        }
        command.arg(image::directory());
        let done = finish(command, b"").expect(0);
        let report = serde_json::from_slice(&std::fs::read(dir.path().join("report.json")).unwrap()).unwrap();
        (done, dir, report)
    }

    fn done<'a>(round: &'a Value, name: &str) -> &'a Value {
        round["done"].as_array().unwrap().iter().find(|done| done["name"] == name).unwrap()
    }

    mod ctr {
        use super::*;

        #[test]
        fn work_is_compared_with_the_bare_process() {
            as_root(|| {
                let (done, dir, report) = worked("process,ctr", "3", "--inside=5");
                let text = done.text();
                assert!(text.contains("ctr/process") && text.contains("tcp-round-trip"), "{text}");
                assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
                let rounds = report["inside"]["rounds"].as_array().unwrap();
                assert_eq!(rounds.len(), 2 * 4, "three rounds and a warm-up");
                for round in rounds {
                    assert_eq!(round["failure"], Value::Null, "{round}");
                    let work = super::done(round, "syscall");
                    assert_eq!(work["operations"], 10_000);
                    let each = work["nanoseconds"].as_u64().unwrap() / 10_000;
                    assert!((10..1_000_000).contains(&each), "{each} ns for a system call");
                    assert_eq!(super::done(round, "fork-exec").get("failure"), None, "{round}");
                }
                let figures = report["figures"].as_array().unwrap();
                let call = figures.iter().find(|figure| figure["id"] == "inside.syscall").unwrap();
                assert_eq!(call["ratios"]["ctr/process"]["n"], 3);
                reports::recomputed(&dir.path().join("report.json"));
                let lines = std::fs::read_to_string(dir.path().join("inside.csv")).unwrap().lines().count();
                assert_eq!(lines, 1 + 2 * 4 * 17);
                let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
                assert!(page.contains("What work costs inside"));
                let again = finish(
                    hv(&["compare", "--replay", dir.path().join("report.json").to_str().unwrap()]),
                    b"",
                );
                assert!(again.expect(0).text().contains("ctr/process"));
            });
        }

        #[test]
        fn what_an_image_lacks_is_said_and_is_no_failure() {
            as_root(|| {
                support::probe();
                let empty = tempfile::tempdir().unwrap();
                let mut command = hv(&["compare", "--runs", "1", "--inside=1", "--kinds", "ctr"]);
                command.arg(empty.path()).args(["--", "/bin/true"]);
                // No shell and no file: the launches fail, the work inside is done all the same.
                let text = finish(command, b"").expect(1).text();
                assert!(text.contains("block-random: the image has no file of 256 KiB"), "{text}");
                assert!(!text.contains("round inside failed"), "{text}");
            });
        }
    }

    mod vm {
        use super::*;

        #[test]
        fn exits_are_counted_for_each_operation() {
            if let Some(reason) = support::unavailable(Kind::Vm) {
                return println!("skipped: {reason}");
            }
            let (_, _, report) = worked("vm", "1", "--inside=1");
            let rounds = report["inside"]["rounds"].as_array().unwrap();
            assert_eq!((rounds.len(), &rounds[1]["failure"]), (2, &Value::Null), "{rounds:?}");
            let exits = |name| done(&rounds[1], name)["exits"].as_u64().unwrap();
            let reads = done(&rounds[1], "block-random")["operations"].as_u64().unwrap();
            assert!(exits("block-random") > reads, "a read of the disk crosses the wall: {}", rounds[1]);
            assert!(exits("empty") > 0 && exits("syscall") < 2000, "a system call does not: {}", rounds[1]);
        }
    }
}

mod reports {
    use std::path::Path;

    use super::*;

    /// A directory with the three files of a comparison of so many runs.
    fn written(runs: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut command = hv(&["compare", "--kinds", "process,ctr", "--runs", runs, "--out"]);
        command.arg(dir.path()).arg(image::directory());
        finish(command, b"").expect(0);
        dir
    }

    fn of(verb: &[&str], files: &[&Path]) -> Finished {
        let mut command = hv(verb);
        command.args(files);
        finish(command, b"")
    }

    /// Asserts that the script finds every figure of this report as it is.
    pub fn recomputed(report: &Path) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recompute_report.py");
        let mut python = Command::new("python3");
        python.arg(script).arg(report);
        if Command::new("python3").arg("-V").output().is_err() {
            return println!("skipped: no python3 here");
        }
        let done = finish(python, b"").expect(0);
        assert!(done.text().contains(", 0 differ"), "{}", done.text());
    }

    #[test]
    fn another_language_computes_the_same_figures() {
        as_root(|| {
            let dir = written("6");
            recomputed(&dir.path().join("report.json"));
        });
    }

    #[test]
    fn a_report_is_shown_again_and_does_not_differ_from_itself() {
        as_root(|| {
            let dir = written("3");
            let json = dir.path().join("report.json");
            let again = of(&["compare", "--replay"], &[&json]).expect(0);
            assert!(again.text().contains("3 blocks in random order"), "{}", again.text());
            let same = of(&["compare", "--fail-if-slower", "1%"], &[&json, &json]).expect(0);
            assert!(same.text().contains("0 of "), "{}", same.text());
            let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
            assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
            assert!(std::fs::read_to_string(dir.path().join("report.csv")).unwrap().contains("start.ready"));
        });
    }

    #[test]
    fn a_slower_second_report_fails_and_is_named() {
        as_root(|| {
            let dir = written("5");
            let (before, after) = (dir.path().join("report.json"), dir.path().join("slower.json"));
            let mut report: Value = serde_json::from_slice(&std::fs::read(&before).unwrap()).unwrap();
            for sample in report["samples"].as_array_mut().unwrap() {
                sample["cpu_ns"] = (sample["cpu_ns"].as_u64().unwrap() * 3).into();
            }
            std::fs::write(&after, report.to_string()).unwrap();
            let done = of(&["compare", "--fail-if-slower", "5%"], &[&before, &after]).expect(1);
            assert!(done.stderr.contains("processor time of ctr grew by 200.0 %"), "{}", done.stderr);
        });
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.json");
        std::fs::write(&file, "{\"version\": 999}").unwrap();
        let done = of(&["compare", "--replay"], &[&file]).expect(125);
        assert!(done.stderr.contains("version 999"), "{}", done.stderr);
    }

    #[test]
    fn an_interrupt_keeps_what_was_measured() {
        as_root(|| {
            let dir = tempfile::tempdir().unwrap();
            let mut command = hv(&["compare", "--kinds", "process", "--runs", "10000", "--out"]);
            command.arg(dir.path()).arg(image::directory());
            let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
            let deadline = Instant::now() + Duration::from_secs(60);
            while !has_children(child.id()) {
                assert!(Instant::now() < deadline, "it launched nothing");
                std::thread::yield_now();
            }
            rustix::process::kill_process(
                rustix::process::Pid::from_child(&child),
                rustix::process::Signal::INT,
            )
            .unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(130));
            let report: Value =
                serde_json::from_slice(&std::fs::read(dir.path().join("report.json")).unwrap()).unwrap();
            assert!(
                report["stopped"].as_str().unwrap().starts_with("interrupted: partial"),
                "{}",
                report["stopped"]
            );
        });
    }

    /// True once the harness has started something, so that it has taken the signals over.
    fn has_children(pid: u32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).is_ok_and(|list| !list.is_empty())
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
