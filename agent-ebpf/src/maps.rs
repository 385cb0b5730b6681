//! The maps and load-time constants, and nothing that uses them.

use aya_ebpf::{
    bindings::{BPF_F_CLONE, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_map_type},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, Queue, RingBuf},
};
use parapet_common::{EVENTS_BYTES, FLOWS_MAX, FlowKey, FlowSlot, PAIRS_MAX, STAGES};

/// Value of [`SOCKETS`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SocketState {
    /// A `socket::CachedFlow`.
    pub flow: u64,
    /// One of the `socket::PHASE_*` (TCP only).
    pub phase: u32,
    /// SYNs we sent again (TCP only).
    pub repeated_syns: u32,
}

/// A socket and one of its peers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PairKey {
    pub cookie: u64,
    pub peer_addr: [u8; 16],
    pub peer_port: u32,
    pub reserved: u32,
}

/// Value of [`PAIRS`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Pair {
    /// `DIRECTION_*`.
    pub direction: u32,
    /// 1 once an answer was counted (UDP).
    pub answered: u32,
    /// Sequence number of the SYN that was counted (TCP listeners).
    pub sequence: u32,
    pub reserved: u32,
    /// A `socket::CachedFlow`, so that a socket with many peers needs one hash a packet and not two
    /// (UDP).
    pub flow: u64,
}

/// Flow to slot number. Preallocated: an insert fails for want of room, never for want of memory.
#[map]
pub static FLOWS: HashMap<FlowKey, u32> = HashMap::with_max_entries(FLOWS_MAX, 0);

/// The counters. The agent maps them into its memory: reading them all costs no system call.
#[map]
pub static SLOTS: Array<FlowSlot> = Array::with_max_entries(FLOWS_MAX, BPF_F_MMAPABLE);

/// Slot numbers nobody uses, filled by the agent.
#[map]
pub static FREE_SLOTS: Queue<u32> = Queue::with_max_entries(FLOWS_MAX, 0);

/// Events for the agent.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);

/// Losses by stage.
#[map]
pub static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(STAGES, 0);

/// Who sent first on a UDP socket pair, which SYN a listener was counted for. Forgetting the oldest
/// costs one attempt counted anew, no packet.
#[map]
pub static PAIRS: LruHashMap<PairKey, Pair> = LruHashMap::with_max_entries(PAIRS_MAX, 0);

const SOCKETS_FLAGS: usize = (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize;

/// A BTF map definition, as the loader expects it: each number is the length of an array type.
/// aya's own type for this kind of map has no way to ask for `BPF_F_CLONE`.
#[repr(C)]
pub struct SocketStorage {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const SocketState,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; SOCKETS_FLAGS],
}

// SAFETY: the value is a description for the loader; no program reads or writes it.
unsafe impl Sync for SocketStorage {}

impl SocketStorage {
    pub fn as_ptr(&self) -> *mut core::ffi::c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}

/// What a socket was last seen doing. Cloned from a listener to the connections it accepts, which
/// is how an accepted connection knows that its peer began.
#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "SOCKETS")]
pub static SOCKETS: SocketStorage = SocketStorage {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

/// Offsets in bytes into structs of the running kernel, set by the agent from the kernel's BTF.
#[unsafe(no_mangle)]
static OFFSET_CGROUP_KN: u32 = 0;
#[unsafe(no_mangle)]
static OFFSET_CGROUP_ROOT: u32 = 0;
#[unsafe(no_mangle)]
static OFFSET_CGROUP_LEVEL: u32 = 0;
#[unsafe(no_mangle)]
static OFFSET_KERNFS_NODE_ID: u32 = 0;
#[unsafe(no_mangle)]
static OFFSET_CGROUP_ROOT_HIERARCHY_ID: u32 = 0;
#[unsafe(no_mangle)]
static OFFSET_SOCK_ERR: u32 = 0;

/// Which field.
#[derive(Clone, Copy)]
pub enum Offset {
    CgroupKn,
    CgroupRoot,
    CgroupLevel,
    KernfsNodeId,
    CgroupRootHierarchyId,
    SockErr,
}

impl Offset {
    #[inline(always)]
    pub fn bytes(self) -> usize {
        let global: *const u32 = match self {
            Self::CgroupKn => &raw const OFFSET_CGROUP_KN,
            Self::CgroupRoot => &raw const OFFSET_CGROUP_ROOT,
            Self::CgroupLevel => &raw const OFFSET_CGROUP_LEVEL,
            Self::KernfsNodeId => &raw const OFFSET_KERNFS_NODE_ID,
            Self::CgroupRootHierarchyId => &raw const OFFSET_CGROUP_ROOT_HIERARCHY_ID,
            Self::SockErr => &raw const OFFSET_SOCK_ERR,
        };
        // SAFETY: a static of this object; volatile because the loader changes it after
        // compilation.
        unsafe { core::ptr::read_volatile(global) as usize }
    }
}
