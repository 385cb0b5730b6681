//! The letter of the API once more: slow, obvious, on the objects themselves, sharing no code with
//! what it checks.
//!
//! In: objects that the API server would accept, no two of one tier with the same priority, known
//! ends. Out: whether each side allows. It knows nothing of profiles, unknown ends, or why.

use std::collections::BTreeMap;
use std::net::IpAddr;

use parapet_core::flow::{Direction, End, Endpoint, PodIdentity};
use parapet_core::object::{
    AdminNetworkPolicy, AdminPolicyPort, AdminPolicyRule, ClusterPolicyPeer, ClusterPolicyProtocol,
    ClusterPolicyRule, ClusterPolicySubject, IntOrString, IpBlock, LabelSelector, NamespacedPods,
    NetworkPolicy, Object, PolicyPeer, PolicyPort,
};

/// Name of a namespace or node to labels.
pub(crate) type LabelsByName = BTreeMap<String, BTreeMap<String, String>>;

/// One connection.
pub(crate) struct Connection<'a> {
    pub(crate) source: &'a End,
    pub(crate) target: &'a End,
    pub(crate) protocol: &'a str,
    pub(crate) port: u16,
}

/// Everything that is declared.
pub(crate) struct Cluster<'a> {
    pub(crate) policies: &'a [NetworkPolicy],
    pub(crate) cluster_policies: &'a [Object],
    pub(crate) namespaces: &'a LabelsByName,
    pub(crate) nodes: &'a LabelsByName,
}

impl Cluster<'_> {
    /// Whether this side lets the connection pass.
    pub(crate) fn allows(&self, direction: Direction, connection: &Connection<'_>) -> bool {
        let (subject, peer) = match direction {
            Direction::Egress => (connection.source, connection.target),
            Direction::Ingress => (connection.target, connection.source),
        };
        let Endpoint::Pod(pod) = &subject.endpoint else { return true };
        if pod.host_network {
            return true;
        }
        match &peer.endpoint {
            Endpoint::Pod(other) if other.uid == pod.uid => return true,
            // The host network of the pod's own node is that node.
            Endpoint::Pod(other)
                if direction == Direction::Ingress
                    && other.host_network
                    && other.node == pod.node =>
            {
                return true;
            }
            Endpoint::Node(name) if direction == Direction::Ingress && *name == pod.node => {
                return true;
            }
            _ => {}
        }
        match self.tier("Admin", pod, peer, direction, connection).as_str() {
            "Accept" => return true,
            "Deny" => return false,
            _ => {}
        }
        if let Some(allowed) = self.network_policies(pod, peer, direction, connection) {
            return allowed;
        }
        self.tier("Baseline", pod, peer, direction, connection) != "Deny"
    }

    /// None: no NetworkPolicy isolates the pod in this direction.
    fn network_policies(
        &self,
        pod: &PodIdentity,
        peer: &End,
        direction: Direction,
        connection: &Connection<'_>,
    ) -> Option<bool> {
        let mut isolated = false;
        for policy in self.policies {
            let empty = LabelSelector::default();
            let selector = policy.spec.pod_selector.as_ref().unwrap_or(&empty);
            if policy.metadata.namespace != *pod.namespace || !selects(selector, &labels_of(pod)) {
                continue;
            }
            if !types(policy).contains(&direction) {
                continue;
            }
            isolated = true;
            for (peers, ports) in rules(policy, direction) {
                let own = &policy.metadata.namespace;
                let peer_fits = peers.is_empty()
                    || peers.iter().any(|each| fits_peer(each, own, self.namespaces, peer));
                let port_fits =
                    ports.is_empty() || ports.iter().any(|each| fits_port(each, connection));
                if peer_fits && port_fits {
                    return Some(true);
                }
            }
        }
        isolated.then_some(false)
    }

    /// The action of the first rule that matches, in the words of ClusterNetworkPolicy; "Pass" if
    /// none does.
    fn tier(
        &self,
        tier: &str,
        pod: &PodIdentity,
        peer: &End,
        direction: Direction,
        connection: &Connection<'_>,
    ) -> String {
        let mut policies: Vec<_> =
            self.cluster_policies.iter().map(plain).filter(|policy| policy.tier == tier).collect();
        policies.sort_by_key(|policy| policy.priority);
        for policy in policies {
            let subject = match &policy.subject.namespaces {
                Some(selector) => selects(selector, &self.namespaces[&*pod.namespace]),
                None => self.fits_pods(policy.subject.pods.as_ref().unwrap(), pod),
            };
            if !subject {
                continue;
            }
            let rules = match direction {
                Direction::Ingress => policy.ingress,
                Direction::Egress => policy.egress,
            };
            for rule in rules {
                let peer_fits = rule.peers.iter().any(|each| self.fits_cluster_peer(each, peer));
                let port_fits =
                    rule.ports.is_none_or(|ports| ports.iter().any(|each| each.fits(connection)));
                if peer_fits && port_fits {
                    return rule.action;
                }
            }
        }
        "Pass".to_owned()
    }

    fn fits_pods(&self, pods: &NamespacedPods, pod: &PodIdentity) -> bool {
        let namespaces = pods.namespace_selector.clone().unwrap_or_default();
        selects(&namespaces, &self.namespaces[&*pod.namespace])
            && selects(pods.pod_selector.as_ref().unwrap(), &labels_of(pod))
    }

    fn fits_cluster_peer(&self, peer: &ClusterPolicyPeer, end: &End) -> bool {
        if let Some(networks) = &peer.networks {
            return networks.iter().any(|cidr| in_cidr(cidr, end.addr.unwrap()));
        }
        let node = match &end.endpoint {
            Endpoint::Node(name) => Some(name),
            Endpoint::Pod(pod) if pod.host_network => Some(&pod.node),
            _ => None,
        };
        if let Some(selector) = &peer.nodes {
            return node.is_some_and(|name| selects(selector, &self.nodes[&**name]));
        }
        let Endpoint::Pod(pod) = &end.endpoint else { return false };
        if pod.host_network {
            return false;
        }
        match (&peer.namespaces, &peer.pods) {
            (Some(selector), _) => selects(selector, &self.namespaces[&*pod.namespace]),
            (None, pods) => self.fits_pods(pods.as_ref().unwrap(), pod),
        }
    }
}

