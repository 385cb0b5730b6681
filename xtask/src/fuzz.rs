//! `cargo xtask fuzz`: targets and a time come in, libFuzzer's own lines and one closing line per
//! target go out; what it finds is left in files. It needs no compiler but the pinned one and g++,
//! for libFuzzer is C++. It never touches the committed corpora unless told to.

mod keep;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::layout::Layout;
use crate::run;
use crate::run::say;

/// What libFuzzer needs of the compiler to see which code an input reached and what it compared.
/// These are the flags of cargo-fuzz; stable rustc takes them.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// An input that takes more is a finding: a few kilobytes are no reason for either.
const LIMITS: [&str; 2] = ["-timeout=5", "-rss_limit_mb=512"];
/// The corpora are replayed by every test run and kept for ever. The tests take ten files more, for
/// what is found later.
const CORPUS_FILES_MAX: usize = 50;

/// The targets of the package in tests/fuzz.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FuzzTarget {
    /// An entry of the kernel's rings, and a DNS message in it.
    Events,
    /// The bytes of a manifest, read and compiled.
    Manifests,
    /// Policies and connections, compiled and judged.
    Policy,
}

impl FuzzTarget {
    const ALL: [Self; 3] = [Self::Events, Self::Manifests, Self::Policy];

    fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Manifests => "manifests",
            Self::Policy => "policy",
        }
    }

    /// The longest input: what a small case takes of DNS, of files, and of draws for a cluster.
    fn bytes_max(self) -> usize {
        match self {
            Self::Events => 1024,
            Self::Manifests => 4096,
            Self::Policy => 2048,
        }
    }

    fn binary(self) -> String {
        format!("fuzz-{}", self.name())
    }
}

/// Where one target's files are.
struct Places {
    target: FuzzTarget,
    /// The instrumented program.
    binary: PathBuf,
    /// Committed.
    corpus: PathBuf,
    /// What reached new code in this and earlier runs.
    found: PathBuf,
    /// What broke a promise.
    broken: PathBuf,
    /// Words worth trying, where there are any.
    words: Option<PathBuf>,
}

