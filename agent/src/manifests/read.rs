//! From the text of one file to objects.
//!
//! In: the text. Out: [`Content`]: objects, problems, and kinds that nobody asked for. A document
//! that cannot be read costs itself only; a policy the API server would refuse is named and left
//! out.

use std::collections::BTreeMap;

use parapet_core::object::{Object, Pod, PodParts, WorkloadObject};
use parapet_core::policy::{self, Rejection};

use super::decode::{Misfit, decode};
use super::tree::{self, Node, Value};
use super::{PROBLEMS_PER_FILE_MAX, Problem};

/// Where a namespaced object without a namespace goes, as `kubectl apply` would send it.
const NAMESPACE_DEFAULT: &str = "default";
/// The Pod templates' and Endpoints' like are of no use here, lists in lists are an attack.
const LIST_DEPTH_MAX: usize = 4;
/// Longest text of a problem.
const SHOWN_BYTES_MAX: usize = 400;

const RBAC_V1: &str = "rbac.authorization.k8s.io/v1";
const POLICY_V1ALPHA1: &str = "policy.networking.k8s.io/v1alpha1";
const POLICY_V1ALPHA2: &str = "policy.networking.k8s.io/v1alpha2";
/// Of the same shape as v1alpha2.
const POLICY_V1BETA1: &str = "policy.networking.k8s.io/v1beta1";

/// What one file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Content {
    pub(super) objects: Vec<Object>,
    pub(super) problems: Vec<Problem>,
    pub(super) notices: Vec<Problem>,
    pub(super) skipped: BTreeMap<String, u64>,
}

/// One document of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Document<'a> {
    /// Counted from 1 in the file.
    first_line: usize,
    text: &'a str,
}

struct Reader<'a> {
    file: &'a str,
    document: usize,
    first_line: usize,
    problems_left_out: usize,
    content: Content,
}

impl Content {
    /// A file of which nothing could be read.
    pub(super) fn problem(file: &str, problem: String) -> Self {
        let problem = Problem { file: file.to_owned(), problem, ..Problem::default() };
        Self { problems: vec![problem], ..Self::default() }
    }
}

/// Reads every document of a file, if it is text at all.
pub(super) fn read_bytes(file: &str, bytes: Vec<u8>) -> Content {
    match String::from_utf8(bytes) {
        Ok(text) => read(file, &text),
        Err(error) => {
            let byte = error.utf8_error().valid_up_to();
            Content::problem(file, format!("not UTF-8 from byte {byte}: not read"))
        }
    }
}

/// Reads every document of a file.
pub(super) fn read(file: &str, text: &str) -> Content {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        file,
        document: 0,
        first_line: 1,
        problems_left_out: 0,
        content: Content::default(),
    };
    for document in documents(text) {
        reader.document += 1;
        reader.first_line = document.first_line;
        if let Some((line, character)) = forbidden(document.text) {
            let problem = format!("{character:?} may stand in no YAML or JSON");
            reader.problem(Some(line), None, String::new(), problem);
            continue;
        }
        match tree::parse(document.text) {
            Ok(node) if node.value == Value::Null => {}
            Ok(node) => reader.object(&node, None, 0),
            Err(error) => reader.problem(error.line, None, String::new(), error.problem),
        }
    }
    if reader.problems_left_out > 0 {
        let problem = format!("{} more problems in this file", reader.problems_left_out);
        let file = file.to_owned();
        reader.content.problems.push(Problem { file, problem, ..Problem::default() });
    }
    reader.content
}

/// A document ends where the next one begins, however broken it is: no text within a YAML document
/// may hold `---` at the start of a line. Documents of comments only are none.
fn documents(text: &str) -> Vec<Document<'_>> {
    let mut found = Vec::new();
    let (mut start, mut first_line, mut at) = (0, 1, 0);
    for (index, line) in lines(text).enumerate() {
        let end = at + line.len();
        let marker = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
        let is_marker =
            marker.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if is_marker {
            found.extend(text.get(start..at).map(|text| Document { first_line, text }));
            // What follows a `---` on its line belongs to the new document, and so does its line.
            (start, first_line) =
                if line.starts_with("---") { (at, index + 1) } else { (end, index + 2) };
        }
        at = end;
    }
    found.extend(text.get(start..).map(|text| Document { first_line, text }));
    found.retain(|document| !is_blank(document.text));
    found
}

