//! The simulated node that the agent is measured on: a client's pod and a server's.
//!
//! In: nothing. Out: the pods, whom the client may ask, and what the agent says of it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use support::agent::Agent;
use support::network::Family;
use support::node::Node;
use support::pod::{Pod, PodSpec};
use support::process::Program;
use support::report::Report;
use support::secret::SecretVolume;

use crate::load::{Load, Work};

/// Several, so that a client's ports do not run out while closed connections keep theirs.
const PORTS: [u16; 8] = [8_001, 8_002, 8_003, 8_004, 8_005, 8_006, 8_007, 8_008];
/// The client's Secret, and its only key.
const SECRET: &str = "keys";
const KEY: &str = "key";
/// How long the agent may take to say what it counted.
const PATIENCE: Duration = Duration::from_secs(10);

/// Two pods on a node.
pub(crate) struct Pods {
    pub(crate) client: Pod,
    pub(crate) server: Pod,
    pub(crate) node: Node,
    secret: SecretVolume,
}

/// What the agent counted of the client's side, and all that it lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) tcp: u64,
    pub(crate) udp: u64,
    pub(crate) edges: u64,
    pub(crate) lost: u64,
}

impl Pods {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let mut node = Node::start(&Program::current()?)?;
        let client = PodSpec::new("bench", "client").secret(SECRET).mounts(&[(SECRET, None)]);
        let client = node.pod(&client)?;
        let files = [(KEY, "not what anybody would call a secret")];
        let secret = SecretVolume::secret(&node, &client, SECRET, &files)?;
        let server = node.pod(&PodSpec::new("bench", "server"))?;
        client.network().within(|| {
            // What this namespace's connections to one address and port are told apart by.
            let range = "/proc/sys/net/ipv4/ip_local_port_range";
            fs::write(range, "1024 65535").context(range)
        })?;
        Ok(Self { client, server, node, secret })
    }

    /// The agent, in the node's own network.
    pub(crate) fn agent(&self) -> anyhow::Result<Agent> {
        Agent::start_on(&crate::agent()?, &self.node, &[])
    }

    /// The same, but watching no secrets: what that costs is measured by itself.
    pub(crate) fn agent_of_flows(&self) -> anyhow::Result<Agent> {
        let arguments = ["--pin-dir", "none", "--secret-hooks", "none"].map(str::to_owned);
        Agent::start_on_with(&crate::agent()?, &self.node, &arguments)
    }

    /// A server of everything that [`Self::targets`] are.
    pub(crate) fn serve(&self) -> anyhow::Result<Load> {
        Load::start(&self.server, Work::Serve(PORTS.to_vec()))
    }

    /// A file of the client's Secret.
    pub(crate) fn secret_file(&self) -> PathBuf {
        self.secret.file(KEY)
    }

    /// Whom the client may ask.
    pub(crate) fn targets(&self) -> Vec<SocketAddr> {
        PORTS.iter().map(|port| self.server.at(Family::V4, *port)).collect()
    }
}

/// The client's side in a report.
pub(crate) fn seen(report: &Report) -> Seen {
    let mut seen = Seen { lost: report.lost.values().sum(), ..Seen::default() };
    for edge in &report.edges {
        if edge.direction.as_deref() != Some("egress") || edge.source.shown() != "bench/client" {
            continue;
        }
        seen.edges += 1;
        match edge.protocol.as_str() {
            "TCP" => seen.tcp += edge.counts.attempts,
            "UDP" => seen.udp += edge.counts.attempts,
            _ => {}
        }
    }
    seen
}

/// What the agent has seen once this is so, or at last.
pub(crate) fn seen_when(agent: &Agent, is_so: impl Fn(&Seen) -> bool) -> anyhow::Result<Seen> {
    let since = Instant::now();
    loop {
        let seen = seen(&agent.report()?);
        if is_so(&seen) || since.elapsed() > PATIENCE {
            return Ok(seen);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Numbers about an agent that counts wrong are worth nothing.
pub(crate) fn check(agent: &Agent, expected: Seen) -> anyhow::Result<()> {
    let seen = seen_when(agent, |seen| *seen == expected)?;
    ensure!(seen == expected, "the agent counted {seen:?}, and not {expected:?}");
    Ok(())
}

/// The client's container opened its Secret so often, and nobody else did.
pub(crate) fn check_opens(agent: &Agent, expected: u64) -> anyhow::Result<()> {
    let since = Instant::now();
    loop {
        let reads = agent.report()?.secrets.reads;
        let opens: Vec<_> = reads.iter().map(|read| (&*read.relation, read.counts.opens)).collect();
        if opens == [("self", expected)] {
            return Ok(());
        }
        ensure!(since.elapsed() < PATIENCE, "the agent counted {opens:?}, and not {expected}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
