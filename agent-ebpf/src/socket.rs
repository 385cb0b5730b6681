//! What a socket remembers between packets, so that the steady state needs no hash.
//!
//! The remembered flow is one word, written and read whole: a UDP socket is used from several CPUs
//! at once, and half of one flow with half of another would count packets for the wrong peer.
//! Whatever the word says is held against the slot itself before it is believed.

use core::{ffi::c_void, ptr::read_volatile};

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::{bpf_get_socket_cookie, bpf_sk_fullsock, bpf_sk_storage_get},
    programs::SkBuffContext,
};
use parapet_common::SocketState;

use crate::{
    maps::SOCKETS,
    packet::{Address, Packet, Way},
};

/// States of include/net/tcp_states.h, part of the kernel's stable interface.
pub const STATE_ESTABLISHED: u32 = 1;
pub const STATE_CLOSE: u32 = 7;
/// A connection request that its listener has not handed over yet.
pub const STATE_NEW_SYN_RECV: u32 = 12;
pub const STATE_LISTEN: u32 = 10;
pub const STATE_SYN_SENT: u32 = 2;

/// Nothing was seen on this socket.
pub const PHASE_NEW: u32 = 0;
/// A listener.
pub const PHASE_LISTENER: u32 = 1;
/// We sent a SYN.
pub const PHASE_OPENING: u32 = 2;
/// The handshake is complete, we began. From here to [`PHASE_ENDED_INGRESS`] the socket remembers
/// the flow of its only peer.
pub const PHASE_OPEN_EGRESS: u32 = 3;
/// The handshake is complete, the peer began.
pub const PHASE_OPEN_INGRESS: u32 = 4;
/// First seen in mid-stream.
pub const PHASE_MIDSTREAM: u32 = 5;
/// FIN or RST was seen; we had begun.
pub const PHASE_ENDED_EGRESS: u32 = 6;
/// FIN or RST was seen; the peer had begun.
pub const PHASE_ENDED_INGRESS: u32 = 7;
/// Not TCP: the socket has several peers, who began is in the pair table.
pub const PHASE_PEERS: u32 = 8;
/// Not TCP: an unconnected socket older than the sensor. What it sends may be answers.
pub const PHASE_OLDER: u32 = 9;
/// Not TCP: a connected socket older than the sensor. Nobody can tell who began.
pub const PHASE_OLDER_CONNECTED: u32 = 10;
/// `PHASE_PEERS` of a socket that was `PHASE_OLDER`.
pub const PHASE_OLDER_PEERS: u32 = 11;
/// A connection that a listener accepted, before its first packet.
pub const PHASE_ACCEPTED: u32 = 12;

/// In the time of the last SYN: the attempt was refused already, but is not given up.
pub const SYN_REFUSED: u32 = 1 << 31;
/// There, too: the pod's own rules turned the connection to a proxy in the same pod.
pub const TURNED: u32 = 1 << 30;
/// What is the time of it.
pub const SYN_MS: u32 = TURNED - 1;

/// `[1 valid][1 answered][23 slot][23 generation][16 peer port]`.
#[derive(Clone, Copy)]
pub struct CachedFlow(pub u64);

const SLOT_MASK: u32 = (1 << 23) - 1;
const GENERATION_MASK: u32 = (1 << 23) - 1;
const VALID: u64 = 1 << 63;
const ANSWERED: u64 = 1 << 62;

impl CachedFlow {
    #[inline(always)]
    pub fn new(slot: u32, generation: u32, peer_port: u16, answered: bool) -> Self {
        let answered = if answered { ANSWERED } else { 0 };
        let generation = u64::from(generation & GENERATION_MASK);
        Self(VALID | answered | u64::from(slot) << 39 | generation << 16 | u64::from(peer_port))
    }

    /// Remembers nothing.
    pub const NONE: Self = Self(0);

    /// The number of its slot, or one that no slot has.
    #[inline(always)]
    pub fn slot(self) -> u32 {
        if self.0 & VALID == 0 { u32::MAX } else { (self.0 >> 39) as u32 & SLOT_MASK }
    }

    #[inline(always)]
    pub fn is_generation(self, generation: u32) -> bool {
        (self.0 >> 16) as u32 & GENERATION_MASK == generation & GENERATION_MASK
    }

    #[inline(always)]
    pub fn peer_port(self) -> u16 {
        self.0 as u16
    }

    #[inline(always)]
    pub fn answered(self) -> bool {
        self.0 & ANSWERED != 0
    }

    #[inline(always)]
    pub fn with_answer(self) -> Self {
        Self(self.0 | ANSWERED)
    }

    #[inline(always)]
    pub fn answered_is(self, answered: bool) -> Self {
        if answered { self.with_answer() } else { Self(self.0 & !ANSWERED) }
    }
}