/// A cluster-scoped policy in the words of ClusterNetworkPolicy, whatever API it is of.
struct Plain {
    tier: &'static str,
    priority: i64,
    subject: ClusterPolicySubject,
    ingress: Vec<PlainRule>,
    egress: Vec<PlainRule>,
}

struct PlainRule {
    action: String,
    peers: Vec<ClusterPolicyPeer>,
    ports: Option<Vec<PlainPort>>,
}

/// Protocol, first and last port; or the name of one.
enum PlainPort {
    Range(String, i64, i64),
    Named(String),
}

impl PlainPort {
    fn fits(&self, connection: &Connection<'_>) -> bool {
        match self {
            Self::Range(protocol, first, last) => {
                *protocol == connection.protocol
                    && *first <= i64::from(connection.port)
                    && i64::from(connection.port) <= *last
            }
            Self::Named(name) => {
                let Endpoint::Pod(pod) = &connection.target.endpoint else { return false };
                !pod.host_network
                    && pod.named_ports.iter().any(|port| {
                        *port.name == **name
                            && port.port == connection.port
                            && crate::cluster::protocol(connection.protocol) == port.protocol
                    })
            }
        }
    }
}

fn plain(object: &Object) -> Plain {
    match object {
        Object::ClusterNetworkPolicy(policy) => {
            let spec = policy.spec.clone();
            let rule = |rule: ClusterPolicyRule| PlainRule {
                action: rule.action,
                peers: rule.from.or(rule.to).unwrap(),
                ports: rule.protocols.map(|all| all.into_iter().map(plain_protocol).collect()),
            };
            Plain {
                tier: if spec.tier.as_deref() == Some("Admin") { "Admin" } else { "Baseline" },
                priority: spec.priority.unwrap(),
                subject: spec.subject.unwrap(),
                ingress: spec.ingress.unwrap_or_default().into_iter().map(rule).collect(),
                egress: spec.egress.unwrap_or_default().into_iter().map(rule).collect(),
            }
        }
        Object::AdminNetworkPolicy(policy) => plain_admin("Admin", policy),
        Object::BaselineAdminNetworkPolicy(policy) => plain_admin("Baseline", policy),
        other => panic!("no cluster-scoped policy: {other:?}"),
    }
}

fn plain_admin(tier: &'static str, policy: &AdminNetworkPolicy) -> Plain {
    let spec = policy.spec.clone();
    let rule = |rule: AdminPolicyRule| PlainRule {
        action: rule.action.replace("Allow", "Accept"),
        peers: rule.from.or(rule.to).unwrap(),
        ports: rule.ports.map(|all| all.into_iter().map(plain_port).collect()),
    };
    Plain {
        tier,
        // The one without a priority is asked last.
        priority: spec.priority.unwrap_or(i64::MAX),
        subject: spec.subject.unwrap(),
        ingress: spec.ingress.unwrap_or_default().into_iter().map(rule).collect(),
        egress: spec.egress.unwrap_or_default().into_iter().map(rule).collect(),
    }
}

fn plain_protocol(protocol: ClusterPolicyProtocol) -> PlainPort {
    if let Some(name) = protocol.destination_named_port {
        return PlainPort::Named(name);
    }
    let all = [("TCP", protocol.tcp), ("UDP", protocol.udp), ("SCTP", protocol.sctp)];
    let (name, ports) = all.into_iter().find(|(_, ports)| ports.is_some()).unwrap();
    let port = ports.unwrap().destination_port.unwrap();
    let (first, last) = match port.range {
        Some(range) => (range.start, range.end),
        None => (port.number.unwrap(), port.number.unwrap()),
    };
    PlainPort::Range(name.to_owned(), first, last)
}

