//! The ABI between the BPF programs and the agent.
//!
//! In: nothing. Out: `repr(C)` structs of integers without padding, so that every bit pattern is a
//! valid value and any bytes the kernel hands over can be read. It never holds a `bool`, an enum,
//! an `Option`, a pointer or a `usize`, and it never allocates.
#![no_std]

/// Raised with every change to a struct, a constant or the meaning of a field in this crate.
pub const ABI_VERSION: u32 = 6;

/// Name of the plain hash that leads from a [`FlowKey`] to its slot number (`u32`).
pub const MAP_FLOWS: &str = "FLOWS";
/// Name of the memory-mappable array of [`FlowSlot`]s: the counters themselves.
pub const MAP_SLOTS: &str = "SLOTS";
/// Name of the queue of free slot numbers. User space fills it, the kernel takes from it.
pub const MAP_FREE_SLOTS: &str = "FREE_SLOTS";
/// Name of the ring of events, each an [`EventHeader`] and what its kind says.
pub const MAP_EVENTS: &str = "EVENTS";
/// Name of the ring of DNS answers, each an [`EventHeader`] and a [`DnsAnswer`]: a ring of its own,
/// so that a flood of answers hides no other event.
pub const MAP_NAMES: &str = "NAMES";
/// Name of the per-CPU array of loss counters, indexed by the `STAGE_*` constants.
pub const MAP_LOST: &str = "LOST";
/// Name of the array of [`TcpSocket`]s, each in the place that the last bits of its cookie say.
pub const MAP_TCP_SOCKETS: &str = "TCP_SOCKETS";
/// Name of the socket-local storage with the flow that any other socket was last seen in.
pub const MAP_SOCKETS: &str = "SOCKETS";
/// Name of the table of sockets with several peers: who sent first on each pair.
pub const MAP_PAIRS: &str = "PAIRS";
/// Name of the hash of [`ServicePort`]s that the agent keeps.
pub const MAP_SERVICES: &str = "SERVICES";
/// Name of the array with the one number (`u32`) that the agent raises after each change of them.
pub const MAP_SERVICES_VERSION: &str = "SERVICES_VERSION";
/// Name of the hash of the cgroup ids of pods (`u64`, to a `u32` of no meaning) that the agent
/// keeps.
pub const MAP_POD_CGROUPS: &str = "POD_CGROUPS";
/// Name of the hash from the id of a pod's cgroup, or of one in no pod, to the [`Share`] of the
/// tables that the kernel gave it.
pub const MAP_TAKEN: &str = "TAKEN";
/// Name of the hash from the same ids to the [`Share`] of the tables that the agent took back.
pub const MAP_RETURNED: &str = "RETURNED";
/// Name of the per-CPU array of totals, indexed by the `TOTAL_*` constants.
pub const MAP_TOTALS: &str = "TOTALS";
/// Name of the hash from the device number of a superblock (`u32`, as `super_block.s_dev` has it)
/// to its [`Volume`]. The agent writes it: what is not in it is never looked at.
pub const MAP_VOLUMES: &str = "VOLUMES";
/// Name of the array of [`VOLUME_WORDS`] words (`u64`) with a bit, see [`volume_bit`], for every
/// device number in [`MAP_VOLUMES`]: most opens elsewhere are left there, which is cheaper.
pub const MAP_VOLUME_BITS: &str = "VOLUME_BITS";
/// Name of the hash of [`WatchedFile`]s to their generation (`u32`), on devices whose [`Volume`]
/// says [`VOLUME_FILES`].
pub const MAP_WATCHED_FILES: &str = "WATCHED_FILES";
/// Name of the hash from [`ReadKey`] to [`ReadCounts`]: who opened which secret file how often.
pub const MAP_READS: &str = "READS";
/// Name of the hash from cgroup id to its [`ReaderShare`].
pub const MAP_READERS: &str = "READERS";
/// Name of the hash from cgroup id to the entries of [`MAP_READS`] (`u64`) that the agent took
/// back.
pub const MAP_READERS_RETURNED: &str = "READERS_RETURNED";
/// Name of the ring of readers seen for the first time, each an [`EventHeader`] and a
/// [`SecretSeen`]: a ring of its own, so that nothing else hides them.
pub const MAP_SECRETS: &str = "SECRETS";

