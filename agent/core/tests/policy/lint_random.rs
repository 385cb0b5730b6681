//! Properties of the lint on random policies: what it calls useless is, and it never depends on the
//! order in which policies come.
//!
//! In: random worlds. Out: passed, or the smallest failing cluster.

use parapet_core::flow::Protocol;
use parapet_core::lint::{Finding, LintRule, lint};
use parapet_core::object::{
    AdminNetworkPolicy, ClusterNetworkPolicy, EgressRule, IngressRule, NetworkPolicy, Object,
};
use parapet_core::policy::{PolicySet, Probe};
use parapet_core::verdict::{Decision, Profile};
use proptest::prelude::*;

use crate::shop;
use crate::world::{World, set_of, world};

const CLUSTER: &str = "
    ns x a=1
    ns y b=2
    ns z
    node n1 192.168.0.2 10.0.0.0/24 a=1
    pod x/a 10.0.0.1 a=1 web:TCP/80
    pod x/b 10.0.0.2 b=2 istio.io/dataplane-mode=ambient
    pod y/a 10.0.0.3 a=2 c=1 api:UDP/81
    pod y/host 192.168.0.2 a=1 host
    svc x/s 10.96.0.1 TCP 80>81 a=1
    svc x/dns 10.96.0.2 UDP 53>81 b=2
";

/// "spec.ingress[2]" of these policies without that rule. What isolates stays as it was.
fn without(objects: &[Object], finding: &Finding) -> Vec<Object> {
    let (direction, at) = finding.field.trim_end_matches(']').split_once('[').unwrap();
    let (ingress, at) = (direction == "spec.ingress", at.parse::<usize>().unwrap());
    let mut left = objects.to_vec();
    let named = |object: &&mut Object| {
        let meta = object.meta();
        let id = match &*meta.namespace {
            "" => meta.name.clone(),
            namespace => format!("{namespace}/{}", meta.name),
        };
        finding.object == format!("{:?} {id}", object.kind())
    };
    match left.iter_mut().find(named).unwrap() {
        Object::NetworkPolicy(policy) => remove(policy, ingress, at),
        Object::ClusterNetworkPolicy(ClusterNetworkPolicy { spec, .. }) => {
            let rules = if ingress { &mut spec.ingress } else { &mut spec.egress };
            rules.as_mut().unwrap().remove(at);
        }
        Object::AdminNetworkPolicy(AdminNetworkPolicy { spec, .. })
        | Object::BaselineAdminNetworkPolicy(AdminNetworkPolicy { spec, .. }) => {
            let rules = if ingress { &mut spec.ingress } else { &mut spec.egress };
            rules.as_mut().unwrap().remove(at);
        }
        other => panic!("{other:?}"),
    }
    left
}

fn remove(policy: &mut NetworkPolicy, ingress: bool, at: usize) {
    let spec = &mut policy.spec;
    let given = spec.policy_types.take().filter(|types| !types.is_empty());
    let egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
    spec.policy_types = Some(given.unwrap_or_else(|| {
        let types = ["Ingress", "Egress"].into_iter().take(1 + usize::from(egress));
        types.map(str::to_owned).collect()
    }));
    if ingress {
        let _: IngressRule = spec.ingress.as_mut().unwrap().remove(at);
    } else {
        let _: EgressRule = spec.egress.as_mut().unwrap().remove(at);
    }
}

/// Both ways between the world's ends, at every port that its policies may name.
fn decisions(world: &World, set: &PolicySet, profile: Profile) -> Vec<[Decision; 2]> {
    let selection = world.selection();
    let ends = [(&world.source, &world.target), (&world.target, &world.source)];
    let probes = ends.into_iter().flat_map(|(source, target)| {
        let protocols = [Protocol::TCP, Protocol::UDP, Protocol(1)].into_iter();
        let all = protocols.flat_map(|protocol| (78..84).map(move |port| (protocol, port)));
        all.map(move |(protocol, port)| Probe { source, target, protocol, port })
    });
    let decided = probes.map(|probe| {
        let sides = set.decide(&selection, profile, &probe).1;
        [sides.egress.decision, sides.ingress.decision]
    });
    decided.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn without_a_useless_rule_everything_is_as_it_was(world in world()) {
        let objects = world.objects();
        let set = set_of(&objects, None);
        let useless = |finding: &&Finding| {
            matches!(finding.rule, LintRule::ShadowedRule | LintRule::UnreachableRule)
        };
        for finding in lint(&shop::index(CLUSTER), &set).iter().filter(useless) {
            let less = set_of(&without(&objects, finding), None);
            for profile in [Profile::Spec, Profile::Common, Profile::Cilium] {
                let (before, after) =
                    (decisions(&world, &set, profile), decisions(&world, &less, profile));
                prop_assert_eq!(before, after, "{:?}", finding);
            }
        }
    }

    #[test]
    fn the_order_of_policies_and_linking_do_not_matter(world in world()) {
        let mut objects = world.objects();
        let mut index = shop::index(CLUSTER);
        let findings = lint(&index, &set_of(&objects, None));
        objects.reverse();
        let pods: Vec<_> = index.pods_now().cloned().collect();
        let linked = set_of(&objects, Some(index.selection_mut()));
        pods.iter().for_each(|pod| index.selection_mut().identify(pod));
        prop_assert_eq!(lint(&index, &linked), findings);
    }
}
