//! Every rule of policy as a scenario of its own, judged by the real binary.
//!
//! In: the YAML files beside this one, each on top of `cluster.yaml`, with what `parapet explain`
//! must say. Out: all lines of a scenario that differ. Nothing is asked of the core directly.
//!
//! A file is named by the section and the number of its rule: A, isolation and combination (1 to
//! 16); B, peers (17 to 35); C, label selectors (36 to 41); D, ports and protocols (42 to 58); E,
//! cluster wide policies and their tiers (59 to 90). Its first document states the rule and what
//! follows from it, the others are objects as kubectl takes them. A document with `then` in place
//! of `rule` opens a further step, whose objects replace those of the same name.
//!
//! A line of `probes` is a question and the whole answer to it: the decision, then of each side the
//! decision and its reason. `rejected` are objects that must be refused and named, `warned` those
//! that are judged by nevertheless; the first makes the exit code 1.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::path::{Path, PathBuf};

use self::judge::{Said, judge};
use self::scenario::{Expected, Manifest, Problem, Step, manifests, steps};

mod judge;
mod scenario;

/// A test for each file; its name with `-` for `_` is the file's.
macro_rules! scenarios {
    ($($name:ident,)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        $(#[test]
        fn $name() {
            let mismatches = mismatches(&read(stringify!($name)), Policies::Kept);
            assert!(mismatches.is_empty(), "{}", mismatches.join("\n"));
        })*
    };
}

