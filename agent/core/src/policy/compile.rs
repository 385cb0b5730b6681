//! From the API's NetworkPolicy to a compiled one.
//!
//! In: an object before the API server's defaulting. Out: the compiled policy, or every reason for
//! which the API server would refuse the object. It never repairs what the API server refuses, and
//! never takes part of an object.

use std::sync::Arc;

use super::Rejection;
use super::cidr::parse_cidr;
use super::labels::{is_dns_label, is_subdomain, key_problem, port_name_problem, value_problem};
use super::rule::{CompiledPolicy, Peer, PortChoice, PortRule, Rule};
use super::selector::{Operator, Requirement, Selector};
use crate::flow::Protocol;
use crate::object::{
    IntOrString, IpBlock, LabelRequirement, LabelSelector, NetworkPolicy, PolicyPeer, PolicyPort,
};

/// Where an object without a namespace goes, as `kubectl apply` would send it.
const NAMESPACE_DEFAULT: &str = "default";
/// The API server refuses a longer `policyTypes`.
const POLICY_TYPES_MAX: usize = 2;

/// Collects what is refused, each with the path to its field.
struct Refusals {
    object: String,
    all: Vec<Rejection>,
}

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
    let mut refusals = Refusals { object: format!("NetworkPolicy {id}"), all: Vec::new() };
    if !is_subdomain(name) {
        refusals.add("metadata.name", format!("{name:?} must be a lower case DNS subdomain"));
    }
    if !is_dns_label(namespace) {
        let problem = format!("{namespace:?} must be a lower case DNS label");
        refusals.add("metadata.namespace", problem);
    }
    let spec = &policy.spec;
    let subject = spec.pod_selector.as_ref().map_or_else(Selector::default, |selector| {
        compile_selector(selector, "spec.podSelector", &mut refusals)
    });
    // Rules of a direction that is not isolated are read too: the API server refuses them alike.
    let mut ingress = Vec::new();
    for (index, rule) in spec.ingress.iter().flatten().enumerate() {
        let path = format!("spec.ingress[{index}]");
        let peers = compile_peers(&rule.from, &format!("{path}.from"), &mut refusals);
        ingress.push(Rule { peers, ports: compile_ports(&rule.ports, &path, &mut refusals) });
    }
    let mut egress = Vec::new();
    for (index, rule) in spec.egress.iter().flatten().enumerate() {
        let path = format!("spec.egress[{index}]");
        let peers = compile_peers(&rule.to, &format!("{path}.to"), &mut refusals);
        egress.push(Rule { peers, ports: compile_ports(&rule.ports, &path, &mut refusals) });
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
    Ok(CompiledPolicy {
        namespace: namespace.into(),
        name: name.into(),
        origin,
        id: id.into(),
        subject,
        ingress: isolates_ingress.then(|| ingress.into()),
        egress: isolates_egress.then(|| egress.into()),
    })
}

impl Refusals {
    fn add(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        let (field, problem) = (field.into(), problem.into());
        self.all.push(Rejection { object: self.object.clone(), field, problem });
    }
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
    path: &str,
    refusals: &mut Refusals,
) -> Box<[Peer]> {
    let peers = peers.iter().flatten().enumerate();
    peers.filter_map(|(i, peer)| compile_peer(peer, &format!("{path}[{i}]"), refusals)).collect()
}

fn compile_peer(peer: &PolicyPeer, path: &str, refusals: &mut Refusals) -> Option<Peer> {
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
        (None, pods, namespaces) => Some(Peer::Pods { namespaces, pods: pods.unwrap_or_default() }),
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
    if net.is_none() {
        refusals.add(field, format!("{:?} is no CIDR, such as 10.0.0.0/8", block.cidr));
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
            (Some(inner), _) => except.push(inner),
        }
    }
    except.sort();
    Some(Peer::Block { net: net?, except: except.into() })
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
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Some(Protocol::TCP),
        Some("UDP") => Some(Protocol::UDP),
        Some("SCTP") => Some(Protocol::SCTP),
        Some(other) => {
            let problem = format!("{other:?} is none of \"TCP\", \"UDP\", \"SCTP\"");
            refusals.add(format!("{path}.protocol"), problem);
            None
        }
    };
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
    Some(PortRule { protocol: protocol?, port: choice? })
}

fn port_number(number: i64, field: &str, refusals: &mut Refusals) -> Option<u16> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    if port.is_none() {
        refusals.add(field, format!("{number} is no port number (1 to 65535)"));
    }
    port
}

fn compile_selector(selector: &LabelSelector, path: &str, refusals: &mut Refusals) -> Selector {
    let mut requirements = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        let field = format!("{path}.matchLabels");
        let problems = [key_problem(key), value_problem(value)];
        problems.into_iter().flatten().for_each(|problem| refusals.add(&field, problem));
        let operator = Operator::In([value.as_str().into()].into());
        requirements.push(Requirement { key: key.as_str().into(), operator });
    }
    for (index, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        requirements.extend(compile_requirement(requirement, &path, refusals));
    }
    Selector::new(requirements)
}

fn compile_requirement(
    requirement: &LabelRequirement,
    path: &str,
    refusals: &mut Refusals,
) -> Option<Requirement> {
    if let Some(problem) = key_problem(&requirement.key) {
        refusals.add(format!("{path}.key"), problem);
    }
    let given = requirement.values.as_deref().unwrap_or_default();
    for (index, value) in given.iter().enumerate() {
        if let Some(problem) = value_problem(value) {
            refusals.add(format!("{path}.values[{index}]"), problem);
        }
    }
    let mut values: Vec<Arc<str>> = given.iter().map(|value| value.as_str().into()).collect();
    values.sort();
    values.dedup();
    let name = &*requirement.operator;
    let operator = match name {
        "In" => Operator::In(values.into()),
        "NotIn" => Operator::NotIn(values.into()),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => {
            let known = "\"In\", \"NotIn\", \"Exists\", \"DoesNotExist\"";
            refusals.add(format!("{path}.operator"), format!("{other:?} is none of {known}"));
            return None;
        }
    };
    match (matches!(name, "In" | "NotIn"), given.is_empty()) {
        (true, true) => refusals.add(format!("{path}.values"), format!("{name} needs a value")),
        (false, false) => refusals.add(format!("{path}.values"), format!("{name} takes no values")),
        _ => {}
    }
    Some(Requirement { key: requirement.key.as_str().into(), operator })
}
