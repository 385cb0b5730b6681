//! A cluster of one simulated node behind a real API server.
//!
//! In: what a test wants to be there. Out: objects that the API server holds, pods that are on the
//! node under the UIDs it gave them, and agents that watch both. What controllers and kubelet would
//! write is written here, in their order: the object first, its status when the pod runs.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::agent::Agent;
use support::control_plane::api::Api;
use support::control_plane::{ControlPlane, Stand};
use support::network::{NODE, POD_RANGES};
use support::node::Node;
use support::object::{NODE_NAME, uuid};
use support::pod::{Owner, Pod, PodSpec};
use support::process::Program;
use support::report::Report;

/// Whom the agent is for the API server.
pub(crate) const ACCOUNT: (&str, &str) = ("parapet", "parapet");

/// What Deployments and their ReplicaSets have in common.
const TEMPLATE: &str = "5c9d7b8f6";

pub(crate) struct World {
    pub(crate) api: Api,
    // Before the node, whose end ends all processes.
    pub(crate) plane: ControlPlane,
    pub(crate) node: Node,
    made: u32,
}

/// The agent that `cargo xtask test` built, or the one beside the tests.
pub(crate) fn binary() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_BIN_EXE_parapet-traffic"));
    std::env::var_os("PARAPET_BIN").map_or_else(|| own.with_file_name("parapet"), PathBuf::from)
}

/// What is found, asked for again and again until then.
pub(crate) fn until<T>(patience: Duration, what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(since.elapsed() < patience, "not within {patience:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The report once all of these edges ended so and nothing waits; asserts that, and no loss.
pub(crate) fn expect(agent: &Agent, expected: &[(&str, &[(&str, u64)])]) -> Report {
    let holds = |report: &Report| {
        let nothing_waits = report.pending == 0 && report.unjudged == 0;
        nothing_waits && expected.iter().all(|(edge, ended)| report.ended(edge) == *ended)
    };
    let report = agent.report_when(holds).unwrap();
    for (edge, ended) in expected {
        let all: Vec<_> = report.edges.iter().map(|edge| (edge.shown(), edge.ended())).collect();
        assert_eq!(report.ended(edge), *ended, "{edge} in {all:#?}\n{}", agent.log());
    }
    assert_eq!(report.lost.values().sum::<u64>(), 0, "{:?}", report.lost);
    assert_eq!((report.pending, report.unjudged), (0, 0));
    report
}

impl World {
    /// An empty cluster, but for the node and the agent's account.
    pub(crate) fn start() -> Self {
        let node = Node::start(&Program::at(env!("CARGO_BIN_EXE_parapet-traffic"))).unwrap();
        let plane = ControlPlane::start(&node, Stand::BesideTests).unwrap();
        let mut world = Self { api: plane.admin(), plane, node, made: 0 };
        world.make("/api/v1/nodes", &node_object());
        let status = json!({"status": {"addresses": [
            {"type": "InternalIP", "address": NODE.v4.to_string()},
            {"type": "InternalIP", "address": NODE.v6.to_string()},
            {"type": "Hostname", "address": NODE_NAME},
        ]}});
        world.patch(&format!("/api/v1/nodes/{NODE_NAME}/status"), &status);
        world.account();
        world
    }

    /// Creates an object and returns it as the server has it.
    pub(crate) fn make(&mut self, path: &str, object: &Value) -> Value {
        self.api.want("POST", path, object).unwrap()
    }

    pub(crate) fn patch(&mut self, path: &str, object: &Value) -> Value {
        self.api.want("PATCH", path, object).unwrap()
    }

    pub(crate) fn delete(&mut self, path: &str) {
        self.api.want("DELETE", path, &json!({"gracePeriodSeconds": 0})).unwrap();
    }

    pub(crate) fn apply(&self, text: &str) {
        self.plane.kubectl(&["apply", "-f", "-"], text).unwrap();
    }

    pub(crate) fn namespace(&mut self, name: &str, labels: &[(&str, &str)]) {
        let labels: serde_json::Map<_, _> =
            labels.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
        self.make("/api/v1/namespaces", &json!({"metadata": {"name": name, "labels": labels}}));
    }

    /// A pod as controllers, scheduler and kubelet make it: running, with its addresses known.
    pub(crate) fn pod(&mut self, spec: &PodSpec) -> Pod {
        self.made += 1;
        let number = self.made;
        let name = match spec.owner {
            Owner::Deployment => format!("{}-{TEMPLATE}-{number:05}", spec.name),
            Owner::Nobody => spec.name.clone(),
            other => panic!("{other:?} is not made here yet"),
        };
        let created = self.make(&collection(spec), &pod_object(spec, &name));
        let uid = created["metadata"]["uid"].as_str().unwrap();
        let spec = spec.clone().born(&name, uid);
        let pod = self.node.unpublished_pod(&spec).unwrap();
        self.patch(&format!("{}/status", path(&pod)), &pod_status(&pod));
        if spec.addresses.is_some() {
            // The agent reads counters four times a second. What was counted between two readings
            // is of nobody if the address changed hands between them.
            thread::sleep(Duration::from_millis(700));
        }
        pod
    }

    /// Removes a pod, its processes and its object; its addresses are free again.
    pub(crate) fn delete_pod(&mut self, pod: &Pod) {
        self.node.end_pod(pod).unwrap();
        self.delete(&path(pod));
    }

    pub(crate) fn label_pod(&mut self, pod: &Pod, labels: &Value) {
        self.patch(&path(pod), &json!({"metadata": {"labels": labels}}));
    }

    /// The agent under its own account, at the API server or a stand-in for it; ready.
    pub(crate) fn agent(&self, stand_in: Option<&str>) -> Agent {
        self.agent_with(stand_in, &[])
    }

    /// The same with further arguments of `parapet run`.
    pub(crate) fn agent_with(&self, stand_in: Option<&str>, more: &[&str]) -> Agent {
        let arguments: Vec<_> =
            ["--pin-dir", "none"].iter().chain(more).map(ToString::to_string).collect();
        Agent::start_live(&binary(), &self.node, &self.kubeconfig(stand_in), &arguments).unwrap()
    }

    /// The same, not waited for.
    pub(crate) fn launch(&self, kubeconfig: &Path) -> Agent {
        let arguments = ["--pin-dir".to_string(), "none".to_string()];
        Agent::launch_live(&binary(), &self.node, kubeconfig, &arguments).unwrap()
    }

    pub(crate) fn kubeconfig(&self, stand_in: Option<&str>) -> PathBuf {
        self.plane.account_kubeconfig(ACCOUNT.0, ACCOUNT.1, stand_in).unwrap()
    }

    /// What the agent's manifests grant it.
    fn account(&mut self) {
        let access = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kustomize/access");
        self.plane.kubectl(&["apply", "-k", &access.display().to_string()], "").unwrap();
    }
}

fn collection(spec: &PodSpec) -> String {
    format!("/api/v1/namespaces/{}/pods", spec.namespace)
}

pub(crate) fn path(pod: &Pod) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name)
}

