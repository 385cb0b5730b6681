//! From a flow record to both of its ends.
//!
//! In: one [`FlowRecord`] and the index as it is. Out: [`Resolved`]. The local end is known by its
//! cgroup alone; the peer by its address within the record's own window, so that nothing is ever
//! said of a pod that began later. It never waits: what is missing is named in the ends.

use std::net::IpAddr;
use std::sync::Arc;

use super::pods::Holder;
use super::service_facts::{PortFacts, ServiceFacts};
use super::services::Backends;
use super::{Index, Place, Rewritten, ServiceCacheKey};
use crate::flow::{Direction, End, Endpoint, Protocol, ServiceIdentity, Timestamp, UnknownEnd};
use crate::policy::Labels;
use crate::record::FlowRecord;
use crate::snapshot::EndSide;

/// Both ends of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Who began. The local end if nothing told who did.
    pub source: End,
    /// Who was asked.
    pub target: End,
    /// The target's own port, after a Service whose backends agree on it.
    pub port: u16,
    /// The peer is the local end itself: a loopback address, or one of the pod's own.
    pub loopback: bool,
    /// Of a process of this node that is in no pod, its unit, see [`Place::Node`].
    pub cgroup: Option<Arc<str>>,
    /// The peer is a node only because nothing says that a pod has its address.
    pub guessed: bool,
    /// The source is not who began, and how that is known.
    pub source_rewritten: Option<Rewritten>,
}

impl Resolved {
    /// The ends that are not known, and why.
    pub fn unknown(&self) -> impl Iterator<Item = (EndSide, UnknownEnd)> {
        let sides = [(EndSide::Source, &self.source), (EndSide::Target, &self.target)];
        sides.into_iter().filter_map(|(side, end)| match end.endpoint {
            Endpoint::Unknown(reason) => Some((side, reason)),
            _ => None,
        })
    }

    /// Whether an object that is still on its way may tell more. More than one holder is final:
    /// no later object takes a holder away from a time that has passed.
    #[must_use]
    pub fn may_improve(&self) -> bool {
        self.guessed || self.unknown().any(|(_, reason)| reason != UnknownEnd::AmbiguousAddress)
    }
}

impl Index {
    /// Both ends of a record, from the index as it is now.
    pub fn resolve(&mut self, record: &FlowRecord) -> Resolved {
        let peer_addr = record.peer.to_canonical();
        let local = self.local_end(record.cgroup_id, peer_addr.is_ipv6());
        let own = match &local.endpoint {
            Endpoint::Pod(pod) if !pod.host_network => pod.addrs.contains(&peer_addr),
            _ => false,
        };
        let loopback = own || peer_addr.is_loopback();
        let local_asks = record.direction != Some(Direction::Ingress);
        let (peer, port) = if loopback {
            let endpoint = local.endpoint.clone();
            (End { addr: Some(peer_addr), endpoint }, record.service_port)
        } else {
            self.peer_end(record, peer_addr, local_asks)
        };
        let guessed = matches!(peer.endpoint, Endpoint::Node(_))
            && !loopback
            && peer.addr.is_some_and(|addr| !self.is_node(addr));
        let loopback = loopback || same_pod(&local, &peer);
        let source_rewritten = self.source_rewritten(record, &local, &peer);
        let cgroup = self.unit(record.cgroup_id);
        let (source, target) = if local_asks { (local, peer) } else { (peer, local) };
        Resolved { source, target, port, loopback, source_rewritten, cgroup, guessed }
    }

    /// The unit of a cgroup of the node's own.
    fn unit(&self, cgroup_id: u64) -> Option<Arc<str>> {
        match self.cgroups.place(cgroup_id) {
            Some(Place::Node { unit }) => Some(unit.clone()),
            Some(Place::Pod { .. }) | None => None,
        }
    }

    fn local_end(&self, cgroup_id: u64, ipv6: bool) -> End {
        let own_node = || End {
            addr: self.nodes.own_addr(ipv6),
            endpoint: Endpoint::Node(self.nodes.own_name().clone()),
        };
        let unknown = |reason| End { addr: None, endpoint: Endpoint::Unknown(reason) };
        match self.cgroups.place(cgroup_id) {
            None => unknown(UnknownEnd::CgroupNotKnown),
            Some(Place::Node { .. }) => own_node(),
            Some(Place::Pod { uid, .. }) => match self.pods.get(uid) {
                None => unknown(UnknownEnd::PodNotListed),
                Some(pod) => {
                    let addr = pod.addrs.iter().find(|addr| addr.is_ipv6() == ipv6).copied();
                    End { addr, endpoint: Endpoint::Pod(pod.clone()) }
                }
            },
        }
    }

