//! The maps and load-time constants, and nothing that uses them.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_map_type},
    macros::map,
    maps::{Array, HashMap, PerCpuArray, Queue, RingBuf},
};
use parapet_common::{
    DNS_BYTES_MAX, DnsAnswer, EVENTS_BYTES, EventHeader, FLOWS_MAX, FlowKey, FlowSlot, NAMES_BYTES,
    PAIRS_MAX, POD_CGROUPS_MAX, Pair, PairKey, READERS_MAX, READS_MAX, ReadCounts, ReadKey,
    ReaderShare, SECRETS_BYTES, SERVICES_MAX, SHARES_MAX, STAGES, ServicePort, Share, SocketState,
    TOTALS as TOTALS_COUNT, TcpSocket, VOLUME_WORDS, VOLUMES_MAX, Volume, WATCHED_FILES_MAX,
    WatchedFile,
};

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

/// What [`NAMES`] carries, as long as its payload is.
#[repr(C)]
pub struct DnsEvent {
    pub header: EventHeader,
    pub body: DnsAnswer,
    pub payload: [u8; DNS_BYTES_MAX],
}

/// DNS answers for the agent.
#[map]
pub static NAMES: RingBuf = RingBuf::with_byte_size(NAMES_BYTES, 0);

/// Where an answer is put together: a ring entry of unknown length cannot be reserved (5.10 knows
/// no dynptr).
#[map]
pub static NAMES_SCRATCH: PerCpuArray<DnsEvent> = PerCpuArray::with_max_entries(1, 0);

/// Losses by stage.
#[map]
pub static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(STAGES, 0);

/// What was seen, whether there was room to count it by flow or not.
#[map]
pub static TOTALS: PerCpuArray<u64> = PerCpuArray::with_max_entries(TOTALS_COUNT, 0);

/// Who sent first, on the pairs of sockets that have more than one peer. Memory is taken as it
/// fills: most nodes never need a hundredth of it.
#[map]
pub static PAIRS: HashMap<PairKey, Pair> = HashMap::with_max_entries(PAIRS_MAX, BPF_F_NO_PREALLOC);

/// Ports of Services, as clients ask for them.
#[map]
pub static SERVICES: HashMap<ServicePort, u32> =
    HashMap::with_max_entries(SERVICES_MAX, BPF_F_NO_PREALLOC);

/// Raised by the agent after each change of [`SERVICES`].
#[map]
pub static SERVICES_VERSION: Array<u32> = Array::with_max_entries(1, 0);

/// So that busy flows of a node rarely share a place, and all places stay in a processor's cache.
pub const HINTS_BITS: u32 = 12;

/// Slots by a few bits of their key's, see `hint`.
#[map]
pub static HINTS: Array<u64> = Array::with_max_entries(1 << HINTS_BITS, 0);

/// The cgroups of pods.
#[map]
pub static POD_CGROUPS: HashMap<u64, u32> =
    HashMap::with_max_entries(POD_CGROUPS_MAX, BPF_F_NO_PREALLOC);

/// What each pod, or cgroup in no pod, got of the tables.
#[map]
pub static TAKEN: HashMap<u64, Share> = HashMap::with_max_entries(SHARES_MAX, BPF_F_NO_PREALLOC);

/// What the agent took back of that.
#[map]
pub static RETURNED: HashMap<u64, Share> = HashMap::with_max_entries(SHARES_MAX, BPF_F_NO_PREALLOC);

/// Listening ports of every network namespace, while sockets older than the sensor are looked at.
#[map]
pub static LISTENERS: HashMap<Listener, u32> =
    HashMap::with_max_entries(LISTENERS_MAX, BPF_F_NO_PREALLOC);

const LISTENERS_MAX: u32 = 32_768;

/// Key of [`LISTENERS`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Listener {
    /// Address of the network namespace in the kernel: never shown, only compared.
    pub namespace: u64,
    pub port: u64,
}

/// Superblocks that hold secrets, by device number. All maps of secrets are preallocated: an open
/// may happen where no memory can be had.
#[map]
pub static VOLUMES: HashMap<u32, Volume> = HashMap::with_max_entries(VOLUMES_MAX, 0);

