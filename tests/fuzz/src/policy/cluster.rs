//! A small cluster and some connections in it.
//!
//! In: the bytes of one input. Out: the values that the policy target asks about. Every input is a
//! cluster.

use std::collections::BTreeMap;

use arbitrary::Result;
use parapet_core::flow::{End, Protocol};
use parapet_core::object::Object;
use parapet_core::policy::Selection;
use parapet_core::verdict::Profile;

use super::cluster_rules::cluster_policy;
use super::draw::{Draw, flag, labels, several, word};
use super::ends::{self, NODES};
use super::rules::{NAMESPACES, network_policy};

const CONNECTIONS_MAX: usize = 3;
const POLICIES_MAX: usize = 6;
/// Beside `Common` and `Spec`.
const PROFILES: [Profile; 6] = [
    Profile::Cilium,
    Profile::Calico,
    Profile::Aws,
    Profile::Antrea,
    Profile::OvnKubernetes,
    Profile::KubeNetworkPolicies,
];

/// What is declared, and what is asked.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) policies: Vec<Object>,
    pub(super) connections: Vec<Connection>,
    /// What was known when the policies were linked.
    pub(super) before: Vec<Fact>,
    /// What came after the ends were identified.
    pub(super) after: Vec<Fact>,
    /// One more profile to ask under.
    pub(super) profile: Profile,
}

/// Something that a selector may ask about.
#[derive(Debug)]
pub(super) enum Fact {
    Namespace(String, BTreeMap<String, String>),
    NoNamespace(String),
    Node(String, BTreeMap<String, String>),
}

/// One probe, owning its ends.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) source: End,
    pub(super) target: End,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

impl Cluster {
    /// The connections come first: they are what makes the rest of any use.
    pub(super) fn draw(u: &mut Draw<'_>) -> Result<Self> {
        let connections = several(u, CONNECTIONS_MAX, |u| {
            let (source, target) = (ends::end(u)?, ends::end(u)?);
            Ok(Connection { source, target, protocol: ends::protocol(u)?, port: ends::port(u)? })
        })?;
        let (before, profile) = (several(u, 3, Fact::draw)?, *u.choose(&PROFILES)?);
        let mut number = 0;
        let policies = several(u, POLICIES_MAX, |u| {
            number += 1;
            u.object(|u| {
                if flag(u)? {
                    network_policy(u, number).map(Object::NetworkPolicy)
                } else {
                    cluster_policy(u, number)
                }
            })
        })?;
        Ok(Self { policies, connections, before, after: several(u, 2, Fact::draw)?, profile })
    }
}

impl Fact {
    fn draw(u: &mut Draw<'_>) -> Result<Self> {
        Ok(match u.int_in_range(0..=7_u8)? {
            0..=4 => Self::Namespace(word(u, &NAMESPACES)?, labels(u)?),
            5 => Self::NoNamespace(word(u, &NAMESPACES)?),
            _ => Self::Node(word(u, &NODES)?, labels(u)?),
        })
    }

    pub(super) fn tell(&self, selection: &mut Selection) {
        match self {
            Self::Namespace(name, labels) => selection.insert_namespace(name, labels),
            Self::NoNamespace(name) => selection.remove_namespace(name),
            Self::Node(name, labels) => selection.insert_node(name, labels),
        };
    }
}
