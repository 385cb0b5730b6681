//! Cells as a table, CSV or Markdown.
//!
//! In: a header and rows of text that may hold anything: names of files, programs and hosts are
//! whoever's who made them. Out: text that stays on its line, in its cell, and is text only: no
//! escape sequence for a terminal, no formula for a spreadsheet, no markup.

use std::borrow::Cow;

/// Columns of equal width under upper-case headers, without blanks at the ends of lines.
#[must_use]
pub fn aligned(header: &[String], rows: Vec<Vec<String>>) -> String {
    let header = header.iter().map(|column| column.to_uppercase()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(header)
        .chain(rows)
        .map(|cells: Vec<String>| cells.iter().map(|cell| shown(cell).into_owned()).collect())
        .collect();
    let mut widths: Vec<usize> = Vec::new();
    for line in &lines {
        widths.resize(widths.len().max(line.len()), 0);
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A table of GitHub's Markdown.
#[must_use]
pub fn markdown(header: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| markdown_cell(cell)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule = format!("| {} |\n", vec!["---"; header.len()].join(" | "));
    let mut text = line(header) + &rule;
    rows.iter().for_each(|row| text.push_str(&line(row)));
    text
}

/// What would begin a column, a link, a tag, code or emphasis stands for itself.
#[must_use]
pub fn markdown_cell(cell: &str) -> String {
    let mut text = String::with_capacity(cell.len());
    for c in shown(cell).chars() {
        if matches!(c, '\\' | '|' | '`' | '*' | '[' | ']' | '<' | '>' | '&' | '~') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// RFC 4180, header first.
#[must_use]
pub fn csv<T: AsRef<str>>(header: &[T], rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    let header: Vec<String> = header.iter().map(|column| column.as_ref().to_owned()).collect();
    for row in std::iter::once(&header).chain(rows) {
        let cells: Vec<String> = row.iter().map(|cell| csv_cell(cell)).collect();
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    }
    text
}

fn csv_cell(cell: &str) -> String {
    let cell = shown(cell);
    // Spreadsheets take these for the beginning of a formula, quoted or not.
    let apostrophe = if cell.starts_with(['=', '+', '-', '@']) { "'" } else { "" };
    if cell.contains([',', '"']) {
        format!("\"{apostrophe}{}\"", cell.replace('"', "\"\""))
    } else {
        format!("{apostrophe}{cell}")
    }
}

/// With everything written out that a terminal would obey or not show.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_hidden(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Control characters, characters without a width, separators of lines, and what reorders the text
/// around it (Unicode Standard Annex 9).
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{61c}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "=a|b,\"<i>\u{1b}[2J\n\u{202e}c";

    fn one(cell: &str) -> (Vec<String>, Vec<Vec<String>>) {
        (vec!["n".to_owned(), "x".to_owned()], vec![vec![cell.to_owned(), "1".to_owned()]])
    }

    #[test]
    fn a_hostile_name_stays_in_its_cell_and_is_text_only() {
        let (header, rows) = one(HOSTILE);
        assert_eq!(csv(&header, &rows), "n,x\r\n\"'=a|b,\"\"<i>\\u{1b}[2J\\n\\u{202e}c\",1\r\n");
        assert_eq!(
            markdown(&header, &rows),
            "| n | x |\n| --- | --- |\n\
             | =a\\|b,\"\\<i\\>\\\\u{1b}\\[2J\\\\n\\\\u{202e}c | 1 |\n"
        );
        assert_eq!(
            aligned(&header, rows),
            "N                              X\n=a|b,\"<i>\\u{1b}[2J\\n\\u{202e}c  1\n"
        );
    }

    #[test]
    fn what_harms_nobody_is_left_as_it_is() {
        let (header, rows) = one("a b_c-d größe 鍵");
        assert_eq!(csv(&header, &rows), "n,x\r\na b_c-d größe 鍵,1\r\n");
        assert_eq!(csv(&header, &one("-1").1), "n,x\r\n'-1,1\r\n");
        assert_eq!(markdown_cell("a b_c-d größe 鍵"), "a b_c-d größe 鍵");
    }
}
