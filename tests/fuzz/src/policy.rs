//! From objects of the API to verdicts.
//!
//! In: bytes, read as a small cluster and some connections. Out: nothing, or a panic: no object may
//! bring compiling or judging down, all ways of asking must agree, and the order in which policies
//! were added, or facts became known, must never show.

use std::sync::Arc;

use parapet_core::object::{NetworkPolicy, Object};
use parapet_core::policy::{
    CompiledPolicy, PolicySet, Probe, Rejection, Selection, compile_object,
};
use parapet_core::verdict::{Decision, Profile, SideDecision, SideVerdict, Verdict};

use self::cluster::{Cluster, Connection};
use self::draw::Draw;

mod cluster;
mod cluster_rules;
mod draw;
mod ends;
mod rules;

/// Takes one input.
pub fn check(bytes: &[u8]) {
    // Bytes that run out draw zeros; an error is for what can never be drawn, and nothing here is.
    if let Ok(cluster) = Cluster::draw(&mut Draw::new(bytes)) {
        Asked::new(&cluster).check();
    }
}

/// The same policies in every way that must say the same.
struct Asked<'a> {
    cluster: &'a Cluster,
    /// Everything that is known; nothing is linked into it.
    plain: Selection,
    forward: PolicySet,
    backward: PolicySet,
    /// What has an order that says nothing, the other way round.
    reordered: PolicySet,
    /// Linked into `resolved`, before half of what is known was.
    linked: PolicySet,
    resolved: Selection,
}

impl<'a> Asked<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let mut plain = Selection::default();
        cluster.before.iter().chain(&cluster.after).for_each(|fact| fact.tell(&mut plain));
        let compiled: Vec<_> = cluster.policies.iter().filter_map(checked).collect();
        let shared: Vec<_> = compiled.iter().cloned().map(Arc::new).collect();
        // Backwards and each twice: the same set.
        let again = shared.iter().rev().chain(&shared).cloned();
        let backward = PolicySet::new("backward".into(), again);
        let reversed = cluster.policies.iter().map(reversed);
        let reversed = reversed.filter_map(|object| compiled_of(&object)?.ok()).map(Arc::new);
        let reordered = PolicySet::new("reordered".into(), reversed);

        let mut resolved = Selection::default();
        cluster.before.iter().for_each(|fact| fact.tell(&mut resolved));
        let linked: Vec<_> = compiled.into_iter().map(|policy| resolved.link(policy)).collect();
        let linked = PolicySet::new("linked".into(), linked);
        for connection in &cluster.connections {
            resolved.identify_end(&connection.source);
        }
        cluster.after.iter().for_each(|fact| fact.tell(&mut resolved));
        for connection in &cluster.connections {
            resolved.identify_end(&connection.target);
        }
        let forward = PolicySet::new("forward".into(), shared);
        Self { cluster, plain, forward, backward, reordered, linked, resolved }
    }

    fn check(mut self) {
        assert_eq!(self.forward.len(), self.backward.len(), "{:#?}", self.cluster);
        self.check_connections();
        self.resolved.sweep();
        for set in [&mut self.forward, &mut self.backward, &mut self.reordered, &mut self.linked] {
            *set = set.clone().with_default_deny_everywhere();
        }
        self.check_connections();
    }

    fn check_connections(&self) {
        for connection in &self.cluster.connections {
            let common = self.check_connection(connection, Profile::Common);
            for profile in [Profile::Spec, self.cluster.profile] {
                let other = self.check_connection(connection, profile);
                for (common, other) in passes(&common).into_iter().zip(passes(&other)) {
                    let agree = common.is_none() || other.is_none() || common == other;
                    assert!(agree, "common differs from {profile:?}: {}", self.shown(connection));
                }
            }
        }
    }

    fn check_connection(&self, connection: &Connection, profile: Profile) -> Verdict {
        let Connection { source, target, protocol, port } = connection;
        let probe = Probe { source, target, protocol: *protocol, port: *port };
        let shown = || self.shown(connection);
        let verdict = self.forward.evaluate(&self.plain, profile, &probe);
        assert_eq!(verdict.profile, profile);

        let backward = self.backward.evaluate(&self.plain, profile, &probe);
        assert_eq!(verdict, backward, "the order of policies shows: {}", shown());
        let linked = self.linked.evaluate(&self.resolved, profile, &probe);
        assert_eq!(verdict, linked, "resolved selectors say other: {}", shown());
        let mut explained = self.forward.explain(&self.plain, profile, &probe);
        for side in [&mut explained.egress, &mut explained.ingress] {
            side.effects.iter_mut().for_each(|effect| effect.wanted = None);
        }
        if !matches!(target.endpoint, parapet_core::flow::Endpoint::Service(_)) {
            assert_eq!(verdict, explained, "explained otherwise: {}", shown());
        }

        let reversed = self.reordered.evaluate(&self.plain, profile, &probe);
        assert_eq!(
            said(&verdict),
            said(&reversed),
            "an order that says nothing shows: {}",
            shown()
        );
        for (set, selection) in [
            (&self.forward, &self.plain),
            (&self.backward, &self.plain),
            (&self.linked, &self.resolved),
        ] {
            let (decision, sides) = set.decide(selection, profile, &probe);
            let decided = (decision, [sides.egress, sides.ingress]);
            assert_eq!(said(&verdict), decided, "{} decides other: {}", set.name(), shown());
        }
        verdict
    }

    fn shown(&self, connection: &Connection) -> String {
        format!("{:#?}\n{connection:#?}", self.cluster)
    }
}

