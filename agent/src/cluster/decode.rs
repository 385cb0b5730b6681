//! From the JSON of one object to the object, or to words that say what is wrong with it.
//!
//! In: an item of a list or a line of a watch. Out: slim objects: of what nobody reads not even a
//! copy is made. What does not fit is read a second time the way files are, which names the field;
//! policies always are, so that a cluster and the files of it give the same.

use parapet_core::object::{Change, Kind, Object, ObjectRef};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::resource::Resource;
use crate::manifests;

/// Annotation of the bookmark that ends the first events of a streaming list
/// (`metav1.InitialEventsAnnotationKey`).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One event of a watch.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    /// Added or modified.
    Applied { object: Read, is_new: bool },
    /// Deleted.
    Deleted(Head),
    /// Nothing changed up to here.
    Bookmark { version: String, ends_list: bool },
    /// The server cannot go on: the JSON of a Status.
    Error(String),
    /// No event at all.
    Unreadable(String),
}

/// An object, or why there is none.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Read {
    pub(super) object: Result<Object, Head>,
    /// What is wrong with it, or noteworthy.
    pub(super) problem: Option<String>,
}

/// Which object it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Head {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Verb {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

#[derive(Deserialize)]
struct Event<T> {
    #[serde(rename = "type")]
    verb: Verb,
    object: T,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(rename = "type")]
    verb: Verb,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    metadata: Head,
}

#[derive(Deserialize)]
struct VersionOnly {
    object: Named,
}

#[derive(Deserialize)]
struct Marked {
    metadata: Marks,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marks {
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

/// Reads one line of a watch.
pub(super) fn event(resource: &Resource, kind: Kind, version: &str, line: &[u8]) -> Told {
    if let Some((verb, object)) = typed::<true>(kind, line) {
        let is_new = verb == Some(Verb::Added);
        match verb {
            Some(Verb::Added | Verb::Modified) => {
                return Told::Applied {
                    object: Read { object: Ok(object), problem: None },
                    is_new,
                };
            }
            Some(Verb::Deleted) => return Told::Deleted(Head::of(&object)),
            _ => {}
        }
    }
    let raw: RawEvent<'_> = match serde_json::from_slice(line) {
        Ok(raw) => raw,
        Err(error) => return Told::Unreadable(format!("no event of a watch: {error}")),
    };
    let text = raw.object.get();
    match raw.verb {
        Verb::Added | Verb::Modified => Told::Applied {
            object: slow(resource, version, text.as_bytes()),
            is_new: raw.verb == Verb::Added,
        },
        Verb::Deleted => Told::Deleted(head(text.as_bytes())),
        Verb::Bookmark => bookmark(text),
        Verb::Error => Told::Error(text.to_owned()),
    }
}

/// Reads one item of a list.
pub(super) fn item(resource: &Resource, kind: Kind, version: &str, item: &[u8]) -> Read {
    match typed::<false>(kind, item) {
        Some((_, object)) => Read { object: Ok(object), problem: None },
        None => slow(resource, version, item),
    }
}

/// The raw event, for those who decode its object themselves.
pub(super) fn raw_event(line: &[u8]) -> Result<(bool, bool, &RawValue), Told> {
    let raw: RawEvent<'_> = serde_json::from_slice(line)
        .map_err(|error| Told::Unreadable(format!("no event of a watch: {error}")))?;
    match raw.verb {
        Verb::Added => Ok((false, true, raw.object)),
        Verb::Modified => Ok((false, false, raw.object)),
        Verb::Deleted => Ok((true, false, raw.object)),
        Verb::Bookmark => Err(bookmark(raw.object.get())),
        Verb::Error => Err(Told::Error(raw.object.get().to_owned())),
    }
}

/// Which object a text is about, as far as it says so.
pub(super) fn head(object: &[u8]) -> Head {
    serde_json::from_slice::<Named>(object).unwrap_or_default().metadata
}

/// The resource version that an event brought; empty if it brought none.
pub(super) fn version_of(line: &[u8]) -> String {
    let event = serde_json::from_slice::<VersionOnly>(line);
    event.map(|event| event.object.metadata.resource_version).unwrap_or_default()
}

impl Head {
    /// "shop/api", or "node-1".
    pub(super) fn shown(&self) -> String {
        match self.namespace.as_str() {
            "" => self.name.clone(),
            namespace => format!("{namespace}/{}", self.name),
        }
    }

