//! What a guest tells its host: values in, one marked line of JSON for each out, and back. It holds
//! the numbers of the guest's traffic too, since one side makes it and the other expects it.

use std::fmt;
use std::net::IpAddr;

use parapet_core::flow::Direction;
use serde::{Deserialize, Serialize};
use support::reading::Way;

/// The kernel writes to the same console, also in the middle of a line of ours.
pub(crate) const MARK: &str = "@parapet ";

pub(crate) const TCP_ANSWERED: u16 = 7001;
pub(crate) const TCP_REFUSED: u16 = 7002;
pub(crate) const UDP_ANSWERED: u16 = 7003;
pub(crate) const UDP_REFUSED: u16 = 7004;
/// TCP connections to the answering port, for each address family.
pub(crate) const TCP_CONNECTIONS: u64 = 3;
/// Questions of one UDP socket, each with its answer.
pub(crate) const DATAGRAMS: u64 = 5;
pub(crate) const SCTP_ANSWERED: u16 = 7005;
pub(crate) const SCTP_REFUSED: u16 = 7006;
/// Named in the rule that drops what comes for it, too.
pub(crate) const SCTP_SILENT: u16 = 7007;
/// SCTP associations to the answering port, for each address family.
pub(crate) const SCTP_ASSOCIATIONS: u64 = 2;
/// TCP connections, and UDP sockets with a datagram each, of a pod to a Service, for each family.
pub(crate) const ASKED: u64 = 2;
/// Echo requests of one socket.
pub(crate) const ECHOES: u64 = 3;
/// TCP connections between two agents, for each family.
pub(crate) const UNWATCHED: u64 = 3;
/// TCP connections and UDP sockets to a Service with the second agent, for each family. They are
/// even, so that two backends that take turns get as many in each family and order.
pub(crate) const TRACKED: u64 = 4;
/// TCP connections to a Service whose connections are not tracked, for each family.
pub(crate) const UNTRACKED: u64 = 4;
/// How a secret file is used, and how often each; then one has it open and one mapped.
pub(crate) const SECRET_WAYS: [(Way, u64); 8] = [
    (Way::OpenOnly, 2),
    (Way::PathOnly, 3),
    (Way::Status, 3),
    (Way::Open, 5),
    (Way::Openat2, 1),
    (Way::Handle, 1),
    (Way::Ring, 2),
    (Way::Map, 1),
];
/// For each family: both ends of what was answered, one end of what was not; then the client's
/// three flows and two of each backend.
pub(crate) const FLOWS: usize = 2 * ((2 + 1 + 2 + 1 + 2 + 1 + 1) + 3 + 2 * 2);

/// One line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    Program(ProgramLine),
    Module(String),
    Flow(FlowLine),
    Edge(EdgeLine),
    Secret(SecretLine),
    Lost { stage: String, count: u64 },
    Failed(String),
    Done,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        write!(f, "{MARK}{json}")
    }
}

/// One program of the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProgramLine {
    pub(crate) program: String,
    pub(crate) loaded: bool,
    pub(crate) attached: bool,
    pub(crate) runs: u64,
    /// What the verifier walked through.
    pub(crate) instructions: Option<u32>,
    pub(crate) error: Option<String>,
}

/// What one rung of the sensor of secret files counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecretLine {
    pub(crate) rung: String,
    /// Without it, nothing else was done.
    pub(crate) attached: bool,
    pub(crate) opens: u64,
    pub(crate) reads: u64,
    pub(crate) maps: u64,
    pub(crate) held: u64,
    pub(crate) lost: u64,
    /// Names that readers were told of by, sorted, each once.
    pub(crate) names: Vec<String>,
}

/// One edge of the agent's report, with how its attempts ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct EdgeLine {
    pub(crate) edge: String,
    pub(crate) ended: Vec<(String, u64)>,
}

/// What tells the guest's flows apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct FlowKey {
    /// Whose cgroup: a pod's name, or `guest` for the guest program's own.
    pub(crate) who: String,
    pub(crate) peer: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    pub(crate) direction: Option<Direction>,
}

/// One flow of the guest's traffic, all reads together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlowLine {
    pub(crate) key: FlowKey,
    pub(crate) attempts: u64,
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    pub(crate) closed: u64,
    /// 0 for TCP and SCTP, whose acknowledgements depend on time.
    pub(crate) sent_packets: u64,
    /// The same.
    pub(crate) received_packets: u64,
}

impl FlowLine {
    /// A flow that nothing happened on.
    pub(crate) fn new(key: FlowKey) -> Self {
        Self {
            key,
            attempts: 0,
            answered: 0,
            refused: 0,
            closed: 0,
            sent_packets: 0,
            received_packets: 0,
        }
    }
}
