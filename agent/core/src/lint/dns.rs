//! Pods that may not ask for names.
//!
//! In: the world. Out: a finding at each policy that isolates pods for egress while nothing lets
//! them reach the cluster's DNS. Where no DNS is known, any rule for port 53 will do.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::cover::may_admit;
use super::world::{Class, GroupId, World, end_of, some_of};
use super::{Findings, LintRule, Said};
use crate::flow::{Direction, End, Endpoint, Protocol};
use crate::policy::compiled::CompiledPolicy;
use crate::verdict::{Action, Decision, Effect, Reason, RuleMatch, Tier};

const DNS_PORT: u16 = 53;
/// The label of the cluster's DNS, whichever program it is.
const DNS_LABEL: (&str, &str) = ("k8s-app", "kube-dns");
/// Where the cluster's DNS is by custom; a Service for port 53 there is taken for it.
const DNS_NAMESPACES: [&str; 2] = ["kube-system", "openshift-dns"];
/// Node-local caches listen on this address by custom.
const NODE_LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10));
/// Backends that are asked for, of each protocol.
const RESOLVERS_MAX: usize = 8;

/// Who answers DNS: ends with their ports.
#[derive(Default)]
struct Resolvers {
    udp: Vec<(End, u16)>,
    tcp: Vec<(End, u16)>,
    groups: Vec<GroupId>,
    name: String,
}

/// What a class of pods may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Missing {
    Both,
    Tcp,
}

/// A policy by what a finding calls it: object, origin.
type Blamed = (String, Arc<str>);

pub(super) fn check(world: &World<'_>, findings: &mut Findings) {
    let resolvers = Resolvers::new(world);
    let mut found: BTreeMap<(Blamed, Missing), Vec<GroupId>> = BTreeMap::new();
    for class in &world.classes {
        let groups: Vec<GroupId> = class
            .groups
            .iter()
            .copied()
            .filter(|id| resolvers.groups.binary_search(id).is_err())
            .collect();
        let Some(first) = groups.first().copied() else { continue };
        let missing = match resolvers.is_empty() {
            true => missing_by_rules(world, class),
            false => resolvers.missing(world, class, first),
        };
        if let Some((missing, blamed)) = missing {
            found.entry((blamed, missing)).or_default().extend(groups);
        }
    }
    for ((blamed, missing), mut groups) in found {
        groups.sort_unstable();
        let pods = some_of(world.pods(&groups));
        findings.add_of(blamed, "spec.egress", said_of(missing, &pods, &resolvers.name));
    }
}

fn said_of(missing: Missing, pods: &str, name: &str) -> Said {
    let to = if name.is_empty() { String::new() } else { format!(" of {name}") };
    match missing {
        Missing::Both => Said::warning(
            LintRule::EgressWithoutDns,
            format!("isolates pods for egress that nothing lets ask DNS by UDP: {pods}"),
            format!("add an egress rule for UDP and TCP to the DNS port (53){to}"),
        ),
        Missing::Tcp => Said::warning(
            LintRule::DnsWithoutTcp,
            format!("pods may ask DNS by UDP, but not by TCP when an answer is long: {pods}"),
            format!("allow TCP beside UDP to the DNS port (53){to}"),
        ),
    }
}

impl Resolvers {
    fn new(world: &World<'_>) -> Self {
        let mut all =
            Self { groups: world.labelled(DNS_LABEL.0, DNS_LABEL.1).to_vec(), ..Self::default() };
        let is_dns = |group: &GroupId| all.groups.binary_search(group).is_ok();
        let ports = world.index.service_ports_now(|_, port| port == DNS_PORT);
        let services: Vec<_> = ports
            .into_iter()
            .filter(|(_, service)| !service.backends.is_empty())
            .filter(|(_, service)| {
                let mut pods = service.backends.iter().filter_map(|(end, _)| match &end.endpoint {
                    Endpoint::Pod(pod) => world.group_of(pod),
                    _ => None,
                });
                DNS_NAMESPACES.contains(&&*service.namespace) || pods.any(|id| is_dns(&id))
            })
            .collect();
        if let Some((_, first)) = services.first() {
            all.name = format!("Service {}/{}", first.namespace, first.name);
        }
        for (protocol, service) in &services {
            let of = match *protocol {
                Protocol::UDP => &mut all.udp,
                Protocol::TCP => &mut all.tcp,
                _ => continue,
            };
            of.extend(service.backends.iter().cloned());
            let pods = service.backends.iter().filter_map(|(end, _)| match &end.endpoint {
                Endpoint::Pod(pod) => world.group_of(pod),
                _ => None,
            });
            all.groups.extend(pods);
        }
        if services.is_empty() {
            let pods = world.pods(&all.groups);
            all.udp = pods.map(|pod| (end_of(pod), DNS_PORT)).collect();
            all.tcp.clone_from(&all.udp);
            if !all.udp.is_empty() {
                all.name = format!("the pods with {}={}", DNS_LABEL.0, DNS_LABEL.1);
            }
        }
        all.groups.sort_unstable();
        all.groups.dedup();
        all.udp.truncate(RESOLVERS_MAX);
        all.tcp.truncate(RESOLVERS_MAX);
        all
    }

