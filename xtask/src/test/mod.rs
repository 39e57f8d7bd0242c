//! Everything that continuous integration runs, in one order, with one count at the end.
//!
//! A test whose path has a segment `vm` needs a running Linux guest; one with a segment `ctr` runs here and
//! a second time in the testbed, where cgroup v2 is. A test that prints a line `skipped: REASON` counts as
//! skipped.

mod combinations;
mod inside;
mod libtest;
mod programs;
mod remembered;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use self::libtest::Tally;
use self::programs::Program;
use crate::progress::{Step, human, tail};
use crate::testbed::image;
use crate::{clients, hv, kernel, rootfs, workspace};

/// How much of a failed check's output is shown.
const CHECK_TAIL_LINES: usize = 200;

/// Runs everything; the last line on standard output is the count. What passed in the testbed already, with
/// the same programs, kernels and images, runs there again only when `fresh`. With `all_combinations`, the parity
/// tests run on every machine that a microVM can be.
///
/// # Errors
/// Something that is needed for running tests at all is missing. Failed tests are not an error here but
/// make the exit code a failure.
pub fn run(fresh: bool, all_combinations: bool) -> Result<ExitCode> {
    let started = Instant::now();
    let log = workspace::log("test-build")?;
    let mut tally = Tally::default();
    // The images, the testbed's disk and the kernel take minutes of their own on a new machine.
    let prepared =
        thread::spawn(|| Ok::<_, anyhow::Error>((rootfs::demo()?, image::host()?, kernel::tuned()?)));
    checks(&mut tally);
    let built = programs::build(&log);
    let (images, host, tuned) = prepared.join().map_err(|_| anyhow!("preparing the testbed panicked"))??;
    let programs = match built {
        Ok(programs) => programs,
        Err(error) => {
            tally.add_check("build", Err(format!("{error:#}")));
            return Ok(report(&tally, started));
        }
    };

    let mut env: Vec<(String, String)> = [
        ("HV_TEST_IMAGES", images),
        ("HV_TEST_KERNEL", tuned.join("vmlinux")),
        ("HV_TEST_DEBIAN_KERNEL", host.kernel()),
        ("HV_TEST_MODULES", host.modules()),
    ]
    .map(|(name, path)| (name.to_owned(), path.display().to_string()))
    .into();
    let vm_runs_here = hv::vm_runs_here(&workspace::bin_dir("debug").join("hv"));
    if vm_runs_here {
        env.push(("HV_TEST_VM".to_owned(), "1".to_owned()));
    }
    // Where it cannot be made (not as root, and not yet there), their tests are skipped and say so.
    match clients::root() {
        Ok(dir) => env.push(("HV_TEST_CLIENTS".to_owned(), dir.display().to_string())),
        Err(error) => eprintln!("clients: {error:#}"),
    }
    natively(&programs, vm_runs_here, &env, &mut tally)?;
    tally.add("doc", doc_tests()?);
    let bin = workspace::bin_dir("debug");
    let words = [&*host.name(), env[0].1.as_str(), env[1].1.as_str()];
    let seen =
        remembered::digest_of(&[&bin.join("hv"), &bin.join("hv-init"), &bin.join("hv-probe")], &words)?;
    inside::run(&programs, vm_runs_here, &seen, fresh, &mut tally)?;
    if all_combinations {
        combinations::run(&programs, &mut tally)?;
    }
    Ok(report(&tally, started))
}

/// Format, clippy and documentation, each one test of the count.
fn checks(tally: &mut Tally) {
    let cargo = |args: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(args).env("RUSTDOCFLAGS", "--deny warnings");
        command
    };
    for (name, mut command) in [
        ("format", cargo(&["fmt", "--all", "--check", "--", "--color", "never"])),
        ("clippy", cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"])),
        ("docs", cargo(&["doc", "--quiet", "--workspace", "--no-deps"])),
    ] {
        tally.add_check(name, check(name, &mut command));
    }
}

fn check(name: &str, command: &mut Command) -> Result<(), String> {
    let step = Step::start(name);
    let output = command
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("run cargo: {error}"))?;
    if output.status.success() {
        step.done();
        return Ok(());
    }
    Err(tail(&[output.stdout, output.stderr].concat(), CHECK_TAIL_LINES))
}

/// Every test that can run on this machine.
fn natively(
    programs: &[Program],
    vm_runs_here: bool,
    env: &[(String, String)],
    tally: &mut Tally,
) -> Result<()> {
    let elsewhere: &[&str] = if vm_runs_here { &[] } else { &["vm"] };
    for program in programs {
        let tests = program.tests_without_segment(elsewhere);
        if tests.is_empty() {
            continue;
        }
        let started = Instant::now();
        let step = Step::start(format!("testing {}", program.label));
        let output = program.run(&tests, env)?;
        step.done();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let one = libtest::read(&text, output.status.success());
        eprintln!("{}: {} in {}", program.label, one.summary(), human(started.elapsed()));
        tally.add(&program.label, one);
    }
    Ok(())
}

fn doc_tests() -> Result<Tally> {
    let step = Step::start("testing the examples in the documentation");
    let output = Command::new("cargo")
        .args(["test", "--quiet", "--doc", "--workspace", "--", "--show-output"])
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        .output()
        .context("run cargo test --doc")?;
    step.done();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Ok(libtest::read(&text, output.status.success()))
}

/// Skips with their reasons, failures with their output, then the count.
fn report(tally: &Tally, started: Instant) -> ExitCode {
    for (name, reason) in &tally.skipped {
        println!("skipped: {name}: {reason}");
    }
    for (name, text) in &tally.failed {
        println!("\nFAILED: {name}\n{}", text.trim_end());
    }
    if tally.remembered > 0 {
        println!(
            "\n{} passed in the testbed before, with the same programs, kernels and images: `--fresh` runs them again",
            tally.remembered
        );
    }
    println!("\nall of it took {}", human(started.elapsed()));
    println!("{}", tally.summary());
    if tally.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The file name that a test program gets in the testbed.
fn name_inside(path: &Path) -> Result<PathBuf> {
    path.file_name().map(PathBuf::from).with_context(|| format!("{} has no file name", path.display()))
}
