//! From a ClusterNetworkPolicy to a compiled one.
//!
//! In: the object. Out: the policy, or every reason to refuse it, as the CRD's own validation says.

use std::sync::Arc;

use super::super::Rejection;
use super::super::compiled::CompiledPolicy;
use super::super::labels::port_name_problem;
use super::super::rule::{PortChoice, PortRule};
use super::cluster_scoped::{
    FailsClosed, Version, WrittenPolicy, WrittenRule, compile_priority, fails_closed, names,
};
use super::{Refusals, port_number};
use crate::flow::Protocol;
use crate::object::{
    ClusterNetworkPolicy, ClusterPolicyPeer, ClusterPolicyProtocol, ClusterPolicyRule, PortOrRange,
    ProtocolPorts,
};
use crate::verdict::{PolicyKind, Tier};

const VERSION: Version = Version {
    kind: PolicyKind::ClusterNetworkPolicy,
    items_max: 25,
    allow: "Accept",
    ports_field: "protocols",
    named_port_field: "destinationNamedPort",
};

pub(super) fn compile(
    policy: &ClusterNetworkPolicy,
    origin: Arc<str>,
) -> Result<CompiledPolicy, Vec<Rejection>> {
    let name = &*policy.metadata.name;
    let mut refusals = Refusals::of(VERSION.kind, name);
    refusals.check_name(name);
    let spec = &policy.spec;
    let tier = match spec.tier.as_deref() {
        Some("Admin") => Tier::Admin,
        Some("Baseline") => Tier::Baseline,
        other => {
            let given = other.map_or("it is missing".to_owned(), |other| format!("{other:?}"));
            refusals.add("spec.tier", format!("must be \"Admin\" or \"Baseline\": {given}"));
            Tier::Admin
        }
    };
    let priority = compile_priority(spec.priority, &mut refusals);
    let written = WrittenPolicy {
        name,
        precedence: (tier, priority),
        subject: spec.subject.as_ref(),
        ingress: spec.ingress.as_deref(),
        egress: spec.egress.as_deref(),
    };
    VERSION.compile(written, origin, refusals)
}

impl WrittenRule for ClusterPolicyRule {
    type Port = ClusterPolicyProtocol;

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn action(&self) -> &str {
        &self.action
    }

    fn from(&self) -> Option<&[ClusterPolicyPeer]> {
        self.from.as_deref()
    }

    fn to(&self) -> Option<&[ClusterPolicyPeer]> {
        self.to.as_deref()
    }

    fn ports(&self) -> Option<&[ClusterPolicyProtocol]> {
        self.protocols.as_deref()
    }

    fn is_named(port: &ClusterPolicyProtocol) -> bool {
        port.destination_named_port.is_some()
    }

    fn compile_port(
        port: &ClusterPolicyProtocol,
        path: &str,
        refusals: &mut Refusals,
    ) -> Result<Option<PortRule>, FailsClosed> {
        compile_protocol(port, path, refusals)
    }
}

/// Nothing if it was refused.
fn compile_protocol(
    given: &ClusterPolicyProtocol,
    path: &str,
    refusals: &mut Refusals,
) -> Result<Option<PortRule>, FailsClosed> {
    let ClusterPolicyProtocol { tcp, udp, sctp, destination_named_port: named, unknown } = given;
    let numbered =
        [("tcp", Protocol::TCP, tcp), ("udp", Protocol::UDP, udp), ("sctp", Protocol::SCTP, sctp)];
    let mut known = numbered.iter().filter_map(|(field, protocol, ports)| {
        ports.as_ref().map(|ports| (*field, *protocol, ports))
    });
    match (known.next(), known.next(), named, unknown.is_empty()) {
        (Some((field, protocol, ports)), None, None, true) => {
            let port = compile_destination(ports, &format!("{path}.{field}"), refusals)?;
            Ok(port.map(|port| PortRule { protocol: Some(protocol), port }))
        }
        (None, None, Some(name), true) => {
            if let Some(problem) = port_name_problem(name) {
                refusals.add(format!("{path}.destinationNamedPort"), problem);
            }
            let port = PortChoice::Named(name.as_str().into());
            Ok(Some(PortRule { protocol: None, port }))
        }
        (None, None, None, false) => {
            fails_closed(path, &names(unknown), refusals);
            Err(FailsClosed)
        }
        _ => {
            let known = "tcp, udp, sctp, destinationNamedPort";
            refusals.add(path, format!("must have exactly one of {known}"));
            Ok(None)
        }
    }
}

fn compile_destination(
    ports: &ProtocolPorts,
    path: &str,
    refusals: &mut Refusals,
) -> Result<Option<PortChoice>, FailsClosed> {
    match (&ports.destination_port, ports.unknown.is_empty()) {
        (Some(port), true) => compile_port(port, &format!("{path}.destinationPort"), refusals),
        (None, false) => {
            fails_closed(path, &names(&ports.unknown), refusals);
            Err(FailsClosed)
        }
        (None, true) => {
            refusals.add(path, "must have destinationPort");
            Ok(None)
        }
        (Some(_), false) => {
            let unknown = names(&ports.unknown).join(", ");
            refusals.add(path, format!("unknown field; known here: destinationPort: {unknown}"));
            Ok(None)
        }
    }
}

fn compile_port(
    port: &PortOrRange,
    path: &str,
    refusals: &mut Refusals,
) -> Result<Option<PortChoice>, FailsClosed> {
    match (port.number, &port.range, port.unknown.is_empty()) {
        (Some(number), None, true) => {
            let number = port_number(number, &format!("{path}.number"), refusals);
            Ok(number.map(|number| PortChoice::Range(number, number)))
        }
        (None, Some(range), true) => {
            let path = format!("{path}.range");
            let start = port_number(range.start, &format!("{path}.start"), refusals);
            let end = port_number(range.end, &format!("{path}.end"), refusals);
            let (Some(start), Some(end)) = (start, end) else { return Ok(None) };
            if start >= end {
                refusals.add(path, format!("start {start} must be less than end {end}"));
            }
            Ok(Some(PortChoice::Range(start, end)))
        }
        (None, None, false) => {
            fails_closed(path, &names(&port.unknown), refusals);
            Err(FailsClosed)
        }
        _ => {
            refusals.add(path, "must have either number or range");
            Ok(None)
        }
    }
}
