//! Text becomes logical lines.

use super::words;

/// A here-document of a RUN, COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, without quotes: the name of the file for COPY and ADD.
    pub name: String,
    /// Its lines. Leading tabs are gone if it began with `<<-`.
    pub contents: String,
    /// Whether variables in it are replaced: its name had no quotes.
    pub expand: bool,
}

/// One instruction's text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Where it begins, counted from 1.
    pub(super) line: usize,
    /// Continuations joined, comments within left out.
    pub(super) text: String,
    pub(super) heredocs: Vec<Heredoc>,
}

#[derive(Debug)]
pub(super) struct Lines {
    pub(super) escape: char,
    pub(super) lines: Vec<Line>,
}

/// The line of a mistake, and what it is.
type Wrong = (usize, String);

pub(super) fn split(text: &str) -> Result<Lines, Wrong> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let physical: Vec<&str> = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    let escape = directives(&physical)?;
    let mut lines = Vec::new();
    let mut at = 0;
    while at < physical.len() {
        if is_empty_or_comment(physical[at]) {
            at += 1;
            continue;
        }
        let line = at + 1;
        let text = logical(&physical, &mut at, escape);
        if text.trim().is_empty() {
            continue;
        }
        let heredocs = heredocs(&physical, &mut at, &text, line, escape)?;
        lines.push(Line { line, text: text.trim().to_owned(), heredocs });
    }
    Ok(Lines { escape, lines })
}

fn is_empty_or_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// The escape character, which a directive above everything else may set. The directives end with the first line
/// that is none.
fn directives(physical: &[&str]) -> Result<char, Wrong> {
    let mut escape = None;
    for (number, line) in physical.iter().enumerate() {
        let directive = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('='));
        let Some((key, value)) = directive.map(|(key, value)| (key.trim(), value.trim())) else { break };
        match key.to_ascii_lowercase().as_str() {
            "escape" => {
                if escape.is_some() {
                    return Err((number + 1, "a second `escape` directive; leave one out".into()));
                }
                escape = Some(match value {
                    "\\" => '\\',
                    "`" => '`',
                    other => {
                        let other = other.escape_debug();
                        return Err((number + 1, format!("`escape={other}`: it is either \\ or `")));
                    }
                });
            }
            // The frontend to fetch: there is one only, this. What `check` turns off, there is not.
            "syntax" | "check" => {}
            _ => break,
        }
    }
    Ok(escape.unwrap_or('\\'))
}

/// Joins lines that end in the escape character.
fn logical(physical: &[&str], at: &mut usize, escape: char) -> String {
    let mut text = String::new();
    let mut first = true;
    while *at < physical.len() {
        let line = physical[*at];
        *at += 1;
        if !first && is_empty_or_comment(line) {
            continue;
        }
        let line = if first { line.trim_start() } else { line };
        first = false;
        match line.trim_end().strip_suffix(escape) {
            Some(start) => text.push_str(start),
            None => {
                text.push_str(line);
                break;
            }
        }
    }
    text
}

/// Takes the here-documents that `text` announces from the lines below it.
fn heredocs(
    physical: &[&str],
    at: &mut usize,
    text: &str,
    line: usize,
    escape: char,
) -> Result<Vec<Heredoc>, Wrong> {
    let verb = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    let verb = if verb == "ONBUILD" {
        text.split_whitespace().nth(1).unwrap_or_default().to_ascii_uppercase()
    } else {
        verb
    };
    if !matches!(verb.as_str(), "RUN" | "COPY" | "ADD") || !text.contains("<<") {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for word in words::split(text, escape) {
        let Some((name, chomp, expand)) = opening(&word) else { continue };
        let mut contents = String::new();
        loop {
            let Some(one) = physical.get(*at) else {
                let what = format!(
                    "the here-document `{}` has no end: put a line `{name}` below it",
                    word.escape_debug()
                );
                return Err((line, what));
            };
            *at += 1;
            let one = if chomp { one.trim_start_matches('\t') } else { one };
            if one == name {
                break;
            }
            contents.push_str(one);
            contents.push('\n');
        }
        found.push(Heredoc { name, contents, expand });
    }
    Ok(found)
}

/// `[N]<<[-]NAME`: name, whether tabs are cut, whether variables are replaced.
pub(super) fn opening(word: &str) -> Option<(String, bool, bool)> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let quoted = rest.contains(['"', '\'']);
    let name: String = rest.chars().filter(|c| !matches!(c, '"' | '\'')).collect();
    let is_name = !name.is_empty() && !name.contains('<');
    is_name.then_some((name, chomp, !quoted))
}
