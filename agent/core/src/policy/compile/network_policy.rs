//! From a NetworkPolicy v1 to a compiled one.
//!
//! In: the object before the API server's defaulting. Out: the policy, or every reason to refuse
//! it, as the API server's own defaulting and validation say.

use std::sync::Arc;

use super::super::Rejection;
use super::super::cidr::parse_cidr;
use super::super::compiled::{CompiledPolicy, Oddity};
use super::super::labels::{is_dns_label, port_name_problem};
use super::super::pattern::{NamespaceChoice, Pattern, Role};
use super::super::rule::{Block, Peer, Peers, PortChoice, PortRule, Rule};
use super::super::selector::Selector;
use super::{Refusals, compile_selector, port_number, protocol_named};
use crate::flow::{Direction, Protocol};
use crate::object::{IntOrString, IpBlock, LabelSelector, NetworkPolicy, PolicyPeer, PolicyPort};
use crate::verdict::{Action, PolicyKind, Tier};

/// Where an object without a namespace goes, as `kubectl apply` would send it.
const NAMESPACE_DEFAULT: &str = "default";
/// The API server refuses a longer `policyTypes`.
const POLICY_TYPES_MAX: usize = 2;

/// Compiles one object as the API server would default and validate it. `origin` is the set's
/// member it comes from: "enforced" or the candidate's name.
///
/// # Errors
/// Everything the API server would refuse it for.
pub fn compile(policy: &NetworkPolicy, origin: Arc<str>) -> Result<CompiledPolicy, Vec<Rejection>> {
    let name = &*policy.metadata.name;
    let namespace = match &*policy.metadata.namespace {
        "" => NAMESPACE_DEFAULT,
        namespace => namespace,
    };
    let id = format!("{namespace}/{name}");
    let mut refusals = Refusals::of(PolicyKind::NetworkPolicy, &id);
    refusals.check_name(name);
    if !is_dns_label(namespace) {
        let problem = format!("{namespace:?} must be a lower case DNS label");
        refusals.add("metadata.namespace", problem);
    }
    let spec = &policy.spec;
    let subject = spec.pod_selector.as_ref().map_or_else(Selector::default, |selector| {
        compile_selector(selector, "spec.podSelector", &mut refusals)
    });
    // Rules of a direction that is not isolated are read too: the API server refuses them alike.
    let own: Arc<str> = namespace.into();
    let mut rule = |path: &str, field: &str, peers, ports| Rule {
        action: Action::Allow,
        peers: compile_peers(peers, &own, &format!("{path}.{field}"), &mut refusals),
        ports: compile_ports(ports, path, &mut refusals),
    };
    let mut ingress = Vec::new();
    for (index, each) in spec.ingress.iter().flatten().enumerate() {
        ingress.push(rule(&format!("spec.ingress[{index}]"), "from", &each.from, &each.ports));
    }
    let mut egress = Vec::new();
    for (index, each) in spec.egress.iter().flatten().enumerate() {
        egress.push(rule(&format!("spec.egress[{index}]"), "to", &each.to, &each.ports));
    }
    let types = spec.policy_types.as_deref().unwrap_or_default();
    check_types(types, &mut refusals);
    if !refusals.all.is_empty() {
        return Err(refusals.all);
    }
    // Without types: always ingress, egress only if it has rules.
    let isolates_ingress = types.is_empty() || types.iter().any(|each| each == "Ingress");
    let isolates_egress = match types {
        [] => !egress.is_empty(),
        types => types.iter().any(|each| each == "Egress"),
    };
    for (isolates, rules, direction, field) in [
        (isolates_ingress, &ingress, Direction::Ingress, "spec.ingress"),
        (isolates_egress, &egress, Direction::Egress, "spec.egress"),
    ] {
        if !isolates && !rules.is_empty() {
            refusals.remark(field, Oddity::RulesWithoutType(direction));
        }
    }
    Ok(CompiledPolicy {
        tier: Tier::NetworkPolicy,
        priority: 0,
        namespace: own.clone(),
        name: name.into(),
        kind: PolicyKind::NetworkPolicy,
        origin,
        id: id.into(),
        subject: Pattern::unlinked(Role::Subject, NamespaceChoice::Only(own), subject),
        notices: refusals.notices.into(),
        remarks: refusals.remarks.into(),
        ingress: isolates_ingress.then(|| ingress.into()),
        egress: isolates_egress.then(|| egress.into()),
    })
}

fn check_types(types: &[String], refusals: &mut Refusals) {
    if types.len() > POLICY_TYPES_MAX {
        refusals.add("spec.policyTypes", "at most two policy types may be given");
    }
    for (index, each) in types.iter().enumerate() {
        if !matches!(&**each, "Ingress" | "Egress") {
            let problem = format!("{each:?} is neither \"Ingress\" nor \"Egress\"");
            refusals.add(format!("spec.policyTypes[{index}]"), problem);
        }
    }
}

