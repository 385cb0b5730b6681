//! The agent itself, run as a user runs it.
//!
//! In: a node to watch and candidates. Out: what it says over HTTP. It is stopped as an init system
//! would, and killed with the node if that does not help.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cgroup;
use crate::http;
use crate::namespace::{self, Namespace};
use crate::node::Node;
use crate::object::NODE_NAME;
use crate::report::Report;

/// How long the agent may take for anything a test waits for.
const PATIENCE: Duration = Duration::from_secs(15);

/// A running agent. Dropping it kills it.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
    /// Where it is, if not where the tests are.
    network: Option<Namespace>,
}

impl Agent {
    /// Starts `binary run` on this node with `NAME=PATH` candidates and waits until it is ready. It
    /// pins nothing.
    ///
    /// # Errors
    /// If it ends before, or is not ready in time; its own words are quoted.
    pub fn start(binary: &Path, node: &Node, candidates: &[String]) -> anyhow::Result<Self> {
        Self::start_at(None, binary, node, &unpinned(candidates))
    }

    /// The same in the node's own network, as an agent on the host network: only there it is told
    /// the node's addresses and connections.
    ///
    /// # Errors
    /// If it ends before, or is not ready in time; its own words are quoted.
    pub fn start_on(binary: &Path, node: &Node, candidates: &[String]) -> anyhow::Result<Self> {
        Self::start_at(Some(node.network().clone()), binary, node, &unpinned(candidates))
    }

    /// As [`Self::start_on`], with these arguments of `parapet run` and no others.
    ///
    /// # Errors
    /// If it ends before, or is not ready in time; its own words are quoted.
    pub fn start_on_with(binary: &Path, node: &Node, arguments: &[String]) -> anyhow::Result<Self> {
        Self::start_at(Some(node.network().clone()), binary, node, arguments)
    }

    /// As [`Self::start`], with these arguments of `parapet run` and no others: without a
    /// `--pin-dir` among them it pins where every agent does.
    ///
    /// # Errors
    /// If it ends before, or is not ready in time; its own words are quoted.
    pub fn start_with(binary: &Path, node: &Node, arguments: &[String]) -> anyhow::Result<Self> {
        Self::start_at(None, binary, node, arguments)
    }

    /// As [`Self::start_with`], without waiting for anything.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn launch(binary: &Path, node: &Node, arguments: &[String]) -> anyhow::Result<Self> {
        Self::launch_at(None, binary, node, arguments)
    }

    /// Starts it on this node with a kubeconfig in place of manifests and waits until it is ready.
    ///
    /// # Errors
    /// If it ends before, or is not ready in time; its own words are quoted.
    pub fn start_live(
        binary: &Path,
        node: &Node,
        kubeconfig: &Path,
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        let mut agent = Self::launch_live(binary, node, kubeconfig, arguments)?;
        agent.wait_until_ready()?;
        Ok(agent)
    }

    /// Starts it on this node with other manifests than the node's and waits until it is ready.
    ///
    /// # Errors
    /// If it ends before, or is not ready in time; its own words are quoted.
    pub fn start_from(
        binary: &Path,
        node: &Node,
        manifests: &Path,
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        let mut agent =
            Self::launch_from(None, binary, node, ("--manifests", manifests), arguments)?;
        agent.wait_until_ready()?;
        Ok(agent)
    }

    /// [`Self::start_live`] without waiting for anything.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn launch_live(
        binary: &Path,
        node: &Node,
        kubeconfig: &Path,
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        Self::launch_from(None, binary, node, ("--kubeconfig", kubeconfig), arguments)
    }

    fn start_at(
        network: Option<Namespace>,
        binary: &Path,
        node: &Node,
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        let mut agent = Self::launch_at(network, binary, node, arguments)?;
        agent.wait_until_ready()?;
        Ok(agent)
    }

    fn launch_at(
        network: Option<Namespace>,
        binary: &Path,
        node: &Node,
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        let manifests = node.manifests().to_owned();
        Self::launch_from(network, binary, node, ("--manifests", &manifests), arguments)
    }

    fn launch_from(
        network: Option<Namespace>,
        binary: &Path,
        node: &Node,
        (option, objects): (&str, &Path),
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        // Given back before the agent takes it; nobody else asks for it in between.
        let free = || Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?);
        let address = namespace::within(network.as_ref(), free)?;
        // One for each: two may run at once.
        let log = node.folder().join(format!("agent-{}.log", address.port()));
        let mut command = Command::new(binary);
        command
            .arg("run")
            .arg(option)
            .arg(objects)
            .arg("--cgroup-root")
            .arg(node.cgroup_root())
            .arg("--kubelet-root")
            .arg(node.kubelet_root())
            .args(["--node-name", NODE_NAME, "--listen", &address.to_string()])
            .args(arguments)
            // So that nobody waits for what is found by going through all descriptors.
            .env("PARAPET_SWEEP_EVERY", "5s");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).with_context(|| log.display().to_string())?);
        let spawn =
            || command.spawn().with_context(|| format!("cannot start {}", binary.display()));
        let child = namespace::within(network.as_ref(), spawn)?;
        let agent = Self { child, address, log, network };
        // So that it ends with the node, whatever ends that.
        cgroup::join(&node.side_cgroup()?, agent.child.id())?;
        Ok(agent)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on stderr.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it answers to a GET, asked from where it is.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn get(&self, path: &str) -> anyhow::Result<http::Answer> {
        namespace::within(self.network.as_ref(), || http::get(self.address, path))
    }

    /// Its report, now.
    ///
    /// # Errors
    /// If it does not answer with one.
    pub fn report(&self) -> anyhow::Result<Report> {
        let answer = self.get("/report")?;
        serde_json::from_str(&answer.body)
            .with_context(|| format!("/report answered {}: {}", answer.head, answer.body))
    }

    /// Its first report of which this is so, or the last one if time runs out: who asked compares.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn report_when(&self, is_so: impl Fn(&Report) -> bool) -> anyhow::Result<Report> {
        let since = Instant::now();
        loop {
            let report = self.report()?;
            if is_so(&report) || since.elapsed() > PATIENCE {
                return Ok(report);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until it watches this many superblocks for secrets.
    ///
    /// # Errors
    /// If it does not answer, or watches another number when time runs out.
    pub fn wait_for_volumes(&self, count: u64) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            let status: Value = serde_json::from_str(&self.get("/status")?.body)?;
            let mut sources = status["sources"].as_array().into_iter().flatten();
            let own = sources.find(|source| source["resource"] == "secret_volumes");
            let own = own.context("no secret volumes in /status")?;
            if own["objects"] == count {
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                bail!("not {count} volumes: {own:#}\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it as the kernel does when memory runs out: it can do nothing about it.
    pub fn kill(self) {
        drop(self);
    }

    /// Asks it to end and waits.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process without id")?, Signal::TERM).context("SIGTERM")?;
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("the agent does not end: {}", self.log())
    }

    /// Waits until it says so.
    ///
    /// # Errors
    /// If it ends before, or is not ready in time; its own words are quoted.
    pub fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended with {status}: {}", self.log());
            }
            if self.get("/readyz").is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                bail!("the agent is not ready: {}", self.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn unpinned(candidates: &[String]) -> Vec<String> {
    let mut arguments = vec!["--pin-dir".to_owned(), "none".to_owned()];
    for candidate in candidates {
        arguments.extend(["--candidate".to_owned(), candidate.clone()]);
    }
    arguments
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
