//! The length of functions. A file comes in, functions that no longer fit one screen go out. It
//! counts as clippy::too_many_lines does (lines of code in the body), but sees agent-ebpf too,
//! which clippy cannot compile.

use super::Finding;
use super::source::{Source, words};

const FUNCTION_LINES_MAX: usize = 70;

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for function in functions(&source.code) {
        if function.code_lines > FUNCTION_LINES_MAX {
            let message = format!(
                "function {} has {} lines of code, at most {FUNCTION_LINES_MAX} are allowed",
                function.name, function.code_lines
            );
            findings.push(source.finding(function.line, message));
        }
    }
    findings
}

#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    line: usize,
    code_lines: usize,
}

/// Every function with a body, inner ones too.
fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    let mut line_start = 0;
    for (index, line) in code.split_inclusive('\n').enumerate() {
        let mut line_words = words(line).peekable();
        while let Some((offset, word)) = line_words.next() {
            // `fn(` is a pointer type: a name must follow, on the same line after rustfmt.
            let Some(&(name_offset, name)) = line_words.peek() else { continue };
            let between = &line[offset + word.len()..name_offset];
            if word != "fn" || !between.trim().is_empty() {
                continue;
            }
            if let Some(code_lines) = body_lines(&code[line_start + name_offset..]) {
                found.push(Function { name: name.to_string(), line: index + 1, code_lines });
            }
        }
        line_start += line.len();
    }
    found
}

/// The lines that hold code between the braces of the first body; none for a bare signature.
fn body_lines(code: &str) -> Option<usize> {
    let mut nesting = 0_usize;
    let open = code.char_indices().find_map(|(index, c)| {
        match c {
            '(' | '[' => nesting += 1,
            ')' | ']' => nesting = nesting.saturating_sub(1),
            _ => {}
        }
        (nesting == 0 && matches!(c, '{' | ';')).then_some((index, c))
    });
    let (open, '{') = open? else { return None };
    let mut depth = 0_usize;
    let close = code[open..].char_indices().find_map(|(index, c)| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(open + index)
    })?;
    let body = &code[open + 1..close];
    Some(body.lines().filter(|line| !line.trim().is_empty()).count())
}

#[cfg(test)]
mod tests {
    use super::{Function, check, functions};
    use crate::tidy::source::Source;

    #[test]
    fn bodies_are_counted_without_blank_lines_comments_and_braces() {
        let text = "//! x\ntrait T { fn no_body(a: [u8; 4]); }\npub fn f(g: fn(u8) -> u8) {\n    \
                    // why\n\n    a();\n    if b { \"}\" }\n}\nfn empty() {}\n";
        let expected = [("f", 3, 2), ("empty", 9, 0)].map(|(name, line, code_lines)| Function {
            name: name.to_string(),
            line,
            code_lines,
        });
        assert_eq!(functions(&Source::new("a.rs", text).code), expected);
    }

    #[test]
    fn a_function_of_71_lines_is_named_with_its_place() {
        let body = |lines| format!("//! x\nfn long() {{\n{}}}\n", "    a();\n".repeat(lines));
        assert_eq!(check(&Source::new("a.rs", &body(70))), []);
        let source = Source::new("a.rs", &body(71));
        let message = "function long has 71 lines of code, at most 70 are allowed";
        assert_eq!(check(&source), [source.finding(2, message)]);
    }
}