    /// The peer and the target's port. A Service's address means the Service only to who asks it.
    fn peer_end(&mut self, record: &FlowRecord, addr: IpAddr, local_asks: bool) -> (End, u16) {
        let (addr, port) = match record.translation.backend {
            Some(backend) if local_asks => (backend.ip().to_canonical(), backend.port()),
            _ => {
                if local_asks && let Some(found) = self.service_end(record, addr) {
                    return found;
                }
                (addr, record.service_port)
            }
        };
        let endpoint = self.holder_of(addr, (record.since, record.last_seen));
        (End { addr: Some(addr), endpoint }, port)
    }

    /// Who had an address all that time. What is known of pods comes before what is only likely.
    pub(super) fn holder_of(&self, addr: IpAddr, window: (Timestamp, Timestamp)) -> Endpoint {
        if let Some(node) = self.nodes.by_addr(addr) {
            return Endpoint::Node(node.clone());
        }
        match self.pods.holder(addr, window.0, window.1) {
            Holder::One(pod) => Endpoint::Pod(pod),
            Holder::Many => Endpoint::Unknown(UnknownEnd::AmbiguousAddress),
            Holder::None => self.without_holder(addr),
        }
    }

    fn without_holder(&self, addr: IpAddr) -> Endpoint {
        let ever_held = self.pods.ever_held(addr);
        let guess = || self.nodes.by_range(addr).filter(|_| !ever_held);
        if let Some(node) = self.nodes.by_tunnel(addr).or_else(guess) {
            return Endpoint::Node(node.clone());
        }
        match self.nodes.group(addr) {
            Some(group) if !ever_held => Endpoint::Group(group),
            _ if self.is_ours(addr) || self.awaits_lookup(addr) => {
                Endpoint::Unknown(UnknownEnd::NoHolder)
            }
            _ => Endpoint::External,
        }
    }

    /// Whether the cluster or this node says that a node has this address.
    fn is_node(&self, addr: IpAddr) -> bool {
        self.nodes.by_addr(addr).or_else(|| self.nodes.by_tunnel(addr)).is_some()
    }

    /// Whether an address without a holder is the cluster's and not outside of it.
    pub(super) fn is_ours(&self, addr: IpAddr) -> bool {
        self.nodes.is_for_pods(addr) || self.pods.ever_held(addr) || self.services.has_addr(addr)
    }

    fn service_end(&mut self, record: &FlowRecord, addr: IpAddr) -> Option<(End, u16)> {
        let (port, protocol) = (record.service_port, record.protocol);
        let (service, service_port) = self.service_asked(addr, port, protocol)?;
        let cache_key = (addr, port, protocol);
        let (identity, newest) = match self.service_cache.get(&cache_key) {
            Some(known) => known.clone(),
            None => {
                // The slices are those of now, and so are the holders of their addresses.
                let at = record.last_seen.max(self.now);
                let asked = (service_port, port);
                let identity = self.service_identity(service, asked, at, addr.is_ipv6());
                let starts = identity.backends.iter().map(|(end, _)| self.start_of(end));
                let newest = starts.max().unwrap_or_default();
                let resolved = (Arc::new(identity), newest);
                self.remember(cache_key, resolved.clone());
                resolved
            }
        };
        let identity =
            if newest > record.last_seen { self.before(&identity, record) } else { identity };
        // Which port was asked for is told by nothing but the Service.
        if let [(end, target)] = &*identity.backends
            && *target == port
        {
            return Some((end.clone(), *target));
        }
        let mut ports = identity.backends.iter().map(|(_, target)| *target);
        let first = ports.next();
        let agreed = first.filter(|first| ports.all(|target| target == *first));
        let end = End { addr: Some(addr), endpoint: Endpoint::Service(identity) };
        Some((end, agreed.unwrap_or(port)))
    }

    /// When the pod at this end began; of who is no pod nobody knows.
    fn start_of(&self, end: &End) -> Timestamp {
        let start = match &end.endpoint {
            Endpoint::Pod(pod) => self.pods.start_of(&pod.uid),
            _ => None,
        };
        start.unwrap_or_default()
    }

