//! Services: from a virtual address and port to the backends behind it.
//!
//! In: Services and EndpointSlices. Out: the Service port behind an address, and its backends as
//! addresses or as a selector; who holds those addresses is not known here. It never chooses a
//! backend: only the kernel knows which one a packet got.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::HashMap;

use super::facts::protocol_of;
use crate::flow::{PodIdentity, Protocol};
use crate::object::{EndpointSlice, IntOrString, Service, ServicePort, SliceEndpoint};

/// Services known at once. Further ones are refused and counted.
pub const SERVICES_MAX: usize = 65_536;
/// EndpointSlices known at once. Further ones are refused and counted.
pub const SLICES_MAX: usize = 262_144;
/// Backends of one Service port that are judged. A Service with more is judged by the first ones.
pub const BACKENDS_MAX: usize = 1_024;
/// The label that ties a slice to its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Namespace and name.
pub(super) type ServiceKey = (Arc<str>, Arc<str>);

/// Services by address.
#[derive(Debug, Default)]
pub(super) struct Services {
    by_key: HashMap<ServiceKey, Service>,
    by_addr: HashMap<IpAddr, BTreeSet<ServiceKey>>,
    slices: HashMap<ServiceKey, EndpointSlice>,
    /// Service to the names of its slices.
    slices_of: HashMap<ServiceKey, BTreeSet<Arc<str>>>,
    refused: u64,
}

/// What is behind a Service's port.
#[derive(Debug, PartialEq)]
pub(super) enum Backends<'a> {
    /// The endpoints that get traffic.
    Listed(Vec<(IpAddr, u16)>),
    /// No slice was ever seen: the running pods with these labels, at this port.
    Selected(&'a BTreeMap<String, String>, &'a ServicePort),
}

impl Services {
    pub(super) fn service_applied(&mut self, service: &Service) -> bool {
        let key = key(&service.metadata.namespace, &service.metadata.name);
        match self.by_key.get(&key) {
            Some(known) if known == service => return false,
            None if self.by_key.len() >= SERVICES_MAX => {
                self.refused += 1;
                return false;
            }
            _ => {}
        }
        self.service_deleted(&key.0, &key.1);
        for addr in addrs_of(service) {
            self.by_addr.entry(addr).or_default().insert(key.clone());
        }
        self.by_key.insert(key, service.clone());
        true
    }

