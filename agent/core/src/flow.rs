//! What a flow is once both of its ends are known.
//!
//! In: nothing (values only). Out: the types the policy sets judge and the ledger keeps. Everything
//! evaluation needs is inside an [`End`]; evaluation looks nothing up.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Nanoseconds since the Unix epoch. Always an argument, never read from a clock in this crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Timestamp(pub u64);

/// IP protocol number: 6 TCP, 17 UDP, 132 SCTP. Written by its name if it has a well-known one,
/// else by its number; read by either, whatever the case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

/// Of a text that is no protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no protocol: neither a well-known name nor a number below 256")]
pub struct NoProtocol;

impl Protocol {
    /// ICMP.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// UDP-Lite.
    pub const UDP_LITE: Self = Self(136);

    /// Those that are met between nodes and pods, by the keywords of IANA's registry, those of
    /// Kubernetes first. A name that was given once is never taken back: evidence holds it.
    const NAMES: [(Self, &str); 17] = [
        (Self::TCP, "TCP"),
        (Self::UDP, "UDP"),
        (Self::SCTP, "SCTP"),
        (Self::ICMP, "ICMP"),
        (Self::ICMPV6, "ICMPv6"),
        (Self::UDP_LITE, "UDPLite"),
        (Self(2), "IGMP"),
        (Self(4), "IPIP"),
        (Self(33), "DCCP"),
        (Self(41), "IPv6"),
        (Self(47), "GRE"),
        (Self(50), "ESP"),
        (Self(51), "AH"),
        (Self(89), "OSPF"),
        (Self(103), "PIM"),
        (Self(112), "VRRP"),
        (Self(115), "L2TP"),
    ];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(known, _)| known == self) {
            Some((_, name)) => f.pad(name),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

impl FromStr for Protocol {
    type Err = NoProtocol;

    fn from_str(text: &str) -> Result<Self, NoProtocol> {
        let named = Self::NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        match named {
            Some((known, _)) => Ok(*known),
            None => text.parse().map(Self).map_err(|_| NoProtocol),
        }
    }
}

/// The side of a connection that isolation is about, and for a flow the side this node saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the variants are those of policyTypes")]
pub enum Direction {
    Ingress,
    Egress,
}

/// A pod as it was when the flow was resolved. Shared, never changed: a relabelled pod is a new
/// value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodIdentity {
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// Pod labels, sorted by key.
    pub labels: Arc<[(Arc<str>, Arc<str>)]>,
    /// `spec.nodeName`, empty if not scheduled.
    pub node: Arc<str>,
    /// `spec.hostNetwork`: such a pod is no subject and no peer of a NetworkPolicy v1.
    pub host_network: bool,
    /// `status.podIPs`, the first is the primary one.
    pub addrs: Arc<[IpAddr]>,
    /// Container ports that have a name.
    pub named_ports: Arc<[NamedPort]>,
    /// The controlling owner.
    pub workload: Workload,
    /// `spec.serviceAccountName`.
    pub service_account: Arc<str>,
}

impl PodIdentity {
    /// Whether policies say the same of both, but for what a CIDR says of their addresses and for
    /// the node each is on.
    #[must_use]
    pub fn is_judged_as(&self, other: &Self) -> bool {
        self.namespace == other.namespace
            && self.labels == other.labels
            && self.named_ports == other.named_ports
            && self.host_network == other.host_network
    }
}

/// A container port with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are those of ContainerPort v1")]
pub struct NamedPort {
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub port: u16,
}

/// The pod's controlling owner, followed to its top (ReplicaSet to Deployment, Job to CronJob).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Workload {
    /// "Deployment", "StatefulSet", "DaemonSet", "CronJob", "Job", .. or "Pod".
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// One end of a flow, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The address seen on this end. For the local end of a record: the pod's address of the peer's
    /// family.
    pub addr: Option<IpAddr>,
    /// Who it is.
    pub endpoint: Endpoint,
}

impl End {
    /// Every pod this may be: the pod, or a Service's backends. A Service is never behind another.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<PodIdentity>> {
        let backends = match &self.endpoint {
            Endpoint::Service(service) => &*service.backends,
            _ => &[],
        };
        self.pod().into_iter().chain(backends.iter().filter_map(|(backend, _)| backend.pod()))
    }

    fn pod(&self) -> Option<&Arc<PodIdentity>> {
        match &self.endpoint {
            Endpoint::Pod(pod) => Some(pod),
            _ => None,
        }
    }
}

/// Who is at one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A pod with its own network namespace or (flag inside) the host's.
    Pod(Arc<PodIdentity>),
    /// A node, by any of its addresses; the name is empty for an address of a node that is not
    /// known by name.
    Node(Arc<str>),
    /// A Service whose backend is not known. Never left when endpoints agree.
    Service(Arc<ServiceIdentity>),
    /// Outside of the cluster.
    External,
    /// Outside of the cluster, by the domain name it was asked for. Never empty: if several names
    /// led to the address at that time, all of them, and first the one that was told last.
    Named(Arc<[Arc<str>]>),
    /// Many at once, by one address.
    Group(Group),
    /// Not known.
    Unknown(UnknownEnd),
}

/// Addresses that mean no single end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// 224.0.0.0/4 and ff00::/8.
    Multicast,
    /// 255.255.255.255, or the broadcast address of a network.
    Broadcast,
}

/// A Service by the address and port that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceIdentity {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// The port that was asked for.
    pub port: u16,
    /// The backends it may lead to: pod (or other end) and target port. Empty if it has none.
    pub backends: Arc<[(End, u16)]>,
}

/// Why an end is not known. Also a metric label, so the list is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownEnd {
    /// The cgroup belongs to a pod no object was seen for.
    PodNotListed,
    /// No path is known for this cgroup.
    CgroupNotKnown,
    /// More than one pod held the address while the flow was seen.
    AmbiguousAddress,
    /// A pod address by its range, but no holder is known for that time.
    NoHolder,
}

impl UnknownEnd {
    /// Its metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::PodNotListed => "pod_not_listed",
            Self::CgroupNotKnown => "cgroup_not_known",
            Self::AmbiguousAddress => "ambiguous_address",
            Self::NoHolder => "no_holder",
        }
    }
}

/// How attempts ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words of the design")]
pub enum Outcome {
    Answered,
    Refused,
    Unanswered,
    Unknown,
}

impl Outcome {
    /// All of them, each at its own number.
    pub const ALL: [Self; 4] = [Self::Answered, Self::Refused, Self::Unanswered, Self::Unknown];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_reads_back_as_it_is_written_and_by_its_number() {
        for number in 0..=u8::MAX {
            let protocol = Protocol(number);
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
            assert_eq!(number.to_string().parse(), Ok(protocol));
        }
        let written = [1, 2, 3, 6, 17, 47, 50, 58, 112, 132, 136, 255];
        let written = written.map(|number| Protocol(number).to_string());
        let names = [
            "ICMP", "IGMP", "3", "TCP", "UDP", "GRE", "ESP", "ICMPv6", "VRRP", "SCTP", "UDPLite",
            "255",
        ];
        assert_eq!(written, names);
        assert_eq!("icmpV6".parse(), Ok(Protocol::ICMPV6));
        assert_eq!(["", "256", "-1", "TCP "].map(str::parse::<Protocol>), [Err(NoProtocol); 4]);
    }
}
