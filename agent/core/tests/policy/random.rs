//! Properties on random clusters.
//!
//! In: random worlds. Out: passed, or the smallest failing cluster.

use std::collections::BTreeMap;

use parapet_core::flow::{Direction, Endpoint, Protocol, UnknownEnd};
use parapet_core::object::{IngressRule, Object};
use parapet_core::policy::{PolicySet, Probe, compile_object};
use parapet_core::verdict::{Decision, Profile, Reason, SideSummary};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::slow;
use crate::world::{LabelMap, NAMESPACES, NODES, World, label_map, peer, set_of, world};

fn passes(decision: Decision) -> Option<bool> {
    match decision {
        Decision::Allowed | Decision::Exempt => Some(true),
        Decision::Denied => Some(false),
        Decision::Undecidable => None,
    }
}

/// One step in the life of a cluster.
#[derive(Clone, Debug)]
enum Edit {
    /// The namespace has these labels now.
    Namespace(Index, LabelMap),
    /// It is gone, and nothing is known of it but its name.
    NamespaceGone(Index),
    Node(Index, LabelMap),
    /// One of the policies is applied, again or for the first time.
    Applied(Index),
    Deleted(Index),
    /// The ends of the connection are looked up.
    Identified,
    Swept,
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    prop_oneof![
        2 => (at(), label_map()).prop_map(|(at, labels)| Edit::Namespace(at, labels)),
        1 => at().prop_map(Edit::NamespaceGone),
        1 => (at(), label_map()).prop_map(|(at, labels)| Edit::Node(at, labels)),
        4 => at().prop_map(Edit::Applied),
        1 => at().prop_map(Edit::Deleted),
        3 => Just(Edit::Identified),
        1 => Just(Edit::Swept),
    ]
}

