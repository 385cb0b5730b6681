//! Objects from files, as `kubectl get -A -o yaml` prints them.
//!
//! In: paths of files and folders, `-` for stdin. Out: [`Loaded`] objects, the same [`Change`]s a
//! live cluster sends, and every [`Problem`] by file, document, line and field. One broken document
//! never loses the others. It never writes, and it never follows a path out of what it was given
//! other than by the symbolic links that are there.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use parapet_core::object::{Change, Kind, Object};
use serde::Serialize;

pub use self::watch::Watch;

mod decode;
mod files;
mod read;
mod tree;
mod watch;

/// A larger file is refused: reading it would need several times its size in memory.
pub const FILE_BYTES_MAX: u64 = 256 << 20;
/// The same, for what is in memory already.
const FILE_BYTES_MAX_IN_MEMORY: usize = 256 << 20;
/// Files below the paths. More are refused and named as a problem.
pub const FILES_MAX: usize = 100_000;
/// How deep folders may nest.
pub const FOLDER_DEPTH_MAX: usize = 32;
/// Problems that are told one by one. Further ones of the same file are counted in its last one.
pub const PROBLEMS_PER_FILE_MAX: usize = 100;

/// What was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// Every object that could be read, in the order of files and documents.
    pub objects: Vec<Object>,
    /// What could not be read.
    pub problems: Vec<Problem>,
    /// What was read and is judged, but lets less pass than it says.
    pub notices: Vec<Problem>,
    /// Kinds Parapet has no use for, as "Secret (v1)", and how many objects of them there were.
    pub skipped: BTreeMap<String, u64>,
    /// Files that were read.
    pub files: usize,
}

/// One thing that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The path as it was given or found; "stdin".
    pub file: String,
    /// Counted from 1; none if it is about the whole file.
    pub document: Option<usize>,
    /// Counted from 1 in the file.
    pub line: Option<usize>,
    /// "NetworkPolicy namespace/name", where known.
    pub object: Option<String>,
    /// `spec.ingress[0].from[1].ipBlock.cidr`. where known.
    pub field: Option<String>,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(document) = self.document {
            write!(f, ": document {document}")?;
        }
        for part in [&self.object, &self.field].into_iter().flatten() {
            write!(f, ": {part}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// Reads everything below these paths once.
#[must_use]
pub fn load(paths: &[PathBuf]) -> Loaded {
    Watch::new(paths.to_vec()).loaded()
}

/// Reads the content of one file that is in memory already; its problems call it `name`.
#[must_use]
pub fn read(name: &str, bytes: Vec<u8>) -> Loaded {
    let read::Content { objects, problems, notices, skipped } = read::read_bytes(name, bytes);
    Loaded { objects, problems, notices, skipped, files: 1 }
}

impl Loaded {
    /// The full list of every kind, owners before what they own.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let list = |kind| {
            Change::list(
                kind,
                self.objects.iter().filter(move |object| object.kind() == kind).cloned(),
            )
        };
        Kind::ALL.into_iter().flat_map(list).collect()
    }
}