/// The first character that neither YAML nor JSON allows anywhere, and its line: the document is
/// something else. The parser would name whichever error it comes upon first, which depends on how
/// far it has read ahead.
fn forbidden(text: &str) -> Option<(usize, char)> {
    let is_forbidden = |c: char| c < ' ' && !matches!(c, '\t' | '\n' | '\r');
    lines(text).enumerate().find_map(|(index, line)| {
        line.chars().find(|c| is_forbidden(*c)).map(|found| (index + 1, found))
    })
}

/// Lines with their ends, which in YAML are LF, CR LF or CR: the parser counts them so too.
fn lines(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let end = match text.find(['\n', '\r']) {
            Some(at) if text[at..].starts_with("\r\n") => at + 2,
            Some(at) => at + 1,
            None => text.len(),
        };
        let (line, rest) = text.split_at(end);
        text = rest;
        (!line.is_empty()).then_some(line)
    })
}

fn is_blank(text: &str) -> bool {
    lines(text).enumerate().all(|(index, line)| {
        let line = if index == 0 { line.strip_prefix("---").unwrap_or(line) } else { line };
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line.starts_with("%YAML")
    })
}

impl Reader<'_> {
    /// `parent`: the list this is an item of, for items that do not say what they are.
    fn object(&mut self, node: &Node, parent: Option<(&str, &str)>, depth: usize) {
        let text = |key: &str| node.get(key).and_then(Node::as_str);
        let (api_version, kind) = match (text("apiVersion"), text("kind"), parent) {
            (Some(api_version), Some(kind), _) => (api_version, kind),
            // Items of a PodList carry neither, as the API server answers them.
            (None, None, Some((api_version, list))) if list != "List" => {
                (api_version, list.strip_suffix("List").unwrap_or(list))
            }
            (api_version, ..) => {
                let field = if api_version.is_none() { "apiVersion" } else { "kind" };
                let problem = match node.value {
                    Value::Map(_) => "is missing: this is no Kubernetes object",
                    _ => "is missing: a Kubernetes object is a map",
                };
                return self.problem(Some(node.line), None, field.to_owned(), problem.to_owned());
            }
        };
        if kind.ends_with("List")
            && let Some(items) = node.get("items")
        {
            return self.list(items, (api_version, kind), depth);
        }
        let list_of_none = kind == "List" || (kind.ends_with("List") && parent.is_none());
        match object_of(api_version, kind, node) {
            None if list_of_none => {}
            None => {
                let kind = shown(&format!("{kind} ({api_version})"));
                *self.content.skipped.entry(kind).or_default() += 1;
            }
            Some(Err(misfit)) => {
                let field = misfit.field();
                self.problem(misfit.line, Some(named(kind, node)), field, misfit.problem);
            }
            Some(Ok(object)) => self.checked(object, kind, node),
        }
    }

    fn list(&mut self, items: &Node, parent: (&str, &str), depth: usize) {
        let Value::List(nodes) = &items.value else {
            let problem = "must be a list".to_owned();
            return self.problem(Some(items.line), None, "items".to_owned(), problem);
        };
        if depth >= LIST_DEPTH_MAX {
            let problem = "lists nest too deep".to_owned();
            return self.problem(Some(items.line), None, "items".to_owned(), problem);
        }
        for node in nodes {
            self.object(node, Some(parent), depth + 1);
        }
    }

    fn checked(&mut self, object: Object, kind: &str, node: &Node) {
        match policy::compile_object(&object, &"".into()) {
            None => {}
            Some(Ok(policy)) => {
                for notice in policy.notices().iter().take(PROBLEMS_PER_FILE_MAX) {
                    let line = node.line_of(&notice.field);
                    let Rejection { object, field, problem } = notice.clone();
                    let notice = self.told(Some(line), Some(object), field, problem);
                    self.content.notices.push(notice);
                }
            }
            Some(Err(rejections)) => {
                for Rejection { object, field, problem } in rejections {
                    let line = node.line_of(&field);
                    self.problem(Some(line), Some(object), field, problem);
                }
                return;
            }
        }
        if object.meta().name.is_empty() {
            let field = "metadata.name";
            let line = node.line_of(field);
            let object = Some(kind.to_owned());
            return self.problem(Some(line), object, field.to_owned(), "is missing".to_owned());
        }
        self.content.objects.push(object);
    }

    /// `line` is counted in the document, the one that is told in the file.
    fn problem(
        &mut self,
        line: Option<usize>,
        object: Option<String>,
        field: String,
        problem: String,
    ) {
        if self.content.problems.len() >= PROBLEMS_PER_FILE_MAX {
            self.problems_left_out += 1;
            return;
        }
        let problem = self.told(line, object, field, problem);
        self.content.problems.push(problem);
    }

    fn told(
        &self,
        line: Option<usize>,
        object: Option<String>,
        field: String,
        problem: String,
    ) -> Problem {
        Problem {
            file: self.file.to_owned(),
            document: Some(self.document),
            line: line.map(|line| line + self.first_line - 1),
            object: object.as_deref().map(shown),
            field: Some(shown(&field)).filter(|field| !field.is_empty()),
            problem: shown(&problem),
        }
    }
}

