//! The kernel's flow counters, read through shared memory: slots in, what was added since the last
//! read out.
//!
//! A slot is freed in two steps. First it is marked as leaving and its key leaves the hash, so that
//! no packet finds it any more; a read later, when no program that found it before can still be
//! running, its last counts are taken, its generation is raised and its number goes back to the
//! free ones. An agent that is killed in the middle leaves nothing that the next one cannot go on
//! with.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU16;
use std::ptr::NonNull;
use std::time::Duration;

use aya::Pod;
use aya::maps::{HashMap as BpfHashMap, MapData, Queue};
use parapet_common::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, FlowKey, FlowSlot, SLOT_FREE, SLOT_LEAVING, SLOT_LIVE,
};
use parapet_core::flow::{Direction, Protocol, Timestamp};
use parapet_core::record::{Counts, FlowRecord, Record, address};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::clock::{Clock, nanoseconds};

/// Under pressure (9 of 10 slots taken, of all or of a pod's share) idle flows leave after this
/// share of the usual time.
const PRESSURE_IDLE_DIVISOR: u32 = 10;
/// The same for what is over, in a pod that used half of its share: ten seconds, in which the
/// last packets of a close have passed.
const ENDED_IDLE_DIVISOR: u32 = 30;

/// Longer than any packet program runs: a slot hidden for this long is in nobody's hands.
const GRACE_NS: u64 = 100_000_000;

/// [`FlowKey`] as aya wants its keys.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Key(pub(super) FlowKey);

// SAFETY: FlowKey is repr(C), integers only, without padding: valid for every bit pattern.
#[expect(unsafe_code, reason = "aya asks for this promise about map keys")]
unsafe impl Pod for Key {}

/// Slots in view at once. So many fill whole pages of 4, 16 and 64 KiB.
const VIEW_SLOTS: u32 = 2_048;

/// The array of slots. A part of it is mapped into our memory, and goes where it is looked at: the
/// kernel maps an array's pages all at once (kernel/bpf/arraymap.c, `array_map_mmap`), and counts
/// them as ours for as long as they are mapped.
struct SharedSlots {
    view: View,
    bytes_max: usize,
    count: u32,
    /// Programs loaded later refer to the map by this descriptor.
    map: MapData,
}

/// A mapped part of the array.
struct View {
    base: NonNull<FlowSlot>,
    bytes: usize,
    first: u32,
}

// SAFETY: the memory is the kernel's and stays mapped until drop; access is by volatile reads and
// writes.
#[expect(unsafe_code, reason = "a mapping may be used from any thread")]
unsafe impl Send for View {}

// SAFETY: as above; `&self` only reads.
#[expect(unsafe_code, reason = "a mapping may be read from any thread")]
unsafe impl Sync for View {}

impl View {
    /// From this slot on, which begins a page.
    #[expect(unsafe_code, reason = "mapping a file descriptor")]
    fn map(map: &MapData, first: u32, bytes_max: usize) -> std::io::Result<Self> {
        use std::os::fd::AsFd;
        let offset = size_of::<FlowSlot>() * first as usize;
        let bytes = (size_of::<FlowSlot>() * VIEW_SLOTS as usize).min(bytes_max - offset);
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.fd().as_fd(),
                offset as u64,
            )?
        };
        let base = NonNull::new(base.cast())
            .ok_or_else(|| std::io::Error::other("the kernel mapped the slots at address 0"))?;
        Ok(Self { base, bytes, first })
    }
}

impl Drop for View {
    #[expect(unsafe_code, reason = "unmapping what `map` mapped")]
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; nothing refers to it any more.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

impl SharedSlots {
    fn map(map: MapData, count: u32) -> std::io::Result<Self> {
        let page = rustix::param::page_size();
        let bytes_max = (size_of::<FlowSlot>() * count as usize).next_multiple_of(page);
        Ok(Self { view: View::map(&map, 0, bytes_max)?, bytes_max, count, map })
    }

    /// None beyond the array, and if the kernel has no room for a mapping: such a slot is looked at
    /// again with the next read, and loses nothing.
    fn pointer(&mut self, number: u32) -> Option<NonNull<FlowSlot>> {
        if number >= self.count {
            return None;
        }
        let first = number - number % VIEW_SLOTS;
        if first != self.view.first {
            self.view = View::map(&self.map, first, self.bytes_max).ok()?;
        }
        // SAFETY: below count and in the view that begins at `first`, so inside of the mapping.
        #[expect(unsafe_code, reason = "indexing the mapping")]
        Some(unsafe { self.view.base.add((number - first) as usize) })
    }

