//! The frame of the page: words, tables and style around the plots.

use super::plots::{self, Plot};
use super::{escaped, table};
use crate::compare::figures::{self, Figure};
use crate::compare::report::text::{self, amount};
use crate::compare::rows::SECTIONS;
use crate::compare::stats::Estimate;
use crate::compare::{Contender, Report, equality};

pub(super) const STYLE: &str = include_str!("style.css");

/// The whole page.
pub fn render(report: &Report) -> String {
    let figures = figures::all(report);
    let title = format!("hv compare: {}", report.image);
    let mut out = format!("<h1>{}</h1>", escaped(&title));
    out.push_str(&answers(report, &figures));
    out.push_str(&conditions(report));
    out.push_str("<section><h2>All figures</h2>");
    SECTIONS
        .iter()
        .for_each(|section| out.push_str(&section_table(report, &figures, section.title, section.rows)));
    out.push_str("</section>");
    plots::all(report, &figures).iter().for_each(|plot| out.push_str(&figure(plot)));
    out.push_str(&format!(
        "<details><summary>As text</summary><pre class=\"wide\">{}</pre></details>",
        escaped(&text::render(report))
    ));
    out.push_str("<footer><p>Every sample is in report.json and report.csv beside this page; ");
    out.push_str("<code>hv compare --replay report.json</code> computes all of it again.</p></footer>");
    frame(&title, &out)
}