    pub(super) fn service_deleted(&mut self, namespace: &str, name: &str) -> bool {
        let key = key(namespace, name);
        let Some(service) = self.by_key.remove(&key) else { return false };
        for addr in addrs_of(&service) {
            if let Some(keys) = self.by_addr.get_mut(&addr) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.by_addr.remove(&addr);
                }
            }
        }
        true
    }

    pub(super) fn services_retain(&mut self, keep: impl Fn(&ServiceKey) -> bool) {
        let gone: Vec<_> = self.by_key.keys().filter(|key| !keep(key)).cloned().collect();
        for (namespace, name) in gone {
            self.service_deleted(&namespace, &name);
        }
    }

    pub(super) fn slice_applied(&mut self, slice: &EndpointSlice) -> bool {
        let key = key(&slice.metadata.namespace, &slice.metadata.name);
        match self.slices.get(&key) {
            Some(known) if known == slice => return false,
            None if self.slices.len() >= SLICES_MAX => {
                self.refused += 1;
                return false;
            }
            _ => {}
        }
        self.slice_deleted(&key.0, &key.1);
        if let Some(service) = service_of(slice) {
            self.slices_of.entry(service).or_default().insert(key.1.clone());
        }
        self.slices.insert(key, slice.clone());
        true
    }

    pub(super) fn slice_deleted(&mut self, namespace: &str, name: &str) -> bool {
        let Some(slice) = self.slices.remove(&key(namespace, name)) else { return false };
        if let Some(service) = service_of(&slice)
            && let Some(names) = self.slices_of.get_mut(&service)
        {
            names.remove(name);
            if names.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        true
    }

    pub(super) fn slices_retain(&mut self, keep: impl Fn(&ServiceKey) -> bool) {
        let gone: Vec<_> = self.slices.keys().filter(|key| !keep(key)).cloned().collect();
        for (namespace, name) in gone {
            self.slice_deleted(&namespace, &name);
        }
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
    ) -> Option<(&Service, Option<&ServicePort>)> {
        let keys = self.by_addr.get(&addr)?;
        let services = || keys.iter().filter_map(|key| self.by_key.get(key));
        let with_port = services().find_map(|service| {
            let ports = &service.spec.ports;
            let fits = |known: &&ServicePort| {
                known.port == port && protocol_of(known.protocol.as_deref()) == Some(protocol)
            };
            ports.iter().find(fits).map(|known| (service, Some(known)))
        });
        with_port.or_else(|| services().next().map(|service| (service, None)))
    }

    /// The Service of this name.
    pub(super) fn named(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.by_key.get(&key(namespace, name))
    }

    /// What is behind a Service's port, for the family of the address that was asked.
    pub(super) fn backends<'a>(
        &self,
        service: &'a Service,
        port: &'a ServicePort,
        ipv6: bool,
    ) -> Backends<'a> {
        let key = key(&service.metadata.namespace, &service.metadata.name);
        let Some(names) = self.slices_of.get(&key) else {
            return Backends::Selected(&service.spec.selector, port);
        };
        let slices =
            names.iter().filter_map(|name| self.slices.get(&(key.0.clone(), name.clone())));
        let mut ready = BTreeSet::new();
        let mut ending = BTreeSet::new();
        for slice in slices {
            let Some(target) = slice_port(slice, port) else { continue };
            for endpoint in &slice.endpoints {
                let into = match state_of(endpoint) {
                    State::Ready => &mut ready,
                    State::Ending => &mut ending,
                    State::Out => continue,
                };
                let addrs = endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok());
                let addrs = addrs.map(|addr| addr.to_canonical());
                into.extend(addrs.filter(|a| a.is_ipv6() == ipv6).map(|addr| (addr, target)));
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

enum State {
    Ready,
    Ending,
    Out,
}

/// Absent conditions are read as the API says: ready unless told otherwise.
fn state_of(endpoint: &SliceEndpoint) -> State {
    let conditions = &endpoint.conditions;
    let ready = conditions.ready.unwrap_or(true);
    let terminating = conditions.terminating.unwrap_or(false);
    if ready {
        State::Ready
    } else if conditions.serving.unwrap_or(false) && terminating {
        State::Ending
    } else {
        State::Out
    }
}

/// The slice's port of the same name and protocol. A slice port without a number means every port.
fn slice_port(slice: &EndpointSlice, port: &ServicePort) -> Option<u16> {
    let protocol = protocol_of(port.protocol.as_deref())?;
    let fits = slice.ports.iter().find(|known| {
        known.name.as_deref().unwrap_or("") == port.name
            && protocol_of(known.protocol.as_deref()) == Some(protocol)
    });
    fits.map(|known| known.port.unwrap_or(port.port))
}

/// The port a Service's port leads to on this pod; none if the pod has no port of that name.
pub(super) fn target_port(port: &ServicePort, pod: &PodIdentity) -> Option<u16> {
    let protocol = protocol_of(port.protocol.as_deref())?;
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => match u16::try_from(*number) {
            // 0 is how an absent target port reads after a round trip through older clients.
            Ok(0) => Some(port.port),
            number => number.ok(),
        },
        Some(IntOrString::String(name)) => pod
            .named_ports
            .iter()
            .find(|named| *named.name == **name && named.protocol == protocol)
            .map(|named| named.port),
    }
}

fn key(namespace: &str, name: &str) -> ServiceKey {
    (namespace.into(), name.into())
}

fn service_of(slice: &EndpointSlice) -> Option<ServiceKey> {
    let name = slice.metadata.labels.get(SERVICE_NAME_LABEL)?;
    Some(key(&slice.metadata.namespace, name))
}

/// clusterIPs (of older objects only clusterIP) and externalIPs. "None" and "" are no addresses.
pub(super) fn addrs_of(service: &Service) -> BTreeSet<IpAddr> {
    let spec = &service.spec;
    let texts = spec.cluster_ips.iter().chain([&spec.cluster_ip]).chain(&spec.external_ips);
    texts.filter_map(|text| text.parse::<IpAddr>().ok()).map(|addr| addr.to_canonical()).collect()
}
