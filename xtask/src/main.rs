//! Tasks of this repository, called as `cargo xtask TASK`.

#![forbid(unsafe_code)]

mod apt;
mod bench;
mod cache;
mod clients;
mod demo;
mod fuzz;
mod hostile;
mod hv;
mod kernel;
mod progress;
mod rootfs;
mod test;
mod testbed;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

/// Exit status when the testbed itself failed, not the command in it.
const TESTBED_FAILED: u8 = 125;
/// Exit status when `--timeout` was reached, as of the program `timeout`.
const TIMED_OUT: u8 = 124;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of this repository")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start one image as a process, as a container and as a microVM, and compare them
    Demo {
        /// Runs of each kind that are measured
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
        runs: u32,
    },
    /// Build the tuned microVM kernel, or find it in the cache; prints the directory with vmlinux and bzImage
    Kernel,
    /// Make the demo image, or find it in the cache; prints the directory with demo/ and demo.{ext4,squashfs,erofs}
    Image,
    /// Run everything that CI runs: format, clippy, docs, unit tests, whole-program tests here and in the testbed
    Test {
        /// Run in the testbed also what passed there before with the same programs, kernels and images
        #[arg(long)]
        fresh: bool,
        /// Run the parity tests also on every machine: mmio and pci, tuned and Debian's kernel, 1 and 4 processors
        #[arg(long)]
        all_combinations: bool,
    },
    /// Let hostile guests write random values to every register, ring and port of their machines, on /dev/kvm
    Hostile {
        /// How long
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// With what the first guest begins: a failure names it
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Feed what somebody else chooses (queues, registers, packets, kernels, requests, arguments) to hv's readers
    Fuzz(fuzz::FuzzArgs),
    /// Let podman, containerd and docker, from Debian's packages, use hv as their OCI runtime
    Clients(clients::ClientsArgs),
    /// Measure hv against other monitors in the testbed's counting mode, those on PATH, and print the table
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Run a command in the testbed: an emulated host with KVM, cgroup v2 and this tree's hv in its PATH
    Testbed(TestbedArgs),
}

#[derive(Args)]
struct TestbedArgs {
    /// Counting mode: one instruction is one virtual nanosecond, so every clock counts instructions
    #[arg(long)]
    count: bool,
    /// Processors of the emulated host (counting mode has one)
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// Memory of the emulated host, in MiB
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(512..))]
    memory: u32,
    /// A raw disk image for the emulated host, after its own two: nvme2n1, ... (may be repeated)
    #[arg(long, value_name = "FILE")]
    drive: Vec<PathBuf>,
    /// A file to put into the testbed's PATH (may be repeated)
    #[arg(long, value_name = "FILE")]
    bin: Vec<PathBuf>,
    /// An environment variable for the command (may be repeated)
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    env: Vec<(String, String)>,
    /// End the testbed after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Use the release programs, not the debug ones
    #[arg(long)]
    release: bool,
    /// Use the programs as they are, without building them first
    #[arg(long)]
    no_build: bool,
    /// The command and its arguments
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

fn parse_variable(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').context("expected NAME=VALUE")?;
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts_with_digit = name.starts_with(|c: char| c.is_ascii_digit());
    ensure!(
        !name.is_empty() && name.chars().all(valid) && !starts_with_digit,
        "{name:?} is not a variable's name"
    );
    Ok((name.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    let task = Cli::parse().task;
    let in_testbed = matches!(task, Task::Testbed(_));
    run(task).unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        let on_error = match in_testbed {
            true if error.is::<testbed::TimeUp>() => TIMED_OUT,
            true => TESTBED_FAILED,
            false => 1,
        };
        ExitCode::from(on_error)
    })
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Kernel => println!("{}", kernel::tuned()?.display()),
        Task::Image => println!("{}", rootfs::demo()?.display()),
        Task::Demo { runs } => return demo::run(runs),
        Task::Test { fresh, all_combinations } => return test::run(fresh, all_combinations),
        Task::Fuzz(args) => return fuzz::run(&args),
        Task::Clients(args) => return clients::run(&args),
        Task::Hostile { seconds, seed } => return hostile::run(seconds, seed),
        Task::Bench(what) => return bench::run(&what),
        Task::Testbed(args) => return run_in_testbed(args),
    }
    Ok(ExitCode::SUCCESS)
}

fn run_in_testbed(args: TestbedArgs) -> Result<ExitCode> {
    if !args.no_build {
        hv::build(args.release)?;
    }
    let run = testbed::Run {
        count: args.count,
        cpus: args.cpus,
        memory_mib: args.memory,
        timeout: args.timeout.map(Duration::from_secs),
        silence: None,
        release: args.release,
        drives: args.drive,
        extra: args.bin,
        env: args.env,
        command: args.command,
    };
    Ok(ExitCode::from(testbed::run(&run, testbed::Streams::inherited())?))
}
