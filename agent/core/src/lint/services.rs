//! Egress rules that name a Service's port where its pods' port is asked about.
//!
//! In: the egress rules of all policies, and every Service's ports with the pods behind them. Out:
//! findings where the pods' port is denied to a subject. A port that any of the rule's peers serves
//! as its own is never suspected.

use std::cell::LazyCell;

use foldhash::{HashMap, HashSet};

use super::cover::may_admit;
use super::world::{GroupId, World, end_of};
use super::{Findings, LintRule, Said, name_of, port_field};
use crate::flow::{Direction, Endpoint, PodIdentity, Protocol, ServiceIdentity};
use crate::policy::compiled::CompiledPolicy;
use crate::policy::rule::{PortChoice, Rule};
use crate::verdict::{Action, Decision};

/// Groups of subjects that are asked for one rule; the rest of a larger policy is like these.
const SUBJECTS_MAX: usize = 64;

/// A protocol with a port of it.
type Port = (Protocol, u16);

/// One port of an egress rule.
struct Suspect<'a> {
    policy: &'a CompiledPolicy,
    rule: &'a Rule,
    /// "spec.egress[0].ports[0]".
    field: String,
    port: Port,
}

pub(super) fn check(world: &World<'_>, findings: &mut Findings) {
    let suspects = suspects(world);
    let named: HashSet<Port> = suspects.iter().map(|suspect| suspect.port).collect();
    let is_named = |protocol, port| named.contains(&(protocol, port));
    let services = world.index.service_ports_now(is_named);
    let mut differing: HashMap<Port, Vec<&ServiceIdentity>> = HashMap::default();
    for (protocol, service) in &services {
        if service.backends.iter().any(|(_, target)| *target != service.port) {
            differing.entry((*protocol, service.port)).or_default().push(service);
        }
    }
    // Every other Service must be looked at for it, and most often nobody asks.
    let served = LazyCell::new(|| {
        let others = world.index.service_ports_now(|protocol, port| !is_named(protocol, port));
        served(world, services.iter().chain(&others))
    });
    for suspect in &suspects {
        let Some(services) = differing.get(&suspect.port) else { continue };
        let Some(peers) = world.peer_groups(suspect.rule) else { continue };
        let mut said = services.iter().filter_map(|each| check_port(world, suspect, &peers, each));
        if let Some(said) = said.next()
            && !is_served(world, (suspect.port, &peers), &served)
        {
            findings.add(suspect.policy, suspect.field.clone(), said);
        }
    }
}

/// Single ports that egress rules let pass.
fn suspects<'a>(world: &World<'a>) -> Vec<Suspect<'a>> {
    let mut all = Vec::new();
    for policy in &world.policies {
        let rules = policy.rules(Direction::Egress).unwrap_or_default().iter().enumerate();
        for (at, rule) in rules.filter(|(_, rule)| rule.action == Action::Allow) {
            for (port_at, port) in rule.ports.iter().enumerate() {
                if let (Some(protocol), PortChoice::Range(first, last)) =
                    (port.protocol, &port.port)
                    && first == last
                {
                    let field = port_field(policy, Direction::Egress, at, port_at);
                    all.push(Suspect { policy, rule, field, port: (protocol, *first) });
                }
            }
        }
    }
    all
}

/// Groups with a pod that a Service leads to at this port. Ascending.
fn served<'a>(
    world: &World<'_>,
    services: impl Iterator<Item = &'a (Protocol, ServiceIdentity)>,
) -> HashMap<Port, Vec<GroupId>> {
    let mut served: HashMap<Port, Vec<GroupId>> = HashMap::default();
    for (protocol, service) in services {
        for (end, target) in service.backends.iter() {
            if let Endpoint::Pod(pod) = &end.endpoint
                && let Some(group) = world.group_of(pod)
            {
                served.entry((*protocol, *target)).or_default().push(group);
            }
        }
    }
    for groups in served.values_mut() {
        groups.sort_unstable();
        groups.dedup();
    }
    served
}

/// Whether any of the peers is known to listen on this very port.
fn is_served(
    world: &World<'_>,
    (port, peers): (Port, &[GroupId]),
    served: &HashMap<Port, Vec<GroupId>>,
) -> bool {
    let mut by_service = served.get(&port).into_iter().flatten();
    let mut ports = world.pods(peers).flat_map(|pod| pod.named_ports.iter());
    by_service.any(|group| peers.binary_search(group).is_ok())
        || ports.any(|named| (named.protocol, named.port) == port)
}

fn check_port(
    world: &World<'_>,
    suspect: &Suspect<'_>,
    peers: &[GroupId],
    service: &ServiceIdentity,
) -> Option<Said> {
    let (protocol, port) = suspect.port;
    service.backends.iter().find_map(|(end, target)| {
        let Endpoint::Pod(pod) = &end.endpoint else { return None };
        peers.binary_search(&world.group_of(pod)?).ok()?;
        let admitted = may_admit(&suspect.rule.ports, protocol, *target);
        if admitted || !is_denied(world, suspect, pod, (protocol, *target)) {
            return None;
        }
        let protocol = name_of(protocol);
        let problem = format!(
            "{protocol} {port} is the port of Service {}/{}: its pods, such as {}/{}, are asked at \
             {protocol} {target}, which no rule lets through",
            service.namespace, service.name, pod.namespace, pod.name
        );
        let fix = format!("write the pods' port, {target}, or its name");
        Some(Said::error(LintRule::ServicePort, problem, fix))
    })
}

/// Whether any subject may not reach the pod at the port it is really asked at.
fn is_denied(world: &World<'_>, suspect: &Suspect<'_>, pod: &PodIdentity, port: Port) -> bool {
    let target = end_of(pod);
    let held = world.held(&suspect.policy.subject.pattern).iter();
    let subjects = held.filter(|id| world.is_subject(**id)).take(SUBJECTS_MAX);
    subjects
        .filter_map(|id| world.pod_of(*id))
        .any(|subject| world.egress(subject, &target, port) == Decision::Denied)
}
