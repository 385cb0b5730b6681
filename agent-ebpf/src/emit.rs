//! The only writer of the event ring: facts in, events out, failures counted.

use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_probe_read_kernel_str_bytes};
use parapet_common::{
    CGROUP_PATH_BYTES_MAX, CgroupEvent, EVENT_FLOW_SEEN, EVENTS_BYTES, EventHeader, FlowSeen,
    STAGE_RING_FULL,
};

use crate::{count, maps::EVENTS, ring};

#[repr(C)]
struct FlowSeenEvent {
    header: EventHeader,
    body: FlowSeen,
}

/// One byte more than the longest path: the helper ends it with a zero byte.
#[repr(C)]
struct CgroupPathEvent {
    header: EventHeader,
    body: CgroupEvent,
    path: [u8; CGROUP_PATH_BYTES_MAX + 8],
}

pub fn flow_seen(body: FlowSeen) {
    let Some(mut entry) = EVENTS.reserve::<FlowSeenEvent>(0) else {
        return count::lost(STAGE_RING_FULL);
    };
    entry.write(FlowSeenEvent {
        header: EventHeader {
            kind: EVENT_FLOW_SEEN,
            body_bytes: size_of::<FlowSeen>() as u32,
            // SAFETY: a helper without arguments.
            time_ns: unsafe { bpf_ktime_get_ns() },
        },
        body,
    });
    entry.submit(ring::wake_up(&EVENTS, EVENTS_BYTES));
}

/// `path` is a kernel string.
pub fn cgroup(kind: u32, body: CgroupEvent, path: *const u8) {
    let Some(mut entry) = EVENTS.reserve::<CgroupPathEvent>(0) else {
        return count::lost(STAGE_RING_FULL);
    };
    let event = entry.as_mut_ptr();
    // SAFETY: `event` is reserved ring memory of this size; every field the agent reads is written.
    unsafe {
        let destination = core::slice::from_raw_parts_mut(
            (&raw mut (*event).path).cast::<u8>(),
            CGROUP_PATH_BYTES_MAX + 1,
        );
        let path_bytes = match bpf_probe_read_kernel_str_bytes(path, destination) {
            Ok(path) => path.len() as u32,
            Err(_) => 0,
        };
        (*event).body = body;
        (*event).header = EventHeader {
            kind,
            body_bytes: size_of::<CgroupEvent>() as u32 + path_bytes,
            time_ns: bpf_ktime_get_ns(),
        };
    }
    entry.submit(ring::wake_up(&EVENTS, EVENTS_BYTES));
}
