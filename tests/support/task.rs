//! What a process in a pod is told to do, and what it says when it has done it.
//!
//! In: nothing (values only). Out: the one JSON argument of the traffic program and the JSON lines
//! on its stdout. Numbers are exact: what a generator did not see happen is not counted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::reading::{Pass, Race, Use};

/// The only argument of the traffic program, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Where to go before the first socket is made.
    pub place: Option<Place>,
    /// What to do there.
    pub task: Task,
}

/// A pod, as a process enters it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Folder of the container's cgroup; none to stay in that of the caller.
    pub cgroup: Option<PathBuf>,
    /// File of the network namespace.
    pub namespace: PathBuf,
}

/// What a process does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Task {
    /// Serves until its stdin ends, then reports.
    Serve(Serve),
    /// Opens TCP connections one after the other, then reports.
    Connect(Connect),
    /// Sends UDP datagrams, then reports.
    Send(Send),
    /// Answers questions for names on port 53 until its stdin ends, then reports.
    Names(Vec<Zone>),
    /// Asks for a name, then reports.
    Resolve(Resolve),
    /// Exchanges packets of a protocol that has no sockets of its own, then reports.
    Exchange(Exchange),
    /// Answers such packets until its stdin ends, then reports.
    Answer(Answer),
    /// Begins, says that it is ready, and goes on when its stdin ends.
    Hold(Hold),
    /// Sends packets exactly as they are given, IP header included, then reports.
    Inject(Inject),
    /// Sends as fast as it can and waits for nothing, then reports.
    Flood(Flood),
    /// Uses files, then reports.
    Use(Use),
    /// Opens what is another file all the time, then reports.
    Race(Race),
    /// Passes a descriptor on, then reports.
    Pass(Pass),
    /// Waits until its stdin ends and then removes everything that the named run made.
    Reap(String),
}

/// Ports to serve on every address of the pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serve {
    /// Each connection is read to its end, answered and closed.
    pub tcp: Vec<u16>,
    /// Each datagram is sent back, unless `silent`.
    pub udp: Vec<u16>,
    /// The same by UDP-Lite.
    #[serde(default)]
    pub udplite: Vec<u16>,
    /// Bytes of each TCP answer.
    pub reply_bytes: usize,
    /// Receive datagrams and say nothing.
    pub silent: bool,
}

/// TCP connections, one after the other to each target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// Whom to ask.
    pub targets: Vec<SocketAddr>,
    /// Connections to each target.
    pub count: u64,
    /// Bytes sent on each connection.
    pub request_bytes: usize,
    /// How long each step may take.
    pub timeout_ms: u64,
    /// Pause after each connection.
    pub pause_ms: u64,
}

/// UDP datagrams, each waiting for its answer before the next is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// Whom to ask.
    pub targets: Vec<SocketAddr>,
    /// Datagrams to each target.
    pub count: u64,
    /// Bytes of each datagram.
    pub datagram_bytes: usize,
    /// How long to wait for an answer.
    pub timeout_ms: u64,
    /// Pause after each datagram.
    pub pause_ms: u64,
    /// Which sockets they leave from.
    pub sockets: Sockets,
    /// UDP-Lite instead of UDP.
    #[serde(default)]
    pub lite: bool,
}

/// A name and where it leads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// The name that is asked for; the answer has another name for it, and that one's addresses.
    pub name: String,
    /// Told to those who ask for their family.
    pub addresses: Vec<IpAddr>,
    /// Bytes of text that every answer over TCP carries beside.
    pub padding_bytes: usize,
}

/// Questions for the addresses of a name, each waiting for its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    /// Whom to ask.
    pub server: SocketAddr,
    /// What to ask for.
    pub name: String,
    /// IPv6 addresses and not IPv4 ones.
    pub ipv6: bool,
    /// On a connection and not by datagrams.
    pub tcp: bool,
    /// How often.
    pub count: u64,
}

/// Which sockets datagrams leave from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sockets {
    /// One connected socket for each target.
    Connected,
    /// One unconnected socket for all targets (of an address family).
    Shared,
    /// A new connected socket for each datagram.
    PerDatagram,
    /// The same, with the ports from this one on in turn. Ports of the kernel's choice may come
    /// again soon, and are the same pair then.
    Numbered(u16),
}

/// Requests, each waiting for its answer before the next is sent, of one socket for all targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// What is spoken.
    pub speech: Speech,
    /// Whom to ask; the port counts only where the protocol has one.
    pub targets: Vec<SocketAddr>,
    /// Requests, or whole associations, to each target.
    pub count: u64,
    /// How long to wait for an answer.
    pub timeout_ms: u64,
}

