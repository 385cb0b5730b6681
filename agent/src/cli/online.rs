//! What the commands that ask a whole cluster share.
//!
//! In: arguments. Out: the reports of all agents, reached through the API server, as one; or the
//! cluster's objects. It says on stderr how far it is and which nodes are missing.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::agent;
use super::cluster::{ClusterArgs, HEADING};
use crate::cluster::agents::{self, Agent, SELECTOR_DEFAULT, Which};
use crate::cluster::connect::Session;
use crate::cluster::listed;
use crate::export::report::Report;
use crate::export::report::merge::Fleet;
use crate::manifests::Loaded;

/// How often it says how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(2);
/// Pods come and go: whoever asks for longer looks for agents again.
const FIND_EVERY: Duration = Duration::from_secs(30);

/// Whom a command asks that reads what was observed.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ObserverArgs {
    /// The one agent to ask [default: http://127.0.0.1:9464, unless a cluster is asked]
    #[arg(long, value_name = "URL", env = "PARAPET_AGENT", conflicts_with = "cluster")]
    pub(super) agent: Option<String>,
    #[command(flatten)]
    pub(super) agents: AgentsArgs,
    #[command(flatten)]
    pub(super) server: ClusterArgs,
}

/// Which pods of a cluster are agents.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct AgentsArgs {
    /// Ask all agents of the cluster, through its API server; implied by the flags below
    #[arg(long, help_heading = HEADING, env = "PARAPET_CLUSTER")]
    pub(super) cluster: bool,
    /// The namespace of the agents' pods [default: any]
    #[arg(long, help_heading = HEADING, value_name = "NS", env = "PARAPET_AGENT_NAMESPACE")]
    agent_namespace: Option<String>,
    /// The labels of the agents' pods
    #[arg(
        long, help_heading = HEADING, value_name = "LABELS", default_value = SELECTOR_DEFAULT,
        env = "PARAPET_AGENT_SELECTOR"
    )]
    agent_selector: String,
}

/// A cluster that can be asked, again and again.
#[derive(Debug)]
pub(super) struct Cluster {
    tasks: tokio::runtime::Runtime,
    session: Session,
}

/// The agents of a cluster, and what they said so far.
#[derive(Debug)]
pub(super) struct Observers {
    cluster: Cluster,
    which: Which,
    agents: Vec<Agent>,
    found: Instant,
    /// All reports.
    pub(super) fleet: Fleet,
}

impl ObserverArgs {
    /// Whether a cluster is asked, and not one agent.
    pub(super) fn wants_cluster(&self) -> bool {
        self.agent.is_none() && (self.agents.is_given() || self.server.is_given())
    }

    /// The report of the one agent, or of all agents of the cluster.
    pub(super) fn report(&self) -> anyhow::Result<Report> {
        if !self.wants_cluster() {
            let agent = self.agent.as_deref().unwrap_or(agent::AGENT_DEFAULT);
            return agent::fetch(agent, "/report");
        }
        let report = Cluster::open(&self.server)?.observers(&self.agents)?.report()?;
        somebody_answered(&report)?;
        Ok(report)
    }
}

impl AgentsArgs {
    fn is_given(&self) -> bool {
        self.cluster || self.agent_namespace.is_some() || self.agent_selector != SELECTOR_DEFAULT
    }
}

impl Cluster {
    /// Gets ready to ask.
    pub(super) fn open(args: &ClusterArgs) -> anyhow::Result<Self> {
        let tasks = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let tasks = tasks.context("no runtime can be started")?;
        let session = tasks.block_on(Session::open(&args.target()))?;
        tracing::debug!("asking {}", session.server());
        Ok(Self { tasks, session })
    }

    /// The objects that are judged by, where no files hold them.
    pub(super) fn declared(args: &ClusterArgs) -> anyhow::Result<Loaded> {
        let cluster = Self::open(args).context("without --manifests a cluster is asked")?;
        let loaded = cluster.tasks.block_on(listed::list(&cluster.session));
        loaded.with_context(|| cluster.session.server().to_owned())
    }

