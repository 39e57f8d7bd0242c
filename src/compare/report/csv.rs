//! A line for each launch, for a spreadsheet or a data frame.

use std::fmt::Write;

use crate::compare::Report;
use crate::compare::inside::{Done, Inside};
use crate::compare::rows::SECTIONS;
use crate::compare::scale::{Round, Scale, Start, Step};

/// The report's samples: who, why, where in the order, every figure in its unit (nanoseconds, bytes, counts),
/// and the failure. A figure that was not measured is an empty field (RFC 4180).
pub fn render(report: &Report) -> String {
    let rows = || SECTIONS.iter().flat_map(|section| section.rows);
    let mut out = String::from("kind,role,block,place,warm_up");
    rows().for_each(|row| {
        let _ = write!(out, ",{}", row.id);
    });
    out.push_str(",failure\r\n");
    for sample in &report.samples {
        let role = serde_json::to_value(sample.role).unwrap_or_default();
        let warm_up = sample.block < report.warm_up;
        let role = role.as_str().unwrap_or_default();
        let _ = write!(out, "{},{role},{},{},{warm_up}", sample.kind, sample.block, sample.place);
        for row in rows() {
            match (row.of)(sample) {
                Some(value) => write!(out, ",{value}"),
                None => write!(out, ","),
            }
            .unwrap_or_default();
        }
        let _ = write!(out, ",{}\r\n", quoted(sample.failure.as_deref().unwrap_or_default()));
    }
    out
}

/// Sandboxes beside each other: a line for each start, with how many ran before it and what all held after it.
pub fn scale(scale: &Scale) -> String {
    let mut out = String::from("kind,round,how,running,asked,first_byte,pss,rss,available,failure\r\n");
    for round in &scale.rounds {
        let failure = quoted(round.failure.as_deref().unwrap_or_default());
        let Round { kind, round: number, .. } = round;
        let known = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
        if round.steps.is_empty() {
            let _ = write!(out, "{kind},{number},one-by-one,0,,,,,{},{failure}\r\n", known(round.available));
        }
        for (running, Step { start, pss, rss, available }) in round.steps.iter().enumerate() {
            let memory = [pss, rss, available].map(|value| known(*value)).join(",");
            let Start { asked, first_byte } = start;
            let _ = write!(
                out,
                "{kind},{number},one-by-one,{running},{asked},{first_byte},{memory},{failure}\r\n"
            );
        }
        for Start { asked, first_byte } in &round.burst {
            let _ = write!(out, "{kind},{number},at-once,,{asked},{first_byte},,,,{failure}\r\n");
        }
    }
    out
}

/// Workloads inside: a line for each, as the program inside and the exits outside tell it.
pub fn inside(inside: &Inside) -> String {
    let mut out =
        String::from("kind,role,round,warm_up,workload,operations,nanoseconds,exits,place,failure\r\n");
    for round in &inside.rounds {
        let role = serde_json::to_value(round.role).unwrap_or_default();
        let who = format!("{},{},{}", round.kind, role.as_str().unwrap_or_default(), round.round);
        let warm_up = round.round == 0;
        for Done { outcome, exits } in &round.done {
            let exits = exits.map_or(String::new(), |exits| exits.to_string());
            let place = quoted(outcome.place.as_deref().unwrap_or_default());
            let failure = quoted(outcome.failure.as_ref().or(round.failure.as_ref()).map_or("", |why| why));
            let (name, counts) = (quoted(&outcome.name), (outcome.operations, outcome.nanoseconds));
            let _ =
                write!(out, "{who},{warm_up},{name},{},{},{exits},{place},{failure}\r\n", counts.0, counts.1);
        }
        if round.done.is_empty() {
            let failure = quoted(round.failure.as_deref().unwrap_or_default());
            let _ = write!(out, "{who},{warm_up},,,,,,{failure}\r\n");
        }
    }
    out
}

/// In quotation marks, and with a leading apostrophe where a spreadsheet would calculate instead of show.
pub(super) fn quoted(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::example;

    #[test]
    fn every_launch_is_a_line_with_all_fields() {
        let report = example::report(3);
        let text = render(&report);
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), report.samples.len() + 1);
        let fields = lines[0].split(',').count();
        assert!(lines.iter().all(|line| line.split(',').count() == fields), "{text}");
        assert!(lines[0].contains("start.ready") && text.contains(",twin,"));
    }

    #[test]
    fn every_start_beside_others_is_a_line_with_all_fields() {
        let mut rounds = example::with_scale(2).scale.unwrap();
        rounds.rounds[0].steps.clear();
        let text = scale(&rounds);
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), 1 + 2 * 3 * 16 - 8 + 1);
        assert!(lines.iter().all(|line| line.split(',').count() == 10), "{text}");
    }

    #[test]
    fn every_workload_inside_is_a_line_with_all_fields() {
        let mut report = example::with_inside(2).inside.unwrap();
        report.rounds[0].done.clear();
        let text = inside(&report);
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), 1 + (3 * 3 * 2 - 1) * 17 + 1);
        assert!(lines.iter().all(|line| line.split(',').count() == 10), "{text}");
    }

    #[test]
    fn failures_cannot_break_out_of_their_field() {
        assert_eq!(quoted("a \"b\", c"), "\"a \"\"b\"\", c\"");
        assert_eq!(quoted("=1+1"), "\"'=1+1\"");
        assert_eq!(quoted(""), "");
    }
}