    /// The change that it is gone.
    pub(super) fn deleted(self, kind: Kind) -> Change {
        let Self { name, namespace, uid, .. } = self;
        let namespace = if kind.is_cluster_scoped() { String::new() } else { namespace };
        let uid = (!uid.is_empty()).then_some(uid);
        Change::Deleted(ObjectRef { kind, api_kind: String::new(), namespace, name, uid })
    }

    pub(super) fn of(object: &Object) -> Self {
        let meta = object.meta();
        Self {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: String::new(),
        }
    }
}

fn bookmark(text: &str) -> Told {
    match serde_json::from_str::<Marked>(text) {
        Ok(Marked { metadata }) => Told::Bookmark {
            version: metadata.resource_version,
            ends_list: metadata.annotations.get(INITIAL_EVENTS_END).is_some_and(|is| is == "true"),
        },
        Err(error) => Told::Unreadable(format!("no bookmark: {error}")),
    }
}

/// In one pass, where the kind is not one that is looked at more closely.
fn typed<const EVENT: bool>(kind: Kind, json: &[u8]) -> Option<(Option<Verb>, Object)> {
    let (verb, mut object) = match kind {
        Kind::Namespace => read::<EVENT, _>(json, Object::Namespace),
        Kind::Node => read::<EVENT, _>(json, Object::Node),
        Kind::Pod => read::<EVENT, _>(json, |pod| Object::Pod(Box::new(pod))),
        Kind::Service => read::<EVENT, _>(json, Object::Service),
        Kind::EndpointSlice => read::<EVENT, _>(json, Object::EndpointSlice),
        Kind::ServiceAccount => read::<EVENT, _>(json, Object::ServiceAccount),
        Kind::Role => read::<EVENT, _>(json, Object::Role),
        Kind::RoleBinding => read::<EVENT, _>(json, Object::RoleBinding),
        Kind::ClusterRole => read::<EVENT, _>(json, Object::ClusterRole),
        Kind::ClusterRoleBinding => read::<EVENT, _>(json, Object::ClusterRoleBinding),
        Kind::NetworkPolicy
        | Kind::ClusterNetworkPolicy
        | Kind::AdminNetworkPolicy
        | Kind::BaselineAdminNetworkPolicy
        | Kind::Workload => None,
    }?;
    if object.meta().name.is_empty() {
        return None;
    }
    if kind.is_cluster_scoped() {
        object.meta_mut().namespace.clear();
    }
    Some((verb, object))
}

fn read<const EVENT: bool, T: DeserializeOwned>(
    json: &[u8],
    wrap: impl FnOnce(T) -> Object,
) -> Option<(Option<Verb>, Object)> {
    if EVENT {
        let event: Event<T> = serde_json::from_slice(json).ok()?;
        return Some((Some(event.verb), wrap(event.object)));
    }
    Some((None, wrap(serde_json::from_slice(json).ok()?)))
}

/// As an item of a file. Items of lists do not say what they are, so the list says it.
fn slow(resource: &Resource, version: &str, object: &[u8]) -> Read {
    let api_version = resource.api_version(version);
    let kind = resource.api_kind;
    let start = format!("{{\"apiVersion\":\"{api_version}\",\"kind\":\"{kind}List\",\"items\":[");
    let list = [start.as_bytes(), object, b"]}"].concat();
    let named = head(object);
    let manifests::Loaded { objects, problems, notices, skipped, .. } =
        manifests::read(resource.name, list);
    let told = problems.into_iter().chain(notices).next().map(|problem| {
        let field = problem.field.map(|field| format!("{field}: ")).unwrap_or_default();
        format!("{field}{}", problem.problem)
    });
    let other = skipped.keys().next().map(|kind| format!("is a {kind}"));
    let object = objects.into_iter().next().filter(|read| Some(read.kind()) == resource.kind());
    Read { object: object.ok_or(named), problem: told.or(other) }
}
