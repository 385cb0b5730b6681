//! Services: from a virtual address and port to the backends behind it.
//!
//! In: Services and EndpointSlices. Out: the Service port behind an address, and its backends as
//! addresses or as a selector; who holds those addresses is not known here. It never chooses a
//! backend: only the kernel knows which one a packet got.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::HashMap;

use super::few::Few;
use super::intern::Interner;
use super::service_facts::{PortFacts, ServiceFacts, ServiceKey, SliceFacts};
use crate::flow::Protocol;
use crate::listing::Listing;
use crate::object::{EndpointSlice, Service};
use crate::policy::Labels;

/// Services known at once. Further ones are refused and counted.
pub const SERVICES_MAX: usize = 65_536;
/// EndpointSlices known at once. Further ones are refused and counted.
pub const SLICES_MAX: usize = 262_144;
/// Backends of one Service port that are judged. A Service with more is judged by the first ones.
pub const BACKENDS_MAX: usize = 1_024;

/// Services by address.
#[derive(Debug, Default)]
pub(super) struct Services {
    by_key: HashMap<ServiceKey, ServiceFacts>,
    by_addr: HashMap<IpAddr, Few<ServiceKey>>,
    by_node_port: HashMap<(u16, Protocol), Few<ServiceKey>>,
    slices: HashMap<ServiceKey, SliceFacts>,
    /// Service to the names of its slices.
    slices_of: HashMap<ServiceKey, BTreeSet<Arc<str>>>,
    listing_services: Listing<ServiceKey>,
    listing_slices: Listing<ServiceKey>,
    refused: u64,
}

/// What is behind a Service's port.
#[derive(Debug, PartialEq)]
pub(super) enum Backends<'a> {
    /// The endpoints that get traffic.
    Listed(Vec<(IpAddr, u16)>),
    /// No slice was ever seen: the running pods with these labels, at this port.
    Selected(&'a Labels, &'a PortFacts),
}

impl Services {
    pub(super) fn service_applied(&mut self, service: &Service, interner: &mut Interner) -> bool {
        let facts = ServiceFacts::of(service, interner);
        self.listing_services.named(&facts.key);
        match self.by_key.get(&facts.key) {
            Some(known) if *known == facts => return false,
            None if self.by_key.len() >= SERVICES_MAX => {
                self.refused += 1;
                return false;
            }
            _ => {}
        }
        self.forget_service(&facts.key);
        for addr in &facts.addrs {
            let one = || Few::One(facts.key.clone());
            self.by_addr.entry(*addr).or_insert_with(one).insert(facts.key.clone());
        }
        for port in facts.ports.iter().filter_map(node_port) {
            let one = || Few::One(facts.key.clone());
            self.by_node_port.entry(port).or_insert_with(one).insert(facts.key.clone());
        }
        self.by_key.insert(facts.key.clone(), facts);
        true
    }

    pub(super) fn service_deleted(&mut self, namespace: &str, name: &str) -> bool {
        self.forget_service(&key(namespace, name))
    }

    fn forget_service(&mut self, key: &ServiceKey) -> bool {
        let Some(service) = self.by_key.remove(key) else { return false };
        for addr in &service.addrs {
            if self.by_addr.get_mut(addr).is_some_and(|keys| keys.remove(key)) {
                self.by_addr.remove(addr);
            }
        }
        for port in service.ports.iter().filter_map(node_port) {
            if self.by_node_port.get_mut(&port).is_some_and(|keys| keys.remove(key)) {
                self.by_node_port.remove(&port);
            }
        }
        true
    }

    pub(super) fn begin_services(&mut self) {
        self.listing_services.begin(self.by_key.keys().cloned());
    }

    /// Forgets what a full list did not hold. Whether there was any.
    pub(super) fn end_services(&mut self) -> bool {
        let gone = self.listing_services.end().unwrap_or_default();
        gone.iter().filter(|key| self.forget_service(key)).count() > 0
    }

    pub(super) fn slice_applied(&mut self, slice: &EndpointSlice, interner: &mut Interner) -> bool {
        let meta = &slice.metadata;
        let key = (interner.text(&meta.namespace), meta.name.as_str().into());
        self.listing_slices.named(&key);
        let facts = SliceFacts::of(slice, interner);
        match self.slices.get(&key) {
            Some(known) if *known == facts => return false,
            None if self.slices.len() >= SLICES_MAX => {
                self.refused += 1;
                return false;
            }
            _ => {}
        }
        self.forget_slice(&key);
        if let Some(service) = &facts.service {
            self.slices_of.entry(service.clone()).or_default().insert(key.1.clone());
        }
        self.slices.insert(key, facts);
        true
    }

