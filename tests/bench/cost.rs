//! What following a connection costs the agent, over what it costs softflowd.
//!
//! Both watch the same connections at the same time: the agent the sockets of both pods, so that it
//! counts every connection twice, softflowd the client's wire. softflowd exports each flow soon
//! after its end, so that the whole price of a connection falls into the run.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use support::cgroup;
use support::node::Node;

use crate::load::{Load, Work};
use crate::outcome::{Goal, Outcome, number};
use crate::pods::{self, Pods, Seen};
use crate::usage;

const PER_SECOND: u64 = 5_000;
const SECONDS: u64 = 6;
/// After the load, so that softflowd has exported everything: see its timeouts below.
const SETTLE: Duration = Duration::from_secs(4);
/// NetFlow version 5 counts each direction of a connection.
const FLOWS_A_CONNECTION: u64 = 2;

pub(crate) fn measure() -> anyhow::Result<()> {
    let pods = Pods::start()?;
    let agent = pods.agent_of_flows()?;
    let softflowd = Softflowd::start(&pods.node)?;
    let _server = pods.serve()?;
    let _statistics =
        parapet::kernel::measure::statistics().map_err(|error| anyhow!("statistics: {error}"))?;
    let before = [usage::cpu(agent.pid())?, softflowd.cpu()?, usage::programs(agent.pid())?];
    let count = PER_SECOND * SECONDS;
    let work = Work::Connections { targets: pods.targets(), per_second: PER_SECOND, count };
    let done = Load::run(&pods.client, work)?;
    thread::sleep(SETTLE);
    let after = [usage::cpu(agent.pid())?, softflowd.cpu()?, usage::programs(agent.pid())?];
    let edges = u64::try_from(pods.targets().len())?;
    pods::check(&agent, Seen { tcp: count, edges, ..Seen::default() })?;
    let exported = softflowd.flows.load(Ordering::Relaxed);
    ensure!(exported > 0, "softflowd exported nothing");

    let mut us = [0.0; 3];
    for ((us, before), after) in us.iter_mut().zip(before).zip(after) {
        *us = after.saturating_sub(before).as_secs_f64() * 1e6 / number(count);
    }
    let [own, other, kernel] = us;
    let note = (done.per_second() < 0.95 * number(PER_SECOND))
        .then_some("the machine did not keep the rate");
    let coverage = number(exported) / number(count * FLOWS_A_CONNECTION);
    let note =
        note.or((coverage < 0.98).then_some("softflowd missed some and did not pay for them"));
    Outcome::new(
        "agent's CPU a TCP connection at 5,000/s",
        own / other,
        "times softflowd's",
        Goal::AtMost(0.5),
    )
    .noting(note)
    .with("agent_us", own)
    .with("softflowd_us", other)
    .with("softflowd_saw", coverage)
    .with("connections", count)
    .with("per_second", done.per_second())
    .print();
    Outcome::new(
        "the same with the agent's programs in the kernel",
        (own + kernel) / other,
        "times softflowd's",
        Goal::None,
    )
    .with("programs_us", kernel)
    .print();
    Ok(())
}

/// A running softflowd and how many flows it has exported. Dropping it kills it.
struct Softflowd {
    child: Child,
    flows: Arc<AtomicU64>,
}

impl Softflowd {
    fn start(node: &Node) -> anyhow::Result<Self> {
        let sink = node.network().within(|| Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?))?;
        let address = sink.local_addr()?;
        let mut command = command(node, address)?;
        let child = node.network().within(|| {
            command.spawn().context("cannot start softflowd (`cargo xtask setup` installs it)")
        })?;
        let flows = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&flows);
        thread::spawn(move || receive(&sink, &counter));
        let mut softflowd = Self { child, flows };
        // So that it ends with the node, whatever ends that.
        cgroup::join(&node.side_cgroup()?, softflowd.child.id())?;
        thread::sleep(Duration::from_millis(500));
        if let Some(status) = softflowd.child.try_wait()? {
            let log = std::fs::read_to_string(node.folder().join("softflowd.log"))?;
            bail!("softflowd ended with {status}: {log}");
        }
        Ok(softflowd)
    }

    fn cpu(&self) -> anyhow::Result<Duration> {
        usage::cpu(self.child.id())
    }
}

impl Drop for Softflowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the foreground, on the node's end of the client's wire, which is the first that was made. Its
/// table has as much room as the agent's. Flows are exported a second after their end instead of
/// after five minutes.
fn command(node: &Node, sink: SocketAddr) -> anyhow::Result<Command> {
    let folder = node.folder();
    let log = File::create(folder.join("softflowd.log")).context("softflowd.log")?;
    let mut command = Command::new("softflowd");
    command
        .args(["-i", "v0", "-d", "-N", "-v", "5", "-m", "65536", "-n", &sink.to_string()])
        .args(["-t", "tcp.fin=1", "-t", "expint=1"])
        .arg("-p")
        .arg(folder.join("softflowd.pid"))
        .arg("-c")
        .arg(folder.join("softflowd.ctl"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    Ok(command)
}

/// A burst may be more than the socket holds; what is counted is the exporter's own number.
fn receive(sink: &UdpSocket, flows: &AtomicU64) {
    let mut datagram = [0; 2_048];
    while let Ok(bytes) = sink.recv(&mut datagram) {
        flows.fetch_max(netflow5(&datagram[..bytes]).unwrap_or(0), Ordering::Relaxed);
    }
}

/// Flows exported up to and with this datagram: version, count, and from the 16th byte on the flows
/// before it.
fn netflow5(datagram: &[u8]) -> Option<u64> {
    let [0, 5, high, low, ..] = datagram else { return None };
    let before: [u8; 4] = datagram.get(16..20)?.try_into().ok()?;
    let count = u16::from_be_bytes([*high, *low]);
    Some(u64::from(u32::from_be_bytes(before)) + u64::from(count))
}

#[cfg(test)]
mod tests {
    use super::netflow5;

    #[test]
    fn flows_are_counted_by_the_header_of_version_5_only() {
        let mut header = [0; 24];
        header[1] = 5;
        header[3] = 30;
        header[18] = 1;
        assert_eq!(netflow5(&header), Some(256 + 30));
        assert_eq!(netflow5(&header[..19]), None);
        header[1] = 9;
        assert_eq!(netflow5(&header), None);
    }
}
