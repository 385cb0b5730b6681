//! Pairs of connected sockets, one pair for each edge, and the packets between them.
//!
//! In: edges as one JSON argument, then a command a line. Out: packets, and a word when they are
//! through. It is a process of its own, or many: one may not open enough files for all edges. Only
//! the clients' sockets are in the measured cgroup, so that an edge is one flow.

use std::io::{BufRead as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde::{Deserialize, Serialize};
use support::network::Family;
use support::{cgroup, namespace, traffic};

use crate::place;

/// The first argument by which the bench knows that it is to be this.
pub(crate) const WORD: &str = "sockets";
/// What it says when it is ready, and after each command.
pub(crate) const DONE: &str = "done";
/// Nobody listens here before.
const PORT_FIRST: u16 = 40_000;

/// Which sockets, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) kind: Kind,
    pub(crate) is_v6: bool,
    pub(crate) edges: Range<u32>,
    /// Tells processes apart that are there at the same time.
    pub(crate) number: u16,
    pub(crate) namespace: PathBuf,
    pub(crate) measured: PathBuf,
    pub(crate) other: PathBuf,
}

/// How edges get their packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A TCP connection for each.
    Tcp,
    /// A connected UDP socket for each.
    Udp,
    /// One UDP socket for all peers in turn: every packet asks the pair table.
    Sendto,
}

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// A byte from each client.
    There,
    /// A byte back from each server, which has one.
    Back,
    /// Each client takes it.
    Take,
    /// All three on one edge, so often.
    Hot(u32),
}

/// Carries out an order if the program was started for that, and else returns none.
pub(crate) fn perform_if_told() -> Option<ExitCode> {
    traffic::perform_if(WORD, perform)
}

fn perform(order: &str) -> anyhow::Result<()> {
    let order: Order = serde_json::from_str(order).context("the order")?;
    namespace::enter(&order.namespace)?;
    place::allow_files();
    let sockets = Sockets::open(&order).context("cannot open the sockets")?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{DONE}")?;
    for line in std::io::stdin().lock().lines() {
        sockets.obey(serde_json::from_str(&line?)?)?;
        writeln!(stdout, "{DONE}")?;
    }
    Ok(())
}

enum Sockets {
    /// A client's and its server's for each edge.
    Pairs(Vec<(OwnedFd, OwnedFd)>),
    /// One for all edges. Nobody reads the sink: what does not fit is dropped behind the programs.
    One { socket: UdpSocket, edges: Range<u32>, port: u16, _sink: UdpSocket },
}

impl Sockets {
    fn open(order: &Order) -> anyhow::Result<Self> {
        Ok(match order.kind {
            Kind::Tcp => Self::Pairs(tcp(order)?),
            Kind::Udp => Self::Pairs(udp(order)?),
            Kind::Sendto => {
                cgroup::join(&order.other, 0)?;
                let sink = UdpSocket::bind((any(order.family()), order.port()))?;
                cgroup::join(&order.measured, 0)?;
                let socket = UdpSocket::bind((place::client(order.family(), 0), 0))?;
                let (edges, port) = (order.edges.clone(), order.port());
                Self::One { socket, edges, port, _sink: sink }
            }
        })
    }

    fn obey(&self, command: Command) -> anyhow::Result<()> {
        match self {
            Self::Pairs(pairs) => match command {
                Command::There => there(pairs),
                Command::Back => back(pairs),
                Command::Take => take(pairs),
                Command::Hot(times) => {
                    let middle = pairs.len() / 2;
                    let pair = pairs.get(middle..=middle).context("no edges")?;
                    (0..times).try_for_each(|_| {
                        there(pair)?;
                        back(pair)?;
                        take(pair)
                    })
                }
            },
            Self::One { socket, edges, port, .. } => {
                let to = |edge| {
                    let target = (place::server(Family::V4, edge), *port);
                    socket.send_to(b"x", target).map(drop).context("sendto")
                };
                match command {
                    Command::There => edges.clone().try_for_each(to),
                    Command::Back | Command::Take => Ok(()),
                    Command::Hot(times) => (0..times).try_for_each(|_| to(edges.start)),
                }
            }
        }
    }
}

fn there(pairs: &[(OwnedFd, OwnedFd)]) -> anyhow::Result<()> {
    for (client, _) in pairs {
        send(client, b"x", SendFlags::empty())?;
    }
    Ok(())
}

fn back(pairs: &[(OwnedFd, OwnedFd)]) -> anyhow::Result<()> {
    for (_, server) in pairs {
        receive(server)?;
        send(server, b"y", SendFlags::empty())?;
    }
    Ok(())
}

fn take(pairs: &[(OwnedFd, OwnedFd)]) -> anyhow::Result<()> {
    pairs.iter().try_for_each(|(client, _)| receive(client))
}

fn receive(socket: &OwnedFd) -> anyhow::Result<()> {
    let mut byte = [0];
    let (bytes, _) = recv(socket, &mut byte, RecvFlags::empty())?;
    ensure!(bytes == 1, "the other side went away");
    Ok(())
}

fn any(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

impl Order {
    fn family(&self) -> Family {
        if self.is_v6 { Family::V6 } else { Family::V4 }
    }

    fn port(&self) -> u16 {
        PORT_FIRST + self.number
    }
}

fn tcp(order: &Order) -> anyhow::Result<Vec<(OwnedFd, OwnedFd)>> {
    cgroup::join(&order.other, 0)?;
    let listener = TcpListener::bind((any(order.family()), order.port()))?;
    cgroup::join(&order.measured, 0)?;
    let mut pairs = Vec::new();
    for edge in order.edges.clone() {
        let client = TcpStream::connect((place::server(order.family(), edge), order.port()))?;
        client.set_nodelay(true)?;
        // What is accepted belongs to the listener's cgroup.
        let (server, _) = listener.accept()?;
        server.set_nodelay(true)?;
        pairs.push((client.into(), server.into()));
    }
    Ok(pairs)
}

fn udp(order: &Order) -> anyhow::Result<Vec<(OwnedFd, OwnedFd)>> {
    cgroup::join(&order.other, 0)?;
    let at = |edge| (place::server(order.family(), edge), order.port());
    let servers: Vec<UdpSocket> =
        order.edges.clone().map(|edge| UdpSocket::bind(at(edge))).collect::<Result<_, _>>()?;
    cgroup::join(&order.measured, 0)?;
    let mut pairs = Vec::new();
    for (edge, server) in order.edges.clone().zip(servers) {
        let client = UdpSocket::bind((place::client(order.family(), order.number), 0))?;
        client.connect(at(edge))?;
        server.connect(client.local_addr()?)?;
        pairs.push((client.into(), server.into()));
    }
    Ok(pairs)
}
