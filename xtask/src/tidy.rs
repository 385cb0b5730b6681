//! `cargo xtask tidy`: the checkout comes in, one line `file:line: rule: what is wrong` per finding
//! goes out. It reads only; formatting and fixing stay with the author.

mod function;
mod imports;
mod places;
mod shape;
mod source;
mod unsafety;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::layout::Layout;
use crate::run;
use crate::run::say;
use crate::test::tally::Tally;
use source::Source;

/// One place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// From the root of the checkout, with `/`.
    path: String,
    /// From 1; 1 too when the finding is about the whole file.
    line: usize,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// A rule about one Rust file.
struct Rule {
    name: &'static str,
    check: fn(&Source) -> Vec<Finding>,
}

const RULES: [Rule; 8] = [
    Rule { name: "imports", check: imports::check },
    Rule { name: "pure core", check: imports::check_purity },
    Rule { name: "header", check: shape::check_header },
    Rule { name: "file length", check: shape::check_length },
    Rule { name: "line width", check: shape::check_width },
    Rule { name: "file name", check: shape::check_name },
    Rule { name: "function length", check: function::check },
    Rule { name: "unsafe", check: unsafety::check },
];

/// Checks the project's own rules.
pub(crate) fn perform(layout: &Layout) -> anyhow::Result<ExitCode> {
    let tally = check_rules(layout)?;
    say!("tidy: {} rules hold, {} do not", tally.passed, tally.failed);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The tier: format, lints and the rules, each counted as one test.
pub(crate) fn perform_tier(layout: &Layout) -> Tally {
    let mut tally = check_rules(layout).unwrap_or_else(|error| Tally::failure(&error.to_string()));
    let ebpf_manifest = layout.ebpf_package().join("Cargo.toml");
    let mut format_ebpf = run::cargo(layout);
    format_ebpf.args(["fmt", "--check", "--manifest-path"]).arg(ebpf_manifest);
    let mut format = run::cargo(layout);
    format.args(["fmt", "--all", "--check"]);
    let mut lint = run::cargo(layout);
    lint.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    let mut steps = vec![
        ("cargo fmt --check", "one format, no discussions", &mut format),
        ("cargo fmt --check, BPF programs", "a workspace of their own", &mut format_ebpf),
    ];
    let lints = "cargo clippy -D warnings";
    if layout.bpf_object().exists() {
        steps.push((lints, "the lints of Cargo.toml, with their reasons", &mut lint));
    } else {
        // The tiers that need the build say why it is not there.
        tally.skipped += 1;
        tally.note = format!("skipped: {lints} needs the BPF object");
        say!("SKIPPED: {lints} needs the BPF object");
    }
    for (what, why, command) in steps {
        match run::step(what, why, command) {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                say!("FAILED: {error:#}");
                tally.failed += 1;
            }
        }
    }
    tally
}

fn check_rules(layout: &Layout) -> anyhow::Result<Tally> {
    run::announce("tidy rules", "imports, headers, sizes, names, unsafe, top-level entries");
    let mut entries = places::top_level(layout.root())?;
    let mut tally = Tally::default();
    let sources = read_sources(layout.root(), &mut entries)?;
    for rule in &RULES {
        count(&mut tally, rule.name, sources.iter().flat_map(rule.check).collect());
    }
    let manifest = layout.root().join(imports::CORE_MANIFEST);
    let text = fs::read_to_string(&manifest)
        .with_context(|| format!("cannot read {}", manifest.display()))?;
    count(&mut tally, "core manifest", imports::check_core_manifest(&text));
    count(&mut tally, "top level", places::check(&entries));
    Ok(tally)
}

fn count(tally: &mut Tally, rule: &str, findings: Vec<Finding>) {
    if findings.is_empty() {
        tally.passed += 1;
    } else {
        tally.failed += 1;
    }
    for finding in findings {
        say!("{finding} [{rule}]");
    }
}

/// Every Rust file below the allowed top-level folders, in a stable order.
fn read_sources(root: &Path, entries: &mut [String]) -> anyhow::Result<Vec<Source>> {
    entries.sort();
    let mut sources = Vec::new();
    for entry in entries.iter().filter(|entry| !places::is_ignored(entry)) {
        read_below(root, entry, &mut sources)
            .with_context(|| format!("cannot read the sources in {entry}"))?;
    }
    Ok(sources)
}

fn read_below(root: &Path, relative: &str, sources: &mut Vec<Source>) -> io::Result<()> {
    let path = root.join(relative);
    // Not followed: a link could lead out of the checkout or around in it.
    let kind = path.symlink_metadata()?.file_type();
    if kind.is_dir() {
        let mut names = Vec::new();
        for entry in fs::read_dir(&path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        for name in names.iter().filter(|name| !places::is_ignored(name)) {
            read_below(root, &format!("{relative}/{name}"), sources)?;
        }
    } else if kind.is_file() && relative.ends_with(".rs") {
        sources.push(Source::new(relative, &fs::read_to_string(&path)?));
    }
    Ok(())
}
