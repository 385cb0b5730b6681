//! What readers and files are called, as the kernel told it when it saw them first.
//!
//! In: [`ReaderSeen`]. Out: names of a reader, and of a file whose inode nobody listed. Names say
//! nothing about who somebody is: a process calls itself what it likes.

use std::sync::Arc;

use foldhash::HashMap;

use super::{FileId, ReaderId, ReaderSeen};
use crate::flow::Timestamp;

/// Longest name that is kept of whatever, in bytes.
const NAME_BYTES_MAX: usize = 1_024;

/// What a reader calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// Name of the program's file.
    pub(super) program: Arc<str>,
    /// Name of the thread that was seen first, and when that was.
    pub(super) comm: (Timestamp, Arc<str>),
    /// Process that was seen last, and when that was.
    pub(super) pid: (Timestamp, u32),
}

/// Folder and name of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileName {
    pub(super) folder: Arc<str>,
    pub(super) name: Arc<str>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Readers {
    readers: HashMap<ReaderId, Names>,
    files: HashMap<FileId, FileName>,
    max: usize,
    refused: u64,
}

impl Readers {
    pub(super) fn with_max(max: usize) -> Self {
        Self { readers: HashMap::default(), files: HashMap::default(), max, refused: 0 }
    }

    pub(super) fn seen(&mut self, seen: &ReaderSeen) {
        let has_file = self.files.contains_key(&seen.file);
        if has_file || self.files.len() < self.max {
            let name = FileName { folder: shown(&seen.folder), name: shown(&seen.name) };
            self.files.insert(seen.file, name);
        }
        let comm = (seen.at, shown(&seen.comm));
        let pid = (seen.at, seen.pid);
        if let Some(known) = self.readers.get_mut(&seen.reader) {
            if comm < known.comm {
                known.program = shown(&seen.program);
                known.comm = comm;
            }
            known.pid = known.pid.max(pid);
            return;
        }
        if self.readers.len() >= self.max {
            self.refused += 1;
            return;
        }
        let program = shown(&seen.program);
        self.readers.insert(seen.reader, Names { program, comm, pid });
    }

    /// If a table is full, what is of no use any more makes room: readers of cgroups that are long
    /// gone, and files of volumes that are.
    pub(super) fn sweep(&mut self, is_known: impl Fn(u64) -> bool, has: impl Fn(FileId) -> bool) {
        if self.readers.len() >= self.max {
            self.readers.retain(|reader, _| is_known(reader.cgroup_id));
        }
        if self.files.len() >= self.max {
            self.files.retain(|file, _| has(*file));
        }
    }

    pub(super) fn of(&self, reader: &ReaderId) -> Option<&Names> {
        self.readers.get(reader)
    }

    pub(super) fn file(&self, file: FileId) -> Option<&FileName> {
        self.files.get(&file)
    }

    /// Entries of the larger table, and readers that were refused.
    pub(super) fn sizes(&self) -> (usize, u64) {
        (self.readers.len().max(self.files.len()), self.refused)
    }
}

/// On one line, and cut: names of files and processes may hold anything.
pub(super) fn shown(text: &str) -> Arc<str> {
    if text.len() <= NAME_BYTES_MAX && !text.chars().any(is_hostile) {
        return text.into();
    }
    let mut shown = String::new();
    for c in text.chars() {
        if shown.len() >= NAME_BYTES_MAX {
            shown.push('…');
            break;
        }
        if is_hostile(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown.into()
}

/// Control characters, line ends, and what reorders the text around it.
fn is_hostile(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
