//! From create to delete, verb by verb.

use std::fs;

use serde_json::{Value, json};

use crate::bundle::{Bundle, root_bundle, wait_for};

const WAITS: &str = "trap 'exit 5' TERM; sleep 1000 & wait";

#[test]
fn a_container_goes_through_its_life() {
    let Some(bundle) = root_bundle(WAITS) else { return };
    bundle.create();
    let state = bundle.state();
    assert_eq!((state["status"].as_str(), state["id"].as_str()), (Some("created"), Some(bundle.id.as_str())));
    let pid: i64 = fs::read_to_string(bundle.file("pid")).unwrap().parse().unwrap();
    assert_eq!(state["pid"], json!(pid), "the pid file is there when create returns");
    assert!(bundle.has_cgroups());
    bundle.ok("start");
    assert_eq!(bundle.status(), "running");
    assert!(bundle.call("start", &[&bundle.id]).stderr.contains("running"));
    let pids: Vec<i64> =
        serde_json::from_slice(&bundle.call("ps", &["--format", "json", &bundle.id]).stdout).unwrap();
    assert!(pids.contains(&pid), "{pids:?}");
    let list: Vec<Value> = serde_json::from_slice(&bundle.call("list", &["--format=json"]).stdout).unwrap();
    assert_eq!(list[0]["id"], bundle.id.as_str());
    let refused = bundle.call("delete", &[&bundle.id]);
    assert!(refused.code() == 1 && refused.stderr.contains("not stopped"), "{}", refused.stderr);
    bundle.call("kill", &[&bundle.id, "TERM"]).expect(0);
    wait_for(pid as i32);
    assert_eq!(bundle.status(), "stopped", "and state works until delete");
    assert!(bundle.call("kill", &[&bundle.id]).stderr.contains("container not running"));
    bundle.ok("delete");
    assert!(bundle.call("state", &[&bundle.id]).stderr.contains("does not exist"));
    bundle.call("delete", &["--force", &bundle.id]).expect(0);
    assert!(!bundle.has_cgroups());
}

#[test]
fn run_ends_with_the_programs_status_and_leaves_nothing() {
    let Some(mut bundle) = root_bundle("echo out; echo err >&2; exit 7") else { return };
    let done = bundle.run();
    assert_eq!((done.code(), done.text().as_str()), (7, "out\n"), "{}", done.stderr);
    assert!(done.stderr.contains("err"));
    assert!(!bundle.has_cgroups() && bundle.call("state", &[&bundle.id]).code() == 1);
    bundle.config["process"]["args"] = json!(["sh", "-c", "kill -KILL $$; kill -9 -1; sleep 1000"]);
    bundle.config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "ipc"}]);
    bundle.config.as_object_mut().unwrap().remove("hostname");
    assert_eq!(bundle.run().code(), 137, "128 and the signal");
}

#[test]
fn pause_stops_everything_and_resume_lets_it_go() {
    let Some(bundle) = root_bundle(WAITS) else { return };
    bundle.start();
    bundle.ok("pause");
    assert_eq!(bundle.status(), "paused");
    assert!(bundle.exec("true").stderr.contains("paused"));
    bundle.ok("resume");
    assert_eq!(bundle.status(), "running");
    bundle.ok("pause");
    bundle.call("delete", &["--force", &bundle.id]).expect(0);
    assert!(!bundle.has_cgroups(), "also of a paused one");
}

