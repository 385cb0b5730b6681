//! Services of the simulated node, by destination NAT in nftables as kube-proxy does it.
//!
//! In: addresses, ports and backends. Out: rules of one table. Backends take turns, so that counts
//! are known; without a backend the Service refuses. Sources are rewritten where kube-proxy does:
//! of outside traffic that any node may take, and of a pod that reaches itself. It writes no rule
//! outside of the node.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::network::{Addresses, Family, GATEWAY, NODE};
use crate::pod::Pod;

/// The bit by which kube-proxy remembers that a source is to be rewritten.
const MASQUERADE: &str = "0x4000";

/// A Service.
#[derive(Clone, Debug)]
pub struct Service {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `spec.clusterIPs`; of a headless Service they are nobody's.
    pub addresses: Addresses,
    /// `spec.ports`.
    pub ports: Vec<Port>,
    /// `spec.type` and what goes with it.
    pub kind: Kind,
    /// `spec.externalTrafficPolicy` is `Local`.
    pub keeps_clients: bool,
    pub(crate) number: u8,
}

/// What kind of Service it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Reached by its own address.
    #[default]
    ClusterIp,
    /// Only a name for its pods.
    Headless,
    /// Also reached by the ports of every node.
    NodePort,
    /// Also reached by these addresses, which a load balancer has outside.
    LoadBalancer(Addresses),
    /// Also reached by these addresses, which somebody leads to the node.
    ExternalIps(Addresses),
}

/// A port of a Service.
#[derive(Clone, Debug)]
pub struct Port {
    /// `name`.
    pub name: String,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// `port`.
    pub port: u16,
    /// `targetPort`, as a number.
    pub target_port: u16,
    /// `nodePort`.
    pub node_port: Option<u16>,
}

/// A pod behind a Service.
#[derive(Clone, Debug)]
pub struct Backend {
    /// The pod.
    pub pod: Pod,
    /// Where every port leads on this pod, if not to the Service's own target port: what a named
    /// target port does.
    pub target_port: Option<u16>,
}

impl Port {
    /// A port that leads to another one on the backends.
    #[must_use]
    pub fn new(name: &str, protocol: &str, port: u16, target_port: u16) -> Self {
        let (name, protocol) = (name.to_string(), protocol.to_string());
        Self { name, protocol, port, target_port, node_port: None }
    }

    /// With this port on every node.
    #[must_use]
    pub fn on_nodes(mut self, port: u16) -> Self {
        self.node_port = Some(port);
        self
    }
}

impl Backend {
    /// At the Service's own target ports.
    #[must_use]
    pub fn new(pod: &Pod) -> Self {
        Self { pod: pod.clone(), target_port: None }
    }

    /// At another port.
    #[must_use]
    pub fn at(pod: &Pod, target_port: u16) -> Self {
        Self { pod: pod.clone(), target_port: Some(target_port) }
    }

    /// Where a port of the Service leads on this pod.
    #[must_use]
    pub fn target(&self, port: &Port) -> u16 {
        self.target_port.unwrap_or(port.target_port)
    }
}

impl Service {
    /// Its address of a family with a port.
    #[must_use]
    pub fn at(&self, family: Family, port: u16) -> SocketAddr {
        (self.addresses.of(family), port).into()
    }

    /// Addresses and ports by which a port is asked for in the cluster.
    fn inside(&self, port: &Port, family: Family) -> Vec<(IpAddr, u16)> {
        match self.kind {
            Kind::Headless => Vec::new(),
            _ => vec![(self.addresses.of(family), port.port)],
        }
    }

    /// Addresses and ports by which it is asked for from outside, or as from outside.
    fn outside(&self, port: &Port, family: Family) -> Vec<(IpAddr, u16)> {
        let mut asked = Vec::new();
        if let Kind::LoadBalancer(addresses) | Kind::ExternalIps(addresses) = self.kind {
            asked.push((addresses.of(family), port.port));
        }
        if let Some(node_port) = port.node_port {
            asked.extend([NODE, GATEWAY].map(|node| (node.of(family), node_port)));
        }
        asked
    }
}

/// The table that all Services share, without any.
#[must_use]
pub fn table() -> String {
    format!(
        "add table inet services\n\
         add chain inet services dispatch\n\
         add chain inet services refuse\n\
         add chain inet services before {{ type nat hook prerouting priority dstnat; }}\n\
         add rule inet services before jump dispatch\n\
         add chain inet services own {{ type nat hook output priority -100; }}\n\
         add rule inet services own jump dispatch\n\
         add chain inet services after {{ type nat hook postrouting priority srcnat; }}\n\
         add rule inet services after meta mark and {MASQUERADE} == {MASQUERADE} masquerade\n\
         add chain inet services through {{ type filter hook forward priority -1; }}\n\
         add rule inet services through jump refuse\n\
         add chain inet services local {{ type filter hook output priority -1; }}\n\
         add rule inet services local icmpv6 type nd-redirect drop\n\
         add rule inet services local jump refuse\n"
    )
}

/// Replaces all rules of the shared table by those of these Services.
#[must_use]
pub fn rules(services: &[(Service, Vec<Backend>)]) -> String {
    let mut lines = String::from("delete table inet services\n");
    lines.insert_str(0, "add table inet services\n");
    lines.push_str(&table());
    for (service, backends) in services {
        for (index, port) in service.ports.iter().enumerate() {
            for (family, word) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
                let chain = format!("svc-{}-{index}-{word}", service.number);
                let asked = service.inside(port, family).into_iter().map(|to| (to, false));
                let outside = service.outside(port, family).into_iter();
                let asked: Vec<_> =
                    asked.chain(outside.map(|to| (to, !service.keeps_clients))).collect();
                if !backends.is_empty() && !asked.is_empty() {
                    lines.push_str(&balance(&chain, port, backends, family, word));
                }
                for ((to, number), hides) in asked {
                    let protocol = port.protocol.to_lowercase();
                    let wanted = format!("{word} daddr {to} {protocol} dport {number}");
                    let _ = match (backends.is_empty(), hides) {
                        (true, _) => {
                            writeln!(lines, "add rule inet services refuse {wanted} reject")
                        }
                        (false, hides) => writeln!(
                            lines,
                            "add rule inet services dispatch {wanted} {}goto {chain}",
                            if hides { mark() } else { String::new() },
                        ),
                    };
                }
            }
        }
    }
    lines
}

fn mark() -> String {
    format!("meta mark set meta mark or {MASQUERADE} ")
}

/// One chain that takes the backends in turn, and one for each backend.
fn balance(chain: &str, port: &Port, backends: &[Backend], family: Family, word: &str) -> String {
    let mut lines = String::new();
    let mut turns = Vec::new();
    let protocol = port.protocol.to_lowercase();
    for (turn, backend) in backends.iter().enumerate() {
        let target = backend.pod.at(family, backend.target(port));
        // A pod that answers its own address directly would not be understood.
        let _ = write!(
            lines,
            "add chain inet services {chain}-{turn}\n\
             add rule inet services {chain}-{turn} {word} saddr {} {}\n\
             add rule inet services {chain}-{turn} meta l4proto {protocol} \
             dnat {word} to {target}\n",
            target.ip(),
            mark(),
        );
        turns.push(format!("{turn} : goto {chain}-{turn}"));
    }
    let _ = write!(
        lines,
        "add chain inet services {chain}\n\
         add rule inet services {chain} numgen inc mod {} vmap {{ {} }}\n",
        backends.len(),
        turns.join(", ")
    );
    lines
}
