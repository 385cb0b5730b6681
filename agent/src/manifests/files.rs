//! From paths to the files that are read.
//!
//! In: paths as they were given. Out: files in a stable order, each once, and what could not be
//! looked into. It never reads a file's content.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{FILES_MAX, FOLDER_DEPTH_MAX, Problem};

/// The path that means standard input.
pub(super) const STDIN: &str = "-";

/// What is below the paths.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: Vec<PathBuf>,
    pub(super) problems: Vec<Problem>,
    /// Folders and files that were looked into already, without symbolic links.
    seen: BTreeSet<PathBuf>,
}

/// Finds the files of all paths: folders in the order of names, each file once.
pub(super) fn find(paths: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for path in paths {
        if path == Path::new(STDIN) {
            if found.seen.insert(path.clone()) {
                found.files.push(path.clone());
            }
            continue;
        }
        let before = found.files.len() + found.problems.len();
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                found.folder(path, 0);
                if found.files.len() + found.problems.len() == before {
                    found.problem(path, "no .yaml, .yml or .json file is in this folder");
                }
            }
            // A file that is named is read whatever it is called.
            Ok(_) => found.file(path),
            Err(error) => found.problem(path, &cannot("be read", &error)),
        }
    }
    found
}

/// "cannot be read: No such file or directory", without the number of the error.
pub(super) fn cannot(what: &str, error: &std::io::Error) -> String {
    let text = error.to_string();
    format!("cannot {what}: {}", text.split(" (os error").next().unwrap_or(&text))
}

impl Found {
    fn folder(&mut self, folder: &Path, depth: usize) {
        // A symbolic link may lead back up: a folder is looked into once.
        let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        if !self.seen.insert(real) {
            return;
        }
        if depth > FOLDER_DEPTH_MAX {
            return self.problem(folder, "folders nest too deep to be read");
        }
        let listed: std::io::Result<Vec<_>> =
            std::fs::read_dir(folder).and_then(|entries| entries.collect());
        let mut entries = match listed {
            Ok(entries) => entries,
            Err(error) => return self.problem(folder, &cannot("be listed", &error)),
        };
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            // Hidden: `.git`, and the `..data` of a mounted ConfigMap, whose files are linked
            // beside it.
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            match std::fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => self.folder(&path, depth + 1),
                // Reading a pipe would wait for ever.
                Ok(meta) if meta.is_file() && is_manifest(&path) => self.file(&path),
                Err(error) if is_manifest(&path) => {
                    self.problem(&path, &cannot("be read", &error));
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn file(&mut self, file: &Path) {
        let real = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        if !self.seen.insert(real) {
            return;
        }
        match self.files.len() {
            FILES_MAX => self.problem(file, "too many files: this and further ones are not read"),
            more if more > FILES_MAX => {}
            _ => self.files.push(file.to_owned()),
        }
    }

    fn problem(&mut self, path: &Path, problem: &str) {
        let (file, problem) = (path.display().to_string(), problem.to_owned());
        self.problems.push(Problem { file, problem, ..Problem::default() });
    }
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ["yaml", "yml", "json"].iter().any(|known| ext == *known))
}
