//! Load generators, each a process of its own in a pod.
//!
//! In: what to do, as one JSON argument. Out: what was done and how long it took, as one JSON line.
//! Counts are exact. A generator makes no socket before it has entered its pod.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use support::pod::Pod;
use support::task::Place;
use support::traffic;

mod clients;
mod datagrams;
mod opens;
mod server;

/// The first argument by which the bench knows that it is to be a generator.
const WORD: &str = "load";

/// What a generator does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Answers TCP on all of these ports, and UDP, until its stdin ends.
    Serve(Vec<u16>),
    /// What it is told, one thing after the other, until its stdin ends.
    Obey,
    /// TCP connections, each with a request and an answer, begun at a steady rate.
    Connections { targets: Vec<SocketAddr>, per_second: u64, count: u64 },
    /// One after the other for so many milliseconds, each as soon as the last is done.
    Closed { kind: Closed, targets: Vec<SocketAddr>, ms: u64 },
    /// New UDP sockets, each with an address and port of its own and one datagram.
    Tuples { target: IpAddr, first: u64, per_second: u64, count: u64 },
    /// One datagram to each of these ports, from a socket for each, which stays until stdin ends.
    Datagrams { target: IpAddr, ports: Range<u16> },
    /// A file that is opened, read once and closed, at a steady rate.
    Opens { file: PathBuf, per_second: u64, count: u64 },
}

/// What is repeated in a closed loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Closed {
    /// A request and its answer on one TCP connection.
    TcpRr,
    /// A TCP connection with a request and its answer.
    TcpCrr,
    /// A datagram and its answer.
    UdpRr,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// How many of what it was to do, all of them answered where something answers.
    pub(crate) count: u64,
    /// How long that took.
    pub(crate) seconds: f64,
    /// Of the times from the first system call to the answer.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// When the first packet was sent, on the monotonic clock of all processes.
    pub(crate) began_ns: u64,
}

impl Done {
    /// From how long each took.
    fn timed(mut times: Vec<Duration>, took: Duration, began_ns: u64) -> Self {
        times.sort_unstable();
        let at = |hundredth: usize| {
            let time =
                times.get((times.len() * hundredth / 100).min(times.len().saturating_sub(1)));
            time.map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        let (p50_us, p99_us) = (at(50), at(99));
        Self { count: times.len() as u64, seconds: took.as_secs_f64(), p50_us, p99_us, began_ns }
    }

    /// How many in a second.
    pub(crate) fn per_second(&self) -> f64 {
        crate::outcome::number(self.count) / self.seconds.max(1e-9)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    place: Place,
    work: Work,
}

#[derive(Debug, Serialize, Deserialize)]
enum Line {
    /// It is in its pod; a server can be asked from now on.
    Ready,
    Done(Done),
}

/// A running generator. Dropping it kills it.
pub(crate) struct Load {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Load {
    pub(crate) fn start(pod: &Pod, work: Work) -> anyhow::Result<Self> {
        let namespace = pod.network().path().to_owned();
        let place = Place { cgroup: Some(pod.cgroup.clone()), namespace };
        let order = serde_json::to_string(&Order { place, work })?;
        let mut child = Command::new(std::env::current_exe()?)
            .args([WORD, &order])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a generator")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("a generator without stdout")?;
        let mut load = Self { child, stdin, lines: BufReader::new(stdout) };
        match load.line()? {
            Line::Ready => Ok(load),
            Line::Done(done) => bail!("a generator was done too early: {done:?}"),
        }
    }

    /// Waits until it is done. A generator that keeps its sockets keeps them until it is dropped.
    pub(crate) fn wait(&mut self) -> anyhow::Result<Done> {
        match self.line()? {
            Line::Done(done) => Ok(done),
            Line::Ready => bail!("a generator was ready twice"),
        }
    }

    /// Tells one that obeys to do this, and waits until it is done.
    pub(crate) fn order(&mut self, work: &Work) -> anyhow::Result<Done> {
        let stdin = self.stdin.as_mut().context("a generator without stdin")?;
        writeln!(stdin, "{}", serde_json::to_string(work)?).context("an order")?;
        self.wait()
    }

    /// Does this work to its end.
    pub(crate) fn run(pod: &Pod, work: Work) -> anyhow::Result<Done> {
        Self::start(pod, work)?.finish()
    }

    /// Waits for what it has done, and for its end.
    pub(crate) fn finish(mut self) -> anyhow::Result<Done> {
        drop(self.stdin.take());
        let done = self.wait()?;
        let status = self.child.wait().context("a generator")?;
        if status.success() { Ok(done) } else { bail!("a generator ended with {status}") }
    }

    fn line(&mut self) -> anyhow::Result<Line> {
        let mut line = String::new();
        self.lines.read_line(&mut line).context("a generator")?;
        serde_json::from_str(&line).with_context(|| format!("a generator said `{line}`"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Generates load if the program was started for that, and else returns none.
pub(crate) fn perform_if_told() -> Option<ExitCode> {
    traffic::perform_if(WORD, perform)
}

fn perform(order: &str) -> anyhow::Result<()> {
    let Order { place, work } = serde_json::from_str(order).context("the order")?;
    traffic::enter(&place)?;
    match work {
        Work::Serve(ports) => {
            server::start(&ports)?;
            say(&Line::Ready)?;
            until_stdin_ends();
            say(&Line::Done(Done::default()))
        }
        Work::Datagrams { target, ports } => {
            say(&Line::Ready)?;
            let (done, _sockets) = datagrams::one_each(target, ports)?;
            say(&Line::Done(done))?;
            until_stdin_ends();
            Ok(())
        }
        Work::Obey => {
            say(&Line::Ready)?;
            for line in std::io::stdin().lock().lines() {
                say(&Line::Done(done(serde_json::from_str(&line?).context("an order")?)?))?;
            }
            say(&Line::Done(Done::default()))
        }
        work => {
            say(&Line::Ready)?;
            say(&Line::Done(done(work)?))
        }
    }
}

/// What has an end of its own.
fn done(work: Work) -> anyhow::Result<Done> {
    match work {
        Work::Connections { targets, per_second, count } => {
            clients::connections(&targets, per_second, count)
        }
        Work::Closed { kind, targets, ms } => clients::closed(kind, &targets, ms),
        Work::Opens { file, per_second, count } => opens::opens(&file, per_second, count),
        Work::Tuples { target, first, per_second, count } => {
            datagrams::tuples(target, first, per_second, count)
        }
        Work::Serve(_) | Work::Obey | Work::Datagrams { .. } => bail!("{work:?} has no end"),
    }
}

fn until_stdin_ends() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn say(line: &Line) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(line)?).context("stdout")?;
    stdout.flush().context("stdout")
}

/// The monotonic clock, which all processes share.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |value: i64| u64::try_from(value).unwrap_or_default();
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}