    fn is_empty(&self) -> bool {
        self.udp.is_empty()
    }

    fn missing(
        &self,
        world: &World<'_>,
        class: &Class,
        first: GroupId,
    ) -> Option<(Missing, Blamed)> {
        let pod = world.pod_of(first)?;
        let node_local = (End { addr: Some(NODE_LOCAL), endpoint: Endpoint::External }, DNS_PORT);
        let denied = |ends: &[(End, u16)], protocol| {
            let mut ends = ends.iter().chain([&node_local]);
            ends.all(|(end, port)| world.egress(pod, end, (protocol, *port)) == Decision::Denied)
        };
        let (missing, protocol, asked) = if denied(&self.udp, Protocol::UDP) {
            (Missing::Both, Protocol::UDP, self.udp.first()?)
        } else if !self.tcp.is_empty() && denied(&self.tcp, Protocol::TCP) {
            (Missing::Tcp, Protocol::TCP, self.tcp.first()?)
        } else {
            return None;
        };
        let side = world.explain(pod, &asked.0, (protocol, asked.1)).egress;
        if side.reason == Reason::RuleDenies {
            let denies = |effect: &&Effect| {
                effect.matched == RuleMatch::Matched && effect.action == Action::Deny
            };
            let effect = side.effects.iter().find(denies)?;
            let object = format!("{} {}", effect.kind.name(), effect.policy);
            return Some((missing, (object, effect.origin.clone())));
        }
        Some((missing, blamed(world, class)))
    }
}

fn isolating<'a>(world: &World<'a>, class: &Class) -> impl Iterator<Item = &'a CompiledPolicy> {
    let policies = world.policies_of(class);
    policies
        .filter(|policy| policy.tier == Tier::NetworkPolicy && policy.speaks_of(Direction::Egress))
}

/// The policy to add a rule to: where nothing is allowed yet, else the first one.
fn blamed(world: &World<'_>, class: &Class) -> Blamed {
    let is_bare =
        |policy: &&CompiledPolicy| policy.rules(Direction::Egress).is_some_and(<[_]>::is_empty);
    let mut all = isolating(world, class);
    let first = all.next();
    let bare = first.filter(is_bare).or_else(|| all.find(is_bare));
    match bare.or(first) {
        Some(policy) => (super::object_name(policy), policy.origin.clone()),
        // Only what denies by default is left, which is no object.
        None => ("NetworkPolicy default-deny".to_owned(), "default-deny".into()),
    }
}

/// Without a known DNS: whether any policy of the class has a rule that may be for it.
fn missing_by_rules(world: &World<'_>, class: &Class) -> Option<(Missing, Blamed)> {
    if isolating(world, class).next().is_none() && !world.set.denies_by_default() {
        return None;
    }
    let admits = |protocol| {
        let rules = world
            .policies_of(class)
            .flat_map(|policy| policy.rules(Direction::Egress).unwrap_or_default());
        rules
            .into_iter()
            .any(|rule| rule.action != Action::Deny && may_admit(&rule.ports, protocol, DNS_PORT))
    };
    let missing = match (admits(Protocol::UDP), admits(Protocol::TCP)) {
        (true, true) => return None,
        (false, _) => Missing::Both,
        (true, false) => Missing::Tcp,
    };
    Some((missing, blamed(world, class)))
}
