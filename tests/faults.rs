//! Bad input and faults: hv says what is the matter, and leaves nothing behind.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use hv_common::Kind;
use hv_common::cgroup::{Layout, places};
use rustix::process::{Pid, Signal};

use support::{Finished, Running, finish, hv, image, sandbox, shell};

/// A file of a test, and the directory that it is in.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Scratch {
        Scratch(tempfile::tempdir().unwrap())
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join("file");
        fs::write(&path, bytes).unwrap();
        path
    }
}

#[track_caller]
fn refused(done: Finished, words: &[&str]) {
    let done = done.expect(125);
    for word in words {
        assert!(done.stderr.contains(word), "no {word:?} in: {}", done.stderr);
    }
    assert_eq!(done.stderr.matches("panicked at").count(), 0, "{}", done.stderr);
}

mod images {
    use super::*;

    fn start(image: &Path) -> Finished {
        finish(sandbox(Kind::Ctr, image, &[], &["true"]), b"")
    }

    #[test]
    fn empty() {
        refused(start(&Scratch::new().file(b"")), &["empty"]);
    }

    #[test]
    fn truncated() {
        let Some(whole) = image::any_raw() else { return println!("skipped: no tool makes images here") };
        let scratch = Scratch::new();
        let bytes = fs::read(whole).unwrap();
        refused(start(&scratch.file(&bytes[..bytes.len() / 2])), &["truncated"]);
    }

    #[test]
    fn of_another_kind_by_name() {
        let scratch = Scratch::new();
        let mut qcow2 = b"QFI\xfb\0\0\0\x03".to_vec();
        qcow2.resize(65536, 0);
        refused(start(&scratch.file(&qcow2)), &["qcow2", "qemu-img convert"]);
        refused(start(&scratch.file(&[7; 100_000])), &["superblock"]);
    }

    #[test]
    fn a_link_to_a_device() {
        let scratch = Scratch::new();
        let link = scratch.0.path().join("link");
        symlink("/dev/null", &link).unwrap();
        refused(start(&link), &["character device"]);
    }

    #[test]
    fn not_there() {
        refused(start(Path::new("/no/such/image")), &["/no/such/image"]);
    }
}

mod kernels {
    use super::*;

