//! What may lie in the root of the checkout. The names there come in, strangers go out. A new
//! entry is a decision: it is added here and in the README's layout together.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::Finding;

const TOP_LEVEL: [&str; 17] = [
    ".cargo",
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "agent",
    "agent-common",
    "agent-ebpf",
    "clippy.toml",
    "deploy",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "tests",
    "xtask",
];

/// Entries that are no part of the project: built, or git's own.
pub(super) fn is_ignored(name: &str) -> bool {
    matches!(name, "target" | ".git")
}

/// The names in the root of the checkout.
pub(super) fn top_level(root: &Path) -> anyhow::Result<Vec<String>> {
    let read = || -> std::io::Result<Vec<String>> {
        fs::read_dir(root)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    read().with_context(|| format!("cannot list {}", root.display()))
}

pub(super) fn check(entries: &[String]) -> Vec<Finding> {
    let strangers =
        entries.iter().filter(|entry| !is_ignored(entry) && !TOP_LEVEL.contains(&entry.as_str()));
    strangers
        .map(|entry| Finding {
            path: entry.clone(),
            line: 1,
            message: "not an entry of the layout: find its folder, or add it to the layout in \
                      README.md and to xtask/src/tidy/places.rs"
                .to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn strangers_in_the_root_are_named() {
        let entries = ["agent", "notes.txt", "target", ".git"].map(str::to_string);
        let found: Vec<_> = check(&entries).into_iter().map(|finding| finding.path).collect();
        assert_eq!(found, ["notes.txt"]);
    }
}
