//! Reads what a Rust test program prints (the plain format, with `--show-output`).

/// What became of the tests of one program, or of several added up.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many tests passed and did not say that they were skipped.
    pub passed: usize,
    /// How many of them passed in an earlier run.
    pub remembered: usize,
    /// Tests that did not run, with the reason.
    pub skipped: Vec<(String, String)>,
    /// Tests that failed, with what they printed.
    pub failed: Vec<(String, String)>,
}

impl Tally {
    /// Adds `other`, its names preceded by `prefix`.
    pub fn add(&mut self, prefix: &str, other: Tally) {
        let named = |list: Vec<(String, String)>| {
            list.into_iter().map(|(name, text)| (format!("{prefix} {name}"), text)).collect::<Vec<_>>()
        };
        self.passed += other.passed;
        self.remembered += other.remembered;
        self.skipped.extend(named(other.skipped));
        self.failed.extend(named(other.failed));
    }

    /// Adds tests that passed in an earlier run with the same bytes.
    pub fn add_remembered(&mut self, count: usize) {
        self.passed += count;
        self.remembered += count;
    }

    /// Adds one thing that either worked or failed with an explanation.
    pub fn add_check(&mut self, name: &str, result: Result<(), String>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(text) => self.failed.push((name.to_owned(), text)),
        }
    }

    /// The last line of a test run.
    pub fn summary(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped.len())
    }
}

/// Where in the output a line is.
enum Part {
    Results,
    Successes,
    Failures,
}

/// Reads the output of one test program that ended with success (`success`) or not. A program that
/// failed without naming a failed test counts as one failure, with all of its output.
pub fn read(output: &str, success: bool) -> Tally {
    let mut tally = Tally::default();
    let mut part = Part::Results;
    // The test whose captured output is being read, and that output.
    let mut block: Option<(String, String)> = None;
    let mut failed_names = Vec::new();
    let mut complete = false;
    let mut reported_passed: usize = 0;
    let mut ignored = 0;
    for line in output.lines() {
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            close(&mut tally, &part, block.replace((name.to_owned(), String::new())));
        } else if line == "successes:" || line == "failures:" {
            close(&mut tally, &part, block.take());
            part = if line == "successes:" { Part::Successes } else { Part::Failures };
        } else if let Some(result) = line.strip_prefix("test result: ") {
            close(&mut tally, &part, block.take());
            complete |= result.contains("passed;");
            reported_passed += passed_count(result);
            // Documentation tests print one such line for each crate.
            part = Part::Results;
        } else if let Some((_, text)) = &mut block {
            text.push_str(line);
            text.push('\n');
        } else if matches!(part, Part::Results) {
            match result_line(line) {
                Some((name, "FAILED")) => failed_names.push(name.to_owned()),
                Some((name, result)) if result.starts_with("ignored") => {
                    let reason = result.trim_start_matches("ignored").trim_start_matches(", ");
                    let reason = if reason.is_empty() { "marked as ignored" } else { reason };
                    tally.skipped.push((name.to_owned(), reason.to_owned()));
                    ignored += 1;
                }
                _ => {}
            }
        }
    }
    // Those that said they were skipped have passed as far as the result line knows.
    let said_skipped = tally.skipped.len() - ignored;
    tally.passed = reported_passed.saturating_sub(said_skipped);
    for name in failed_names {
        if !tally.failed.iter().any(|(known, _)| *known == name) {
            tally.failed.push((name, "(printed nothing)".to_owned()));
        }
    }
    if (!success || !complete) && tally.failed.is_empty() {
        tally.failed.push(("(the whole program)".to_owned(), output.to_owned()));
    }
    tally
}

/// Ends the block of one test's output.
fn close(tally: &mut Tally, part: &Part, block: Option<(String, String)>) {
    let Some((name, text)) = block else { return };
    match part {
        Part::Failures => tally.failed.push((name, text)),
        Part::Successes => {
            if let Some(reason) = text.lines().find_map(|line| line.strip_prefix("skipped: ")) {
                tally.skipped.push((name, reason.to_owned()));
            }
        }
        Part::Results => {}
    }
}

/// `test NAME ... RESULT`, the result possibly followed by a time.
fn result_line(line: &str) -> Option<(&str, &str)> {
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((name, result.trim()))
}

/// The number before `passed` in what follows `test result: `.
fn passed_count(result: &str) -> usize {
    result
        .split(['.', ';'])
        .find_map(|part| part.trim().strip_suffix(" passed"))
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: &str = "
running 5 tests
test a::good ... ok
test ctr::skips ... ok
test vm::bad ... FAILED
test slow ... ignored, needs a day
test quiet ... FAILED

successes:

---- a::good stdout ----
hello

---- ctr::skips stdout ----
skipped: no cgroup here


successes:
    a::good
    ctr::skips

failures:

---- vm::bad stdout ----
thread panicked
skipped: not really

failures:
    quiet
    vm::bad

test result: FAILED. 2 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

";

    #[test]
    fn reads_every_kind_of_end() {
        let tally = read(MIXED, false);
        assert_eq!(tally.passed, 1);
        assert_eq!(
            tally.skipped,
            [
                ("slow".to_owned(), "needs a day".to_owned()),
                ("ctr::skips".to_owned(), "no cgroup here".to_owned())
            ]
        );
        assert_eq!(tally.failed.len(), 2);
        assert_eq!(
            tally.failed[0],
            ("vm::bad".to_owned(), "thread panicked\nskipped: not really\n\n".to_owned())
        );
        assert_eq!(tally.failed[1].0, "quiet");
        assert_eq!(tally.summary(), "1 passed, 2 failed, 2 skipped");
    }

    #[test]
    fn a_crash_is_a_failure_with_its_output() {
        let tally = read("running 2 tests\ntest a ... ok\nSegmentation fault\n", false);
        assert_eq!(tally.failed.len(), 1);
        assert!(tally.failed[0].1.contains("Segmentation"));
        assert_eq!(read("", true).failed.len(), 1, "a program that says nothing has not passed");
    }

    #[test]
    fn several_result_lines_add_up() {
        let line = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(read(&line.repeat(2), true).passed, 6);
    }
}
