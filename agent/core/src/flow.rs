//! What a flow is once both of its ends are known.
//!
//! In: nothing (values only). Out: the types the policy sets judge and the ledger keeps. Everything
//! evaluation needs is inside an [`End`]; evaluation looks nothing up.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Nanoseconds since the Unix epoch. Always an argument, never read from a clock in this crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Timestamp(pub u64);

/// IP protocol number: 6 TCP, 17 UDP, 132 SCTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

impl Protocol {
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// SCTP.
    pub const SCTP: Self = Self(132);
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
    /// Outside of the cluster, by the domain name it was asked for.
    Named(Arc<str>),
    /// Not known.
    Unknown(UnknownEnd),
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
