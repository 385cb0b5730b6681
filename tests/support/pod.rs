//! A pod of the simulated node: a network namespace, a cgroup, addresses and a name.
//!
//! In: what the node gave it. Out: processes that run inside. The value is a handle: dropping it
//! leaves the pod as it is.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use crate::cgroup::Driver;
use crate::network::{Addresses, Family};
use crate::process::{Process, Program};
use crate::secret::TOKEN_VOLUME;
use crate::task::{Counts, Order, Place, Task};
use crate::tool;

/// What a pod is to be.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// `metadata.namespace`.
    pub namespace: String,
    /// Name of its owner, or its own if it has none.
    pub name: String,
    /// Who owns it.
    pub owner: Owner,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// Container ports: name, `TCP` or `UDP`, number.
    pub ports: Vec<(String, String, u16)>,
    /// How its cgroup is spelled.
    pub driver: Driver,
    /// Take the addresses of a pod that was deleted.
    pub addresses: Option<Addresses>,
    /// `metadata.name` and `metadata.uid` where an API server has given them.
    pub born: Option<(String, String)>,
    /// `spec.volumes`.
    pub volumes: Vec<Value>,
    /// What the container `main` has beside its ports: `volumeMounts`, `env`.
    pub main: Map<String, Value>,
    /// Further containers by their names, and what they have.
    pub sidecars: Vec<(String, Map<String, Value>)>,
    /// What else is in `spec`.
    pub more: Map<String, Value>,
}

/// `volumeMounts` of a container: volume and `subPath`, or none.
#[must_use]
pub fn mounts(volumes: &[(&str, Option<&str>)]) -> Map<String, Value> {
    let mounts = volumes.iter().map(|(name, below)| {
        // Where every client library looks for its token.
        let path = match *name {
            TOKEN_VOLUME => "/var/run/secrets/kubernetes.io/serviceaccount".to_string(),
            _ => format!("/mounted/{name}/{}", below.unwrap_or_default()),
        };
        let mut mount = json!({"name": name, "mountPath": path, "readOnly": true});
        if let Some(below) = below {
            mount["subPath"] = (*below).into();
        }
        mount
    });
    Map::from_iter([("volumeMounts".to_string(), mounts.collect())])
}

