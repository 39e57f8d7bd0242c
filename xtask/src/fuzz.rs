//! `cargo xtask fuzz`: the programs of fuzz/ with libFuzzer, as cargo-fuzz runs them, but without it: with a nightly
//! toolchain under AddressSanitizer, else without that; and where there is no C++ compiler for libFuzzer, the test
//! program that mutates blindly.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::workspace;

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// What libFuzzer asks of a compiler: counters, comparisons and a table of what there is to be reached. Overflows
/// and debug assertions are findings. Not static, unlike everything else: a sanitizer cannot be.
const INSTRUMENTED: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks";

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, Args)]
pub struct FuzzArgs {
    /// A target, such as `block`; all of them, one after the other, if there is none
    target: Option<String>,
    /// How long each, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Run the target on this file only, in an ordinary build: to look at a finding
    #[arg(long, value_name = "FILE", requires = "target")]
    input: Option<PathBuf>,
    /// Mutate blindly, without libFuzzer
    #[arg(long)]
    blind: bool,
}

/// Runs it.
///
/// # Errors
/// There is no such target, or nothing can be built. A finding makes the exit code a failure.
pub fn run(args: &FuzzArgs) -> Result<ExitCode> {
    let all = targets()?;
    let chosen = match &args.target {
        Some(name) => {
            ensure!(all.contains(name), "there is no target {name}; there are: {}", all.join(" "));
            vec![name.clone()]
        }
        None => all,
    };
    if args.input.is_some() || args.blind || !works("c++", &["--version"]) {
        return blindly(args, &chosen);
    }
    let nightly = works("cargo", &["+nightly", "--version"]);
    let programs = build(nightly, &chosen)?;
    let mut found = Vec::new();
    for name in &chosen {
        if !one(&programs.join(name), name, args.seconds)? {
            found.push(name.as_str());
        }
    }
    if found.is_empty() {
        println!("{} target(s), {} seconds each: nothing was found", chosen.len(), args.seconds);
        return Ok(ExitCode::SUCCESS);
    }
    println!("found something: {} (inputs in fuzz/artifacts/)", found.join(" "));
    Ok(ExitCode::FAILURE)
}

/// The names of the programs.
fn targets() -> Result<Vec<String>> {
    let dir = workspace::root().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("list {}", dir.display()))?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn works(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Builds the instrumented programs; the directory that they are in.
fn build(nightly: bool, names: &[String]) -> Result<PathBuf> {
    let (kind, more) = if nightly { ("address", " -Zsanitizer=address") } else { ("stable", "") };
    let target_dir = workspace::root().join("target/fuzz").join(kind);
    let mut cargo = Command::new("cargo");
    if nightly {
        cargo.arg("+nightly");
    }
    cargo.args([
        "build",
        "--quiet",
        "--package",
        "hv-fuzz",
        "--features",
        "libfuzzer",
        "--release",
        "--target",
        TRIPLE,
    ]);
    for name in names {
        cargo.args(["--bin", name]);
    }
    cargo.arg("--target-dir").arg(&target_dir).current_dir(workspace::root());
    cargo.env("RUSTFLAGS", format!("{INSTRUMENTED}{more}"));
    for (setting, value) in
        [("LTO", "false"), ("STRIP", "none"), ("DEBUG", "line-tables-only"), ("CODEGEN_UNITS", "4")]
    {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{setting}"), value);
    }
    // The toolchain that runs this program must not be the one that is asked for.
    for inherited in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
        cargo.env_remove(inherited);
    }
    let status = cargo.status().context("run cargo build")?;
    if !status.success() {
        bail!("the programs of fuzz/ do not build; `cargo xtask fuzz --blind` needs no libFuzzer");
    }
    Ok(target_dir.join(TRIPLE).join("release"))
}

/// Runs one program; false if it has found something. What it learns is kept in target/, the seeds stay as they are.
fn one(program: &Path, name: &str, seconds: u64) -> Result<bool> {
    let root = workspace::root();
    let (learned, artifacts) =
        (root.join("target/fuzz/corpus").join(name), root.join("fuzz/artifacts").join(name));
    for dir in [&learned, &artifacts] {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    }
    println!("== {name}: {seconds} seconds");
    let mut command = Command::new(program);
    command.arg(format!("-max_total_time={seconds}")).args([
        "-timeout=20",
        "-rss_limit_mb=2048",
        "-max_len=4096",
    ]);
    command
        .args(["-print_final_stats=1", "-verbosity=0"])
        .arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.arg(learned).arg(root.join("fuzz/corpus").join(name)).stdin(Stdio::null());
    let status = command.status().with_context(|| format!("run {}", program.display()))?;
    Ok(status.success())
}

/// The same bodies in a test program, with mutations that nothing guides.
fn blindly(args: &FuzzArgs, names: &[String]) -> Result<ExitCode> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["test", "--package", "hv-fuzz", "--test", "bodies", "--", "--nocapture", "--exact"])
        .args(names);
    cargo.current_dir(workspace::root()).env("HV_FUZZ_SECONDS", args.seconds.to_string());
    if let Some(input) = &args.input {
        let input = fs::canonicalize(input).with_context(|| format!("find {}", input.display()))?;
        cargo.env("HV_FUZZ_INPUT", input);
    }
    let status = cargo.status().context("run cargo test")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