/// A bit for each of them.
#[map]
pub static VOLUME_BITS: Array<u64> = Array::with_max_entries(VOLUME_WORDS, 0);

/// Watched files of other superblocks.
#[map]
pub static WATCHED_FILES: HashMap<WatchedFile, u32> =
    HashMap::with_max_entries(WATCHED_FILES_MAX, 0);

/// Who opened what.
#[map]
pub static READS: HashMap<ReadKey, ReadCounts> = HashMap::with_max_entries(READS_MAX, 0);

/// What each cgroup got of [`READS`].
#[map]
pub static READERS: HashMap<u64, ReaderShare> = HashMap::with_max_entries(READERS_MAX, 0);

/// What the agent took back of that.
#[map]
pub static READERS_RETURNED: HashMap<u64, u64> = HashMap::with_max_entries(READERS_MAX, 0);

/// Readers for the agent.
#[map]
pub static SECRETS: RingBuf = RingBuf::with_byte_size(SECRETS_BYTES, 0);

/// What was last seen of each TCP connection and listener, by the last bits of its cookie.
#[map]
pub static TCP_SOCKETS: Array<TcpSocket> = Array::with_max_entries(TCP_SOCKETS_MAX, 0);

/// Set by the agent to a power of two, and `TCP_SOCKETS_MASK` to one less.
const TCP_SOCKETS_MAX: u32 = FLOWS_MAX.next_power_of_two();

