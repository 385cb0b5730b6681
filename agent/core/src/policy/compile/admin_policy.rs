//! From an AdminNetworkPolicy or a BaselineAdminNetworkPolicy v1alpha1 to a compiled one.
//!
//! In: the object. Out: the policy, or every reason to refuse it, as the CRDs of release v0.1.7
//! say. Shapes of releases before v0.1.2 are refused: what they meant cannot be told from a
//! misspelling.

use std::sync::Arc;

use super::super::Rejection;
use super::super::compiled::CompiledPolicy;
use super::super::labels::port_name_problem;
use super::super::rule::{PortChoice, PortRule};
use super::cluster_scoped::{
    FailsClosed, Version, WrittenPolicy, WrittenRule, compile_priority, fails_closed, names,
};
use super::{Refusals, port_number, protocol_named};
use crate::flow::Protocol;
use crate::object::{AdminNetworkPolicy, AdminPolicyPort, AdminPolicyRule, ClusterPolicyPeer};
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
    let precedence = if is_baseline {
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
    let written = WrittenPolicy {
        name,
        precedence,
        subject: spec.subject.as_ref(),
        ingress: spec.ingress.as_deref(),
        egress: spec.egress.as_deref(),
    };
    version.compile(written, origin, refusals)
}

impl WrittenRule for AdminPolicyRule {
    type Port = AdminPolicyPort;

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

    fn ports(&self) -> Option<&[AdminPolicyPort]> {
        self.ports.as_deref()
    }

    fn is_named(port: &AdminPolicyPort) -> bool {
        port.named_port.is_some()
    }

    fn compile_port(
        port: &AdminPolicyPort,
        path: &str,
        refusals: &mut Refusals,
    ) -> Result<Option<PortRule>, FailsClosed> {
        compile_port(port, path, refusals)
    }
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
