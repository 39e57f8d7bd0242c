//! What a microVM boots: kernels as people have them, and what a guest sees of its machine.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use hv_common::Kind;

use support::{Finished, finish, hv, image, shell};

/// `hv vm` with a stock kernel of Debian's: compressed, its drivers modules, its devices from ACPI alone.
fn stock(image: &Path, words: &[&str]) -> Command {
    let path =
        |name| std::env::var_os(name).map(PathBuf::from).unwrap_or_else(|| panic!("{name} is not set"));
    let mut command = hv(&["vm", "--kernel"]);
    command.arg(path("HV_TEST_DEBIAN_KERNEL")).arg("--modules").arg(path("HV_TEST_MODULES"));
    command.arg("--rootfs").arg(image).arg("--").args(words);
    command
}

fn guest(options: &[&str], script: &str) -> Finished {
    finish(shell(Kind::Vm, options, script), b"")
}

/// The body of a test, unless no microVM can run here.
fn in_guest(body: impl FnOnce()) {
    match support::unavailable(Kind::Vm) {
        Some(reason) => println!("skipped: {reason}"),
        None => body(),
    }
}

mod vm {
    use super::*;

    #[test]
    fn debians_stock_kernel_starts_every_format() {
        in_guest(|| {
            for image in image::raw().into_iter().chain([image::directory()]) {
                let done = finish(stock(&image, &["uname", "-r"]), b"").expect(0);
                assert!(done.text().contains("cloud"), "{}: {}", image.display(), done.text());
            }
        });
    }

    #[test]
    fn processors_and_memory_are_as_asked() {
        in_guest(|| {
            let script = "nproc; awk '/MemTotal/ {print $2}' /proc/meminfo";
            let text = guest(&["--cpus", "4", "--memory", "128M"], script).expect(0).text();
            let numbers: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
            assert_eq!(numbers[0], 4);
            assert!((96 << 10..=128 << 10).contains(&numbers[1]), "{} KiB", numbers[1]);
        });
    }

    #[test]
    fn words_for_the_kernel_arrive() {
        in_guest(|| {
            let done = guest(&["--cmdline", "hv.test=7"], "cat /proc/cmdline").expect(0);
            assert!(done.text().trim_end().ends_with(" hv.test=7"), "{}", done.text());
        });
    }

    #[test]
    fn the_console_is_shown_when_asked_for_and_kept_apart() {
        in_guest(|| {
            let loud = ["--console", "--cmdline", "loglevel=7"];
            let done = guest(&loud, "echo out").expect(0);
            assert_eq!(done.text(), "out\n");
            assert!(done.stderr.contains("Linux version"), "{}", done.stderr);
            assert_eq!(guest(&[], "echo out").expect(0).stderr, "");
        });
    }

    #[test]
    fn a_guest_that_panics_fails_with_its_last_words() {
        in_guest(|| {
            let done = guest(&[], "echo c > /proc/sysrq-trigger").expect(125);
            assert!(done.stderr.contains("panic"), "{}", done.stderr);
            assert!(done.stderr.contains("sysrq"), "the console's last lines: {}", done.stderr);
        });
    }

    #[test]
    fn a_kernel_that_never_reaches_init_fails_with_its_last_words() {
        in_guest(|| {
            let done = guest(&["--cmdline", "rdinit=/nowhere root=/dev/none"], "true").expect(125);
            assert!(done.stderr.contains("panicked"), "{}", done.stderr);
            assert!(done.stderr.contains("VFS"), "the console's last lines: {}", done.stderr);
        });
    }

    #[test]
    fn a_guest_that_resets_its_machine_fails_with_a_reason() {
        in_guest(|| {
            let done = guest(&[], "echo b > /proc/sysrq-trigger").expect(125);
            assert!(done.stderr.contains("reset"), "{}", done.stderr);
        });
    }

    #[test]
    fn an_initrd_of_the_users_does_not_replace_init() {
        in_guest(|| {
            let dir = tempfile::tempdir().unwrap();
            let initrd = dir.path().join("initrd");
            // An archive in the kernel's format that holds nothing but its end.
            let end = format!("070701{:0>8}{}{:0>8X}{:0>8}TRAILER!!!\0\0\0\0", "", "0".repeat(80), 11, "");
            std::fs::write(&initrd, &end).unwrap();
            let done = guest(&["--initrd", initrd.to_str().unwrap()], "echo started").expect(0);
            assert_eq!(done.text(), "started\n");
        });
    }
}
