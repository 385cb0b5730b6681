//! What the packet programs are measured against; the agent never loads these.

use aya_ebpf::{
    macros::{btf_tracepoint, cgroup_skb},
    programs::{BtfTracePointContext, SkBuffContext},
};
use parapet_common::FlowKey;

use crate::{
    count, flow,
    maps::{FLOWS, LOST},
    packet::{self, Packet, Parsed, Way},
    socket,
};

const PASS: i32 = 1;

/// The price of being called at all.
#[cgroup_skb(egress)]
pub fn bench_empty(_: SkBuffContext) -> i32 {
    PASS
}

/// The least a flow counter can do: read the headers, the time, and one hash.
#[cgroup_skb(egress)]
pub fn bench_floor(ctx: SkBuffContext) -> i32 {
    let mut packet = Packet::new(&ctx, Way::Sent);
    if !matches!(packet::parse(&ctx, &mut packet), Parsed::Flow) {
        return PASS;
    }
    let key = FlowKey {
        cgroup_id: 1,
        peer_addr: flow::bytes(packet.peer),
        service_port: packet.peer_port,
        protocol: packet.protocol,
        family: packet.family,
        direction: 1,
        reserved: 0,
        local_port: 0,
    };
    // SAFETY: the value is copied at once.
    let slot = unsafe { FLOWS.get(key).copied() };
    // The results must be used, or the compiler leaves the work out.
    if let Some(lost) = LOST.get_ptr_mut(0)
        && packet.time_ns == 0
        && slot.is_none()
    {
        count::add(lost, 0);
    }
    PASS
}

/// The least of a counter that remembers flows by their sockets, without counting: what the kernel
/// takes to find a socket's memory.
#[cgroup_skb(egress)]
pub fn bench_memory(ctx: SkBuffContext) -> i32 {
    let mut packet = Packet::new(&ctx, Way::Sent);
    if !matches!(packet::parse(&ctx, &mut packet), Parsed::Flow) {
        return PASS;
    }
    let Some(state) = socket::of(&ctx).and_then(socket::state) else { return PASS };
    // SAFETY: a live map value; one aligned word.
    let flow = unsafe { core::ptr::read_volatile(&raw const (*state).flow) };
    if let Some(lost) = LOST.get_ptr_mut(0)
        && packet.time_ns == 0
        && flow == 0
    {
        count::add(lost, 0);
    }
    PASS
}

/// The price of having anything at the end of system calls.
#[btf_tracepoint(function = "sys_exit")]
pub fn bench_syscall(_: BtfTracePointContext) -> i32 {
    0
}
