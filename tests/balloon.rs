//! Memory that a microVM does not use goes back to the host.

mod support;

use std::fs;

use hv_common::Kind;
use rustix::process::{Pid, Signal};

use support::{Running, finish, shell};

/// Bytes of physical memory that a process has.
fn resident(pid: Pid) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", pid.as_raw_nonzero())).unwrap();
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Uses 80 MB, frees them, and says so at every step; then ticks.
const SCRIPT: &str = "head -c 80000000 /dev/zero > /tmp/much; echo full; rm /tmp/much; echo empty;
    while sleep 0.2; do echo tick; done";

mod vm {
    use super::*;

    #[test]
    fn what_the_guest_frees_is_the_hosts_again() {
        if let Some(reason) = support::unavailable(Kind::Vm) {
            println!("skipped: {reason}");
            return;
        }
        let mut guest = Running::start(shell(Kind::Vm, &["--balloon", "--no-tty"], SCRIPT));
        guest.wait_for("full\n");
        let full = resident(guest.holder());
        guest.wait_for("empty\n");
        let mut ticks = "empty\n".to_owned();
        let mut least = full;
        // The guest reports what is free every two seconds; the harness gives up on one that never does.
        while least > full - 60_000_000 {
            ticks.push_str("tick\n");
            guest.wait_for(&ticks);
            least = least.min(resident(guest.holder()));
        }
        println!("{full} bytes, then {least}");
        guest.signal(Signal::TERM);
        guest.finish();
    }

    #[test]
    fn the_guest_gives_what_it_is_asked_for() {
        if let Some(reason) = support::unavailable(Kind::Vm) {
            println!("skipped: {reason}");
            return;
        }
        let script = "while [ $(awk '/^MemFree/ {print $2}' /proc/meminfo) -gt 150000 ]; do sleep 0.1; done; echo given";
        let done = finish(shell(Kind::Vm, &["--balloon=128M"], script), b"").expect(0);
        assert_eq!(done.text(), "given\n");
    }
}

mod ctr {
    use super::*;

    #[test]
    fn a_balloon_that_makes_no_sense_is_refused() {
        let refused = finish(shell(Kind::Ctr, &["--balloon"], "true"), b"").expect(125);
        assert!(refused.stderr.contains("only for `hv vm`"), "{}", refused.stderr);
    }
}