/// Flows the kernel can count at once. More are counted as lost packets. Below 2^23, because a
/// socket remembers its slot number in 23 bits.
pub const FLOWS_MAX: u32 = 65_536;
/// Socket pairs remembered at once, of sockets that talk to more than one peer. The agent forgets
/// idle ones.
pub const PAIRS_MAX: u32 = 131_072;
/// Service ports the agent can tell the kernel of.
pub const SERVICES_MAX: u32 = 65_536;
/// Pods and cgroups in no pod whose share of the tables is known at once.
pub const SHARES_MAX: u32 = 16_384;
/// Pods whose cgroup the kernel knows at once. The containers of further ones have a share each.
pub const POD_CGROUPS_MAX: u32 = 8_192;
/// One pod, or one cgroup in no pod, gets at most one part in this many of each table.
pub const SHARE_DIVISOR: u32 = 4;
/// Bytes in the event ring: a power of two and a multiple of the page size.
pub const EVENTS_BYTES: u32 = 1 << 20;
/// Bytes in the ring of DNS answers: a power of two and a multiple of the page size.
pub const NAMES_BYTES: u32 = 1 << 19;
/// Most bytes of a packet that one [`DnsAnswer`] carries. A longer TCP segment becomes several, of
/// a longer datagram only the beginning is handed over.
pub const DNS_BYTES_MAX: usize = 4096;
/// Longest cgroup path an event carries, without the final zero byte. Longer ones are cut and the
/// agent finds the path by the cgroup id instead.
pub const CGROUP_PATH_BYTES_MAX: usize = 448;
/// Superblocks watched at once.
pub const VOLUMES_MAX: u32 = 4_096;
/// Words of [`MAP_VOLUME_BITS`].
pub const VOLUME_WORDS: u32 = 64;
/// Files watched at once on superblocks that hold others, too.
pub const WATCHED_FILES_MAX: u32 = 4_096;
/// Pairs of reader and file counted at once. The agent forgets idle ones.
pub const READS_MAX: u32 = 8_192;
/// cgroups that read secret files, known at once.
pub const READERS_MAX: u32 = 4_096;
/// Bytes in the ring of readers: a power of two and a multiple of the page size.
pub const SECRETS_BYTES: u32 = 1 << 19;
/// Readers of one cgroup that are told of in one second; the others are told of when they come
/// again. What they read is counted all the same.
pub const SECRETS_SEEN_A_SECOND: u32 = 64;
/// Bytes of a process name with its final zero (`TASK_COMM_LEN` of include/linux/sched.h).
pub const COMM_BYTES: usize = 16;
/// Bytes of a file name with its final zero. A key of a Secret has at most 253.
pub const FILE_NAME_BYTES: usize = 256;
/// Bytes of the name of a folder, or of a program, with its final zero; longer ones are cut.
pub const SHORT_NAME_BYTES: usize = 64;

/// Nothing on this socket told who began: it was first seen in mid-stream.
pub const DIRECTION_UNKNOWN: u8 = 0;
/// The local side began.
pub const DIRECTION_EGRESS: u8 = 1;
/// The peer began.
pub const DIRECTION_INGRESS: u8 = 2;

/// [`FlowSlot::state`] of a slot nobody may read.
pub const SLOT_FREE: u8 = 0;
/// [`FlowSlot::state`] of a slot whose key and counters are valid.
pub const SLOT_LIVE: u8 = 1;
/// [`FlowSlot::state`] of a slot that the agent takes back: its counters are valid, and nobody may
/// begin to use it.
pub const SLOT_LEAVING: u8 = 2;

/// Bit of a [`ServicePort`]'s value: its connections are counted one by one, because its backends
/// are not alike and only the tuple tells which of them a connection went to.
pub const SERVICE_ONE_BY_ONE: u32 = 1;

