//! The part of the tests that runs in the testbed: one boot, one program after another.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use super::libtest::{self, Tally};
use super::name_inside;
use super::programs::{LIMIT_SECONDS, Program};
use super::remembered::Remembered;
use crate::progress::{Step, tail};
use crate::testbed::{self, Streams, quoted};

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// How long no test may end: longer than a test waits for anything.
const SILENCE: Duration = Duration::from_secs(200);
/// How many boots a failing test gets.
const ATTEMPTS: usize = 3;
/// How much is shown of what a test printed that failed and is run again.
const FAILURE_TAIL_LINES: usize = 30;
/// Begins the line that follows a program's output; its exit status comes after it.
const END_MARK: &str = "@@ testbed: exit status ";

/// Runs the tests that need a Linux guest (unless they ran already: `vm_ran`) and, for the second time,
/// those of containers. `seen` is the digest of all that they share; those that passed with the same bytes
/// are not run again unless `fresh`.
///
/// # Errors
/// The testbed does not boot. When it dies later, that counts as a failed test.
pub fn run(programs: &[Program], vm_ran: bool, seen: &str, fresh: bool, tally: &mut Tally) -> Result<()> {
    let segments: &[&str] = if vm_ran { &["ctr"] } else { &["vm", "ctr"] };
    let mut pending = Vec::new();
    for program in programs {
        let memory = Remembered::of(program, seen)?;
        let all = program.tests_with_segment(segments);
        let count = all.len();
        let tests: Vec<&str> = all.into_iter().filter(|test| fresh || !memory.has(test)).collect();
        tally.add_remembered(count - tests.len());
        if !tests.is_empty() {
            pending.push((program, tests));
        }
    }
    for attempt in 1..=ATTEMPTS {
        if pending.is_empty() {
            break;
        }
        pending = attempt_at(pending, attempt, seen, tally)?;
    }
    Ok(())
}

/// Boots the testbed for the `pending` tests and counts those that will not be run again; returns the others.
fn attempt_at<'a>(
    pending: Vec<(&'a Program, Vec<&'a str>)>,
    attempt: usize,
    seen: &str,
    tally: &mut Tally,
) -> Result<Vec<(&'a Program, Vec<&'a str>)>> {
    let (output, error) = boot(&pending, if attempt == 1 { 2 } else { 1 })?;
    let outcomes = read(&output, &pending);
    for outcome in &outcomes {
        eprintln!("testbed: {}: {}", outcome.program.label, outcome.tally.summary());
        Remembered::of(outcome.program, seen)?.add(outcome.passed())?;
    }
    // An emulated host now and then stands still or dies; a test that fails because of hv does so again.
    let again: Vec<_> = outcomes.iter().filter_map(Outcome::repeat).collect();
    if attempt == ATTEMPTS || again.is_empty() {
        outcomes.into_iter().for_each(|outcome| outcome.count(tally));
        if let (Some(error), false) = (error, again.is_empty()) {
            tally.add_check("testbed", Err(format!("{error:#}")));
        }
        return Ok(Vec::new());
    }
    if let Some(error) = error {
        eprintln!("testbed: {error:#}");
    }
    for outcome in outcomes {
        for (name, text) in &outcome.tally.failed {
            eprintln!(
                "testbed: failed, and is run again: {name}\n{}",
                tail(text.as_bytes(), FAILURE_TAIL_LINES)
            );
        }
        outcome.count_passed(tally);
    }
    Ok(again)
}

/// What one program did in one boot.
struct Outcome<'a> {
    program: &'a Program,
    tests: Vec<&'a str>,
    tally: Tally,
    /// It ran to its end.
    ended: bool,
}

impl<'a> Outcome<'a> {
    /// The tests to run again: those that failed, or all when the program did not come to its end.
    fn repeat(&self) -> Option<(&'a Program, Vec<&'a str>)> {
        let failed = |test: &&str| self.tally.failed.iter().any(|(name, _)| name == test);
        let named = self.tests.iter().copied().filter(failed).count() == self.tally.failed.len();
        let again: Vec<&str> = if self.ended && named {
            self.tests.iter().copied().filter(|test| failed(test)).collect()
        } else {
            self.tests.clone()
        };
        (!again.is_empty()).then_some((self.program, again))
    }

