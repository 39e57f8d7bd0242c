//! `cargo xtask clients`: podman, containerd's ctr and docker's daemon, from Debian's packages, with the hv of this
//! working tree as their OCI runtime; on this machine, or in the testbed where cgroup v2 is.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::testbed::{self, image};
use crate::{apt, cache, hv, progress, workspace};

/// The engines, and what they and the scripts call.
const PACKAGES: [&str; 17] = [
    "aardvark-dns",
    "bsdutils",
    "busybox-static",
    "catatonit",
    "conmon",
    "containerd",
    "criu",
    "docker.io",
    "iproute2",
    "iptables",
    "mount",
    "netavark",
    "nftables",
    "podman",
    "procps",
    "tini",
    "uidmap",
];
/// Whose versions decide whether the system is made anew.
const VERSIONED: [&str; 5] = ["podman", "conmon", "containerd", "docker.io", "criu"];
/// The scripts of tests/clients that run anywhere.
const SCRIPTS: [&str; 3] = ["podman", "containerd", "docker"];
/// All of them: those of VMs need Linux guests.
const ALL: [&str; 5] = ["podman", "containerd", "docker", "podman-vm", "docker-vm"];
/// Space for what engines write beside their memory file systems, on the testbed's disk.
const SLACK_MIB: u64 = 64;
/// How long one script may take in the testbed: engines are large programs, and it emulates every instruction.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// What `cargo xtask clients` is told.
#[derive(Args)]
pub struct ClientsArgs {
    /// In the testbed (cgroup v2), not on this machine
    #[arg(long)]
    testbed: bool,
    /// Use the programs as they are, without building them first
    #[arg(long)]
    no_build: bool,
    /// Which [default: all; those of VMs in the testbed alone]
    #[arg(value_parser = ALL)]
    clients: Vec<String>,
}

/// Runs the scripts; each line of theirs is one thing that held, or `FAILED` and why.
///
/// # Errors
/// The Debian system cannot be made. Failed scripts are not an error here but make the exit code a failure.
pub fn run(args: &ClientsArgs) -> Result<ExitCode> {
    if !args.no_build {
        hv::build(false)?;
    }
    let all = if args.testbed { &ALL[..] } else { &SCRIPTS[..] };
    let all: Vec<String> = all.iter().map(|name| (*name).to_owned()).collect();
    let clients = if args.clients.is_empty() { &all } else { &args.clients };
    let mut failed = false;
    for client in clients {
        failed |= if args.testbed { in_testbed(client)? } else { natively(client)? } != 0;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The Debian system that engines run in, a directory: found in the cache, or made (about two minutes).
///
/// # Errors
/// A package is missing, this process is not root while it has to be made, or mmdebstrap failed.
pub fn root() -> Result<PathBuf> {
    let versions = VERSIONED.iter().map(|package| apt::candidate(package)).collect::<Result<Vec<_>>>()?;
    let name = cache::digest(&[&PACKAGES.join(" "), &versions.join(" ")]);
    let dir = cache::entry("clients", &name, |dir| {
        apt::install(&["mmdebstrap"])?;
        if !apt::is_root()? {
            bail!(
                "the engines' system is made as root, once; run: sudo --preserve-env=HOME,XDG_CACHE_HOME,PATH cargo xtask clients"
            );
        }
        let log = cache::root()?.join("clients.log");
        image::bootstrap("installing podman, containerd and docker", &PACKAGES, &dir.join("rootfs"), &log)
    })?;
    Ok(dir.join("rootfs"))
}

/// The same as a disk for the testbed.
fn disk() -> Result<PathBuf> {
    let root = root()?;
    let name =
        format!("disk-{}", root.parent().and_then(|dir| dir.file_name()).unwrap_or_default().display());
    let dir = cache::entry("clients", &name, |dir| {
        image::make_disk(&root, &dir.join("clients.img"), SLACK_MIB, &cache::root()?.join("clients.log"))
    })?;
    Ok(dir.join("clients.img"))
}

fn natively(client: &str) -> Result<i32> {
    let step = progress::Step::start(format!("{client} with hv as its runtime"));
    let status = Command::new("sh")
        .arg(workspace::root().join("tests/clients/enter.sh"))
        .args([root()?, workspace::bin_dir("debug")])
        .arg(format!("{client}.sh"))
        .status()
        .context("run tests/clients/enter.sh")?;
    step.done();
    Ok(status.code().unwrap_or(1))
}

fn in_testbed(client: &str) -> Result<i32> {
    let file = |name: &str| workspace::root().join("tests/clients").join(name);
    let script = format!("{client}.sh");
    let run = testbed::Run {
        count: false,
        cpus: 2,
        memory_mib: 4096,
        timeout: Some(LIMIT),
        silence: None,
        release: false,
        drives: vec![disk()?],
        extra: ["enter.sh", "lib.sh", &script].map(file).into(),
        env: Vec::new(),
        command: ["sh", "/hv/bin/enter.sh", "/dev/nvme2n1", "/hv/bin", &script].map(str::to_owned).into(),
    };
    Ok(testbed::run(&run, testbed::Streams::inherited())?.into())
}
