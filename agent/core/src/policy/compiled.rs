//! Compiled policies: what is left of a policy object of any kind once its text has been read.
//!
//! In: rules, and pods to select. Out: whom a policy selects and what it says in a direction. It
//! parses nothing and judges nothing.

use std::sync::Arc;

use ipnet::IpNet;

use super::Rejection;
use super::pattern::Linked;
use super::rule::{Peer, Peers, Rule};
use super::selection::{Identity, Selection};
use super::selector::Known;
use crate::flow::{Direction, PodIdentity};
use crate::verdict::{PolicyKind, Tier};

/// One policy, defaulted, validated and ready to be asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CompiledPolicy {
    // The order of the fields is the order of policies within a tier: precedence first.
    pub(crate) tier: Tier,
    /// Lower is asked first. 0 for NetworkPolicy v1, which knows no order.
    pub(crate) priority: u16,
    /// Empty for cluster-scoped kinds.
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) kind: PolicyKind,
    pub(crate) origin: Arc<str>,
    pub(crate) id: Arc<str>,
    pub(crate) subject: Linked,
    /// None: does not speak of this direction. A NetworkPolicy isolates where it has rules, even
    /// if none.
    pub(crate) ingress: Option<Box<[Rule]>>,
    /// The same for egress.
    pub(crate) egress: Option<Box<[Rule]>>,
    pub(crate) notices: Box<[Rejection]>,
    pub(crate) remarks: Box<[Remark]>,
}

/// What is written otherwise than it is read. Nobody refuses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Remark {
    /// `spec.ingress[0].from[1].ipBlock.cidr`.
    pub(crate) field: String,
    pub(crate) oddity: Oddity,
}

/// What is odd about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Oddity {
    /// A CIDR whose address is not its network's.
    HostBits { written: String, read: IpNet },
    /// Rules of a direction that `policyTypes` does not name.
    RulesWithoutType(Direction),
}

impl CompiledPolicy {
    /// `metadata.namespace`, empty for cluster-scoped kinds.
    #[must_use]
    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// `namespace/name`, or the name alone.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Where it came from: "enforced" or a candidate's name.
    #[must_use]
    pub fn origin(&self) -> &Arc<str> {
        &self.origin
    }

    /// What was read of it, but means less than was written: rules that fail closed.
    #[must_use]
    pub fn notices(&self) -> &[Rejection] {
        &self.notices
    }

    /// Whether the pod may be a subject: it is, or its namespace was never seen.
    #[must_use]
    pub fn may_select(&self, selection: &Selection, pod: &PodIdentity) -> bool {
        self.selects_known(selection, selection.identity(pod), pod) != Known::No
    }

    /// Whether it speaks of this direction: isolates, or has rules.
    #[must_use]
    pub fn speaks_of(&self, direction: Direction) -> bool {
        self.rules(direction).is_some()
    }

    pub(crate) fn selects_known(
        &self,
        selection: &Selection,
        identity: Option<&Identity>,
        pod: &PodIdentity,
    ) -> Known {
        if pod.host_network {
            return Known::No;
        }
        match (identity, self.subject.id) {
            (Some(identity), Some(id)) if identity.is_subject(id) => Known::Yes,
            (Some(_), Some(_)) => Known::No,
            _ => match selection.holds(&self.subject.pattern, pod) {
                (namespace, true) => namespace,
                (_, false) => Known::No,
            },
        }
    }

    pub(crate) fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    pub(crate) fn for_each_pattern(&mut self, mut f: impl FnMut(&mut Linked)) {
        f(&mut self.subject);
        let rules = [&mut self.ingress, &mut self.egress].into_iter().flatten();
        for rule in rules.flat_map(|rules| rules.iter_mut()) {
            let Peers::AnyOf(peers) = &mut rule.peers else { continue };
            for peer in peers {
                if let Peer::Pods(pattern) = peer {
                    f(pattern);
                }
            }
        }
    }
}

impl Selection {
    /// Numbers a policy's patterns, so that sets that hold it are judged by looking up. A policy
    /// belongs to the selection it was linked into and must be judged with no other one.
    #[must_use]
    pub fn link(&mut self, mut policy: CompiledPolicy) -> Arc<CompiledPolicy> {
        policy.for_each_pattern(|linked| *linked = self.link_pattern(&linked.pattern));
        Arc::new(policy)
    }
}
