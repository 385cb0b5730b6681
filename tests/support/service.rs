//! Services of the simulated node, by destination NAT in nftables as kube-proxy does it.
//!
//! In: addresses, ports and backends. Out: rules of one table. Backends take turns, so that counts
//! are known; without a backend the Service refuses. A pod cannot reach itself through one: that
//! needs its source rewritten. It writes no rule outside of the node.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::network::{Addresses, Family};
use crate::pod::Pod;

/// A Service.
#[derive(Clone, Debug)]
pub struct Service {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `spec.clusterIPs`.
    pub addresses: Addresses,
    /// `spec.ports`.
    pub ports: Vec<Port>,
    pub(crate) number: u8,
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
}

impl Port {
    /// A port that leads to another one on the backends.
    #[must_use]
    pub fn new(name: &str, protocol: &str, port: u16, target_port: u16) -> Self {
        Self { name: name.to_string(), protocol: protocol.to_string(), port, target_port }
    }
}

impl Service {
    /// Its address of a family with a port.
    #[must_use]
    pub fn at(&self, family: Family, port: u16) -> SocketAddr {
        (self.addresses.of(family), port).into()
    }
}

/// The table that all Services share, without any.
#[must_use]
pub fn table() -> String {
    "add table inet services\n\
     add chain inet services dispatch\n\
     add chain inet services refuse\n\
     add chain inet services before { type nat hook prerouting priority dstnat; }\n\
     add rule inet services before jump dispatch\n\
     add chain inet services own { type nat hook output priority -100; }\n\
     add rule inet services own jump dispatch\n\
     add chain inet services through { type filter hook forward priority -1; }\n\
     add rule inet services through jump refuse\n\
     add chain inet services local { type filter hook output priority -1; }\n\
     add rule inet services local icmpv6 type nd-redirect drop\n\
     add rule inet services local jump refuse\n"
        .to_string()
}

/// Replaces all rules of the shared table by those of these Services.
#[must_use]
pub fn rules(services: &[(Service, Vec<Pod>)]) -> String {
    let mut lines = String::from("delete table inet services\n");
    lines.insert_str(0, "add table inet services\n");
    lines.push_str(&table());
    for (service, backends) in services {
        for (index, port) in service.ports.iter().enumerate() {
            for (family, word) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
                let chain = format!("svc-{}-{index}-{word}", service.number);
                let to = service.addresses.of(family);
                let wanted = format!(
                    "{word} daddr {to} {} dport {}",
                    port.protocol.to_lowercase(),
                    port.port
                );
                if backends.is_empty() {
                    let _ = writeln!(lines, "add rule inet services refuse {wanted} reject");
                    continue;
                }
                lines.push_str(&balance(&chain, port, backends, family, word));
                let _ = writeln!(lines, "add rule inet services dispatch {wanted} goto {chain}");
            }
        }
    }
    lines
}

/// One chain that takes the backends in turn, and one for each backend.
fn balance(chain: &str, port: &Port, backends: &[Pod], family: Family, word: &str) -> String {
    let mut lines = String::new();
    let mut turns = Vec::new();
    let protocol = port.protocol.to_lowercase();
    for (turn, pod) in backends.iter().enumerate() {
        let target = pod.at(family, port.target_port);
        let _ = write!(
            lines,
            "add chain inet services {chain}-{turn}\n\
             add rule inet services {chain}-{turn} meta l4proto {protocol} \
             dnat {word} to {target}\n"
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
