//! The Kubernetes objects that describe the simulated node, as files.
//!
//! In: pods and Services. Out: one YAML file for each object, in the shape that
//! `kubectl get -o yaml` prints, replaced and removed whole so that no reader sees half of one. It
//! applies nothing anywhere.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use crate::network::{Family, NODE, POD_RANGES};
use crate::pod::{Owner, Pod, PodSpec};
use crate::service::{Backend, Kind, Service};

/// The name of the one node.
pub const NODE_NAME: &str = "node-1";

/// A folder of manifests.
#[derive(Debug)]
pub struct Manifests {
    folder: PathBuf,
    /// UIDs of owners by `kind/namespace/name`, so that pods of one owner agree.
    owners: BTreeMap<String, String>,
    started: String,
}

impl Manifests {
    /// A new folder with the Node in it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(folder: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let manifests = Self { folder, owners: BTreeMap::new(), started: now() };
        manifests.write(
            &["node", NODE_NAME],
            &json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {
                    "name": NODE_NAME, "uid": uuid()?,
                    "labels": {"kubernetes.io/hostname": NODE_NAME},
                },
                "spec": {"podCIDR": POD_RANGES[0], "podCIDRs": POD_RANGES},
                "status": {"addresses": [
                    {"type": "InternalIP", "address": NODE.v4.to_string()},
                    {"type": "InternalIP", "address": NODE.v6.to_string()},
                    {"type": "Hostname", "address": NODE_NAME},
                ]},
            }),
        )?;
        Ok(manifests)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a Namespace, with the label that every API server adds.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn namespace(&self, name: &str, labels: &BTreeMap<String, String>) -> anyhow::Result<()> {
        let mut labels = labels.clone();
        labels.insert("kubernetes.io/metadata.name".to_string(), name.to_string());
        let metadata = json!({"name": name, "uid": uuid()?, "labels": labels});
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata,
            "status": {"phase": "Active"}});
        self.write(&["namespace", name], &object)
    }

    /// Writes a Pod and the owners that it has.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn pod(&mut self, spec: &PodSpec, pod: &Pod) -> anyhow::Result<()> {
        let owners = self.owners(spec)?;
        let ports: Vec<Value> = spec
            .ports
            .iter()
            .map(|(name, protocol, port)| {
                json!({"name": name, "protocol": protocol, "containerPort": port})
            })
            .collect();
        let started = now();
        let image = "parapet.invalid/traffic:1";
        let mut main = json!({"name": "main", "image": image, "ports": ports});
        add(&mut main, &spec.main);
        let mut containers = vec![main];
        let id = |id: &str| format!("containerd://{id}");
        let mut statuses = vec![json!({"name": "main", "containerID": id(&pod.container_id)})];
        for ((name, fields), (_, container_id, _)) in spec.sidecars.iter().zip(&pod.sidecars) {
            let mut container = json!({"name": name, "image": image});
            add(&mut container, fields);
            containers.push(container);
            statuses.push(json!({"name": name, "containerID": id(container_id)}));
        }
        let mut inside = json!({
            "nodeName": NODE_NAME, "serviceAccountName": "default",
            "containers": containers, "volumes": spec.volumes,
        });
        add(&mut inside, &spec.more);
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": pod.name, "namespace": pod.namespace, "uid": pod.uid, "labels": pod.labels,
                "creationTimestamp": started, "ownerReferences": owners,
            },
            "spec": inside,
            "status": {
                "phase": "Running", "hostIP": NODE.v4.to_string(),
                "podIP": pod.addresses.v4.to_string(),
                "podIPs": pod.addresses.both().map(|ip| json!({"ip": ip.to_string()})),
                "startTime": started, "containerStatuses": statuses,
            },
        });
        self.write(&["pod", &pod.namespace, &pod.name], &object)
    }

    /// Says of a Pod that was written that all of its containers are done.
    ///
    /// # Errors
    /// If there is no such file or it cannot be written.
    pub fn complete_pod(&self, pod: &Pod) -> anyhow::Result<()> {
        let words = ["pod", &pod.namespace, &pod.name];
        let path = self.path(&words);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut object: Value = serde_saphyr::from_str(&text)?;
        object["status"]["phase"] = "Succeeded".into();
        self.write(&words, &object)
    }

    /// Removes a Pod.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn remove_pod(&self, pod: &Pod) -> anyhow::Result<()> {
        let path = self.path(&["pod", &pod.namespace, &pod.name]);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| path.display().to_string())
            }
            _ => Ok(()),
        }
    }

    /// Writes a Service and its EndpointSlices: one of each family for each target port, as a named
    /// target port makes them.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn service(&self, service: &Service, backends: &[Backend]) -> anyhow::Result<()> {
        let Service { namespace, name, .. } = service;
        self.write(&["service", namespace, name], &service_object(service)?)?;
        let mut targets: Vec<_> = backends.iter().map(|backend| backend.target_port).collect();
        targets.sort_unstable();
        targets.dedup();
        if targets.is_empty() {
            targets.push(None);
        }
        for (family, kind) in [(Family::V4, "IPv4"), (Family::V6, "IPv6")] {
            for target in &targets {
                let number = target.map(|port| format!("-{port}")).unwrap_or_default();
                let slice = format!("{name}-{}{number}", kind.to_lowercase());
                let here = backends.iter().filter(|backend| backend.target_port == *target);
                let object = json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                    "metadata": {
                        "name": slice, "namespace": namespace, "uid": uuid()?,
                        "labels": {"kubernetes.io/service-name": name},
                    },
                    "addressType": kind,
                    "endpoints": here.map(|one| endpoint(&one.pod, family)).collect::<Vec<_>>(),
                    "ports": service.ports.iter().map(|port| json!({"name": port.name,
                        "protocol": port.protocol, "port": target.unwrap_or(port.target_port)}))
                        .collect::<Vec<_>>(),
                });
                self.write(&["endpointslice", namespace, &slice], &object)?;
            }
        }
        Ok(())
    }

    /// `metadata.ownerReferences` of a pod; writes the owners themselves.
    fn owners(&mut self, spec: &PodSpec) -> anyhow::Result<Vec<Value>> {
        let (top, name) = (spec.owner, &spec.name);
        let (version, kind, middle) = match top {
            Owner::Nobody => return Ok(Vec::new()),
            Owner::StatefulSet => ("apps/v1", "StatefulSet", None),
            Owner::DaemonSet => ("apps/v1", "DaemonSet", None),
            Owner::Deployment => {
                ("apps/v1", "Deployment", Some(("ReplicaSet", format!("{name}-5c9d7b8f6"))))
            }
            Owner::CronJob => ("batch/v1", "CronJob", Some(("Job", format!("{name}-29384756")))),
        };
        let reference = self.owner(version, kind, &spec.namespace, name, &[])?;
        match middle {
            None => Ok(vec![reference]),
            Some((kind, name)) => {
                Ok(vec![self.owner(version, kind, &spec.namespace, &name, &[reference])?])
            }
        }
    }

    /// Writes one owner and returns the reference to it.
    fn owner(
        &mut self,
        version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
        owners: &[Value],
    ) -> anyhow::Result<Value> {
        let key = format!("{kind}/{namespace}/{name}");
        if !self.owners.contains_key(&key) {
            let uid = uuid()?;
            self.owners.insert(key.clone(), uid.clone());
            let object = json!({
                "apiVersion": version, "kind": kind,
                "metadata": {
                    "name": name, "namespace": namespace, "uid": uid,
                    "creationTimestamp": self.started, "ownerReferences": owners,
                },
            });
            self.write(&[&kind.to_lowercase(), namespace, name], &object)?;
        }
        let uid = &self.owners[&key];
        Ok(json!({"apiVersion": version, "kind": kind, "name": name, "uid": uid,
            "controller": true, "blockOwnerDeletion": true}))
    }

    fn path(&self, words: &[&str]) -> PathBuf {
        self.folder.join(format!("{}.yaml", words.join("_")))
    }

    fn write(&self, words: &[&str], object: &Value) -> anyhow::Result<()> {
        let path = self.path(words);
        let shown = || path.display().to_string();
        let text = serde_saphyr::to_string(object).with_context(shown)?;
        // Not a name that readers of manifests take for one.
        let draft = path.with_extension("draft");
        fs::write(&draft, text).with_context(shown)?;
        fs::rename(&draft, &path).with_context(shown)
    }
}

