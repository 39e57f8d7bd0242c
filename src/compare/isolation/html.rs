//! The drill as a section of a page, and as a page of its own.

use hv_common::Kind;

use super::Isolation;
use super::reachable::{self, Reachable};
use super::text::{self, outcome, stops};
use crate::compare::report::html::{escaped, frame, table};

/// A page of its own.
pub fn render(isolation: &Isolation) -> String {
    let title = format!("hv drill: {}", isolation.image);
    let text = escaped(&text::render(isolation));
    let text = format!("<details><summary>As text</summary><pre class=\"wide\">{text}</pre></details>");
    frame(&title, &format!("<h1>{}</h1>{}{text}", escaped(&title), section(isolation)))
}

/// What stops each attempt, kind by kind; below it, what each tries.
pub fn section(isolation: &Isolation) -> String {
    let mut out = String::from("<section><h2>What each wall stops</h2>");
    let said = |kind: &Kind| {
        let (free, tried) = isolation.not_stopped(*kind);
        (tried > 0).then(|| {
            format!("<li><b>{free}</b><span>of {tried} attempts are not stopped by {kind}</span></li>")
        })
    };
    let cards: String = isolation.kinds.iter().filter_map(said).collect();
    out.push_str(&format!("<ul class=\"answers\">{cards}</ul>"));
    out.push_str(&reachable(isolation));
    let mut headings = vec!["attempt"];
    headings.extend(isolation.kinds.iter().map(|kind| kind.word()));
    let lines: Vec<Vec<String>> = isolation
        .drill
        .iter()
        .map(|row| {
            let cell = |kind| row.of.get(kind).map_or("not measured".into(), stops);
            [row.name.clone()].into_iter().chain(isolation.kinds.iter().map(cell)).collect()
        })
        .collect();
    out.push_str(&table(&headings, &lines));
    out.push_str(
        "<p>Each wall that is named stops the attempt by itself; it was found by leaving the others out. \
         A namespace is named as in /proc/PID/ns. Guest kernel only: it was done, to a kernel that is not the host's.</p>",
    );
    out.push_str("<details><summary>What each attempt tries, and what it gave</summary>");
    let mut headings = vec!["attempt", "tries", "hurts nobody, for it"];
    headings.extend(isolation.kinds.iter().map(|kind| kind.word()));
    let lines: Vec<Vec<String>> = isolation
        .drill
        .iter()
        .map(|row| {
            let cell =
                |kind| row.of.get(kind).map_or("not measured".into(), |verdict| outcome(verdict.outcome));
            let words = [row.name.clone(), row.tries.clone(), row.harmless.clone()];
            words.into_iter().chain(isolation.kinds.iter().map(cell)).collect()
        })
        .collect();
    out.push_str(&table(&headings, &lines));
    out.push_str("</details></section>");
    out
}

/// What is there to be attacked: counts, and the lists behind them.
fn reachable(isolation: &Isolation) -> String {
    let mut headings = vec!["reachable"];
    headings.extend(isolation.kinds.iter().map(|kind| kind.word()));
    let rows = |cell: &dyn Fn(&Reachable) -> String| -> Vec<String> {
        let of = |kind| isolation.reachable.get(kind).map_or("not measured".into(), cell);
        isolation.kinds.iter().map(of).collect()
    };
    let counts = reachable::ROWS.iter().map(|(label, cell)| [vec![(*label).to_owned()], rows(cell)].concat());
    let lists = reachable::LISTS.iter().map(|(label, cell)| [vec![(*label).to_owned()], rows(cell)].concat());
    let (counts, lists): (Vec<_>, Vec<_>) = (counts.collect(), lists.collect());
    format!(
        "{}<details><summary>What is counted</summary>{}</details>",
        table(&headings, &counts),
        table(&headings, &lists)
    )
}
