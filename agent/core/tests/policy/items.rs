//! What the NetworkPolicy v1 API says, one small case a rule, under the `spec` profile.
//!
//! In: tables. Out: passed or failed. Where implementations differ is in `undecided`.

use parapet_core::verdict::Profile::Spec;

use crate::cluster::check;

const BOTH_OPEN: &str = "Allowed: NotIsolated, NotIsolated";

// A: isolation and combination.

#[test]
fn item_01_no_policy_allows() {
    check(Spec, "{}", &format!("x/a y/a TCP 80 = {BOTH_OPEN}"));
}

#[test]
fn item_02_isolation_is_per_direction() {
    check(
        Spec,
        "x/p: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress]}",
        "x/a y/a TCP 80 = Denied: NoRuleMatched, NotIsolated
         y/a x/a TCP 80 = Allowed: NotIsolated, NotIsolated",
    );
}

#[test]
fn item_03_only_selected_pods_are_isolated() {
    check(
        Spec,
        "x/p: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}",
        "y/a x/a TCP 80 = Denied: NotIsolated, NoRuleMatched
         y/a x/b TCP 80 = Allowed: NotIsolated, NotIsolated",
    );
}

#[test]
fn item_04_absent_types_with_empty_egress_do_not_isolate_egress() {
    for egress in ["", ", egress: []", ", egress: null, policyTypes: []"] {
        check(
            Spec,
            &format!("x/p: {{podSelector: {{}}{egress}}}"),
            "x/a y/a TCP 80 = Allowed: NotIsolated, NotIsolated
             y/a x/a TCP 80 = Denied: NotIsolated, NoRuleMatched",
        );
    }
}

#[test]
fn item_05_absent_types_with_egress_rules_isolate_both() {
    check(
        Spec,
        "x/p: {podSelector: {}, egress: [{}]}",
        "x/a y/a TCP 80 = Allowed: RuleMatched, NotIsolated
         y/a x/a TCP 80 = Denied: NotIsolated, NoRuleMatched",
    );
}

#[test]
fn item_06_rules_of_a_type_that_is_not_listed_are_ignored() {
    check(
        Spec,
        "x/p: {podSelector: {}, policyTypes: [Egress], ingress: [{}]}",
        "y/a x/a TCP 80 = Allowed: NotIsolated, NotIsolated
         x/a y/a TCP 80 = Denied: NoRuleMatched, NotIsolated",
    );
    check(
        Spec,
        "x/p: {podSelector: {}, policyTypes: [Ingress]}
x/q: {podSelector: {}, policyTypes: [Egress], ingress: [{}]}",
        "y/a x/a TCP 80 = Denied: NotIsolated, NoRuleMatched",
    );
}

#[test]
fn item_07_order_of_types_does_not_matter() {
    for types in ["[Ingress, Egress]", "[Egress, Ingress]"] {
        check(
            Spec,
            &format!("x/p: {{podSelector: {{}}, policyTypes: {types}}}"),
            "x/a x/b TCP 80 = Denied: NoRuleMatched, NoRuleMatched",
        );
    }
}

#[test]
fn item_08_an_empty_rule_list_is_an_absent_one() {
    for rules in ["", ", ingress: []", ", ingress: null"] {
        check(
            Spec,
            &format!("x/p: {{podSelector: {{}}, policyTypes: [Ingress]{rules}}}"),
            "y/a x/a TCP 80 = Denied: NotIsolated, NoRuleMatched",
        );
    }
}

#[test]
fn item_09_an_empty_rule_allows_everything() {
    check(
        Spec,
        "x/p: {podSelector: {}, ingress: [{}]}",
        "y/a x/a TCP 80 = Allowed: NotIsolated, RuleMatched
         ip:198.51.100.7 x/a SCTP 9 = Allowed: NotAPod, RuleMatched
         y/host x/a UDP 9 = Allowed: HostNetwork, RuleMatched
         node:n2 x/a ICMP 0 = Allowed: NotAPod, RuleMatched",
    );
}

#[test]
fn item_10_policies_are_a_union_of_allows() {
    check(
        Spec,
        "x/deny: {podSelector: {}, policyTypes: [Ingress]}
x/web: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}
x/b: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}",
        "y/a x/a TCP 80 = Allowed: NotIsolated, RuleMatched
         x/b x/a TCP 81 = Allowed: NotIsolated, RuleMatched
         y/a x/a TCP 81 = Denied: NotIsolated, NoRuleMatched",
    );
}

