//! NetworkPolicies, valid and not.
//!
//! In: the bytes that are left. Out: objects as the API has them, absent and empty told apart. It
//! checks nothing: what is refused is for the compiler to say.

use arbitrary::Result;
use parapet_core::object::{
    EgressRule, IngressRule, IntOrString, IpBlock, LabelRequirement, LabelSelector, Meta,
    NetworkPolicy, NetworkPolicySpec, PolicyPeer, PolicyPort,
};

use super::draw::{
    Draw, cidr, flag, label_key, label_value, labels, maybe, nested_cidrs, several, some, word,
};

pub(super) const NAMESPACES: [&str; 2] = ["x", "y"];
const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];
const TYPES: [&str; 2] = ["Ingress", "Egress"];
pub(super) const PORT_NAMES: [&str; 2] = ["web", "dns"];

pub(super) fn network_policy(u: &mut Draw<'_>, number: usize) -> Result<NetworkPolicy> {
    // Two of a name may come from two files: they are two policies then.
    let name = if u.ratio(1, 8)? { word(u, &["twin"])? } else { format!("p{number}") };
    let namespace = word(u, &NAMESPACES)?;
    let metadata = Meta { name, namespace, ..Meta::default() };
    let spec = NetworkPolicySpec {
        pod_selector: maybe(u, selector)?,
        policy_types: maybe(u, |u| several(u, 2, |u| word(u, &TYPES)))?,
        ingress: maybe(u, |u| several(u, 3, ingress_rule))?,
        egress: maybe(u, |u| several(u, 3, egress_rule))?,
    };
    Ok(NetworkPolicy { metadata, spec })
}

fn ingress_rule(u: &mut Draw<'_>) -> Result<IngressRule> {
    Ok(IngressRule { from: maybe(u, peers)?, ports: maybe(u, ports)? })
}

fn egress_rule(u: &mut Draw<'_>) -> Result<EgressRule> {
    Ok(EgressRule { to: maybe(u, peers)?, ports: maybe(u, ports)? })
}

fn peers(u: &mut Draw<'_>) -> Result<Vec<PolicyPeer>> {
    several(u, 3, |u| {
        let (pods, namespaces, block) = match u.int_in_range(0..=6_u8)? {
            // Mostly refused.
            _ if u.is_odd()? => (flag(u)?, flag(u)?, flag(u)?),
            0..=1 => (true, false, false),
            2 => (false, true, false),
            3..=4 => (true, true, false),
            _ => (false, false, true),
        };
        Ok(PolicyPeer {
            pod_selector: pods.then(|| selector(u)).transpose()?,
            namespace_selector: namespaces.then(|| selector(u)).transpose()?,
            ip_block: block.then(|| ip_block(u)).transpose()?,
        })
    })
}

fn ip_block(u: &mut Draw<'_>) -> Result<IpBlock> {
    let (cidr, inner) = nested_cidrs(u)?;
    Ok(IpBlock { cidr, except: if flag(u)? { vec![inner] } else { several_odd(u)? } })
}

/// None, mostly.
fn several_odd(u: &mut Draw<'_>) -> Result<Vec<String>> {
    if u.is_odd()? { several(u, 2, cidr) } else { Ok(Vec::new()) }
}

pub(super) fn selector(u: &mut Draw<'_>) -> Result<LabelSelector> {
    let match_labels = maybe(u, labels)?;
    Ok(LabelSelector { match_labels, match_expressions: maybe(u, |u| several(u, 1, requirement))? })
}

fn requirement(u: &mut Draw<'_>) -> Result<LabelRequirement> {
    let operator = word(u, &OPERATORS)?;
    // An odd one has values where it may not, or none where it must.
    let has_values = operator.ends_with("In") != u.is_odd()?;
    let values = has_values.then(|| some(u, 2, label_value)).transpose()?;
    Ok(LabelRequirement { key: label_key(u)?, operator, values })
}

fn ports(u: &mut Draw<'_>) -> Result<Vec<PolicyPort>> {
    several(u, 3, |u| {
        let protocol = maybe(u, |u| word(u, &["TCP", "UDP", "SCTP"]))?;
        let (port, end_port) = match u.int_in_range(0..=6_u8)? {
            _ if u.is_odd()? => {
                (maybe(u, |u| u.arbitrary().map(IntOrString::Int))?, u.arbitrary()?)
            }
            0 => (None, None),
            1..=2 => (Some(IntOrString::Int(u.int_in_range(79..=83)?)), None),
            3..=4 => {
                let first = u.int_in_range(79..=83)?;
                (Some(IntOrString::Int(first)), Some(u.int_in_range(first..=first + 4)?))
            }
            _ => (Some(IntOrString::String(word(u, &PORT_NAMES)?)), None),
        };
        Ok(PolicyPort { protocol, port, end_port })
    })
}
