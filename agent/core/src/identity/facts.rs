//! What is kept of a Pod object: everything that is ever asked of it, and nothing else.
//!
//! In: a Pod object. Out: its [`Facts`], in shared allocations. Two objects with equal facts are
//! one and the same to everybody here. It never looks at what is known of the pod already.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use super::controller::Controller;
use super::intern::Interner;
use super::owners::{Owners, controller};
use super::time;
use crate::flow::{NamedPort, PodIdentity, Protocol, Timestamp, Workload};
use crate::object::{Container, Pod};
use crate::policy::Labels;

/// Addresses one pod has or had.
pub(super) const HOLDINGS_MAX: usize = 16;
/// Named ports of one pod.
const NAMED_PORTS_MAX: usize = 256;

/// What one Pod object says.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) identity: PodIdentity,
    pub(super) controller: Option<Arc<Controller>>,
    /// `status.startTime`, or when the object was made.
    pub(super) start: Option<Timestamp>,
    pub(super) phase: Phase,
}

/// `status.phase`, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its containers do not run yet, or nobody knows.
    Waits,
    /// It may get traffic. A manifest written by hand has no phase; it means a pod that runs.
    Runs,
    /// It will never run again.
    Over,
}

/// The UID, or for objects from files without one `namespace/name`.
pub(super) fn uid_of(pod: &Pod) -> Cow<'_, str> {
    let meta = &pod.metadata;
    match meta.uid.as_str() {
        "" => format!("{}/{}", meta.namespace, meta.name).into(),
        uid => uid.into(),
    }
}

impl Facts {
    pub(super) fn of(uid: Arc<str>, pod: &Pod, owners: &Owners, interner: &mut Interner) -> Self {
        let meta = &pod.metadata;
        let name: Arc<str> = meta.name.as_str().into();
        let labels = interner.labels(&meta.namespace, &meta.labels);
        let controller = controller(meta, interner);
        let created = meta.creation_timestamp.as_deref().and_then(time::parse);
        let workload = match &controller {
            Some(controller) => {
                owners.workload(controller, template_hash(&labels), created, interner)
            }
            None => Workload { kind: interner.text("Pod"), name: name.clone() },
        };
        let identity = PodIdentity {
            uid,
            namespace: interner.text(&meta.namespace),
            name,
            labels,
            node: interner.text(&pod.spec.node_name),
            host_network: pod.spec.host_network,
            addrs: addrs(pod).into(),
            named_ports: named_ports(pod, interner),
            workload,
            service_account: interner.text(&pod.spec.service_account_name),
        };
        let start = pod.status.start_time.as_deref().and_then(time::parse).or(created);
        let phase = match pod.status.phase.as_str() {
            "Succeeded" | "Failed" => Phase::Over,
            "Running" | "" => Phase::Runs,
            _ => Phase::Waits,
        };
        Self { identity, controller, start, phase }
    }
}

/// The hash in a pod's name and in its ReplicaSet's.
fn template_hash(labels: &Labels) -> Option<&str> {
    let found = labels.binary_search_by(|(key, _)| (**key).cmp("pod-template-hash"));
    found.ok().and_then(|at| labels.get(at)).map(|(_, hash)| &**hash)
}

fn addrs(pod: &Pod) -> Vec<IpAddr> {
    let listed = pod.status.pod_ips.iter().map(|pod_ip| pod_ip.ip.as_str());
    let mut addrs: Vec<IpAddr> = Vec::new();
    for text in listed.chain([pod.status.pod_ip.as_str()]) {
        let Ok(addr) = text.parse::<IpAddr>() else { continue };
        let addr = addr.to_canonical();
        if addrs.len() < HOLDINGS_MAX && !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    addrs
}

fn named_ports(pod: &Pod, interner: &mut Interner) -> Arc<[NamedPort]> {
    // An init container that restarts always is a sidecar: it runs as long as the pod does.
    let sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let containers =
        pod.spec.containers.iter().chain(pod.spec.init_containers.iter().filter(sidecar));
    let ports: Vec<_> = containers
        .flat_map(|container| &container.ports)
        .filter(|port| !port.name.is_empty())
        .filter_map(|port| {
            Some(NamedPort {
                name: interner.text(&port.name),
                protocol: protocol_of(port.protocol.as_deref())?,
                port: port.container_port,
            })
        })
        .take(NAMED_PORTS_MAX)
        .collect();
    interner.ports(&ports)
}

/// The protocol by its name in the API; absent means TCP.
pub(super) fn protocol_of(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("" | "TCP") => Some(Protocol::TCP),
        Some("UDP") => Some(Protocol::UDP),
        Some("SCTP") => Some(Protocol::SCTP),
        Some(_) => None,
    }
}
