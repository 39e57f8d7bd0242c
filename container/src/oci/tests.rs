//! From `config.json` to a plan: nothing panics, and what is refused is refused by name.

use hv_common::cgroup::Layout;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A configuration that asks for much.
pub(super) fn full() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "unknown": {"field": 1},
        "process": {
            "terminal": true, "consoleSize": {"height": 24, "width": 80},
            "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3]},
            "args": ["sh"], "env": ["A=b"], "cwd": "/work",
            "capabilities": {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}],
            "noNewPrivileges": true, "oomScoreAdj": 5,
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
            "scheduler": {"policy": "SCHED_BATCH", "nice": 1},
            "execCPUAffinity": {"initial": "0", "final": "0-1"},
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "box", "domainname": "example",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "hidepid=2"]},
            {"destination": "/dev", "type": "tmpfs", "options": ["mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro"]},
            {"destination": "/data", "source": "/srv", "options": ["rbind", "rprivate", "rro"]},
        ],
        "hooks": {"createRuntime": [{"path": "/bin/true", "timeout": 5}]},
        "annotations": {"a": "b"},
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "network"},
                {"type": "ipc"}, {"type": "cgroup"}, {"type": "user"}, {"type": "time"}],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "timeOffsets": {"monotonic": {"secs": 5}},
            "devices": [{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 438}],
            "cgroupsPath": "/a/b",
            "resources": {"memory": {"limit": 5000000}, "devices": [{"allow": false, "access": "rwm"}]},
            "sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmax": "5"},
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]},
            "rootfsPropagation": "rslave",
            "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
            "personality": {"domain": "LINUX32"},
        },
    })
}

pub(super) fn facts() -> Facts {
    Facts { privileged: true, makes_nodes: true, layout: Layout::default() }
}

fn lines(config: &Value) -> Result<Vec<String>, Error> {
    let config = parse(config.to_string().as_bytes())?;
    Bundle { dir: "/bundle".into(), config }.plan(&facts())
}

/// Sets what is at a pointer, of the object that is there.
pub(super) fn set(config: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = if parent.is_empty() { config } else { config.pointer_mut(parent).unwrap() };
    parent[name] = value;
}

