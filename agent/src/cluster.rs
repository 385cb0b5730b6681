//! The live cluster, by its API server: the only place that imports the kube client.
//!
//! In: where the API server is and who asks. Out: the cluster's objects as changes, and agents'
//! answers. It never asks for a Secret and never writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use kube::Client;
use parapet_core::identity::PeersMet;
use parapet_core::object::Kind;
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinSet;

use self::ask::Asker;
use self::connect::Target;
use self::pace::Pace;
use self::peers::Peers;
use self::resource::RESOURCES;
use self::state::States;
use self::take::Take;
use self::watch::{Newest, Watcher};

pub use self::ask::{REQUEST_SERIES_MAX, Requests};
pub use self::candidates::Staged;
pub use self::resource::CANDIDATE_LABEL;
pub use self::state::WatchState;
pub use self::take::Update;

pub mod agents;
mod ask;
mod body;
mod candidates;
pub mod connect;
mod decode;
pub mod listed;
mod pace;
mod peers;
mod resource;
mod served;
mod state;
mod take;
mod watch;

/// Until a connection to the API server stands.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Updates on their way to the engine. When it is slow, watches are read no further.
const UPDATES_MAX: usize = 4;

/// All watches of a cluster. They end when this is dropped.
#[derive(Debug)]
pub struct Watches {
    server: String,
    asker: Arc<Asker>,
    states: Arc<States>,
    peers: Option<Arc<Peers>>,
    _tasks: JoinSet<()>,
}

impl Watches {
    /// Starts to watch. `taken`: names of candidates that ConfigMaps may not have. Whether the API
    /// server can be reached is not waited for. `node` is the name of the own node; with `only_its`
    /// only its pods are watched, and others looked up when they are [`Self::met`].
    ///
    /// # Errors
    /// Nothing says where the API server is, or the certificates for it cannot be used.
    pub async fn start(
        target: &Target,
        taken: BTreeSet<Arc<str>>,
        (node, only_its): (&str, bool),
    ) -> anyhow::Result<(Self, mpsc::Receiver<Update>)> {
        let mut config = connect::config(target).await?;
        config.connect_timeout = Some(CONNECT_TIME_MAX);
        // Retries are ours: each is counted and waits as long as it is told.
        config.default_retry = false;
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config)
            .with_context(|| format!("the API server {server} cannot be asked"))?;
        let asker = Arc::new(Asker::new(client));
        let states = Arc::new(States::default());
        let (updates, told) = mpsc::channel(UPDATES_MAX);
        let (served, serves) = channel::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(served::follow(Arc::clone(&asker), Arc::clone(&states), served));
        let peers = only_its.then(|| Arc::new(Peers::default()));
        if let Some(peers) = &peers {
            let (asker, states) = (Arc::clone(&asker), Arc::clone(&states));
            tasks.spawn(Arc::clone(peers).run(node.to_owned(), asker, states, updates.clone()));
        }
        for resource in &RESOURCES {
            let of_node = Some(node).filter(|_| only_its && resource.kind() == Some(Kind::Pod));
            states.change(resource.name, |_| {});
            let watcher = Watcher {
                take: Take::new(resource, Arc::clone(&states), taken.clone())
                    .at(node)
                    .with_peers(of_node.and(peers.clone())),
                asker: Arc::clone(&asker),
                states: Arc::clone(&states),
                updates: updates.clone(),
                served: serves.clone(),
                selector: of_node
                    .map(|node| format!("fieldSelector=spec.nodeName%3D{node}"))
                    .unwrap_or_default(),
                pace: Pace::default(),
                version: None,
                newest: Newest::default(),
                paging: false,
            };
            tasks.spawn(watcher.run());
        }
        Ok((Self { server, asker, states, peers, _tasks: tasks }, told))
    }

    /// The API server's URL.
    #[must_use]
    pub fn server(&self) -> &str {
        self.server.trim_end_matches('/')
    }

    /// How each watch is doing, by resource. `discovery` stands for the question which definitions
    /// there are.
    #[must_use]
    pub fn states(&self) -> BTreeMap<&'static str, WatchState> {
        self.states.all()
    }

    /// Takes which addresses were met, where pods of other nodes are looked up.
    pub fn met(&self, met: &PeersMet) {
        if let Some(peers) = &self.peers {
            peers.met(met, Instant::now());
        }
    }

    /// Requests since the start.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.asker.requests()
    }

    /// Whether nothing is judged before this resource is known.
    #[must_use]
    pub fn is_needed(resource: &str) -> bool {
        RESOURCES.iter().any(|known| known.name == resource && known.kind().is_some())
    }
}
