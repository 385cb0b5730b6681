//! One Rust file as the rules read it. Its text comes in; the text, and the text with comments and
//! literals blanked out, go out line by line. It is no parser: it knows where code is, not what it
//! means.

use super::Finding;

/// A Rust file.
pub(super) struct Source {
    /// From the root of the checkout, with `/`.
    pub(super) path: String,
    /// As it stands in the file.
    pub(super) text: String,
    /// The same lines; comments are spaces, the insides of string and char literals are `"`.
    pub(super) code: String,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_string(), text: text.to_string(), code: blank(text) }
    }

    pub(super) fn finding(&self, line: usize, message: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, message: message.into() }
    }

    /// How many lines come before the tests at the end of the file.
    pub(super) fn production_lines(&self) -> usize {
        let lines: Vec<_> = self.code.lines().collect();
        let is_test_module = |start: usize| {
            // `#[cfg(test)]` may also stand on a single function or import.
            let after = lines[start + 1..].iter().find(|line| {
                let line = line.trim();
                !line.is_empty() && !line.starts_with("#[")
            });
            after.is_some_and(|line| words(line).any(|(_, word)| word == "mod"))
        };
        (0..lines.len())
            .find(|&index| lines[index].trim() == "#[cfg(test)]" && is_test_module(index))
            .unwrap_or(lines.len())
    }

    /// Whether the whole file is test code.
    pub(super) fn is_test(&self) -> bool {
        let suites = [
            "tests/kernel/",
            "tests/kernels/",
            "tests/cli/",
            "tests/scenarios/",
            "tests/conformance/",
            "tests/cluster/",
        ];
        self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
            || suites.iter().any(|suite| self.path.starts_with(suite))
    }
}

/// The identifiers of a line of blanked code with their byte offsets.
pub(super) fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.split(move |c: char| !is_word(c)).filter(|word| !word.is_empty()).map(|word| {
        // Both are slices of the same line, so the difference is the offset.
        (word.as_ptr() as usize - line.as_ptr() as usize, word)
    })
}

/// What the next characters belong to.
enum Part {
    Code,
    LineComment,
    BlockComment { depth: usize },
    Text,
    RawText { hashes: usize },
    Character,
}

/// Replaces comments by spaces and the insides of literals by `"`; keeps every line break.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut part = Part::Code;
    let mut at = 0;
    while at < chars.len() {
        let (taken, filler, next) = advance(&part, &chars, at);
        for &c in &chars[at..at + taken] {
            out.push(if c == '\n' { c } else { filler.unwrap_or(c) });
        }
        at += taken;
        part = next.unwrap_or(part);
    }
    out
}

/// How many characters to take, what to write for them, and what comes after if it changes.
fn advance(part: &Part, chars: &[char], at: usize) -> (usize, Option<char>, Option<Part>) {
    let next = chars.get(at + 1).copied();
    match (part, chars[at]) {
        (Part::Code, '/') if next == Some('/') => (2, Some(' '), Some(Part::LineComment)),
        (Part::Code, '/') if next == Some('*') => {
            (2, Some(' '), Some(Part::BlockComment { depth: 1 }))
        }
        (Part::Code, '"') => (1, None, Some(Part::Text)),
        (Part::Code, 'r') => match raw_hashes(chars, at) {
            Some(hashes) => (hashes + 2, Some('"'), Some(Part::RawText { hashes })),
            None => (1, None, None),
        },
        // A lifetime has no closing quote: 'a' is a character, 'a is not.
        (Part::Code, '\'') if next == Some('\\') => (3, Some('"'), Some(Part::Character)),
        (Part::Code, '\'') if chars.get(at + 2) == Some(&'\'') => (3, Some('"'), None),
        (Part::Code, _) => (1, None, None),
        (Part::LineComment, '\n') => (1, None, Some(Part::Code)),
        (Part::LineComment, _) => (1, Some(' '), None),
        (Part::BlockComment { depth }, '/') if next == Some('*') => {
            (2, Some(' '), Some(Part::BlockComment { depth: depth + 1 }))
        }
        (Part::BlockComment { depth: 1 }, '*') if next == Some('/') => {
            (2, Some(' '), Some(Part::Code))
        }
        (Part::BlockComment { depth }, '*') if next == Some('/') => {
            (2, Some(' '), Some(Part::BlockComment { depth: depth - 1 }))
        }
        (Part::BlockComment { .. }, _) => (1, Some(' '), None),
        (Part::Text, '\\') if next.is_some() => (2, Some('"'), None),
        (Part::Text, '"') => (1, None, Some(Part::Code)),
        (Part::Text, _) => (1, Some('"'), None),
        (Part::RawText { hashes }, '"') if is_raw_end(chars, at, *hashes) => {
            (hashes + 1, Some('"'), Some(Part::Code))
        }
        (Part::RawText { .. }, _) => (1, Some('"'), None),
        (Part::Character, '\'') => (1, Some('"'), Some(Part::Code)),
        (Part::Character, _) => (1, Some('"'), None),
    }
}