/// Searches with the targets, all of them when none is named; any finding is a failure.
pub(crate) fn perform(
    layout: &Layout,
    chosen: &[FuzzTarget],
    minutes: u64,
    keep: bool,
) -> anyhow::Result<ExitCode> {
    let targets: Vec<_> = FuzzTarget::ALL
        .into_iter()
        .filter(|target| chosen.is_empty() || chosen.contains(target))
        .collect();
    let built = build(layout, &targets)?;
    let mut closing = Vec::new();
    let mut is_clean = true;
    for target in targets {
        let places = places(layout, &built, target)?;
        let holds = search(&places, minutes)?;
        is_clean &= holds;
        closing.push(match holds {
            true => format!("{}: {minutes} min, nothing found", target.name()),
            false => format!(
                "{}: FOUND: see above. Copy the file from {} to {}: the tests fail until it holds",
                target.name(),
                places.broken.display(),
                places.corpus.display()
            ),
        });
        if keep && holds {
            let added = keep_found(&places)?;
            closing.push(format!("{}: {added} inputs added to the corpus", target.name()));
        }
    }
    closing.iter().for_each(|line| say!("{line}"));
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the instrumented programs; the folder that they are in goes out.
fn build(layout: &Layout, targets: &[FuzzTarget]) -> anyhow::Result<PathBuf> {
    if run::find_program("g++").is_none() {
        bail!("libFuzzer is C++: install g++, or run `cargo xtask setup`");
    }
    let version = run::output(Command::new("rustc").arg("-vV").current_dir(layout.root()))?;
    let host = host(&version).context("`rustc -vV` does not name its host")?;
    let mut command = run::cargo(layout);
    // Naming the host as the target keeps the flags away from build scripts and macros.
    command.args(["build", "--profile", "fuzz", "--target", host]);
    command.args(["-p", "parapet-fuzz", "--features", "engine"]);
    for target in targets {
        command.args(["--bin", &target.binary()]);
    }
    command.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"));
    // Nothing is loaded into a kernel here: any file stands for the object that agent/build.rs
    // asks for, and no BPF toolchain is needed.
    command.env("PARAPET_BPF_OBJECT", package(layout).join("Cargo.toml"));
    run::step("build the fuzz targets", "instrumented; minutes the first time", &mut command)?;
    Ok(layout.target().join(host).join("fuzz"))
}

/// `host: x86_64-unknown-linux-gnu` as `rustc -vV` prints it.
fn host(version: &str) -> Option<&str> {
    version.lines().find_map(|line| line.strip_prefix("host: ")).map(str::trim)
}

fn package(layout: &Layout) -> PathBuf {
    layout.root().join("tests/fuzz")
}

fn places(layout: &Layout, built: &Path, target: FuzzTarget) -> anyhow::Result<Places> {
    let work = layout.target().join("fuzzing").join(target.name());
    let words = package(layout).join(format!("{}.dict", target.name()));
    let places = Places {
        target,
        binary: built.join(target.binary()),
        corpus: package(layout).join("corpus").join(target.name()),
        found: work.join("found"),
        broken: work.join("broken"),
        words: words.exists().then_some(words),
    };
    for folder in [&places.corpus, &places.found, &places.broken] {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    Ok(places)
}

fn engine(places: &Places) -> Command {
    let mut command = Command::new(&places.binary);
    command.args(LIMITS).arg(format!("-max_len={}", places.target.bytes_max()));
    command
}

/// Whether every promise held.
fn search(places: &Places, minutes: u64) -> anyhow::Result<bool> {
    let what = format!("fuzz {} for {minutes} min", places.target.name());
    run::announce(&what, "libFuzzer; Ctrl-C ends it, what it reached is kept");
    let mut command = engine(places);
    // Long inputs early: a cluster that is worth judging takes a few hundred bytes.
    command.args(["-len_control=10", "-print_final_stats=1"]);
    command.arg(format!("-max_total_time={}", minutes.saturating_mul(60)));
    // libFuzzer puts the name of the file behind it as it is.
    command.arg(format!("-artifact_prefix={}/", places.broken.display()));
    if let Some(words) = &places.words {
        command.arg(format!("-dict={}", words.display()));
    }
    // New inputs go to the first folder.
    command.args([&places.found, &places.corpus]);
    Ok(run::status(&mut command)?.success())
}

/// Copies those found inputs that reach most of what no committed one reaches, as far as there is
/// room. How many goes out.
fn keep_found(places: &Places) -> anyhow::Result<usize> {
    // libFuzzer writes what each file reaches into a file of its own, and copies more than there
    // is room for: not into the corpus.
    let scratch = places.broken.with_file_name("merged");
    let reached = places.broken.with_file_name("reached");
    let _ = fs::remove_file(&reached);
    if scratch.exists() {
        fs::remove_dir_all(&scratch)?;
    }
    fs::create_dir_all(&scratch)?;
    let committed = files(&places.corpus)?;
    for file in &committed {
        fs::copy(file, scratch.join(file.file_name().unwrap_or_default()))?;
    }
    let mut command = engine(places);
    command.args(["-set_cover_merge=1", "-use_counters=0"]);
    command.arg(format!("-merge_control_file={}", reached.display()));
    command.args([&scratch, &places.found]);
    run::step("keep what is new", "what each found input reaches", &mut command)?;
    let text = fs::read_to_string(&reached)?;
    let room = CORPUS_FILES_MAX.saturating_sub(committed.len());
    let chosen = keep::choose(&text, room).context("libFuzzer's list cannot be read")?;
    for file in &chosen {
        let file = Path::new(file);
        fs::copy(file, places.corpus.join(file.file_name().unwrap_or_default()))?;
    }
    Ok(chosen.len())
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()
    });
    listed.with_context(|| format!("cannot list {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::{FuzzTarget, host};

    #[test]
    fn the_host_is_read_from_the_compilers_own_words() {
        let version = "rustc 1.95.0 (59807616e 2026-04-14)\nhost: x86_64-unknown-linux-gnu\n";
        assert_eq!(host(version), Some("x86_64-unknown-linux-gnu"));
        assert_eq!(host("rustc 1.95.0\n"), None);
    }

    #[test]
    fn every_target_runs_by_default_and_has_its_corpus() {
        let options: Vec<_> = FuzzTarget::ALL.map(FuzzTarget::name).into();
        let corpora = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus");
        let mut folders: Vec<_> = std::fs::read_dir(corpora)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        folders.sort();
        assert_eq!(folders, options);
    }
}