/// Lives through the edits with linked policies and one selection, then judges; and judges once
/// more with everything made anew from what is left. Both ways between the ends, at every port.
fn live(world: &World, edits: &[Edit], profile: Profile) -> (Vec<SideSummary>, Vec<SideSummary>) {
    let objects = world.objects();
    let mut lived = world.clone();
    let mut selection = world.selection();
    let mut linked = BTreeMap::new();
    for edit in edits {
        match edit {
            Edit::Namespace(at, labels) => {
                let name = NAMESPACES[at.index(NAMESPACES.len())];
                selection.insert_namespace(name, labels);
                lived.namespaces.insert(name.to_owned(), labels.clone());
            }
            Edit::NamespaceGone(at) => {
                let name = NAMESPACES[at.index(NAMESPACES.len())];
                selection.remove_namespace(name);
                lived.namespaces.remove(name);
            }
            Edit::Node(at, labels) => {
                let name = NODES[at.index(NODES.len())];
                selection.insert_node(name, labels);
                lived.nodes.insert(name.to_owned(), labels.clone());
            }
            Edit::Applied(_) | Edit::Deleted(_) if objects.is_empty() => {}
            Edit::Applied(at) => {
                let at = at.index(objects.len());
                let compiled = compile_object(&objects[at], &"enforced".into()).unwrap().unwrap();
                linked.insert(at, selection.link(compiled));
            }
            Edit::Deleted(at) => {
                linked.remove(&at.index(objects.len()));
            }
            Edit::Identified => {
                selection.identify_end(&world.source);
                selection.identify_end(&world.target);
            }
            Edit::Swept => selection.sweep(),
        }
    }
    let set = PolicySet::new("enforced".into(), linked.values().cloned());
    let left: Vec<_> = linked.keys().map(|at| objects[*at].clone()).collect();
    let (anew, anew_set) = (lived.selection(), set_of(&left, None));
    let ends = [(&world.source, &world.target), (&world.target, &world.source)];
    let probes = ends.into_iter().flat_map(|(source, target)| {
        let all =
            [Protocol::TCP, Protocol::UDP].into_iter().flat_map(|p| (79..84).map(move |n| (p, n)));
        all.map(move |(protocol, port)| Probe { source, target, protocol, port })
    });
    let both = probes.map(|probe| {
        let incremental = set.decide(&selection, profile, &probe).1;
        (incremental, anew_set.decide(&anew, profile, &probe).1)
    });
    both.unzip()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(3_000)
    })]

    #[test]
    fn the_letter_is_what_the_slow_evaluator_reads(world in world()) {
        let cluster = slow::Cluster {
            policies: &world.policies,
            cluster_policies: &world.cluster_policies,
            namespaces: &world.namespaces,
            nodes: &world.nodes,
        };
        let slow = |direction| cluster.allows(direction, &world.connection());
        let (egress, ingress) = (slow(Direction::Egress), slow(Direction::Ingress));
        let fast = world.decide(&set_of(&world.objects(), None), Profile::Spec);
        prop_assert_eq!(fast.map(passes), [egress && ingress, egress, ingress].map(Some));
    }

    #[test]
    fn both_ways_of_asking_agree(world in world(), common: bool, deny: bool) {
        let profile = if common { Profile::Common } else { Profile::Spec };
        let mut set = set_of(&world.objects(), None);
        if deny {
            set = set.with_default_deny_everywhere();
        }
        let verdict = set.evaluate(&world.selection(), profile, &world.probe());
        let sides = [verdict.decision, verdict.egress.decision, verdict.ingress.decision];
        prop_assert_eq!(sides, world.decide(&set, profile));
    }

    #[test]
    fn the_order_of_policies_and_rules_never_shows(
        (world, shuffled) in world().prop_flat_map(|world| {
            let objects = world.objects();
            (Just(world), Just(objects).prop_shuffle())
        }),
        common: bool,
    ) {
        let profile = if common { Profile::Common } else { Profile::Spec };
        let (selection, probe) = (world.selection(), world.probe());
        let one = set_of(&world.objects(), None).evaluate(&selection, profile, &probe);
        let other = set_of(&shuffled, None).evaluate(&selection, profile, &probe);
        prop_assert_eq!(&one, &other);
        // Of NetworkPolicies alone the order of rules says nothing either.
        let mut reversed = world.clone();
        for policy in &mut reversed.policies {
            policy.spec.ingress.iter_mut().for_each(|rules| rules.reverse());
            policy.spec.egress.iter_mut().for_each(|rules| rules.reverse());
        }
        let reversed = set_of(&reversed.objects(), None);
        let (decision, sides) = reversed.decide(&selection, profile, &probe);
        prop_assert_eq!((decision, sides.egress.reason), (one.decision, one.egress.reason));
        prop_assert_eq!(sides.ingress.reason, one.ingress.reason);
    }

    #[test]
    fn one_more_rule_never_denies(world in world(), at: Index, peers in vec(peer(), 0..3)) {
        prop_assume!(!world.policies.is_empty());
        let before = world.decide(&set_of(&world.objects(), None), Profile::Spec);
        let mut more = world.clone();
        let spec = &mut more.policies[at.index(world.policies.len())].spec;
        spec.ingress.get_or_insert_default().push(IngressRule { from: Some(peers), ports: None });
        let after = world.decide(&set_of(&more.objects(), None), Profile::Spec);
        for (before, after) in before.into_iter().zip(after) {
            prop_assert!(passes(before) <= passes(after), "{:?} became {:?}", before, after);
        }
    }

    #[test]
    fn common_is_silent_or_says_what_the_letter_says(world in world()) {
        let set = set_of(&world.objects(), None);
        let common = world.decide(&set, Profile::Common).map(passes);
        let letter = world.decide(&set, Profile::Spec).map(passes);
        for (common, letter) in common.into_iter().zip(letter) {
            prop_assert!(common.is_none() || common == letter, "{:?} {:?}", common, letter);
        }
    }

    #[test]
    fn what_is_decided_of_an_unknown_pod_holds_for_every_pod(world in world(), at_source: bool) {
        let set = set_of(&world.objects(), None);
        let mut unknown = world.clone();
        let end = if at_source { &mut unknown.source } else { &mut unknown.target };
        // Only pods may be meant by an unknown pod, and not the other end itself.
        if !matches!(&end.endpoint, Endpoint::Pod(pod) if !pod.host_network) {
            return Ok(());
        }
        end.endpoint = Endpoint::Unknown(UnknownEnd::NoHolder);
        let known = set.decide(&world.selection(), Profile::Spec, &world.probe()).1;
        if known.egress.reason == Reason::Loopback {
            return Ok(());
        }
        let unknown = set.decide(&unknown.selection(), Profile::Spec, &unknown.probe()).1;
        for (unknown, known) in [(unknown.egress, known.egress), (unknown.ingress, known.ingress)] {
            let (unknown, known) = (passes(unknown.decision), passes(known.decision));
            prop_assert!(unknown.is_none() || unknown == known, "{:?} {:?}", unknown, known);
        }
    }

    #[test]
    fn resolved_selectors_say_what_selectors_say(world in world(), common: bool) {
        let profile = if common { Profile::Common } else { Profile::Spec };
        let mut selection = world.selection();
        let linked = set_of(&world.objects(), Some(&mut selection));
        selection.identify_end(&world.source);
        selection.identify_end(&world.target);
        let (both, sides) = linked.decide(&selection, profile, &world.probe());
        let unlinked = set_of(&world.objects(), None);
        let direct = unlinked.decide(&world.selection(), profile, &world.probe());
        prop_assert_eq!((both, sides), direct);
        let verdict = linked.evaluate(&selection, profile, &world.probe());
        let other = unlinked.evaluate(&world.selection(), profile, &world.probe());
        prop_assert_eq!(verdict, other);
    }

    #[test]
    fn a_cluster_that_changed_is_judged_as_one_made_anew(
        world in world(), edits in vec(edit(), 0..24), common: bool,
    ) {
        let profile = if common { Profile::Common } else { Profile::Spec };
        let (incremental, rebuilt) = live(&world, &edits, profile);
        prop_assert_eq!(incremental, rebuilt);
    }

    /// Where the API leaves it open which policy is asked first, an answer must be that of every
    /// order.
    #[test]
    fn policies_of_one_priority_are_decided_only_where_every_order_agrees(world in world()) {
        let with_priorities = |order: &[i64]| {
            let mut world = world.clone();
            for (object, priority) in world.cluster_policies.iter_mut().zip(order) {
                match object {
                    Object::ClusterNetworkPolicy(policy) => policy.spec.priority = Some(*priority),
                    Object::AdminNetworkPolicy(policy) => policy.spec.priority = Some(*priority),
                    _ => {}
                }
            }
            world.decide(&set_of(&world.objects(), None), Profile::Spec).map(passes)
        };
        let orders: [[i64; 3]; 6] =
            [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let every: Vec<_> = orders.iter().map(|order| with_priorities(order)).collect();
        let tied = with_priorities(&[0, 0, 0]);
        for side in 1..3 {
            let first = every[0][side];
            let agreed = every.iter().all(|each| each[side] == first);
            prop_assert_eq!(tied[side], first.filter(|_| agreed));
        }
    }
}
