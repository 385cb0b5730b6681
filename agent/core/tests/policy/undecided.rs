//! What cannot be decided, and why: unknown ends, and what implementations differ on; and the
//! effects that a table prints.
//!
//! In: tables. Out: passed or failed.

use parapet_core::verdict::Profile::{Aws, Calico, Cilium, Common, Spec};
use parapet_core::verdict::{Action, Effect, PolicyKind, Profile, RuleMatch, Tier};

use crate::cluster::{check, check_set, cluster, objects, policy_set};

#[test]
fn unknown_ends_are_decided_where_they_do_not_matter() {
    for profile in [Spec, Common] {
        check(
            profile,
            "x/none: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}
y/web: {podSelector: {}, ingress: [{ports: [{port: 80}]}, {from: [{podSelector: {}}], ports: [{port: 90}]}]}",
            "unknown:10.9.9.9 x/b TCP 80 = Undecidable: UnknownEnd, NotIsolated
             unknown:10.9.9.9 x/a TCP 80 = Denied: UnknownEnd, NoRuleMatched
             unknown:10.9.9.9 y/a TCP 80 = Undecidable: UnknownEnd, RuleMatched
             unknown:10.9.9.9 y/a TCP 90 = Undecidable: UnknownEnd, UnknownEnd
             unknown:10.9.9.9 y/a TCP 70 = Denied: UnknownEnd, NoRuleMatched
             ambiguous:10.9.9.9 y/a TCP 90 = Undecidable: AmbiguousAddress, AmbiguousAddress
             x/b ambiguous:10.9.9.9 TCP 90 = Undecidable: NotIsolated, AmbiguousAddress",
        );
    }
}

#[test]
fn an_allow_anywhere_wins_over_an_unknown_and_an_unknown_over_a_denial() {
    check(
        Spec,
        "x/p: {podSelector: {}, policyTypes: [Egress], egress: [
            {to: [{podSelector: {}}]}, {ports: [{port: web}]}, {ports: [{port: 53, protocol: UDP}]}]}",
        "x/a unknown:10.9.9.9 UDP 53 = Undecidable: RuleMatched, UnknownEnd
         x/a unknown:10.9.9.9 TCP 80 = Undecidable: UnknownEnd, UnknownEnd
         x/a ip:198.51.100.7 TCP 80 = Denied: NoRuleMatched, NotAPod",
    );
}

#[test]
fn of_an_unknown_namespace_the_name_is_known() {
    let rule = |selector: &str| {
        format!(
            "x/p: {{podSelector: {{}}, ingress: [{{from: [{{namespaceSelector: {selector}}}]}}]}}"
        )
    };
    let name = "kubernetes.io/metadata.name";
    let cases = [
        ("{}".to_owned(), "Allowed: NotIsolated, RuleMatched"),
        (format!("{{matchLabels: {{{name}: q}}}}"), "Allowed: NotIsolated, RuleMatched"),
        (format!("{{matchLabels: {{{name}: y, a: b}}}}"), "Denied: NotIsolated, NoRuleMatched"),
        ("{matchLabels: {team: blue}}".to_owned(), "Undecidable: NotIsolated, UnknownEnd"),
    ];
    for (selector, expected) in cases {
        check(Spec, &rule(&selector), &format!("q/d x/a TCP 80 = {expected}"));
    }
}

