//! The parity tests on every machine that a microVM can be: transport, kernel and number of processors.
//!
//! The usual run has them on the default machine only, and a body or two on the others (`tests/transports.rs`).

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use super::libtest::Tally;
use super::programs::Program;
use crate::progress::{Step, tail};
use crate::testbed::{self, Streams};

/// The program that has them.
const PROGRAM: &str = "parity";
/// How long it may take on one machine, in an emulated host of its own.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// How many emulated hosts a machine gets.
const ATTEMPTS: usize = 3;
/// How much is shown of what failed.
const FAILURE_TAIL_LINES: usize = 60;

/// Which kernel; the name of the shell's lines that choose it.
const KERNELS: [(&str, &str); 2] = [
    ("tuned", "modules="),
    ("debian", "HV_TEST_KERNEL=$HV_TEST_DEBIAN_KERNEL; modules=\"--modules $HV_TEST_MODULES\""),
];

/// Runs them on each machine, one after the other; each counts as one check.
///
/// # Errors
/// There is no such program.
pub fn run(programs: &[Program], tally: &mut Tally) -> Result<()> {
    let ours = |program: &&Program| {
        program
            .path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&format!("{PROGRAM}-")))
    };
    let program = programs.iter().find(ours).with_context(|| format!("no test program {PROGRAM}"))?;
    for (kernel, choose) in KERNELS {
        for transport in ["mmio", "pci"] {
            for cpus in [1, 4] {
                let name = format!("{PROGRAM}: {kernel} kernel, {transport}, {cpus} processors");
                let step = Step::start(name.clone());
                let script = format!(
                    "{choose}; export HV_TEST_KERNEL HV_TEST_MACHINE=\"$modules --transport {transport} --cpus {cpus}\"; \
                     exec \"$0\" --test-threads=2 vm::"
                );
                let mut result = attempt(program, &script);
                for _ in 1..ATTEMPTS {
                    // An emulated host now and then stands still; what fails because of hv does so again.
                    result = result.or_else(|_| attempt(program, &script));
                }
                step.done();
                tally.add_check(&name, result);
            }
        }
    }
    Ok(())
}

/// One boot; what it printed if a test failed.
fn attempt(program: &Program, script: &str) -> Result<(), String> {
    let name = program.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let output = Output::default();
    let run = testbed::Run {
        count: false,
        cpus: 2,
        memory_mib: 4096,
        timeout: Some(LIMIT),
        silence: None,
        release: false,
        drives: Vec::new(),
        extra: vec![program.path.clone()],
        env: Vec::new(),
        command: vec!["sh".into(), "-c".into(), script.into(), name],
    };
    let streams = Streams { stdin: None, stdout: Box::new(output.clone()), stderr: Box::new(output.clone()) };
    match testbed::run(&run, streams) {
        Ok(0) => Ok(()),
        Ok(_) => Err(tail(&output.0.lock().unwrap_or_else(PoisonError::into_inner), FAILURE_TAIL_LINES)),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// What was printed.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