impl PodSpec {
    /// A pod of a Deployment with the label `app`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_string(),
            name: name.to_string(),
            owner: Owner::Deployment,
            labels: BTreeMap::from([("app".to_string(), name.to_string())]),
            ports: Vec::new(),
            driver: Driver::default(),
            addresses: None,
            born: None,
            volumes: Vec::new(),
            main: Map::new(),
            sidecars: Vec::new(),
            more: Map::new(),
        }
    }

    /// With a volume of this Secret under its name, which is also the volume's.
    #[must_use]
    pub fn secret(self, name: &str) -> Self {
        self.volume(json!({"name": name, "secret": {"secretName": name, "defaultMode": 420}}))
    }

    /// With the volume of its service account's token, as the API server adds it.
    #[must_use]
    pub fn token(self) -> Self {
        let token = json!({"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}});
        let bundle = json!({"configMap": {"name": "kube-root-ca.crt",
            "items": [{"key": "ca.crt", "path": "ca.crt"}]}});
        let field = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
        let namespace =
            json!({"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}});
        let sources = json!([token, bundle, namespace]);
        self.volume(json!({"name": TOKEN_VOLUME,
            "projected": {"defaultMode": 420, "sources": sources}}))
    }

    /// With a volume as `spec.volumes` has it.
    #[must_use]
    pub fn volume(mut self, volume: Value) -> Self {
        self.volumes.push(volume);
        self
    }

    /// With these volumes in the container `main`.
    #[must_use]
    pub fn mounts(mut self, volumes: &[(&str, Option<&str>)]) -> Self {
        self.main.extend(mounts(volumes));
        self
    }

    /// With this in the container `main`.
    #[must_use]
    pub fn main(mut self, field: &str, value: Value) -> Self {
        self.main.insert(field.to_string(), value);
        self
    }

    /// With one more container that has these volumes.
    #[must_use]
    pub fn sidecar(mut self, name: &str, volumes: &[(&str, Option<&str>)]) -> Self {
        self.sidecars.push((name.to_string(), mounts(volumes)));
        self
    }

    /// With this in `spec`.
    #[must_use]
    pub fn more(mut self, field: &str, value: Value) -> Self {
        self.more.insert(field.to_string(), value);
        self
    }

    /// With this owner.
    #[must_use]
    pub fn owned_by(mut self, owner: Owner) -> Self {
        self.owner = owner;
        self
    }

    /// With one more label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_string(), value.to_string());
        self
    }

    /// With one more named container port.
    #[must_use]
    pub fn port(mut self, name: &str, protocol: &str, port: u16) -> Self {
        self.ports.push((name.to_string(), protocol.to_string(), port));
        self
    }

    /// With its cgroup spelled so.
    #[must_use]
    pub fn driver(mut self, driver: Driver) -> Self {
        self.driver = driver;
        self
    }

    /// With the name and UID that an API server has given it.
    #[must_use]
    pub fn born(mut self, name: &str, uid: &str) -> Self {
        self.born = Some((name.to_string(), uid.to_string()));
        self
    }

    /// With the addresses of a pod that was deleted.
    #[must_use]
    pub fn reusing(mut self, addresses: Addresses) -> Self {
        self.addresses = Some(addresses);
        self
    }
}

/// Who owns a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kinds of the API")]
pub enum Owner {
    Deployment,
    StatefulSet,
    DaemonSet,
    CronJob,
    Nobody,
}

/// A pod that stands on the node.
#[derive(Clone, Debug)]
pub struct Pod {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `status.podIPs`.
    pub addresses: Addresses,
    /// Folder of the container's cgroup.
    pub cgroup: PathBuf,
    /// Folder of the pod's cgroup.
    pub pod_cgroup: PathBuf,
    /// The container's id, without the name of its runtime.
    pub container_id: String,
    /// Further containers: name, id, folder of the cgroup.
    pub sidecars: Vec<(String, String, PathBuf)>,
    pub(crate) network: crate::namespace::Namespace,
    pub(crate) wire: u16,
    pub(crate) program: Program,
}

impl Pod {
    /// Its network namespace.
    #[must_use]
    pub fn network(&self) -> &crate::namespace::Namespace {
        &self.network
    }

    /// Its address of a family.
    #[must_use]
    pub fn address(&self, family: Family) -> IpAddr {
        self.addresses.of(family)
    }

    /// Its address of a family with a port.
    #[must_use]
    pub fn at(&self, family: Family, port: u16) -> SocketAddr {
        (self.address(family), port).into()
    }

    /// Starts a process inside and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot start.
    pub fn spawn(&self, task: &Task) -> anyhow::Result<Process> {
        self.spawn_at(&self.cgroup, task)
    }

    /// Starts a process in another of its containers and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot start, or there is no such container.
    pub fn spawn_in(&self, container: &str, task: &Task) -> anyhow::Result<Process> {
        let found = self.sidecars.iter().find(|(name, ..)| name == container);
        let (_, _, cgroup) = found.with_context(|| format!("no container {container}"))?;
        self.spawn_at(cgroup, task)
    }

    fn spawn_at(&self, cgroup: &Path, task: &Task) -> anyhow::Result<Process> {
        let place =
            Place { cgroup: Some(cgroup.to_owned()), namespace: self.network.path().to_owned() };
        Process::start(&self.program, &Order { place: Some(place), task: task.clone() })
    }

    /// Runs a task in another of its containers to its end.
    ///
    /// # Errors
    /// If it cannot start or fails.
    pub fn run_in(&self, container: &str, task: &Task) -> anyhow::Result<Counts> {
        self.spawn_in(container, task)?.finish()
    }

    /// Runs a task inside to its end.
    ///
    /// # Errors
    /// If it cannot start or fails.
    pub fn run(&self, task: &Task) -> anyhow::Result<Counts> {
        self.spawn(task)?.finish()
    }

    /// Its processes run this file from now on, which is the same program by another name.
    pub fn run_as(&mut self, program: &Path) {
        self.program = Program::at(program);
    }

    /// Treats packets that arrive so if they match, as [`crate::node::Node::treat`] does it to
    /// those that come by: what the node itself sends comes by nobody.
    ///
    /// # Errors
    /// If the rule is refused.
    pub fn treat(&self, family: Family, matching: &str, verdict: &str) -> anyhow::Result<()> {
        let (word, own) = match family {
            Family::V4 => ("ip", self.address(family)),
            Family::V6 => ("ip6", self.address(family)),
        };
        let rules = format!(
            "add table inet own\n\
             add chain inet own into {{ type filter hook input priority 0; }}\n\
             add rule inet own into {word} daddr {own} {matching} {verdict}\n"
        );
        self.network.within(|| tool::nft(&rules)).map(drop)
    }
}