#[test]
fn common_does_not_choose_whether_blocks_hold_pods_and_nodes() {
    let yaml = "x/p: {podSelector: {}, policyTypes: [Ingress, Egress],
        ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.3.0/24]}}]}, {from: [{podSelector: {}}]}],
        egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}";
    check(
        Common,
        yaml,
        "y/a x/a TCP 80 = Undecidable: NotIsolated, CniDependent
         x/a y/a TCP 80 = Undecidable: CniDependent, NotIsolated
         z/c x/a TCP 80 = Denied: NotIsolated, NoRuleMatched
         x/b x/a TCP 80 = Undecidable: CniDependent, RuleMatched
         node:n2 x/a TCP 80 = Undecidable: NotAPod, CniDependent
         y/host x/a TCP 80 = Undecidable: HostNetwork, CniDependent
         ip:198.51.100.7 x/a TCP 80 = Allowed: NotAPod, RuleMatched
         x/a ip:198.51.100.7 TCP 80 = Allowed: RuleMatched, NotAPod",
    );
    check(
        Spec,
        yaml,
        "y/a x/a TCP 80 = Allowed: NotIsolated, RuleMatched
         node:n2 x/a TCP 80 = Allowed: NotAPod, RuleMatched
         unknown:10.9.9.9 x/a TCP 80 = Undecidable: UnknownEnd, RuleMatched
         unknown:10.0.3.9 x/a TCP 80 = Undecidable: UnknownEnd, UnknownEnd",
    );
}

#[test]
fn common_does_not_choose_what_a_pod_may_send_to_its_own_node() {
    check(
        Common,
        "x/p: {podSelector: {}, policyTypes: [Ingress, Egress]}",
        "x/a node:n1 TCP 10250 = Undecidable: CniDependent, NotAPod
         x/a x/host TCP 80 = Undecidable: CniDependent, HostNetwork
         x/a node: TCP 80 = Undecidable: CniDependent, NotAPod
         x/a node:n2 TCP 10250 = Denied: NoRuleMatched, NotAPod
         node:n1 x/a TCP 80 = Exempt: NotAPod, OwnNode
         node: x/a TCP 80 = Undecidable: NotAPod, UnknownEnd",
    );
}

#[test]
fn common_does_not_choose_for_protocols_the_api_does_not_define() {
    check(
        Common,
        "x/p: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}, {ports: [{port: 80}]}]}",
        "x/b x/a ICMP 0 = Allowed: NotIsolated, RuleMatched
         y/a x/a ICMP 0 = Undecidable: NotIsolated, ProtocolNotDefined
         y/a x/a TCP 81 = Denied: NotIsolated, NoRuleMatched",
    );
}

#[test]
fn default_deny_everywhere_isolates_every_pod_and_keeps_what_is_allowed() {
    let set = policy_set(&objects("x/p: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}"));
    check_set(
        &set.with_default_deny_everywhere(),
        Spec,
        "ip:198.51.100.7 x/a TCP 80 = Allowed: NotAPod, RuleMatched
         ip:198.51.100.7 x/a TCP 81 = Denied: NotAPod, NoRuleMatched
         q/d ip:198.51.100.7 TCP 80 = Denied: NoRuleMatched, NotAPod
         node:n1 x/a TCP 81 = Exempt: NotAPod, OwnNode
         x/host ip:198.51.100.7 TCP 80 = Exempt: HostNetwork, NotAPod
         unknown:10.9.9.9 z/c TCP 80 = Denied: UnknownEnd, NoRuleMatched",
    );
}

#[test]
fn effects_name_every_policy_of_the_subject_and_what_each_rule_lacked() {
    let set = policy_set(&objects(
        "x/allow-app: {podSelector: {}, ingress: [
            {from: [{podSelector: {matchLabels: {pod: b}}}, {ipBlock: {cidr: 172.16.0.0/12}}]},
            {from: [{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {pod: z}}}]},
            {from: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: 443}, {port: 80, protocol: UDP}]},
            {ports: [{port: 80, protocol: UDP}]},
            {from: [{ipBlock: {cidr: 172.16.0.0/12}}]},
            {from: [{namespaceSelector: {}}]}]}
