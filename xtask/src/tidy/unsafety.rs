//! Where `unsafe` may stand. A file comes in; each `unsafe` at a wrong place, or without its
//! reason, goes out. It does not judge whether the reason holds.

use super::Finding;
use super::source::{Source, words};

/// The kernel's side, the ABI between the two, the one importer of aya, and the one call that sets
/// up the C library's allocator; and the calls by which tests try to read unseen.
const PLACES: [&str; 6] = [
    "agent-ebpf/",
    "agent-common/",
    "agent/src/kernel.rs",
    "agent/src/kernel/",
    "agent/src/memory.rs",
    "tests/support/traffic/raw.rs",
];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let is_allowed_here = PLACES.iter().any(|place| source.path.starts_with(place));
    let code: Vec<_> = source.code.lines().collect();
    let text: Vec<_> = source.text.lines().collect();
    let mut findings = Vec::new();
    for (index, line) in code.iter().enumerate() {
        // An attribute names a symbol or a section; no operation in it could be unsound here.
        let is_attribute = line.trim_start().starts_with("#[");
        if !words(line).any(|(_, word)| word == "unsafe") || (is_attribute && is_allowed_here) {
            continue;
        }
        if !is_allowed_here {
            let message = format!("unsafe is allowed only in {}", PLACES.join(", "));
            findings.push(source.finding(index + 1, message));
        } else if !has_reason(&text, &code, index) {
            let message = "unsafe without `// SAFETY:` directly above its statement";
            findings.push(source.finding(index + 1, message));
        }
    }
    findings
}

/// Looks at the line itself and upwards through comments, attributes and the lines of the same
/// statement.
fn has_reason(text: &[&str], code: &[&str], line: usize) -> bool {
    // An `unsafe fn` tells its callers under `# Safety` in its documentation.
    let is_reason = |index: usize| {
        let comment = text[index].get(code[index].trim_end().len()..).unwrap_or_default();
        comment.contains("SAFETY:") || comment.contains("# Safety")
    };
    if is_reason(line) {
        return true;
    }
    for index in (0..line).rev() {
        if is_reason(index) {
            return true;
        }
        let code_line = code[index].trim();
        let ends_statement = code_line.ends_with([';', '{', '}']);
        if text[index].trim().is_empty() || ends_statement {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::source::Source;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&Source::new(path, text)).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn unsafe_outside_its_places_is_found_even_with_a_reason() {
        let text = "// SAFETY: no.\nunsafe { f() }\n#![forbid(unsafe_code)]\n// unsafe\n";
        assert_eq!(lines("agent/core/src/flow.rs", text), [2]);
        assert_eq!(lines("agent/src/kernel/maps.rs", text), []);
        assert_eq!(lines("agent/src/main.rs", "#[unsafe(no_mangle)]\nfn f() {}\n"), [1]);
    }

    #[test]
    fn every_unsafe_has_its_own_reason_directly_above() {
        let good = [
            "// SAFETY: x.\nlet a = unsafe { f() };\n",
            "// SAFETY: x, and\n// more.\nlet a =\n    unsafe { f() };\n",
            "#[unsafe(no_mangle)]\nstatic A: u32 = 0;\n",
            "/// Docs.\n///\n/// # Safety\n///\n/// x\n#[inline]\npub unsafe fn f() {}\n",
            "let a = unsafe { f() }; // SAFETY: x.\n",
        ];
        for text in good {
            assert_eq!(lines("agent-ebpf/src/main.rs", text), [], "{text}");
        }
        let bad = [
            ("let a = unsafe { f() };\n", 1),
            ("// SAFETY: x.\n\nunsafe { f() };\n", 3),
            ("// SAFETY: x.\nunsafe { f() };\nunsafe { g() };\n", 3),
            ("let a = \"SAFETY:\";\nunsafe { g() }\n", 2),
        ];
        for (text, line) in bad {
            assert_eq!(lines("agent-ebpf/src/main.rs", text), [line], "{text}");
        }
    }
}
