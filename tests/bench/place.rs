//! Where the packet programs are measured: a network namespace in which every address of two ranges
//! is local, two cgroups, one with the programs and one without, and processes with sockets there.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command as Program, Stdio};

use anyhow::{Context as _, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::lifetime::Lifetime;
use support::namespace::Namespace;
use support::network::Family;
use support::{cgroup, process, tool};

use crate::sockets::{Command, DONE, Kind, Order, WORD};

/// Edges of one process: two files each, below the limit that most machines set.
const EDGES_A_PROCESS: u32 = 8_500;
const FILES: u64 = 20_000;

/// Gone when dropped, as everything of a run is.
pub(crate) struct Place {
    network: Namespace,
    measured: PathBuf,
    other: PathBuf,
    _lifetime: Lifetime,
}

impl Place {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let lifetime = Lifetime::begin(&process::Program::current()?)?;
        let network = Namespace::create(&format!("{}-bench", lifetime.name()))?;
        network.within(|| {
            // Addresses of IPv4's loopback range are local without this.
            tool::ip("route add local fd00:bb::/32 dev lo")?;
            set("net/ipv6/ip_nonlocal_bind", "1")?;
            set("net/ipv4/ip_local_port_range", "1024 39999")
        })?;
        let folder = cgroup::mount_point()?.join(lifetime.name());
        let (measured, other) = (folder.join("measured"), folder.join("other"));
        cgroup::create(&measured)?;
        cgroup::create(&other)?;
        Ok(Self { network, measured, other, _lifetime: lifetime })
    }

    /// The cgroup whose sockets the programs see.
    pub(crate) fn measured(&self) -> &Path {
        &self.measured
    }

    /// Opens sockets for all of these edges.
    pub(crate) fn open(&self, kind: Kind, family: Family, edges: u32) -> anyhow::Result<Edges> {
        let mut processes = Vec::new();
        for (number, first) in (0..edges).step_by(EDGES_A_PROCESS as usize).enumerate() {
            let order = Order {
                kind,
                is_v6: family == Family::V6,
                edges: first..edges.min(first + EDGES_A_PROCESS),
                number: number.try_into()?,
                namespace: self.network.path().to_owned(),
                measured: self.measured.clone(),
                other: self.other.clone(),
            };
            // One after the other: it is their sockets that are measured, not their start.
            let mut process = Process::start(&order)?;
            process.wait()?;
            processes.push(process);
        }
        Ok(Edges { processes })
    }
}

/// All edges of a measure.
pub(crate) struct Edges {
    processes: Vec<Process>,
}

impl Edges {
    /// One byte there and one back on each edge. All go there before the first comes back, so that
    /// with many edges nothing of the first is left in a cache when it is back.
    pub(crate) fn sweep(&mut self) -> anyhow::Result<()> {
        for command in [Command::There, Command::Back, Command::Take] {
            self.processes.iter_mut().try_for_each(|process| process.obey(command))?;
        }
        Ok(())
    }

    /// So often on one edge.
    pub(crate) fn hot(&mut self, times: u32) -> anyhow::Result<()> {
        self.processes.first_mut().context("no edges")?.obey(Command::Hot(times))
    }
}

struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: BufReader<ChildStdout>,
}

impl Process {
    fn start(order: &Order) -> anyhow::Result<Self> {
        let mut child = Program::new(std::env::current_exe()?)
            .args([WORD, &serde_json::to_string(order)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a process with sockets")?;
        let stdin = child.stdin.take().context("no stdin")?;
        let lines = BufReader::new(child.stdout.take().context("no stdout")?);
        Ok(Self { child, stdin, lines })
    }

    fn obey(&mut self, command: Command) -> anyhow::Result<()> {
        writeln!(self.stdin, "{}", serde_json::to_string(&command)?)?;
        self.wait()
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        ensure!(line.trim_end() == DONE, "a process with sockets said `{line}`");
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server's address of an edge: each edge has its own.
pub(crate) fn server(family: Family, edge: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 2, 0, 1)) + edge).into(),
        Family::V6 => v6(1, edge),
    }
}

/// The clients' address in a process: one has not enough ports for all edges.
pub(crate) fn client(family: Family, process: u16) -> IpAddr {
    let number = u32::from(process);
    match family {
        Family::V4 => Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + number).into(),
        Family::V6 => v6(0, number),
    }
}

fn v6(range: u32, number: u32) -> IpAddr {
    let base = u128::from(Ipv6Addr::new(0xfd00, 0xbb, 0, 0, 0, 0, 0, 1));
    Ipv6Addr::from(base + (u128::from(range) << 32) + u128::from(number)).into()
}

/// As many open files as one process needs, if they may be; opening too many says it otherwise.
pub(crate) fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.map_or(FILES, |maximum| maximum.min(FILES));
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), ..limit });
}

fn set(name: &str, value: &str) -> anyhow::Result<()> {
    let path = Path::new("/proc/sys").join(name);
    std::fs::write(&path, value).with_context(|| format!("cannot set {}", path.display()))
}
