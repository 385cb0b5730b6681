//! From an AdminNetworkPolicy or a BaselineAdminNetworkPolicy v1alpha1 to a compiled one.
//!
//! In: the object. Out: the policy, or every reason to refuse it, as the CRDs of release v0.1.7
//! say. Shapes of releases before v0.1.2 are refused: what they meant cannot be told from a
//! misspelling.

use std::sync::Arc;

use super::super::Rejection;
use super::super::compiled::CompiledPolicy;
use super::super::labels::port_name_problem;
use super::super::rule::{PortChoice, PortRule, Rule};
use super::cluster_peer::{
    FailsClosed, RuleParts, Version, compile_ports, compile_priority, compile_subject,
    fails_closed, names,
};
use super::{Refusals, port_number, protocol_named};
use crate::flow::{Direction, Protocol};
use crate::object::{AdminNetworkPolicy, AdminPolicyPort, AdminPolicyRule};
use crate::verdict::{PolicyKind, Tier};

/// The only BaselineAdminNetworkPolicy there can be.
const BASELINE_NAME: &str = "default";
/// It has no priority; beside ClusterNetworkPolicies of the baseline tier it is asked last.
const BASELINE_PRIORITY: u16 = u16::MAX;

pub(super) fn compile(
    policy: &AdminNetworkPolicy,
    kind: PolicyKind,
    origin: Arc<str>,
) -> Result<CompiledPolicy, Vec<Rejection>> {
    let version = Version {
        kind,
        items_max: 100,
        allow: "Allow",
        ports_field: "ports",
        named_port_field: "namedPort",
    };
    let name = &*policy.metadata.name;
    let mut refusals = Refusals::of(kind, name);
    refusals.check_name(name);
    let spec = &policy.spec;
    let is_baseline = kind == PolicyKind::BaselineAdminNetworkPolicy;
    let (tier, priority) = if is_baseline {
        if name != BASELINE_NAME {
            refusals.add("metadata.name", format!("must be {BASELINE_NAME:?}, not {name:?}"));
        }
        if spec.priority.is_some() {
            refusals.add("spec.priority", "unknown field: there is one baseline policy only");
        }
        (Tier::Baseline, BASELINE_PRIORITY)
    } else {
        (Tier::Admin, compile_priority(spec.priority, &mut refusals))
    };
    let subject = compile_subject(spec.subject.as_ref(), &mut refusals);
    let ingress = rules(version, Direction::Ingress, spec.ingress.as_deref(), &mut refusals);
    let egress = rules(version, Direction::Egress, spec.egress.as_deref(), &mut refusals);
    if !refusals.all.is_empty() {
        return Err(refusals.all);
    }
    Ok(CompiledPolicy {
        tier,
        priority,
        namespace: "".into(),
        name: name.into(),
        kind,
        origin,
        id: name.into(),
        subject,
        ingress,
        egress,
        notices: refusals.notices.into(),
        remarks: refusals.remarks.into(),
    })
}

/// None if there are none: a direction without rules is not spoken of.
fn rules(
    version: Version,
    direction: Direction,
    given: Option<&[AdminPolicyRule]>,
    refusals: &mut Refusals,
) -> Option<Box<[Rule]>> {
    let field = match direction {
        Direction::Ingress => "spec.ingress",
        Direction::Egress => "spec.egress",
    };
    version.check_length(given, field, true, refusals);
    let mut rules = Vec::new();
    for (index, rule) in given.unwrap_or_default().iter().enumerate() {
        let path = format!("{field}[{index}]");
        let ports_path = format!("{path}.ports");
        version.check_length(rule.ports.as_deref(), &ports_path, false, refusals);
        let given_ports = rule.ports.as_deref().unwrap_or_default();
        let parts = RuleParts {
            path: &path,
            name: rule.name.as_deref(),
            action: &rule.action,
            from: rule.from.as_deref(),
            to: rule.to.as_deref(),
            ports: compile_ports(given_ports, &ports_path, refusals, compile_port),
            has_named_port: given_ports.iter().any(|port| port.named_port.is_some()),
        };
        rules.extend(version.compile_rule(direction, parts, refusals));
    }
    (!rules.is_empty()).then(|| rules.into())
}

/// Nothing if it was refused.
fn compile_port(
    given: &AdminPolicyPort,
    path: &str,
    refusals: &mut Refusals,
) -> Result<Option<PortRule>, FailsClosed> {
    let AdminPolicyPort { port_number: number, named_port: named, port_range: range, unknown } =
        given;
    match (number, named, range, unknown.is_empty()) {
        (Some(number), None, None, true) => {
            let path = format!("{path}.portNumber");
            let port = port_number(number.port, &format!("{path}.port"), refusals);
            let protocol = compile_protocol(number.protocol.as_deref(), &path, refusals)?;
            let port = port.map(|port| PortChoice::Range(port, port));
            Ok(port.map(|port| PortRule { protocol: Some(protocol), port }))
        }
        (None, None, Some(range), true) => {
            let path = format!("{path}.portRange");
            let start = port_number(range.start, &format!("{path}.start"), refusals);
            let end = port_number(range.end, &format!("{path}.end"), refusals);
            let protocol = compile_protocol(range.protocol.as_deref(), &path, refusals)?;
            // The CRD does not hold the ends against each other; a range that ends before it starts
            // holds no port.
            let range = start.zip(end).map(|(start, end)| PortChoice::Range(start, end));
            Ok(range.map(|port| PortRule { protocol: Some(protocol), port }))
        }
        (None, Some(name), None, true) => {
            if let Some(problem) = port_name_problem(name) {
                refusals.add(format!("{path}.namedPort"), problem);
            }
            let port = PortChoice::Named(name.as_str().into());
            Ok(Some(PortRule { protocol: None, port }))
        }
        (None, None, None, false) => {
            fails_closed(path, &names(unknown), refusals);
            Err(FailsClosed)
        }
        _ => {
            refusals.add(path, "must have exactly one of portNumber, portRange, namedPort");
            Ok(None)
        }
    }
}

/// The CRD takes any text here: what is none of the three is newer than this program.
fn compile_protocol(
    name: Option<&str>,
    path: &str,
    refusals: &mut Refusals,
) -> Result<Protocol, FailsClosed> {
    let name = name.unwrap_or("TCP");
    protocol_named(name).ok_or_else(|| {
        fails_closed(&format!("{path}.protocol"), &[name], refusals);
        FailsClosed
    })
}
