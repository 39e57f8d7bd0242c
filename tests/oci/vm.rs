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
    further_processes(&bundle);
    assert!(bundle.call("kill", &[&bundle.id, "WINCH"]).stderr.contains("signal 28"));
    bundle.call("kill", &[&bundle.id, "TERM"]).expect(0);
    wait_for(pid);
    assert_eq!(bundle.status(), "stopped");
    bundle.ok("delete");
    assert!(!bundle.has_cgroups());
}

/// exec in the guest: streams, status, rights, and a process of the host that stands for it.
fn further_processes(bundle: &Bundle) {
    let command = bundle.command("exec", &[&bundle.id, "sh", "-c", "cat; id -u; exit 3"]);
    let done = support::finish(command, b"typed\n");
    assert_eq!((done.code(), done.text().as_str()), (3, "typed\n0\n"), "{}", done.stderr);
    let absent = bundle.call("exec", &[&bundle.id, "nowhere"]);
    assert!(absent.code() == 127 && absent.stderr.contains("executable file not found"), "{}", absent.stderr);
    let words =
        ["--detach", "--pid-file", "other", &bundle.id, "sh", "-c", "echo $$ > /tmp/pid; exec sleep 1000"];
    let detached = bundle.call("exec", &words);
    assert_eq!(detached.code(), 0, "{}", detached.stderr);
    let pid: i32 = std::fs::read_to_string(bundle.file("other")).unwrap().parse().unwrap();
    let killed = bundle.exec("until test -s /tmp/pid; do :; done; kill -9 $(cat /tmp/pid)");
    assert_eq!(killed.code(), 0, "{}", killed.stderr);
    wait_for(pid);
}

#[test]
fn run_gives_the_guests_output_and_status_and_refuses_by_name() {
    let script = "echo $(id -u):$(id -g):$(id -G) $PWD $(umask) $(ulimit -n); \
                  grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t\\n'; exit 7";
    let Some(mut bundle) = machine(script) else { return };
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [5], "umask": 63});
    let kept = json!(["CAP_KILL"]);
    bundle.config["process"]["capabilities"] =
        json!({"bounding": kept, "effective": kept, "permitted": kept, "inheritable": kept, "ambient": kept});
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
        [{"names": ["mount"], "action": "SCMP_ACT_ERRNO"}]});
    bundle.config["process"]["cwd"] = json!("/tmp");
    let done = bundle.run();
    let expected = "1000:1000:1000 5 /tmp 0077 1024\nCapEff:0000000000000020NoNewPrivs:1Seccomp:2";
    assert_eq!((done.code(), done.text().as_str()), (7, expected), "{}", done.stderr);
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
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_NET_RAW"]);
    }
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