/// The packet's socket, which may be a mini socket (a request, or in TIME_WAIT). Of those nothing
/// is remembered, and of all only the fields that they have in common may be read.
#[inline(always)]
pub fn of(ctx: &SkBuffContext) -> Option<*mut bpf_sock> {
    // SAFETY: the context is valid for the whole program.
    let sk = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if sk.is_null() { None } else { Some(sk) }
}

/// The same, if it is a whole one.
#[inline(always)]
pub fn whole(sk: *mut bpf_sock) -> Option<*mut bpf_sock> {
    // SAFETY: the helper takes a null-checked socket.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    if sk.is_null() { None } else { Some(sk) }
}

/// Puts the peer that a connected socket asked for in the place of the packet's: what DNAT made of
/// the address (on its way out of a process of the node it has happened already) does not change
/// who was asked.
#[inline(always)]
pub fn set_asked(packet: &mut Packet, sk: *mut bpf_sock) {
    if let Some((peer, port)) = asked(sk, packet.family) {
        packet.set_peer(peer, port);
    }
}

/// The peer and its port that a connected socket has; none of all others.
#[inline(always)]
pub fn asked(sk: *mut bpf_sock, family: u8) -> Option<(Address, u16)> {
    // SAFETY: a field that all sockets have, in network order.
    let port = u16::from_be(unsafe { (*sk).dst_port });
    if port == 0 {
        return None;
    }
    // SAFETY: as above. The verifier knows the socket's address as fields of four bytes and lets no
    // two of them be read at once.
    let peer = unsafe {
        if family == 4 {
            [u64::from((*sk).dst_ip4), 0]
        } else {
            address([0, 1, 2, 3].map(|word| read_volatile(&raw const (*sk).dst_ip6[word])))
        }
    };
    Some((peer, port))
}

/// The address that a connected socket has; zero of all others.
#[inline(always)]
pub fn own_address(sk: *mut bpf_sock, family: u8) -> Address {
    // SAFETY: fields that all sockets have, in network order; word by word as above.
    unsafe {
        if (*sk).dst_port == 0 {
            [0; 2]
        } else if family == 4 {
            [u64::from((*sk).src_ip4), 0]
        } else {
            address([0, 1, 2, 3].map(|word| read_volatile(&raw const (*sk).src_ip6[word])))
        }
    }
}

#[inline(always)]
fn address(words: [u32; 4]) -> Address {
    let [a, b, c, d] = words.map(u64::from);
    [a | b << 32, c | d << 32]
}

/// Puts the socket's own port in the place of a packet's that is on its way out: NAT for what the
/// node's own server answers has happened already, and does not change which of its ports was
/// asked.
#[inline(always)]
pub fn set_own_port(packet: &mut Packet, sk: *mut bpf_sock) {
    let port = own_port(sk);
    let is_sent = matches!(packet.way, Way::Sent);
    // A raw socket has its protocol there.
    if is_sent && port != 0 && port != packet.local_port && !is_raw(sk) {
        packet.local_port = port;
    }
}

/// The port that a socket has; 0 of those that have none.
#[inline(always)]
pub fn own_port(sk: *mut bpf_sock) -> u16 {
    // SAFETY: a field that all sockets have, in host order.
    unsafe { (*sk).src_port as u16 }
}

/// Whether the socket sends and reads whole packets.
#[inline(always)]
pub fn is_raw(sk: *mut bpf_sock) -> bool {
    // SAFETY: a whole socket, its fields may be read.
    whole(sk).is_some_and(|sk| unsafe { (*sk).type_ } == SOCK_RAW)
}

/// Of include/linux/net.h, part of the kernel's stable interface.
const SOCK_RAW: u32 = 3;

#[inline(always)]
pub fn cookie(ctx: &SkBuffContext) -> u64 {
    // SAFETY: the context is valid for the whole program.
    unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) }
}

/// The socket's memory, made if it has none; none if there is no room for it, or if it is a mini
/// socket.
#[inline(always)]
pub fn state(sk: *mut bpf_sock) -> Option<*mut SocketState> {
    storage(sk.cast(), BPF_SK_STORAGE_GET_F_CREATE)
}

/// The socket's memory, if it has any.
#[inline(always)]
pub fn known(sk: *mut bpf_sock) -> Option<*mut SocketState> {
    storage(sk.cast(), 0)
}

/// What the memory says of its flow: one aligned word, read whole.
#[inline(always)]
pub fn cached(state: *mut SocketState) -> CachedFlow {
    // SAFETY: a live map value.
    CachedFlow(unsafe { read_volatile(&raw const (*state).flow) })
}

/// The same of a socket that comes from `of`, or one of the kernel's own that the verifier knows.
#[inline(always)]
pub fn storage(sk: *mut c_void, flags: u32) -> Option<*mut SocketState> {
    // SAFETY: a socket; the map's value type is SocketState.
    let state = unsafe {
        bpf_sk_storage_get(SOCKETS.as_ptr(), sk, core::ptr::null_mut(), u64::from(flags))
    };
    if state.is_null() { None } else { Some(state.cast()) }
}
