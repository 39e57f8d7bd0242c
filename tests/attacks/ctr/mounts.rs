//! Attacks 9 to 15 and 17: links in the places that hv mounts on, and mounts that would reach the host.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

use crate::hostile::{Door, Hostile, Way, emulated};
use crate::support::Finished;

/// A link in a directory's place.
fn replace(image: &Path, name: &str, target: &Path) {
    fs::remove_dir(image.join(name)).unwrap();
    symlink(target, image.join(name)).unwrap();
}

fn without_mounts_below(config: &mut Value, top: &str) {
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with(top));
}

#[track_caller]
fn refused(way: Way, done: &Finished) {
    assert_ne!(done.status, Some(0), "{way:?}: {}", done.text());
}

#[test]
fn attack_09_cve_2019_16884_proc_is_mounted_on_no_link() {
    let hostile = Hostile::arranged(|image, outside| replace(image, "proc", outside));
    hostile.each_way("true", refused);
    // CVE-2019-19921, CVE-2023-27561: something else in its place, or mounted into it.
    for (destination, kind) in [("/proc", "tmpfs"), ("/proc/self", "tmpfs"), ("/proc/sys/net", "bind")] {
        let hostile = Hostile::new().doors(&[Door::Run]).config(move |config| {
            let mount = json!({"destination": destination, "type": kind, "source": "/tmp"});
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(mount);
        });
        hostile.each_way("true", refused);
    }
}

#[test]
fn attack_10_cve_2025_31133_what_hides_paths_is_hvs_own() {
    let hostile = Hostile::arranged(|image, outside| {
        symlink(outside.join("victim"), image.join("dev/null")).unwrap();
        symlink("/proc/sys/kernel/core_pattern", image.join("dev/zero")).unwrap();
    })
    .config(|config| without_mounts_below(config, "/dev"));
    // Of a user without nodes of its own, whose binds may not lie on links.
    let script = "echo x > /dev/null; cat /proc/timer_list /proc/keys 2> /dev/shm/x | wc -c; cat /proc/sys/kernel/core_pattern";
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    hostile.each_way(script, |way, done| {
        assert!(done.status != Some(0) || done.text() == format!("0\n{pattern}"), "{way:?}: {}", done.text());
    });
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern);
}