scenarios! {
    a01_no_policy_allows,
    a02_isolation_is_per_direction,
    a03_isolation_needs_the_subject_and_the_type,
    a04_absent_policy_types_default_to_ingress,
    a05_egress_rules_alone_isolate_both,
    a06_rules_of_an_unlisted_type_are_ignored,
    a07_order_of_policy_types_is_irrelevant,
    a08_an_empty_rule_list_denies_as_an_absent_one,
    a09_an_empty_rule_allows_everything,
    a10_policies_are_a_union_of_allows,
    a11_both_ends_must_allow,
    a12_a_policy_selects_pods_of_its_own_namespace,
    a13_an_empty_pod_selector_is_every_pod,
    a14_peers_and_ports_do_not_cross_rules,
    a15_empty_peers_and_ports_are_all,
    a16_the_state_at_the_time_of_the_flow_decides,
    b17_a_pod_selector_alone_is_the_policys_namespace,
    b18_a_namespace_selector_alone_is_all_its_pods,
    b19_one_peer_is_and_two_peers_are_or,
    b20_an_empty_namespace_selector_is_every_namespace,
    b21_an_empty_pod_selector_peer_stays_in_the_namespace,
    b22_a_peer_needs_a_selector_or_a_block,
    b23_selectors_match_pods_only,
    b24_a_block_matches_addresses_of_pods,
    b24_common_leaves_blocks_and_pods_open,
    b25_exceptions_subtract_from_their_own_block,
    b26_an_exception_is_a_strict_subset,
    b27_host_bits_of_a_block_are_masked,
    b28_leading_zeros_of_a_block_are_decimal,
    b29_families_never_match_each_other,
    b30_groups_are_addresses_where_nothing_else_is_said,
    b30_the_address_of_the_flow_is_matched,
    b31_host_network_pods_are_no_subjects,
    b32_the_own_node_always_reaches_its_pods,
    b33_a_pod_always_reaches_itself,
    b34_namespaces_carry_their_name,
    b35_a_completed_pod_gives_its_address_back,
    c36_not_in_is_true_without_the_key,
    c37_in_needs_the_key_and_exists_asks_for_it_alone,
    c38_an_empty_value_needs_the_key,
    c39_requirements_are_and_and_values_are_or,
    c40_an_empty_selector_is_everything,
    c41_values_belong_to_in_and_not_in,
    d42_an_absent_protocol_is_tcp,
    d43_an_absent_port_is_every_port,
    d44_port_and_protocol_must_both_match,
    d45_a_policy_about_sctp_isolates_for_tcp,
    d46_ranges_include_both_ends,
    d47_an_end_port_needs_a_lower_number,
    d48_a_named_port_is_that_of_the_target_pod,
    d49_a_named_port_needs_name_number_and_protocol,
    d50_a_named_port_matches_no_end_without_names,
    d51_named_ports_of_every_container_count,
    d52_the_port_is_the_pods_after_the_service,
    d53_a_port_in_quotes_is_a_name,
    d54_common_leaves_other_protocols_open,
    d54_other_protocols_pass_rules_without_ports,
    d55_a_connection_is_judged_by_who_began,
    d57_an_address_of_a_node_has_ports_of_services,
    d57_an_address_of_a_service_is_its_pods,
    d58_a_rewritten_source_is_judged_as_seen,
    e59_tiers_are_admin_network_policy_baseline_default,
    e60_an_accepted_egress_does_not_skip_ingress,
    e61_equal_priorities_are_undecidable,
    e61_lower_priorities_win,
    e62_priorities_order_within_their_tier,
    e63_the_first_matching_rule_of_a_policy_wins,
    e64_a_subject_is_not_isolated,
    e65_accept_and_deny_are_final,
    e66_pass_skips_the_rest_of_its_tier,
    e67_baseline_applies_where_no_policy_isolates,
    e68_pass_in_baseline_is_the_default,
    e69_accept_and_allow_are_names_of_their_apis,
    e70_a_subject_has_one_field,
    e70_a_subject_is_namespaces_or_pods,
    e71_host_network_pods_are_neither_subject_nor_peer,
    e72_peers_must_be_given,
    e73_an_unknown_peer_fails_closed,
    e74_networks_nodes_and_names_are_peers_of_egress,
    e75_networks_match_pods_too,
    e76_networks_match_icmp,
    e77_nodes_are_addresses_of_nodes,
    e78_nodes_match_host_network_pods,
    e79_an_entry_of_ports_has_one_field,
    e79_ports_of_an_admin_network_policy,
    e80_an_entry_of_protocols_has_one_field,
    e80_protocols_of_a_cluster_network_policy,
    e81_a_range_of_a_cluster_policy_has_two_ends,
    e82_a_named_port_is_one_of_the_target_pod,
    e83_named_ports_need_pods,
    e84_domain_names_accept_and_are_not_guessed,
    e85_namespace_labels_select_anew,
    e86_a_policy_has_a_limited_number_of_rules,
    e86_rules_are_known_by_their_place,
    e87_peers_of_older_releases_are_refused,
    e88_ports_are_those_of_the_target,
    e89_a_pod_reaches_itself_and_its_node_reaches_it,
    e90_data_planes_deviate_under_their_profiles,
}

/// Items of the list that no question to a policy set can prove, and why.
const NO_SCENARIO: &[(usize, &str)] = &[(
    56,
    "what becomes of established connections is up to the CNI; a verdict is about a new one",
)];

/// The last item of each section, in the order of their letters.
const SECTIONS: [(char, usize); 5] = [('a', 16), ('b', 35), ('c', 41), ('d', 58), ('e', 90)];

const ITEMS: usize = SECTIONS[SECTIONS.len() - 1].1;

/// Whether the policies of a scenario are applied.
#[derive(Clone, Copy, PartialEq)]
enum Policies {
    Kept,
    LeftOut,
}

#[test]
fn every_file_is_a_test() {
    let mut files: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|file| file.strip_suffix(".yaml").map(|name| name.replace('-', "_")))
        .filter(|name| name != "cluster")
        .collect();
    files.sort();
    let mut listed = NAMES.to_vec();
    listed.sort_unstable();
    assert_eq!(listed, files);
}