fn compiled_of(object: &Object) -> Option<Result<CompiledPolicy, Vec<Rejection>>> {
    compile_object(object, &"enforced".into())
}

/// What is refused is refused for reasons that can be shown, and always for the same.
fn checked(object: &Object) -> Option<CompiledPolicy> {
    let once = compiled_of(object)?;
    assert_eq!(Some(&once), compiled_of(object).as_ref(), "{object:?}");
    match once {
        Ok(policy) => {
            policy.notices().iter().for_each(check_rejection);
            Some(policy)
        }
        Err(rejections) => {
            assert!(!rejections.is_empty(), "{object:?}");
            rejections.iter().for_each(check_rejection);
            None
        }
    }
}

fn check_rejection(rejection: &Rejection) {
    let Rejection { object, field, problem } = rejection;
    assert!(object.contains("NetworkPolicy ") && !problem.is_empty(), "{rejection:?}");
    assert!(field.starts_with("spec") || field.starts_with("metadata."), "{rejection:?}");
}

/// The same policy with everything the other way round that says nothing: the rules, peers and
/// ports of a NetworkPolicy; the names of the others, which come after their priorities only.
fn reversed(object: &Object) -> Object {
    match object {
        Object::NetworkPolicy(policy) => Object::NetworkPolicy(reversed_rules(policy)),
        other => {
            let mut other = other.clone();
            let name = &mut other.meta_mut().name;
            *name = name.chars().map(reversed_digit).collect();
            other
        }
    }
}

fn reversed_digit(c: char) -> char {
    c.to_digit(10).and_then(|digit| char::from_digit(9 - digit, 10)).unwrap_or(c)
}

fn reversed_rules(policy: &NetworkPolicy) -> NetworkPolicy {
    let mut policy = policy.clone();
    for rule in policy.spec.ingress.iter_mut().flatten() {
        rule.from.iter_mut().for_each(|peers| peers.reverse());
        rule.ports.iter_mut().for_each(|ports| ports.reverse());
    }
    for rule in policy.spec.egress.iter_mut().flatten() {
        rule.to.iter_mut().for_each(|peers| peers.reverse());
        rule.ports.iter_mut().for_each(|ports| ports.reverse());
    }
    policy.spec.ingress.iter_mut().for_each(|rules| rules.reverse());
    policy.spec.egress.iter_mut().for_each(|rules| rules.reverse());
    policy
}

/// A verdict without its effects.
fn said(verdict: &Verdict) -> (Decision, [SideDecision; 2]) {
    let side = |side: &SideVerdict| {
        let SideVerdict { decision, reason, tier, .. } = *side;
        SideDecision { decision, reason, tier }
    };
    (verdict.decision, [side(&verdict.egress), side(&verdict.ingress)])
}

/// Whether the packet goes through, at both ends, at its source and at its target, where known.
fn passes(verdict: &Verdict) -> [Option<bool>; 3] {
    [verdict.decision, verdict.egress.decision, verdict.ingress.decision].map(|decision| {
        match decision {
            Decision::Allowed | Decision::Exempt => Some(true),
            Decision::Denied => Some(false),
            Decision::Undecidable => None,
        }
    })
}