x/default-deny-ingress: {podSelector: {}, policyTypes: [Ingress]}
x/other-pod: {podSelector: {matchLabels: {pod: b}}, ingress: [{}]}
x/other-way: {podSelector: {}, policyTypes: [Egress]}",
    ))
    .with_default_deny_everywhere();
    let verdict = cluster().judge(&set, Spec, "y/a x/a TCP 80");
    let effect = |policy: &str, origin: &str, rule, matched| Effect {
        policy: policy.into(),
        origin: origin.into(),
        tier: Tier::NetworkPolicy,
        kind: PolicyKind::NetworkPolicy,
        action: Action::Allow,
        wanted: None,
        rule,
        matched,
    };
    let rules = [
        RuleMatch::NamespaceLabelsDiffer,
        RuleMatch::PodLabelsDiffer,
        RuleMatch::PortDiffers,
        RuleMatch::ProtocolDiffers,
        RuleMatch::AddressOutside,
        RuleMatch::Matched,
    ];
    let mut expected: Vec<Effect> = rules
        .into_iter()
        .enumerate()
        .map(|(index, matched)| effect("x/allow-app", "enforced", Some(index), matched))
        .collect();
    expected.push(effect("x/default-deny-ingress", "enforced", None, RuleMatch::NoRules));
    expected.push(effect("default-deny", "default-deny", None, RuleMatch::NoRules));
    assert_eq!(verdict.ingress.effects, expected);
    let egress = [effect("default-deny", "default-deny", None, RuleMatch::NoRules)];
    assert_eq!(verdict.egress.effects, egress);
    let outside = cluster().judge(&set, Spec, "ip:198.51.100.7 x/a TCP 80");
    let last = outside.ingress.effects.iter().find(|effect| effect.rule == Some(5));
    assert_eq!(last.map(|effect| effect.matched), Some(RuleMatch::PeerIsNoPod));
}

#[test]
fn effects_of_a_services_backends_are_named_once() {
    let set = policy_set(&objects("x/p: {podSelector: {}, policyTypes: [Ingress]}"));
    let verdict = cluster().judge(&set, Spec, "z/c service:both TCP 443");
    let named: Vec<_> = verdict.ingress.effects.iter().map(|each| &*each.policy).collect();
    assert_eq!(named, ["x/p"]);
}

#[test]
fn of_two_reasons_the_same_one_is_given_in_any_order() {
    let block = "{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}";
    let pods = "{from: [{podSelector: {}}]}";
    for rules in [format!("{block}, {pods}"), format!("{pods}, {block}")] {
        check(
            Common,
            &format!("x/p: {{podSelector: {{}}, ingress: [{rules}]}}"),
            "unknown:10.9.9.9 x/a TCP 80 = Undecidable: UnknownEnd, UnknownEnd",
        );
    }
}

/// Under each profile the same probe, to what is expected of it.
fn under(yaml: &str, probe: &str, expected: &[(Profile, &str)]) {
    for (profile, said) in expected {
        check(*profile, yaml, &format!("{probe} = {said}"));
    }
}

#[test]
fn profiles_differ_in_what_a_block_holds() {
    let block = "x/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}";
    let expected = [
        (Common, "Undecidable: NotIsolated, CniDependent"),
        (Spec, "Allowed: NotIsolated, RuleMatched"),
        (Calico, "Allowed: NotIsolated, RuleMatched"),
        (Cilium, "Denied: NotIsolated, NoRuleMatched"),
    ];
    under(block, "y/b x/a TCP 80", &expected);
    let of_node =
        expected.map(|(profile, said)| (profile, said.replace("NotIsolated, ", "NotAPod, ")));
    let of_node: Vec<_> = of_node.iter().map(|(profile, said)| (*profile, said.as_str())).collect();
    under(block, "node:n2 x/a TCP 80", &of_node);
    under(
        block,
        "ip:198.51.100.7 x/a TCP 80",
        &[(Common, "Allowed: NotAPod, RuleMatched"), (Cilium, "Allowed: NotAPod, RuleMatched")],
    );
}