/// Losses: an event found the ring full.
pub const STAGE_RING_FULL: u32 = 0;
/// Losses: a packet whose flow found no free slot or no room in the hash.
pub const STAGE_FLOW_TABLE_FULL: u32 = 1;
/// Losses: a packet whose headers could not be read.
pub const STAGE_MALFORMED_PACKET: u32 = 2;
/// Losses: a later fragment, sent so by a raw socket: it has no ports to know its flow by.
pub const STAGE_LATER_FRAGMENT: u32 = 3;
/// Losses: a packet of a socket for which the kernel had no memory left.
pub const STAGE_SOCKET_STORAGE: u32 = 4;
/// Losses: a packet of a socket pair that could not be remembered: it counts, but not whether it
/// began or answered anything.
pub const STAGE_SOCKET_PAIR: u32 = 5;
/// Losses: a packet whose socket the kernel does not show whole.
pub const STAGE_NO_SOCKET: u32 = 6;
/// Losses: a packet whose flow found its cgroup's share of the flow table used up.
pub const STAGE_FLOW_QUOTA: u32 = 7;
/// Losses: a DNS answer found the ring full.
pub const STAGE_NAMES_FULL: u32 = 8;
/// Losses: a reader seen for the first time found the ring full. It is told of when it comes again.
pub const STAGE_SECRETS_FULL: u32 = 9;
/// Losses: an open of a secret file that found the table of readers full.
pub const STAGE_READS_FULL: u32 = 10;
/// Losses: an open of a secret file by a cgroup that used up its share of that table.
pub const STAGE_READS_QUOTA: u32 = 11;
/// Losses: a descriptor that was closed before it could be looked at, of any file.
pub const STAGE_DESCRIPTOR_GONE: u32 = 12;
/// Losses: a file that io_uring opened into a table of its own, where it has no descriptor.
pub const STAGE_FIXED_FILE: u32 = 13;
/// Losses: an open on a watched device number whose superblock is not the one that was told: it
/// was mounted anew, and nobody knows yet whose it is.
pub const STAGE_VOLUME_REUSED: u32 = 14;
/// How many stages there are.
pub const STAGES: u32 = 15;
/// The label of each stage in `parapet_events_lost_total{stage}`, indexed by its constant.
pub const STAGE_NAMES: [&str; STAGES as usize] = [
    "ring_full",
    "flow_table_full",
    "malformed_packet",
    "later_fragment",
    "socket_storage",
    "socket_pair",
    "no_socket",
    "flow_quota",
    "names_full",
    "secrets_full",
    "reads_full",
    "reads_quota",
    "descriptor_gone",
    "fixed_file",
    "volume_reused",
];

/// Totals that do not depend on room in any table: attempts seen.
pub const TOTAL_ATTEMPTS: u32 = 0;
/// Totals: attempts that were answered.
pub const TOTAL_ANSWERED: u32 = 1;
/// Totals: attempts that were refused.
pub const TOTAL_REFUSED: u32 = 2;
/// Totals: opens of secret files, whether there was room to count them by reader or not.
pub const TOTAL_SECRET_OPENS: u32 = 3;
/// Totals: first reads and mappings of secret files, and those found open in a sweep.
pub const TOTAL_SECRET_USES: u32 = 4;
/// How many totals there are.
pub const TOTALS: u32 = 5;

/// Event kind: a flow key was seen for the first time. Body: [`FlowSeen`].
pub const EVENT_FLOW_SEEN: u32 = 1;
/// Event kind: a cgroup was made. Body: [`CgroupEvent`], then its path without a final zero.
pub const EVENT_CGROUP_CREATED: u32 = 2;
/// Event kind: a cgroup was removed. Body: [`CgroupEvent`], then its path without a final zero.
pub const EVENT_CGROUP_REMOVED: u32 = 3;
/// Event kind, in its own ring: a packet from port 53. Body: [`DnsAnswer`], then its bytes.
pub const EVENT_DNS_ANSWER: u32 = 4;
/// Event kind, in its own ring: somebody opened a secret file for the first time, or was found with
/// it open. Body: [`SecretSeen`].
pub const EVENT_SECRET_SEEN: u32 = 5;

