//! Manifests and candidates as the command line gives them.
//!
//! In: paths. Out: objects and compiled policies, with every problem told on stderr. It decides
//! nothing: what a problem costs is up to the command.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use parapet_core::object::Object;
use parapet_core::policy::{CompiledPolicy, compile};

use crate::manifests::{self, Loaded};

/// `NAME=PATH`: a named set of policies that are not applied yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The policy set's name.
    pub name: Arc<str>,
    /// Its files: the path, or several with the same name.
    pub path: PathBuf,
}

/// Names that mean something else already.
const RESERVED: [&str; 2] = ["enforced", "default-deny"];

impl FromStr for Candidate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, path) = text
            .split_once('=')
            .filter(|(name, path)| !name.is_empty() && !path.is_empty())
            .ok_or("write a candidate as NAME=PATH")?;
        if RESERVED.contains(&name) {
            return Err(format!("{name:?} is the name of a policy set that is always there"));
        }
        Ok(Self { name: name.into(), path: path.into() })
    }
}

/// Candidates by name, each with all of its paths, in the order of first mention.
#[must_use]
pub fn by_name(candidates: &[Candidate]) -> Vec<(Arc<str>, Vec<PathBuf>)> {
    let mut named: Vec<(Arc<str>, Vec<PathBuf>)> = Vec::new();
    for Candidate { name, path } in candidates {
        match named.iter_mut().find(|(known, _)| known == name) {
            Some((_, paths)) => paths.push(path.clone()),
            None => named.push((name.clone(), vec![path.clone()])),
        }
    }
    named
}

/// Reads the paths and tells every problem. False: something could not be read.
#[must_use]
pub fn load(paths: &[PathBuf]) -> (Loaded, bool) {
    let loaded = manifests::load(paths);
    for problem in &loaded.problems {
        tracing::error!("{problem}");
    }
    if !loaded.skipped.is_empty() {
        let kinds = loaded.skipped.iter().map(|(kind, count)| format!("{count} of {kind}"));
        tracing::info!("not needed and left out: {}", kinds.collect::<Vec<_>>().join(", "));
    }
    let whole = loaded.problems.is_empty();
    (loaded, whole)
}

/// The policies among the objects. None is refused here that was not named when it was read.
#[must_use]
pub fn policies(objects: &[Object], origin: &Arc<str>) -> Vec<Arc<CompiledPolicy>> {
    let policies = objects.iter().filter_map(|object| match object {
        Object::NetworkPolicy(policy) => compile(policy, origin.clone()).ok(),
        _ => None,
    });
    policies.map(Arc::new).collect()
}