/// A page with this title (text) and body (markup).
pub(crate) fn frame(title: &str, body: &str) -> String {
    let mut out = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    out.push_str("<meta name=\"color-scheme\" content=\"light dark\">");
    // Nothing may be loaded from anywhere, and nothing may run.
    out.push_str("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">");
    let title = escaped(title);
    out.push_str(&format!(
        "<title>{title}</title><link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head><body><main>"
    ));
    out.push_str(body);
    out.push_str("</main></body></html>\n");
    out
}

/// The ratios that answer the question, large.
fn answers(report: &Report, figures: &[Figure]) -> String {
    let Some(name) = figures::shown_ratio(report) else { return String::new() };
    let (over, under) = name.split_once('/').unwrap_or((&name, ""));
    let card = |id: &str, what: &str| {
        let ratio = figures.iter().find(|figure| figure.id == id)?.ratios.get(&name)?;
        let interval = ratio.paired.interval.map_or("too few launches for an interval".to_owned(), |ends| {
            format!("95 % interval {:.2} to {:.2}", ends.low, ends.high)
        });
        let verdict = if ratio.differs { "" } else { ", no difference beyond the noise" };
        Some(format!(
            "<li><b>{:.2}×</b><span>{what}</span><small>{interval}{verdict}</small></li>",
            ratio.paired.ratio
        ))
    };
    let cards: Vec<String> = [
        ("start.ready", "the time to the first byte"),
        ("end.cpu", "the processor time"),
        ("memory.sum", "the memory while idle"),
    ]
    .into_iter()
    .filter_map(|(id, what)| card(id, what))
    .collect();
    if cards.is_empty() {
        return String::new();
    }
    format!(
        "<section><h2>{over} takes, of what {under} takes</h2><ul class=\"answers\">{}</ul></section>",
        cards.concat()
    )
}

/// What was run, where, and what makes it not comparable.
fn conditions(report: &Report) -> String {
    let host = &report.host;
    let mut lines = vec![
        vec!["runs".to_owned(), report.workload.clone()],
        vec!["limits".to_owned(), report.limits.clone()],
        vec![
            "host".to_owned(),
            format!("{}, {} cpus, Linux {}, cgroup {}", host.cpu, host.cpus, host.kernel, host.cgroup),
        ],
    ];
    lines.extend(report.guest_kernel.iter().map(|kernel| vec!["guest's kernel".to_owned(), kernel.clone()]));
    lines.push(vec![
        "order".to_owned(),
        format!("{} random blocks, seed {}, {} more as warm-up", report.runs, report.seed, report.warm_up),
    ]);
    lines.extend(report.skipped.iter().map(|(who, why)| vec![format!("no {who}"), why.clone()]));
    lines.extend(equality::marks(report).into_iter().map(|mark| vec!["not equal".to_owned(), mark]));
    let failed = report.samples.iter().filter(|sample| sample.failure.is_some()).count();
    lines.push(vec!["failed".to_owned(), format!("{failed} of {} launches", report.samples.len())]);
    let stamps: String = host
        .stamps
        .iter()
        .map(|stamp| {
            format!("<p class=\"stamp\">Not comparable with other machines: {}.</p>", escaped(stamp))
        })
        .collect();
    let settings: Vec<Vec<String>> =
        host.settings.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect();
    format!(
        "<section><h2>Conditions</h2>{stamps}{}<details><summary>Settings of the host</summary>{}</details></section>",
        table(&["", ""], &lines),
        table(&["setting", "value"], &settings)
    )
}

fn section_table(
    report: &Report,
    figures: &[Figure],
    title: &str,
    rows: &[crate::compare::rows::Row],
) -> String {
    let name = figures::shown_ratio(report).unwrap_or_default();
    let shown = |figure: &Figure, who: &Contender| {
        figure.of.get(who).map_or("–".to_owned(), |estimate| cell(figure, estimate))
    };
    let extra = title.starts_with("start").then_some("start.ready-cold");
    let ids = rows.iter().map(|row| row.id).chain(extra);
    let lines: Vec<Vec<String>> = ids
        .filter_map(|id| figures.iter().find(|figure| figure.id == id))
        .filter(|figure| !figure.of.is_empty())
        .map(|figure| {
            let ratio = figure.ratios.get(&name).map_or("–".to_owned(), |ratio| {
                let mark = if ratio.differs { "" } else { "~" };
                format!("{mark}{:.2}×", ratio.paired.ratio)
            });
            let cells = report.contenders.iter().map(|who| shown(figure, who));
            [figure.label.clone()].into_iter().chain(cells).chain([ratio]).collect()
        })
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    let words: Vec<&str> = report.contenders.iter().map(Contender::word).collect();
    let headings: Vec<&str> = [title].into_iter().chain(words).chain([name.as_str()]).collect();
    table(&headings, &lines)
}

fn cell(figure: &Figure, estimate: &Estimate) -> String {
    let middle = amount(figure.unit, estimate.median);
    let ends = estimate.interval.map_or((estimate.min, estimate.max), |ends| (ends.low, ends.high));
    let bare = |value: f64| amount(figure.unit, value).split(' ').next().unwrap_or_default().to_owned();
    format!("{middle} [{}–{}]", bare(ends.0), bare(ends.1))
}

fn figure(plot: &Plot) -> String {
    let legend: String = plot
        .legend
        .iter()
        .map(|(class, word)| format!("<li><svg class=\"key\" aria-hidden=\"true\"><rect class=\"{class}\" width=\"14\" height=\"14\"/></svg>{}</li>", escaped(word)))
        .collect();
    let legend = if legend.is_empty() { legend } else { format!("<ul class=\"legend\">{legend}</ul>") };
    format!(
        "<section><h2>{}</h2><figure>{}{legend}<figcaption>{}</figcaption></figure><details><summary>Table</summary>{}</details></section>",
        escaped(plot.title),
        plot.svg,
        escaped(&plot.caption),
        plot.table
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::example;

    #[test]
    fn nothing_is_loaded_and_nothing_runs() {
        let page = render(&example::report(12));
        for forbidden in ["http://", "https://", "<script", "<img", "@import", "url(", "javascript:"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        assert_eq!(page.matches("class=\"plot\"").count(), 5, "one of each plot");
        assert_eq!(page.matches("<summary>Table</summary>").count(), 5, "a table behind each");
        assert!(!page.contains("NaN"));
    }

    #[test]
    fn names_from_an_image_do_not_become_markup() {
        let mut report = example::report(3);
        report.image = "</title><script>alert(1)</script>".into();
        report.host.stamps = vec!["<b>".into()];
        report.samples[0].crossings.insert("<svg onload=x>".into(), 9999);
        report.samples.iter_mut().for_each(|sample| {
            sample.crossings.insert("\"><i>".into(), 5000);
        });
        let page = render(&report);
        assert!(
            !page.contains("<script")
                && !page.contains("<b>.")
                && !page.contains("<i>")
                && !page.contains("<svg onload")
        );
    }

    #[test]
    fn a_report_without_counted_launches_is_a_page_all_the_same() {
        let mut report = example::report(1);
        report.samples.iter_mut().for_each(|sample| sample.failure = Some("it did not start".into()));
        let page = render(&report);
        assert!(page.contains("it did not start") && page.ends_with("</html>\n"));
    }
}
