//! From the bytes of a file to judged policies.
//!
//! In: any bytes, read as the content of a manifest. Out: nothing, or a panic: what is told of a
//! file must be true, fit on a line and stand where it says, and what is loaded must be of use.

use parapet::manifests::{self, Loaded, Problem};
use parapet_core::engine::{Engine, EngineConfig, Input};
use parapet_core::flow::Timestamp;
use parapet_core::object::Object;
use parapet_core::policy;

const FILE: &str = "input.yaml";
/// A whole file of its own. It ends its document, so that what follows is read as it is alone.
const BEFORE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: before}}\n...\n";
const BEFORE_LINES: usize = 2;
/// A report shows a problem on one line, and a page of them on one screen.
const SHOWN_CHARS_MAX: usize = 420;

/// Takes one input.
pub fn check(bytes: &[u8]) {
    let loaded = manifests::read(FILE, bytes.to_vec());
    assert_eq!(loaded, manifests::read(FILE, bytes.to_vec()), "read twice");
    let lines = lines_of(bytes);
    for told in loaded.problems.iter().chain(&loaded.notices) {
        check_problem(told, lines);
    }
    for (kind, count) in &loaded.skipped {
        assert!(*count > 0 && is_shown(kind), "skipped: {kind:?} {count}");
    }
    loaded.objects.iter().for_each(check_object);
    if let Ok(text) = std::str::from_utf8(bytes) {
        check_place(text, &loaded);
        check_line_ends(text, &loaded);
    }
    check_use(&loaded);
}

/// As YAML counts them, by LF, CR LF and CR: the last one may have no end.
fn lines_of(bytes: &[u8]) -> usize {
    let feeds = bytes.iter().filter(|byte| **byte == b'\n').count();
    let next = bytes.iter().skip(1).map(Some).chain([None]);
    let returns = bytes
        .iter()
        .zip(next)
        .filter(|pair| matches!(pair, (b'\r', next) if *next != Some(&b'\n')));
    1 + feeds + returns.count()
}

fn check_problem(problem: &Problem, lines: usize) {
    assert_eq!(problem.file, FILE, "{problem:?}");
    let line = problem.line.unwrap_or(1);
    assert!((1..=lines).contains(&line), "no such line among {lines}: {problem:?}");
    // There are at most as many documents as lines.
    let document = problem.document.unwrap_or(1);
    assert!((1..=lines).contains(&document), "no such document: {problem:?}");
    for text in [&problem.object, &problem.field].into_iter().flatten() {
        assert!(is_shown(text), "{problem:?}");
    }
    assert!(is_shown(&problem.problem), "{problem:?}");
}

/// Whether a text can stand in a line of a report or a log.
fn is_shown(text: &str) -> bool {
    !text.is_empty()
        && text.chars().count() <= SHOWN_CHARS_MAX
        && !text.chars().any(|c| c.is_control())
}

fn check_object(object: &Object) {
    let meta = object.meta();
    assert!(!meta.name.is_empty(), "nobody can name {object:?}");
    assert_eq!(meta.namespace.is_empty(), object.kind().is_cluster_scoped(), "{object:?}");
    if let Some(compiled) = policy::compile_object(object, &"enforced".into()) {
        assert!(compiled.is_ok(), "{compiled:?} of {object:?}");
    }
}

/// Behind another document everything is as before, so many lines further down.
fn check_place(text: &str, alone: &Loaded) {
    // A byte order mark is one at the beginning of a file only.
    if text.starts_with('\u{feff}') {
        return;
    }
    let mut behind = manifests::read(FILE, format!("{BEFORE}{text}").into_bytes());
    assert!(!behind.objects.is_empty(), "the document before is lost");
    behind.objects.remove(0);
    let mut expected = alone.clone();
    for problem in expected.problems.iter_mut().chain(&mut expected.notices) {
        problem.line = problem.line.map(|line| line + BEFORE_LINES);
        problem.document = problem.document.map(|document| document + 1);
    }
    assert_eq!(behind, expected, "behind another document");
}

/// To YAML a line ends alike with LF, CR LF and CR.
fn check_line_ends(text: &str, loaded: &Loaded) {
    if text.contains('\r') {
        let feeds = text.replace("\r\n", "\n").replace('\r', "\n");
        let other = manifests::read(FILE, feeds.into_bytes());
        assert_eq!(*loaded, other, "with other line ends: {text:?}");
    }
}

/// The engine takes whatever is loaded, twice, as a folder that is read again.
fn check_use(loaded: &Loaded) {
    let config = EngineConfig { edges_max: 1, pending_max: 1, ..EngineConfig::default() };
    let mut engine = Engine::new(config);
    for second in [1, 2] {
        let at = Timestamp(second * 1_000_000_000);
        engine.step(Input::Cluster(loaded.changes(), at));
    }
    assert_eq!(engine.rejections(), [], "what was loaded was refused later");
    drop(engine.snapshot());
}
