//! Addresses that are asked for when they are met, where not every pod of the cluster is known.
//!
//! In: resolved records, and which addresses the cluster has no pod at. Out: the addresses that
//! somebody has to look up, and those of looked-up pods that are still in use. It asks nobody; its
//! tables are bounded, and what finds no room is met again.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use foldhash::{HashMap, HashMapExt};

use super::{Index, Resolved};
use crate::flow::{End, Endpoint, PodIdentity, Timestamp, UnknownEnd};

/// Addresses that are asked for, used or known to be nobody's, each at most.
pub const PEERS_MAX: usize = 16_384;
/// How long an answer that nobody has an address holds, in nanoseconds.
pub const NOBODY_NS: u64 = 30_000_000_000;
/// Backends of one Service that are asked for because of one record.
const BACKENDS_WANTED_MAX: usize = 64;

/// What to do for the pods that only lookups tell of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeersMet {
    /// Nobody is known to have these addresses, and a pod may.
    pub wanted: BTreeSet<IpAddr>,
    /// Pods of other nodes have these addresses, and were met.
    pub used: BTreeSet<IpAddr>,
}

/// The mode's state.
#[derive(Debug)]
pub(super) struct Peers {
    met: PeersMet,
    /// Until when the answer holds that nobody is there.
    nobody: HashMap<IpAddr, Timestamp>,
    refused: u64,
}

impl Peers {
    pub(super) fn new() -> Self {
        Self { met: PeersMet::default(), nobody: HashMap::new(), refused: 0 }
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    fn is_nobodys(&self, addr: IpAddr, now: Timestamp) -> bool {
        self.nobody.get(&addr).is_some_and(|until| *until > now)
    }
}

impl Index {
    /// From now on pods of other nodes are known by lookups only.
    pub fn know_peers_by_lookup(&mut self) {
        self.peers = Some(Peers::new());
    }

    /// A lookup found no pod at this address.
    pub fn nobody_at(&mut self, addr: IpAddr, at: Timestamp) {
        self.now = self.now.max(at);
        let now = self.now;
        let Some(peers) = &mut self.peers else { return };
        if peers.nobody.len() >= PEERS_MAX && !peers.nobody.contains_key(&addr) {
            peers.nobody.retain(|_, until| *until > now);
        }
        if peers.nobody.len() >= PEERS_MAX && !peers.nobody.contains_key(&addr) {
            peers.refused += 1;
            return;
        }
        peers.nobody.insert(addr, Timestamp(at.0.saturating_add(NOBODY_NS)));
        self.forget_services();
    }

    /// These pods are not followed any more; a later lookup may name them again.
    pub fn pods_unused<'a>(&mut self, uids: impl IntoIterator<Item = &'a str>, at: Timestamp) {
        for uid in uids {
            self.pods.unused(uid, at);
        }
        self.forget_services();
    }

    /// What was met since this was asked last.
    pub fn take_peers_met(&mut self) -> PeersMet {
        self.peers.as_mut().map(|peers| std::mem::take(&mut peers.met)).unwrap_or_default()
    }

    /// Notes whom a record met. Whether an address is still to be looked up for it.
    pub(crate) fn meet(&mut self, resolved: &Resolved) -> bool {
        let Some(mut peers) = self.peers.take() else { return false };
        let mut waits = false;
        for end in [&resolved.source, &resolved.target] {
            waits |= match &end.endpoint {
                Endpoint::Service(service) => {
                    let ends = service.backends.iter().map(|(end, _)| end);
                    let met = ends.take(BACKENDS_WANTED_MAX);
                    met.fold(false, |waits, end| self.meet_end(&mut peers, end, false) | waits)
                }
                _ => self.meet_end(&mut peers, end, resolved.guessed),
            };
        }
        self.peers = Some(peers);
        waits
    }

    fn meet_end(&self, peers: &mut Peers, end: &End, guessed: bool) -> bool {
        let Some(addr) = end.addr else { return false };
        let (table, waits) = match &end.endpoint {
            Endpoint::Pod(pod) if self.is_elsewhere(pod) => (&mut peers.met.used, false),
            Endpoint::Unknown(UnknownEnd::NoHolder) if self.may_be_pods(addr) => {
                (&mut peers.met.wanted, true)
            }
            Endpoint::Node(_) if guessed && self.may_be_pods(addr) => (&mut peers.met.wanted, true),
            _ => return false,
        };
        if table.len() < PEERS_MAX {
            table.insert(addr);
        } else if !table.contains(&addr) {
            peers.refused += 1;
        }
        waits && peers.nobody.get(&addr).is_none_or(|until| *until <= self.now)
    }

    fn is_elsewhere(&self, pod: &PodIdentity) -> bool {
        !pod.host_network && *pod.node != **self.nodes.own_name()
    }

    /// Where nodes say which addresses pods have, one of those; else any that is not public.
    fn may_be_pods(&self, addr: IpAddr) -> bool {
        match self.nodes.pod_ranges().next() {
            Some(_) => self.nodes.is_for_pods(addr),
            None => is_private(addr),
        }
    }

    /// Whether nobody may be said to be outside at this address, because no lookup was answered
    /// yet. API servers find a pod by its first address only, so that of IPv6, mostly the second
    /// one, no answer says that it is outside.
    pub(super) fn awaits_lookup(&self, addr: IpAddr) -> bool {
        let Some(peers) = &self.peers else { return false };
        self.may_be_pods(addr) && (addr.is_ipv6() || !peers.is_nobodys(addr, self.now))
    }
}

/// RFC 1918, RFC 6598 (used for pods by some clouds) and RFC 4193.
fn is_private(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_private() || is_shared(addr),
        IpAddr::V6(addr) => addr.is_unique_local(),
    }
}

fn is_shared(addr: Ipv4Addr) -> bool {
    let [first, second, ..] = addr.octets();
    first == 100 && second & 0xc0 == 64
}
