//! What is kept of service accounts, roles and bindings.
//!
//! In: objects as their API writes them. Out: assertions on what is known. It asks nobody what they
//! may do.

use serde_json::{Value, json};

use super::*;
use crate::object::ObjectRef;

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the test's object is well-formed")
}

fn applied(object: Object) -> Change {
    Change::Applied(object)
}

fn role(namespace: &str, name: &str, rules: &Value) -> Object {
    let metadata = json!({"namespace": namespace, "name": name, "labels": {"a": "b"}});
    Object::Role(read(json!({"metadata": metadata, "rules": rules})))
}

fn deleted(kind: Kind, namespace: &str, name: &str) -> Change {
    let (api_kind, namespace, name) = (String::new(), namespace.to_owned(), name.to_owned());
    Change::Deleted(ObjectRef { kind, api_kind, namespace, name, uid: None })
}

fn words(words: &[&str]) -> Words {
    words.iter().map(|word| Arc::from(*word)).collect()
}

fn sizes(access: &Access) -> [u64; 5] {
    let tables = access.tables();
    ["service_accounts", "roles", "cluster_roles", "role_bindings", "cluster_role_bindings"]
        .map(|table| tables[table].0)
}

#[test]
fn what_the_api_says_is_kept() {
    let mut access = Access::default();
    let account = |name, more: Value| {
        let mut value = json!({"metadata": {"namespace": "ns", "name": name},
            "secrets": [{"name": "never"}], "imagePullSecrets": [{"name": "read"}]});
        value.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        Object::ServiceAccount(read(value))
    };
    access.apply(&applied(account("plain", json!({}))));
    access.apply(&applied(account("off", json!({"automountServiceAccountToken": false}))));
    let automount = |name| access.account("ns", name).map(|account| account.automount);
    assert_eq!(["plain", "off", "none"].map(automount), [Some(None), Some(Some(false)), None]);
    let rules = json!([
        {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"],
            "resourceNames": ["a"]},
        {"verbs": ["get"], "nonResourceURLs": ["/healthz*"]},
    ]);
    access.apply(&applied(role("ns", "reader", &rules)));
    access.apply(&applied(role("ns", "nothing", &Value::Null)));
    let none = words(&[]);
    let expected = [
        Rule {
            verbs: words(&["get", "list"]),
            api_groups: words(&[""]),
            resources: words(&["pods", "pods/log"]),
            resource_names: words(&["a"]),
            non_resource_urls: none.clone(),
        },
        Rule {
            verbs: words(&["get"]),
            api_groups: none.clone(),
            resources: none.clone(),
            resource_names: none,
            non_resource_urls: words(&["/healthz*"]),
        },
    ];
    let facts = RoleFacts { rules: expected.into(), labels: [].into(), aggregates: None };
    assert_eq!(access.role("ns", "reader"), Some(&facts));
    let nothing = RoleFacts { rules: [].into(), ..facts.clone() };
    assert_eq!(access.role("ns", "nothing"), Some(&nothing));
    let selector = json!({"matchLabels": {"to": "view"}});
    access.apply(&applied(Object::ClusterRole(read(json!({
        "metadata": {"name": "view", "labels": {"x": "y"}}, "rules": rules,
        "aggregationRule": {"clusterRoleSelectors": [selector]},
    })))));
    let labels = [("x".into(), "y".into())].into();
    let aggregates = Some([read::<LabelSelector>(selector)].into());
    let view = RoleFacts { labels, aggregates, ..facts };
    assert_eq!(access.cluster_role("view"), Some(&view));
}

