//! The command line against a whole cluster: agents reached through the API server's pod proxy.
//!
//! One agent watches the simulated node, where the API server stands too: to loopback addresses its
//! proxy does not go. What a second node's agent would say is recorded. The commands run as an
//! account that has the roles of `deploy/` for people, and no others.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use serde_json::{Value, json};
use support::agent::Agent;
use support::control_plane::audit::Asked;
use support::control_plane::{ControlPlane, Stand};
use support::network::NODE;
use support::node::Node;
use support::object::NODE_NAME;
use support::pod::{Pod, PodSpec};
use support::process::Program;
use support::task::Task;

use crate::world::binary;

/// Where agents listen.
const PORT: u16 = 9464;
/// What the clients of the simulated node and of the recorded one do.
const ATTEMPTS: [u64; 2] = [5, 3];

struct Cluster {
    viewer: PathBuf,
    /// Client and server.
    pods: [Pod; 2],
    agent: Agent,
    plane: ControlPlane,
    node: Node,
}

/// Answers on the node until the process ends.
fn serve(node: &Node, address: IpAddr, answer: impl Fn(TcpStream) + Send + Sync + 'static) {
    let listener = node.network().within(|| Ok(TcpListener::bind((address, PORT))?)).unwrap();
    let network = node.network().clone();
    let accept = move || {
        listener.incoming().map_while(Result::ok).for_each(&answer);
        Ok(())
    };
    thread::spawn(move || network.within(accept));
}

/// Both ways, until both are closed.
fn relay(client: TcpStream, agent: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(agent)?;
    let pairs = [(client.try_clone()?, server.try_clone()?), (server, client)];
    for (mut from, mut to) in pairs {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            to.shutdown(std::net::Shutdown::Write)
        });
    }
    Ok(())
}

/// One answer to whatever is asked.
fn recorded(mut client: TcpStream, report: &str) -> io::Result<()> {
    let _ = client.read(&mut [0; 4096])?;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
    write!(client, "{head}\r\nContent-Length: {}\r\n\r\n{report}", report.len())
}

/// What a second node's agent says: a replica of the same client, and the same server.
fn other_node(report: &str) -> String {
    let mut report: Value = serde_json::from_str(report).unwrap();
    report["node"] = "node-2".into();
    let edges = report["edges"].as_array_mut().unwrap();
    edges.retain(|edge| edge["direction"] == "egress" && edge["target_port"] == 8080);
    assert_eq!(edges.len(), 1);
    edges[0]["counts"]["attempts"] = ATTEMPTS[1].into();
    edges[0]["counts"]["answered"] = ATTEMPTS[1].into();
    edges[0]["outcomes"] = json!({"answered": ATTEMPTS[1]});
    report.to_string()
}

impl Cluster {
    fn start() -> Self {
        let mut node = Node::start(&Program::at(env!("CARGO_BIN_EXE_parapet-traffic"))).unwrap();
        let plane = ControlPlane::start(&node, Stand::OnNode).unwrap();
        let web = node.pod(&PodSpec::new("shop", "web")).unwrap();
        let api = node.pod(&PodSpec::new("shop", "api")).unwrap();
        let agent = Agent::start_on(&binary(), &node, &[]).unwrap();
        let _server = api.spawn(&Task::serve_tcp(&[8080])).unwrap();
        let target = SocketAddr::new(api.addresses.v4.into(), 8080);
        web.run(&Task::connect(target, ATTEMPTS[0])).unwrap();
        let shown = |side: &str| format!("{side} shop/web -> shop/api TCP/8080");
        let both = ["egress", "ingress"];
        let seen = agent.report_when(|report| {
            let answered = |side| report.ended(&shown(side)) == [("answered", ATTEMPTS[0])];
            both.into_iter().all(answered)
        });
        assert_eq!(both.map(|side| seen.as_ref().unwrap().ended(&shown(side)).len()), [1, 1]);
        plane.kubectl(&["create", "namespace", "shop"], "").unwrap();
        for pod in [&web, &api] {
            declare(&plane, pod);
        }
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kustomize");
        let access = deploy.join("access").display().to_string();
        plane.kubectl(&["apply", "-k", &access], "").unwrap();
        // What follows from it is a controller's and the scheduler's, and none runs.
        let base = deploy.join("base").display().to_string();
        plane.kubectl(&["apply", "--dry-run=server", "-k", &base], "").unwrap();
        let recorded_report = other_node(&agent.get("/report").unwrap().body);
        let address = agent.address();
        serve(&node, NODE.v4.into(), move |client| drop(relay(client, address)));
        serve(&node, NODE.v6.into(), move |client| drop(recorded(client, &recorded_report)));
        for (name, address) in [(NODE_NAME, IpAddr::from(NODE.v4)), ("node-2", NODE.v6.into())] {
            agent_pod(&plane, name, address);
        }
        Self { viewer: viewer(&plane), pods: [web, api], agent, plane, node }
    }

