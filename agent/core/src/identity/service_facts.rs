//! What is kept of Services and EndpointSlices: what leads from an address to the backends.
//!
//! In: the objects. Out: their facts with every text read and the common ones shared. Two objects
//! with equal facts are one and the same to everybody here. Absent fields are read here as the API
//! says, and nowhere after.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::facts::protocol_of;
use super::intern::Interner;
use crate::flow::{PodIdentity, Protocol};
use crate::object::{EndpointSlice, IntOrString, Service, ServicePort, SliceEndpoint, SlicePort};
use crate::policy::Labels;

/// The label that ties a slice to its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Namespace and name.
pub(super) type ServiceKey = (Arc<str>, Arc<str>);

/// What one Service says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServiceFacts {
    pub(super) key: ServiceKey,
    /// clusterIPs (of older objects only clusterIP), externalIPs and those of its load balancer,
    /// sorted. A headless Service has none: its pods are asked by their own.
    pub(super) addrs: Box<[IpAddr]>,
    pub(super) selector: Box<Labels>,
    pub(super) ports: Box<[PortFacts]>,
    /// Reached from outside through any node, which may put its own address before the client's.
    pub(super) hides_clients: bool,
}

/// A Service's port. One of a protocol nobody knows is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PortFacts {
    name: Arc<str>,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    /// On every address of every node, if it is of a type that has one. `externalTrafficPolicy` and
    /// `internalTrafficPolicy` are nothing to us: they keep a node from choosing backends of other
    /// nodes and never add any, so that whoever may be behind is among those of the Service.
    pub(super) node_port: Option<u16>,
    target: Target,
}

/// `targetPort`
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Number(u16),
    Name(Arc<str>),
    /// No port has this number.
    Nowhere,
}

/// What one EndpointSlice says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SliceFacts {
    pub(super) service: Option<ServiceKey>,
    ports: Box<[SlicePortFacts]>,
    /// Those that are ready.
    pub(super) ready: Box<[IpAddr]>,
    /// Those that end but still serve.
    pub(super) ending: Box<[IpAddr]>,
}

/// A slice's port; without a number it means every port.
#[derive(Debug, PartialEq, Eq)]
struct SlicePortFacts {
    name: Arc<str>,
    protocol: Protocol,
    port: Option<u16>,
}

enum State {
    Ready,
    Ending,
    Out,
}

impl ServiceFacts {
    pub(super) fn of(service: &Service, interner: &mut Interner) -> Self {
        let (meta, spec) = (&service.metadata, &service.spec);
        // "None" and "" are no addresses.
        let balancers = service.status.load_balancer.ingress.iter().filter(|ingress| {
            // "Proxy": the node hands it to the load balancer, and who comes from there is another.
            ingress.ip_mode.as_deref() != Some("Proxy")
        });
        let texts = spec.cluster_ips.iter().chain([&spec.cluster_ip]).chain(&spec.external_ips);
        let texts = texts.chain(balancers.map(|ingress| &ingress.ip));
        let on_nodes = matches!(spec.kind.as_str(), "NodePort" | "LoadBalancer");
        let addrs: BTreeSet<_> = texts.filter_map(|text| read_addr(text)).collect();
        Self {
            key: (interner.text(&meta.namespace), interner.text(&meta.name)),
            addrs: addrs.into_iter().collect(),
            selector: interner.selector(&spec.selector),
            ports: spec
                .ports
                .iter()
                .filter_map(|port| PortFacts::of(port, on_nodes, interner))
                .collect(),
            hides_clients: hides_clients(service),
        }
    }

    /// Its port of this number and protocol.
    pub(super) fn port(&self, port: u16, protocol: Protocol) -> Option<&PortFacts> {
        self.ports.iter().find(|known| known.port == port && known.protocol == protocol)
    }

    /// Its port that is this one of every node.
    pub(super) fn node_port(&self, port: u16, protocol: Protocol) -> Option<&PortFacts> {
        self.ports.iter().find(|known| known.node_port == Some(port) && known.protocol == protocol)
    }
}

impl PortFacts {
    fn of(port: &ServicePort, on_nodes: bool, interner: &mut Interner) -> Option<Self> {
        let target = match &port.target_port {
            // 0 is how an absent target port reads after a round trip through older clients.
            None | Some(IntOrString::Int(0)) => Target::Number(port.port),
            Some(IntOrString::Int(number)) => {
                u16::try_from(*number).map_or(Target::Nowhere, Target::Number)
            }
            Some(IntOrString::String(name)) => Target::Name(interner.text(name)),
        };
        let protocol = protocol_of(port.protocol.as_deref())?;
        let node_port = port.node_port.filter(|port| on_nodes && *port != 0);
        let name = interner.text(&port.name);
        Some(Self { name, protocol, port: port.port, node_port, target })
    }

    /// The port it leads to on this pod; none if the pod has no port of that name.
    pub(super) fn target_port(&self, pod: &PodIdentity) -> Option<u16> {
        match &self.target {
            Target::Number(number) => Some(*number),
            Target::Name(name) => pod
                .named_ports
                .iter()
                .find(|named| named.name == *name && named.protocol == self.protocol)
                .map(|named| named.port),
            Target::Nowhere => None,
        }
    }
}

impl SliceFacts {
    pub(super) fn of(slice: &EndpointSlice, interner: &mut Interner) -> Self {
        let (mut ready, mut ending) = (Vec::new(), Vec::new());
        for endpoint in &slice.endpoints {
            let addrs = endpoint.addresses.iter().filter_map(|text| read_addr(text));
            match state_of(endpoint) {
                State::Ready => ready.extend(addrs),
                State::Ending => ending.extend(addrs),
                State::Out => {}
            }
        }
        let meta = &slice.metadata;
        let service = meta.labels.get(SERVICE_NAME_LABEL);
        Self {
            service: service.map(|name| (interner.text(&meta.namespace), interner.text(name))),
            ports: slice.ports.iter().filter_map(|p| SlicePortFacts::of(p, interner)).collect(),
            ready: ready.into(),
            ending: ending.into(),
        }
    }

    /// The number of its port with the Service port's name and protocol.
    pub(super) fn port(&self, port: &PortFacts) -> Option<u16> {
        let fits =
            |known: &&SlicePortFacts| known.name == port.name && known.protocol == port.protocol;
        self.ports.iter().find(fits).map(|known| known.port.unwrap_or(port.port))
    }
}

impl SlicePortFacts {
    fn of(port: &SlicePort, interner: &mut Interner) -> Option<Self> {
        let protocol = protocol_of(port.protocol.as_deref())?;
        let name = interner.text(port.name.as_deref().unwrap_or(""));
        Some(Self { name, protocol, port: port.port })
    }
}

fn hides_clients(service: &Service) -> bool {
    let spec = &service.spec;
    let is_outside =
        matches!(&*spec.kind, "NodePort" | "LoadBalancer") || !spec.external_ips.is_empty();
    is_outside && spec.external_traffic_policy.as_deref() != Some("Local")
}

fn read_addr(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|addr| addr.to_canonical())
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