#[test]
fn every_item_has_a_scenario_or_a_reason() {
    let scenarios: Vec<(char, usize)> = NAMES
        .iter()
        .map(|name| (name.chars().next().unwrap(), name[1..3].parse().unwrap()))
        .collect();
    let reasons: Vec<_> = NO_SCENARIO.iter().map(|(item, _)| (section_of(*item), *item)).collect();
    let items: Vec<_> = (1..=ITEMS).map(|item| (section_of(item), item)).collect();
    let missing: Vec<_> =
        items.iter().filter(|item| !scenarios.contains(item) && !reasons.contains(item)).collect();
    let misplaced: Vec<_> = scenarios.iter().filter(|item| !items.contains(item)).collect();
    let needless: Vec<_> = reasons.iter().filter(|item| scenarios.contains(item)).collect();
    assert_eq!((missing, misplaced, needless), (vec![], vec![], vec![]));
}

/// A scenario whose answers are the same without its policies proves nothing.
#[test]
fn every_scenario_fails_without_its_policies() {
    let idle: Vec<_> =
        NAMES.iter().filter(|name| mismatches(&read(name), Policies::LeftOut).is_empty()).collect();
    assert_eq!(idle, [&"a01_no_policy_allows"]);
}

/// Every line of every step that differs, under the step's title.
fn mismatches(steps: &[Step], policies: Policies) -> Vec<String> {
    let mut cluster = manifests(&std::fs::read_to_string(folder().join("cluster.yaml")).unwrap());
    let mut mismatches = Vec::new();
    for step in steps {
        apply(&mut cluster, step);
        let applied: Vec<Manifest> = cluster
            .iter()
            .filter(|manifest| policies == Policies::Kept || !manifest.id.is_policy())
            .cloned()
            .collect();
        let questions: Vec<_> = step.expected.iter().map(|expected| &expected.question).collect();
        let said = judge(&applied, &step.profile, &questions);
        let differing = differences(step, &said);
        if !differing.is_empty() {
            mismatches.push(step.title.clone());
            mismatches.extend(differing);
        }
    }
    mismatches
}

fn apply(cluster: &mut Vec<Manifest>, step: &Step) {
    for id in &step.deleted {
        let before = cluster.len();
        cluster.retain(|manifest| manifest.id != *id);
        assert_eq!(cluster.len() + 1, before, "{id} is not there to be deleted");
    }
    for manifest in &step.applied {
        match cluster.iter_mut().find(|known| known.id == manifest.id) {
            Some(known) => *known = manifest.clone(),
            None => cluster.push(manifest.clone()),
        }
    }
}

fn differences(step: &Step, said: &Said) -> Vec<String> {
    let mut differing = Vec::new();
    for (index, Expected { question, answer }) in step.expected.iter().enumerate() {
        let got = said.answers.get(index).map_or("nothing", String::as_str);
        if got != answer {
            differing.push(format!("  {} = {got}\n    expected {answer}", question.text));
        }
    }
    differing.extend(difference("refused", &step.rejected, &said.rejected));
    differing.extend(difference("warned of", &step.warned, &said.warned));
    differing.extend(said.other.iter().map(|line| format!("  said {line}\n    not expected")));
    let code = Some(i32::from(!step.rejected.is_empty()));
    if said.code != code {
        differing.push(format!("  exit code {:?}\n    expected {code:?}", said.code));
    }
    differing
}

fn difference(what: &str, expected: &[Problem], got: &[Problem]) -> Option<String> {
    let fits = |(expected, got): (&Problem, &Problem)| {
        (&expected.object, &expected.field) == (&got.object, &got.field)
            && got.message.contains(&expected.message)
    };
    let same = expected.len() == got.len() && expected.iter().zip(got).all(fits);
    let shown = |problems: &[Problem]| -> Vec<String> {
        let shown = |p: &Problem| format!("{}: {}: {}", p.object, p.field, p.message);
        problems.iter().map(shown).collect()
    };
    (!same).then(|| format!("  {what} {:#?}\n    expected {:#?}", shown(got), shown(expected)))
}

fn section_of(item: usize) -> char {
    SECTIONS.iter().find(|(_, last)| item <= *last).unwrap().0
}

fn read(name: &str) -> Vec<Step> {
    let file = folder().join(format!("{}.yaml", name.replace('_', "-")));
    steps(&std::fs::read_to_string(&file).unwrap())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}