#[test]
fn limits_are_set_changed_and_counted() {
    let Some(mut bundle) = root_bundle(WAITS) else { return };
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 67_108_864});
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 20});
    bundle.start();
    let stats = || -> Value {
        serde_json::from_slice(&bundle.call("events", &["--stats", &bundle.id]).stdout).unwrap()
    };
    assert_eq!(stats()["data"]["memory"]["usage"]["limit"], 67_108_864);
    assert_eq!(stats()["data"]["pids"]["limit"], 20);
    assert!(stats()["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    assert!(stats()["data"]["memory"]["raw"].as_object().unwrap().len() > 10);
    bundle.call("update", &["--memory", "33554432", "--pids-limit", "10", &bundle.id]).expect(0);
    assert_eq!(stats()["data"]["memory"]["usage"]["limit"], 33_554_432);
    assert_eq!(stats()["data"]["pids"]["limit"], 10);
    let refused = bundle.call("update", &["--cpuset-cpus", "4000", &bundle.id]);
    assert_eq!(refused.code(), 1, "no processor 4000: {}", refused.stderr);
}

#[test]
fn a_limit_that_cannot_be_set_is_an_error_and_nothing_is_left() {
    let Some(mut bundle) = root_bundle("true") else { return };
    bundle.config["linux"]["resources"]["unified"] = json!({"memory.nonsense": "1"});
    let refused = bundle.run();
    assert!(refused.code() == 1 && refused.stderr.contains("memory.nonsense"), "{}", refused.stderr);
    assert!(!bundle.has_cgroups() && bundle.call("state", &[&bundle.id]).code() == 1);
}

#[test]
fn hooks_run_in_their_order_with_the_state() {
    let Some(mut bundle) = root_bundle("cat /dev/shm/hook") else { return };
    let log = bundle.file("log");
    let hook = |name: &str| {
        let script = format!("read state; echo {name} $state >> {}", log.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    for name in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        bundle.config["hooks"][name] = hook(name);
    }
    let inside = json!([{"path": "/bin/sh", "args": ["sh", "-c", "cat > /dev/shm/hook; echo $A >> /dev/shm/hook"], "env": ["A=value"]}]);
    bundle.config["hooks"]["startContainer"] = inside;
    bundle.config["annotations"] = json!({"key": "annotated"});
    let done = bundle.run();
    let seen = done.expect(0).text();
    assert!(
        seen.contains("\"status\":\"created\"") && seen.contains("annotated") && seen.contains("value"),
        "{seen}"
    );
    let log = fs::read_to_string(log).unwrap();
    let names: Vec<&str> = log.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]);
    assert!(log.lines().all(|line| line.contains(&format!("\"id\":\"{}\"", bundle.id))), "{log}");
}

#[test]
fn a_hook_that_fails_or_takes_too_long_stops_the_creation() {
    let Some(mut bundle) = root_bundle("true") else { return };
    for (script, timeout, words) in
        [("echo reason >&2; exit 3", 10, "reason"), ("sleep 1000", 1, "did not end within")]
    {
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": timeout}]);
        bundle.config["hooks"]["createRuntime"] = hook;
        let done = bundle.run();
        assert!(done.code() == 1 && done.stderr.contains(words), "{}", done.stderr);
        assert!(!bundle.has_cgroups());
    }
}

#[test]
fn errors_are_in_the_log_as_engines_read_it() {
    let bundle = Bundle::new("true");
    let mut command = crate::support::hv(&[
        "oci",
        "--log",
        "log",
        "--log-format=json",
        "--root",
        "state",
        "state",
        "nobody",
    ]);
    command.current_dir(bundle.path());
    crate::support::finish(command, b"").expect(1);
    let line: Value = serde_json::from_str(fs::read_to_string(bundle.file("log")).unwrap().trim()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(
        line["msg"].as_str().unwrap().contains("does not exist")
            && line["time"].as_str().unwrap().ends_with('Z')
    );
}

#[test]
fn versions_and_features_are_told() {
    let bundle = Bundle::new("true");
    let mut command = crate::support::hv(&["oci", "--version"]);
    command.current_dir(bundle.path());
    assert!(crate::support::finish(command, b"").text().contains("spec: 1.2"));
    let features: Value = serde_json::from_slice(&bundle.call("features", &[]).stdout).unwrap();
    assert!(features["linux"]["namespaces"].as_array().unwrap().contains(&json!("time")));
    assert!(bundle.call("checkpoint", &["x"]).code() != 0);
}
