//! What cannot be decided, and why: unknown ends, and what implementations differ on; and the
//! effects that a table prints.
//!
//! In: tables. Out: passed or failed.

use parapet_core::verdict::Profile::{Common, Spec};
use parapet_core::verdict::{Action, Effect, PolicyKind, RuleMatch, Tier};

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