#[test]
fn item_11_both_ends_must_allow() {
    check(
        Spec,
        "x/deny: {podSelector: {}, policyTypes: [Egress]}
y/allow: {podSelector: {}, ingress: [{}]}",
        "x/a y/a TCP 80 = Denied: NoRuleMatched, RuleMatched",
    );
}

#[test]
fn item_12_a_policy_selects_pods_of_its_own_namespace() {
    check(
        Spec,
        "x/p: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}",
        "x/b x/a TCP 80 = Denied: NotIsolated, NoRuleMatched
         x/b y/a TCP 80 = Allowed: NotIsolated, NotIsolated",
    );
}

#[test]
fn item_13_an_empty_or_absent_subject_is_every_pod() {
    for selector in ["podSelector: {}, ", "podSelector: {matchLabels: {}}, ", ""] {
        check(
            Spec,
            &format!("z/p: {{{selector}policyTypes: [Ingress]}}"),
            "x/a z/c TCP 80 = Denied: NotIsolated, NoRuleMatched",
        );
    }
}

#[test]
fn item_14_peers_of_one_rule_do_not_meet_ports_of_another() {
    check(
        Spec,
        "x/p: {podSelector: {}, ingress: [
            {from: [{podSelector: {matchLabels: {pod: a}}}, {podSelector: {matchLabels: {pod: b}}}],
             ports: [{port: 80}, {port: 81}]},
            {from: [{namespaceSelector: {}}], ports: [{port: 443}]}]}",
        "x/b x/a TCP 80 = Allowed: NotIsolated, RuleMatched
         x/b x/a TCP 81 = Allowed: NotIsolated, RuleMatched
         y/a x/a TCP 443 = Allowed: NotIsolated, RuleMatched
         y/a x/a TCP 80 = Denied: NotIsolated, NoRuleMatched",
    );
}

#[test]
fn item_15_empty_and_absent_peers_and_ports_are_all() {
    for rule in ["{from: [], ports: []}", "{from: null, ports: null}", "{}"] {
        check(
            Spec,
            &format!("x/p: {{podSelector: {{}}, ingress: [{rule}]}}"),
            "ip:198.51.100.7 x/a TCP 80 = Allowed: NotAPod, RuleMatched
             y/a x/a ICMP 0 = Allowed: NotIsolated, RuleMatched",
        );
    }
}

// B: peers.

#[test]
fn item_17_and_21_pods_alone_are_those_of_the_policys_namespace() {
    for selector in ["{}", "{matchLabels: {pod: b}}"] {
        check(
            Spec,
            &format!(
                "x/p: {{podSelector: {{}}, ingress: [{{from: [{{podSelector: {selector}}}]}}]}}"
            ),
            "x/b x/a TCP 80 = Allowed: NotIsolated, RuleMatched
             y/b x/a TCP 80 = Denied: NotIsolated, NoRuleMatched",
        );
    }
}

#[test]
fn item_18_namespaces_alone_are_all_their_pods() {
    check(
        Spec,
        "x/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}",
        "y/a x/a TCP 80 = Allowed: NotIsolated, RuleMatched
         y/b x/a TCP 80 = Allowed: NotIsolated, RuleMatched
         z/c x/a TCP 80 = Denied: NotIsolated, NoRuleMatched
         x/b x/a TCP 80 = Denied: NotIsolated, NoRuleMatched",
    );
}

#[test]
fn item_19_both_selectors_in_one_peer_are_and_two_peers_are_or() {
    let (pods, namespaces) =
        ("podSelector: {matchLabels: {pod: b}}", "namespaceSelector: {matchLabels: {team: blue}}");
    check(
        Spec,
        &format!("x/p: {{podSelector: {{}}, ingress: [{{from: [{{{pods}, {namespaces}}}]}}]}}"),
        "y/b x/a TCP 80 = Allowed: NotIsolated, RuleMatched
         y/a x/a TCP 80 = Denied: NotIsolated, NoRuleMatched
         x/b x/a TCP 80 = Denied: NotIsolated, NoRuleMatched",
    );
    check(
        Spec,
        &format!("x/p: {{podSelector: {{}}, ingress: [{{from: [{{{pods}}}, {{{namespaces}}}]}}]}}"),
        "y/b x/a TCP 80 = Allowed: NotIsolated, RuleMatched
         y/a x/a TCP 80 = Allowed: NotIsolated, RuleMatched
         x/b x/a TCP 80 = Allowed: NotIsolated, RuleMatched
         z/c x/a TCP 80 = Denied: NotIsolated, NoRuleMatched",
    );
}

