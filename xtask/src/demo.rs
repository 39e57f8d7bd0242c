//! The demonstration: one image started as a bare process, as a container and as a microVM, and compared.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::testbed::{self, Streams};
use crate::{hv, kernel, progress, rootfs, workspace};

/// The image of all that is compared, among those of the demo image's directory.
const IMAGE: &str = "demo.erofs";

/// Makes all that is needed, then runs `hv compare` with `runs` runs of each kind: here if this machine's
/// KVM runs Linux guests, else in the testbed.
///
/// # Errors
/// Something could not be made, or `hv compare` could not be started.
pub fn run(runs: u32) -> Result<ExitCode> {
    // Two long builds, neither of which keeps every processor busy all the time.
    let tuned = thread::spawn(kernel::tuned);
    let built = hv::build(true);
    let tuned = tuned.join().map_err(|_| anyhow!("building the kernel panicked"))??;
    built?;
    let program = workspace::bin_dir("release").join("hv");
    let compare = |program: &str, image: &Path, kernel: &Path| {
        let text = |path: &Path| path.display().to_string();
        let runs = runs.to_string();
        [program, "compare", &text(image), "--runs", &runs, "--kernel", &text(kernel)].map(str::to_owned)
    };
    if hv::vm_runs_here(&program) {
        let command =
            compare(&program.display().to_string(), &rootfs::demo()?.join(IMAGE), &tuned.join("vmlinux"));
        eprintln!("$ {}", command.join(" "));
        let status = Command::new(&command[0]).args(&command[1..]).status().context("run hv compare")?;
        return Ok(exit_code(status.code()));
    }
    eprintln!(
        "This machine's KVM does not run Linux guests: comparing in the testbed, an emulated host (docs/testbed.md)."
    );
    let command = compare("hv", &Path::new("/hv/images").join(IMAGE), Path::new("/hv/kernels/tuned/vmlinux"));
    eprintln!("$ cargo xtask testbed --count --release -- {}", command.join(" "));
    let run = testbed::Run {
        count: true,
        cpus: 1,
        memory_mib: 2048,
        timeout: None,
        silence: None,
        release: true,
        drives: Vec::new(),
        extra: Vec::new(),
        env: Vec::new(),
        command: command.into(),
    };
    let step = progress::Step::start(format!("comparing in the testbed ({runs} runs of each kind)"));
    let status = testbed::run(&run, Streams { stdin: None, ..Streams::inherited() })?;
    step.done();
    Ok(ExitCode::from(status))
}

fn exit_code(code: Option<i32>) -> ExitCode {
    // A signal has no code; any failure will do.
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