/// On one line, and short: names and keys of a file may hold anything, and go to terminals.
fn shown(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        if shown.len() >= SHOWN_BYTES_MAX {
            shown.push('…');
            break;
        }
        match c {
            // Line and paragraph separators, and what reorders the text around it.
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => shown.extend(c.escape_unicode()),
            c if c.is_control() => shown.extend(c.escape_debug()),
            c => shown.push(c),
        }
    }
    shown
}

/// None for kinds that Parapet has no use for.
fn object_of(api_version: &str, kind: &str, node: &Node) -> Option<Result<Object, Misfit>> {
    let mut object = match (api_version, kind) {
        ("v1", "Namespace") => decode(node).map(Object::Namespace),
        ("v1", "Node") => decode(node).map(Object::Node),
        ("v1", "Pod") => pod(node),
        ("v1", "Service") => decode(node).map(Object::Service),
        ("discovery.k8s.io/v1", "EndpointSlice") => decode(node).map(Object::EndpointSlice),
        ("networking.k8s.io/v1", "NetworkPolicy") => decode(node).map(Object::NetworkPolicy),
        (POLICY_V1ALPHA2 | POLICY_V1BETA1, "ClusterNetworkPolicy") => {
            decode(node).map(Object::ClusterNetworkPolicy)
        }
        (POLICY_V1ALPHA1, "AdminNetworkPolicy") => decode(node).map(Object::AdminNetworkPolicy),
        (POLICY_V1ALPHA1, "BaselineAdminNetworkPolicy") => {
            decode(node).map(Object::BaselineAdminNetworkPolicy)
        }
        ("v1", "ServiceAccount") => decode(node).map(Object::ServiceAccount),
        (RBAC_V1, "Role") => decode(node).map(Object::Role),
        (RBAC_V1, "RoleBinding") => decode(node).map(Object::RoleBinding),
        (RBAC_V1, "ClusterRole") => decode(node).map(Object::ClusterRole),
        (RBAC_V1, "ClusterRoleBinding") => decode(node).map(Object::ClusterRoleBinding),
        ("apps/v1", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("batch/v1", "Job" | "CronJob") => decode(node).map(|workload: WorkloadObject| {
            Object::Workload(WorkloadObject { api_kind: kind.to_owned(), ..workload })
        }),
        _ => return None,
    };
    if let Ok(object) = &mut object {
        let cluster_scoped = object.kind().is_cluster_scoped();
        let namespace = &mut object.meta_mut().namespace;
        if cluster_scoped {
            namespace.clear();
        } else if namespace.is_empty() {
            NAMESPACE_DEFAULT.clone_into(namespace);
        }
    }
    Some(object)
}

/// With its parts: whose node it is nobody knows here, and files are few.
fn pod(node: &Node) -> Result<Object, Misfit> {
    let parts: PodParts = decode(node)?;
    let pod: Pod = decode(node)?;
    Ok(Object::Pod(Box::new(Pod { parts: Some(Box::new(parts)), ..pod })))
}

/// "Pod shop/api", as far as an object that cannot be read says it.
fn named(kind: &str, node: &Node) -> String {
    let meta = node.get("metadata");
    let text = |key: &str| meta.and_then(|meta| meta.get(key)).and_then(Node::as_str);
    match (text("namespace"), text("name")) {
        (_, Some(name)) if is_cluster_scoped(kind) => format!("{kind} {name}"),
        (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
        (None, Some(name)) => format!("{kind} {NAMESPACE_DEFAULT}/{name}"),
        (_, None) => kind.to_owned(),
    }
}

fn is_cluster_scoped(kind: &str) -> bool {
    matches!(kind, "Namespace" | "Node" | "ClusterRole" | "ClusterRoleBinding")
        || kind != "NetworkPolicy" && kind.ends_with("NetworkPolicy")
}

#[cfg(test)]
mod tests {
    use super::{SHOWN_BYTES_MAX, read, shown};

    #[test]
    fn what_a_file_says_is_told_on_one_line_and_cut() {
        assert_eq!(shown("a\u{1b}[2J\r\nb\u{85}\u{202e}é"), r"a\u{1b}[2J\r\nb\u{85}\u{202e}é");
        let long = "x".repeat(SHOWN_BYTES_MAX);
        assert_eq!(shown(&long), long);
        assert_eq!(shown(&format!("{long}yz")), format!("{long}…"));
    }

    #[test]
    fn lines_end_where_yaml_ends_them() {
        let whole = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
        let text = format!("{whole}---\n# b\n{whole}---\n# c\nkind: [\n");
        let expected = read("f", &text);
        assert_eq!((expected.objects.len(), expected.problems.len()), (2, 1));
        assert_eq!(expected.problems[0].line, Some(11));
        for end in ["\r\n", "\r"] {
            assert_eq!(read("f", &text.replace('\n', end)), expected, "{end:?}");
        }
    }

    /// Whatever else is wrong with them, and whichever line ends they have.
    #[test]
    fn documents_with_control_characters_are_told_by_the_first_one() {
        let whole = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
        let text = format!("{whole}---\n[[[\nkind: 'x\0'\nlast: \u{b}\n---\n{whole}");
        for end in ["\n", "\r\n", "\r"] {
            let content = read("f", &text.replace('\n', end));
            assert_eq!(content.objects.len(), 2, "{end:?}");
            let told: Vec<String> = content.problems.iter().map(ToString::to_string).collect();
            assert_eq!(told, [r"f:6: document 2: '\0' may stand in no YAML or JSON"], "{end:?}");
        }
    }

    #[test]
    fn who_may_do_what_is_read_as_the_api_server_prints_it() {
        let content = read(
            "f",
            "apiVersion: v1\nkind: List\nitems:\n\
             - {apiVersion: v1, kind: ServiceAccount, metadata: {name: a},\n   \
                automountServiceAccountToken: false, secrets: [{name: s}]}\n\
             - {apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: r},\n   \
                rules: [{apiGroups: [''], resources: [pods], verbs: [get], resourceNames: [p]}]}\n\
             - {apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: b},\n   \
                roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}}\n\
             - {apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole,\n   \
                metadata: {name: c, namespace: x}, rules: null,\n   \
                aggregationRule: {clusterRoleSelectors: [{matchLabels: {k: v}}]}}\n\
             - {apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding,\n   \
                metadata: {name: d}, subjects: [{kind: Group, name: g}],\n   \
                roleRef: {kind: ClusterRole, name: c}}\n\
             - {apiVersion: rbac.authorization.k8s.io/v9, kind: Role, metadata: {name: new}}\n\
             - {apiVersion: v1, kind: Secret, metadata: {name: s}}\n",
        );
        assert_eq!(content.problems, []);
        let skipped: Vec<_> =
            content.skipped.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        assert_eq!(skipped, ["1 Role (rbac.authorization.k8s.io/v9)", "1 Secret (v1)"]);
        let all: Vec<_> = content
            .objects
            .iter()
            .map(|object| {
                let meta = object.meta();
                format!("{:?} {}/{}", object.kind(), meta.namespace, meta.name)
            })
            .collect();
        let expected = [
            "ServiceAccount default/a",
            "Role default/r",
            "RoleBinding default/b",
            "ClusterRole /c",
            "ClusterRoleBinding /d",
        ];
        assert_eq!(all, expected);
    }
}
