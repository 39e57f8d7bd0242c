//! `hv kernel`, and disks that are full: each run has a small store of its own, in a mount namespace.

mod support;

use std::path::PathBuf;
use std::process::Command;

use support::{Finished, finish, image};

/// Runs a script in which `$HV`, `$KERNEL` and `$IMAGE` are set, with empty file systems of these sizes in
/// the places of root's store and cache. None if this user cannot mount, with the reason printed.
fn private(store: &str, cache: &str, script: &str) -> Option<Finished> {
    let Some(kernel) = std::env::var_os("HV_TEST_KERNEL").map(PathBuf::from) else {
        println!("skipped: HV_TEST_KERNEL is not set");
        return None;
    };
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root to mount file systems");
        return None;
    }
    let mounts = format!(
        "set -e; mount -t tmpfs -o size={store} none /var/lib; mount -t tmpfs -o size={cache} none /var/cache; \
         export HOME=/nowhere; set +e; "
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &(mounts + script)]);
    command.env("HV", support::program()).env("KERNEL", kernel).env("IMAGE", image::directory());
    Some(finish(command, b""))
}

#[test]
fn a_kernel_is_added_chosen_and_removed() {
    let script = "$HV kernel add $KERNEL --name one && $HV kernel add $KERNEL --name two && \
                  $HV kernel default one && $HV kernel ls && $HV vm --dry-run $IMAGE -- true && \
                  $HV kernel rm one && echo removed && $HV kernel ls";
    let Some(done) = private("100m", "10m", script) else { return };
    let text = done.expect(0).text();
    let (before, after) = text.split_once("removed\n").unwrap();
    let has = |text: &str, start: &str| text.lines().any(|line| line.starts_with(start));
    assert!(has(before, "* one ") && has(before, "  two "), "{text}");
    assert!(before.contains("/var/lib/hv/kernels/one"), "--kernel may be left out: {text}");
    assert!(!after.contains("one") && after.contains(" two "), "{text}");
}

#[test]
fn what_is_no_kernel_does_not_enter_the_store() {
    let script = "$HV kernel add /etc/passwd --name one; echo $?; find /var/lib -type f -size +0";
    let Some(done) = private("1m", "1m", script) else { return };
    let done = done.expect(0);
    assert_eq!(done.text(), "125\n");
    assert!(done.stderr.contains("/etc/passwd"), "{}", done.stderr);
}

#[test]
fn a_full_disk_refuses_a_kernel_and_keeps_nothing_of_it() {
    let script = "$HV kernel add $KERNEL --name one; echo $?; find /var/lib -type f -size +0";
    let Some(done) = private("1m", "1m", script) else { return };
    let done = done.expect(0);
    assert_eq!(done.text(), "125\n");
    assert!(done.stderr.contains("No space left"), "{}", done.stderr);
}

#[test]
fn a_full_disk_refuses_to_pack_a_directory_and_keeps_nothing_of_it() {
    let script =
        "$HV vm --kernel $KERNEL $IMAGE -- true; echo $?; find /var/cache/hv/scratch -type f | wc -l";
    let Some(done) = private("1m", "64k", script) else { return };
    let done = done.expect(0);
    assert_eq!(done.text(), "125\n0\n");
    assert!(done.stderr.contains("No space left") && done.stderr.contains("pack"), "{}", done.stderr);
}

#[test]
fn a_full_disk_for_the_figures_is_told() {
    let mut command = support::hv(&["ctr"]);
    command.arg(image::directory()).args(["--stats", "/dev/full", "--", "true"]);
    assert!(finish(command, b"").expect(125).stderr.contains("/dev/full"));
}
