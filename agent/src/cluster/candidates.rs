//! Policy sets that are staged in ConfigMaps with the label `parapet.dev/candidate: NAME`.
//!
//! In: ConfigMaps as a watch tells them. Out: each named set as a whole whenever it is another one.
//! Every key that ends in .yaml, .yml or .json is a manifest; several ConfigMaps with one name are
//! one set. A name that files have, or that means something else, is refused and named. Nothing is
//! ever written back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parapet_core::engine::{CANDIDATES_MAX, DEFAULT_DENY, ENFORCED};
use parapet_core::object::Object;
use serde::Deserialize;

use super::decode::Head;
use super::resource::CANDIDATE_LABEL;
use super::take::Update;
use crate::manifests;

/// The policies of one candidate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Staged {
    /// Of all its ConfigMaps, in the order of their names and keys.
    pub objects: Vec<Object>,
}

/// Problems of one ConfigMap that are named.
const PROBLEMS_EACH_MAX: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Names that files have.
    taken: BTreeSet<Arc<str>>,
    known: BTreeMap<Place, Held>,
    /// What the list that runs named so far.
    listing: Option<BTreeSet<Place>>,
    touched: BTreeSet<Arc<str>>,
    told: BTreeSet<Arc<str>>,
}

/// Namespace and name.
type Place = (String, String);