fn plain_port(port: AdminPolicyPort) -> PlainPort {
    let tcp = || "TCP".to_owned();
    if let Some(name) = port.named_port {
        PlainPort::Named(name)
    } else if let Some(number) = port.port_number {
        PlainPort::Range(number.protocol.unwrap_or_else(tcp), number.port, number.port)
    } else {
        let range = port.port_range.unwrap();
        PlainPort::Range(range.protocol.unwrap_or_else(tcp), range.start, range.end)
    }
}

fn types(policy: &NetworkPolicy) -> Vec<Direction> {
    let given = policy.spec.policy_types.clone().unwrap_or_default();
    if !given.is_empty() {
        let read = |each: &String| match each.as_str() {
            "Ingress" => Direction::Ingress,
            _ => Direction::Egress,
        };
        return given.iter().map(read).collect();
    }
    let has_egress = policy.spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
    if has_egress { vec![Direction::Ingress, Direction::Egress] } else { vec![Direction::Ingress] }
}

fn rules(policy: &NetworkPolicy, direction: Direction) -> Vec<(Vec<PolicyPeer>, Vec<PolicyPort>)> {
    let spec = policy.spec.clone();
    let ingress = spec.ingress.unwrap_or_default().into_iter().map(|rule| (rule.from, rule.ports));
    let egress = spec.egress.unwrap_or_default().into_iter().map(|rule| (rule.to, rule.ports));
    let rules: Vec<_> = match direction {
        Direction::Ingress => ingress.collect(),
        Direction::Egress => egress.collect(),
    };
    rules.into_iter().map(|(a, b)| (a.unwrap_or_default(), b.unwrap_or_default())).collect()
}

fn fits_peer(peer: &PolicyPeer, own_namespace: &str, namespaces: &LabelsByName, end: &End) -> bool {
    if let Some(block) = &peer.ip_block {
        return fits_block(block, end.addr.unwrap());
    }
    let Endpoint::Pod(pod) = &end.endpoint else { return false };
    if pod.host_network {
        return false;
    }
    let namespace_fits = match &peer.namespace_selector {
        None => *pod.namespace == *own_namespace,
        Some(selector) => selects(selector, &namespaces[&*pod.namespace]),
    };
    let pod_fits = match &peer.pod_selector {
        None => true,
        Some(selector) => selects(selector, &labels_of(pod)),
    };
    namespace_fits && pod_fits
}

fn fits_block(block: &IpBlock, addr: IpAddr) -> bool {
    in_cidr(&block.cidr, addr) && !block.except.iter().any(|except| in_cidr(except, addr))
}

/// Compares bit by bit.
fn in_cidr(cidr: &str, addr: IpAddr) -> bool {
    let (net, bits) = cidr.split_once('/').unwrap();
    let bits: usize = bits.parse().unwrap();
    let all_bits = |addr: IpAddr| -> String {
        match addr {
            IpAddr::V4(addr) => format!("{:032b}", u32::from(addr)),
            IpAddr::V6(addr) => format!("{:0128b}", u128::from(addr)),
        }
    };
    let (net, addr) = (all_bits(net.parse().unwrap()), all_bits(addr));
    net.len() == addr.len() && net[..bits] == addr[..bits]
}

fn fits_port(rule: &PolicyPort, connection: &Connection<'_>) -> bool {
    let protocol = rule.protocol.as_deref().unwrap_or("TCP");
    if protocol != connection.protocol {
        return false;
    }
    match &rule.port {
        None => true,
        Some(IntOrString::Int(first)) => {
            let last = rule.end_port.unwrap_or(*first);
            *first <= i64::from(connection.port) && i64::from(connection.port) <= last
        }
        Some(IntOrString::String(name)) => {
            let Endpoint::Pod(pod) = &connection.target.endpoint else { return false };
            !pod.host_network
                && pod.named_ports.iter().any(|port| {
                    *port.name == **name
                        && port.port == connection.port
                        && crate::cluster::protocol(protocol) == port.protocol
                })
        }
    }
}

fn labels_of(pod: &PodIdentity) -> BTreeMap<String, String> {
    pod.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten();
    let required = selector.match_expressions.iter().flatten();
    equal.into_iter().all(|(key, value)| labels.get(key) == Some(value))
        && required.into_iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            let listed = |value: &String| requirement.values.iter().flatten().any(|v| v == value);
            match requirement.operator.as_str() {
                "In" => value.is_some_and(listed),
                "NotIn" => !value.is_some_and(listed),
                "Exists" => value.is_some(),
                _ => value.is_none(),
            }
        })
}