/// Bit of [`Volume::flags`]: only the files in [`MAP_WATCHED_FILES`] count, and not every one.
pub const VOLUME_FILES: u32 = 1;

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
    /// direction is unknown or the protocol has no ports.
    pub service_port: u16,
    /// IP protocol number (6 TCP, 17 UDP, 132 SCTP, 1 ICMP, ..).
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// One of the `DIRECTION_*` constants.
    pub direction: u8,
    /// Always zero.
    pub reserved: u8,
    /// 0, or our own port in host order: then this is one connection, see [`SERVICE_ONE_BY_ONE`].
    pub local_port: u16,
}

/// One flow and its counters. The kernel adds, the agent reads through shared memory and never
/// writes while the slot is live.
///
/// A cache line for what is written once, one for what is sent and one for what is received: these
/// happen on different CPUs, and a line that both write costs each packet more than all else.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSlot {
    /// See [`FlowKey::peer_addr`].
    pub peer_addr: [u8; 16],
    /// Raised by the agent each time it frees the slot, so that sockets notice their cached number
    /// is stale.
    pub generation: u32,
    /// [`SLOT_FREE`], [`SLOT_LIVE`] or [`SLOT_LEAVING`]; written last by the kernel.
    pub state: u8,
    /// See [`FlowKey::protocol`].
    pub protocol: u8,
    /// See [`FlowKey::family`].
    pub family: u8,
    /// One of the `DIRECTION_*` constants.
    pub direction: u8,
    /// cgroup2 id of the local socket.
    pub cgroup_id: u64,
    /// Our own address in the first packet, in the form of `peer_addr`.
    pub local_addr: [u8; 16],
    /// See [`FlowKey::service_port`].
    pub service_port: u16,
    /// See [`FlowKey::local_port`].
    pub local_port: u16,
    /// Always zero.
    pub reserved: [u32; 3],

    /// When a packet was sent last: nanoseconds on the monotonic clock, a tick or two (a few
    /// milliseconds) late.
    pub last_sent_ns: u64,
    /// Packets from the local socket, as the IP layer handed them over (before segmentation
    /// offload).
    pub sent_packets_total: u64,
    /// Bytes of those with their IP headers.
    pub sent_bytes_total: u64,
    /// Times the initiator began: TCP connections opened, UDP socket pairs.
    pub attempts_total: u64,
    /// TCP connections that ended (FIN or RST after the handshake).
    pub closed_total: u64,
    /// Nanoseconds on the monotonic clock.
    pub first_seen_ns: u64,
    /// Id of the cgroup whose [`Share`] the slot is part of: the pod's, or of one in no pod the
    /// socket's own.
    pub charged_id: u64,
    /// Always zero.
    pub reserved_sent: u64,

    /// When a packet was received last, as `last_sent_ns`.
    pub last_received_ns: u64,
    /// Packets to the local socket (after receive offload).
    pub received_packets_total: u64,
    /// Bytes of those with their IP headers.
    pub received_bytes_total: u64,
    /// Attempts the responder answered: completed TCP handshakes, UDP pairs with a packet back.
    pub answered_total: u64,
    /// Attempts the responder refused with a TCP reset or an SCTP abort.
    pub refused_reset_total: u64,
    /// Attempts refused by ICMP "port unreachable" or "protocol unreachable": nobody listens.
    pub refused_port_total: u64,
    /// Attempts refused by another ICMP "unreachable": no way there, or a filter on the way.
    pub refused_route_total: u64,
    /// Nanoseconds from the first SYN to its SYN-ACK, summed over the answered attempts of TCP that
    /// we began.
    pub handshake_ns_total: u64,
}

impl FlowSlot {
    /// When a packet passed last, whichever way.
    #[must_use]
    pub fn last_seen_ns(&self) -> u64 {
        self.last_sent_ns.max(self.last_received_ns)
    }

    /// The flow these counters belong to.
    #[must_use]
    pub const fn key(&self) -> FlowKey {
        FlowKey {
            cgroup_id: self.cgroup_id,
            peer_addr: self.peer_addr,
            service_port: self.service_port,
            protocol: self.protocol,
            family: self.family,
            direction: self.direction,
            reserved: 0,
            local_port: self.local_port,
        }
    }
}

