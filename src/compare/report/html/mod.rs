//! One page with everything: no network, no script, light and dark, readable on a phone and on paper.
//!
//! Every plot is inline SVG whose horizontal positions are percentages, so that bars stretch with the page and
//! letters do not; below each is the table it was drawn from.
//!
//! - `page`: the frame, its words and its style; `svg`: the few shapes that plots are made of;
//! - `plots`: one file a plot; `picture`: one of them without the page.

mod page;
mod picture;
mod plots;
mod svg;

pub(crate) use page::frame;
pub use page::render;
pub use picture::render as picture;

/// `text` as the content of an element or a quoted attribute.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter => out.push(letter),
        }
    }
    out
}

/// A table: the headings, then a line for each row; the first cell of each line is a heading too.
pub(crate) fn table(headings: &[&str], lines: &[Vec<String>]) -> String {
    let mut out = String::from("<div class=\"wide\"><table><thead><tr>");
    headings.iter().for_each(|heading| out.push_str(&format!("<th scope=\"col\">{}</th>", escaped(heading))));
    out.push_str("</tr></thead><tbody>");
    for line in lines {
        out.push_str("<tr>");
        for (number, cell) in line.iter().enumerate() {
            let (open, close) = if number == 0 { ("<th scope=\"row\">", "</th>") } else { ("<td>", "</td>") };
            out.push_str(&format!("{open}{}{close}", escaped(cell)));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_shown_and_not_obeyed() {
        let cell = "<img src=x onerror=\"a('b')\">&".to_owned();
        let table = table(&["<b>"], &[vec![cell]]);
        assert!(!table.contains("<img") && !table.contains("<b>"), "{table}");
        assert!(table.contains("&lt;img src=x onerror=&quot;a(&#39;b&#39;)&quot;&gt;&amp;"), "{table}");
    }
}
