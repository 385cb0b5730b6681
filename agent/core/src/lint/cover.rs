//! When one selector, peer, port or rule means all that another one means, whatever the cluster.
//!
//! In: two compiled parts. Out: yes only if it follows from their words. A no may be a cover that
//! takes more than these rules to see.

use std::sync::Arc;

use ipnet::IpNet;

use crate::flow::Protocol;
use crate::policy::domain::DomainName;
use crate::policy::pattern::{Linked, NamespaceChoice, Pattern};
use crate::policy::rule::{Block, Peer, Peers, PortChoice, PortRule, Rule};
use crate::policy::selector::{Known, NAMESPACE_NAME_KEY, Operator, Selector};

/// Whether every connection that `inner` is about is one of `outer`'s too.
pub(super) fn covers_rule(outer: &Rule, inner: &Rule) -> bool {
    covers_ports(&outer.ports, &inner.ports) && covers_peers(&outer.peers, &inner.peers)
}

pub(super) fn covers_peers(outer: &Peers, inner: &Peers) -> bool {
    match (outer, inner) {
        // What fails closed is told as such.
        (Peers::FailsClosed, _) | (_, Peers::FailsClosed) => false,
        (Peers::Everyone, _) => true,
        (Peers::AnyOf(_), Peers::Everyone) => false,
        (Peers::AnyOf(outer), Peers::AnyOf(inner)) => {
            inner.iter().all(|inner| outer.iter().any(|outer| covers_peer(outer, inner)))
        }
    }
}

/// Blocks and pods never cover each other: whether a block means pods depends on who enforces it.
pub(super) fn covers_peer(outer: &Peer, inner: &Peer) -> bool {
    match (outer, inner) {
        (Peer::Pods(Linked { pattern: outer, .. }), Peer::Pods(Linked { pattern: inner, .. })) => {
            covers_pattern(outer, inner)
        }
        (Peer::Blocks(outer), Peer::Blocks(inner)) => {
            inner.iter().all(|inner| outer.iter().any(|outer| covers_block(outer, inner)))
        }
        (Peer::Nodes(outer), Peer::Nodes(inner)) => covers_selector(outer, inner),
        (Peer::Domains(outer), Peer::Domains(inner)) => {
            inner.iter().all(|inner| outer.iter().any(|outer| covers_name(outer, inner)))
        }
        _ => false,
    }
}

pub(super) fn covers_pattern(outer: &Pattern, inner: &Pattern) -> bool {
    covers_namespaces(&outer.namespaces, &inner.namespaces)
        && covers_selector(&outer.pods, &inner.pods)
}

fn covers_namespaces(outer: &NamespaceChoice, inner: &NamespaceChoice) -> bool {
    match (outer, inner) {
        (NamespaceChoice::Only(outer), NamespaceChoice::Only(inner)) => outer == inner,
        (NamespaceChoice::Labelled(outer), NamespaceChoice::Only(name)) => {
            outer.matches_name_only(name) == Known::Yes
        }
        (NamespaceChoice::Labelled(outer), NamespaceChoice::Labelled(inner)) => {
            covers_selector(outer, inner)
        }
        (NamespaceChoice::Only(name), NamespaceChoice::Labelled(inner)) => {
            inner.requirements().iter().any(|each| {
                let values: &[Arc<str>] = match &each.operator {
                    Operator::In(values) => values,
                    Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => &[],
                };
                &*each.key == NAMESPACE_NAME_KEY && values == [name.clone()]
            })
        }
    }
}

/// Each requirement of `outer` follows from one of `inner`'s.
pub(super) fn covers_selector(outer: &Selector, inner: &Selector) -> bool {
    outer.requirements().iter().all(|wanted| {
        let given = inner.requirements().iter().filter(|given| given.key == wanted.key);
        given.into_iter().any(|given| follows(&wanted.operator, &given.operator))
    })
}

/// Whether `wanted` holds of every value that `given` holds of.
fn follows(wanted: &Operator, given: &Operator) -> bool {
    match (wanted, given) {
        (Operator::In(wanted), Operator::In(given)) => is_within(given, wanted),
        (Operator::NotIn(wanted), Operator::In(given)) => are_apart(wanted, given),
        (Operator::NotIn(wanted), Operator::NotIn(given)) => is_within(wanted, given),
        (Operator::Exists, Operator::In(_) | Operator::Exists)
        | (Operator::NotIn(_) | Operator::DoesNotExist, Operator::DoesNotExist) => true,
        (Operator::In(_), Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist)
        | (Operator::NotIn(_), Operator::Exists)
        | (Operator::Exists, Operator::NotIn(_) | Operator::DoesNotExist)
        | (Operator::DoesNotExist, Operator::In(_) | Operator::NotIn(_) | Operator::Exists) => {
            false
        }
    }
}

