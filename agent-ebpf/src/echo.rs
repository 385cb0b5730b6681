//! ICMP errors that raw sockets read in, the echo requests they quote refused out.

use aya_ebpf::programs::SkBuffContext;

use crate::{
    flow::{self, ANY_DIRECTION},
    packet::{self, Packet, Way},
    pair,
    socket::{self, CachedFlow},
};

/// An ICMP error that a raw socket reads: it makes no flow, and refuses the echo request it quotes
/// if this socket sent that.
#[inline(never)]
pub fn refuse(ctx: &SkBuffContext, packet: &mut Packet) {
    let Some(state) = socket::of(ctx).and_then(socket::known) else { return };
    if matches!(packet.way, Way::Sent) || !packet::quoted_echo(ctx, packet) {
        return;
    }
    let is_port = packet.quote_is_port != 0;
    let cached = socket::cached(state);
    if cached.peer_port() == packet.pair_port
        && let Some(slot) = flow::slot(flow::cached_slot(ctx, cached, packet, ANY_DIRECTION))
    {
        if !cached.answered() {
            flow::note(state, cached.with_answer());
            flow::refuse(slot, is_port);
        }
    } else if let Some(pair) = pair::known(ctx, packet, state) {
        // SAFETY: a live map value.
        let (answered, cached) = unsafe { ((*pair).answered != 0, CachedFlow((*pair).flow)) };
        if !answered
            && let Some(slot) = flow::slot(flow::cached_slot(ctx, cached, packet, ANY_DIRECTION))
        {
            // SAFETY: as above.
            unsafe { (*pair).answered = 1 };
            flow::refuse(slot, is_port);
        }
    }
}
