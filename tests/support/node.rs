//! The simulated node itself.
//!
//! In: pods, Services, outside hosts and denials that a test wants. Out: namespaces, cgroups, rules
//! and the manifests that describe them. Everything is gone when the value is dropped, or soon
//! after the process ends in any other way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::lifetime::Lifetime;
use crate::namespace::Namespace;
use crate::network::{self, Addresses};
use crate::object::{Manifests, uuid};
use crate::pod::{Owner, Pod, PodSpec};
use crate::process::{Process, Program};
use crate::service::{self, Backend, Kind, Port, Service};
use crate::task::{Order, Place, Task};
use crate::{cgroup, namespace, tool};

/// Where the numbers of pod addresses begin, after the gateway and room for the node's own.
const FIRST_POD: u8 = 10;
/// Where the numbers of Service addresses begin: the one of cluster DNS on most clusters.
const FIRST_SERVICE: u8 = 10;

/// A node with its pods.
#[derive(Debug)]
pub struct Node {
    program: Program,
    network: Namespace,
    outside: Namespace,
    cgroup_root: PathBuf,
    manifests: Manifests,
    namespaces: BTreeSet<String>,
    services: Vec<(Service, Vec<Backend>)>,
    pods_made: u16,
    last_host: u8,
    // Last, so that everything else is closed when it cleans up.
    lifetime: Lifetime,
}

impl Node {
    /// Makes an empty node. Its processes run `program`.
    ///
    /// # Errors
    /// Without root, `ip`, `nft` or cgroup2.
    pub fn start(program: &Program) -> anyhow::Result<Self> {
        let lifetime = Lifetime::begin(program)?;
        let name = lifetime.name();
        let network = Namespace::create(&format!("{name}-node"))?;
        let outside = Namespace::create(&format!("{name}-outside"))?;
        network::wire_node(&network, &outside).context("cannot wire the node")?;
        network.within(|| tool::nft(&service::table()))?;
        network.within(|| tool::nft(&denial_table()))?;
        let cgroup_root = cgroup::mount_point()?.join(name).join("root");
        cgroup::create(&cgroup_root)?;
        let manifests = Manifests::create(lifetime.folder().join("manifests"))?;
        let pods = lifetime.folder().join("kubelet/pods");
        std::fs::create_dir_all(&pods).with_context(|| pods.display().to_string())?;
        Ok(Self {
            program: program.clone(),
            network,
            outside,
            cgroup_root,
            manifests,
            namespaces: BTreeSet::new(),
            services: Vec::new(),
            pods_made: 0,
            last_host: FIRST_POD - 1,
            lifetime,
        })
    }

    /// The name that everything on it begins with.
    #[must_use]
    pub fn name(&self) -> &str {
        self.lifetime.name()
    }