fn add(object: &mut Value, fields: &Map<String, Value>) {
    for (name, value) in fields {
        object[name] = value.clone();
    }
}

fn service_object(service: &Service) -> anyhow::Result<Value> {
    let ports = service.ports.iter().map(|port| {
        let mut object = json!({"name": port.name, "protocol": port.protocol, "port": port.port,
            "targetPort": port.target_port});
        if let Some(node_port) = port.node_port {
            object["nodePort"] = node_port.into();
        }
        object
    });
    let addresses = service.addresses.both().map(|ip| ip.to_string()).to_vec();
    let addresses = match service.kind {
        Kind::Headless => vec!["None".to_string()],
        _ => addresses,
    };
    let kind = match service.kind {
        Kind::ClusterIp | Kind::Headless | Kind::ExternalIps(_) => "ClusterIP",
        Kind::NodePort => "NodePort",
        Kind::LoadBalancer(_) => "LoadBalancer",
    };
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": service.name, "namespace": service.namespace, "uid": uuid()?},
        "spec": {
            "type": kind, "clusterIP": addresses[0], "clusterIPs": addresses,
            "selector": {"app": service.name}, "ports": ports.collect::<Vec<_>>(),
        },
    });
    match service.kind {
        Kind::LoadBalancer(outside) => {
            let ingress = outside.both().map(|ip| json!({"ip": ip.to_string()}));
            object["status"]["loadBalancer"]["ingress"] = json!(ingress);
        }
        Kind::ExternalIps(outside) => {
            object["spec"]["externalIPs"] = json!(outside.both().map(|ip| ip.to_string()));
        }
        Kind::ClusterIp | Kind::Headless | Kind::NodePort => {}
    }
    if !matches!(service.kind, Kind::ClusterIp | Kind::Headless) {
        let policy = if service.keeps_clients { "Local" } else { "Cluster" };
        object["spec"]["externalTrafficPolicy"] = policy.into();
    }
    Ok(object)
}

fn endpoint(pod: &Pod, family: Family) -> Value {
    json!({
        "addresses": [pod.address(family).to_string()], "nodeName": NODE_NAME,
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "targetRef": {
            "kind": "Pod", "name": pod.name, "namespace": pod.namespace, "uid": pod.uid,
        },
    })
}

/// A new random UID from the kernel.
///
/// # Errors
/// If `/proc` is not mounted.
pub fn uuid() -> anyhow::Result<String> {
    let path = "/proc/sys/kernel/random/uuid";
    Ok(fs::read_to_string(path).context(path)?.trim().to_string())
}

/// Now, in whole seconds as the API has it.
pub(crate) fn now() -> String {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    rfc3339(since_epoch.as_secs())
}

/// Days are counted in eras of 400 years that begin on 1 March, so that leap days come last.
fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn times_are_those_of_date_1() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_433_400, "2026-11-23T11:30:00Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), expected);
        }
    }
}
