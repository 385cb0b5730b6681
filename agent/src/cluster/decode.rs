//! From the JSON of one object to the object, or to words that say what is wrong with it.
//!
//! In: an item of a list or a line of a watch. Out: slim objects: of what nobody reads not even a
//! copy is made. What does not fit is read a second time the way files are, which names the field;
//! policies always are, so that a cluster and the files of it give the same.

use parapet_core::object::{Change, Kind, Object, ObjectRef, Pod, PodParts};
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
#[expect(clippy::large_enum_variant, reason = "nearly every event is an applied object")]
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

/// Reads what a pod of the own node is made of: once more from the same bytes, so that the pods of
/// all other nodes, nearly all of a list, are read in one pass over less.
pub(super) fn parts_of_event(line: &[u8], read: &mut Read) {
    let parts = serde_json::from_slice::<Event<Box<PodParts>>>(line);
    read.take_parts(parts.map(|event| event.object));
}

/// The same of an item of a list.
pub(super) fn parts_of_item(item: &[u8], read: &mut Read) {
    read.take_parts(serde_json::from_slice(item));
}

/// The raw event, for those who decode its object themselves.
pub(super) fn raw_event(line: &[u8]) -> Result<(bool, bool, &RawValue), Box<Told>> {
    let raw: RawEvent<'_> = serde_json::from_slice(line)
        .map_err(|error| Box::new(Told::Unreadable(format!("no event of a watch: {error}"))))?;
    match raw.verb {
        Verb::Added => Ok((false, true, raw.object)),
        Verb::Modified => Ok((false, false, raw.object)),
        Verb::Deleted => Ok((true, false, raw.object)),
        Verb::Bookmark => Err(Box::new(bookmark(raw.object.get()))),
        Verb::Error => Err(Box::new(Told::Error(raw.object.get().to_owned()))),
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

impl Read {
    /// Whether it is a pod of this node, or may be one if its name is not known.
    pub(super) fn is_pod_of(&self, node: &str) -> bool {
        let is_its = |name: &str| node.is_empty() || name == node;
        matches!(&self.object, Ok(Object::Pod(pod)) if is_its(&pod.spec.node_name))
    }

    /// The pod is there without them, too.
    fn take_parts(&mut self, parts: Result<Box<PodParts>, serde_json::Error>) {
        let Ok(Object::Pod(pod)) = &mut self.object else { return };
        match parts {
            Ok(parts) => pod.parts = Some(parts),
            Err(error) => {
                let problem = || format!("its volumes and containers cannot be read: {error}");
                self.problem.get_or_insert_with(problem);
            }
        }
    }
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
    // Of a file every pod is read whole.
    let object = object.map(|object| match object {
        Object::Pod(pod) => Object::Pod(Box::new(Pod { parts: None, ..*pod })),
        other => other,
    });
    Read { object: object.ok_or(named), problem: told.or(other) }
}

#[cfg(test)]
mod tests {
    use super::super::resource::RESOURCES;
    use super::*;

    fn resource(kind: Kind) -> &'static Resource {
        RESOURCES.iter().find(|resource| resource.kind() == Some(kind)).unwrap()
    }

    fn told(kind: Kind, line: &str) -> Told {
        event(resource(kind), kind, "v1", line.as_bytes())
    }

    fn pod(name: &str) -> Object {
        let mut pod = Box::<Pod>::default();
        pod.metadata.name = name.to_owned();
        pod.metadata.namespace = "shop".to_owned();
        Object::Pod(pod)
    }

    #[test]
    fn events_become_objects_and_bookmarks() {
        let line = r#"{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":
            {"name":"a","namespace":"shop","resourceVersion":"7","managedFields":[{"x":1}]}}}"#;
        let read = Read { object: Ok(pod("a")), problem: None };
        assert_eq!(told(Kind::Pod, line), Told::Applied { object: read.clone(), is_new: true });
        assert_eq!(version_of(line.as_bytes()), "7");
        let changed = line.replace("ADDED", "MODIFIED");
        assert_eq!(told(Kind::Pod, &changed), Told::Applied { object: read, is_new: false });
        let head = Head { name: "a".to_owned(), namespace: "shop".to_owned(), ..Head::default() };
        assert_eq!(told(Kind::Pod, &line.replace("ADDED", "DELETED")), Told::Deleted(head));
        let line = r#"{"type":"BOOKMARK","object":{"kind":"RoleBinding","metadata":
            {"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
        let end = Told::Bookmark { version: "9".to_owned(), ends_list: true };
        assert_eq!(told(Kind::RoleBinding, line), end);
        let end = Told::Bookmark { version: "9".to_owned(), ends_list: false };
        assert_eq!(told(Kind::Pod, &line.replace("-end", "-other")), end);
        let status = r#"{"kind":"Status","metadata":{},"code":410}"#;
        let line = format!(r#"{{"type":"ERROR","object":{status}}}"#);
        assert_eq!(told(Kind::Pod, &line), Told::Error(status.to_owned()));
        assert!(matches!(told(Kind::Pod, r#"{"type":"ADDED","obj"#), Told::Unreadable(_)));
    }

    /// With nulls, as the API server writes empty lists, and without the value of a variable.
    #[test]
    fn what_a_pod_of_the_own_node_is_made_of_is_read_from_the_same_line() {
        let line = r#"{"type":"ADDED","object":{"metadata":{"name":"a","namespace":"shop"},
            "spec":{"nodeName":"n1","automountServiceAccountToken":false,"imagePullSecrets":null,
            "initContainers":null,"volumes":[{"name":"v","secret":{"secretName":"s","items":null}}],
            "containers":[{"name":"main","env":[{"name":"A","value":"b"}],"envFrom":null,
            "volumeMounts":[{"name":"v","mountPath":"/v","subPath":"k"}]}]},
            "status":{"containerStatuses":[{"name":"main","containerID":"containerd://c",
            "state":{"running":{"startedAt":"2026-11-23T10:00:00Z"}},"lastState":null}],
            "initContainerStatuses":null}}}"#;
        let parts: PodParts = serde_json::from_value(serde_json::json!({
            "spec": {"automountServiceAccountToken": false,
                "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
                "containers": [{"name": "main", "env": [{}],
                    "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "k"}]}]},
            "status": {"containerStatuses": [{"name": "main", "containerID": "containerd://c",
                "state": {"running": {"startedAt": "2026-11-23T10:00:00Z"}}}]},
        }))
        .unwrap();
        let Told::Applied { mut object, .. } = told(Kind::Pod, line) else { panic!("an event") };
        let is_of = ["n1", "n2", ""].map(|node| object.is_pod_of(node));
        assert_eq!(is_of, [true, false, true]);
        let read_parts = |read: &Read| match &read.object {
            Ok(Object::Pod(pod)) => pod.parts.as_deref().cloned(),
            _ => None,
        };
        assert_eq!(read_parts(&object), None);
        parts_of_event(line.as_bytes(), &mut object);
        assert_eq!((read_parts(&object), object.problem.take()), (Some(parts.clone()), None));
        let (_, item) = line.split_once("\"object\":").unwrap();
        let item = &item[..item.len() - 1];
        let mut read = item_of_pods(item);
        parts_of_item(item.as_bytes(), &mut read);
        assert_eq!((read_parts(&read), read.problem.take()), (Some(parts), None));
        // The pod itself is not lost with them.
        let odd = item.replace(r#""secretName":"s""#, r#""secretName":5"#);
        let mut read = item_of_pods(&odd);
        parts_of_item(odd.as_bytes(), &mut read);
        let problem = "its volumes and containers cannot be read: invalid type: integer `5`, \
                       expected a string at line 3 column 81";
        assert_eq!((read_parts(&read), read.object.is_ok()), (None, true));
        assert_eq!(read.problem.as_deref(), Some(problem));
    }

    fn item_of_pods(text: &str) -> Read {
        item(resource(Kind::Pod), Kind::Pod, "v1", text.as_bytes())
    }

    #[test]
    fn an_object_that_does_not_fit_is_named_by_its_field() {
        let item_of = |kind, text: &str| item(resource(kind), kind, "v1", text.as_bytes());
        let head = Head { name: "a".to_owned(), namespace: "shop".to_owned(), ..Head::default() };
        let read = item_of(
            Kind::Pod,
            r#"{"metadata":{"name":"a","namespace":"shop"},"spec":{"nodeName":5}}"#,
        );
        let problem = Some("spec.nodeName: must be a string, not the number 5".to_owned());
        assert_eq!(read, Read { object: Err(head.clone()), problem });
        // As the API server writes nothing, and as no version of Parapet has to know.
        let read = item_of(
            Kind::Pod,
            r#"{"metadata":{"name":"a","namespace":"shop","labels":null},"new":{}}"#,
        );
        assert_eq!(read, Read { object: Ok(pod("a")), problem: None });
        let read = item_of(
            Kind::NetworkPolicy,
            r#"{"metadata":{"name":"a","namespace":"shop"},"spec":{"podSelector":
               {"matchExpressions":[{"key":"k","operator":"Odd"}]}}}"#,
        );
        let problem = "spec.podSelector.matchExpressions[0].operator: \"Odd\" is none of \
                       \"In\", \"NotIn\", \"Exists\", \"DoesNotExist\"";
        assert_eq!(read, Read { object: Err(head), problem: Some(problem.to_owned()) });
    }
}