    /// A folder for files that go with the node.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.lifetime.folder()
    }

    /// What stands for the kubelet's folder: volumes of this node's pods are below.
    #[must_use]
    pub fn kubelet_root(&self) -> PathBuf {
        self.folder().join("kubelet")
    }

    /// What stands for the cgroup2 root: nothing but this node's pods is below.
    #[must_use]
    pub fn cgroup_root(&self) -> &Path {
        &self.cgroup_root
    }

    /// A cgroup for processes that belong to the run and not to the node's pods.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn side_cgroup(&self) -> anyhow::Result<PathBuf> {
        let path = self.cgroup_root.with_file_name("side");
        cgroup::create(&path)?;
        Ok(path)
    }

    /// The folder with the manifests of all that stands on the node.
    #[must_use]
    pub fn manifests(&self) -> &Path {
        self.manifests.folder()
    }

    /// Makes a Kubernetes namespace. Without it a pod's namespace gets no labels of its own.
    ///
    /// # Errors
    /// If its manifest cannot be written.
    pub fn namespace(&mut self, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<()> {
        let labels: BTreeMap<_, _> =
            labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        self.namespaces.insert(name.to_string());
        self.manifests.namespace(name, &labels)
    }

    /// Makes a pod, without processes, and publishes it.
    ///
    /// # Errors
    /// If its namespace or cgroup cannot be made.
    pub fn pod(&mut self, spec: &PodSpec) -> anyhow::Result<Pod> {
        let pod = self.unpublished_pod(spec)?;
        self.publish(spec, &pod)?;
        Ok(pod)
    }

    /// Makes a pod whose object is not written yet: what an agent sees when the API is late.
    ///
    /// # Errors
    /// If its namespace or cgroup cannot be made.
    pub fn unpublished_pod(&mut self, spec: &PodSpec) -> anyhow::Result<Pod> {
        let wire = self.pods_made;
        self.pods_made += 1;
        let addresses = match spec.addresses {
            Some(addresses) => addresses,
            None => {
                self.last_host = self.last_host.checked_add(1).context("no pod addresses left")?;
                Addresses::of_pod(self.last_host)
            }
        };
        let network = Namespace::create(&format!("{}-p{wire}", self.name()))?;
        network::wire_pod(&self.network, &network, wire, &addresses)?;
        let (name, uid) = match &spec.born {
            Some(born) => born.clone(),
            None => (pod_name(spec, wire), uuid()?),
        };
        let container = || -> anyhow::Result<_> {
            let id = format!("{}{}", uuid()?, uuid()?).replace('-', "");
            let (container, pod) = spec.driver.paths(&uid, &id);
            let cgroup = self.cgroup_root.join(container);
            cgroup::create(&cgroup)?;
            Ok((id, cgroup, pod))
        };
        let (container_id, cgroup, pod) = container()?;
        let mut sidecars = Vec::new();
        for (name, _) in &spec.sidecars {
            let (id, cgroup, _) = container()?;
            sidecars.push((name.clone(), id, cgroup));
        }
        Ok(Pod {
            namespace: spec.namespace.clone(),
            name,
            uid,
            labels: spec.labels.clone(),
            addresses,
            cgroup,
            pod_cgroup: self.cgroup_root.join(pod),
            container_id,
            sidecars,
            network,
            wire,
            program: self.program.clone(),
        })
    }

    /// Writes the object of a pod, and its namespace's and owners' if they are new.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn publish(&mut self, spec: &PodSpec, pod: &Pod) -> anyhow::Result<()> {
        if !self.namespaces.contains(&spec.namespace) {
            self.namespace(&spec.namespace.clone(), &[])?;
        }
        self.manifests.pod(spec, pod)
    }

    /// Kills a pod's processes and removes it and its object; its addresses are free again.
    ///
    /// # Errors
    /// If something of it stays.
    pub fn delete_pod(&mut self, pod: &Pod) -> anyhow::Result<()> {
        self.end_pod(pod)?;
        self.manifests.remove_pod(pod)
    }

    /// Ends a pod as a Job's pod ends: its object stays, `Succeeded`; its addresses are free again.
    ///
    /// # Errors
    /// If something of it stays.
    pub fn complete_pod(&mut self, pod: &Pod) -> anyhow::Result<()> {
        self.end_pod(pod)?;
        self.manifests.complete_pod(pod)
    }

    /// Removes the object of a pod that is completed.
    ///
    /// # Errors
    /// If its file cannot be removed.
    pub fn forget_pod(&mut self, pod: &Pod) -> anyhow::Result<()> {
        self.manifests.remove_pod(pod)
    }

    /// Kills a pod's processes and removes it; its object is somebody else's.
    ///
    /// # Errors
    /// If something of it stays.
    pub fn end_pod(&self, pod: &Pod) -> anyhow::Result<()> {
        cgroup::remove(&pod.pod_cgroup)?;
        network::unwire_pod(&self.network, pod.wire)?;
        namespace::remove(pod.network.name())
    }

    /// Makes a Service in front of these pods, which are those of its selector `app=NAME`.
    ///
    /// # Errors
    /// If the rules or manifests cannot be written.
    pub fn service(
        &mut self,
        namespace: &str,
        name: &str,
        ports: Vec<Port>,
        backends: &[&Pod],
    ) -> anyhow::Result<Service> {
        let backends: Vec<_> = backends.iter().map(|pod| Backend::new(pod)).collect();
        self.service_of(namespace, name, ports, (Kind::ClusterIp, false), &backends)
    }

    /// Makes a Service of any kind; `true` if it keeps the addresses of outside clients
    /// (`externalTrafficPolicy: Local`).
    ///
    /// # Errors
    /// If the rules, routes or manifests cannot be written.
    pub fn service_of(
        &mut self,
        namespace: &str,
        name: &str,
        ports: Vec<Port>,
        (kind, keeps_clients): (Kind, bool),
        backends: &[Backend],
    ) -> anyhow::Result<Service> {
        let number = u8::try_from(self.services.len()).context("no Service addresses left")?;
        let service = Service {
            namespace: namespace.to_string(),
            name: name.to_string(),
            addresses: Addresses::of_service(number + FIRST_SERVICE),
            ports,
            kind,
            keeps_clients,
            number,
        };
        if let Kind::LoadBalancer(addresses) | Kind::ExternalIps(addresses) = kind {
            network::lead_to_node(&self.outside, &addresses)?;
        }
        self.manifests.service(&service, backends)?;
        self.services.push((service.clone(), backends.to_vec()));
        let rules = service::rules(&self.services);
        self.network.within(|| tool::nft(&rules))?;
        Ok(service)
    }

    /// The node's own network namespace.
    #[must_use]
    pub fn network(&self) -> &Namespace {
        &self.network
    }

    /// Starts a process of the node itself: in its network, in a cgroup that is no pod's.
    ///
    /// # Errors
    /// If it cannot start.
    pub fn spawn_on_node(&self, task: &Task) -> anyhow::Result<Process> {
        let cgroup = Some(self.own_cgroup()?);
        let place = Place { cgroup, namespace: self.network.path().to_owned() };
        Process::start(&self.program, &Order { place: Some(place), task: task.clone() })
    }

    /// Starts a process of the node in the cgroup of this unit.
    ///
    /// # Errors
    /// If it cannot start.
    pub fn spawn_as(&self, unit: &str, task: &Task) -> anyhow::Result<Process> {
        let cgroup = self.cgroup_root.join(unit);
        cgroup::create(&cgroup)?;
        let place = Place { cgroup: Some(cgroup), namespace: self.network.path().to_owned() };
        Process::start(&self.program, &Order { place: Some(place), task: task.clone() })
    }

    /// Gives the world outside of the cluster one more address.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn add_outside(&self, address: IpAddr) -> anyhow::Result<()> {
        network::add_outside(&self.outside, address)
    }

    /// Starts a process outside of the cluster, on all addresses that are there.
    ///
    /// # Errors
    /// If it cannot start.
    pub fn spawn_outside(&self, task: &Task) -> anyhow::Result<Process> {
        let cgroup = Some(self.side_cgroup()?);
        let place = Place { cgroup, namespace: self.outside.path().to_owned() };
        Process::start(&self.program, &Order { place: Some(place), task: task.clone() })
    }

    /// The cgroup of processes of the node.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn own_cgroup(&self) -> anyhow::Result<PathBuf> {
        let path = self.cgroup_root.join("system.slice/node.service");
        cgroup::create(&path)?;
        Ok(path)
    }

    /// Treats packets that come by for this address, the node's own or another, so if they match:
    /// `verdict` is what `nft` calls it (`drop`, `reject with icmp host-unreachable`).
    ///
    /// # Errors
    /// If the rule is refused.
    pub fn treat(&self, target: IpAddr, matching: &str, verdict: &str) -> anyhow::Result<()> {
        let word = family_word(target);
        let rule = |chain| {
            format!("add rule inet denials {chain} {word} daddr {target} {matching} {verdict}\n")
        };
        let rules = format!("{}{}", rule("through"), rule("into"));
        self.network.within(|| tool::nft(&rules)).map(drop)
    }

    /// Leads what pods and the outside ask for to somewhere else, as kube-proxy does it for a
    /// Service that is served by the node itself.
    ///
    /// # Errors
    /// If the rule is refused.
    pub fn lead(&self, asked: SocketAddr, protocol: &str, to: SocketAddr) -> anyhow::Result<()> {
        let word = family_word(asked.ip());
        let rules = format!(
            "add table inet led\n\
             add chain inet led before {{ type nat hook prerouting priority -101; }}\n\
             add rule inet led before {word} daddr {} {protocol} dport {} dnat {word} to {to}\n",
            asked.ip(),
            asked.port(),
        );
        self.network.within(|| tool::nft(&rules)).map(drop)
    }

    /// Forgets what is sent to these addresses (`198.18.0.0/15`), without a word to the sender.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn swallow(&self, range: &str) -> anyhow::Result<()> {
        self.network.within(|| tool::ip(&format!("route add blackhole {range}"))).map(drop)
    }

    /// Drops what a source sends to a target: a flow that an enforcing CNI denies.
    ///
    /// # Errors
    /// If the rule is refused.
    pub fn deny(&self, source: IpAddr, target: SocketAddr, protocol: &str) -> anyhow::Result<()> {
        let word = family_word(source);
        let rule = format!(
            "add rule inet denials through {word} saddr {source} {word} daddr {} {protocol} \
             dport {} counter drop\n",
            target.ip(),
            target.port(),
        );
        self.network.within(|| tool::nft(&rule)).map(drop)
    }
}

fn denial_table() -> String {
    "add table inet denials\n\
     add chain inet denials through { type filter hook forward priority 0; }\n\
     add chain inet denials into { type filter hook input priority 0; }\n"
        .to_string()
}

/// Named as the owner's controller names its pods.
fn pod_name(spec: &PodSpec, number: u16) -> String {
    let name = &spec.name;
    match spec.owner {
        Owner::Nobody => name.clone(),
        Owner::StatefulSet => format!("{name}-{number}"),
        Owner::DaemonSet => format!("{name}-{number:05}"),
        Owner::Deployment => format!("{name}-5c9d7b8f6-{number:05}"),
        Owner::CronJob => format!("{name}-29384756-{number:05}"),
    }
}

/// As nft calls the family of an address.
fn family_word(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}