#[test]
fn item_20_an_empty_namespace_selector_is_every_namespace() {
    check(
        Spec,
        "x/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {pod: a}}}]}]}",
        "y/a x/b TCP 80 = Allowed: NotIsolated, RuleMatched
         x/a x/b TCP 80 = Allowed: NotIsolated, RuleMatched
         q/d x/b TCP 80 = Allowed: NotIsolated, RuleMatched
         y/b x/b TCP 80 = Denied: NotIsolated, NoRuleMatched",
    );
}

#[test]
fn item_23_selectors_match_pods_only() {
    check(
        Spec,
        "x/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}], egress: [{to: [{namespaceSelector: {}}]}]}",
        "ip:198.51.100.7 x/a TCP 80 = Denied: NotAPod, NoRuleMatched
         node:n2 x/a TCP 80 = Denied: NotAPod, NoRuleMatched
         y/host x/a TCP 80 = Denied: HostNetwork, NoRuleMatched
         x/a y/host TCP 80 = Denied: NoRuleMatched, HostNetwork
         x/a ip:198.51.100.7 TCP 80 = Denied: NoRuleMatched, NotAPod",
    );
}

#[test]
fn item_24_a_block_matches_pod_addresses_by_the_letter() {
    check(
        Spec,
        "x/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.2.1/32}}]}]}",
        "y/a x/a TCP 80 = Allowed: NotIsolated, RuleMatched
         y/b x/a TCP 80 = Denied: NotIsolated, NoRuleMatched",
    );
}

#[test]
fn item_25_exceptions_subtract_from_their_own_block_only() {
    let except = "{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.2.0/24]}}";
    check(
        Spec,
        &format!("x/p: {{podSelector: {{}}, ingress: [{{from: [{except}]}}]}}"),
        "y/a x/a TCP 80 = Denied: NotIsolated, NoRuleMatched
         z/c x/a TCP 80 = Allowed: NotIsolated, RuleMatched",
    );
    check(
        Spec,
        &format!(
            "x/p: {{podSelector: {{}}, ingress: [{{from: [{except}, {{ipBlock: {{cidr: 10.0.2.1/32}}}}]}}]}}"
        ),
        "y/a x/a TCP 80 = Allowed: NotIsolated, RuleMatched
         y/b x/a TCP 80 = Denied: NotIsolated, NoRuleMatched",
    );
}

#[test]
fn item_27_and_28_old_spellings_of_cidrs_are_read() {
    check(
        Spec,
        "x/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 010.000.2.77/024}}]}]}",
        "y/b x/a TCP 80 = Allowed: NotIsolated, RuleMatched
         z/c x/a TCP 80 = Denied: NotIsolated, NoRuleMatched
         ip:8.0.2.1 x/a TCP 80 = Denied: NotAPod, NoRuleMatched",
    );
}

#[test]
fn item_29_families_never_match_each_other_and_mapped_addresses_are_ipv4() {
    check(
        Spec,
        "x/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}
y/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: '::/0'}}]}]}",
        "ip:198.51.100.7 x/a TCP 80 = Allowed: NotAPod, RuleMatched
         ip:::ffff:198.51.100.7 x/a TCP 80 = Allowed: NotAPod, RuleMatched
         ip:2001:db8::1 x/a TCP 80 = Denied: NotAPod, NoRuleMatched
         ip:2001:db8::1 y/a TCP 80 = Allowed: NotAPod, RuleMatched
         ip:::ffff:198.51.100.7 y/a TCP 80 = Denied: NotAPod, NoRuleMatched",
    );
}

#[test]
fn item_30_the_address_of_the_flow_is_matched() {
    check(
        Spec,
        "x/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 'fd00:2::/64'}}]}]}",
        "y/b x/a TCP 80 = Denied: NotIsolated, NoRuleMatched
         y/b@fd00:2::2 x/a@fd00:1::1 TCP 80 = Allowed: NotIsolated, RuleMatched",
    );
}

#[test]
fn item_31_host_network_pods_are_no_subjects() {
    check(
        Spec,
        "x/p: {podSelector: {}, policyTypes: [Ingress, Egress]}",
        "y/a x/host TCP 80 = Allowed: NotIsolated, HostNetwork
         x/host y/a TCP 80 = Allowed: HostNetwork, NotIsolated
         x/host y/host TCP 80 = Exempt: HostNetwork, HostNetwork",
    );
}

