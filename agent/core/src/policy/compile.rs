//! From the API's policy objects to compiled ones.
//!
//! In: an object before the API server's defaulting. Out: the compiled policy, or every reason for
//! which the API server would refuse the object. It never repairs what the API server refuses, and
//! never takes part of an object. What all kinds share is here, each kind has a file of its own.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Rejection;
use super::cidr::unmap;
use super::compiled::{CompiledPolicy, Oddity, Remark};
use super::labels::{is_subdomain, key_problem, value_problem};
use super::selector::{Operator, Requirement, Selector};
use crate::flow::Protocol;
use crate::object::{LabelRequirement, LabelSelector, Object};
use crate::verdict::PolicyKind;

pub use self::network_policy::compile;

mod admin_policy;
mod cluster_policy;
mod cluster_scoped;
mod network_policy;

/// Collects what is refused, each with the path to its field.
struct Refusals {
    object: String,
    all: Vec<Rejection>,
    /// What is not refused, but does not mean what it says.
    notices: Vec<Rejection>,
    /// What means what it says, but says it oddly.
    remarks: Vec<Remark>,
}

/// Compiles an object of any policy kind; none if it is no policy. `origin` is the set's member it
/// comes from: "enforced" or the candidate's name.
///
/// # Errors
/// Everything the API server would refuse it for.
#[must_use]
pub fn compile_object(
    object: &Object,
    origin: &Arc<str>,
) -> Option<Result<CompiledPolicy, Vec<Rejection>>> {
    let origin = origin.clone();
    Some(match object {
        Object::NetworkPolicy(policy) => compile(policy, origin),
        Object::ClusterNetworkPolicy(policy) => cluster_policy::compile(policy, origin),
        Object::AdminNetworkPolicy(policy) => {
            admin_policy::compile(policy, PolicyKind::AdminNetworkPolicy, origin)
        }
        Object::BaselineAdminNetworkPolicy(policy) => {
            admin_policy::compile(policy, PolicyKind::BaselineAdminNetworkPolicy, origin)
        }
        Object::Namespace(_)
        | Object::Node(_)
        | Object::Pod(_)
        | Object::Service(_)
        | Object::EndpointSlice(_)
        | Object::Workload(_)
        | Object::ServiceAccount(_)
        | Object::Role(_)
        | Object::RoleBinding(_)
        | Object::ClusterRole(_)
        | Object::ClusterRoleBinding(_) => return None,
    })
}

impl Refusals {
    fn of(kind: PolicyKind, id: &str) -> Self {
        let object = format!("{} {id}", kind.name());
        Self { object, all: Vec::new(), notices: Vec::new(), remarks: Vec::new() }
    }

    fn add(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        let (field, problem) = (field.into(), problem.into());
        self.all.push(Rejection { object: self.object.clone(), field, problem });
    }

    fn notice(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        let (field, problem) = (field.into(), problem.into());
        self.notices.push(Rejection { object: self.object.clone(), field, problem });
    }

    fn remark(&mut self, field: impl Into<String>, oddity: Oddity) {
        self.remarks.push(Remark { field: field.into(), oddity });
    }

    /// Remarks on a CIDR with host bits, which the API drops without a word.
    fn remark_host_bits(&mut self, field: &str, written: &str, read: IpNet) {
        let address = written.split('/').next().unwrap_or_default().parse::<IpAddr>();
        if address.is_ok_and(|address| unmap(address) != read.addr()) {
            self.remark(field, Oddity::HostBits { written: written.to_owned(), read });
        }
    }

    fn check_name(&mut self, name: &str) {
        if !is_subdomain(name) {
            self.add("metadata.name", format!("{name:?} must be a lower case DNS subdomain"));
        }
    }
}

/// The protocols that policies can name.
fn protocol_named(name: &str) -> Option<Protocol> {
    match name {
        "TCP" => Some(Protocol::TCP),
        "UDP" => Some(Protocol::UDP),
        "SCTP" => Some(Protocol::SCTP),
        _ => None,
    }
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
