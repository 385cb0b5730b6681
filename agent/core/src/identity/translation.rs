//! Addresses that are not those of whom they stand for: a Service's before its backend's, a node's
//! before that of who began.
//!
//! In: what connection tracking said of a record, and the index. Out: which Service ports need a
//! look at each connection, and whether a source is somebody else. It asks nobody, and where
//! nobody was asked it says no more than `possible`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use foldhash::HashMap;
use serde::{Deserialize, Serialize};

use super::Index;
use super::service_facts::ServiceFacts;
use crate::flow::{Direction, End, Endpoint, PodIdentity, Protocol, ServiceIdentity, Timestamp};
use crate::record::FlowRecord;

/// Service ports listed at once: what the kernel has room for.
const DIVIDED_MAX: usize = parapet_common::SERVICES_MAX as usize;
/// Answers remembered until an object changes.
const REACHED_MAX: usize = 16_384;

/// What connection tracking said of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// Where the connection was led to, if the peer's address is a Service's.
    pub backend: Option<SocketAddr>,
    /// Whether the peer's address is that of who began.
    pub source: SourceSeen,
}

/// Whether an address is that of who began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceSeen {
    /// Nobody could say.
    #[default]
    NotAsked,
    /// Nothing was put before it.
    Kept,
    /// It was put before another one.
    Rewritten,
}

/// How it is known that a source is not who began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rewritten {
    /// The node's own connection tracking said so.
    Conntrack,
    /// Only another node's could: the target is behind a Service that is reached from outside
    /// through any node, which then puts its own address before the client's.
    Possible,
}

/// A port of a Service, as a client asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub struct AskedPort {
    pub addr: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
}

/// Service ports whose backends differ, so that only a connection's own tuple tells which it got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DividedServices {
    /// Sorted.
    pub ports: Vec<AskedPort>,
    /// Those that found no room.
    pub refused: u64,
}

/// What is remembered until objects change.
#[derive(Debug, Default)]
pub(super) struct Translations {
    version: u64,
    /// Pod address, port and protocol to whether a node may lead outside traffic there.
    reached: HashMap<(IpAddr, u16, Protocol), bool>,
}

impl Translations {
    pub(super) fn forget(&mut self) {
        self.version += 1;
        self.reached.clear();
    }
}

impl Index {
    /// A number that is another one whenever [`Index::divided_services`] may be.
    #[must_use]
    pub fn services_version(&self) -> u64 {
        self.translations.version
    }

    /// Every Service port that leads to backends of different workloads, or to different ports.
    #[must_use]
    pub fn divided_services(&self) -> DividedServices {
        let mut ports = BTreeSet::new();
        let mut refused = 0;
        for service in self.services.all() {
            for port in self.divided_ports(service) {
                if ports.len() < DIVIDED_MAX {
                    ports.insert(port);
                } else if !ports.contains(&port) {
                    refused += 1;
                }
            }
        }
        DividedServices { ports: ports.into_iter().collect(), refused }
    }

    fn divided_ports(&self, service: &ServiceFacts) -> Vec<AskedPort> {
        let mut asked = Vec::new();
        for port in &service.ports {
            for ipv6 in [false, true] {
                let addrs = service.addrs.iter().filter(|addr| addr.is_ipv6() == ipv6);
                let mut addrs = addrs.peekable();
                if addrs.peek().is_none() {
                    continue;
                }
                let identity = self.service_identity(service, (Some(port), port.port), NOW, ipv6);
                if is_divided(&identity) {
                    let (port, protocol) = (port.port, port.protocol);
                    asked.extend(addrs.map(|&addr| AskedPort { addr, port, protocol }));
                }
            }
        }
        asked
    }

    /// Whether the source of a record is not who began.
    pub(super) fn source_rewritten(
        &mut self,
        record: &FlowRecord,
        local: &End,
        peer: &End,
    ) -> Option<Rewritten> {
        if record.direction != Some(Direction::Ingress) {
            return None;
        }
        match (record.translation.source, &peer.endpoint, &local.endpoint) {
            (SourceSeen::Rewritten, ..) => Some(Rewritten::Conntrack),
            (SourceSeen::NotAsked, Endpoint::Node(_), Endpoint::Pod(pod)) if !pod.host_network => {
                let addr = record.local_addr.or(local.addr)?.to_canonical();
                let key = (addr, record.service_port, record.protocol);
                self.is_reached_through_nodes(pod, key).then_some(Rewritten::Possible)
            }
            _ => None,
        }
    }

    fn is_reached_through_nodes(
        &mut self,
        pod: &PodIdentity,
        key @ (addr, target, protocol): (IpAddr, u16, Protocol),
    ) -> bool {
        if let Some(known) = self.translations.reached.get(&key) {
            return *known;
        }
        // A Service's pods are in its own namespace.
        let mut services =
            self.services.all().filter(|one| one.hides_clients && one.key.0 == pod.namespace);
        let reached = services.any(|service| {
            let mut ports = service.ports.iter().filter(|port| port.protocol == protocol);
            ports.any(|port| {
                let asked = (Some(port), port.port);
                let identity = self.service_identity(service, asked, NOW, addr.is_ipv6());
                let mut backends = identity.backends.iter();
                backends.any(|(end, port)| end.addr == Some(addr) && *port == target)
            })
        });
        if self.translations.reached.len() >= REACHED_MAX {
            self.translations.reached.clear();
        }
        self.translations.reached.insert(key, reached);
        reached
    }
}

/// Whoever still holds an address holds it until the end of time, as far as is known.
const NOW: Timestamp = Timestamp(u64::MAX);

/// Whether the edge of a flow depends on which backend it got.
fn is_divided(service: &ServiceIdentity) -> bool {
    let mut backends = service.backends.iter();
    let Some((first, first_port)) = backends.next() else { return false };
    backends.any(|(end, port)| port != first_port || !is_same(first, end))
}

fn is_same(a: &End, b: &End) -> bool {
    match (&a.endpoint, &b.endpoint) {
        (Endpoint::Pod(a), Endpoint::Pod(b)) => {
            a.namespace == b.namespace && a.workload == b.workload
        }
        _ => a.addr == b.addr,
    }
}