/// The number of `#` in `r##"`, if a raw string starts here.
fn raw_hashes(chars: &[char], at: usize) -> Option<usize> {
    // `br"` and `cr"` are raw strings; the r at the end of any other word is not.
    let before = |back: usize| at.checked_sub(back).map(|index| chars[index]);
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let is_prefixed = matches!(before(1), Some('b' | 'c')) && !is_word(before(2));
    if is_word(before(1)) && !is_prefixed {
        return None;
    }
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    (chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

fn is_raw_end(chars: &[char], at: usize, hashes: usize) -> bool {
    let after = &chars[at + 1..];
    after.len() >= hashes && after[..hashes].iter().all(|&c| c == '#')
}

#[cfg(test)]
mod tests {
    use super::{Source, blank, words};

    #[test]
    fn comments_and_literals_are_blanked_and_lines_kept() {
        let cases = [
            ("a // unsafe\nb", "a          \nb"),
            ("a /* x /* y */ z */ b", "a                   b"),
            ("f(\"a \\\" b\", c)", "f(\"\"\"\"\"\"\"\", c)"),
            ("r#\"a \" b\"# c", "\"\"\"\"\"\"\"\"\"\" c"),
            ("br\"a\" c", "b\"\"\"\" c"),
            ("'x' '\\'' 'a str", "\"\"\" \"\"\"\" 'a str"),
            ("for r in x", "for r in x"),
            ("\"a\nb\"", "\"\"\n\"\""),
        ];
        for (text, expected) in cases {
            assert_eq!(blank(text), expected, "{text}");
        }
    }

    #[test]
    fn words_carry_their_offsets() {
        let found: Vec<_> = words("use aya::Ebpf as _e;").collect();
        assert_eq!(found, [(0, "use"), (4, "aya"), (9, "Ebpf"), (14, "as"), (17, "_e")]);
    }

    #[test]
    fn production_ends_at_the_test_module_and_not_at_a_test_only_import() {
        let text = "//! x\n#[cfg(test)]\nuse a::b;\nfn f() {}\n#[cfg(test)]\n#[path = \"t.rs\"]\n\
                    mod tests {}\n";
        assert_eq!(Source::new("a.rs", text).production_lines(), 4);
        assert_eq!(Source::new("a.rs", "//! x\nfn f() {}\n").production_lines(), 2);
    }

    #[test]
    fn test_suites_are_told_from_the_code_that_serves_them() {
        let is_test = |path| Source::new(path, "").is_test();
        assert!(is_test("tests/kernel/main.rs"));
        assert!(is_test("agent/core/tests/replay.rs"));
        assert!(is_test("agent/core/src/ledger/tests.rs"));
        assert!(!is_test("tests/support/lib.rs"));
        assert!(!is_test("agent/core/src/ledger.rs"));
    }
}
