use std::collections::BTreeSet;
use std::process::Command;

use hv_common::seccomp::Call;

use super::*;

/// The most that any thread may have.
const MOST: usize = 45;

#[test]
fn bug_22_lists_are_short_and_name_nothing_twice() {
    for role in Role::ALL {
        let numbers: Vec<_> = role.calls().map(|call| call.number).collect();
        let distinct: BTreeSet<_> = numbers.iter().collect();
        assert_eq!(distinct.len(), numbers.len(), "{role:?}");
        assert!(numbers.len() <= MOST, "{role:?}: {}", numbers.len());
        let allowed = role.profile(Verdict::Trap(0)).count_allowed();
        assert!(allowed == numbers.len() || cfg!(debug_assertions) && allowed == numbers.len() + 1);
        assert!(common::REFUSED.iter().all(|(number, _)| !numbers.contains(number)), "{role:?}");
    }
}

#[test]
fn bug_22_no_list_has_what_leads_out() {
    let out = [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_mount,
        libc::SYS_open,
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_creat,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_setns,
        libc::SYS_unshare,
        libc::SYS_bpf,
        libc::SYS_process_vm_writev,
        libc::SYS_clone3,
    ];
    for role in Role::ALL {
        for number in out {
            assert!(!role.profile(Verdict::Trap(0)).allowed(number as u32), "{role:?} {number}");
        }
    }
}

#[test]
fn arguments_count() {
    let verdict = |number: c_long, arguments| {
        Role::Devices.profile(Verdict::Trap(0)).verdict(&Call::new(number as u32, arguments))
    };
    let executable = (libc::PROT_READ | libc::PROT_EXEC) as u64;
    assert_eq!(verdict(libc::SYS_mmap, [0, 1, executable, 0, 0, 0]), Verdict::Trap(0));
    assert_eq!(verdict(libc::SYS_mmap, [0, 1, 1, 0, 0, 0]), Verdict::Allow);
    assert_eq!(verdict(libc::SYS_socket, [libc::AF_INET as u64, 1, 0, 0, 0, 0]), Verdict::Trap(0));
    assert_eq!(verdict(libc::SYS_ioctl, [3, 0xae80, 0, 0, 0, 0]), Verdict::Trap(0), "KVM_RUN is a vCPU's");
}

/// Runs the test `rare` of this file as a process of its own, since it may end that.
fn rare(role: &str, path: &str) -> std::process::Output {
    let mut this = Command::new(std::env::current_exe().unwrap());
    this.args(["--exact", "seccomp::tests::rare_path", "--nocapture", "--include-ignored"]);
    this.env("HV_TEST_RARE", format!("{role} {path}")).env("RUST_BACKTRACE", "1").output().unwrap()
}

/// Not a test of its own: what [`rare`] runs.
#[test]
#[ignore = "run by others"]
fn rare_path() {
    let Ok(wanted) = std::env::var("HV_TEST_RARE") else { return };
    let (role, path) = wanted.split_once(' ').unwrap();
    let role = Role::ALL.into_iter().find(|one| format!("{one:?}") == role).unwrap();
    let path = path.to_owned();
    let thread = crate::threads::spawn("rare", move || {
        Mode::Kill.enter(role).unwrap();
        match &*path {
            "panic" => panic!("on purpose"),
            "allocate" => {
                let blocks: Vec<_> = (12..24).map(|bits| vec![1u8; 1 << bits]).collect();
                assert!(Vec::<u8>::new().try_reserve(1 << 46).is_err());
                drop(blocks);
            }
            "open" => drop(std::fs::File::open("/").unwrap_err()),
            _ => drop(rustix::process::chdir("/")),
        }
    });
    assert_eq!(thread.unwrap().join().is_err(), wanted.ends_with("panic"));
    println!("survived");
}

#[test]
fn bug_22_rare_paths_are_allowed_in_every_thread() {
    for role in Role::ALL {
        for path in ["panic", "allocate", "open"] {
            let output = rare(&format!("{role:?}"), path);
            let (out, err) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success() && out.contains("survived"), "{role:?} {path}: {out}{err}");
            assert_eq!(err.contains("on purpose"), path == "panic", "{err}");
        }
    }
}

#[test]
fn what_is_denied_is_named_and_ends_the_process() {
    for role in Role::ALL {
        let output = rare(&format!("{role:?}"), "forbidden");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{err}");
        assert!(err.contains(&format!("{} thread made the system call chdir (80)", role.name())), "{err}");
    }
}
