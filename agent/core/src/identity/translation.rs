//! Addresses that are not those of whom they stand for: a Service's before its backend's, a node's
//! before that of who began.
//!
//! In: what connection tracking said of a record, and the index. Out: which Service ports need a
//! look at each connection, and whether a source is somebody else. It asks nobody, and where
//! nobody was asked it says no more than `possible`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use foldhash::HashMap;
use serde::{Deserialize, Serialize};

use super::Index;
use super::service_facts::{PortFacts, ServiceFacts};
use crate::flow::{Direction, End, Endpoint, PodIdentity, Protocol, ServiceIdentity, Timestamp};
use crate::record::FlowRecord;

/// Service ports listed at once: what the kernel has room for.
const ASKED_MAX: usize = parapet_common::SERVICES_MAX as usize;
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
pub struct AskedPort {
    /// The Service's, or this node's own if the port is one of every node.
    pub addr: IpAddr,
    /// Of the Service, or of every node.
    pub port: u16,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Its backends differ, so that only a connection's own tuple tells which it got.
    pub is_divided: bool,
}

/// Every port of every Service that this node leads elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedPorts {
    /// Divided ones first.
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
    /// A number that is another one whenever [`Index::asked_ports`] may be.
    #[must_use]
    pub fn services_version(&self) -> u64 {
        self.translations.version
    }

    /// Every Service port that this node leads elsewhere, and which of them are divided: they lead
    /// to backends of different workloads, or to different ports.
    #[must_use]
    pub fn asked_ports(&self) -> AskedPorts {
        let mut known: BTreeMap<(IpAddr, u16, Protocol), bool> = BTreeMap::new();
        for service in self.services.all() {
            for port in &service.ports {
                for ipv6 in [false, true] {
                    let asked = self.asked_by(service, port, ipv6);
                    if asked.is_empty() {
                        continue;
                    }
                    let wanted = (Some(port), port.port);
                    let is_divided = is_divided(&self.service_identity(service, wanted, NOW, ipv6));
                    for (addr, number) in asked {
                        // Of two Services with one port either may be meant.
                        *known.entry((addr, number, port.protocol)).or_default() |= is_divided;
                    }
                }
            }
        }
        let mut ports: Vec<_> = known
            .into_iter()
            .map(|((addr, port, protocol), is_divided)| AskedPort {
                addr,
                port,
                protocol,
                is_divided,
            })
            .collect();
        ports.sort_by_key(|port| !port.is_divided);
        let refused = ports.len().saturating_sub(ASKED_MAX) as u64;
        ports.truncate(ASKED_MAX);
        AskedPorts { ports, refused }
    }

    /// Other nodes' ports are led elsewhere by those nodes.
    fn asked_by(&self, service: &ServiceFacts, port: &PortFacts, ipv6: bool) -> Vec<(IpAddr, u16)> {
        let of_family = |addr: &&IpAddr| addr.is_ipv6() == ipv6;
        let own = service.addrs.iter().filter(of_family).map(|&addr| (addr, port.port));
        let on_node = port.node_port.into_iter().flat_map(|number| {
            let addrs = self.nodes.own_addrs().iter().filter(of_family);
            addrs.filter(|addr| self.is_for_node_ports(**addr)).map(move |&addr| (addr, number))
        });
        own.chain(on_node).collect()
    }

    /// With IPVS every Service address is one of the node's own, too (kube-proxy gives them to the
    /// link `kube-ipvs0`): node ports are not led elsewhere there. An external address of a Service
    /// that the cluster says is this node's is both.
    fn is_for_node_ports(&self, own: IpAddr) -> bool {
        !self.services.has_addr(own) || self.nodes.addrs_of(self.nodes.own_name()).contains(&own)
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::identity::NodeFacts;
    use crate::object::{Change, Object};
    use crate::record::Counts;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("the test's object is well-formed")
    }

    fn addr(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn pod(name: &str, ip: &str) -> Object {
        Object::Pod(Box::new(read(json!({
            "metadata": {"namespace": "b", "name": name, "uid": name,
                "labels": {"app": name.split('-').next()},
                "ownerReferences": [{"kind": "StatefulSet", "name": name.split('-').next(),
                    "controller": true}]},
            "spec": {"containers": []},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "startTime": "1970-01-01T00:00:01Z"},
        }))))
    }

    fn service(name: &str, ip: &str, more: Value) -> Object {
        let mut spec = json!({"clusterIP": ip, "clusterIPs": [ip],
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}]});
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let metadata = json!({"namespace": "b", "name": name});
        Object::Service(read(json!({"metadata": metadata, "spec": spec})))
    }

    /// A slice of `service` named by its port.
    fn slice(service: &str, port: u16, addrs: &[&str]) -> Object {
        Object::EndpointSlice(read(json!({
            "metadata": {"namespace": "b", "name": format!("{service}-{port}"),
                "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "endpoints": addrs.iter().map(|ip| json!({"addresses": [ip]})).collect::<Vec<_>>(),
            "ports": [{"name": "http", "protocol": "TCP", "port": port}],
        })))
    }

    fn index(objects: Vec<Object>) -> Index {
        let mut index = Index::default();
        for object in objects {
            index.apply(&Change::Applied(object), Timestamp(2_000_000_000));
        }
        let addrs = vec![addr("192.168.0.1")];
        index.set_node(&NodeFacts { name: "here".to_owned(), addrs, ..NodeFacts::default() });
        index
    }

    fn record(cgroup_id: u64, direction: Direction, peer: &str, port: u16) -> FlowRecord {
        FlowRecord {
            cgroup_id,
            peer: addr(peer),
            local_addr: None,
            local_port: None,
            translation: Translation::default(),
            service_port: port,
            protocol: Protocol::TCP,
            direction: Some(direction),
            since: Timestamp(2_000_000_000),
            last_seen: Timestamp(2_000_000_000),
            counts: Counts { attempts: 1, ..Counts::default() },
        }
    }

    #[test]
    fn a_service_is_divided_where_workloads_or_target_ports_differ() {
        let mut index = index(vec![
            pod("blue-0", "10.0.0.1"),
            pod("blue-1", "10.0.0.2"),
            pod("green-0", "10.0.0.3"),
            service("alike", "10.96.0.1", json!({})),
            slice("alike", 8080, &["10.0.0.1", "10.0.0.2"]),
            service("workloads", "10.96.0.2", json!({"externalIPs": ["203.0.113.1"]})),
            slice("workloads", 8080, &["10.0.0.1", "10.0.0.3"]),
            service("ports", "10.96.0.3", json!({})),
            slice("ports", 8080, &["10.0.0.1"]),
            slice("ports", 9090, &["10.0.0.2"]),
            service("one", "10.96.0.4", json!({})),
            slice("one", 6443, &["192.168.0.9"]),
            service("outside", "10.96.0.5", json!({})),
            slice("outside", 6443, &["192.168.0.8", "192.168.0.9"]),
            service("headless", "None", json!({})),
            slice("headless", 8080, &["10.0.0.1", "10.0.0.3"]),
            service(
                "ported",
                "10.96.0.6",
                json!({"type": "NodePort",
                "ports": [{"name": "http", "port": 80, "nodePort": 30_080}]}),
            ),
            slice("ported", 8080, &["10.0.0.1", "10.0.0.3"]),
        ]);
        let ports = |index: &Index| {
            let asked = index.asked_ports();
            assert_eq!(asked.refused, 0);
            let divided = asked.ports.iter().filter(|asked| asked.is_divided);
            let shown = |asked: &AskedPort| format!("{}:{}", asked.addr, asked.port);
            divided.map(shown).collect::<Vec<_>>()
        };
        let all = [
            "10.96.0.2:80",
            "10.96.0.3:80",
            "10.96.0.5:80",
            "10.96.0.6:80",
            "192.168.0.1:30080",
            "203.0.113.1:80",
        ];
        assert_eq!(ports(&index), all);
        assert_eq!(index.asked_ports().ports.len(), all.len() + 2, "those that are not divided");
        let version = index.services_version();
        let at = Timestamp(3_000_000_000);
        index.apply(&Change::Applied(slice("ports", 9090, &[])), at);
        assert_ne!(index.services_version(), version);
        let rest: Vec<_> = all.into_iter().filter(|port| *port != "10.96.0.3:80").collect();
        assert_eq!(ports(&index), rest);
    }

    #[test]
    fn node_ports_are_not_on_the_service_addresses_that_ipvs_gives_the_node() {
        let ports = json!({"type": "NodePort", "externalIPs": ["192.168.0.2"],
            "ports": [{"name": "http", "port": 80, "nodePort": 30_080}]});
        let node = read(json!({"metadata": {"name": "here"},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.2"}]}}));
        let mut index = index(vec![
            Object::Node(node),
            pod("blue-0", "10.0.0.1"),
            service("ported", "10.96.0.6", ports),
            slice("ported", 8080, &["10.0.0.1"]),
        ]);
        let own = ["192.168.0.1", "192.168.0.2", "10.96.0.6"];
        let addrs = own.map(addr).to_vec();
        index.set_node(&NodeFacts { name: "here".to_owned(), addrs, ..NodeFacts::default() });
        let asked = index.asked_ports().ports;
        let shown: Vec<_> =
            asked.iter().map(|asked| format!("{}:{}", asked.addr, asked.port)).collect();
        let expected = ["10.96.0.6:80", "192.168.0.1:30080", "192.168.0.2:80", "192.168.0.2:30080"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_connection_with_a_backend_is_the_backends_and_its_own_is_loopback() {
        let mut index = index(vec![
            pod("blue-0", "10.0.0.1"),
            pod("green-0", "10.0.0.3"),
            service("web", "10.96.0.2", json!({})),
            slice("web", 8080, &["10.0.0.1", "10.0.0.3"]),
        ]);
        index.cgroup_created(7, "/kubepods/podblue-0/x");
        let mut asked = record(7, Direction::Egress, "10.96.0.2", 80);
        let to = |index: &mut Index, asked: &FlowRecord| {
            let resolved = index.resolve(asked);
            let name = match &resolved.target.endpoint {
                Endpoint::Pod(pod) => pod.name.to_string(),
                Endpoint::Service(service) => format!("service {}", service.name),
                other => format!("{other:?}"),
            };
            (name, resolved.target.addr, resolved.port, resolved.loopback)
        };
        let web = ("service web".to_owned(), Some(addr("10.96.0.2")), 8080, false);
        assert_eq!(to(&mut index, &asked), web);
        asked.translation.backend = Some(([10, 0, 0, 3], 9090).into());
        let green = ("green-0".to_owned(), Some(addr("10.0.0.3")), 9090, false);
        assert_eq!(to(&mut index, &asked), green);
        asked.translation.backend = Some(([10, 0, 0, 1], 8080).into());
        let itself = ("blue-0".to_owned(), Some(addr("10.0.0.1")), 8080, true);
        assert_eq!(to(&mut index, &asked), itself);
    }

    #[test]
    fn a_source_is_rewritten_as_conntrack_says_or_possibly_behind_what_any_node_leads_to() {
        let node_port = json!({"type": "NodePort"});
        let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
        let mut index = index(vec![
            pod("blue-0", "10.0.0.1"),
            pod("green-0", "10.0.0.3"),
            service("any", "10.96.0.2", node_port),
            slice("any", 8080, &["10.0.0.1"]),
            service("local", "10.96.0.3", local),
            slice("local", 8080, &["10.0.0.3"]),
        ]);
        index.cgroup_created(1, "/kubepods/podblue-0/x");
        index.cgroup_created(3, "/kubepods/podgreen-0/x");
        let mut said = |cgroup, direction, peer, port, source| {
            let mut record = record(cgroup, direction, peer, port);
            record.translation.source = source;
            index.resolve(&record).source_rewritten
        };
        use Direction::{Egress, Ingress};
        use SourceSeen::{Kept, NotAsked, Rewritten as Other};
        let possible = Some(Rewritten::Possible);
        assert_eq!(said(1, Ingress, "192.168.0.1", 8080, NotAsked), possible);
        assert_eq!(said(1, Ingress, "192.168.0.1", 8080, Kept), None);
        assert_eq!(said(1, Ingress, "192.168.0.1", 8080, Other), Some(Rewritten::Conntrack));
        assert_eq!(said(3, Ingress, "192.168.0.1", 8080, Other), Some(Rewritten::Conntrack));
        // Another port, a Service that keeps clients' addresses, no node, the other direction.
        assert_eq!(said(1, Ingress, "192.168.0.1", 8081, NotAsked), None);
        assert_eq!(said(3, Ingress, "192.168.0.1", 8080, NotAsked), None);
        assert_eq!(said(1, Ingress, "198.51.100.7", 8080, NotAsked), None);
        assert_eq!(said(1, Egress, "192.168.0.1", 8080, NotAsked), None);
    }
}
