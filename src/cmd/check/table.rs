//! The table of `hv check`, 80 columns wide.

use std::fmt::Write;

use super::{Report, State};

const WIDTH: usize = 80;
/// Where the third column begins.
const INDENT: usize = 29;

/// The report as text.
pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    for row in &report.rows {
        let state = match row.state {
            State::Ok => "ok",
            State::Limited => "limited",
            State::Missing => "MISSING",
        };
        let mut cell = wrap(&row.found, WIDTH - INDENT);
        if !row.mend.is_empty() {
            cell.extend(wrap(&format!("mend: {}", row.mend), WIDTH - INDENT));
        }
        let mut lines = cell.into_iter();
        let first = lines.next().unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", format!("{:<20} {state:<7} {first}", row.what).trim_end());
        for line in lines {
            let _ = writeln!(text, "{:INDENT$}{line}", "");
        }
    }
    let verdict = match (report.vm, report.ctr) {
        (true, true) => "Both kinds can run here.",
        (false, true) => "Containers can run here, microVMs cannot.",
        (true, false) => "MicroVMs can run here, containers cannot.",
        (false, false) => "Neither kind can run here.",
    };
    let _ = writeln!(text, "{verdict}");
    text
}

/// Breaks `text` at blanks; a longer word keeps a line to itself.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::check::Row;

    #[test]
    fn fits_in_80_columns() {
        let long = "word ".repeat(40);
        let rows =
            vec![Row::ok("kvm", "fine"), Row::lacking("user namespaces", State::Limited, &long, &long)];
        let text = render(&Report { vm: true, ctr: false, rows });
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.starts_with("kvm                  ok      fine\n"), "{text}");
        assert!(text.ends_with("containers cannot.\n"));
    }
}