/// A port of a Service, as a client asks for it. Its value is `SERVICE_*` bits.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// In the form of [`FlowKey::peer_addr`].
    pub addr: [u8; 16],
    /// In host order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// Always zero.
    pub reserved: u32,
}

/// How much of the tables one pod has, or one cgroup in no pod. The kernel only adds to its copy
/// and the agent only to the other one, so that neither overwrites what the other counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Flow slots.
    pub flows: u64,
    /// Socket pairs.
    pub pairs: u64,
}

/// A socket and one of its peers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PairKey {
    /// The socket's cookie; for SCTP the cgroup id, because an accepted association moves to a
    /// socket of its own.
    pub owner: u64,
    /// In the form of [`FlowKey::peer_addr`].
    pub peer_addr: [u8; 16],
    /// In host order; for ICMP echo its identifier.
    pub peer_port: u16,
    /// In host order.
    pub local_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub reserved: [u8; 3],
}

/// What is remembered of a pair.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The flow's slot, its generation and whether an answer was counted, in the kernel's own form.
    pub flow: u64,
    /// As `FlowSlot::last_sent_ns`.
    pub last_seen_ns: u64,
    /// See [`FlowSlot::charged_id`].
    pub charged_id: u64,
    /// One of the `DIRECTION_*` constants.
    pub direction: u32,
    /// 1 once an answer was counted.
    pub answered: u32,
}

/// What the kernel remembers of a socket between packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketState {
    /// The slot of its flow, the slot's generation and more, in the kernel's own form.
    pub flow: u64,
    /// On the monotonic clock. TCP: when we sent the first SYN. Else: when the pair table was last
    /// told that the remembered pair is in use.
    pub told_ns: u64,
    /// What it was last seen doing, in the kernel's own form.
    pub phase: u32,
    /// Milliseconds from the first SYN to the last one that we sent again (TCP only), with bits of
    /// the kernel's own.
    pub last_syn_ms: u32,
}

/// A TCP connection or a listener.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpSocket {
    /// Cookie of the socket whose place it is; 0 of a free one.
    pub owner: u64,
    /// What is remembered of it.
    pub state: SocketState,
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

/// Fixed part of [`EVENT_DNS_ANSWER`]; the bytes that TCP or UDP carried follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsAnswer {
    /// cgroup2 id of the local socket.
    pub cgroup_id: u64,
    /// The socket's cookie.
    pub cookie: u64,
    /// TCP: sequence number of the first byte. UDP: 0.
    pub sequence: u32,
    /// Bytes the packet carried from the first of these on: more than follow if it was cut.
    pub payload_bytes: u32,
    /// IP protocol number, TCP or UDP.
    pub protocol: u32,
    /// Always zero.
    pub reserved: u32,
}

/// What is watched on one superblock.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// `i_generation` of its root folder, a random number where the file system has one: tells a
    /// superblock from the next one that gets the same device number. 0 is any.
    pub generation: u32,
    /// `VOLUME_*` bits.
    pub flags: u32,
}

/// One file on a superblock that holds others, too.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatchedFile {
    /// Inode number.
    pub inode: u64,
    /// Device number of its superblock.
    pub device: u32,
    /// Always zero.
    pub reserved: u32,
}

/// Who opened which file. Names are not part of it: a process may change its own as it likes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadKey {
    /// cgroup2 id of the process.
    pub cgroup_id: u64,
    /// Inode number of the file.
    pub inode: u64,
    /// Inode number of the program that runs; 0 for a thread of the kernel.
    pub program_inode: u64,
    /// Device number of that program's superblock.
    pub program_device: u32,
    /// Device number of the file's superblock.
    pub device: u32,
    /// `i_generation` of the root folder of that superblock; of a [`WatchedFile`] its own.
    pub generation: u32,
    /// Effective user id, as the initial user namespace has it.
    pub uid: u32,
}

