//! hv is killed at every step: the next command leaves nothing of it.
//!
//! A plan's steps are system calls, and there are more of these than of steps: so hv is killed before each
//! call of the process that applies the plan, and at some of its monitor's.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use hv_common::Kind;
use hv_common::cgroup::{Layout, places};

use crate::hostile::{Door, Hostile, Way, emulated};
use crate::support::{finish, image};
use crate::trace::{Go, trace};

/// How many calls apart hv is killed: (in the container's process, in the monitor).
fn strides() -> (usize, usize) {
    if emulated() { (250, 500) } else { (1, 10) }
}

/// One start, that can be repeated.
struct Start<'a> {
    /// hv, started under this name.
    command: &'a dyn Fn(&str) -> Command,
    /// The next command of a user, to the end of which everything is to be gone.
    next: &'a dyn Fn(&str),
}

impl Start<'_> {
    /// Kills it everywhere; how many times, and how many calls the container's process made at most.
    fn kill_everywhere(&self, what: &str, sparse: usize) -> (usize, usize) {
        let (mut total, mut most) = (0, 0);
        for monitor in [false, true] {
            let stride = if monitor { strides().1 } else { strides().0 } * sparse;
            for number in (0..).step_by(stride) {
                let name = format!("killed-{what}-{}-{total}", std::process::id());
                let mut count = 0;
                let traced = trace((self.command)(&name), true, |call| {
                    let ours = call.monitor == monitor;
                    count += usize::from(ours);
                    if ours && count == number + 1 { Go::Kill } else { Go::On }
                });
                // What the kernel kills with hv, it kills in its own time.
                wait_until(|| !traced.pids.iter().any(|pid| is_alive(*pid) && !waits_at_gate(*pid)), &name);
                (self.next)(&name);
                assert_gone(
                    &name,
                    &traced.pids,
                    &format!("{what}: killed at call {number} (monitor: {monitor})"),
                );
                if count <= number {
                    // It has come to its end before.
                    break;
                }
                total += 1;
                most = if monitor { most } else { count };
            }
        }
        (total, most)
    }
}

/// Everything on this host that names the sandbox, and each of its processes.
#[track_caller]
fn assert_gone(name: &str, pids: &BTreeSet<i32>, when: &str) {
    let mut found: Vec<PathBuf> = places(&Layout::detect().unwrap(), &name.to_string().try_into().unwrap());
    let tops = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    found.extend(tops.chain(["/sys/fs/cgroup".into()]).map(|top| top.join("hv-test").join(name)));
    found.extend(["/run/hv", "/run/hv-oci", "/tmp/hv-0"].map(|dir| PathBuf::from(dir).join(name)));
    // Another test's command may be at it: then this one's has left it alone.
    wait_until(|| !found.iter().any(|path| path.exists()), &format!("{when}: {found:?}"));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(name), "{when}: {mounts}");
    wait_until(|| !pids.iter().any(|pid| is_alive(*pid)), when);
}

#[track_caller]
fn wait_until(done: impl Fn() -> bool, when: &str) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "still there: {when}");
        std::thread::yield_now();
    }
}

fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Whoever inherits it may not have waited for it yet.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The process of a container that is created: it waits for `start`, and needs no monitor.
fn waits_at_gate(pid: i32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.starts_with(&format!("{} ", nix::libc::SYS_accept4))
}

fn loop_devices(file: &str) -> Vec<String> {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let backing = devices.filter_map(|one| fs::read_to_string(one.path().join("loop/backing_file")).ok());
    backing.filter(|backing| backing.contains(file)).collect()
}

const WAY: Way = Way { door: Door::Run, rooted: true };

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// The lines of a plan that `--dry-run` prints.
fn steps(mut command: Command) -> usize {
    finish(std::mem::replace(command.arg("--dry-run"), Command::new("true")), b"")
        .expect(0)
        .text()
        .lines()
        .count()
}

#[test]
fn a_killed_hv_ctr_leaves_nothing() {
    if !is_root() {
        return;
    }
    let hostile = Hostile::new();
    let command = |name: &str| {
        let mut command = hostile.hv(WAY, &["ctr", "--name", name, "--pids", "50", "--memory", "64M"]);
        command.arg(hostile.image()).args(["--", "true"]);
        command
    };
    let next = |_: &str| drop(finish(hostile.hv(WAY, &["ps"]), b"").expect(0));
    let (times, calls) = Start { command: &command, next: &next }.kill_everywhere("ctr", 1);
    let mut plan = hostile.hv(WAY, &["ctr", "--dry-run"]);
    plan.arg(hostile.image());
    let steps = finish(plan, b"").expect(0).text().lines().count();
    println!("killed {times} times; {calls} calls, {steps} steps");
    assert!(strides().0 > 1 || calls > steps, "every step has its call: {calls} of {steps}");
}