/// A BTF map definition, as the loader expects it: each number is the length of an array type.
/// aya's own type for this kind of map takes no sockets of packet programs.
#[repr(C)]
pub struct SocketStorage {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const SocketState,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: the value is a description for the loader; no program reads or writes it.
unsafe impl Sync for SocketStorage {}

impl SocketStorage {
    pub fn as_ptr(&self) -> *mut core::ffi::c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}

/// What a socket was last seen doing that has no place in [`TCP_SOCKETS`].
#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "SOCKETS")]
pub static SOCKETS: SocketStorage = SocketStorage {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

/// How long a tick of the kernel is; set by the agent.
#[unsafe(no_mangle)]
static TICK_NS: u64 = 0;

#[inline(always)]
pub fn tick_ns() -> u64 {
    // SAFETY: as for the offsets below.
    unsafe { core::ptr::read_volatile(&raw const TICK_NS) }
}

/// Flows a pod may have at once; set by the agent.
#[unsafe(no_mangle)]
static FLOWS_SHARE: u32 = FLOWS_MAX;

#[inline(always)]
pub fn flows_share() -> u32 {
    // SAFETY: as for the offsets below.
    unsafe { core::ptr::read_volatile(&raw const FLOWS_SHARE) }
}

/// The bits of a cookie that are a place in [`TCP_SOCKETS`]; set by the agent.
#[unsafe(no_mangle)]
static TCP_SOCKETS_MASK: u32 = TCP_SOCKETS_MAX - 1;

#[inline(always)]
pub fn tcp_sockets_mask() -> u32 {
    // SAFETY: as for the offsets below.
    unsafe { core::ptr::read_volatile(&raw const TCP_SOCKETS_MASK) }
}

/// Entries of [`READS`] that a cgroup may have at once; set by the agent.
#[unsafe(no_mangle)]
static READS_SHARE: u32 = READS_MAX;

#[inline(always)]
pub fn reads_share() -> u32 {
    // SAFETY: as for the offsets below.
    unsafe { core::ptr::read_volatile(&raw const READS_SHARE) }
}

/// Declares the load-time constants and the enum that names them.
macro_rules! offsets {
    ($($variant:ident = $global:ident),* $(,)?) => {
        $(
        // SAFETY: a name of this object's own, which the loader looks for.
        #[unsafe(no_mangle)]
        static $global: u32 = 0;
        )*

        /// Offset in bytes into a struct of the running kernel, set by the agent from the kernel's
        /// BTF.
        #[derive(Clone, Copy)]
        pub enum Offset {
            $($variant),*
        }

        impl Offset {
            #[inline(always)]
            pub fn bytes(self) -> usize {
                let global: *const u32 = match self {
                    $(Self::$variant => &raw const $global),*
                };
                // SAFETY: a static of this object; volatile because the loader changes it after
                // compilation.
                unsafe { core::ptr::read_volatile(global) as usize }
            }
        }
    };
}

offsets! {
    CgroupKn = OFFSET_CGROUP_KN,
    CgroupRoot = OFFSET_CGROUP_ROOT,
    CgroupLevel = OFFSET_CGROUP_LEVEL,
    KernfsNodeId = OFFSET_KERNFS_NODE_ID,
    CgroupRootHierarchyId = OFFSET_CGROUP_ROOT_HIERARCHY_ID,
    SockErr = OFFSET_SOCK_ERR,
    SockErrSoft = OFFSET_SOCK_ERR_SOFT,
    SockErrorQueue = OFFSET_SOCK_ERROR_QUEUE,
    SkBuffHeadPrev = OFFSET_SK_BUFF_HEAD_PREV,
    SkBuffCb = OFFSET_SK_BUFF_CB,
    ExtendedError = OFFSET_EXTENDED_ERROR,
    SockProtocol = OFFSET_SOCK_PROTOCOL,
    SocketSk = OFFSET_SOCKET_SK,
    SkcFamily = OFFSET_SKC_FAMILY,
    SkcState = OFFSET_SKC_STATE,
    SkcNum = OFFSET_SKC_NUM,
    SkcDport = OFFSET_SKC_DPORT,
    SkcNet = OFFSET_SKC_NET,
    SkcCookie = OFFSET_SKC_COOKIE,
    IcskAcceptQueue = OFFSET_ICSK_ACCEPT_QUEUE,
    QueueLength = OFFSET_QUEUE_LENGTH,
    RegsSyscall = OFFSET_REGS_SYSCALL,
    RegsFirst = OFFSET_REGS_FIRST,
    ThreadCompat = OFFSET_THREAD_COMPAT,
    TaskFiles = OFFSET_TASK_FILES,
    TaskMm = OFFSET_TASK_MM,
    TaskCred = OFFSET_TASK_CRED,
    TaskComm = OFFSET_TASK_COMM,
    TaskTgid = OFFSET_TASK_TGID,
    TaskCgroups = OFFSET_TASK_CGROUPS,
    FilesFdt = OFFSET_FILES_FDT,
    FdtFd = OFFSET_FDT_FD,
    FdtMax = OFFSET_FDT_MAX,
    MmExeFile = OFFSET_MM_EXE_FILE,
    CredEuid = OFFSET_CRED_EUID,
    CssSetCgroup = OFFSET_CSS_SET_CGROUP,
    FileInode = OFFSET_FILE_INODE,
    FileMode = OFFSET_FILE_MODE,
    FilePath = OFFSET_FILE_PATH,
    PathDentry = OFFSET_PATH_DENTRY,
    InodeSb = OFFSET_INODE_SB,
    InodeNumber = OFFSET_INODE_NUMBER,
    InodeMode = OFFSET_INODE_MODE,
    InodeGeneration = OFFSET_INODE_GENERATION,
    SbDevice = OFFSET_SB_DEVICE,
    SbRoot = OFFSET_SB_ROOT,
    SbMagic = OFFSET_SB_MAGIC,
    DentryInode = OFFSET_DENTRY_INODE,
    DentryName = OFFSET_DENTRY_NAME,
    DentryParent = OFFSET_DENTRY_PARENT,
    QstrName = OFFSET_QSTR_NAME,
    IoKiocbOpcode = OFFSET_IO_KIOCB_OPCODE,
    IoOpenSlot = OFFSET_IO_OPEN_SLOT,
    RingFiles = OFFSET_RING_FILES,
    FileTableData = OFFSET_FILE_TABLE_DATA,
    RsrcDataCount = OFFSET_RSRC_DATA_COUNT,
    RsrcDataNodes = OFFSET_RSRC_DATA_NODES,
    RsrcNodeFile = OFFSET_RSRC_NODE_FILE,
    CqeResult = OFFSET_CQE_RESULT,
    KiocbFile = OFFSET_KIOCB_FILE,
    KiocbPosition = OFFSET_KIOCB_POSITION,
    VmaFile = OFFSET_VMA_FILE,
}
