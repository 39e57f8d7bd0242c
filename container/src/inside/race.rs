//! Whoever shares a volume with a container that starts exchanges directories with links, as fast as can be.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

use super::apply::Opened;
use crate::oci::step::{BundleStep, New, Place};
use crate::step::Slot;
use crate::sys;

const ROUNDS: u32 = 10_000;

/// A path as the plan has it.
fn place(parts: &[&str]) -> Place {
    let join =
        |parts: &[&str]| CString::new(if parts.is_empty() { ".".into() } else { parts.join("/") }).unwrap();
    let parents = (0..parts.len()).map(|n| (join(&parts[..n]), CString::new(parts[n]).unwrap())).collect();
    Place { path: join(parts), parents }
}

fn tmpfs(at: Place) -> BundleStep {
    BundleStep::New(New {
        filesystem: c"tmpfs".to_owned(),
        source: None,
        options: Vec::new(),
        at,
        strict: false,
        attributes: MountAttrFlags::empty(),
        propagation: 0,
        copy: Vec::new(),
        slot: Slot::Other,
        optional: false,
    })
}

/// A root with a directory beside a link that leads out, both in a volume and as /dev.
fn arrange(root: &Path, outside: &Path) {
    fs::create_dir_all(root.join("vol/a")).unwrap();
    fs::create_dir(root.join("dev")).unwrap();
    fs::create_dir(outside).unwrap();
    symlink(outside, root.join("vol/b")).unwrap();
    symlink(outside, root.join("link")).unwrap();
}

/// The container's side, in a mount namespace of this thread's own. How many steps were done.
fn apply(root: &Path, outside: &Path) -> u32 {
    // SAFETY: this thread was made for the test: nobody else relies on what it shares of its file system.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    sys::make_mounts_private().unwrap();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(root, flags, Mode::empty()).unwrap();
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut opened = Opened::of_bundle(None, None, None, None);
    opened.put(Slot::Root, dir);
    opened.terminal = Some(null);
    let (mount, cwd) =
        (tmpfs(place(&["vol", "a", "deep"])), BundleStep::Directory(place(&["vol", "a", "cwd"])));
    let mut done = 0;
    for _ in 0..ROUNDS {
        if opened.apply_bundle(&mount).is_ok() {
            let mounted = opened.at(Slot::Other).unwrap();
            let name = format!("/proc/thread-self/fd/{}", mounted.as_fd().as_raw_fd());
            let at: PathBuf = fs::read_link(&name).unwrap();
            assert!(at.starts_with(root), "mounted on {}", at.display());
            rustix::mount::unmount(&name, UnmountFlags::DETACH).unwrap();
            done += 1;
        }
        done += u32::from(opened.apply_bundle(&cwd).is_ok());
        match opened.bind_console() {
            Ok(()) => {
                done += 1;
                // By whichever name it has at the moment.
                let names = ["dev/console", "link/console"].map(|name| root.join(name));
                let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
                while !names.iter().any(|name| rustix::mount::unmount(name, flags).is_ok()) {}
            }
            Err(errno) => assert!([Errno::LOOP, Errno::NOTDIR, Errno::NOENT].contains(&errno), "{errno}"),
        }
        assert_eq!(fs::read_dir(outside).unwrap().count(), 0, "CVE-2024-45310");
    }
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!table.contains(outside.to_str().unwrap()), "{table}");
    done
}

#[test]
fn attack_14_cve_2021_30465_ten_thousand_exchanges_lead_no_mount_outside() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: needs root");
    }
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
    arrange(&root, &outside);
    let over = AtomicBool::new(false);
    let exchange = |a: &str, b: &str| {
        renameat_with(CWD, root.join(a), CWD, root.join(b), RenameFlags::EXCHANGE).unwrap();
    };
    let done = std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let mut rounds = 0u64;
            while !over.load(Ordering::Relaxed) {
                exchange("vol/a", "vol/b");
                exchange("dev", "link");
                rounds += 1;
            }
            rounds
        });
        let container = scope.spawn(|| apply(&root, &outside)).join();
        over.store(true, Ordering::Relaxed);
        let rounds = attacker.join().unwrap();
        println!("{rounds} exchanges");
        container.unwrap()
    });
    assert!(done > 0, "now and then the directory is in its place");
    println!("{done} steps of {} were done", 3 * ROUNDS);
}
