//! The committed corpora, replayed without a fuzzing engine.
//!
//! In: `corpus/TARGET/*`. Out: passed, or the promise that a file of it breaks. It searches
//! nothing: `cargo xtask fuzz` does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use parapet_fuzz::TARGETS;

/// Larger corpora belong beside the repository.
const FILES_MAX: usize = 60;
const FILE_BYTES_MAX: u64 = 100_000;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a corpus is a folder");
    entries.map(|entry| entry.expect("it can be listed").path()).collect()
}

#[test]
fn every_input_of_the_corpora_keeps_every_promise() {
    for target in TARGETS {
        let files = files(&corpus(target.name));
        assert!((1..=FILES_MAX).contains(&files.len()), "{}: {}", target.name, files.len());
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            assert!(bytes.len() as u64 <= FILE_BYTES_MAX, "{} is too large", file.display());
            let outcome = std::panic::catch_unwind(|| (target.check)(&bytes));
            assert!(outcome.is_ok(), "{} breaks a promise, see above", file.display());
        }
    }
}

#[test]
fn every_corpus_is_the_one_of_a_target() {
    let folders = files(&corpus(""));
    assert_eq!(folders, TARGETS.iter().map(|target| corpus(target.name)).collect());
}