#[test]
fn item_32_the_own_node_always_reaches_its_pods() {
    check(
        Spec,
        "x/p: {podSelector: {}, policyTypes: [Ingress, Egress]}",
        "node:n1 x/a TCP 80 = Exempt: NotAPod, OwnNode
         x/host x/a TCP 80 = Exempt: HostNetwork, OwnNode
         node:n2 x/a TCP 80 = Denied: NotAPod, NoRuleMatched
         x/a node:n1 TCP 10250 = Denied: NoRuleMatched, NotAPod
         node: x/a TCP 80 = Undecidable: NotAPod, UnknownEnd",
    );
    check(
        Spec,
        "x/p: {podSelector: {}, egress: [{to: [{ipBlock: {cidr: 192.168.0.1/32}}]}]}",
        "x/a node:n1 TCP 10250 = Allowed: RuleMatched, NotAPod
         x/a node:n2 TCP 10250 = Denied: NoRuleMatched, NotAPod
         x/a x/host TCP 80 = Allowed: RuleMatched, HostNetwork",
    );
}

#[test]
fn item_33_a_pod_always_reaches_itself() {
    check(
        Spec,
        "x/p: {podSelector: {}, policyTypes: [Ingress, Egress]}",
        "x/a x/a TCP 80 = Exempt: Loopback, Loopback
         x/a x/a@fd00:1::1 TCP 80 = Exempt: Loopback, Loopback
         x/a ip:127.8.9.10 TCP 80 = Exempt: Loopback, Loopback
         x/a ip:::1 TCP 80 = Exempt: Loopback, Loopback
         x/a ip:::ffff:127.0.0.1 TCP 80 = Exempt: Loopback, Loopback",
    );
}

#[test]
fn item_34_namespaces_carry_their_name() {
    check(
        Spec,
        "x/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}}]}]}",
        "z/c x/a TCP 80 = Allowed: NotIsolated, RuleMatched
         y/a x/a TCP 80 = Denied: NotIsolated, NoRuleMatched",
    );
}

// C: selectors.

/// Pods y/a (pod=a), y/b (pod=b) and z/c (no label) against a selector of the key `pod`.
#[track_caller]
fn selects(selector: &str, a: bool, b: bool, c: bool) {
    let said = |yes: bool| if yes { "Allowed" } else { "Denied" };
    let reason = |yes: bool| if yes { "RuleMatched" } else { "NoRuleMatched" };
    let lines: Vec<String> = [("y/a", a), ("y/b", b), ("z/c", c)]
        .map(|(pod, yes)| format!("{pod} x/a TCP 80 = {}: NotIsolated, {}", said(yes), reason(yes)))
        .into();
    let peer = format!("{{namespaceSelector: {{}}, podSelector: {{{selector}}}}}");
    let yaml = format!("x/p: {{podSelector: {{}}, ingress: [{{from: [{peer}]}}]}}");
    check(Spec, &yaml, &lines.join("\n"));
}

#[test]
fn item_36_not_in_is_true_without_the_key() {
    selects("matchExpressions: [{key: pod, operator: NotIn, values: [a]}]", false, true, true);
    selects("matchExpressions: [{key: pod, operator: NotIn, values: [a, b]}]", false, false, true);
}

#[test]
fn item_37_in_needs_the_key_and_exists_asks_for_it_alone() {
    selects("matchExpressions: [{key: pod, operator: In, values: [a]}]", true, false, false);
    selects("matchExpressions: [{key: pod, operator: Exists}]", true, true, false);
    selects(
        "matchExpressions: [{key: pod, operator: DoesNotExist, values: []}]",
        false,
        false,
        true,
    );
}

#[test]
fn item_38_an_empty_value_needs_the_key() {
    check(
        Spec,
        "x/p: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {note: ''}}}]}]}",
        "x/a x/b TCP 80 = Allowed: NotIsolated, RuleMatched
         x/b x/a TCP 80 = Denied: NotIsolated, NoRuleMatched",
    );
}

#[test]
fn item_39_requirements_are_and_and_values_are_or() {
    selects("matchExpressions: [{key: pod, operator: In, values: [a, b]}]", true, true, false);
    selects(
        "matchLabels: {pod: a}, matchExpressions: [{key: pod, operator: NotIn, values: [a]}]",
        false,
        false,
        false,
    );
    selects("matchLabels: {pod: a, note: ''}", false, false, false);
}

#[test]
fn item_40_an_empty_selector_is_everything() {
    selects("", true, true, true);
    selects("matchLabels: {}, matchExpressions: []", true, true, true);
}

// D: ports and protocols.

