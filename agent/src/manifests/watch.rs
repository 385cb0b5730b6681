//! Manifests that are read again when their files change.
//!
//! In: paths; then a call to [`Watch::poll`] each second or so. Out: everything that is declared
//! now, when it is other than before. A file that turns broken keeps what it last declared and says
//! so; a file that is removed declares nothing any more. It holds no thread and no clock.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parapet_core::object::Object;

use super::files::{self, STDIN};
use super::read::{self, Content};
use super::{FILE_BYTES_MAX, Loaded, Problem};

/// Files below some paths, and what they hold.
#[derive(Debug)]
pub struct Watch {
    paths: Vec<PathBuf>,
    order: Vec<PathBuf>,
    files: BTreeMap<PathBuf, File>,
    path_problems: Vec<Problem>,
}

#[derive(Debug)]
struct File {
    stamp: Option<Stamp>,
    content: Content,
    /// What it declared when it last had no problem.
    whole: Option<Vec<Object>>,
}

/// Changes whenever a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Watch {
    /// Reads everything below the paths.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let mut watch =
            Self { paths, order: Vec::new(), files: BTreeMap::new(), path_problems: Vec::new() };
        watch.refresh();
        watch
    }

    /// Everything that is declared now.
    #[must_use]
    pub fn loaded(&self) -> Loaded {
        let mut loaded = Loaded { problems: self.path_problems.clone(), ..Loaded::default() };
        for file in self.order.iter().filter_map(|path| self.files.get(path)) {
            loaded.files += 1;
            loaded.objects.extend(file.content.objects.iter().cloned());
            loaded.problems.extend(file.content.problems.iter().cloned());
            loaded.notices.extend(file.content.notices.iter().cloned());
            for (kind, count) in &file.content.skipped {
                *loaded.skipped.entry(kind.clone()).or_default() += count;
            }
        }
        loaded
    }

    /// Reads what changed since the last call. None if everything is declared as before.
    pub fn poll(&mut self) -> Option<Loaded> {
        self.refresh().then(|| self.loaded())
    }

    fn refresh(&mut self) -> bool {
        let found = files::find(&self.paths);
        let mut changed = found.files != self.order || found.problems != self.path_problems;
        let mut known = std::mem::take(&mut self.files);
        for path in &found.files {
            let before = known.remove(path);
            let stamp = stamp(path);
            let file = match before {
                Some(file) if file.stamp == stamp => file,
                before => {
                    let file = File::read(path, stamp, before.as_ref());
                    changed |= before.is_none_or(|before| before.content != file.content);
                    file
                }
            };
            self.files.insert(path.clone(), file);
        }
        self.order = found.files;
        self.path_problems = found.problems;
        changed
    }
}

impl File {
    /// A file that turned broken keeps what it declared while it was whole.
    fn read(path: &Path, stamp: Option<Stamp>, before: Option<&Self>) -> Self {
        let mut content = read_file(path);
        let whole = match content.problems.first_mut() {
            None => Some(content.objects.clone()),
            Some(first) => {
                let whole = before.and_then(|before| before.whole.clone());
                if let Some(whole) = &whole {
                    first.problem.push_str(" (what this file declared before is kept)");
                    content.objects.clone_from(whole);
                }
                whole
            }
        };
        Self { stamp, content, whole }
    }
}

fn read_file(path: &Path) -> Content {
    let is_stdin = path == Path::new(STDIN);
    let name = if is_stdin { "stdin".to_owned() } else { path.display().to_string() };
    let mut bytes = Vec::new();
    let limit = FILE_BYTES_MAX + 1;
    let done = if is_stdin {
        std::io::stdin().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    let problem = match done {
        Err(error) => files::cannot("be read", &error),
        Ok(read) if read as u64 > FILE_BYTES_MAX => {
            format!("larger than {} MiB: not read", FILE_BYTES_MAX >> 20)
        }
        Ok(_) => return read::read_bytes(&name, bytes),
    };
    Content::problem(&name, problem)
}

/// None for standard input, which is read once, and for what cannot be looked at.
fn stamp(path: &Path) -> Option<Stamp> {
    if path == Path::new(STDIN) {
        return None;
    }
    let meta = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        bytes: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n";

    fn names(loaded: &Loaded) -> Vec<&str> {
        let names = loaded.objects.iter().filter_map(|object| match object {
            Object::Namespace(namespace) => Some(namespace.metadata.name.as_str()),
            _ => None,
        });
        names.collect()
    }

    #[test]
    fn a_file_that_turns_broken_keeps_what_it_declared() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, WHOLE).unwrap();
        let mut watch = Watch::new(vec![folder.path().to_owned()]);
        assert_eq!(names(&watch.loaded()), ["shop"]);
        assert_eq!(watch.poll(), None);

        std::fs::write(&file, "kind: [\n").unwrap();
        let broken = watch.poll().unwrap();
        assert_eq!((names(&broken), broken.problems.len()), (vec!["shop"], 1));
        assert!(broken.problems[0].problem.ends_with("(what this file declared before is kept)"));

        std::fs::write(&file, format!("{WHOLE}---\n{}", WHOLE.replace("shop", "bank"))).unwrap();
        let whole = watch.poll().unwrap();
        assert_eq!((names(&whole), whole.problems.len()), (vec!["shop", "bank"], 0));

        std::fs::remove_file(&file).unwrap();
        assert_eq!(names(&watch.poll().unwrap()), Vec::<&str>::new());
    }

    #[test]
    fn a_mounted_config_map_and_a_link_back_up_are_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("..2026")).unwrap();
        std::fs::write(root.join("..2026/a.yaml"), WHOLE).unwrap();
        std::os::unix::fs::symlink("..2026", root.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
        std::os::unix::fs::symlink(root, root.join("loop")).unwrap();
        let loaded = Watch::new(vec![root.to_owned()]).loaded();
        let found = (names(&loaded), loaded.problems.clone(), loaded.files);
        assert_eq!(found, (vec!["shop"], vec![], 1));
    }
}
