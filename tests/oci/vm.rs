//! `--isolation vm`: the same verbs on the same bundle, whose process is then a VM's monitor. In the testbed.

use std::process::Command;

use hv_common::Kind;
use serde_json::json;

use crate::bundle::{Bundle, root_bundle, wait_for};
use crate::support;

/// None, and the reason printed, where no Linux guest runs.
fn machine(script: &str) -> Option<Bundle> {
    if let Some(why) = support::unavailable(Kind::Vm) {
        println!("skipped: {why}");
        return None;
    }
    let mut bundle = root_bundle(script)?;
    let kernel = std::env::var("HV_TEST_KERNEL").ok()?;
    bundle.globals = ["--kernel".into(), kernel].to_vec();
    bundle.config["annotations"] = json!({"hv.isolation": "vm"});
    Some(bundle)
}

#[test]
fn a_vm_goes_through_a_containers_life() {
    let Some(bundle) = machine("trap 'exit 5' TERM; uname -n; echo up; while :; do sleep 0.05; done") else {
        return;
    };
    bundle.create();
    assert_eq!(bundle.status(), "created");
    let pid = bundle.state()["pid"].as_i64().unwrap() as i32;
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroup.contains(&bundle.id), "the monitor is in the container's cgroup: {cgroup}");
    bundle.ok("start");
    assert_eq!(bundle.status(), "running");
    bundle.ok("pause");
    assert_eq!(bundle.status(), "paused");
    bundle.ok("resume");
    assert!(bundle.exec("true").stderr.contains("it is a VM"));
    assert!(bundle.call("kill", &[&bundle.id, "WINCH"]).stderr.contains("signal 28"));
    bundle.call("kill", &[&bundle.id, "TERM"]).expect(0);
    wait_for(pid);
    assert_eq!(bundle.status(), "stopped");
    bundle.ok("delete");
    assert!(!bundle.has_cgroups());
}

#[test]
fn run_gives_the_guests_output_and_status_and_refuses_by_name() {
    let Some(mut bundle) = machine("echo $(id -u):$(id -g) $PWD; exit 7") else { return };
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    bundle.config["process"]["cwd"] = json!("/tmp");
    let done = bundle.run();
    assert_eq!((done.code(), done.text().as_str()), (7, "1000:1000 /tmp\n"), "{}", done.stderr);
    bundle.config["process"]["args"] = json!(["/no/such/program"]);
    let done = bundle.run();
    assert!(done.code() == 127 || done.stderr.contains("/no/such/program"), "{}", done.stderr);
    bundle.config["mounts"] =
        json!([{"destination": "/x", "type": "bind", "source": "/tmp", "options": ["bind"]}]);
    let done = bundle.run();
    assert!(done.code() == 1 && done.stderr.contains("mounts (/x)"), "{}", done.stderr);
}

#[test]
fn the_interface_of_the_network_namespace_is_the_guests() {
    let Some(mut bundle) = machine("ping -c 1 -w 5 192.0.2.1 && ip -o addr show dev eth0 && ip route") else {
        return;
    };
    let namespace = format!("hv-{}", bundle.id);
    let setup = format!(
        "ip netns add {namespace} && ip link add hvt0 type veth peer name eth0 netns {namespace} && \
         ip addr add 192.0.2.1/24 dev hvt0 && ip link set hvt0 up && ip -n {namespace} addr add 192.0.2.7/24 dev eth0 && \
         ip -n {namespace} link set eth0 up && ip -n {namespace} route add default via 192.0.2.1"
    );
    let run = |script: &str| Command::new("sh").arg("-c").arg(script).status().unwrap().success();
    assert!(run(&setup));
    for one in bundle.config["linux"]["namespaces"].as_array_mut().unwrap() {
        if one["type"] == "network" {
            one["path"] = json!(format!("/var/run/netns/{namespace}"));
        }
    }
    let done = bundle.run();
    let left = Command::new("ip").args(["-n", &namespace, "-o", "link"]).output().unwrap().stdout;
    assert!(run(&format!("ip netns del {namespace}")));
    assert_eq!(done.code(), 0, "{}{}", done.text(), done.stderr);
    assert!(
        done.text().contains("192.0.2.7/24") && done.text().contains("default via 192.0.2.1"),
        "{}",
        done.text()
    );
    assert!(!String::from_utf8_lossy(&left).contains("hv-tap"), "the tap is gone");
}
