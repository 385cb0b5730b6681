//! One fact from the kernel: bytes decoded, nothing looked up yet.
//!
//! In: the bytes of one ring event, or a flow slot's values. Out: a [`Record`], or why the bytes are
//! none. It never trusts a length, an address family or a path from the bytes.

use std::net::IpAddr;

use crate::flow::{Direction, Protocol, Timestamp};

/// One fact from the kernel or from the node's cgroup tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A flow's counters since they were last read (never absolute values).
    Flow(FlowRecord),
    /// A cgroup exists now. Also sent for each one found at start.
    CgroupCreated {
        /// cgroup2 id.
        cgroup_id: u64,
        /// Path below the cgroup2 root, with a leading slash.
        path: String,
        /// When.
        at: Timestamp,
    },
    /// A cgroup is gone; its id stays known as a tombstone.
    CgroupRemoved {
        /// cgroup2 id.
        cgroup_id: u64,
        /// When.
        at: Timestamp,
    },
    /// Losses of a stage since they were last read.
    Lost {
        /// Label of the stage, one of `parapet_common::STAGE_NAMES` or of user space.
        stage: &'static str,
        /// How many.
        count: u64,
    },
}

/// What happened on one kernel flow between two reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// cgroup2 id of the local socket.
    pub cgroup_id: u64,
    /// The peer's address.
    pub peer: IpAddr,
    /// The responder's port; 0 if the direction is unknown.
    pub service_port: u16,
    /// IP protocol.
    pub protocol: Protocol,
    /// Who began, seen from the local socket; none if nothing told.
    pub direction: Option<Direction>,
    /// No packet of this record is older.
    pub since: Timestamp,
    /// The newest packet.
    pub last_seen: Timestamp,
    /// Counts since the last read.
    pub counts: Counts,
}

/// Counts of one flow over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[expect(missing_docs, reason = "documented at parapet_common::FlowSlot")]
pub struct Counts {
    pub sent_packets: u64,
    pub sent_bytes: u64,
    pub received_packets: u64,
    pub received_bytes: u64,
    pub attempts: u64,
    pub answered: u64,
    pub refused: u64,
    pub closed: u64,
}
