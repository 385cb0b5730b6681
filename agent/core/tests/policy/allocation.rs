//! `decide` allocates nothing, whatever it is asked.
//!
//! In: a set, probes of every kind of end. Out: passed or failed.

use parapet_core::policy::Probe;
use parapet_core::verdict::Profile;

use crate::cluster::{cluster, objects, policy_set, protocol};

#[test]
fn decide_allocates_nothing() {
    let cluster = cluster();
    let set = policy_set(&objects(
        "x/p: {podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: web}]}],
            ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {}}]}]}",
    ))
    .with_default_deny_everywhere();
    let ends =
        ["x/a", "y/b", "q/d", "node:n1", "ip:198.51.100.7", "service:both", "unknown:10.9.9.9"]
            .map(|text| cluster.end(text));
    let protocol = protocol("TCP");
    let counted = allocation_counter::measure(|| {
        for source in &ends {
            for target in &ends {
                for profile in [Profile::Common, Profile::Spec] {
                    let probe = Probe { source, target, protocol, port: 80 };
                    std::hint::black_box(set.decide(&cluster.selection, profile, &probe));
                }
            }
        }
    });
    assert_eq!(counted.count_total, 0);
    // The counter counts.
    let probe = Probe { source: &ends[1], target: &ends[0], protocol, port: 80 };
    let counted = allocation_counter::measure(|| {
        std::hint::black_box(set.evaluate(&cluster.selection, Profile::Spec, &probe));
    });
    assert!(counted.count_total > 0);
}