/// What a reader did with a file. The kernel adds, the agent reads and removes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// Opens for reading or writing: neither `O_PATH` nor `stat`.
    pub opens_total: u64,
    /// First reads of an opened file, where the kernel shows them.
    pub reads_total: u64,
    /// Mappings, where the kernel shows them.
    pub maps_total: u64,
    /// Times that the file was found open in a sweep over all descriptors and mappings.
    pub held_total: u64,
    /// Nanoseconds on the monotonic clock.
    pub first_seen_ns: u64,
    /// Nanoseconds on the monotonic clock.
    pub last_seen_ns: u64,
    /// 1 once the ring told of it.
    pub is_told: u64,
}

/// How much of [`MAP_READS`] one cgroup took, and how often it was told of.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaderShare {
    /// Entries it got, those included that the agent removed: see [`MAP_READERS_RETURNED`].
    pub entries: u64,
    /// Opens that were counted for no entry.
    pub refused_total: u64,
    /// The second, on the monotonic clock, in which the last reader was told of.
    pub second: u64,
    /// Readers told of in it.
    pub told: u64,
}

/// Body of [`EVENT_SECRET_SEEN`]. Names end with a zero byte and are what the process and the file
/// system say: any bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretSeen {
    /// Reader and file.
    pub key: ReadKey,
    /// Process id, as the initial namespace has it.
    pub pid: u32,
    /// Always zero.
    pub reserved: u32,
    /// Name of the thread.
    pub comm: [u8; COMM_BYTES],
    /// Name of the program's file, without folders.
    pub program: [u8; SHORT_NAME_BYTES],
    /// Name of the folder that the file is in.
    pub folder: [u8; SHORT_NAME_BYTES],
    /// Name of the file.
    pub file: [u8; FILE_NAME_BYTES],
}

/// Word and bit of a device number. File systems without a disk, as all secret volumes are, have
/// small numbers: the first 4,096 of them have a bit of their own.
#[must_use]
#[inline(always)]
pub const fn volume_bit(device: u32) -> (u32, u32) {
    let folded = device ^ (device >> 20);
    ((folded >> 6) % VOLUME_WORDS, folded % 64)
}

const _: () = assert!(size_of::<FlowKey>() == 32 && align_of::<FlowKey>() == 8);
const _: () = assert!(core::mem::offset_of!(FlowKey, service_port) == 24);
const _: () = assert!(core::mem::offset_of!(FlowKey, direction) == 28);
const _: () = assert!(core::mem::offset_of!(FlowKey, local_port) == 30);
const _: () = assert!(size_of::<FlowSlot>() == 192 && align_of::<FlowSlot>() == 64);
const _: () = assert!(core::mem::offset_of!(FlowSlot, generation) == 16);
const _: () = assert!(core::mem::offset_of!(FlowSlot, state) == 20);
const _: () = assert!(core::mem::offset_of!(FlowSlot, last_sent_ns) == 64);
const _: () = assert!(core::mem::offset_of!(FlowSlot, last_received_ns) == 128);
const _: () = assert!(core::mem::offset_of!(FlowSlot, charged_id) == 112);
const _: () = assert!(size_of::<ServicePort>() == 24 && align_of::<ServicePort>() == 8);
const _: () = assert!(size_of::<Share>() == 16);
const _: () = assert!(size_of::<PairKey>() == 32 && size_of::<Pair>() == 32);
const _: () = assert!(size_of::<SocketState>() == 24 && size_of::<TcpSocket>() == 32);
const _: () = assert!(size_of::<EventHeader>() == 16);
const _: () = assert!(size_of::<FlowSeen>() == 40);
const _: () = assert!(size_of::<CgroupEvent>() == 16);
const _: () = assert!(size_of::<DnsAnswer>() == 32);
const _: () = assert!(size_of::<Volume>() == 8 && size_of::<WatchedFile>() == 16);
const _: () = assert!(size_of::<ReadKey>() == 40 && size_of::<ReadCounts>() == 56);
const _: () = assert!(size_of::<ReaderShare>() == 32 && size_of::<SecretSeen>() == 448);