#[test]
fn profiles_differ_in_which_port_of_a_service_they_see() {
    let rule = |to: &str, port: u16| {
        format!(
            "y/p: {{podSelector: {{}}, policyTypes: [Egress], \
             egress: [{{{to}ports: [{{port: {port}}}]}}]}}"
        )
    };
    let selects = "to: [{namespaceSelector: {}}], ";
    let both =
        "to: [{namespaceSelector: {matchLabels: {team: red}}}, {ipBlock: {cidr: 1.0.0.0/8}}], ";
    // The Service's port is 80, the pod's 8080.
    let probe = "y/a service:moved TCP 8080";
    let undecidable = "Undecidable: CniDependent, NotIsolated";
    let denied = "Denied: NoRuleMatched, NotIsolated";
    let allowed = "Allowed: RuleMatched, NotIsolated";
    under(
        &rule("", 80),
        probe,
        &[(Common, undecidable), (Aws, undecidable), (Spec, denied), (Cilium, denied)],
    );
    under(
        &rule("", 8080),
        probe,
        &[(Common, undecidable), (Aws, undecidable), (Spec, allowed), (Calico, allowed)],
    );
    under(&rule("", 443), probe, &[(Common, denied), (Aws, denied)]);
    // A rule that selects the pods means their port everywhere but with aws, which may not know
    // which Services are theirs.
    under(&rule(selects, 80), probe, &[(Common, denied), (Aws, undecidable), (Spec, denied)]);
    under(&rule(selects, 8080), probe, &[(Common, allowed), (Aws, undecidable), (Spec, allowed)]);
    under(&rule(both, 8080), probe, &[(Common, allowed)]);
    under(&rule(both, 80), probe, &[(Common, denied)]);
    // At its ingress the pod sees its own port, whoever was asked.
    let ingress = "x/p: {podSelector: {}, ingress: [{ports: [{port: 8080}]}]}";
    under(ingress, probe, &[(Common, "Allowed: NotIsolated, RuleMatched")]);
}

#[test]
fn profiles_differ_in_a_pod_that_reaches_itself_through_a_service() {
    let denied = "x/p: {podSelector: {}, policyTypes: [Ingress, Egress]}";
    let probe = "x/b service:moved TCP 8080";
    under(
        denied,
        probe,
        &[
            (Common, "Undecidable: CniDependent, CniDependent"),
            (Calico, "Undecidable: CniDependent, CniDependent"),
            (Spec, "Exempt: Loopback, Loopback"),
            (Cilium, "Exempt: Loopback, Loopback"),
        ],
    );
    under("{}", probe, &[(Common, "Exempt: Loopback, Loopback")]);
    under(denied, "x/b x/b TCP 8080", &[(Common, "Exempt: Loopback, Loopback")]);
}

#[test]
fn profiles_differ_in_pods_on_the_host_network_as_peers() {
    let selects = "x/p: {podSelector: {}, ingress: [{from: [
        {namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {pod: a}}}]}]}";
    under(
        selects,
        "y/host x/a TCP 80",
        &[
            (Common, "Undecidable: HostNetwork, CniDependent"),
            (Aws, "Undecidable: HostNetwork, CniDependent"),
            (Spec, "Denied: HostNetwork, NoRuleMatched"),
            (Cilium, "Denied: HostNetwork, NoRuleMatched"),
        ],
    );
    let other = selects.replace("pod: a", "pod: b");
    under(&other, "y/host x/a TCP 80", &[(Common, "Denied: HostNetwork, NoRuleMatched")]);
}

#[test]
fn every_profile_names_a_source_for_each_of_its_choices() {
    use Profile::{Antrea, KubeNetworkPolicies, OvnKubernetes};
    for profile in [Common, Spec, Cilium, Calico, Aws, Antrea, OvnKubernetes, KubeNetworkPolicies] {
        let table = profile.table();
        assert_eq!(table.len(), 9);
        for row in table {
            assert!(!row.source.is_empty() && !row.choice.is_empty(), "{profile:?} {row:?}");
        }
    }
}
