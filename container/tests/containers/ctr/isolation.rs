//! What the wall stops: each test names the way out that it tries.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use crate::support::*;
use hv_container::Namespaces;

/// A field of /proc/self/status of the workload itself.
fn status_field(name: &str) -> String {
    let text = run(spec(image(), &["cat", "/proc/self/status"])).ok();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_string()
}

/// Every path below `root` with what a run could change of it.
fn inventory(root: &Path) -> Vec<(String, u32, i64, u64)> {
    let mut found = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            found.push((path.display().to_string(), meta.mode(), meta.ctime_nsec(), meta.size()));
            if meta.is_dir() {
                dirs.push(path);
            }
        }
    }
    found.sort();
    found
}

both_ways! {
    fn capabilities_are_the_fourteen_and_none_to_inherit() {
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(status_field(set), "00000000a80425fb", "{set}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(status_field(set), "0000000000000000", "{set}: CVE-2022-24769");
        }
        assert_eq!(status_field("NoNewPrivs"), "1");
        assert_eq!(status_field("Seccomp"), "2");
    }

    fn new_namespaces_and_mounts_are_refused() {
        for script in [
            "unshare -U true", "unshare -m true", "unshare -n true", "mount -t tmpfs none /tmp", "umount /proc",
            "mount -o remount,rw /sys", "hostname other", "mount -t cgroup -o memory none /tmp",
        ] {
            let outcome = sh(script);
            assert_ne!(outcome.exit.status(), 0, "{script}");
            let refused = ["not permitted", "denied", "must be superuser"].iter().any(|word| outcome.stderr.contains(word));
            assert!(refused, "{script}: {outcome:?}");
        }
    }

    fn only_the_three_streams_are_open() {
        // A descriptor of the host's root that hv's caller left open, without close-on-exec.
        let leaked = keep(rustix::fs::open("/", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap());
        assert!(leaked.as_raw_fd() > 2);
        let open = run(spec(image(), &["ls", "/proc/self/fd"])).ok();
        assert_eq!(open, "0\n1\n2\n3\n", "3 is that of ls itself: CVE-2024-21626");
        let of_init = sh("ls /proc/1/fd").stdout;
        assert!(of_init.is_empty() || of_init == "0\n", "its pipe to the monitor, which nobody else can open: {of_init}");
    }

    fn working_directories_outside_are_refused() {
        let _leaked = keep(rustix::fs::open("/", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap());
        for number in 3..20 {
            let mut spec = spec(image(), &["ls"]);
            spec.process.cwd = format!("/proc/self/fd/{number}").into();
            let error = start_on(&Namespaces::new(), spec).err().expect("CVE-2024-21626");
            assert_eq!(error.status, 125);
        }
    }

    fn hidden_paths_are_empty_and_read_only_ones_are_not_writable() {
        for dir in ["/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"] {
            assert_eq!(sh(&format!("test ! -e {dir} || ls -A {dir}")).ok(), "", "{dir}");
        }
        for file in ["interrupts", "kcore", "keys", "latency_stats", "sched_debug", "timer_list", "timer_stats"] {
            let script = format!("test ! -e /proc/{file} || head -c 1 /proc/{file} | wc -c");
            let out = sh(&script).ok();
            assert!(out.is_empty() || out.trim() == "0", "{file}: {out}");
        }
        for path in ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory",
                     "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper", "/sys/power/state"] {
            let outcome = sh(&format!("test ! -e {path} || echo 0 > {path}"));
            let missing = !Path::new(path).exists();
            assert!(missing || outcome.exit.status() != 0, "{path} was written");
        }
    }

    fn control_groups_are_read_only() {
        let script = "find=$(ls -d /sys/fs/cgroup/* 2>/dev/null | head -n 1); test -n \"$find\" || exit 3; \
            for file in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/notify_on_release /sys/fs/cgroup/*/cgroup.procs \
                /sys/fs/cgroup/cgroup.procs; do \
              test -e $file || continue; (echo 1 > $file) 2>/dev/null && echo written $file; done; \
            mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x 2>/dev/null && echo made; exit 0";
        assert_eq!(sh(script).ok(), "", "CVE-2022-0492");
    }

    fn device_nodes_made_inside_do_not_work() {
        let script = "for dir in /dev /tmp /dev/shm /; do mknod $dir/disk b 7 0 2>/dev/null; mknod $dir/mem c 1 1 2>/dev/null; \
            mknod $dir/kvm c 10 232 2>/dev/null; for node in disk mem kvm; do test -e $dir/$node || continue; \
            head -c 1 $dir/$node > /dev/null 2>&1 && echo $dir/$node opened; done; done; exit 0";
        assert_eq!(sh(script).ok(), "");
    }

    fn the_usual_devices_work() {
        let script = "echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; \
            head -c 3 /dev/random | wc -c; echo x > /dev/full || echo full; \
            for link in fd stdin stdout stderr ptmx; do readlink /dev/$link; done; touch /dev/shm/a /dev/mqueue && echo ok; ls -d /dev/console";
        let out = sh(script);
        assert_eq!(out.stdout, "3\n3\n3\nfull\n/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\nok\n", "{out:?}");
    }

    fn processes_network_and_names_are_its_own() {
        assert_eq!(sh("echo $$; hostname").ok(), "2\nbox\n");
        let interfaces = sh("ip -o link | wc -l; ip -o addr | grep -c 127.0.0.1").ok();
        assert_eq!(interfaces, "1\n1\n");
        for namespace in ["mnt", "pid", "net", "uts", "ipc", "cgroup"] {
            let inside = sh(&format!("readlink /proc/self/ns/{namespace}")).ok();
            let outside = std::fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
            assert_ne!(inside.trim(), outside.to_str().unwrap());
        }
    }

    fn pid_1_cannot_be_reached() {
        let script = "for file in exe root cwd environ maps mem fd/0; do \
            head -c 1 /proc/1/$file > /dev/null 2>&1 && echo read $file; done; \
            cat /proc/1/cmdline | head -c 99; readlink /proc/1/exe /proc/1/root; kill -KILL 1; kill -TERM 1; echo alive";
        let out = sh(script).stdout.replace('\0', "");
        assert_eq!(out, "hv-initalive\n", "CVE-2019-5736, and no arguments of the host");
    }

    fn hv_itself_cannot_be_executed_by_the_image() {
        use std::os::unix::fs::PermissionsExt;
        let own = make_image();
        let script = own.path().join("bin/evil");
        for interpreter in ["/proc/self/exe", "/proc/1/exe", "/proc/2/exe", "/proc/thread-self/exe", "/link"] {
            let _ = std::fs::remove_file(own.path().join("link"));
            symlink("/proc/self/exe", own.path().join("link")).unwrap();
            std::fs::write(&script, format!("#!{interpreter}\n")).unwrap();
            std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
            let error = start_on(&Namespaces::new(), spec(own.path(), &["/bin/evil"])).err().expect("CVE-2019-5736");
            assert_eq!(error.status, 127, "{}", chain(&error));
            let error = start_on(&Namespaces::new(), spec(own.path(), &[interpreter])).err().expect("CVE-2019-5736");
            assert_eq!(error.status, 127, "{}", chain(&error));
        }
    }

    fn the_image_is_unchanged() {
        let own = make_image();
        // Everybody may write to it, were it not for the wall.
        let before = inventory(own.path());
        let script = "echo evil > /etc/passwd; rm -r /home; touch /new; mkdir /dir; chmod 777 /bin; cat /etc/passwd";
        assert_eq!(run(spec(own.path(), &["sh", "-c", script])).ok(), "evil\n");
        assert_eq!(inventory(own.path()), before);
    }

    fn missing_mount_points_are_made_above_the_image() {
        let own = make_image();
        for dir in ["proc", "sys", "dev"] {
            std::fs::remove_dir(own.path().join(dir)).unwrap();
        }
        assert_eq!(run(spec(own.path(), &["sh", "-c", "test -e /proc/self && test -e /dev/null"])).exit.status(), 0);
        assert!(!own.path().join("proc").exists());
    }

    fn links_in_place_of_mount_points_are_refused() {
        for name in ["proc", "sys", "dev"] {
            let own = make_image();
            let victim = tempfile::tempdir().unwrap();
            std::fs::remove_dir(own.path().join(name)).unwrap();
            symlink(victim.path(), own.path().join(name)).unwrap();
            let error = start_on(&Namespaces::new(), spec(own.path(), &["true"])).err().expect("CVE-2019-19921, CVE-2026-41579");
            let text = chain(&error);
            assert!(text.contains(&format!("/{name}")) && text.contains("symbolic link"), "{text}");
            assert_eq!(std::fs::read_dir(victim.path()).unwrap().count(), 0);
        }
    }

    fn mounts_do_not_reach_the_host() {
        let before = host_mounts();
        let mut running = start(spec(image(), &["sh", "-c", "echo; cat"]));
        running.line();
        assert_eq!(host_mounts(), before);
        running.finish();
        assert_eq!(host_mounts(), before);
    }

    fn the_mount_table_tells_nothing_about_the_host() {
        let table = sh("cat /proc/self/mountinfo").ok();
        let places: Vec<&str> = table.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
        assert_eq!(places.iter().filter(|place| **place == "/").count(), 1, "the old root is gone: {table}");
        for place in &places {
            let known = ["/proc", "/sys", "/dev"].iter().any(|top| place.starts_with(top)) || *place == "/";
            assert!(known, "{table}");
        }
        let root = table.lines().find(|line| line.contains(" / / ")).unwrap();
        assert!(root.contains("lowerdir=lower,upperdir=upper,workdir=work"), "{root}");
        assert!(!table.contains(image().to_str().unwrap()), "{table}");
        assert!(!table.contains("shared:") && !table.contains("master:"), "{table}");
    }

    fn leaving_the_root_twice_leads_nowhere() {
        // A second chroot forgets the first one, unless the root is a mount of one's own.
        let script = "mkdir /a; chroot /a /bin/true 2>/dev/null; cd /../../..; ls -d etc; cat /proc/1/root/etc/hostname 2>/dev/null; \
            stat -c %i / /.. | sort -u | wc -l";
        assert_eq!(sh(script).stdout, "etc\n1\n");
    }
}

#[test]
fn groups_are_only_those_asked_for() {
    if !is_root() && !skipped("without root there is one group") {
        return;
    }
    let mut plain = spec(image(), &["id", "-G"]);
    plain.process.user = Some("1234:5678".into());
    assert_eq!(run(plain).ok(), "5678\n", "CVE-2022-2989");
}