#[test]
fn bindings_name_a_role_and_who_gets_it() {
    let mut access = Access::default();
    let subjects = json!([
        {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "u"},
        {"kind": "Group", "name": "system:masters"},
        {"kind": "ServiceAccount", "namespace": "other", "name": "a"},
        {"kind": "ServiceAccount", "name": "b"},
        {"kind": "Robot", "name": "r"},
    ]);
    access.apply(&applied(Object::RoleBinding(read(json!({
        "metadata": {"namespace": "ns", "name": "rb"}, "subjects": subjects,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
    })))));
    access.apply(&applied(Object::ClusterRoleBinding(read(json!({
        "metadata": {"name": "crb"}, "subjects": null,
        "roleRef": {"kind": "ClusterRole", "name": "view"},
    })))));
    let named = |namespace: &str, name: &str| (Arc::from(namespace), Arc::from(name));
    let subjects = [
        Subject::User("u".into()),
        Subject::Group("system:masters".into()),
        Subject::ServiceAccount("other".into(), "a".into()),
        Subject::ServiceAccount("ns".into(), "b".into()),
    ];
    let binding =
        BindingFacts { cluster_role: false, role: "reader".into(), subjects: subjects.into() };
    let of = access.role_bindings().map(|(name, facts)| (name.clone(), facts.clone()));
    assert_eq!(of.collect::<Vec<_>>(), [(named("ns", "rb"), binding)]);
    let binding = BindingFacts { cluster_role: true, role: "view".into(), subjects: [].into() };
    let of = access.cluster_role_bindings().map(|(name, facts)| (name.clone(), facts.clone()));
    assert_eq!(of.collect::<Vec<_>>(), [(named("", "crb"), binding)]);
}

#[test]
fn equal_rules_are_held_once_and_freed_with_the_last_role() {
    let mut access = Access::default();
    let rules = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]);
    for n in 0..1_000 {
        access.apply(&applied(role(&format!("ns-{n}"), "reader", &rules)));
    }
    let of = |n: usize| access.role(&format!("ns-{n}"), "reader").expect("a role").rules.clone();
    assert!(Arc::ptr_eq(&of(0), &of(999)));
    let rules = Arc::downgrade(&of(0));
    assert_eq!((sizes(&access), rules.strong_count()), ([0, 1_000, 0, 0, 0], 1_000));
    Change::list(Kind::Role, []).for_each(|change| access.apply(&change));
    assert_eq!((sizes(&access), rules.strong_count()), ([0; 5], 0));
}

#[test]
fn a_list_keeps_what_it_names_and_what_came_meanwhile() {
    let mut access = Access::default();
    let none = json!([]);
    for name in ["old", "listed", "deleted"] {
        access.apply(&applied(role("ns", name, &none)));
    }
    access.apply(&Change::Listed(Kind::Role));
    assert_eq!(sizes(&access), [0, 3, 0, 0, 0], "no list ran");
    access.apply(&Change::Listing(Kind::Role));
    access.apply(&applied(role("ns", "listed", &none)));
    access.apply(&deleted(Kind::Role, "ns", "deleted"));
    access.apply(&applied(role("ns", "new", &none)));
    access.apply(&Change::Listed(Kind::RoleBinding));
    access.apply(&Change::Listed(Kind::Role));
    let known = ["old", "listed", "deleted", "new"].map(|name| access.role("ns", name).is_some());
    assert_eq!(known, [false, true, false, true]);
    access.apply(&Change::Listed(Kind::Role));
    assert_eq!(sizes(&access), [0, 2, 0, 0, 0], "that list is over");
}

#[test]
fn what_is_too_much_is_refused_and_counted() {
    let mut access = Access::default();
    for n in 0..=CLUSTER_ROLES_MAX {
        access.apply(&applied(Object::ClusterRole(read(
            json!({"metadata": {"name": n.to_string()}}),
        ))));
    }
    let max = CLUSTER_ROLES_MAX as u64;
    assert_eq!((access.tables()["cluster_roles"], access.refused()), ((max, max), 1));
    let rule = json!({"verbs": ["get"]});
    let rules = |count| Value::Array(vec![rule.clone(); count]);
    access.apply(&applied(role("ns", "most", &rules(RULES_MAX))));
    access.apply(&applied(role("ns", "more", &rules(RULES_MAX + 1))));
    let known = ["most", "more"].map(|name| access.role("ns", name).is_some());
    assert_eq!((known, access.refused()), ([true, false], 2));
    let subject = json!({"kind": "User", "name": "u"});
    let subjects = Value::Array(vec![subject; SUBJECTS_MAX + 1]);
    access.apply(&applied(Object::RoleBinding(read(json!({
        "metadata": {"namespace": "ns", "name": "b"}, "subjects": subjects,
        "roleRef": {"kind": "Role", "name": "most"}})))));
    assert_eq!((sizes(&access), access.refused()), ([0, 1, max, 0, 0], 3));
}
