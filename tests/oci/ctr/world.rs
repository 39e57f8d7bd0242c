//! What the container sees: mounts, devices, namespaces, parameters of the kernel.

use std::fs;

use serde_json::json;

use crate::bundle::root_bundle;

#[test]
fn mounts_are_as_the_configuration_says() {
    let script = "cat /data/file; touch /data/x; echo rw=$?; touch /ro/x; echo ro=$?; cat /single; \
        cat /copied/data; stat -c %a /copied; grep ' /data ' /proc/self/mountinfo; touch /x; echo root=$?";
    let Some(mut bundle) = root_bundle(script) else { return };
    let source = bundle.file("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "from the host\n").unwrap();
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    // The image is shared between tests and read-only: a tmpfs is where places can be made.
    mounts.extend([
        json!({"destination": "/mnt", "type": "tmpfs", "options": ["size=1m"]}),
        json!({"destination": "/mnt/data", "source": source, "options": ["rbind", "nosuid", "nodev"]}),
        json!({"destination": "/mnt/ro", "source": source, "options": ["bind", "ro"]}),
        json!({"destination": "/mnt/deep/er/single", "source": source.join("file"), "options": ["bind"]}),
        json!({"destination": "/etc", "type": "tmpfs", "options": ["tmpcopyup", "ro"]}),
    ]);
    let script = "cat /mnt/data/file; touch /mnt/data/x; echo rw=$?; touch /mnt/ro/x; echo ro=$?; cat /mnt/deep/er/single; \
        cat /etc/data; touch /etc/x; echo etc=$?; grep ' /mnt/data ' /proc/self/mountinfo; touch /x; echo root=$?";
    bundle.config["process"]["args"] = json!(["sh", "-c", script]);
    let done = bundle.run();
    let text = done.text();
    for word in ["rw=0", "ro=1", "etc=1", "root=1", "from the image", "nosuid,nodev"] {
        assert!(text.contains(word), "{word}: {text} {}", done.stderr);
    }
    assert_eq!(text.matches("from the host").count(), 2, "{text}");
    assert!(source.join("x").exists());
}

#[test]
fn devices_are_there_and_others_cannot_be_used() {
    let script = "echo > /dev/null && head -c 3 /dev/zero | wc -c; stat -c '%a %u:%g %t:%T' /dev/fuse; \
        mknod /dev/shm/mem c 1 1 2>&1; mknod /dev/mem c 1 1; cat /dev/mem 2>&1 | head -c 100; cat /dev/fuse 2>&1 | head -c 100";
    let Some(mut bundle) = root_bundle(script) else { return };
    bundle.config["linux"]["devices"] = json!([{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 384, "uid": 1, "gid": 2}]);
    let sets = json!(["CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_SYS_RAWIO"]);
    bundle.config["process"]["capabilities"] =
        json!({"bounding": sets, "effective": sets, "permitted": sets});
    let done = bundle.run();
    let text = done.text();
    assert!(text.starts_with("3\n600 1:2 a:e5\n"), "{text} {}", done.stderr);
    assert_eq!(
        text.matches("Operation not permitted").count(),
        2,
        "mem and fuse are not in the rules: {text} {}",
        done.stderr
    );
    bundle.config["linux"]["resources"]["devices"] = json!([{"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}]);
    let text = bundle.run().text();
    assert_eq!(
        text.matches("Operation not permitted").count(),
        2,
        "fuse opens now, and reads EPERM itself: {text}"
    );
}

#[test]
fn parameters_hidden_paths_and_names() {
    let script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; hostname; cat /proc/sys/kernel/domainname; \
        cat /proc/timer_list | wc -c; echo 1 > /proc/sys/kernel/msgmax; ip addr show lo 2>/dev/null || cat /sys/class/net/lo/flags; \
        cat /proc/self/uid_map; readlink /proc/self/ns/time";
    let Some(mut bundle) = root_bundle(script) else { return };
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "8000"});
    bundle.config["domainname"] = json!("example");
    let done = bundle.run();
    let text = done.text();
    assert!(text.starts_with("1\n8000\nhv\nexample\n0\n"), "{text} {}", done.stderr);
    assert!(done.stderr.contains("Read-only"), "{}", done.stderr);
}

#[test]
fn namespaces_are_made_and_joined() {
    let Some(mut first) = root_bundle("sleep 1000") else { return };
    first.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000}});
    let all = ["pid", "network", "ipc", "uts", "mount", "cgroup", "time"];
    first.config["linux"]["namespaces"] = all.iter().map(|kind| json!({"type": kind})).collect();
    first.start();
    let uptime: f64 = first.exec("cut -d. -f1 /proc/uptime").expect(0).text().trim().parse().unwrap();
    assert!(uptime > 1_000_000.0, "{uptime}");
    let pid = first.state()["pid"].as_i64().unwrap();
    let mut second =
        root_bundle("for ns in net ipc uts pid time; do readlink /proc/self/ns/$ns; done; hostname; ps")
            .unwrap();
    let path = |file: &str| format!("/proc/{pid}/ns/{file}");
    second.config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "network", "path": path("net")},
        {"type": "ipc", "path": path("ipc")}, {"type": "uts", "path": path("uts")}, {"type": "pid", "path": path("pid")},
        {"type": "time", "path": path("time")}]);
    second.config.as_object_mut().unwrap().remove("hostname");
    let done = second.run();
    let text = done.expect(0).text();
    for file in ["net", "ipc", "uts", "pid", "time"] {
        let theirs = fs::read_link(path(file)).unwrap();
        assert!(text.contains(theirs.to_str().unwrap()), "{file}: {text}");
    }
    assert!(text.contains("sleep 1000"), "the other's processes are seen: {text}");
}

#[test]
fn ids_are_mapped() {
    let Some(mut bundle) = root_bundle(
        "cat /proc/self/uid_map; id -u; touch /dev/shm/x; stat -c %u /dev/shm/x; echo > /dev/null; echo $?",
    ) else {
        return;
    };
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user"}));
    for field in ["uidMappings", "gidMappings"] {
        bundle.config["linux"][field] = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    }
    bundle.config["process"]["user"] = json!({"uid": 33, "gid": 33});
    let done = bundle.run();
    let text = done.text();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "65536", "33", "33", "0"], "{text} {}", done.stderr);
}

#[test]
fn ids_of_one_mount_are_mapped() {
    let Some(mut bundle) = root_bundle("stat -c %u:%g /tmp/file; touch /tmp/new; stat -c %u /tmp/new") else {
        return;
    };
    let data = bundle.file("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "").unwrap();
    std::os::unix::fs::chown(&data, Some(7), Some(7)).unwrap();
    std::os::unix::fs::chown(data.join("file"), Some(7), Some(8)).unwrap();
    let map = json!([{"containerID": 7, "hostID": 1007, "size": 2}]);
    bundle.config["mounts"].as_array_mut().unwrap().push(json!({"destination": "/tmp", "source": data,
        "options": ["rbind", "ridmap"], "uidMappings": map, "gidMappings": map}));
    bundle.config["process"]["user"] = json!({"uid": 1007, "gid": 1007});
    let done = bundle.run();
    if done.stderr.contains("maps no ids") {
        println!("skipped: the file system of the temporary directory maps no ids");
        return;
    }
    assert_eq!((done.code(), done.text().as_str()), (0, "1007:1008\n1007\n"), "{}", done.stderr);
    let new = std::fs::metadata(data.join("new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&new), 7, "on the host it is the other's");
}
