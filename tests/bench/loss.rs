//! How many connections a second the agent follows, over `conntrack -E`.
//!
//! In a ramp, each step makes new pairs of UDP sockets that differ in their ports. Both watch the
//! same steps until conntrack misses the first; the agent goes on until it does, or until the
//! generator gets no faster: then the number is a lower bound.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use support::network::{Family, SILENT};
use support::node::Node;
use support::{cgroup, tool};

use crate::load::{Done, Load, Work};
use crate::outcome::{Goal, Outcome, number};
use crate::pods::{self, Pods, Seen};

/// The slowest step, and how much faster each next one is.
const FIRST: u64 = 1_000;
const FASTER: (u64, u64) = (3, 2);
const STEPS_MAX: u32 = 20;
const SECONDS: f64 = 1.0;
/// How long conntrack may take to print what it has.
const PATIENCE: Duration = Duration::from_secs(2);
/// A generator that makes less than this share of what it is to make is at its end.
const KEPT: f64 = 0.8;

pub(crate) fn measure() -> anyhow::Result<()> {
    let pods = Pods::start()?;
    let agent = pods.agent()?;
    let mut conntrack = Some(Conntrack::start(&pods.node)?);
    let (mut made, mut asked) = (0, FIRST);
    // The fastest step that both followed, and conntrack's first loss.
    let (mut followed, mut conntrack_lost, mut agent_lost) = (0.0, None, None);
    for _ in 0..STEPS_MAX {
        let done = step(&pods, made, asked)?;
        made += done.count;
        if let Some(watcher) = &conntrack
            && watcher.seen_when(made) != made
        {
            ensure!(watcher.seen_when(made) > 0, "conntrack -E sees nothing of the generator");
            conntrack_lost = Some(done.per_second());
            conntrack = None;
            // What comes behind the sockets is not the agent's price: packets end here from now on.
            pods.client.network().within(|| tool::ip_batch(&shortcut()))?;
        }
        let expected = Seen { udp: made, ..Seen::default() };
        let seen = pods::seen_when(&agent, |seen| Seen { edges: 0, ..*seen } == expected)?;
        if (Seen { edges: 0, ..seen }) != expected {
            agent_lost = Some(done.per_second());
            break;
        }
        followed = f64::max(followed, done.per_second());
        if done.per_second() < KEPT * number(asked) && conntrack.is_none() {
            break;
        }
        forget(&pods.node)?;
        asked = asked * FASTER.0 / FASTER.1;
    }
    ensure!(made > 0, "nothing was generated");
    report(followed, conntrack_lost, agent_lost);
    Ok(())
}

fn step(pods: &Pods, first: u64, per_second: u64) -> anyhow::Result<Done> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rate below 2^32 and a time of seconds"
    )]
    let count = (per_second as f64 * SECONDS) as u64;
    let target = SILENT.of(Family::V4);
    Load::run(&pods.client, Work::Tuples { target, first, per_second, count })
}

fn report(followed: f64, conntrack_lost: Option<f64>, agent_lost: Option<f64>) {
    let unit = "times conntrack -E";
    let (agent, note) = match (agent_lost, conntrack_lost) {
        (_, None) => (followed, Some("conntrack -E lost nothing as fast as the generator is")),
        (None, Some(_)) => (followed, Some("not reached: the generator gets no faster")),
        (Some(lost), Some(_)) => (lost, None),
    };
    let ratio = conntrack_lost.map_or(1.0, |lost| agent / lost);
    Outcome::new("first loss in a ramp of connections", ratio, unit, Goal::AtLeast(4.0))
        .noting(note)
        .with("agent_followed_per_second", followed)
        .with("agent_first_loss_per_second", agent_lost)
        .with("conntrack_first_loss_per_second", conntrack_lost)
        .print();
}

/// Rules of the node make it track connections already: those of Services rewrite addresses.
const TRACKED: &str = "add table inet bench\n\
    add chain inet bench through { type filter hook forward priority 10; }\n\
    add rule inet bench through ct state new counter accept\n";

/// A bridge without ports drops what it is given.
fn shortcut() -> String {
    let target = SILENT.of(Family::V4);
    format!(
        "link add sink type bridge\n\
         link set sink up\n\
         neigh replace {target} lladdr 02:00:00:00:00:09 dev sink nud permanent\n\
         route add {target}/32 dev sink\n"
    )
}

/// Entries of a step are over, so that the table has room for the next one.
fn forget(node: &Node) -> anyhow::Result<()> {
    node.network().within(|| tool::run("conntrack", &["-F"], "")).map(drop)
}

/// A running `conntrack -E`. Dropping it kills it.
struct Conntrack {
    child: Child,
    new: Arc<AtomicU64>,
}

impl Conntrack {
    fn start(node: &Node) -> anyhow::Result<Self> {
        node.network().within(|| tool::nft(TRACKED))?;
        let mut command = Command::new("conntrack");
        command.args(["-E", "-p", "udp"]).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = node.network().within(|| {
            command.spawn().context("cannot start conntrack (`cargo xtask setup` installs it)")
        })?;
        // So that it ends with the node, whatever ends that.
        cgroup::join(&node.side_cgroup()?, child.id())?;
        let stdout = child.stdout.take().context("conntrack without stdout")?;
        let new = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&new);
        thread::spawn(move || count(stdout, &counter));
        // Until it listens.
        thread::sleep(Duration::from_millis(500));
        Ok(Self { child, new })
    }

    /// How many new connections it has told of when it has told of so many, or at last.
    fn seen_when(&self, expected: u64) -> u64 {
        let since = Instant::now();
        loop {
            let seen = self.new.load(Ordering::Relaxed);
            if seen == expected || since.elapsed() > PATIENCE {
                return seen;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Conntrack {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Counts the lines of new connections, as fast as they come.
fn count(stdout: ChildStdout, new: &AtomicU64) {
    let mut lines = BufReader::with_capacity(1 << 18, stdout);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        // After the time stamp, if there is one: `    [NEW] udp      17 30 src=..`.
        if line.windows(5).take(40).any(|word| word == b"[NEW]") {
            new.fetch_add(1, Ordering::Relaxed);
        }
        line.clear();
    }
}