fn node_object() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NODE_NAME, "labels": {"kubernetes.io/hostname": NODE_NAME}},
        "spec": {"podCIDR": POD_RANGES[0], "podCIDRs": POD_RANGES},
    })
}

fn pod_object(spec: &PodSpec, name: &str) -> Value {
    let mut labels = json!(spec.labels);
    let mut owners = json!([]);
    if spec.owner == Owner::Deployment {
        labels["pod-template-hash"] = TEMPLATE.into();
        owners = json!([{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
            "name": format!("{}-{TEMPLATE}", spec.name), "uid": uuid().unwrap(),
        }]);
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "ownerReferences": owners},
        "spec": {
            "nodeName": NODE_NAME, "serviceAccountName": "default",
            "containers": [{"name": "main", "image": "parapet.invalid/traffic:1"}],
        },
    })
}

fn pod_status(pod: &Pod) -> Value {
    json!({"status": {
        "phase": "Running", "hostIP": NODE.v4.to_string(),
        "podIP": pod.addresses.v4.to_string(),
        "podIPs": pod.addresses.both().map(|ip| json!({"ip": ip.to_string()})),
        "containerStatuses": [{
            "name": "main", "image": "parapet.invalid/traffic:1", "imageID": "",
            "ready": true, "restartCount": 0,
            "containerID": format!("containerd://{}", pod.container_id),
        }],
    }})
}