    /// Starts with this kernel where a /dev/kvm lets it come that far.
    fn refuses(kernel: &Path, words: &[&str]) {
        if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
            return println!("skipped: no /dev/kvm here");
        }
        let mut command = hv(&["vm"]);
        command.arg(image::directory()).arg("--kernel").arg(kernel);
        refused(finish(command, b""), words);
    }

    /// A 64-bit ELF for x86 with these loadable segments: file offset, address, length in file and memory.
    fn elf(class: u8, segments: &[[u64; 4]]) -> Vec<u8> {
        let mut bytes = vec![0x7f, b'E', b'L', b'F', class, 1, 1];
        bytes.resize(16, 0);
        bytes.extend(2u16.to_le_bytes());
        bytes.extend(62u16.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(0x100_0000u64.to_le_bytes());
        bytes.extend(64u64.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        for half in [64u16, 56, segments.len() as u16, 64, 0, 0] {
            bytes.extend(half.to_le_bytes());
        }
        for [offset, address, in_file, in_memory] in segments {
            bytes.extend(1u32.to_le_bytes());
            bytes.extend(5u32.to_le_bytes());
            for field in [offset, address, address, in_file, in_memory, &4096] {
                bytes.extend(field.to_le_bytes());
            }
        }
        bytes.resize(16384, 0x90);
        bytes
    }

    #[test]
    fn no_kernel_at_all() {
        refuses(&Scratch::new().file(b"#!/bin/sh\necho no kernel\n"), &["kernel"]);
        refuses(&Scratch::new().file(b""), &["empty"]);
        refuses(Path::new("/no/such/kernel"), &["/no/such/kernel"]);
    }

    #[test]
    fn truncated() {
        let segment = [0x1000, 0x100_0000, 0x10_0000, 0x10_0000];
        refuses(&Scratch::new().file(&elf(2, &[segment])), &["truncated"]);
    }

    #[test]
    fn of_32_bits() {
        refuses(&Scratch::new().file(&elf(1, &[[0x1000, 0x100_0000, 0x100, 0x100]])), &["32-bit"]);
    }

    #[test]
    fn with_overlapping_segments() {
        let overlapping = [[0x1000, 0x100_0000, 0x1000, 0x3000], [0x2000, 0x100_1000, 0x1000, 0x1000]];
        refuses(&Scratch::new().file(&elf(2, &overlapping)), &["overlap"]);
    }

    #[test]
    fn with_endless_segments() {
        for endless in [[0x1000, 0x100_0000, 0x1000, u64::MAX], [u64::MAX, 0x100_0000, 0x1000, 0x1000]] {
            refuses(&Scratch::new().file(&elf(2, &[endless])), &["kernel"]);
        }
    }
}

mod hosts {
    use std::time::{Duration, Instant};

    use super::*;

    /// On a KVM that only emulates a guest's kernel, hv says so instead of hanging.
    #[test]
    fn a_kvm_that_cannot_run_the_kernel_is_recognised_quickly() {
        let report = finish(hv(&["check", "--json"]), b"");
        let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
        let row = |what: &str| {
            report["rows"].as_array().unwrap().iter().find(|row| row["what"] == what).unwrap().clone()
        };
        let Some(kernel) = std::env::var_os("HV_TEST_KERNEL") else {
            return println!("skipped: HV_TEST_KERNEL is not set");
        };
        if row("KVM")["state"] != "ok" || report["vm"] == true {
            return println!("skipped: KVM is absent here, or runs guests");
        }
        let begun = Instant::now();
        let mut command = hv(&["vm"]);
        command.arg(image::directory()).arg("--kernel").arg(kernel);
        refused(finish(command, b""), &["natively", "hv check", "hv ctr"]);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    /// Without permission on /dev/kvm, or without it, hv names it.
    #[test]
    fn no_permission_on_kvm() {
        use std::os::unix::process::CommandExt;
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: needs root to become nobody");
        }
        if fs::metadata("/dev/kvm")
            .is_ok_and(|kvm| std::os::unix::fs::PermissionsExt::mode(&kvm.permissions()) & 0o006 != 0)
        {
            return println!("skipped: everybody may use /dev/kvm here");
        }
        let scratch = Scratch::new();
        fs::set_permissions(scratch.0.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        // A copy: nobody may not be able to reach the program where it was built.
        let program = scratch.0.path().join("hv");
        fs::copy(support::program(), &program).unwrap();
        let mut command = std::process::Command::new(program);
        command.arg("vm").arg(image::directory()).args(["--kernel", "/dev/null"]);
        command.uid(65534).gid(65534).env("HOME", scratch.0.path()).env_remove("XDG_RUNTIME_DIR");
        refused(finish(command, b""), &["/dev/kvm"]);
    }
}

/// A microVM that is being started can be given up.
mod starts {
    mod vm {
        use super::super::*;

        #[test]
        fn a_signal_during_the_boot_gives_it_up() {
            if let Some(reason) = support::unavailable(Kind::Vm) {
                return println!("skipped: {reason}");
            }
            let name = unique(Kind::Vm, "given-up");
            // The kernel's first words are long before hv-init.
            let options = ["--name", &name, "--console", "--cmdline", "ignore_loglevel"];
            let mut running = Running::start(shell(Kind::Vm, &options, "sleep 1000"));
            running.wait_for_error("Linux version");
            running.signal(Signal::TERM);
            assert_eq!(running.finish().status, Some(143));
            assert_eq!(traces(&name), Vec::<String>::new());
        }
    }
}

/// Names for sandboxes that nobody else has.
fn unique(kind: Kind, what: &str) -> String {
    format!("{what}-{kind}-{}", std::process::id())
}

/// Everything on this host that names the sandbox: mounts, cgroups, runtime files, links.
fn traces(name: &str) -> Vec<String> {
    let mut found: Vec<PathBuf> = places(&Layout::detect().unwrap(), &name.to_string().try_into().unwrap());
    let user = rustix::process::geteuid();
    found.push(PathBuf::from("/run/hv").join(name));
    found.push(PathBuf::from(format!("/tmp/hv-{}", user.as_raw())).join(name));
    found.extend(std::env::var_os("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("hv").join(name)));
    let mut traces: Vec<String> =
        found.into_iter().filter(|path| path.exists()).map(|path| path.display().to_string()).collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    traces.extend(mounts.lines().filter(|line| line.contains(name)).map(str::to_owned));
    traces
}

/// Numbers of the processes whose command line has this word, but for tests and hv itself.
fn processes_with(word: &str) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.split(|byte| *byte == 0).any(|part| part == word.as_bytes()) {
            found.extend(Pid::from_raw(pid));
        }
    }
    found
}

both_kinds! {
    /// Killed without a chance to clean up: the next hv command does it.
    fn nothing_is_left_after_kill_9(kind: Kind) {
        let name = unique(kind, "killed");
        // A number that no other process has as an argument.
        let word = format!("{}", 1_000_000 + std::process::id());
        let mut command = shell(kind, &["--name", &name, "--pids", "50"], &format!("echo ready; sleep {word} & exec sleep {word}"));
        if !rustix::process::geteuid().is_root() {
            command = shell(kind, &["--name", &name], &format!("echo ready; sleep {word} & exec sleep {word}"));
        }
        let mut running = Running::start(command);
        running.wait_for("ready");
        assert!(!traces(&name).is_empty(), "a running sandbox has a directory");
        running.signal(Signal::KILL);
        assert_eq!(running.finish().status, None);

        finish(hv(&["check"]), b"");

        assert_eq!(traces(&name), Vec::<String>::new());
        assert_eq!(processes_with(&word), []);
    }

    /// The same after an end of every other sort.
    fn nothing_is_left_after_the_end(kind: Kind) {
        let name = unique(kind, "ended");
        for (script, status) in [("exit 0", 0), ("kill -9 $$", 137)] {
            finish(shell(kind, &["--name", &name], script), b"").expect(status);
            assert_eq!(traces(&name), Vec::<String>::new());
        }
        finish(sandbox(kind, &image::directory(), &["--name", &name], &["no-such-command"]), b"").expect(127);
        assert_eq!(traces(&name), Vec::<String>::new());
    }

    /// A name is taken as long as its sandbox lives.
    fn names_are_unique(kind: Kind) {
        let name = unique(kind, "twice");
        let mut first = Running::start(shell(kind, &["--name", &name], "echo ready; read -r line"));
        first.wait_for("ready");
        let second = finish(shell(kind, &["--name", &name], "true"), b"");
        refused(second, &[&name, "--name"]);
        first.write(b"end\n");
        first.finish().expect(0);
        finish(shell(kind, &["--name", &name], "true"), b"").expect(0);
    }

    /// What the command leaves running ends with it.
    fn background_processes_end(kind: Kind) {
        let word = format!("{}", 2_000_000 + std::process::id());
        finish(shell(kind, &[], &format!("sleep {word} & exit 0")), b"").expect(0);
        assert_eq!(processes_with(&word), []);
    }

    /// hv's own files stay closed to the command: three streams and nothing else.
    fn no_descriptors_leak(kind: Kind) {
        // Not the last command, which a shell executes in its own place.
        let text = finish(shell(kind, &[], "ls /proc/$$/fd; true"), b"").expect(0).text();
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"]);
    }

    /// The run's figures, as JSON.
    fn stats(kind: Kind) {
        let scratch = Scratch::new();
        let file = scratch.0.path().join("stats.json");
        finish(shell(kind, &["--stats", file.to_str().unwrap()], "exit 3"), b"").expect(3);
        let stats: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        assert_eq!(stats["exit"]["how"]["code"], 3);
        let at = |phase: &str| stats["phases"][phase].as_u64().unwrap_or_else(|| panic!("no {phase}: {stats}"));
        let order = ["launch", "opened", "boundary", "init", "exec", "exit", "gone"].map(at);
        assert!(order.is_sorted(), "{stats}");
        if kind == Kind::Vm {
            assert!(stats["memory"]["guest_resident"].as_u64().unwrap() > 1 << 20, "{stats}");
            assert!(!stats["crossings"].as_object().unwrap().is_empty(), "{stats}");
        }
    }
}