#[test]
fn a_full_configuration_becomes_a_plan() {
    let lines = lines(&full()).unwrap();
    for step in [
        "mount proc on /proc (hidepid=2)",
        "bind /srv to /data",
        "make device 10:229 at /dev/fuse",
        "make device 1:3 at /dev/null",
        "make the directory /work",
        "hide /proc/kcore",
        "make /proc/sys read-only",
        "write `1` to /proc/sys/net/ipv4/ip_forward",
        "make the root read-only",
        "set the execution domain",
        "set the host name box",
    ] {
        assert!(lines.iter().any(|line| line == step), "{step}: {lines:#?}");
    }
    let at = |start: &str| lines.iter().position(|line| line.starts_with(start)).unwrap();
    let pivot = at("pivot");
    let reaches_the_host = ["mount", "bind", "make", "link", "hide", "write", "take"];
    assert!(
        lines[pivot + 1..].iter().all(|line| !reaches_the_host.iter().any(|word| line.starts_with(word)))
    );
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    for (pointer, value, field) in [
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        ("/root", json!({}), "path"),
        ("/root", json!({"path": ""}), "root"),
        ("/vm", json!({}), "vm"),
        ("/process/args", json!([]), "process.args"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/user/username", json!("ann"), "username"),
        ("/process/oomScoreAdj", json!(2000), "oomScoreAdj"),
        ("/process/rlimits", json!([{"type": "RLIMIT_X", "soft": 1, "hard": 1}]), "none"),
        ("/hostname", json!("x".repeat(65)), "hostname"),
        (
            "/mounts",
            json!([{"destination": "/x", "type": "bind", "source": "/y", "options": ["bind", "size=5"]}]),
            "size",
        ),
        ("/mounts", json!([{"destination": "/x", "type": "bind"}]), "source"),
        ("/mounts", json!([{"destination": "/"}]), "mounts"),
        ("/mounts", json!([{"destination": "/proc/sys", "type": "tmpfs"}]), "/proc"),
        ("/mounts", json!([{"destination": "/a/../proc/x", "source": "/y", "options": ["bind"]}]), "/proc"),
        (
            "/mounts",
            json!([{"destination": "/x", "source": "/y", "options": ["bind"],
                "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}]),
            "together",
        ),
        (
            "/mounts",
            json!([{"destination": "/x", "type": "tmpfs", "options": ["idmap"]}]),
            "bind mounts alone",
        ),
        ("/hooks", json!({"poststop": [{"path": "relative"}]}), "hooks"),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "mount"}]), "twice"),
        ("/linux/namespaces", json!([{"type": "pid"}]), "mount"),
        ("/linux/namespaces", json!([{"type": "moon"}, {"type": "mount"}]), "moon"),
        ("/linux/uidMappings", json!([]), "uidMappings"),
        (
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 4294967295u32, "size": 2}]),
            "uidMappings",
        ),
        ("/linux/sysctl", json!({"kernel.core_pattern": "|/x"}), "core_pattern"),
        ("/linux/sysctl", json!({"net.../../x": "1"}), "sysctl"),
        ("/linux/intelRdt", json!({}), "intelRdt"),
        ("/linux/memoryPolicy", json!({}), "memoryPolicy"),
        ("/linux/netDevices", json!({"eth0": {}}), "netDevices"),
        ("/linux/mountLabel", json!("x"), "mountLabel"),
        ("/linux/rootfsPropagation", json!("sideways"), "rootfsPropagation"),
        ("/linux/personality", json!({"domain": "BSD"}), "personality"),
        ("/linux/devices", json!([{"type": "x", "path": "/dev/x"}]), "devices"),
        ("/linux/devices", json!([{"type": "c", "path": "/dev/x", "major": -1}]), "devices"),
        ("/linux/timeOffsets", json!({"realtime": {"secs": 1}}), "timeOffsets"),
        ("/linux/seccomp", json!({"defaultAction": "X"}), ""),
    ] {
        let mut config = full();
        set(&mut config, pointer, value);
        // The filter and limits are compiled with the process: for these the reading alone may pass.
        match lines(&config) {
            Ok(_) => assert!(["none", ""].contains(&field), "{pointer} was taken"),
            Err(error) => assert!(error.to_string().contains(field), "{pointer}: {error}"),
        }
    }
}

#[test]
fn null_is_as_good_as_nothing() {
    let mut config = full();
    for pointer in
        ["/hooks", "/annotations", "/mounts", "/linux/devices", "/process/rlimits", "/process/oomScoreAdj"]
    {
        set(&mut config, pointer, Value::Null);
    }
    lines(&config).unwrap();
}

/// Odd values for any field.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        prop_oneof![
            Just("/"),
            Just(".."),
            Just("/../.."),
            Just("a\0b"),
            Just("/proc/self/exe"),
            Just("rbind")
        ]
        .prop_map(Value::from),
        prop::collection::vec("[a-z/.=,]{0,8}", 0..4).prop_map(Value::from),
        Just(json!({})),
        Just(json!([{}])),
    ]
}

/// Every pointer into a value.
fn pointers(value: &Value, here: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            let below = format!("{here}/{}", key.replace('~', "~0").replace('/', "~1"));
            found.push(below.clone());
            pointers(value, &below, found);
        }),
        Value::Array(list) => list.iter().enumerate().for_each(|(index, value)| {
            let below = format!("{here}/{index}");
            found.push(below.clone());
            pointers(value, &below, found);
        }),
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_configuration_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), odd()), 1..4)) {
        let mut config = full();
        for (index, value) in changes {
            let mut all = Vec::new();
            pointers(&config, "", &mut all);
            if all.is_empty() {
                break;
            }
            let pointer = &all[index.index(all.len())];
            *config.pointer_mut(pointer).unwrap() = value;
        }
        if let Ok(lines) = lines(&config) {
            prop_assert!(lines.iter().any(|line| line.starts_with("pivot")));
        }
    }

    #[test]
    fn places_stay_inside(path in "[a-z./]{0,40}") {
        let place = mounts::place("x", &path).unwrap();
        let text = place.path.to_str().unwrap().to_owned();
        prop_assert!(!text.starts_with('/') && !text.split('/').any(|part| part == ".." || part.is_empty()));
        prop_assert_eq!(place.parents.len(), if text == "." { 0 } else { text.split('/').count() });
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
        let _ = parse_process(&bytes);
        let _ = parse_resources(&bytes);
    }
}
