//! A line for each attempt and kind.

use std::fmt::Write;

use super::Isolation;
use super::text::{outcome, stops};

/// `attempt,kind,outcome,stopped_by,tries,harmless`; what stops it, each by itself, joined by `+` (RFC 4180).
pub fn render(isolation: &Isolation) -> String {
    let mut out = String::from("attempt,kind,outcome,stopped_by,tries,harmless\r\n");
    for row in &isolation.drill {
        for (kind, verdict) in &row.of {
            let (outcome, stops) = (outcome(verdict.outcome), stops(verdict).replace(' ', "-"));
            let [tries, harmless] = [&row.tries, &row.harmless].map(|text| text.replace('"', "\"\""));
            let _ = write!(out, "{},{kind},{outcome},{stops},\"{tries}\",\"{harmless}\"\r\n", row.name);
        }
    }
    out
}
