//! Who may import what. A file or the core's manifest comes in, imports at the wrong place go
//! out. It looks at code only: a crate's name in a comment or string is no import.

use super::Finding;
use super::source::{Source, words};

/// The manifest of the pure core.
pub(super) const CORE_MANIFEST: &str = "agent/core/Cargo.toml";

/// A crate that only some files may import; test suites may drive it directly.
struct Gate {
    krate: &'static str,
    places: &'static [&'static str],
}

const GATES: [Gate; 5] = [
    Gate { krate: "aya", places: &["agent/src/kernel.rs", "agent/src/kernel/", "tests/"] },
    Gate { krate: "aya_ebpf", places: &["agent-ebpf/"] },
    // The benchmark measures the watches beside the reflector that comes with kube.
    Gate {
        krate: "kube",
        places: &["agent/src/cluster.rs", "agent/src/cluster/", "agent/benches/cluster/", "tests/"],
    },
    Gate {
        krate: "prometheus_client",
        places: &["agent/src/export/metrics.rs", "agent/src/export/metrics/", "tests/"],
    },
    Gate { krate: "tokio", places: &["agent/src/", "agent/benches/", "agent/tests/", "tests/"] },
];

/// What the core's manifest may not name below `[dependencies]`.
const CORE_REFUSED: [&str; 8] = [
    "aya",
    "axum",
    "kube",
    "prometheus-client",
    "rustix",
    "tokio",
    "tracing",
    "tracing-subscriber",
];

/// Ways to the outside world that the core must not take (DESIGN, invariant 1).
const IMPURE: [&str; 12] = [
    "std::env",
    "std::fs",
    "std::io",
    "std::os",
    "std::process",
    "std::thread",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::sync::mpsc",
];

/// The crates that only named places may import.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for gate in &GATES {
        if gate.places.iter().any(|place| source.path.starts_with(place)) {
            continue;
        }
        for line in lines_that_import(source, gate.krate) {
            let places = gate.places.join(", ");
            let message = format!("{} may be imported only in {places}", gate.krate);
            findings.push(source.finding(line, message));
        }
    }
    findings
}

/// No I/O, clock or threads in the core's production code.
pub(super) fn check_purity(source: &Source) -> Vec<Finding> {
    if !source.path.starts_with("agent/core/src/") || source.is_test() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in source.code.lines().take(source.production_lines()).enumerate() {
        for path in IMPURE.iter().filter(|path| names_path(line, path)) {
            let message = format!("the core does no I/O and reads no clock: {path}");
            findings.push(source.finding(index + 1, message));
        }
    }
    findings
}

/// Dependencies that would bring the outside world into the core.
pub(super) fn check_core_manifest(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut section = "";
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        let key = match section.strip_prefix("dependencies.") {
            Some(krate) if line.starts_with('[') => krate,
            _ if section == "dependencies" => line.split(['.', '=', ' ']).next().unwrap_or(""),
            _ => continue,
        };
        if CORE_REFUSED.contains(&key) {
            let message = format!("the core is pure and may not depend on {key}");
            findings.push(Finding { path: CORE_MANIFEST.to_string(), line: index + 1, message });
        }
    }
    findings
}

/// Lines (from 1) on which the crate is the head of a path, or is itself imported.
fn lines_that_import(source: &Source, krate: &str) -> Vec<usize> {
    let is_import = |line: &str| {
        words(line).any(|(offset, word)| {
            let before = line[..offset].trim_end();
            let after = line[offset + word.len()..].trim_start();
            // `kernel::aya::x` and `self.aya` are names of somebody else's.
            let is_head = match before.strip_suffix("::") {
                Some(parent) => {
                    !parent.ends_with(|c: char| c.is_alphanumeric() || "_>".contains(c))
                }
                None => !before.ends_with('.'),
            };
            let is_use = before.ends_with("use") || before.ends_with("extern crate");
            word == krate && is_head && (after.starts_with("::") || is_use)
        })
    };
    let numbered = source.code.lines().enumerate();
    numbered.filter(|(_, line)| is_import(line)).map(|(index, _)| index + 1).collect()
}

/// Whether the line names the path, written out or as `use std::{fs, ..}` on one line.
fn names_path(line: &str, path: &str) -> bool {
    if let Some(at) = line.find(path) {
        let after = line[at + path.len()..].chars().next();
        return !after.is_some_and(|c| c.is_alphanumeric() || c == '_');
    }
    let Some((head, tail)) = path.rsplit_once("::") else { return false };
    let group = format!("{head}::{{");
    line.find(&group).is_some_and(|at| words(&line[at + group.len()..]).any(|(_, w)| w == tail))
}

#[cfg(test)]
mod tests {
    use super::{CORE_MANIFEST, check, check_core_manifest, check_purity};
    use crate::tidy::Finding;
    use crate::tidy::source::Source;

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn each_gated_crate_is_found_outside_its_place_and_not_inside() {
        let cases = [
            ("use aya::Ebpf;\n", "agent/src/runtime.rs", "agent/src/kernel/load.rs"),
            ("use aya_ebpf::helpers;\n", "agent-common/src/lib.rs", "agent-ebpf/src/main.rs"),
            ("use kube::Client;\n", "agent/src/manifests.rs", "agent/src/cluster.rs"),
            ("use prometheus_client as p;\n", "agent/src/export.rs", "agent/src/export/metrics.rs"),
            ("fn f() { tokio::spawn(x) }\n", "agent/core/src/flow.rs", "agent/src/runtime.rs"),
        ];
        for (text, wrong, right) in cases {
            assert_eq!(lines(&check(&Source::new(wrong, text))), [1], "{text} in {wrong}");
            assert_eq!(check(&Source::new(right, text)), [], "{text} in {right}");
        }
    }

    #[test]
    fn only_the_head_of_a_path_is_an_import() {
        let text = "// use aya::Ebpf;\nlet s = \"aya::x\";\nuse crate::kernel::aya::x;\n\
                    self.aya = 1;\nuse aya_log::X;\nuse ::aya::Y;\n";
        assert_eq!(lines(&check(&Source::new("agent/src/main.rs", text))), [6]);
    }

    #[test]
    fn the_core_reads_no_clock_and_no_file_outside_its_tests() {
        let path = "agent/core/src/ledger.rs";
        let text = "use std::{fmt, fs};\nuse std::time::Instant;\nuse std::time::Duration;\n\
                    use std::iota;\nfn f() { std::thread::spawn(g); }\n#[cfg(test)]\nmod tests {\n\
                    use std::fs;\n}\n";
        assert_eq!(lines(&check_purity(&Source::new(path, text))), [1, 2, 5]);
        assert_eq!(check_purity(&Source::new("agent/src/node.rs", text)), []);
    }

    #[test]
    fn the_core_manifest_refuses_the_outside_world_in_every_notation() {
        let text = "[package]\nname = \"tokio\"\n[dependencies]\nserde.workspace = true\n\
                    tokio = \"1\"\nkube.workspace = true\n[dependencies.aya]\nversion = \"1\"\n\
                    [dev-dependencies]\ntokio = \"1\"\n";
        let expected = [(5, "tokio"), (6, "kube"), (7, "aya")].map(|(line, krate)| Finding {
            path: CORE_MANIFEST.to_string(),
            line,
            message: format!("the core is pure and may not depend on {krate}"),
        });
        assert_eq!(check_core_manifest(text), expected);
    }
}
