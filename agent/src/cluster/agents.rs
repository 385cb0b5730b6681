//! The agents of a cluster, asked one by one through the API server.
//!
//! In: a client, and which pods are agents. Out: what each of them answered, by node, several at
//! once but never more than [`ASKED_AT_ONCE`]. It needs no way to a node: the API server reaches
//! the pods (`pods/proxy`), and says so where it may not.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Request;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::{Api, ListParams};
use kube::client::Body;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::connect::{Session, told};

/// What `deploy/` calls the agents' pods.
pub const SELECTOR_DEFAULT: &str = "app.kubernetes.io/name=parapet";
/// Where an agent listens whose pod names no port `http`.
const PORT_DEFAULT: u16 = 9464;
/// A report of a large node is some megabytes, and the API server carries each of them.
pub const ASKED_AT_ONCE: usize = 16;
/// An answer must be complete by then.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// An answer is at most this long.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// What is shown of an answer that is no report.
const SHOWN_CHARS_MAX: usize = 200;
/// Pods asked for at once.
const PAGE: u32 = 500;

/// Which pods are agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Which {
    /// Only in this namespace; any if none.
    pub namespace: Option<String>,
    /// A label selector.
    pub selector: String,
}

/// One agent's pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Agent {
    /// The node it runs on; its own name if it is on none yet.
    pub node: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    port: u16,
    /// `Running`, or why it cannot be asked.
    phase: String,
}

/// What became of one question.
#[derive(Debug)]
pub struct Answer {
    /// Who was asked.
    pub agent: Agent,
    /// The body, or what went wrong in words.
    pub body: Result<Bytes, String>,
}

/// Every agent there is, by node. Pods that ended are none.
///
/// # Errors
/// The API server does not answer, or does not let the user list pods.
pub async fn find(session: &Session, which: &Which) -> anyhow::Result<Vec<Agent>> {
    let client = &session.client;
    let pods: Api<Pod> = match &which.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut agents = Vec::new();
    let mut page = ListParams::default().labels(&which.selector).limit(PAGE);
    loop {
        let listed = pods.list(&page).await.map_err(told).with_context(|| {
            let (server, place) = (session.server(), which.place());
            format!("{server}: the agents' pods cannot be listed ({place})")
        })?;
        agents.extend(listed.items.iter().filter_map(Agent::of));
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    agents.sort();
    Ok(agents)
}

/// The names of all nodes: one without an agent is not watched.
///
/// # Errors
/// The API server does not answer, or does not let the user list nodes.
pub async fn nodes(session: &Session) -> anyhow::Result<Vec<String>> {
    let nodes: Api<Node> = Api::all(session.client.clone());
    let mut names = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let listed = nodes.list_metadata(&page).await.map_err(told);
        let listed = listed.context("nodes cannot be listed, so that none can be missed")?;
        names.extend(listed.items.into_iter().filter_map(|node| node.metadata.name));
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(names),
        }
    }
}

impl Which {
    /// For messages.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{} in namespace {namespace}", self.selector),
            None => format!("{} in any namespace", self.selector),
        }
    }
}

impl Agent {
    fn of(pod: &Pod) -> Option<Self> {
        let name = pod.metadata.name.clone()?;
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
        let phase = phase.unwrap_or_default();
        if matches!(phase.as_str(), "Succeeded" | "Failed") {
            return None;
        }
        let spec = pod.spec.as_ref();
        let ports = spec.into_iter().flat_map(|spec| &spec.containers);
        let mut ports = ports.flat_map(|container| container.ports.iter().flatten());
        let port = ports.find(|port| port.name.as_deref() == Some("http"));
        let port = port.and_then(|port| u16::try_from(port.container_port).ok());
        let node = spec.and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty());
        Some(Self {
            node: node.unwrap_or_else(|| format!("(none yet, pod {name})")),
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            pod: name,
            port: port.unwrap_or(PORT_DEFAULT),
            phase,
        })
    }

    /// The way through the API server, as `kubectl get --raw` takes it.
    fn path(&self, path: &str) -> String {
        let Self { namespace, pod, port, .. } = self;
        format!("/api/v1/namespaces/{namespace}/pods/http:{pod}:{port}/proxy{path}")
    }
}

/// Asks each agent for its own path, and hands over the answers as they come.
pub async fn ask(
    session: &Session,
    questions: impl IntoIterator<Item = (Agent, String)>,
    mut answered: impl FnMut(Answer),
) {
    let places = Arc::new(Semaphore::new(ASKED_AT_ONCE));
    let mut asked = JoinSet::new();
    for (agent, path) in questions {
        let (client, places) = (session.client.clone(), Arc::clone(&places));
        asked.spawn(async move {
            // The semaphore is never closed.
            let place = places.acquire_owned().await;
            let body =
                match tokio::time::timeout(ANSWER_TIME_MAX, get(&client, &agent, &path)).await {
                    Ok(body) => body.map_err(|error| format!("{error:#}")),
                    Err(_) => Err(format!("no answer in {} s", ANSWER_TIME_MAX.as_secs())),
                };
            drop(place);
            Answer { agent, body }
        });
    }
    while let Some(done) = asked.join_next().await {
        // A task that panicked is a bug of ours, told by the panic itself; its node has no answer.
        if let Ok(answer) = done {
            answered(answer);
        }
    }
}

async fn get(client: &Client, agent: &Agent, path: &str) -> anyhow::Result<Bytes> {
    let waiting = ["", "Running"].contains(&agent.phase.as_str());
    ensure!(waiting, "its pod is {}", agent.phase);
    let request = Request::get(agent.path(path)).body(Body::empty())?;
    let answer =
        client.send(request).await.map_err(told).context("the API server does not answer")?;
    let status = answer.status();
    let body = axum::body::Body::new(answer.into_body());
    let body = axum::body::to_bytes(body, ANSWER_BYTES_MAX).await;
    let body = body.context("the answer broke off, or is too long")?;
    ensure!(status.is_success(), "{}: {}", status.as_u16(), said(&body));
    Ok(body)
}

/// The message of the API server's or the agent's own error, or the beginning of whatever it is.
fn said(body: &[u8]) -> String {
    let json = serde_json::from_slice::<serde_json::Value>(body).ok();
    let message = json.as_ref().and_then(|json| json.get("message").or_else(|| json.get("error")));
    let text = match message.and_then(serde_json::Value::as_str) {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(body).into_owned(),
    };
    let text: String = text.chars().filter(|each| !each.is_control()).collect();
    text.chars().take(SHOWN_CHARS_MAX).collect()
}