fn compile_peers(
    peers: &Option<Vec<PolicyPeer>>,
    own: &Arc<str>,
    path: &str,
    refusals: &mut Refusals,
) -> Peers {
    let given = peers.as_deref().unwrap_or_default();
    if given.is_empty() {
        return Peers::Everyone;
    }
    let peer = |(index, peer): (usize, &PolicyPeer)| {
        compile_peer(peer, own, &format!("{path}[{index}]"), refusals)
    };
    Peers::AnyOf(given.iter().enumerate().filter_map(peer).collect())
}

fn compile_peer(
    peer: &PolicyPeer,
    own: &Arc<str>,
    path: &str,
    refusals: &mut Refusals,
) -> Option<Peer> {
    let mut selector = |selector: &Option<LabelSelector>, field: &str| {
        let path = format!("{path}.{field}");
        selector.as_ref().map(|selector| compile_selector(selector, &path, refusals))
    };
    let pods = selector(&peer.pod_selector, "podSelector");
    let namespaces = selector(&peer.namespace_selector, "namespaceSelector");
    match (&peer.ip_block, pods, namespaces) {
        (None, None, None) => {
            refusals.add(path, "a peer must have podSelector, namespaceSelector or ipBlock");
            None
        }
        (None, pods, namespaces) => {
            // An absent podSelector means the same pods as an empty one; an absent
            // namespaceSelector means the policy's own namespace, unlike an empty one.
            let namespaces = match namespaces {
                None => NamespaceChoice::Only(own.clone()),
                Some(selector) => NamespaceChoice::Labelled(selector),
            };
            Some(Peer::Pods(Pattern::unlinked(Role::Peer, namespaces, pods.unwrap_or_default())))
        }
        (Some(block), None, None) => compile_block(block, path, refusals),
        (Some(block), ..) => {
            compile_block(block, path, refusals);
            refusals.add(path, "ipBlock may not stand beside podSelector or namespaceSelector");
            None
        }
    }
}

fn compile_block(block: &IpBlock, path: &str, refusals: &mut Refusals) -> Option<Peer> {
    let field = format!("{path}.ipBlock.cidr");
    let net = parse_cidr(&block.cidr);
    match net {
        None => refusals.add(field, format!("{:?} is no CIDR, such as 10.0.0.0/8", block.cidr)),
        Some(net) => refusals.remark_host_bits(&field, &block.cidr, net),
    }
    let mut except = Vec::new();
    for (index, text) in block.except.iter().enumerate() {
        let field = format!("{path}.ipBlock.except[{index}]");
        match (parse_cidr(text), net) {
            (None, _) => {
                refusals.add(field, format!("{text:?} is no CIDR, such as 10.1.0.0/16"));
            }
            (Some(inner), Some(net)) if inner == net || !net.contains(&inner) => {
                let problem = format!("{text:?} must be a strict subset of cidr {:?}", block.cidr);
                refusals.add(field, problem);
            }
            (Some(inner), _) => {
                refusals.remark_host_bits(&field, text, inner);
                except.push(inner);
            }
        }
    }
    except.sort();
    Some(Peer::Blocks([Block { net: net?, except: except.into() }].into()))
}

fn compile_ports(
    ports: &Option<Vec<PolicyPort>>,
    path: &str,
    refusals: &mut Refusals,
) -> Box<[PortRule]> {
    let ports = ports.iter().flatten().enumerate();
    ports
        .filter_map(|(i, port)| compile_port(port, &format!("{path}.ports[{i}]"), refusals))
        .collect()
}

fn compile_port(port: &PolicyPort, path: &str, refusals: &mut Refusals) -> Option<PortRule> {
    let name = port.protocol.as_deref();
    let protocol = name.map_or(Some(Protocol::TCP), protocol_named);
    if let (Some(name), None) = (name, protocol) {
        let problem = format!("{name:?} is none of \"TCP\", \"UDP\", \"SCTP\"");
        refusals.add(format!("{path}.protocol"), problem);
    }
    let end_field = format!("{path}.endPort");
    let choice = match (&port.port, port.end_port) {
        (None, None) => Some(PortChoice::Any),
        (None, Some(_)) => {
            refusals.add(end_field, "endPort may not be given without port");
            None
        }
        (Some(IntOrString::String(_)), Some(_)) => {
            refusals.add(end_field, "endPort may not be given with a named port");
            None
        }
        (Some(IntOrString::String(name)), None) => match port_name_problem(name) {
            None => Some(PortChoice::Named(name.as_str().into())),
            Some(problem) => {
                refusals.add(format!("{path}.port"), problem);
                None
            }
        },
        (Some(IntOrString::Int(first)), last) => {
            let first_number = port_number(*first, &format!("{path}.port"), refusals);
            let last_number = match last {
                None => first_number,
                Some(last) => port_number(last, &end_field, refusals),
            };
            match (first_number, last_number) {
                (Some(first), Some(last)) if last < first => {
                    let problem = format!("endPort {last} is less than port {first}");
                    refusals.add(end_field, problem);
                    None
                }
                (Some(first), Some(last)) => Some(PortChoice::Range(first, last)),
                _ => None,
            }
        }
    };
    Some(PortRule { protocol: Some(protocol?), port: choice? })
}
