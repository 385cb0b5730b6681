//! The ABI between the BPF programs and the agent.
//!
//! In: nothing. Out: `repr(C)` structs of integers without padding, so that every bit pattern is a
//! valid value and any bytes the kernel hands over can be read. It never holds a `bool`, an enum,
//! an `Option`, a pointer or a `usize`, and it never allocates.
#![no_std]

/// Raised with every change to a struct, a constant or the meaning of a field in this crate.
pub const ABI_VERSION: u32 = 1;

/// Name of the plain hash that leads from a [`FlowKey`] to its slot number (`u32`).
pub const MAP_FLOWS: &str = "FLOWS";
/// Name of the memory-mappable array of [`FlowSlot`]s: the counters themselves.
pub const MAP_SLOTS: &str = "SLOTS";
/// Name of the queue of free slot numbers. User space fills it, the kernel takes from it.
pub const MAP_FREE_SLOTS: &str = "FREE_SLOTS";
/// Name of the ring of events, each an [`EventHeader`] and what its kind says.
pub const MAP_EVENTS: &str = "EVENTS";
/// Name of the per-CPU array of loss counters, indexed by the `STAGE_*` constants.
pub const MAP_LOST: &str = "LOST";
/// Name of the socket-local storage with the flow a socket was last seen in.
pub const MAP_SOCKETS: &str = "SOCKETS";
/// Name of the table of socket pairs: who sent first (UDP), which SYN was counted (TCP).
pub const MAP_PAIRS: &str = "PAIRS";

/// Flows the kernel can count at once. More are counted as lost packets. Below 2^23, because a
/// socket remembers its slot number in 23 bits.
pub const FLOWS_MAX: u32 = 65_536;
/// Socket pairs remembered at once. The least recently used one is forgotten.
pub const PAIRS_MAX: u32 = 65_536;
/// Bytes in the event ring: a power of two and a multiple of the page size.
pub const EVENTS_BYTES: u32 = 1 << 20;
/// Longest cgroup path an event carries, without the final zero byte. Longer ones are cut and the
/// agent finds the path by the cgroup id instead.
pub const CGROUP_PATH_BYTES_MAX: usize = 448;

/// Nothing on this socket told who began: it was first seen in mid-stream.
pub const DIRECTION_UNKNOWN: u8 = 0;
/// The local side began.
pub const DIRECTION_EGRESS: u8 = 1;
/// The peer began.
pub const DIRECTION_INGRESS: u8 = 2;

/// [`FlowSlot::state`] of a slot nobody may read.
pub const SLOT_FREE: u32 = 0;
/// [`FlowSlot::state`] of a slot whose key and counters are valid.
pub const SLOT_LIVE: u32 = 1;

/// Losses: an event found the ring full.
pub const STAGE_RING_FULL: u32 = 0;
/// Losses: a packet whose flow found no free slot or no room in the hash.
pub const STAGE_FLOW_TABLE_FULL: u32 = 1;
/// Losses: a packet whose headers could not be read.
pub const STAGE_MALFORMED_PACKET: u32 = 2;
/// Losses: a packet of a protocol that is not followed yet.
pub const STAGE_OTHER_PROTOCOL: u32 = 3;
/// Losses: a socket for which the kernel gave no storage; its packets count, its direction may be
/// unknown.
pub const STAGE_SOCKET_STORAGE: u32 = 4;
/// Losses: a socket pair that could not be remembered; its next packet is counted as a new attempt.
pub const STAGE_SOCKET_PAIR: u32 = 5;
/// How many stages there are.
pub const STAGES: u32 = 6;
/// The label of each stage in `parapet_events_lost_total{stage}`, indexed by its constant.
pub const STAGE_NAMES: [&str; STAGES as usize] = [
    "ring_full",
    "flow_table_full",
    "malformed_packet",
    "other_protocol",
    "socket_storage",
    "socket_pair",
];