    /// The Service without the pods that began after the record's last packet.
    fn before(&self, service: &ServiceIdentity, record: &FlowRecord) -> Arc<ServiceIdentity> {
        let had_begun = |end: &End| self.start_of(end) <= record.last_seen;
        let backends = service.backends.iter().filter(|(end, _)| had_begun(end)).cloned();
        Arc::new(ServiceIdentity { backends: backends.collect(), ..service.clone() })
    }

    /// The Service that is asked by this address and, where it has such a port, the port.
    pub(super) fn service_asked(
        &self,
        addr: IpAddr,
        port: u16,
        protocol: Protocol,
    ) -> Option<(&ServiceFacts, Option<&PortFacts>)> {
        match self.services.by_addr(addr, port, protocol) {
            // A node's address may be an external address of a Service, and has the ports that
            // Services have on every node; its other ports are the node's.
            None | Some((_, None)) if self.is_node(addr) => {
                let found = self.services.by_node_port(port, protocol);
                found.map(|(service, port)| (service, Some(port)))
            }
            found => found,
        }
    }

    pub(super) fn service_identity(
        &self,
        service: &ServiceFacts,
        (service_port, port): (Option<&PortFacts>, u16),
        at: Timestamp,
        ipv6: bool,
    ) -> ServiceIdentity {
        let backends = match service_port.map(|port| self.services.backends(service, port, ipv6)) {
            None => Vec::new(),
            Some(Backends::Listed(listed)) => listed
                .into_iter()
                .map(|(addr, target)| (self.backend_end(addr, at), target))
                .collect(),
            Some(Backends::Selected(selector, port)) => {
                self.selected(&service.key.0, selector, port, ipv6)
            }
        };
        ServiceIdentity {
            namespace: service.key.0.clone(),
            name: service.key.1.clone(),
            port,
            backends: backends.into(),
        }
    }

    fn backend_end(&self, addr: IpAddr, at: Timestamp) -> End {
        let endpoint = match (self.pods.holder(addr, at, at), self.nodes.by_addr(addr)) {
            (Holder::One(pod), _) => Endpoint::Pod(pod),
            (Holder::Many, _) => Endpoint::Unknown(UnknownEnd::AmbiguousAddress),
            (Holder::None, Some(node)) => Endpoint::Node(node.clone()),
            (Holder::None, None) => self.without_holder(addr),
        };
        End { addr: Some(addr), endpoint }
    }

    fn selected(
        &self,
        namespace: &str,
        selector: &Labels,
        port: &PortFacts,
        ipv6: bool,
    ) -> Vec<(End, u16)> {
        // A Service without a selector has no pods of its own, unlike a policy's empty selector.
        if selector.is_empty() {
            return Vec::new();
        }
        let has = |labels: &[(Arc<str>, Arc<str>)], key: &str, value: &str| {
            let found = labels.binary_search_by(|(known, _)| (**known).cmp(key));
            found.ok().and_then(|at| labels.get(at)).is_some_and(|(_, known)| **known == *value)
        };
        self.pods
            .running(namespace)
            .filter(|pod| selector.iter().all(|(key, value)| has(&pod.labels, key, value)))
            .filter_map(|pod| {
                let addr = pod.addrs.iter().find(|addr| addr.is_ipv6() == ipv6).copied()?;
                let end = End { addr: Some(addr), endpoint: Endpoint::Pod(pod.clone()) };
                Some((end, port.target_port(pod)?))
            })
            .take(super::BACKENDS_MAX)
            .collect()
    }

    fn remember(&mut self, key: ServiceCacheKey, identity: (Arc<ServiceIdentity>, Timestamp)) {
        if self.service_cache.len() >= super::SERVICE_CACHE_MAX {
            self.service_cache.clear();
        }
        self.service_cache.insert(key, identity);
    }

    /// The address and port a Service was last resolved with lead nowhere else until objects
    /// change.
    pub(super) fn forget_services(&mut self) {
        self.service_cache.clear();
        self.translations.forget();
    }
}

fn same_pod(a: &End, b: &End) -> bool {
    match (&a.endpoint, &b.endpoint) {
        (Endpoint::Pod(a), Endpoint::Pod(b)) => !a.host_network && a.uid == b.uid,
        // Its own and only backend.
        (Endpoint::Pod(_), Endpoint::Service(service)) => match &*service.backends {
            [(only, _)] => same_pod(a, only),
            _ => false,
        },
        _ => false,
    }
}

/// What a Service's resolution depends on besides the index.
pub(super) type ServicePortKey = (IpAddr, u16, Protocol);
