//! One pod's life: from when to when it is there, and which addresses it holds meanwhile.
//!
//! In: what its newest object says, its end, and the time of each. Out: whether it held an address
//! within a window. It knows no other pod.

use std::net::IpAddr;
use std::sync::Arc;

use super::controller::{Controller, OwnerKey};
use super::facts::{Facts, HOLDINGS_MAX, Phase};
use crate::flow::{PodIdentity, Timestamp};

/// What is known of one pod.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) identity: Arc<PodIdentity>,
    pub(super) controller: Option<Arc<Controller>>,
    start: Start,
    pub(super) phase: Phase,
    /// Phase Succeeded or Failed, or the object is gone: it holds no address any more.
    pub(super) end: Option<Timestamp>,
    pub(super) gone: Gone,
    /// None for nearly all: it held all of its addresses for all of its life.
    holdings: Option<Box<[Holding]>>,
}

/// Whether there is an object, and how it is known that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    No,
    /// Something that lists objects did not name it. Lists may be older than what is known.
    Unnamed,
    /// Its deletion was told: no object will have this UID again.
    Deleted,
}

/// When it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// As the object says it.
    Told(Timestamp),
    /// When it was first heard of.
    Seen(Timestamp),
}

/// An address held from `start` until before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holding {
    addr: IpAddr,
    /// None: since the pod began, as the newest object says it.
    start: Option<Timestamp>,
    /// None: until the pod ends.
    end: Option<Timestamp>,
}

impl Life {
    /// The pod after its object was applied; `known` is what was there before.
    pub(super) fn of(known: Option<Self>, facts: Facts, at: Timestamp) -> Self {
        let Facts { identity, controller, start, mut phase } = facts;
        let mut seen = at;
        let mut end = None;
        let mut holdings = Vec::new();
        if let Some(known) = known {
            holdings = known.listed();
            let was_over = known.phase == Phase::Over;
            if known.gone == Gone::No && !was_over {
                seen = known.seen().unwrap_or(at);
            } else if !is_made_up(&identity.uid) {
                // The same UID is the same pod: it was there all along, and what is over stays so.
                seen = known.seen().unwrap_or(at);
                end = known.end.filter(|_| was_over);
                phase = if was_over { Phase::Over } else { phase };
            } else if was_over && phase == Phase::Over && known.gone == Gone::No {
                end = known.end;
            } else {
                // Of objects from files that have no UID another of the same name begins anew.
                for holding in &mut holdings {
                    holding.end = holding.end.or(known.end);
                }
            }
        }
        let is_over = phase == Phase::Over;
        // An address of the node is no pod's: a pod on the host network is found by its cgroup
        // only. And a pod that ended holds nothing new.
        if identity.host_network {
            hold(&mut holdings, &[], at);
        } else if !is_over || end.is_none() {
            hold(&mut holdings, &identity.addrs, at);
        }
        let mut life = Self {
            identity: Arc::new(identity),
            controller,
            start: start.map_or(Start::Seen(seen), Start::Told),
            phase,
            end: if is_over { end.or(Some(at)) } else { None },
            gone: Gone::No,
            holdings: None,
        };
        if !holdings.iter().copied().eq(life.plain()) {
            life.holdings = Some(holdings.into());
        }
        life
    }

    /// Ends the pod and all it holds. An end that is known already stays if it is earlier: of two
    /// who say when it ended, the other only missed it.
    pub(super) fn close(&mut self, at: Timestamp) -> Timestamp {
        let end = self.end.map_or(at, |end| end.min(at));
        self.end = Some(end);
        end
    }

    pub(super) fn start(&self) -> Timestamp {
        match self.start {
            Start::Told(at) | Start::Seen(at) => at,
        }
    }

    /// Namespace and name.
    pub(super) fn name(&self) -> (&str, &str) {
        (&self.identity.namespace, &self.identity.name)
    }

    pub(super) fn owner(&self) -> Option<&OwnerKey> {
        self.controller.as_ref().map(|controller| &controller.key)
    }

    /// From when to when it holds its addresses, and whether it may get traffic.
    pub(super) fn span(&self) -> (Timestamp, Option<Timestamp>, Phase) {
        (self.start(), self.end, self.phase)
    }

    /// Whether the object it was made of says the same.
    pub(super) fn says(&self, facts: &Facts) -> bool {
        let Facts { identity, controller, start, phase } = facts;
        let same_start = match (self.start, start) {
            (Start::Told(at), Some(told)) => at == *told,
            (Start::Seen(_), None) => true,
            (Start::Told(_), None) | (Start::Seen(_), Some(_)) => false,
        };
        let same_phase =
            self.phase == *phase || self.phase == Phase::Over && !is_made_up(&self.identity.uid);
        *self.identity == *identity && self.controller == *controller && same_start && same_phase
    }

    /// Every address it held, some more than once.
    pub(super) fn addrs(&self) -> impl Iterator<Item = IpAddr> {
        let listed = self.holdings.as_deref().unwrap_or_default();
        let plain = self.plain().filter(|_| self.holdings.is_none());
        listed.iter().copied().chain(plain).map(|holding| holding.addr)
    }

    /// Whether it held the address at any time from `since` to `last_seen`, both included.
    pub(super) fn held(&self, addr: IpAddr, since: Timestamp, last_seen: Timestamp) -> bool {
        if self.end.is_some_and(|end| end <= since) {
            return false;
        }
        let within = |holding: Holding| {
            holding.addr == addr
                && holding.start.unwrap_or(self.start()) <= last_seen
                && holding.end.is_none_or(|end| end > since)
        };
        match &self.holdings {
            Some(listed) => listed.iter().copied().any(within),
            None => self.plain().any(within),
        }
    }

    fn seen(&self) -> Option<Timestamp> {
        match self.start {
            Start::Seen(at) => Some(at),
            Start::Told(_) => None,
        }
    }

    fn listed(&self) -> Vec<Holding> {
        match &self.holdings {
            Some(listed) => listed.to_vec(),
            None => self.plain().collect(),
        }
    }

    /// All of its addresses for all of its life.
    fn plain(&self) -> impl Iterator<Item = Holding> {
        let addrs = self.identity.addrs.iter().filter(|_| !self.identity.host_network);
        addrs.map(|addr| Holding { addr: *addr, start: None, end: None })
    }
}

/// Whether the UID is not the API server's but made of a namespace and a name, see `uid_of`.
fn is_made_up(uid: &str) -> bool {
    uid.contains('/')
}

/// From now on these addresses are held and no others.
fn hold(holdings: &mut Vec<Holding>, addrs: &[IpAddr], at: Timestamp) {
    for holding in &mut *holdings {
        if holding.end.is_none() && !addrs.contains(&holding.addr) {
            holding.end = Some(at);
        }
    }
    let first = holdings.is_empty();
    for addr in addrs {
        if !holdings.iter().any(|holding| holding.addr == *addr && holding.end.is_none()) {
            let start = if first { None } else { Some(at) };
            holdings.push(Holding { addr: *addr, start, end: None });
        }
    }
    let excess = holdings.len().saturating_sub(HOLDINGS_MAX);
    holdings.drain(..excess);
}