    /// The tests that passed, as far as the program said so itself.
    fn passed(&self) -> Vec<String> {
        let not = |list: &[(String, String)], test: &str| list.iter().all(|(name, _)| name != test);
        let sound =
            self.ended && self.tally.failed.iter().all(|(name, _)| self.tests.contains(&name.as_str()));
        let passed = |test: &&str| sound && not(&self.tally.failed, test) && not(&self.tally.skipped, test);
        self.tests.iter().copied().filter(passed).map(str::to_owned).collect()
    }

    fn count(self, tally: &mut Tally) {
        tally.add(&format!("testbed: {}", self.program.label), self.tally);
    }

    /// Counts what will not be run again.
    fn count_passed(mut self, tally: &mut Tally) {
        if self.repeat().is_some_and(|(_, tests)| tests.len() == self.tests.len()) {
            return;
        }
        self.tally.failed.clear();
        self.count(tally);
    }
}

/// Boots the testbed with so many processors and runs the chosen tests; their output, and why the testbed ended early if it did.
fn boot(chosen: &[(&Program, Vec<&str>)], cpus: u32) -> Result<(String, Option<anyhow::Error>)> {
    let output = Arc::new(Mutex::new(Vec::new()));
    let run = testbed::Run {
        count: false,
        cpus,
        memory_mib: 4096,
        timeout: Some(LIMIT),
        silence: Some(SILENCE),
        release: false,
        drives: Vec::new(),
        extra: chosen.iter().map(|(program, _)| program.path.clone()).collect(),
        env: Vec::new(),
        command: vec!["sh".into(), "-c".into(), script(chosen)?],
    };
    let step = Step::start("testing in the testbed");
    let streams = Streams {
        stdin: None,
        stdout: Box::new(Collector { all: Arc::clone(&output), line: Vec::new() }),
        stderr: Box::new(std::io::stderr()),
    };
    let error = testbed::run(&run, streams).err();
    match &error {
        None => step.done(),
        Some(_) => drop(step),
    }
    let output = output.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((String::from_utf8_lossy(&output).into_owned(), error))
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

/// Takes the programs' outputs apart; a program that was not reached is a failure.
fn read<'a>(output: &str, chosen: &[(&'a Program, Vec<&'a str>)]) -> Vec<Outcome<'a>> {
    let mut rest = output;
    let mut outcomes = Vec::new();
    for (program, tests) in chosen {
        let (tally, ended) = match rest.split_once(END_MARK) {
            Some((text, after)) => {
                let (status, after) = after.split_once('\n').unwrap_or((after, ""));
                rest = after;
                (libtest::read(text, status == "0"), true)
            }
            None => {
                let mut tally = Tally::default();
                tally.add_check("(did not end)", Err(format!("its output so far:\n{rest}")));
                rest = "";
                (tally, false)
            }
        };
        outcomes.push(Outcome { program, tests: tests.clone(), tally, ended });
    }
    outcomes
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
        let outcomes = read(&output, &chosen);
        assert_eq!(outcomes.iter().map(|outcome| outcome.tally.passed).sum::<usize>(), 3);
        assert!(outcomes[2].tally.failed[0].1.contains("half"));
        assert_eq!(outcomes[2].repeat().unwrap().1, ["vm::c"]);
        assert!(outcomes[0].repeat().is_none());
        assert_eq!(outcomes[0].passed(), ["vm::a"]);
        assert!(outcomes[2].passed().is_empty());
    }

    #[test]
    fn only_what_failed_is_run_again_and_counted_once() {
        let one = program("one");
        let chosen = [(&one, vec!["vm::a", "vm::b"])];
        let output = format!(
            "test vm::a ... ok\ntest vm::b ... FAILED\n\nfailures:\n    vm::b\n\ntest result: FAILED. 1 passed; 1 failed\n\n{END_MARK}101\n"
        );
        let mut outcomes = read(&output, &chosen);
        assert_eq!(outcomes[0].repeat().unwrap().1, ["vm::b"]);
        assert_eq!(outcomes[0].passed(), ["vm::a"]);
        let mut tally = Tally::default();
        outcomes.remove(0).count_passed(&mut tally);
        assert_eq!((tally.passed, tally.failed.len()), (1, 0));
    }
}