/// One TCP connection, or one UDP socket's exchanges, with a long pause in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Whom to ask.
    pub target: SocketAddr,
    /// What is used.
    pub line: HeldLine,
    /// Datagrams after the pause; a TCP connection is ended then.
    pub count: u64,
}

/// What is held open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum HeldLine {
    Tcp,
    UdpConnected,
    UdpUnconnected,
}

/// A server of raw packets, on every address of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// What is spoken: nothing that the kernel answers itself.
    pub speech: Speech,
    /// What is said to a request.
    pub manner: Manner,
}

/// A protocol, and the sockets by which it is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speech {
    /// ICMP or ICMPv6 echo by a raw socket.
    Echo,
    /// The same by the kernel's ping socket.
    Ping,
    /// SCTP chunks by a raw socket: the kernel need not know the protocol.
    Sctp,
    /// A datagram of another IP protocol by a raw socket.
    Other(u8),
}

/// What a server of raw packets does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// Answers.
    Answers,
    /// Says that it does not want to, where the protocol can say that.
    Refuses,
    /// Receives and says nothing.
    IsSilent,
}

/// Whole packets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inject {
    /// Each sent once, in this order.
    pub packets: Vec<Packet>,
}

/// One packet of [`Inject`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packet {
    /// Where it is routed to, whatever its header says.
    pub to: IpAddr,
    /// From the first byte of its IP header on.
    pub bytes: Vec<u8>,
}

/// Many small packets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Flood {
    /// One SYN from each of these addresses, which need not be its own, to each port.
    Scan {
        /// IPv4 addresses to speak as.
        sources: Vec<Ipv4Addr>,
        /// Whom to ask.
        target: Ipv4Addr,
        /// First and last port.
        ports: (u16, u16),
    },
    /// One UDP datagram from each of these ports of each of these addresses, which need not be its
    /// own.
    Ask {
        /// IPv4 addresses to speak as.
        sources: Vec<Ipv4Addr>,
        /// First and last port to speak from.
        ports: (u16, u16),
        /// Whom to ask.
        target: Ipv4Addr,
        /// On which port.
        port: u16,
    },
    /// One UDP datagram from each of these sockets to each port of each address.
    Sweep {
        /// First address.
        first: IpAddr,
        /// How many addresses, counted up from the first.
        addresses: u32,
        /// First and last port.
        ports: (u16, u16),
        /// How many sockets.
        sockets: u16,
    },
}

/// Everything that a process counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Connections opened or accepted, datagrams sent or received: whatever began.
    pub attempts: u64,
    /// Of those the ones whose answer arrived (client) or left (server).
    pub answered: u64,
    /// Connections and datagrams that the other side refused (client).
    pub refused: u64,
    /// Those that nobody answered in time (client).
    pub unanswered: u64,
    /// Sockets opened for it: for UDP the pairs of socket and target (client).
    pub pairs: u64,
    /// Payload bytes that this process sent.
    pub sent_bytes: u64,
    /// Payload bytes that this process received.
    pub received_bytes: u64,
}

/// A line on the traffic program's stdout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    /// Every port is open; connections from now on are served.
    Ready,
    /// It is done.
    Done(Counts),
}

impl Task {
    /// A server of these TCP ports.
    #[must_use]
    pub fn serve_tcp(ports: &[u16]) -> Self {
        Self::Serve(Serve { tcp: ports.to_vec(), reply_bytes: 64, ..Serve::default() })
    }

    /// A server of these UDP ports.
    #[must_use]
    pub fn serve_udp(ports: &[u16]) -> Self {
        Self::Serve(Serve { udp: ports.to_vec(), ..Serve::default() })
    }

    /// This many TCP connections to one target.
    #[must_use]
    pub fn connect(target: SocketAddr, count: u64) -> Self {
        Self::Connect(Connect {
            targets: vec![target],
            count,
            request_bytes: 32,
            timeout_ms: 400,
            pause_ms: 0,
        })
    }

    /// This many UDP datagrams to one target.
    #[must_use]
    pub fn send(target: SocketAddr, count: u64, sockets: Sockets) -> Self {
        Self::Send(Send {
            targets: vec![target],
            count,
            datagram_bytes: 32,
            timeout_ms: 400,
            pause_ms: 0,
            sockets,
            lite: false,
        })
    }

    /// This many exchanges with one target.
    #[must_use]
    pub fn exchange(speech: Speech, target: SocketAddr, count: u64) -> Self {
        Self::Exchange(Exchange { speech, targets: vec![target], count, timeout_ms: 400 })
    }
}
