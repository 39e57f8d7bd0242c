//! A table in Markdown, as the documents have it.

/// The lines of a table; all columns but the first are aligned to the right.
pub fn markdown(header: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(header.to_vec());
    text.push_str(&line(
        header.iter().enumerate().map(|(at, _)| if at == 0 { "---" } else { "--:" }).collect(),
    ));
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// Microseconds as milliseconds with one digit.
pub fn ms(us: u64) -> String {
    format!("{}.{}", us / 1000, us % 1000 / 100)
}

/// A ratio with two digits.
pub fn ratio(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.2}", part as f64 / whole as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_what_markdown_wants() {
        let text = markdown(&["a", "b"], &[vec!["x".into(), ms(1999)]]);
        assert_eq!(text, "| a | b |\n| --- | --: |\n| x | 1.9 |\n");
        assert_eq!(ratio(1, 0), "-");
        assert_eq!(ratio(1, 3), "0.33");
    }
}
