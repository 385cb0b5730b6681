//! The one owner of all state: inputs in, a snapshot out.
//!
//! In: [`Input`]s in the order they happened. Out: [`Snapshot`]s. It holds the control flow of the
//! core; it never reads a clock, blocks, logs or does I/O.

use crate::object::Change;
use crate::record::Record;

use crate::flow::Timestamp;

/// Everything that can happen to the engine.
#[derive(Clone, Debug)]
pub enum Input {
    /// Facts from the kernel and the node's cgroup tree, oldest first.
    Records(Vec<Record>),
    /// The cluster, or a folder of manifests, changed at this time.
    Cluster(Vec<Change>, Timestamp),
    /// A named candidate's objects are now exactly these; an empty list is an empty candidate.
    Candidate(std::sync::Arc<str>, Vec<crate::object::Object>, Timestamp),
    /// This node: its name and all of its own addresses, bridges and tunnels included.
    Node(NodeFacts),
    /// Time went on.
    Tick(Timestamp),
}

/// What the agent knows of the node it runs on without asking the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name in the cluster; empty if not known.
    pub name: String,
    /// Every address of the host's network namespace.
    pub addrs: Vec<std::net::IpAddr>,
}
