//! What the packet programs are measured against; the agent never loads these.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::{btf_tracepoint, cgroup_skb, map},
    maps::HashMap,
    programs::{BtfTracePointContext, SkBuffContext},
};
use parapet_common::FlowKey;

use crate::{
    count, flow,
    packet::{self, Packet, Parsed, Way},
};

const PASS: i32 = 1;

/// The price of being called at all.
#[cgroup_skb(egress)]
pub fn bench_empty(_: SkBuffContext) -> i32 {
    PASS
}

/// Value of [`FLOOR`].
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Floor {
    last_seen_ns: u64,
    packets_total: u64,
    bytes_total: u64,
}

/// The floor's counters: one entry where nobody measures, else as many as there are flows.
#[map]
pub static FLOOR: HashMap<FlowKey, Floor> = HashMap::with_max_entries(1, 0);

/// The least a flow counter can do: read the headers and the time, find the flow in one hash, and
/// count the packet there.
#[cgroup_skb(egress)]
pub fn bench_floor(ctx: SkBuffContext) -> i32 {
    let mut packet = Packet::new(&ctx, Way::Sent);
    if !matches!(packet::parse(&ctx, &mut packet), Parsed::Flow) {
        return PASS;
    }
    let key = FlowKey {
        cgroup_id: 1,
        peer_addr: flow::bytes(packet.peer),
        // Whose the flow is it does not know, and takes the lower one for the server's.
        service_port: packet.peer_port.min(packet.local_port),
        protocol: packet.protocol,
        family: packet.family,
        direction: 1,
        reserved: 0,
        local_port: 0,
    };
    let Some(floor) = FLOOR.get_ptr_mut(key) else {
        // A full table is the bench's own affair: it asks for room for all.
        let _ = FLOOR.insert(key, Floor::default(), u64::from(BPF_NOEXIST));
        return PASS;
    };
    // SAFETY: a live map value.
    unsafe {
        core::ptr::write_volatile(&raw mut (*floor).last_seen_ns, packet.time_ns);
        count::add(&raw mut (*floor).packets_total, 1);
        count::add(&raw mut (*floor).bytes_total, u64::from(packet.bytes));
    }
    PASS
}

/// The price of having anything at the end of system calls.
#[btf_tracepoint(function = "sys_exit")]
pub fn bench_syscall(_: BtfTracePointContext) -> i32 {
    0
}
