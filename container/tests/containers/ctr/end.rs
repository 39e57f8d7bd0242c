//! Nothing is left behind: after a drop, after kill -9 of PID 1, after kill -9 of the monitor.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::support::*;
use hv_common::exit::How;
use hv_common::{Id, cgroup};

fn alive(pid: i32) -> bool {
    // A zombie is dead; only its parent has not looked yet.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Directories of sandboxes in every cgroup hierarchy.
fn cgroups(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_dir && entry.file_name() == id {
                found.push(entry.path());
            } else if is_dir {
                dirs.push(entry.path());
            }
        }
    }
    found
}

/// Makes this test program a monitor of its own when it is executed by [`monitor`].
const ROLE: &str = "HV_TEST_BE_A_MONITOR";
/// The name of its sandbox.
const ID: &str = "HV_TEST_ID";

#[test]
fn be_a_monitor() {
    let Some(script) = std::env::var_os(ROLE) else { return };
    let mut spec = spec(image(), &["/bin/sh", "-c", script.to_str().unwrap()]);
    spec.id = Id::try_from(std::env::var(ID).unwrap()).unwrap();
    let mut running = start(spec);
    std::io::copy(&mut running.stdout, &mut std::io::stdout()).unwrap();
}

/// Another process with a container that runs `script`.
fn monitor(script: &str, stdout: Stdio) -> Monitor {
    let id = Id::random().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ctr::end::be_a_monitor", "--nocapture", "--test-threads=1"])
        .env(ROLE, script)
        .env(ID, id.as_str())
        .stdin(Stdio::null())
        .stdout(stdout)
        .spawn();
    Monitor(child.unwrap(), id)
}

/// A process that does not outlive its test, and the name of its sandbox.
struct Monitor(Child, Id);

impl Monitor {
    /// As kill -9.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.kill();
        // What the next `hv` command does for a monitor that was killed.
        cgroup::destroy(&cgroup::places(&cgroup::Layout::detect().unwrap(), &self.1)).unwrap();
    }
}

fn family(first: u32) -> Vec<i32> {
    let mut found = vec![first as i32];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        next += 1;
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_ascii_whitespace().map(|child| child.parse::<i32>().unwrap()));
        }
    }
    found
}

both_ways! {
    fn a_drop_ends_everything() {
        let before = host_mounts();
        let spec = spec(image(), &["sh", "-c", "trap '' TERM HUP INT; setsid sleep 1000 & sleep 1000 & echo; cat; wait"]);
        let id = spec.id.to_string();
        let mut running = start(spec);
        running.line();
        let pids = running.sandbox.pids();
        assert!(pids.len() >= 4 && pids.iter().all(|pid| alive(*pid)), "{pids:?}");
        drop(running.sandbox);
        assert!(!pids.iter().any(|pid| alive(*pid)), "{pids:?}");
        assert_eq!(cgroups(&id), Vec::<PathBuf>::new());
        assert_eq!(host_mounts(), before);
    }

    fn a_failed_start_leaves_nothing() {
        let spec = spec(image(), &["nonesuch"]);
        let id = spec.id.to_string();
        assert!(start_on(&hv_container::Namespaces::new(), spec).is_err());
        assert_eq!(cgroups(&id), Vec::<PathBuf>::new());
    }

    fn the_end_of_pid_1_is_the_end_of_the_container() {
        let mut running = start(spec(image(), &["sh", "-c", "echo; exec sleep 1000"]));
        running.line();
        let pids = running.sandbox.pids();
        let init = pids.iter().min().copied().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(init).unwrap(), rustix::process::Signal::KILL).unwrap();
        assert_eq!(running.sandbox.wait().unwrap().how, How::Signal(9));
        assert!(!pids.iter().any(|pid| alive(*pid)));
    }
}

#[test]
fn killing_the_monitor_ends_the_container() {
    let before = host_mounts();
    let script = "setsid sleep 1000 & sleep 1000 & echo up; exec sleep 1000";
    let mut monitor = monitor(script, Stdio::piped());
    let mut lines = BufReader::new(monitor.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("up")));
    let pids = family(monitor.0.id());
    assert!(pids.len() >= 5, "monitor, PID 1, the workload and two sleeps: {pids:?}");
    monitor.kill();
    eventually("all processes of the container are gone", || !pids.iter().any(|pid| alive(*pid)));
    assert_eq!(host_mounts(), before);
}

#[test]
fn a_monitor_that_is_killed_at_any_moment_leaves_no_process() {
    for delay in 0..30 {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut monitor = monitor("sleep 1000", writer.into());
        // Not to wait for anything, but to hit another moment each time.
        std::thread::sleep(std::time::Duration::from_micros(delay * 700));
        monitor.kill();
        // Everybody who could hold the pipe is gone when it ends.
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut { reader }, &mut rest).unwrap();
    }
}
