//! What is typed: help, refusals, plans, and what `hv check` says.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use hv_common::Kind;

use support::{finish, hv, image};

/// Runs hv with these arguments, expects it to fail by itself, and returns what it said.
#[track_caller]
fn refused(args: &[&str]) -> String {
    let failed = finish(hv(args), b"").expect(125);
    assert!(failed.stdout.is_empty(), "{}", failed.text());
    assert!(failed.stderr.starts_with("hv: ") || failed.stderr.starts_with("error: "), "{}", failed.stderr);
    failed.stderr
}

fn directory() -> String {
    image::directory().to_string_lossy().into_owned()
}

#[test]
fn help_fits_one_screen_and_tells_the_statuses() {
    let help = finish(hv(&["--help"]), b"").expect(0).text();
    assert!(help.lines().count() <= 24 && help.lines().all(|line| line.chars().count() <= 80), "{help}");
    for status in ["125", "126", "127", "128+N"] {
        assert!(help.contains(status), "{help}");
    }
    finish(hv(&["--version"]), b"").expect(0);
}

#[test]
fn every_verb_has_help_with_an_example() {
    for verb in [
        "vm",
        "ctr",
        "ps",
        "pause",
        "resume",
        "stop",
        "metrics",
        "console",
        "compare",
        "check",
        "kernel",
        "completions",
        "man",
    ] {
        let help = finish(hv(&[verb, "--help"]), b"").expect(0).text();
        assert!(help.contains(&format!("Example: hv {verb}")), "{help}");
    }
}

#[test]
fn what_is_mistyped_is_hvs_own_failure() {
    assert!(refused(&["vmm"]).contains("vmm"));
    assert!(refused(&["ctr"]).contains("IMAGE"));
    assert!(refused(&["ctr", "img", "--memory", "lots"]).contains("256M"));
    assert!(finish(hv(&[]), b"").expect(125).stderr.contains("Usage: hv"));
}

#[test]
fn a_container_refuses_what_only_a_microvm_has_and_says_why() {
    let image = directory();
    let options: [&[&str]; 9] = [
        &["--kernel", "vmlinux"],
        &["--cmdline", "quiet"],
        &["--initrd", "initrd"],
        &["--modules", "/lib/modules"],
        &["--console"],
        &["--boot-timeout", "5"],
        &["--cpu-pin", "0"],
        &["--cpu-template", "portable"],
        &["--hugepages"],
    ];
    for option in options {
        let said = refused(&[&["ctr", &image], option].concat());
        assert!(said.contains(option[0]) && said.contains("a container"), "{said}");
    }
}

#[test]
fn impossible_limits_are_refused_by_both_kinds() {
    let image = directory();
    let limits: [&[&str]; 7] = [
        &["--memory", "0"],
        &["--memory", "1"],
        &["--memory", "900T"],
        &["--memory", "99999999999999999999"],
        &["--cpus", "0"],
        &["--cpus", "300"],
        &["--pids", "0"],
    ];
    for kind in [Kind::Ctr, Kind::Vm] {
        for limit in limits {
            let said = refused(&[&[kind.word(), &image], limit].concat());
            assert!(said.contains(limit[0]), "{kind} {limit:?}: {said}");
        }
    }
    let said = refused(&["vm", &image, "--cpus", "1.5"]);
    assert!(said.contains("whole"), "{said}");
}

#[test]
fn names_and_directories_that_cannot_be_are_refused() {
    let image = directory();
    assert!(refused(&["ctr", &image, "--name", "../x"]).contains("cannot name a sandbox"));
    assert!(refused(&["ctr", &image, "--hostname", "a b"]).contains("--hostname"));
    assert!(refused(&["ctr", &image, "--workdir", "home"]).contains("absolute"));
    assert!(refused(&["ctr", &image, "--env", "=x"]).contains("--env"));
}

#[test]
fn errors_are_one_line_without_colours_where_nobody_looks() {
    let said = refused(&["ctr", "/no/such/image"]);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("/no/such/image") && !said.contains('\x1b'), "{said}");
}

#[test]
fn a_dry_run_prints_the_plan_and_does_nothing() {
    let name = format!("dry-{}", std::process::id());
    let plan =
        finish(hv(&["ctr", &directory(), "--dry-run", "--name", &name, "--", "true"]), b"").expect(0).text();
    assert!(plan.lines().count() > 10 && plan.contains("pivot") && plan.contains(&name), "{plan}");
    for place in ["/run/hv", "/sys/fs/cgroup/hv", "/sys/fs/cgroup/unified/hv"] {
        assert!(!Path::new(place).join(&name).exists());
    }
}

#[test]
fn check_is_quick_fits_80_columns_and_agrees_with_itself() {
    let begun = Instant::now();
    let table = finish(hv(&["check"]), b"");
    let took = begun.elapsed();
    let json = finish(hv(&["check", "--json"]), b"");
    assert_eq!(table.status, json.status);
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let expected = match (report["vm"].as_bool().unwrap(), report["ctr"].as_bool().unwrap()) {
        (true, true) => 0,
        (false, true) => 1,
        (true, false) => 2,
        (false, false) => 3,
    };
    assert_eq!(table.status, Some(expected), "{}", table.text());
    assert!(table.text().lines().all(|line| line.chars().count() <= 80), "{}", table.text());
    let rows = report["rows"].as_array().unwrap();
    assert!(rows.len() >= 15);
    for row in rows {
        assert!(table.text().contains(row["what"].as_str().unwrap()), "{row}");
        // Whatever is missing has a reason.
        assert!(row["state"] == "ok" || !row["found"].as_str().unwrap().is_empty(), "{row}");
    }
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish"] {
        let script = finish(hv(&["completions", shell]), b"").expect(0).text();
        assert!(script.contains("hv") && script.contains("dry-run"), "{shell}");
    }
    let page = finish(hv(&["man"]), b"").expect(0).text();
    assert!(page.starts_with(".ie") || page.contains(".TH hv"), "{page}");
    let dir = tempfile::tempdir().unwrap();
    finish(hv(&["man", dir.path().to_str().unwrap()]), b"").expect(0);
    for name in ["hv.1", "hv-vm.1", "hv-ctr.1", "hv-check.1"] {
        assert!(std::fs::read_to_string(dir.path().join(name)).unwrap().contains(".TH"), "{name}");
    }
}