    fn run(&self, words: &[&str]) -> Output {
        let run = || {
            let mut command = Command::new(binary());
            command.args(words).arg("--kubeconfig").arg(&self.viewer);
            Ok(command.output()?)
        };
        self.node.network().within(run).unwrap()
    }

    fn json(&self, words: &[&str], code: i32) -> Value {
        let output = self.run(&[words, &["-o", "json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

fn running(plane: &ControlPlane, namespace: &str, name: &str, address: IpAddr) {
    let status =
        json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/status");
    plane.admin().want("PATCH", &path, &status).unwrap();
}

/// As the Deployment's controllers and kubelet make it.
fn declare(plane: &ControlPlane, pod: &Pod) {
    let (set, _) = pod.name.rsplit_once('-').unwrap();
    let (_, hash) = set.rsplit_once('-').unwrap();
    let mut labels = json!(pod.labels);
    labels["pod-template-hash"] = hash.into();
    let object = json!({
        "metadata": {"name": pod.name, "labels": labels, "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true, "name": set,
            "uid": pod.uid,
        }]},
        "spec": {"nodeName": NODE_NAME, "containers": [{
            "name": "main", "image": "parapet.invalid/traffic:1",
        }]},
    });
    let path = format!("/api/v1/namespaces/{}/pods", pod.namespace);
    plane.admin().want("POST", &path, &object).unwrap();
    running(plane, &pod.namespace, &pod.name, pod.addresses.v4.into());
}

/// As the DaemonSet's controller and kubelet make it.
fn agent_pod(plane: &ControlPlane, node: &str, address: IpAddr) {
    let name = format!("parapet-{node}");
    let pod = json!({
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "parapet"}},
        "spec": {"nodeName": node, "hostNetwork": true, "containers": [{
            "name": "agent", "image": "parapet.invalid/agent:1",
            "ports": [{"name": "http", "containerPort": PORT, "hostPort": PORT}],
        }]},
    });
    plane.admin().want("POST", "/api/v1/namespaces/parapet/pods", &pod).unwrap();
    running(plane, "parapet", &name, address);
    let node = json!({"metadata": {"name": node}});
    // The simulated node's own may be there already.
    let _ = plane.admin().ask("POST", "/api/v1/nodes", &node.to_string()).unwrap();
}

/// Someone with the roles for people.
fn viewer(plane: &ControlPlane) -> PathBuf {
    let subject = "--serviceaccount=people:viewer";
    for words in [
        &["create", "namespace", "people"][..],
        &["-n", "people", "create", "serviceaccount", "viewer"],
        &["create", "clusterrolebinding", "viewers", "--clusterrole=parapet-viewer", subject],
        &["-n", "parapet", "create", "rolebinding", "viewers", "--role=parapet-viewer", subject],
    ] {
        plane.kubectl(words, "").unwrap();
    }
    plane.account_kubeconfig("people", "viewer", None).unwrap()
}

fn seen(direction: &str, attempts: u64, nodes: &[&str]) -> Value {
    let nodes_total = nodes.len();
    json!({
        "direction": direction, "attempts": attempts, "nodes_total": nodes_total, "nodes": nodes,
    })
}

#[test]
fn agents_of_all_nodes_are_asked_through_the_api_server_and_summed_up() {
    let cluster = Cluster::start();
    let report = cluster.json(&["report", "flows"], 0);
    let ours = |edge: &&Value| edge["target_port"] == 8080;
    let edges: Vec<&Value> = report["edges"].as_array().unwrap().iter().filter(ours).collect();
    assert_eq!(edges.len(), 1);
    let all = ATTEMPTS.iter().sum::<u64>();
    assert_eq!(
        (&edges[0]["direction"], &edges[0]["counts"]["attempts"]),
        (&json!("egress"), &json!(all))
    );
    let (from, to) = (seen("egress", all, &["node-1", "node-2"]), seen("ingress", 5, &["node-1"]));
    assert_eq!(edges[0]["seen"], json!([from, to]));
    let nodes = |report: &Value| -> Vec<(String, Value)> {
        let rows = report["nodes"].as_array().unwrap().iter();
        rows.map(|row| (row["node"].as_str().unwrap().to_owned(), row["problem"].clone())).collect()
    };
    let both = [(NODE_NAME.to_owned(), Value::Null), ("node-2".to_owned(), Value::Null)];
    assert_eq!(nodes(&report), both);

    let once = cluster.json(&["flows", "--once", "--namespace", "shop"], 0);
    assert_eq!(once["counts"]["attempts"], all);

    let [from, to] = cluster.pods.each_ref().map(|pod| format!("shop/{}", pod.name));
    let question = ["explain", "--from", &from, "--to", &to, "--port", "8080"];
    assert_eq!(cluster.json(&question, 0)["decision"], "allowed");
}

#[test]
fn nothing_is_safe_while_a_node_does_not_tell() {
    let cluster = Cluster::start();
    let node = json!({"metadata": {"name": "node-3"}});
    cluster.plane.admin().want("POST", "/api/v1/nodes", &node).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let open = folder.path().join("open.yaml");
    std::fs::write(&open, policy("[{}]")).unwrap();
    let open = open.display().to_string();
    let checked = cluster.json(&["check", "--policies", &open], 11);
    let gap = "1 of 3 nodes did not tell what they saw: node-3 (no agent runs there)";
    assert_eq!(checked["evidence"]["gaps"], json!([gap]));
    cluster.plane.kubectl(&["delete", "node", "node-3"], "").unwrap();
    assert_eq!(cluster.json(&["check", "--policies", &open], 0)["verdict"], "safe");
    let closed = folder.path().join("closed.yaml");
    std::fs::write(&closed, policy("[]")).unwrap();
    let checked = cluster.json(&["check", "--policies", &closed.display().to_string()], 10);
    let edge = &checked["policy_sets"][0]["edges"][0];
    assert_eq!((&edge["attempts"], &edge["delta"]), (&json!(8), &json!("newly_denied")));

    // Nobody asked for more than the roles for people hold.
    let asked = cluster.plane.asked().unwrap();
    let viewer = "system:serviceaccount:people:viewer";
    let refused: Vec<&Asked> =
        asked.iter().filter(|asked| asked.user == viewer && asked.status == 403).collect();
    assert_eq!(refused, Vec::<&Asked>::new());
    assert!(asked.iter().all(|asked| !asked.what.starts_with("secrets")));
    cluster.agent.stop().unwrap();
}

fn policy(ingress: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: new, namespace: \
         shop}}\nspec: {{podSelector: {{}}, policyTypes: [Ingress], ingress: {ingress}}}\n"
    )
}