#[test]
fn a_killed_hv_ctr_leaves_no_loop_device() {
    if !is_root() {
        return;
    }
    if emulated() {
        return println!("skipped: takes too long in the testbed");
    }
    let Some(disk) = image::any_raw() else { return println!("skipped: no tool makes images here") };
    let hostile = Hostile::new();
    let copy = hostile.outside().join(format!("disk-{}", std::process::id()));
    fs::copy(disk, &copy).unwrap();
    let command = |name: &str| {
        let mut command = hostile.hv(WAY, &["ctr", "--name", name]);
        command.arg(&copy).args(["--", "true"]);
        command
    };
    let next = || {
        finish(hostile.hv(WAY, &["ps"]), b"").expect(0);
        wait_until(|| loop_devices(copy.to_str().unwrap()).is_empty(), "a loop device");
    };
    let name = format!("killed-disk-{}", std::process::id());
    for number in (0..).step_by(strides().0 * 7) {
        let mut count = 0;
        let traced = trace(command(&name), true, |_| {
            count += 1;
            if count == number + 1 { Go::Kill } else { Go::On }
        });
        wait_until(|| !traced.pids.iter().any(|pid| is_alive(*pid)), &name);
        next();
        assert_gone(&name, &traced.pids, &format!("disk: killed at call {number}"));
        if count <= number {
            break;
        }
    }
}

#[test]
fn a_killed_hv_oci_leaves_nothing() {
    if !is_root() {
        return;
    }
    let hostile = Hostile::new();
    // The plan of the two is the same.
    for (verb, sparse) in [("create", 1), ("run", 20)] {
        let bundle = hostile.bundle(WAY, &["true"]);
        let state = bundle.dir.join("state");
        let oci = |words: &[&str]| {
            let mut command = hostile.hv(WAY, &["oci", "--root"]);
            command.arg(&state).args(words).current_dir(&bundle.dir);
            command
        };
        let command = |name: &str| oci(&[verb, name]);
        let next = |name: &str| {
            let listed = finish(oci(&["list", "--quiet"]), b"").expect(0).text();
            // It was whole already: then it is deleted as any container is.
            if listed.contains(name) {
                finish(oci(&["delete", "--force", name]), b"").expect(0);
            }
            assert!(!state.join(name).exists());
            let group = bundle.id.as_str();
            let tops =
                fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
            let left =
                tops.chain(["/sys/fs/cgroup".into()]).find(|top| top.join("hv-test").join(group).exists());
            assert_eq!(left, None, "{name}");
        };
        let (times, calls) = Start { command: &command, next: &next }.kill_everywhere(verb, sparse);
        let steps = steps(oci(&["create", "plan"]));
        println!("{verb}: killed {times} times; {calls} calls, {steps} steps");
        assert!(strides().0 * sparse > 1 || calls > steps, "every step has its call: {calls} of {steps}");
    }
}

/// As far as a microVM gets here: the monitor is one process, and everything that it makes is its own.
#[test]
fn a_killed_hv_vm_leaves_nothing() {
    let Some(kernel) = std::env::var_os("HV_TEST_KERNEL") else {
        return println!("skipped: HV_TEST_KERNEL is not set");
    };
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return println!("skipped: no /dev/kvm here");
    }
    let hostile = Hostile::new();
    let way = hostile.ways()[0];
    for number in (0..).step_by(strides().1 * 4) {
        let name = format!("killed-{}-{}-{number}", Kind::Vm, std::process::id());
        let mut command = hostile.hv(way, &["vm", "--name", &name, "--kernel"]);
        command.arg(&kernel).arg(hostile.image()).args(["--", "true"]);
        let mut count = 0;
        let traced = trace(command, false, |_| {
            count += 1;
            if count == number + 1 { Go::Kill } else { Go::On }
        });
        wait_until(|| !traced.pids.iter().any(|pid| is_alive(*pid)), &name);
        finish(hostile.hv(way, &["ps"]), b"").expect(0);
        assert_gone(&name, &traced.pids, &format!("vm: killed at call {number}"));
        if count <= number {
            break;
        }
    }
}