/// What an egress rule with these ports says about x/a to a target.
#[track_caller]
fn ports(ports: &str, allowed: &[&str], denied: &[&str]) {
    let lines = |probes: &[&str], said: &str, reason: &str| -> Vec<String> {
        probes.iter().map(|probe| format!("x/b {probe} = {said}: {reason}, NotIsolated")).collect()
    };
    let mut all = lines(allowed, "Allowed", "RuleMatched");
    all.extend(lines(denied, "Denied", "NoRuleMatched"));
    let yaml = format!(
        "x/p: {{podSelector: {{}}, policyTypes: [Egress], egress: [{{ports: [{ports}]}}]}}"
    );
    check(Spec, &yaml, &all.join("\n"));
}

#[test]
fn item_42_an_absent_protocol_is_tcp() {
    ports("{port: 80}", &["y/b TCP 80"], &["y/b UDP 80", "y/b SCTP 80", "y/b ICMP 0"]);
    ports("{}", &["y/b TCP 80"], &["y/b UDP 80", "y/b SCTP 80"]);
}

#[test]
fn item_43_an_absent_port_is_every_port_of_the_protocol() {
    ports("{protocol: UDP}", &["y/b UDP 1", "y/b UDP 65535"], &["y/b TCP 1"]);
}

#[test]
fn item_44_port_and_protocol_must_match() {
    ports(
        "{port: 80}, {port: 53, protocol: UDP}",
        &["y/b TCP 80", "y/b UDP 53"],
        &["y/b UDP 80", "y/b TCP 53", "y/b SCTP 80"],
    );
}

#[test]
fn item_45_a_policy_about_sctp_isolates_for_tcp() {
    ports("{port: 80, protocol: SCTP}", &["y/b SCTP 80"], &["y/b TCP 80"]);
}

#[test]
fn item_46_ranges_include_both_ends() {
    ports(
        "{port: 80, endPort: 82}",
        &["y/b TCP 80", "y/b TCP 81", "y/b TCP 82"],
        &["y/b TCP 79", "y/b TCP 83", "y/b UDP 81"],
    );
    ports("{port: 80, endPort: 80}", &["y/b TCP 80"], &["y/b TCP 81"]);
}

#[test]
fn item_48_to_50_named_ports_are_those_of_the_target_pod() {
    // x/a: web TCP 80; y/a: web UDP 80; y/host: on the host network, so no pod to ask.
    ports(
        "{port: web}",
        &["x/a TCP 80"],
        &["x/a TCP 81", "y/a TCP 80", "y/a UDP 80", "y/b TCP 80", "z/c TCP 80"],
    );
    ports("{port: web, protocol: UDP}", &["y/a UDP 80"], &["x/a UDP 80", "x/a TCP 80"]);
    // The same number under another name.
    ports("{port: api}", &[], &["x/a TCP 80"]);
    check(
        Spec,
        "x/p: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: web}]}]}
y/p: {podSelector: {}, ingress: [{ports: [{port: web, protocol: UDP}]}]}",
        "x/a x/b TCP 8080 = Allowed: RuleMatched, NotIsolated
         x/a x/b TCP 80 = Denied: NoRuleMatched, NotIsolated
         x/b y/host TCP 80 = Denied: NoRuleMatched, HostNetwork
         x/b ip:198.51.100.7 TCP 80 = Denied: NoRuleMatched, NotAPod
         z/c y/a UDP 80 = Allowed: NotIsolated, RuleMatched
         z/c y/b UDP 80 = Denied: NotIsolated, NoRuleMatched",
    );
}

#[test]
fn item_54_other_protocols_pass_rules_without_ports_only() {
    check(
        Spec,
        "x/p: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}, {ports: [{port: 80}]}]}",
        "x/b x/a ICMP 0 = Allowed: NotIsolated, RuleMatched
         y/a x/a ICMP 0 = Denied: NotIsolated, NoRuleMatched",
    );
}

#[test]
fn item_57_a_service_is_judged_at_its_backends_and_their_ports() {
    check(
        Spec,
        "x/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: web}]}]}
y/p: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}",
        "z/c service:both TCP 443 = Allowed: NotIsolated, RuleMatched
         x/a service:both TCP 443 = Allowed: NotIsolated, RuleMatched
         y/a service:both TCP 80 = Undecidable: EndpointsDisagree, RuleMatched
         z/c service:across TCP 443 = Undecidable: NotIsolated, EndpointsDisagree
         z/c service:outside TCP 443 = Allowed: NotIsolated, NotAPod
         y/a service:outside TCP 80 = Denied: NoRuleMatched, NotAPod
         z/c service:empty TCP 80 = Undecidable: NoEndpoints, NoEndpoints
         ip:198.51.100.7 service:empty TCP 80 = Undecidable: NotAPod, NoEndpoints",
    );
}
