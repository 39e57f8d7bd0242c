//! What whole-program tests share: finding hv, running it with a deadline, and images to run.
//!
//! Time limits come from here and nowhere else: a test waits for an event, and the harness gives up.
#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]

pub mod image;
pub mod run;
pub mod terminal;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use hv_common::Kind;

pub use run::{Finished, Running, finish};

/// The program under test.
pub fn program() -> PathBuf {
    match std::env::var_os("HV_BIN_DIR") {
        Some(dir) => Path::new(&dir).join("hv"),
        None => PathBuf::from(env!("CARGO_BIN_EXE_hv")),
    }
}

/// The static program beside it that runs inside.
pub fn probe() -> PathBuf {
    let path = program().with_file_name("hv-probe");
    assert!(path.is_file(), "{} is not there: `cargo build` makes it", path.display());
    path
}

/// `hv` with these arguments.
pub fn hv(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(args);
    command
}

/// `hv KIND IMAGE OPTIONS -- WORDS`, with the kernel that tests use.
pub fn sandbox(kind: Kind, image: &Path, options: &[&str], words: &[&str]) -> Command {
    let mut command = hv(&[kind.word()]);
    command.arg(image).args(options);
    if let (Kind::Vm, Some(kernel)) = (kind, std::env::var_os("HV_TEST_KERNEL")) {
        command.arg("--kernel").arg(kernel);
        command.args(machine().filter(|(option, _)| !options.contains(option)).flat_map(|(a, b)| [a, b]));
    }
    if !words.is_empty() {
        command.arg("--").args(words);
    }
    command
}

/// Which machine microVMs are to be, beside what a test asks for itself: `HV_TEST_MACHINE`, options each with a
/// value (`cargo xtask test --all-combinations`).
fn machine() -> impl Iterator<Item = (&'static str, &'static str)> {
    static WORDS: OnceLock<Vec<String>> = OnceLock::new();
    let words = WORDS.get_or_init(|| {
        let text = std::env::var("HV_TEST_MACHINE").unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    });
    words.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str()))
}

/// As [`shell`], with a stock kernel of Debian's: its drivers are modules.
pub fn stock(_vm: Kind, options: &[&str], script: &str) -> Command {
    let path = |name| std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set"));
    let mut command = hv(&["vm", "--kernel"]);
    command.arg(path("HV_TEST_DEBIAN_KERNEL")).arg("--modules").arg(path("HV_TEST_MODULES"));
    command.args(options).arg("--rootfs").arg(image::directory()).args(["--", "sh", "-c", script]);
    command
}

/// As [`sandbox`], of a shell script in the image that all tests share.
pub fn shell(kind: Kind, options: &[&str], script: &str) -> Command {
    sandbox(kind, &image::directory(), options, &["sh", "-c", script])
}

/// Why sandboxes of this kind cannot run here; None if they can.
pub fn unavailable(kind: Kind) -> Option<String> {
    if kind == Kind::Vm && std::env::var_os("HV_TEST_VM").is_some_and(|value| value == "1") {
        return None;
    }
    static REPORT: OnceLock<serde_json::Value> = OnceLock::new();
    let report = REPORT.get_or_init(|| {
        let found = finish(hv(&["check", "--json"]), b"");
        serde_json::from_slice(&found.stdout).expect("hv check --json prints JSON")
    });
    let can_run = report[kind.word()].as_bool().unwrap_or(false);
    (!can_run).then(|| format!("`hv check` says that {kind} cannot run here"))
}

/// Makes each body a test of both kinds: `ctr::name` and `vm::name`.
#[macro_export]
macro_rules! both_kinds {
    ($($(#[$doc:meta])* fn $name:ident($kind:ident: Kind) $body:block)+) => {
        mod bodies {
            #[allow(unused_imports)]
            use super::*;
            $($(#[$doc])* pub fn $name($kind: Kind) $body)+
        }
        $crate::both_kinds!(@module ctr, Ctr, $($name)+);
        $crate::both_kinds!(@module vm, Vm, $($name)+);
    };
    (@module $module:ident, $kind:ident, $($name:ident)+) => {
        mod $module {
            $(#[test] fn $name() {
                match $crate::support::unavailable(hv_common::Kind::$kind) {
                    Some(reason) => println!("skipped: {reason}"),
                    None => super::bodies::$name(hv_common::Kind::$kind),
                }
            })+
        }
    };
}