    /// Its agents.
    pub(super) fn observers(self, args: &AgentsArgs) -> anyhow::Result<Observers> {
        let namespace = args.agent_namespace.clone();
        let which = Which { namespace, selector: args.agent_selector.clone() };
        let mut observers = Observers {
            cluster: self,
            which,
            agents: Vec::new(),
            found: Instant::now(),
            fleet: Fleet::default(),
        };
        observers.find()?;
        Ok(observers)
    }
}

impl Observers {
    /// Looks for agents, and for nodes that have none.
    fn find(&mut self) -> anyhow::Result<()> {
        let Self { cluster: Cluster { tasks, session }, which, .. } = self;
        self.agents = tasks.block_on(agents::find(session, which))?;
        if self.agents.is_empty() {
            bail!(
                "{}: no agent is there: no pod has {}. Is the DaemonSet of deploy/ applied? Name \
                 others with --agent-selector and --agent-namespace",
                session.server(),
                which.place()
            );
        }
        for node in tasks.block_on(agents::nodes(session))? {
            if !self.agents.iter().any(|agent| agent.node == node) {
                self.fleet.silent(&node, "no agent runs there".to_owned());
            }
        }
        self.found = Instant::now();
        Ok(())
    }

    /// Everything that all of them know.
    pub(super) fn report(&mut self) -> anyhow::Result<Report> {
        self.ask(|_| "/report".to_owned(), |fleet, report| fleet.add(report));
        Ok(self.fleet.report())
    }

    /// What is new since the last time: hands each node's own news over before they are merged.
    pub(super) fn news(&mut self, mut told: impl FnMut(&Report)) -> anyhow::Result<()> {
        if self.found.elapsed() > FIND_EVERY {
            self.find()?;
        }
        let newest: Vec<(String, u64)> = self
            .agents
            .iter()
            .map(|agent| (agent.node.clone(), self.fleet.newest_ns(&agent.node)))
            .collect();
        let since =
            |node: &str| newest.iter().find(|(known, _)| known == node).map_or(0, |(_, at)| *at);
        self.ask(
            |node| format!("/flows?since={}", since(node)),
            |fleet, report| {
                told(&report);
                fleet.update(report);
            },
        );
        Ok(())
    }

    fn ask(&mut self, path: impl Fn(&str) -> String, mut add: impl FnMut(&mut Fleet, Report)) {
        let Self { cluster: Cluster { tasks, session }, agents, fleet, .. } = self;
        let questions: Vec<_> =
            agents.iter().map(|agent| (agent.clone(), path(&agent.node))).collect();
        let (all, mut done, mut last) = (questions.len(), 0, Instant::now());
        tasks.block_on(agents::ask(session, questions, |answer| {
            done += 1;
            if last.elapsed() > TOLD_EVERY {
                tracing::info!("{done} of {all} agents answered so far");
                last = Instant::now();
            }
            let Agent { node, namespace, pod, .. } = &answer.agent;
            let report = answer.body.and_then(|body| {
                agent::parse(&body).map_err(|error| format!("its answer is no report: {error:#}"))
            });
            match report {
                Ok(report) => add(fleet, Report { node: node.clone(), ..report }),
                Err(problem) => {
                    tracing::warn!("node {node} (pod {namespace}/{pod}): {problem}");
                    fleet.silent(node, problem);
                }
            }
        }));
    }
}

/// Nothing seen and nobody there to see are not the same.
pub(super) fn somebody_answered(report: &Report) -> anyhow::Result<()> {
    let silent = report.nodes.iter().filter(|node| node.problem.is_some()).count();
    if silent < report.nodes.len() {
        return Ok(());
    }
    bail!("none of {silent} nodes answers; see above");
}
