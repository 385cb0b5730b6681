//! A simulated node under the eyes of the sensor alone: what it counted, by names that a test can
//! read.
//!
//! In: a node and its pods. Out: one line for each flow with everything that was counted on it. It
//! judges nothing and adds nothing up but what was read in several parts.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use parapet::kernel::{KernelConfig, Sensor};
use parapet_core::flow::Direction;
use parapet_core::record::{Counts, FlowRecord, Record};
use support::cgroup;
use support::network::{GATEWAY, NODE};
use support::node::Node;
use support::pod::{Pod, PodSpec};

use crate::agent::new_node;

/// What was counted, by `client > server 17/53` (or `<` for who was asked, `?` for nobody knows).
pub(crate) type Flows = BTreeMap<String, Counts>;

/// A node and the sensor that watches all of it.
pub(crate) struct Watched {
    pub(crate) node: Node,
    sensor: Sensor,
    cgroups: HashMap<u64, String>,
    addresses: HashMap<IpAddr, String>,
    /// What was lost, by stage, since the start.
    pub(crate) lost: BTreeMap<&'static str, u64>,
}

impl Watched {
    pub(crate) fn new() -> Self {
        Self::with(new_node(), |config| config)
    }

    /// With another configuration.
    pub(crate) fn with(node: Node, change: impl FnOnce(KernelConfig) -> KernelConfig) -> Self {
        let root = node.cgroup_root();
        let prefix = root.strip_prefix(cgroup::mount_point().unwrap()).unwrap();
        let config = change(KernelConfig {
            cgroup_root: root.to_owned(),
            cgroup_prefix: format!("/{}", prefix.display()),
            ..KernelConfig::default()
        });
        let own = cgroup::id(&node.own_cgroup().unwrap()).unwrap();
        let mut addresses = HashMap::new();
        for address in NODE.both().into_iter().chain(GATEWAY.both()) {
            addresses.insert(address, "node".to_string());
        }
        Self {
            sensor: Sensor::load(&config).unwrap(),
            node,
            cgroups: HashMap::from([(own, "node".to_string())]),
            addresses,
            lost: BTreeMap::new(),
        }
    }

    /// A new pod of this name.
    pub(crate) fn pod(&mut self, name: &str) -> Pod {
        let pod = self.node.pod(&PodSpec::new("a", name)).unwrap();
        self.name(&pod, name);
        pod
    }

    /// Calls a pod so.
    pub(crate) fn name(&mut self, pod: &Pod, name: &str) {
        self.cgroups.insert(cgroup::id(&pod.cgroup).unwrap(), name.to_string());
        for address in pod.addresses.both() {
            self.call(address, name);
        }
    }

    /// Calls an address so.
    pub(crate) fn call(&mut self, address: IpAddr, name: &str) {
        self.addresses.insert(address, name.to_string());
    }

    /// Everything since the last time.
    pub(crate) fn read(&mut self) -> Flows {
        let mut flows = Flows::new();
        for record in self.sensor.read_now() {
            match record {
                Record::Flow(flow) => {
                    add(flows.entry(self.shown(&flow)).or_default(), &flow.counts)
                }
                Record::Lost { stage, count } => *self.lost.entry(stage).or_default() += count,
                Record::CgroupCreated { .. } | Record::CgroupRemoved { .. } => {}
                Record::Dns(_) | Record::Read(_) | Record::Reader(_) => {}
            }
        }
        flows
    }

    /// (table, entries, capacity) of the kernel's tables.
    pub(crate) fn capacity(&self) -> Vec<(&'static str, u64, u64)> {
        self.sensor.capacity()
    }

    fn shown(&self, flow: &FlowRecord) -> String {
        let own = self.cgroups.get(&flow.cgroup_id).map_or("?", String::as_str);
        let peer = self.addresses.get(&flow.peer).cloned();
        let peer = peer.unwrap_or_else(|| flow.peer.to_string());
        let arrow = match flow.direction {
            Some(Direction::Egress) => '>',
            Some(Direction::Ingress) => '<',
            None => '?',
        };
        format!("{own} {arrow} {peer} {}/{}", flow.protocol.0, flow.service_port)
    }
}

/// Without packets and bytes, of which a TCP connection has as many as it likes.
pub(crate) fn outcomes(mut seen: Flows) -> Flows {
    for counts in seen.values_mut() {
        let Counts { attempts, answered, refused, closed, .. } = *counts;
        *counts = Counts { attempts, answered, refused, closed, ..Counts::default() };
    }
    seen
}

fn add(sum: &mut Counts, more: &Counts) {
    sum.sent_packets += more.sent_packets;
    sum.sent_bytes += more.sent_bytes;
    sum.received_packets += more.received_packets;
    sum.received_bytes += more.received_bytes;
    sum.attempts += more.attempts;
    sum.answered += more.answered;
    sum.refused += more.refused;
    sum.refused_port += more.refused_port;
    sum.refused_route += more.refused_route;
    sum.closed += more.closed;
    sum.handshake_ns += more.handshake_ns;
}