#[test]
fn attack_11_cve_2025_52565_the_console_lies_on_nothing_of_the_hosts() {
    for target in ["victim", "made"] {
        let hostile = Hostile::arranged(|image, outside| {
            symlink(outside.join(target), image.join("dev/console")).unwrap();
        })
        .doors(&[Door::Run])
        .config(|config| {
            // No /dev of its own: CVE-2026-88264.
            without_mounts_below(config, "/dev/");
            config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
            config["mounts"]
                .as_array_mut()
                .unwrap()
                .push(json!({"destination": "/dev/pts", "type": "devpts",
                "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}));
            config["process"]["terminal"] = json!(true);
        });
        for way in hostile.ways() {
            let bundle = hostile.bundle(way, &["sh", "-c", "stat -c %F /dev/console"]);
            let listener = std::os::unix::net::UnixListener::bind(bundle.dir.join("console")).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            fs::set_permissions(bundle.dir.join("console"), mode).unwrap();
            let done = bundle.create(&["--console-socket", "console"]);
            // Refused; or the terminal lies on the link itself, which leads nowhere any more.
            if done.status == Some(0) {
                let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", bundle.pid())).unwrap();
                assert!(mounts.contains(" /dev/console ") && !mounts.contains("victim"), "{way:?}: {mounts}");
            }
            drop(listener);
            hostile.outside_is_untouched(way);
        }
    }
}

/// What is at /proc is the image's: parameters of the kernel are written through hv's own procfs.
#[test]
fn attack_12_cve_2025_52881_writes_to_proc_go_to_procfs() {
    let hostile = Hostile::arranged(|image, outside| {
        fs::create_dir_all(image.join("fake/sys/net/ipv4")).unwrap();
        fs::create_dir_all(image.join("fake/self/attr")).unwrap();
        symlink(outside.join("victim"), image.join("fake/sys/net/ipv4/ip_forward")).unwrap();
        symlink(outside.join("victim"), image.join("fake/self/attr/exec")).unwrap();
    });
    let fake = hostile.image().join("fake");
    let hostile = hostile.doors(&[Door::Run]).config(move |config| {
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/proc" {
                *mount = json!({"destination": "/proc", "type": "bind", "source": fake, "options": ["bind"]});
            }
        }
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
        config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    });
    hostile.each_way("true", |way, done| {
        assert!(done.status == Some(0) || !way.rooted, "{way:?}: {}", done.stderr);
    });
}

#[test]
fn attack_13_cve_2026_41579_dev_and_other_places_lead_nowhere_outside() {
    let hostile = Hostile::arranged(|image, outside| {
        replace(image, "dev", outside);
        symlink("../../../../..", image.join("up")).unwrap();
    })
    .config(|config| {
        without_mounts_below(config, "/dev");
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/up/../up/made/by/hv", "type": "tmpfs", "source": "tmpfs"}));
    });
    hostile.each_way("true", |_, _| {});
    assert!(!Path::new("/made").exists());
}

/// A volume whose owner exchanges a directory with a link to the host, as fast as can be, while containers
/// start that mount below it.
#[test]
fn attack_14_cve_2021_30465_no_mount_lands_on_the_host_whoever_exchanges_links() {
    let starts = if emulated() { 4 } else { 40 };
    let hostile = Hostile::new().doors(&[Door::Run]);
    let volume = hostile.image().parent().unwrap().join(format!("volume-{}", std::process::id()));
    let _ = fs::remove_dir_all(&volume);
    fs::create_dir_all(volume.join("a")).unwrap();
    symlink(hostile.outside(), volume.join("b")).unwrap();
    let source = volume.clone();
    let hostile = hostile.config(move |config| {
        config["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/mnt", "source": source, "options": ["rbind", "rw"]}),
            json!({"destination": "/mnt/a", "type": "tmpfs", "source": "tmpfs"}),
            json!({"destination": "/mnt/a/deep/er", "type": "tmpfs", "source": "tmpfs"}),
        ]);
    });
    let (stop, started) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, volume.join("a"), CWD, volume.join("b"), RenameFlags::EXCHANGE).unwrap();
            }
        });
        let way = hostile.ways()[0];
        for _ in 0..starts {
            // Whether it starts depends on who is faster; where it mounts does not.
            let done = hostile.run(way, "cat /proc/self/mountinfo");
            started.fetch_add(u32::from(done.status == Some(0)), Ordering::Relaxed);
            let names: Vec<_> = fs::read_dir(hostile.outside()).unwrap().flatten().collect();
            // CVE-2024-45310: nor is a directory made there.
            assert_eq!(names.len(), 1, "{names:?}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!host.contains(hostile.outside().to_str().unwrap()), "{host}");
    println!("{started:?} of {starts} started");
    fs::remove_dir_all(volume).unwrap();
}

#[test]
fn attack_15_cve_2024_45310_mount_points_are_made_inside_only() {
    let hostile = Hostile::arranged(|image, outside| {
        symlink(outside, image.join("mnt/link")).unwrap();
        symlink(outside.join("dangling"), image.join("mnt/dangling")).unwrap();
    })
    .config(|config| {
        config["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/mnt/link/made", "type": "tmpfs", "source": "tmpfs"}),
            json!({"destination": "/mnt/link/file", "source": "/etc/hostname", "options": ["bind"]}),
            json!({"destination": "/mnt/dangling", "type": "tmpfs", "source": "tmpfs"}),
        ]);
        config["process"]["cwd"] = json!("/mnt/link/cwd");
    });
    hostile.each_way("pwd", |_, _| {});
}

#[test]
fn attack_17_mounts_do_not_spread_and_the_root_cannot_be_left() {
    let script = "mount -t tmpfs none /mnt 2> /dev/null && echo mounted; \
        mkdir -p /dev/shm/a; chroot /dev/shm/a /bin/true 2> /dev/null; cd /../../..; ls -d etc; \
        stat -c %i / /.. | sort -u | wc -l; grep -c 'shared:' /proc/self/mountinfo; ls /proc/1/root/home";
    Hostile::new().each_way(script, |way, done| {
        assert_eq!(
            done.text().lines().take(3).collect::<Vec<_>>(),
            ["etc", "1", "0"],
            "{way:?}: {}",
            done.stderr
        );
        let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!host.contains(" /mnt ") && !host.contains(" /dev/shm/a "), "{way:?}: {host}");
    });
}