    pub(super) fn slice_deleted(&mut self, namespace: &str, name: &str) -> bool {
        self.forget_slice(&key(namespace, name))
    }

    fn forget_slice(&mut self, key: &ServiceKey) -> bool {
        let Some(slice) = self.slices.remove(key) else { return false };
        if let Some(service) = &slice.service
            && let Some(names) = self.slices_of.get_mut(service)
        {
            names.remove(&key.1);
            if names.is_empty() {
                self.slices_of.remove(service);
            }
        }
        true
    }

    pub(super) fn begin_slices(&mut self) {
        self.listing_slices.begin(self.slices.keys().cloned());
    }

    /// Forgets what a full list did not hold. Whether there was any.
    pub(super) fn end_slices(&mut self) -> bool {
        let gone = self.listing_slices.end().unwrap_or_default();
        gone.iter().filter(|key| self.forget_slice(key)).count() > 0
    }

    /// Whether any Service has this address.
    pub(super) fn has_addr(&self, addr: IpAddr) -> bool {
        self.by_addr.contains_key(&addr)
    }

    /// The Service with this address and, where it has such a port, the port. Of several the first
    /// one with the port, in the order of their names.
    pub(super) fn by_addr(
        &self,
        addr: IpAddr,
        port: u16,
        protocol: Protocol,
    ) -> Option<(&ServiceFacts, Option<&PortFacts>)> {
        let keys = self.by_addr.get(&addr)?;
        let services = || keys.iter().filter_map(|key| self.by_key.get(key));
        let with_port = services()
            .find_map(|service| service.port(port, protocol).map(|port| (service, Some(port))));
        with_port.or_else(|| services().next().map(|service| (service, None)))
    }

    /// The Service whose port this is on every node; of several the first by name.
    pub(super) fn by_node_port(
        &self,
        port: u16,
        protocol: Protocol,
    ) -> Option<(&ServiceFacts, &PortFacts)> {
        let key = self.by_node_port.get(&(port, protocol))?.iter().next()?;
        let service = self.by_key.get(key)?;
        service.node_port(port, protocol).map(|port| (service, port))
    }

    /// The Service of this name.
    pub(super) fn named(&self, namespace: &str, name: &str) -> Option<&ServiceFacts> {
        self.by_key.get(&key(namespace, name))
    }

    /// Every Service, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = &ServiceFacts> {
        self.by_key.values()
    }

    /// What is behind a Service's port, for the family of the address that was asked.
    pub(super) fn backends<'a>(
        &self,
        service: &'a ServiceFacts,
        port: &'a PortFacts,
        ipv6: bool,
    ) -> Backends<'a> {
        let Some(names) = self.slices_of.get(&service.key) else {
            return Backends::Selected(&service.selector, port);
        };
        let namespace = &service.key.0;
        let slices =
            names.iter().filter_map(|name| self.slices.get(&(namespace.clone(), name.clone())));
        let mut ready = BTreeSet::new();
        let mut ending = BTreeSet::new();
        for slice in slices {
            let Some(target) = slice.port(port) else { continue };
            for (from, into) in [(&slice.ready, &mut ready), (&slice.ending, &mut ending)] {
                let asked = from.iter().filter(|addr| addr.is_ipv6() == ipv6);
                into.extend(asked.map(|addr| (*addr, target)));
            }
        }
        // As kube-proxy: while none is ready, those that end but still serve get the traffic.
        let chosen = if ready.is_empty() { ending } else { ready };
        Backends::Listed(chosen.into_iter().take(BACKENDS_MAX).collect())
    }

    /// Services, slices, and how many of both were refused.
    pub(super) fn sizes(&self) -> (usize, usize, u64) {
        (self.by_key.len(), self.slices.len(), self.refused)
    }
}

fn node_port(port: &PortFacts) -> Option<(u16, Protocol)> {
    port.node_port.map(|number| (number, port.protocol))
}

/// For look-ups only: what is kept shares its texts, see [`ServiceFacts`].
fn key(namespace: &str, name: &str) -> ServiceKey {
    (namespace.into(), name.into())
}