    #[expect(unsafe_code, reason = "the kernel writes this memory meanwhile")]
    fn read(&mut self, number: u32) -> Option<FlowSlot> {
        // SAFETY: inside of the mapping; every bit pattern is a valid slot.
        self.pointer(number).map(|slot| unsafe { slot.read_volatile() })
    }

    #[expect(unsafe_code, reason = "the kernel reads this memory meanwhile")]
    fn write(&mut self, number: u32, value: FlowSlot) {
        if let Some(slot) = self.pointer(number) {
            // SAFETY: inside of the mapping; only slots that no program can find are written whole.
            unsafe { slot.write_volatile(value) }
        }
    }

    #[expect(unsafe_code, reason = "the kernel reads this memory meanwhile")]
    fn hide(&mut self, number: u32) {
        if let Some(slot) = self.pointer(number) {
            // SAFETY: inside of the mapping; one byte.
            unsafe { (&raw mut (*slot.as_ptr()).state).write_volatile(SLOT_LEAVING) }
        }
    }
}

/// What we know of a taken slot.
#[derive(Clone, Copy)]
struct Taken {
    counted: Counts,
    last_seen_ns: u64,
    /// When it was hidden from the packet programs.
    leaving_since_ns: Option<u64>,
}

/// All flows the kernel counts.
pub(super) struct Slots {
    flows: BpfHashMap<MapData, Key, u32>,
    free: Queue<MapData, u32>,
    shared: SharedSlots,
    /// In the order of their numbers, so that the view goes once over the array.
    taken: BTreeMap<u32, Taken>,
    idle_max: Duration,
    /// How many a pod, or a cgroup in no pod, may have.
    share: u64,
    /// Slots of those that had more than half of that when the counters were read last.
    crowded: HashMap<u64, u64>,
    rescan: bool,
    /// When the counters were read last; a new count is newer.
    read_ns: u64,
    /// Slots given back since they were last asked for, by who was charged for them.
    returned: HashMap<u64, u64>,
}

impl Slots {
    /// Maps the counters. Nothing is in use yet.
    pub(super) fn new(
        flows: BpfHashMap<MapData, Key, u32>,
        slots: MapData,
        free: Queue<MapData, u32>,
        (count, share): (u32, u32),
        idle_max: Duration,
    ) -> Result<Self, String> {
        let shared = SharedSlots::map(slots, count)
            .map_err(|error| format!("the flow counters cannot be mapped: {error}"))?;
        let read_ns = Clock::now().monotonic_ns();
        Ok(Self {
            flows,
            free,
            shared,
            taken: BTreeMap::new(),
            idle_max,
            share: share.into(),
            crowded: HashMap::new(),
            rescan: false,
            read_ns,
            returned: HashMap::new(),
        })
    }

    /// New maps: every slot is free.
    pub(super) fn fill(&mut self) -> Result<(), String> {
        (0..self.shared.count).try_for_each(|number| self.release(number))
    }

    /// Maps of an agent before us, in which programs may count right now: goes on where it ended.
    /// Everything that was counted is read anew, from zero.
    pub(super) fn recover(&mut self) -> Result<(), String> {
        self.read_ns = 0;
        let now_ns = Clock::now().monotonic_ns();
        for number in 0..self.shared.count {
            let Some(slot) = self.shared.read(number) else { continue };
            if slot.state != SLOT_FREE {
                self.seen(number);
            }
            if slot.state == SLOT_LEAVING {
                self.forget_key(&slot.key(), number);
                if let Some(taken) = self.taken.get_mut(&number) {
                    taken.leaving_since_ns = Some(now_ns);
                }
            }
        }
        // Twice, with time between: what a program holds in its hands is in use by then.
        let lost = self.in_no_place()?;
        if lost.is_empty() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_nanos(GRACE_NS));
        let still = self.in_no_place()?;
        lost.intersection(&still).try_for_each(|number| self.release(*number))
    }

