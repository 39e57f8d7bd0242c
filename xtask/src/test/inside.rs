//! The part of the tests that runs in the testbed: one boot, one program after another.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use super::libtest::{self, Tally};
use super::name_inside;
use super::programs::{LIMIT_SECONDS, Program};
use crate::progress::Step;
use crate::testbed::{self, Streams, quoted};

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// Begins the line that follows a program's output; its exit status comes after it.
const END_MARK: &str = "@@ testbed: exit status ";

/// Runs the tests that need a Linux guest (unless they ran already: `vm_ran`) and, for the second time,
/// those of containers.
///
/// # Errors
/// The testbed does not boot. When it dies later, that counts as a failed test.
pub fn run(programs: &[Program], vm_ran: bool, tally: &mut Tally) -> Result<()> {
    let segments: &[&str] = if vm_ran { &["ctr"] } else { &["vm", "ctr"] };
    let chosen: Vec<(&Program, Vec<&str>)> = programs
        .iter()
        .map(|program| (program, program.tests_with_segment(segments)))
        .filter(|(_, tests)| !tests.is_empty())
        .collect();
    if chosen.is_empty() {
        return Ok(());
    }
    let output = Arc::new(Mutex::new(Vec::new()));
    let run = testbed::Run {
        count: false,
        cpus: 2,
        memory_mib: 4096,
        timeout: Some(LIMIT),
        release: false,
        extra: chosen.iter().map(|(program, _)| program.path.clone()).collect(),
        env: Vec::new(),
        command: vec!["sh".into(), "-c".into(), script(&chosen)?],
    };
    let step = Step::start("testing in the testbed");
    let streams = Streams {
        stdin: None,
        stdout: Box::new(Collector { all: Arc::clone(&output), line: Vec::new() }),
        stderr: Box::new(std::io::stderr()),
    };
    let result = testbed::run(&run, streams);
    match &result {
        Ok(_) => step.done(),
        Err(_) => drop(step),
    }
    let output = output.lock().unwrap_or_else(PoisonError::into_inner);
    read(&String::from_utf8_lossy(&output), &chosen, tally);
    if let Err(error) = result {
        tally.add_check("testbed", Err(format!("{error:#}")));
    }
    Ok(())
}

/// The shell script that runs the chosen tests of each program.
fn script(chosen: &[(&Program, Vec<&str>)]) -> Result<String> {
    let mut text = String::new();
    for (program, tests) in chosen {
        let name = name_inside(&program.path)?;
        let words: Vec<String> = tests.iter().map(|test| quoted(test)).collect();
        text.push_str(&format!(
            "timeout --kill-after=5 {LIMIT_SECONDS} {} --show-output --exact {} 2>&1\n",
            quoted(&name.to_string_lossy()),
            words.join(" ")
        ));
        // Whatever the program printed last, the mark begins a line.
        text.push_str(&format!("status=$?; echo; echo \"{END_MARK}$status\"\n"));
    }
    Ok(text)
}

/// Adds up the programs' outputs; a program that was not reached is a failure.
fn read(output: &str, chosen: &[(&Program, Vec<&str>)], tally: &mut Tally) {
    let mut rest = output;
    for (program, _) in chosen {
        let label = format!("testbed: {}", program.label);
        let Some((text, after)) = rest.split_once(END_MARK) else {
            tally.add_check(&label, Err(format!("did not end; its output so far:\n{rest}")));
            rest = "";
            continue;
        };
        let (status, after) = after.split_once('\n').unwrap_or((after, ""));
        let one = libtest::read(text, status == "0");
        eprintln!("{label}: {}", one.summary());
        tally.add(&label, one);
        rest = after;
    }
}

/// Keeps all of the output, and shows the line of each finished test as it comes.
struct Collector {
    all: Arc<Mutex<Vec<u8>>>,
    line: Vec<u8>,
}

impl Write for Collector {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(data);
        for &byte in data {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            if self.line.starts_with(b"test ") && !self.line.starts_with(b"test result:") {
                eprintln!("{}", String::from_utf8_lossy(&self.line));
            }
            self.line.clear();
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn program(name: &str) -> Program {
        Program {
            label: name.into(),
            path: PathBuf::from("/t").join(name),
            package_dir: "/".into(),
            tests: vec![],
        }
    }

    #[test]
    fn each_program_gets_its_own_part_of_the_output() {
        let (one, two, three) = (program("one"), program("two"), program("three"));
        let chosen = [(&one, vec!["vm::a"]), (&two, vec!["vm::b"]), (&three, vec!["vm::c"])];
        let output = format!(
            "test result: ok. 2 passed; 0 failed\n\n{END_MARK}0\ntest result: ok. 1 passed; 0 failed\n\n{END_MARK}0\nhalf"
        );
        let mut tally = Tally::default();
        read(&output, &chosen, &mut tally);
        assert_eq!(tally.passed, 3);
        assert_eq!(tally.failed.len(), 1);
        assert!(tally.failed[0].1.contains("half"));
    }
}