/// Event kind: a flow key was seen for the first time. Body: [`FlowSeen`].
pub const EVENT_FLOW_SEEN: u32 = 1;
/// Event kind: a cgroup was made. Body: [`CgroupEvent`], then its path without a final zero.
pub const EVENT_CGROUP_CREATED: u32 = 2;
/// Event kind: a cgroup was removed. Body: [`CgroupEvent`], then its path without a final zero.
pub const EVENT_CGROUP_REMOVED: u32 = 3;

/// What the kernel aggregates on. No ephemeral port is part of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// cgroup2 id (the inode number of its folder) of the local socket.
    pub cgroup_id: u64,
    /// The peer's address in network order; IPv4 in the first four bytes, the rest zero.
    /// IPv4-mapped IPv6 addresses are stored as IPv4.
    pub peer_addr: [u8; 16],
    /// The responder's port in host order: ours for ingress, the peer's for egress, 0 if the
    /// direction is unknown.
    pub service_port: u16,
    /// IP protocol number (6 TCP, 17 UDP).
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// One of the `DIRECTION_*` constants.
    pub direction: u8,
    /// Always zero.
    pub reserved: [u8; 3],
}

/// One flow's counters. The kernel adds, the agent reads through shared memory and never writes
/// while the slot is live.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSlot {
    /// The flow these counters belong to.
    pub key: FlowKey,
    /// Raised by the agent each time it frees the slot, so that sockets notice their cached number
    /// is stale.
    pub generation: u32,
    /// [`SLOT_FREE`] or [`SLOT_LIVE`]; written last by the kernel.
    pub state: u32,
    /// Nanoseconds on the monotonic clock.
    pub first_seen_ns: u64,
    /// Nanoseconds on the monotonic clock, coarse (a few milliseconds).
    pub last_seen_ns: u64,
    /// Packets from the local socket, as the IP layer handed them over (before segmentation
    /// offload).
    pub sent_packets_total: u64,
    /// Bytes of those with their IP headers.
    pub sent_bytes_total: u64,
    /// Packets to the local socket (after receive offload).
    pub received_packets_total: u64,
    /// Bytes of those with their IP headers.
    pub received_bytes_total: u64,
    /// Times the initiator began: TCP connections opened, UDP socket pairs.
    pub attempts_total: u64,
    /// Attempts the responder answered: completed TCP handshakes, UDP pairs with a packet back.
    pub answered_total: u64,
    /// Attempts the responder or the network refused: TCP reset, ICMP unreachable.
    pub refused_total: u64,
    /// TCP connections that ended (FIN or RST after the handshake).
    pub closed_total: u64,
}

/// The first bytes of every event.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHeader {
    /// One of the `EVENT_*` constants.
    pub kind: u32,
    /// Bytes after this header that are valid.
    pub body_bytes: u32,
    /// Nanoseconds on the monotonic clock.
    pub time_ns: u64,
}

/// Body of [`EVENT_FLOW_SEEN`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSeen {
    /// The new key.
    pub key: FlowKey,
    /// Its slot.
    pub slot: u32,
    /// The slot's generation when the key moved in.
    pub generation: u32,
}

/// Fixed part of the cgroup events; the path follows.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupEvent {
    /// cgroup2 id.
    pub cgroup_id: u64,
    /// 0 for the cgroup2 hierarchy; version 1 hierarchies are dropped in the kernel.
    pub hierarchy_id: u32,
    /// Depth below the root.
    pub level: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 32 && align_of::<FlowKey>() == 8);
const _: () = assert!(core::mem::offset_of!(FlowKey, service_port) == 24);
const _: () = assert!(core::mem::offset_of!(FlowKey, direction) == 28);
const _: () = assert!(size_of::<FlowSlot>() == 120 && align_of::<FlowSlot>() == 8);
const _: () = assert!(core::mem::offset_of!(FlowSlot, generation) == 32);
const _: () = assert!(core::mem::offset_of!(FlowSlot, state) == 36);
const _: () = assert!(core::mem::offset_of!(FlowSlot, first_seen_ns) == 40);
const _: () = assert!(core::mem::offset_of!(FlowSlot, attempts_total) == 88);
const _: () = assert!(size_of::<EventHeader>() == 16);
const _: () = assert!(size_of::<FlowSeen>() == 40);
const _: () = assert!(size_of::<CgroupEvent>() == 16);