/// A key of which two requirements can never hold together.
pub(super) fn contradiction(selector: &Selector) -> Option<&Arc<str>> {
    let all = selector.requirements();
    all.iter().enumerate().find_map(|(at, a)| {
        let mut later = all.iter().skip(at + 1).filter(|b| b.key == a.key);
        later.any(|b| excludes(&a.operator, &b.operator)).then_some(&a.key)
    })
}

fn excludes(a: &Operator, b: &Operator) -> bool {
    match (a, b) {
        (Operator::In(a), Operator::In(b)) => are_apart(a, b),
        (Operator::In(wanted), Operator::NotIn(not))
        | (Operator::NotIn(not), Operator::In(wanted)) => is_within(wanted, not),
        (Operator::DoesNotExist, Operator::In(_) | Operator::Exists)
        | (Operator::In(_) | Operator::Exists, Operator::DoesNotExist) => true,
        _ => false,
    }
}

fn is_within(inner: &[Arc<str>], outer: &[Arc<str>]) -> bool {
    inner.iter().all(|each| outer.contains(each))
}

fn are_apart(a: &[Arc<str>], b: &[Arc<str>]) -> bool {
    a.iter().all(|each| !b.contains(each))
}

/// An exception of `outer` does no harm where `inner` makes it too.
fn covers_block(outer: &Block, inner: &Block) -> bool {
    outer.net.contains(&inner.net)
        && outer.except.iter().all(|except| {
            !overlaps(except, &inner.net) || inner.except.iter().any(|each| each.contains(except))
        })
}

fn overlaps(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn covers_name(outer: &DomainName, inner: &DomainName) -> bool {
    let (outer_text, inner_text) = (outer.to_string(), inner.to_string());
    match (outer_text.starts_with("*."), inner_text.strip_prefix("*.")) {
        (_, None) => outer.matches(&inner_text),
        // All names below "a.b.org" are below "b.org" as well.
        (true, Some(inner_name)) => outer == inner || outer.matches(inner_name),
        (false, Some(_)) => false,
    }
}

pub(super) fn covers_ports(outer: &[PortRule], inner: &[PortRule]) -> bool {
    outer.is_empty()
        || !inner.is_empty()
            && inner.iter().all(|inner| outer.iter().any(|outer| covers_port(outer, inner)))
}

fn covers_port(outer: &PortRule, inner: &PortRule) -> bool {
    if outer.protocol.is_some() && outer.protocol != inner.protocol {
        return false;
    }
    match (&outer.port, &inner.port) {
        (PortChoice::Any, _) => true,
        (PortChoice::Range(first, last), PortChoice::Range(inner_first, inner_last)) => {
            first <= inner_first && inner_last <= last
        }
        (PortChoice::Named(outer), PortChoice::Named(inner)) => outer == inner,
        (PortChoice::Range(..) | PortChoice::Named(_), _) => false,
    }
}

/// Whether some connection may be meant by both, as far as words tell; pods are left to who knows
/// them.
pub(super) fn overlap_ports(a: &[PortRule], b: &[PortRule]) -> bool {
    a.is_empty() || b.is_empty() || a.iter().any(|a| b.iter().any(|b| overlap_port(a, b)))
}

fn overlap_port(a: &PortRule, b: &PortRule) -> bool {
    if let (Some(a), Some(b)) = (a.protocol, b.protocol)
        && a != b
    {
        return false;
    }
    match (&a.port, &b.port) {
        (PortChoice::Any, _) | (_, PortChoice::Any) => true,
        (PortChoice::Range(a, b), PortChoice::Range(c, d)) => a <= d && c <= b,
        (PortChoice::Named(a), PortChoice::Named(b)) => a == b,
        (PortChoice::Named(_), PortChoice::Range(..))
        | (PortChoice::Range(..), PortChoice::Named(_)) => false,
    }
}

pub(super) fn overlap_blocks(a: &[Block], b: &[Block]) -> bool {
    a.iter().any(|a| b.iter().any(|b| overlaps(&a.net, &b.net)))
}

pub(super) fn overlap_names(a: &[DomainName], b: &[DomainName]) -> bool {
    a.iter().any(|a| b.iter().any(|b| covers_name(a, b) || covers_name(b, a)))
}

/// Whether the ports hold this one; a named port may be any.
pub(super) fn may_admit(ports: &[PortRule], protocol: Protocol, port: u16) -> bool {
    ports.is_empty()
        || ports.iter().any(|each| {
            each.protocol.is_none_or(|own| own == protocol)
                && match &each.port {
                    PortChoice::Any | PortChoice::Named(_) => true,
                    PortChoice::Range(first, last) => (*first..=*last).contains(&port),
                }
        })
}
