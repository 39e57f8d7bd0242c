//! Attacks 6 and 18 to 20: what of the host's kernel shows in a container.

use std::fs;

use serde_json::json;

use crate::hostile::Hostile;

#[test]
fn attack_06_cve_2023_25809_control_groups_cannot_be_written() {
    let script = "for file in $(find /sys/fs/cgroup -type f 2> /dev/null | head -n 60); do \
        (echo 1 > $file) 2> /dev/null && echo written $file; done; \
        for dir in $(find /sys/fs/cgroup -type d 2> /dev/null | head -n 20); do mkdir $dir/x 2> /dev/null && echo made $dir; done; \
        mount -o remount,rw /sys/fs/cgroup 2> /dev/null && echo remounted; echo done";
    Hostile::new().each_way_prints(script, "done\n");
}

#[test]
fn attack_18_cve_2022_0492_no_release_agent_can_be_set() {
    let script = "find /sys/fs/cgroup -name release_agent -o -name notify_on_release | while read f; do \
        (echo x > $f) 2> /dev/null && echo written $f; done; \
        mkdir /dev/shm/c; for kind in memory ''; do \
        unshare -UrC sh -c \"mount -t cgroup -o '$kind' none /dev/shm/c && echo /x > /dev/shm/c/release_agent && echo set $kind\" 2> /dev/null; \
        unshare -C sh -c \"mount -t cgroup -o '$kind' none /dev/shm/c && echo /x > /dev/shm/c/release_agent && echo set $kind\" 2> /dev/null; \
        done; echo done";
    Hostile::new().each_way_prints(script, "done\n");
}

#[test]
fn attack_19_devices_that_are_made_inside_do_not_work() {
    let hostile = Hostile::new().config(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        // Even where the mount allows devices.
        mounts.push(json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["dev"]}));
    });
    let script = "for dir in /dev /dev/shm /mnt /tmp; do \
        mknod $dir/disk b 8 0; mknod $dir/root b 254 0; mknod $dir/loop b 7 0; mknod $dir/mem c 1 1; mknod $dir/kvm c 10 232; \
        for node in disk root loop mem kvm; do test -e $dir/$node || continue; \
        (head -c 1 $dir/$node > /dev/null) && echo read $dir/$node; (: > $dir/$node) && test ! -f $dir/$node && echo opened $dir/$node; \
        done; done 2> /dev/null; echo done";
    hostile.each_way_prints(script, "done\n");
}

#[test]
fn attack_20_the_kernels_knobs_are_hidden_or_read_only() {
    let knobs = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hotplug",
        "/proc/sys/vm/panic_on_oom",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/proc/bus/pci/00/00.0",
        "/sys/kernel/uevent_helper",
        "/sys/kernel/debug/sched/features",
        "/sys/power/state",
        "/sys/class/thermal/thermal_zone0/mode",
        "/sys/module/kernel/parameters/panic",
        "/sys/fs/cgroup/release_agent",
    ];
    let contents: Vec<_> = knobs.iter().map(|path| fs::read(path).ok()).collect();
    let secrets =
        "/proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/interrupts /proc/latency_stats";
    let trees = "/proc/acpi /proc/asound /proc/scsi /sys/firmware /sys/devices/virtual/powercap";
    let script = format!(
        "for knob in {}; do (cat $knob > /dev/shm/x; cat /dev/shm/x > $knob || echo > $knob) 2> /dev/null && echo written $knob; done; \
         for file in {secrets}; do head -c 1 $file 2> /dev/null | wc -c; done | grep -v 0; \
         for dir in {trees}; do ls -A $dir 2> /dev/null; done; \
         ls -d /sys/devices/system/cpu/cpu*/thermal_throttle/* 2> /dev/null; echo done",
        knobs.join(" ")
    );
    // The specification's template does not name the throttle counters, as runc's does not.
    let hostile = Hostile::new().config(|config| {
        let masked = config["linux"]["maskedPaths"].as_array_mut().unwrap();
        masked.extend((0..64).map(|cpu| json!(format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"))));
    });
    hostile.each_way_prints(&script, "done\n");
    assert_eq!(contents, knobs.iter().map(|path| fs::read(path).ok()).collect::<Vec<_>>());
}