    /// Slots that are neither free for the taking nor in use: an agent was killed while it freed
    /// them.
    fn in_no_place(&mut self) -> Result<BTreeSet<u32>, String> {
        let mut none: BTreeSet<u32> = (0..self.shared.count).collect();
        // One at a time, so that a program always finds a free one.
        for _ in 0..self.shared.count {
            let Ok(number) = self.free.pop(0) else { break };
            self.release(number)?;
            if !none.remove(&number) {
                break;
            }
        }
        for number in self.flows.iter().filter_map(Result::ok).map(|(_, number)| number) {
            none.remove(&number);
        }
        none.retain(|number| self.shared.read(*number).is_some_and(|s| s.state == SLOT_FREE));
        Ok(none)
    }

    fn release(&mut self, number: u32) -> Result<(), String> {
        self.free.push(number, 0).map_err(|error| format!("free slots: {error}"))
    }

    /// Only if the key leads to this slot.
    fn forget_key(&mut self, key: &FlowKey, number: u32) {
        if self.flows.get(&Key(*key), 0).is_ok_and(|found| found == number) {
            let _ = self.flows.remove(&Key(*key));
        }
    }

    /// Slots in use, by who is charged for them.
    pub(super) fn by_charged(&mut self) -> HashMap<u64, u64> {
        let mut counts = HashMap::new();
        for slot in self.taken.keys().filter_map(|number| self.shared.read(*number)) {
            *counts.entry(slot.charged_id).or_default() += 1;
        }
        counts
    }

    /// Slots given back since this was last asked, by who was charged for them.
    pub(super) fn take_returned(&mut self) -> HashMap<u64, u64> {
        std::mem::take(&mut self.returned)
    }

    /// An event told of this slot.
    pub(super) fn seen(&mut self, number: u32) {
        if number < self.shared.count {
            self.taken.entry(number).or_insert(Taken {
                counted: Counts::default(),
                last_seen_ns: 0,
                leaving_since_ns: None,
            });
        }
    }

    /// Events were lost: the next read looks at every slot.
    pub(super) fn rescan(&mut self) {
        self.rescan = true;
    }

    pub(super) fn entries(&self) -> u64 {
        self.taken.len() as u64
    }

    pub(super) fn capacity(&self) -> u64 {
        u64::from(self.shared.count)
    }

    /// Appends a record for every flow that counted something since the last read.
    pub(super) fn read(&mut self, clock: &Clock, records: &mut Vec<Record>) {
        if std::mem::take(&mut self.rescan) {
            for number in 0..self.shared.count {
                if self.shared.read(number).is_some_and(|slot| slot.state == SLOT_LIVE) {
                    self.seen(number);
                }
            }
        }
        let since = clock.timestamp(self.read_ns);
        self.read_ns = clock.monotonic_ns();
        let idle = Idle::new(self);
        let may_be_crowded = self.entries() > self.share / 2;
        let mut by_charged = HashMap::<u64, u64>::new();
        let (mut freed, mut hidden) = (Vec::new(), Vec::new());
        let mut unread = 0_u64;
        for (number, taken) in &mut self.taken {
            let Some(slot) = self.shared.read(*number) else {
                unread += 1;
                continue;
            };
            // The event is sent a moment after the slot is shown; the key is there before both.
            if let Some(record) = record(&slot, taken, clock, since) {
                records.push(Record::Flow(record));
            }
            if may_be_crowded {
                *by_charged.entry(slot.charged_id).or_default() += 1;
            }
            let idle_ns = idle.max_ns(&slot, self.crowded.get(&slot.charged_id).copied());
            if let Some(leaving_since_ns) = taken.leaving_since_ns {
                if self.read_ns.saturating_sub(leaving_since_ns) < GRACE_NS {
                    continue;
                }
                let generation = slot.generation.wrapping_add(1);
                self.shared.write(*number, FlowSlot { generation, ..empty() });
                freed.push(*number);
                *self.returned.entry(slot.charged_id).or_default() += 1;
            } else if clock.monotonic_ns().saturating_sub(slot.last_seen_ns()) > idle_ns
                && slot.state == SLOT_LIVE
            {
                // This order: who is killed between the two leaves a slot that is seen to leave.
                self.shared.hide(*number);
                hidden.push((slot.key(), *number));
                taken.leaving_since_ns = Some(self.read_ns);
            }
        }
        by_charged.retain(|_, slots| *slots > self.share / 2);
        self.crowded = by_charged;
        if unread > 0 {
            tracing::error!(unread, "flow counters cannot be mapped, and wait for the next read");
        }
        for (key, number) in hidden {
            self.forget_key(&key, number);
        }
        for number in freed {
            self.taken.remove(&number);
            if let Err(error) = self.release(number) {
                tracing::error!(number, "{error}");
            }
        }
    }
}

