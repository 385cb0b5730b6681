//! The shape of files: header, length, width, name. A file comes in, what does not fit goes out.
//! It never judges what the code does.

use super::Finding;
use super::source::Source;

const FILE_LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 100;

/// Names that say nothing about what is inside, and the old module layout.
const NAMES_REFUSED: [&str; 6] =
    ["mod.rs", "utils.rs", "util.rs", "helpers.rs", "helper.rs", "types.rs"];

/// Every file opens with `//!`, after a shebang and inner attributes.
pub(super) fn check_header(source: &Source) -> Vec<Finding> {
    let mut open_brackets = 0_usize;
    for (index, (line, code)) in source.text.lines().zip(source.code.lines()).enumerate() {
        let is_skipped = line.trim().is_empty() || line.starts_with("#!") || open_brackets > 0;
        if !is_skipped {
            if line.starts_with("//!") {
                return Vec::new();
            }
            return vec![source.finding(index + 1, HEADER_MESSAGE)];
        }
        // An inner attribute may go over several lines.
        open_brackets += code.matches('[').count();
        open_brackets = open_brackets.saturating_sub(code.matches(']').count());
    }
    vec![source.finding(1, HEADER_MESSAGE)]
}

const HEADER_MESSAGE: &str =
    "a file opens with `//!`: what comes in, what goes out, what it never does";

/// Production code of a file stays readable in one go.
pub(super) fn check_length(source: &Source) -> Vec<Finding> {
    let lines = source.production_lines();
    if source.is_test() || lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    let message = format!("{lines} production lines, at most {FILE_LINES_MAX} are allowed");
    vec![source.finding(FILE_LINES_MAX + 1, message)]
}

/// Counted in characters, as an editor shows them. A test quotes input and output as they are: the
/// insides of its literals do not count.
pub(super) fn check_width(source: &Source) -> Vec<Finding> {
    let tests_begin = if source.is_test() { 0 } else { source.production_lines() };
    let mut findings = Vec::new();
    for (index, (line, code)) in source.text.lines().zip(source.code.lines()).enumerate() {
        let columns = line.chars().count();
        let quoted = if index >= tests_begin { code.matches('"').count() } else { 0 };
        if columns.saturating_sub(quoted) > COLUMNS_MAX {
            let message = format!("{columns} columns, at most {COLUMNS_MAX} are allowed");
            findings.push(source.finding(index + 1, message));
        }
    }
    findings
}

/// A file is named after what it holds.
pub(super) fn check_name(source: &Source) -> Vec<Finding> {
    let refused = source.path.rsplit('/').next().filter(|name| NAMES_REFUSED.contains(name));
    refused
        .map(|name| source.finding(1, format!("no file is called {name}: name what it holds")))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{HEADER_MESSAGE, check_header, check_length, check_name, check_width};
    use crate::tidy::source::Source;

    fn source(text: &str) -> Source {
        Source::new("agent/src/node.rs", text)
    }

    #[test]
    fn a_header_may_only_follow_a_shebang_and_inner_attributes() {
        for good in [
            "//! x\nfn f() {}\n",
            "#!/usr/bin/env run\n//! x\n",
            "#![no_std]\n\n//! x\n",
            "#![expect(\n    a,\n    reason = \"]\"\n)]\n//! x\n",
        ] {
            assert_eq!(check_header(&source(good)), [], "{good}");
        }
        for (bad, line) in [("fn f() {}\n//! x\n", 1), ("// x\n", 1), ("#![no_std]\nuse a;\n", 2)] {
            assert_eq!(check_header(&source(bad)), [source(bad).finding(line, HEADER_MESSAGE)]);
        }
        assert_eq!(check_header(&source("")), [source("").finding(1, HEADER_MESSAGE)]);
    }

    #[test]
    fn tests_do_not_count_as_production_lines() {
        let text = |lines| format!("{}#[cfg(test)]\nmod tests {{}}\n", "a();\n".repeat(lines));
        assert_eq!(check_length(&source(&text(600))), []);
        let long = source(&text(601));
        let message = "601 production lines, at most 600 are allowed";
        assert_eq!(check_length(&long), [long.finding(601, message)]);
        assert_eq!(check_length(&Source::new("tests/kernel/main.rs", &text(601))), []);
    }

    #[test]
    fn width_is_counted_in_characters() {
        assert_eq!(check_width(&source(&format!("//{}\n", "ü".repeat(98)))), []);
        let wide = source(&format!("a\n//{}\n", "ü".repeat(99)));
        assert_eq!(check_width(&wide), [wide.finding(2, "101 columns, at most 100 are allowed")]);
    }

    #[test]
    fn only_tests_quote_wide_output() {
        let quoted = format!("    let out = \"{}\";\n", "x".repeat(100));
        let test = |text: &str| Source::new("tests/cli/main.rs", text);
        assert_eq!(check_width(&test(&quoted)), []);
        assert_eq!(check_width(&source(&quoted)).len(), 1);
        let comment = format!("// \"{}\"\n", "x".repeat(100));
        assert_eq!(check_width(&test(&comment)).len(), 1);
        let code = format!("    call({});\n", "x".repeat(100));
        assert_eq!(check_width(&test(&code)).len(), 1);
    }

    #[test]
    fn names_that_say_nothing_are_refused() {
        for name in ["mod.rs", "utils.rs", "util.rs", "helpers.rs", "helper.rs", "types.rs"] {
            let bad = Source::new(&format!("agent/src/{name}"), "");
            let message = format!("no file is called {name}: name what it holds");
            assert_eq!(check_name(&bad), [bad.finding(1, message)]);
        }
        assert_eq!(check_name(&Source::new("agent/src/model.rs", "")), []);
    }
}
