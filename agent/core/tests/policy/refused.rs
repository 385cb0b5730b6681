//! What the API server would refuse, by field.
//!
//! In: specs as YAML. Out: passed or failed.

use parapet_core::object::{Meta, NetworkPolicy, NetworkPolicySpec};
use parapet_core::policy::{Rejection, compile};

use crate::cluster::objects;

/// The refused fields of one spec, in order.
fn refused(spec: &str) -> Vec<String> {
    let object = &objects(&format!("x/p: {{{spec}}}"))[0];
    let all = compile(object, "enforced".into()).err().unwrap_or_default();
    assert!(all.iter().all(|each| each.object == "NetworkPolicy x/p"), "{all:?}");
    all.into_iter().map(|each| each.field).collect()
}

#[test]
fn items_22_26_41_46_47_53_and_the_rest_of_validation() {
    let port = "spec.ingress[0].ports[0]";
    let from = "spec.ingress[0].from[0]";
    let block = |name: &str| format!("{from}.ipBlock.{name}");
    let cases: &[(&str, Vec<String>)] = &[
        ("podSelector: {}", vec![]),
        // 22: a peer is selectors or a block, and never nothing.
        ("ingress: [{from: [{}]}]", vec![from.into()]),
        ("ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]", vec![from.into()]),
        // A refused rule refuses the object even where its direction is not listed.
        ("policyTypes: [Ingress], egress: [{to: [{}]}]", vec!["spec.egress[0].to[0]".into()]),
        // 26: exceptions are strict subsets.
        ("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]", vec![]),
        (
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]",
            vec![block("except[0]")],
        ),
        (
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.9.9/7]}}]}]",
            vec![block("except[0]")],
        ),
        (
            "ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: ['::/1', x]}}]}]",
            vec![block("except[0]"), block("except[1]")],
        ),
        ("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0}}]}]", vec![block("cidr")]),
        ("ingress: [{from: [{ipBlock: {cidr: ''}}]}]", vec![block("cidr")]),
        // 41: values belong to In and NotIn.
        (
            "podSelector: {matchExpressions: [{key: a, operator: In}]}",
            vec!["spec.podSelector.matchExpressions[0].values".into()],
        ),
        (
            "podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}",
            vec!["spec.podSelector.matchExpressions[0].values".into()],
        ),
        (
            "podSelector: {matchExpressions: [{key: a/b/c, operator: in, values: ['-']}]}",
            ["key", "values[0]", "operator"]
                .map(|field| format!("spec.podSelector.matchExpressions[0].{field}"))
                .into(),
        ),
        (
            "podSelector: {matchLabels: {'a b': '-'}}",
            vec!["spec.podSelector.matchLabels".into(), "spec.podSelector.matchLabels".into()],
        ),
        // 46, 47: ranges.
        ("ingress: [{ports: [{port: 80, endPort: 80}]}]", vec![]),
        ("ingress: [{ports: [{port: 80, endPort: 79}]}]", vec![format!("{port}.endPort")]),
        ("ingress: [{ports: [{endPort: 80}]}]", vec![format!("{port}.endPort")]),
        ("ingress: [{ports: [{port: web, endPort: 80}]}]", vec![format!("{port}.endPort")]),
        ("ingress: [{ports: [{port: 80, endPort: 65536}]}]", vec![format!("{port}.endPort")]),
        ("ingress: [{ports: [{port: 0}]}]", vec![format!("{port}.port")]),
        ("ingress: [{ports: [{port: -1}]}]", vec![format!("{port}.port")]),
        // 53: "80" is a name, and not a valid one.
        ("ingress: [{ports: [{port: '80'}]}]", vec![format!("{port}.port")]),
        ("ingress: [{ports: [{protocol: tcp}]}]", vec![format!("{port}.protocol")]),
        ("ingress: [{ports: [{protocol: ''}]}]", vec![format!("{port}.protocol")]),
        ("policyTypes: [Ingress, Ingress]", vec![]),
        ("policyTypes: [ingress]", vec!["spec.policyTypes[0]".into()]),
        ("policyTypes: [Ingress, Egress, Ingress]", vec!["spec.policyTypes".into()]),
    ];
    for (spec, expected) in cases {
        assert_eq!(&refused(spec), expected, "{spec}");
    }
}

#[test]
fn a_refusal_names_object_field_and_value() {
    let metadata = Meta { name: "Shop".into(), ..Meta::default() };
    let object = NetworkPolicy { metadata, spec: NetworkPolicySpec::default() };
    let expected = Rejection {
        object: "NetworkPolicy default/Shop".into(),
        field: "metadata.name".into(),
        problem: "\"Shop\" must be a lower case DNS subdomain".into(),
    };
    assert_eq!(compile(&object, "enforced".into()), Err(vec![expected]));
}
