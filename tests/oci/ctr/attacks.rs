//! What a hostile bundle or image tries, by the names of the flaws that others had.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::bundle::root_bundle;

/// An image whose files a test may arrange.
fn hostile(bundle: &mut crate::bundle::Bundle) -> std::path::PathBuf {
    let root = bundle.file("hostile");
    let from = crate::support::image::directory();
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(&root).status().unwrap();
    assert!(copied.success());
    bundle.config["root"] = json!({"path": root, "readonly": false});
    root
}

#[test]
fn cve_2019_5736_the_program_file_cannot_be_written() {
    let Some(mut bundle) = root_bundle("sleep 1000") else { return };
    hostile(&mut bundle);
    let before = fs::metadata(crate::support::program()).unwrap();
    for args in [json!(["/proc/self/exe", "oci", "--version"]), json!(["/bin/evil"])] {
        fs::write(bundle.file("hostile/bin/evil"), "#!/proc/self/exe\n").unwrap();
        fs::set_permissions(
            bundle.file("hostile/bin/evil"),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        bundle.config["process"]["args"] = args;
        bundle.run();
    }
    bundle.config["process"]["args"] = json!(["sh", "-c", "sleep 1000"]);
    bundle.start();
    // Whoever is asked to run it opens what it finds for writing.
    let script =
        "for p in /proc/[0-9]*; do (echo x > $p/exe) 2>/dev/null && echo written $p; done; echo done";
    assert_eq!(bundle.exec(script).text(), "done\n");
    let after = fs::metadata(crate::support::program()).unwrap();
    assert_eq!((before.len(), before.modified().unwrap()), (after.len(), after.modified().unwrap()));
}

#[test]
fn cve_2024_21626_no_directory_of_the_host_is_the_working_directory() {
    let Some(mut bundle) = root_bundle("pwd; ls") else { return };
    for fd in 3..20 {
        bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{fd}"));
        let done = bundle.run();
        assert_ne!(done.code(), 0, "{fd}: {}", done.text());
    }
    bundle.config["process"]["cwd"] = json!("/");
    bundle.config["process"]["args"] = json!(["sleep", "1000"]);
    bundle.start();
    for fd in 3..12 {
        let done = bundle.call("exec", &["--cwd", &format!("/proc/self/fd/{fd}"), &bundle.id, "ls"]);
        assert_ne!(done.code(), 0, "{fd}: {}", done.text());
    }
}

#[test]
fn cve_2019_16884_links_in_the_place_of_proc_sys_and_dev_lead_nowhere() {
    let Some(mut bundle) = root_bundle("true") else { return };
    let root = hostile(&mut bundle);
    let outside = bundle.file("outside");
    fs::create_dir(&outside).unwrap();
    fs::remove_dir(root.join("proc")).unwrap();
    symlink(&outside, root.join("proc")).unwrap();
    assert_ne!(bundle.run().code(), 0, "/proc is a link");
    fs::remove_file(root.join("proc")).unwrap();
    fs::create_dir(root.join("proc")).unwrap();
    // CVE-2026-41579: /dev is one. It leads to a place inside, whatever it says.
    fs::remove_dir(root.join("dev")).unwrap();
    symlink(&outside, root.join("dev")).unwrap();
    symlink("../../../../..", root.join("up")).unwrap();
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({"destination": "/up/../up/made/by/hv", "type": "tmpfs"}));
    bundle.run();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "CVE-2024-45310: nothing is made on the host");
    assert!(!std::path::Path::new("/made").exists());
}

#[test]
fn cve_2025_31133_what_hides_paths_is_hvs_own() {
    let Some(mut bundle) =
        root_bundle("cat /proc/timer_list /proc/sched_debug 2>/dev/null | wc -c; ls -l /dev/null")
    else {
        return;
    };
    let root = hostile(&mut bundle);
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    symlink("/proc/sys/kernel/core_pattern", root.join("dev/null")).unwrap();
    let text = bundle.run().text();
    assert!(text.starts_with("0\n") && text.contains("1,   3"), "{text}");
}

#[test]
fn cve_2022_0492_no_release_agent_of_v1_can_be_written() {
    let script = "find /sys/fs/cgroup -name release_agent -o -name notify_on_release | while read f; do (echo x > $f) 2>/dev/null && echo written $f; done; \
        touch /sys/fs/cgroup/x 2>/dev/null && echo made; echo done";
    let Some(bundle) = root_bundle(script) else { return };
    assert_eq!(bundle.run().text(), "done\n");
}

#[test]
fn nothing_of_the_host_is_left_in_a_waiting_process() {
    let Some(bundle) = root_bundle("true") else { return };
    bundle.create();
    let pid = bundle.state()["pid"].as_i64().unwrap();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let harmless = target.to_str().is_some_and(|target| target.starts_with("socket:"));
        assert!(number < 3 || harmless, "{number}: {}", target.display());
    }
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), std::path::Path::new("/"));
}
