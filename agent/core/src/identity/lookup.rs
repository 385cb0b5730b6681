//! Ends by what people call them: a pod's or Service's name, or an address, as of now.
//!
//! In: names and addresses. Out: [`End`]s as [`Index::resolve`] would give them for a packet of
//! this moment. It serves questions nobody sent a packet for, and says what is not there.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Index;
use super::service_facts::{PortFacts, ServiceFacts};
use crate::flow::{End, Endpoint, PodIdentity, Protocol, ServiceIdentity, Timestamp, Workload};

/// Whoever still holds an address holds it until the end of time, as far as is known.
const NOW: Timestamp = Timestamp(u64::MAX);

/// Why a name is no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEnd {
    /// No object of this name.
    #[error("there is no such object")]
    NoSuchObject,
    /// The Service has no port of this number and protocol.
    #[error("the Service has no such port")]
    NoSuchPort,
}

impl Index {
    /// The pod of this name, as it is now.
    #[must_use]
    pub fn pod_named(&self, namespace: &str, name: &str) -> Option<&Arc<PodIdentity>> {
        self.pods.named(namespace, name)
    }

    /// Whether the pod of this UID is there and has not ended.
    #[must_use]
    pub fn is_there(&self, uid: &str) -> bool {
        self.pods.is_there(uid)
    }

    /// The name of this node; empty if it is not known.
    #[must_use]
    pub fn own_node(&self) -> &Arc<str> {
        self.nodes.own_name()
    }

    /// Every pod that is there and has not ended, in no order.
    pub fn pods_now(&self) -> impl Iterator<Item = &Arc<PodIdentity>> {
        self.pods.now()
    }

    /// The wanted ports of every Service with their backends as of now, in the order of the
    /// Services' names.
    #[must_use]
    pub fn service_ports_now(
        &self,
        wanted: impl Fn(Protocol, u16) -> bool,
    ) -> Vec<(Protocol, ServiceIdentity)> {
        let wanted = &wanted;
        let all = self.services.all().flat_map(move |service| {
            let ports = service.ports.iter().filter(|port| wanted(port.protocol, port.port));
            ports.map(move |port| {
                (port.protocol, self.service_identity_now(service, (port, port.port), None))
            })
        });
        let mut all: Vec<_> = all.collect();
        all.sort_by(|(a_protocol, a), (b_protocol, b)| {
            let a = (&a.namespace, &a.name, a.port, a_protocol);
            a.cmp(&(&b.namespace, &b.name, b.port, b_protocol))
        });
        all
    }

    /// The address ranges that nodes have for their pods, in no order.
    pub fn pod_ranges(&self) -> impl Iterator<Item = &IpNet> {
        self.nodes.pod_ranges()
    }

    /// The addresses that the cluster gives its nodes, in no order.
    pub fn node_addrs(&self) -> impl Iterator<Item = &IpAddr> {
        self.nodes.addrs()
    }

    /// The Service with this address, whatever its ports: of several the first by name.
    #[must_use]
    pub fn service_with_addr(&self, addr: IpAddr) -> Option<(&str, &str)> {
        let (service, _) = self.services.by_addr(addr.to_canonical(), 0, Protocol::TCP)?;
        Some((&service.key.0, &service.key.1))
    }

    /// The Service of this name, for one of its ports.
    ///
    /// # Errors
    /// If it, or its port, is not there.
    pub fn service_named(
        &self,
        (namespace, name): (&str, &str),
        (port, protocol): (u16, Protocol),
    ) -> Result<End, NotAnEnd> {
        let service = self.services.named(namespace, name).ok_or(NotAnEnd::NoSuchObject)?;
        let port = service.port(port, protocol).ok_or(NotAnEnd::NoSuchPort)?;
        let addrs = &service.addrs;
        let addr = addrs.iter().find(|addr| addr.is_ipv4()).or_else(|| addrs.first()).copied();
        Ok(self.service_end_now(service, (port, port.port), addr))
    }

    /// Every Service end of this name that leads to a port of its backends, or has the port itself
    /// where its backends do not agree on one: what a flow that was seen with this target port may
    /// have asked for.
    ///
    /// # Errors
    /// If it is not there, or none of its ports leads there.
    pub fn services_reaching(
        &self,
        (namespace, name): (&str, &str),
        (port, protocol): (u16, Protocol),
    ) -> Result<Vec<End>, NotAnEnd> {
        let service = self.services.named(namespace, name).ok_or(NotAnEnd::NoSuchObject)?;
        let addrs = &service.addrs;
        let addr = addrs.iter().find(|addr| addr.is_ipv4()).or_else(|| addrs.first()).copied();
        let mut ends = Vec::new();
        for known in service.ports.iter().filter(|known| known.protocol == protocol) {
            let end = self.service_end_now(service, (known, known.port), addr);
            let Endpoint::Service(identity) = &end.endpoint else { continue };
            let mut targets = identity.backends.iter().map(|(_, target)| *target);
            let agreed = targets.next().filter(|first| targets.all(|target| target == *first));
            let asked = [Some(known.port), known.node_port];
            if agreed.map_or_else(|| asked.contains(&Some(port)), |agreed| agreed == port) {
                ends.push(end);
            }
        }
        if ends.is_empty() { Err(NotAnEnd::NoSuchPort) } else { Ok(ends) }
    }

    /// The pods of a workload that may have traffic now, in the order of their UIDs.
    pub fn pods_of(
        &self,
        namespace: &str,
        workload: &Workload,
    ) -> impl Iterator<Item = &Arc<PodIdentity>> {
        self.pods.running(namespace).filter(move |pod| pod.workload == *workload)
    }

    /// The addresses of a node, as the cluster says them; none for a node that is not there.
    #[must_use]
    pub fn addrs_of_node(&self, name: &str) -> &[IpAddr] {
        self.nodes.addrs_of(name)
    }

    /// Who is at an address now, if a connection to it is opened: a Service with this port first.
    #[must_use]
    pub fn target_at(&self, addr: IpAddr, port: u16, protocol: Protocol) -> End {
        let addr = addr.to_canonical();
        match self.service_asked(addr, port, protocol) {
            Some((service, Some(facts))) => {
                self.service_end_now(service, (facts, port), Some(addr))
            }
            Some((_, None)) | None => self.source_at(addr),
        }
    }

    /// Who holds an address now: a node, a pod, or somebody outside.
    #[must_use]
    pub fn source_at(&self, addr: IpAddr) -> End {
        let addr = addr.to_canonical();
        End { addr: Some(addr), endpoint: self.holder_of(addr, (NOW, NOW)) }
    }

    fn service_end_now(
        &self,
        service: &ServiceFacts,
        port: (&PortFacts, u16),
        addr: Option<IpAddr>,
    ) -> End {
        let identity = self.service_identity_now(service, port, addr);
        End { addr, endpoint: Endpoint::Service(Arc::new(identity)) }
    }

    fn service_identity_now(
        &self,
        service: &ServiceFacts,
        (port, asked): (&PortFacts, u16),
        addr: Option<IpAddr>,
    ) -> ServiceIdentity {
        let of = |ipv6| self.service_identity(service, (Some(port), asked), NOW, ipv6);
        let mut identity = of(addr.is_some_and(|addr| addr.is_ipv6()));
        // A Service without an address of its own leads to those of either family.
        if addr.is_none() && identity.backends.is_empty() {
            identity = of(true);
        }
        identity
    }
}
