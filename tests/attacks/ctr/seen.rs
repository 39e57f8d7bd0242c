//! What cannot be seen from inside is seen from outside: the system calls of a start, one by one.

use nix::libc;

use crate::hostile::{Door, Hostile, Way};
use crate::trace::{Call, Go, trace};

/// A call, the path in it if it has one, and for openat2(2) how it is resolved.
struct Seen {
    call: Call,
    path: String,
    resolve: u64,
}

/// The calls of the container's processes, from the first one's birth to the program.
fn calls(hostile: &Hostile, way: Way) -> Vec<Seen> {
    let program = if way.door == Door::Exec { &["sleep", "1000"][..] } else { &["true"] };
    let bundle = hostile.bundle(way, program);
    let command = match way.door {
        Door::Ctr => {
            let mut command = hostile.hv(way, &["ctr"]);
            command.arg(hostile.image()).args(["--", "true"]);
            command
        }
        Door::Run => bundle.command(&["run"], &[]),
        Door::Exec => {
            bundle.start().expect(0);
            bundle.command(&["exec"], &["true"])
        }
    };
    let mut seen = Vec::new();
    let traced = trace(command, false, |call| {
        if !call.monitor {
            let path = match call.number {
                libc::SYS_open | libc::SYS_chdir | libc::SYS_execve | libc::SYS_mount => call.text(0),
                libc::SYS_openat | libc::SYS_openat2 | libc::SYS_open_tree => call.text(1),
                _ => String::new(),
            };
            let resolve = if call.number == libc::SYS_openat2 { call.open_how(2)[2] } else { 0 };
            seen.push(Seen { call: *call, path, resolve });
        }
        Go::On
    });
    assert_eq!(traced.status, Some(0), "{way:?}: {}", traced.stderr);
    seen
}

#[test]
fn attack_22_the_session_keyring_is_a_new_one() {
    const JOIN_SESSION_KEYRING: u64 = 1;
    let hostile = Hostile::new();
    for way in hostile.ways().into_iter().filter(|way| way.rooted || !rustix::process::geteuid().is_root()) {
        let seen = calls(&hostile, way);
        let joins = |one: &&Seen| {
            one.call.number == libc::SYS_keyctl && one.call.arguments[..2] == [JOIN_SESSION_KEYRING, 0]
        };
        let joined = seen.iter().find(joins).unwrap_or_else(|| panic!("{way:?}: no new keyring"));
        let program = seen.iter().rfind(|one| one.call.number == libc::SYS_execve).unwrap();
        assert_eq!(seen.iter().filter(|one| joins(one)).count(), 1, "{way:?}");
        assert!(
            joined.call.pid == program.call.pid || way.door == Door::Ctr,
            "{way:?}: its process or its parent"
        );
    }
}

/// As crun: after the root was changed, nothing below /proc is opened, whatever the image has put there.
#[test]
fn nothing_below_proc_is_opened_in_the_new_root() {
    let hostile = Hostile::new().doors(&[Door::Ctr, Door::Run]);
    for way in hostile.ways().into_iter().filter(|way| way.rooted || !rustix::process::geteuid().is_root()) {
        let seen = calls(&hostile, way);
        let pivot = seen.iter().position(|one| one.call.number == libc::SYS_pivot_root).expect("a pivot");
        let opens = [libc::SYS_open, libc::SYS_openat, libc::SYS_openat2, libc::SYS_open_tree];
        for one in &seen[pivot..] {
            assert!(!opens.contains(&one.call.number) || !one.path.contains("proc"), "{way:?}: {}", one.path);
        }
    }
}

/// Every name in the image goes through openat2(2); those that do not are hv's own, or the host's before the
/// root was changed, or made (O_EXCL) in a directory that was opened so.
#[test]
fn names_in_the_image_are_resolved_by_openat2() {
    const OWN: [&str; 9] =
        ["/", "/dev", "/proc", "mask/file", "ptmx", "null", "zero", "console", "timens_offsets"];
    let hostile = Hostile::new().doors(&[Door::Ctr, Door::Run]);
    for way in hostile.ways().into_iter().filter(|way| way.rooted || !rustix::process::geteuid().is_root()) {
        for Seen { call, path, resolve } in calls(&hostile, way) {
            match call.number {
                libc::SYS_creat | libc::SYS_mount => panic!("{way:?}: {path} by its path"),
                libc::SYS_open | libc::SYS_openat => {
                    let flags = call.arguments[if call.number == libc::SYS_open { 1 } else { 2 }];
                    let made = flags as i32 & libc::O_EXCL != 0;
                    assert!(made || OWN.contains(&path.as_str()), "{way:?}: {path} without openat2");
                }
                libc::SYS_openat2 => {
                    let inside = resolve & (libc::RESOLVE_IN_ROOT | libc::RESOLVE_BENEATH) != 0;
                    assert!(
                        inside && resolve & libc::RESOLVE_NO_MAGICLINKS != 0,
                        "{way:?}: {path}: {resolve:#x}"
                    );
                }
                _ => {}
            }
        }
    }
}

/// A start that is traced cannot ask to be: /proc stays covered until the program is loaded all the same.
#[test]
fn attack_01_cve_2019_5736_nobody_sees_hvs_file_in_a_start_that_is_traced() {
    let hostile = Hostile::new().doors(&[Door::Ctr]);
    let mut command = hostile.hv(hostile.ways()[0], &["ctr"]);
    command.arg(hostile.image()).args(["--", "/proc/self/exe", "--version"]);
    let traced = trace(command, false, |_| Go::On);
    assert_eq!(traced.status, Some(127), "{}", traced.stderr);
}