/// How long a flow may be idle.
struct Idle {
    usual_ns: u64,
    pressed_ns: u64,
    ended_ns: u64,
    share: u64,
}

impl Idle {
    fn new(slots: &Slots) -> Self {
        let pressed_ns = nanoseconds(slots.idle_max / PRESSURE_IDLE_DIVISOR);
        let all_pressed = is_nearly(slots.entries(), slots.capacity());
        Self {
            usual_ns: if all_pressed { pressed_ns } else { nanoseconds(slots.idle_max) },
            pressed_ns,
            ended_ns: nanoseconds(slots.idle_max / ENDED_IDLE_DIVISOR),
            share: slots.share,
        }
    }

    /// `crowd` is how many slots whoever is charged for this one has, if that is more than half of
    /// the share.
    fn max_ns(&self, slot: &FlowSlot, crowd: Option<u64>) -> u64 {
        match crowd {
            Some(_) if is_over(slot) => self.ended_ns,
            Some(slots) if is_nearly(slots, self.share) => self.pressed_ns,
            _ => self.usual_ns,
        }
    }
}

fn is_nearly(entries: u64, all: u64) -> bool {
    entries.saturating_mul(10) > all.saturating_mul(9)
}

/// A connection to a divided Service has a slot of its own, and needs it no more when it is closed.
/// (It stays while there is room: what a slot counted outlives the agent.)
fn is_over(slot: &FlowSlot) -> bool {
    slot.local_port != 0 && slot.closed_total > 0
}

fn empty() -> FlowSlot {
    FlowSlot {
        peer_addr: [0; 16],
        generation: 0,
        state: SLOT_FREE,
        protocol: 0,
        family: 0,
        direction: 0,
        cgroup_id: 0,
        local_addr: [0; 16],
        service_port: 0,
        local_port: 0,
        reserved: [0; 3],
        last_sent_ns: 0,
        sent_packets_total: 0,
        sent_bytes_total: 0,
        attempts_total: 0,
        closed_total: 0,
        first_seen_ns: 0,
        charged_id: 0,
        reserved_sent: 0,
        last_received_ns: 0,
        received_packets_total: 0,
        received_bytes_total: 0,
        answered_total: 0,
        refused_reset_total: 0,
        refused_port_total: 0,
        refused_route_total: 0,
        handshake_ns_total: 0,
    }
}

/// What the slot counted since `taken` was updated, which this does.
fn record(
    slot: &FlowSlot,
    taken: &mut Taken,
    clock: &Clock,
    since: Timestamp,
) -> Option<FlowRecord> {
    let total = Counts {
        sent_packets: slot.sent_packets_total,
        sent_bytes: slot.sent_bytes_total,
        received_packets: slot.received_packets_total,
        received_bytes: slot.received_bytes_total,
        attempts: slot.attempts_total,
        answered: slot.answered_total,
        refused: slot
            .refused_reset_total
            .saturating_add(slot.refused_port_total)
            .saturating_add(slot.refused_route_total),
        refused_port: slot.refused_port_total,
        refused_route: slot.refused_route_total,
        closed: slot.closed_total,
        handshake_ns: slot.handshake_ns_total,
    };
    if total == taken.counted {
        return None;
    }
    let counts = total.since(&taken.counted);
    let last_seen = clock.timestamp(slot.last_seen_ns().max(taken.last_seen_ns));
    // The time is that of a tick, so the first packet may look a few milliseconds older than it is.
    let since = since.max(clock.timestamp(slot.first_seen_ns)).min(last_seen);
    *taken = Taken {
        counted: total,
        last_seen_ns: slot.last_seen_ns(),
        leaving_since_ns: taken.leaving_since_ns,
    };
    Some(FlowRecord {
        cgroup_id: slot.cgroup_id,
        peer: address(slot.family, slot.peer_addr)?,
        local_addr: address(slot.family, slot.local_addr).filter(|own| !own.is_unspecified()),
        local_port: NonZeroU16::new(slot.local_port),
        translation: parapet_core::identity::Translation::default(),
        service_port: slot.service_port,
        protocol: Protocol(slot.protocol),
        direction: match slot.direction {
            DIRECTION_EGRESS => Some(Direction::Egress),
            DIRECTION_INGRESS => Some(Direction::Ingress),
            _ => None,
        },
        since,
        last_seen,
        counts,
    })
}