#[derive(Debug)]
struct Held {
    name: Arc<str>,
    objects: Vec<Object>,
    problems: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigMap {
    metadata: Meta,
    #[serde(default)]
    data: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Meta {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl Candidates {
    /// `taken`: names that `--candidate` has given away.
    pub(super) fn new(taken: BTreeSet<Arc<str>>) -> Self {
        Self { taken, ..Self::default() }
    }

    pub(super) fn begin(&mut self) {
        self.listing = Some(BTreeSet::new());
    }

    pub(super) fn end(&mut self) {
        let Some(listed) = self.listing.take() else { return };
        let gone = self.known.keys().filter(|place| !listed.contains(*place)).cloned();
        for place in gone.collect::<Vec<_>>() {
            self.forget(&place);
        }
    }

    pub(super) fn applied(&mut self, object: &[u8]) -> Result<(), String> {
        let map: ConfigMap = serde_json::from_slice(object).map_err(|error| error.to_string())?;
        let Meta { name, namespace, labels } = map.metadata;
        let place = (namespace, name);
        if let Some(listed) = &mut self.listing {
            listed.insert(place.clone());
        }
        self.forget(&place);
        let Some(set) = labels.get(CANDIDATE_LABEL) else { return Ok(()) };
        let held = self.read(&place, set, map.data.unwrap_or_default());
        self.touched.insert(Arc::clone(&held.name));
        self.known.insert(place, held);
        Ok(())
    }

    pub(super) fn gone(&mut self, head: &Head) {
        self.forget(&(head.namespace.clone(), head.name.clone()));
    }

    /// What is wrong, by ConfigMap and key.
    pub(super) fn problems(&self) -> BTreeMap<String, String> {
        self.known.values().flat_map(|held| held.problems.iter().cloned()).collect()
    }

    /// Every set that changed since the last time; nothing while a list runs.
    pub(super) fn updates(&mut self) -> Vec<Update> {
        if self.listing.is_some() {
            return Vec::new();
        }
        let touched = std::mem::take(&mut self.touched);
        touched.into_iter().filter_map(|name| self.update(name)).collect()
    }

    fn update(&mut self, name: Arc<str>) -> Option<Update> {
        let of_it = || self.known.values().filter(|held| held.name == name);
        let usable = refusal(&self.taken, &name).is_none();
        if !usable || of_it().next().is_none() {
            return self.told.remove(&name).then_some(Update::Unstaged(name));
        }
        let objects = of_it().flat_map(|held| held.objects.iter().cloned()).collect();
        if self.told.len() >= CANDIDATES_MAX && !self.told.contains(&name) {
            tracing::warn!("candidate {name}: there are {CANDIDATES_MAX} already, not judged");
            return None;
        }
        self.told.insert(Arc::clone(&name));
        Some(Update::Staged(name, Staged { objects }))
    }

    fn forget(&mut self, place: &Place) {
        if let Some(held) = self.known.remove(place) {
            self.touched.insert(held.name);
        }
    }

    fn read(&self, place: &Place, set: &str, data: BTreeMap<String, String>) -> Held {
        let shown = format!("ConfigMap {}/{}", place.0, place.1);
        let mut held = Held { name: Arc::from(set), objects: Vec::new(), problems: Vec::new() };
        if let Some(refusal) = refusal(&self.taken, set) {
            held.problems.push((shown, refusal));
            return held;
        }
        let manifests = data.into_iter().filter(|(key, _)| is_manifest(key));
        for (key, text) in manifests {
            let place = format!("{shown} {key}");
            let loaded = manifests::read(&place, text.into_bytes());
            held.objects.extend(loaded.objects);
            let told = loaded.problems.into_iter().chain(loaded.notices);
            for (number, problem) in told.enumerate() {
                if held.problems.len() >= PROBLEMS_EACH_MAX {
                    break;
                }
                let text = problem.to_string();
                let said = text.strip_prefix(&place).unwrap_or(&text).trim_start_matches(": ");
                let line = problem.line.map(|line| format!(": {line}")).unwrap_or_default();
                let said = said.trim_start_matches(|c: char| c == ':' || c.is_ascii_digit());
                let place = match number {
                    0 => format!("{place}{line}"),
                    _ => format!("{place}{line} ({})", number + 1),
                };
                held.problems.push((place, said.trim_start().to_owned()));
            }
        }
        held
    }
}

fn is_manifest(key: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|end| key.ends_with(end))
}

fn refusal(taken: &BTreeSet<Arc<str>>, name: &str) -> Option<String> {
    if taken.contains(name) {
        return Some(format!("the name {name} is taken by --candidate: not judged"));
    }
    match name {
        "" => Some(format!("{CANDIDATE_LABEL} names no candidate: not judged")),
        ENFORCED | DEFAULT_DENY => Some(format!("{name} is no name for a candidate: not judged")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(name: &str, set: &str, key: &str, policy: &str) -> Vec<u8> {
        let text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{name: {policy}, namespace: shop}}\nspec: {{podSelector: {{}}}}\n"
        );
        let labels = serde_json::json!({CANDIDATE_LABEL: set});
        let metadata = serde_json::json!({"name": name, "namespace": "ops", "labels": labels});
        serde_json::json!({"metadata": metadata, "data": {key: text}}).to_string().into_bytes()
    }

    /// "NAME: POLICY.." for what is staged, "NAME gone" for what is no more.
    fn told(candidates: &mut Candidates) -> Vec<String> {
        let shown = |update| match update {
            Update::Staged(name, staged) => {
                let names: Vec<_> =
                    staged.objects.iter().map(|object| object.meta().name.clone()).collect();
                format!("{name}: {}", names.join(" "))
            }
            Update::Unstaged(name) => format!("{name} gone"),
            Update::Changes(_) | Update::NobodyAt(_) | Update::Unused(_) => {
                panic!("a ConfigMap is no object of the cluster")
            }
        };
        candidates.updates().into_iter().map(shown).collect()
    }

    #[test]
    fn sets_are_told_when_their_list_is_complete_and_whenever_they_change() {
        let mut all = Candidates::new(["file".into()].into());
        all.begin();
        all.applied(&map("two", "next", "b.yaml", "q")).unwrap();
        all.applied(&map("one", "next", "a.yml", "p")).unwrap();
        all.applied(&map("notes", "next", "README.md", "x")).unwrap();
        assert_eq!(told(&mut all), Vec::<String>::new());
        all.end();
        assert_eq!(told(&mut all), ["next: p q"]);
        all.applied(&map("two", "other", "b.yaml", "q")).unwrap();
        assert_eq!(told(&mut all), ["next: p", "other: q"]);
        let head = Head { name: "two".into(), namespace: "ops".into(), ..Head::default() };
        all.gone(&head);
        assert_eq!(told(&mut all), ["other gone"]);
        all.begin();
        all.end();
        assert_eq!(told(&mut all), ["next gone"]);
    }

    #[test]
    fn names_of_others_are_refused_and_broken_manifests_named() {
        let mut all = Candidates::new(["file".into()].into());
        all.applied(&map("a", "file", "a.yaml", "p")).unwrap();
        all.applied(&map("b", "enforced", "a.yaml", "p")).unwrap();
        all.applied(
            br#"{"metadata":{"name":"c","namespace":"ops","labels":{"parapet.dev/candidate":"n"}},
                "data":{"x.yaml":"apiVersion: v1\nkind: ["}}"#,
        )
        .unwrap();
        assert_eq!(told(&mut all), ["n: "]);
        let problems = all.problems();
        let places: Vec<&str> = problems.keys().map(String::as_str).collect();
        assert_eq!(places[..2], ["ConfigMap ops/a", "ConfigMap ops/b"]);
        assert!(places[2].starts_with("ConfigMap ops/c x.yaml: "), "{places:?}");
        assert_eq!(
            problems["ConfigMap ops/a"],
            "the name file is taken by --candidate: not judged"
        );
    }
}
