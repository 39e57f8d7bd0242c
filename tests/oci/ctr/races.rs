//! Several commands at once, and commands that are killed.

use std::fs;
use std::process::{Child, Stdio};

use serde_json::json;

use crate::bundle::{Bundle, root_bundle, wait_for};

fn spawn(bundle: &Bundle, verb: &str, args: &[&str]) -> Child {
    let mut command = bundle.command(verb, args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn of_two_creates_of_one_name_one_wins() {
    let Some(bundle) = root_bundle("sleep 1000") else { return };
    let mut both: Vec<Child> = (0..4).map(|_| spawn(&bundle, "create", &[&bundle.id])).collect();
    let won = both.iter_mut().filter_map(|child| child.wait().ok()).filter(|status| status.success()).count();
    assert_eq!(won, 1);
    bundle.ok("start");
    assert_eq!(bundle.status(), "running");
}

#[test]
fn deletes_starts_and_kills_at_once_leave_nothing() {
    let Some(bundle) = root_bundle("sleep 1000") else { return };
    for _ in 0..5 {
        bundle.create();
        let verbs: [(&str, &[&str]); 4] = [
            ("start", &[&bundle.id]),
            ("delete", &["--force", &bundle.id]),
            ("kill", &[&bundle.id, "9"]),
            ("state", &[&bundle.id]),
        ];
        let children: Vec<Child> = verbs.iter().map(|(verb, args)| spawn(&bundle, verb, args)).collect();
        for mut child in children {
            wait_for(child.id() as i32);
            child.wait().unwrap();
        }
        bundle.call("delete", &["--force", &bundle.id]).expect(0);
        assert!(!bundle.has_cgroups());
    }
}

/// The hook holds `create` at a known place, and kills it there.
#[test]
fn a_create_that_is_killed_is_cleaned_up_by_the_next_command() {
    let Some(mut bundle) = root_bundle("sleep 1000") else { return };
    // The hook's parent is the create.
    let script = format!("echo $PPID > {}; kill -9 $PPID", bundle.file("killed").display());
    bundle.config["hooks"]["createRuntime"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    let mut child = spawn(&bundle, "create", &[&bundle.id]);
    assert!(!child.wait().unwrap().success());
    let state = fs::read_to_string(bundle.file("state").join(&bundle.id).join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["creating"], true);
    wait_for(state["pid"].as_i64().unwrap() as i32);
    assert!(bundle.has_cgroups());
    assert_eq!(bundle.call("list", &["--quiet"]).text(), "");
    assert!(!bundle.has_cgroups() && !bundle.file("state").join(&bundle.id).exists());
    bundle.config["hooks"] = json!({});
    bundle.create();
}
