//! Everything but TCP: a packet and its socket's state in, what the packet means for the pair of
//! sockets out.
//!
//! Who began is who was heard first on the pair, or for protocols that say it (echo, SCTP) who
//! asked. A socket with one peer remembers its pair itself; only from the second peer on the pair
//! table is used, so that its size is that of busy servers and not of all traffic.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, bpf_sock},
    helpers::bpf_skb_cgroup_id,
    programs::SkBuffContext,
};
use parapet_common::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, DIRECTION_UNKNOWN, FlowSlot, Pair, PairKey,
    STAGE_NO_SOCKET, STAGE_SOCKET_PAIR, SocketState,
};

use crate::{
    clock, count,
    flow::{self, ANSWER, ANY_DIRECTION, ATTEMPT, Marks, NO_SLOT, NOTHING, RESET},
    maps::PAIRS,
    names::{self, DNS_PORT},
    opaque,
    packet::{
        IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_UDP, IPPROTO_UDPLITE, Packet, Plain,
        Role, Way,
    },
    share,
    socket::{
        self, CachedFlow, PHASE_OLDER, PHASE_OLDER_CONNECTED, PHASE_OLDER_PEERS, PHASE_PEERS,
        STATE_ESTABLISHED,
    },
};

/// errno of include/uapi/asm-generic/errno-base.h, as the helpers return it.
const EEXIST: i32 = -17;
/// How long a pair may be in use before the table is told again: shorter than the agent lets any
/// pair be idle.
const TELL_EVERY_NS: u64 = 1_000_000_000;

/// The slot of a datagram of a pair that was answered, or of one more question: that it passed is
/// all that it tells. None of all other packets, and of those from DNS servers, which are read.
#[inline(always)]
pub fn in_stream(ctx: &SkBuffContext, way: Way, plain: &Plain) -> Option<*mut FlowSlot> {
    let state = socket::known(socket::of(ctx)?)?;
    let cached = socket::cached(state);
    // Looked at first and for all packets: it is far away if the socket was quiet for a while, and
    // the processor fetches it while headers are read.
    let slot = flow::remembered(cached)?;
    flow::touch(slot, way);
    let [own_port, peer_port] = plain.own_and_peer_port(ctx, way)?;
    if peer_port == DNS_PORT {
        return None;
    }
    // SAFETY: a live map value.
    let has_one_peer = has_one_peer(unsafe { (*state).phase });
    if peer_port == cached.peer_port() && flow::is_with(slot, &plain.peer, IPPROTO_UDP) {
        let is_told = has_one_peer || !is_untold(state, clock::now_ns());
        let says_nothing = cached.answered() || is_from_asking(slot, way);
        return if says_nothing && is_told { Some(slot) } else { None };
    }
    if has_one_peer {
        return None;
    }
    let slot = in_table(
        way,
        state,
        &PairKey {
            owner: socket::cookie(ctx),
            peer_addr: flow::bytes(plain.peer),
            peer_port,
            local_port: own_port,
            protocol: IPPROTO_UDP,
            reserved: [0; 3],
        },
    );
    if slot.is_null() { None } else { Some(slot) }
}

/// The same of a pair that the table remembers, which is told that it is in use; the socket
/// remembers it from here on. Null instead of none: what is returned must fit into a register.
#[inline(never)]
fn in_table(way: Way, state: *mut SocketState, key: &PairKey) -> *mut FlowSlot {
    let none = core::ptr::null_mut();
    let Some(pair) = PAIRS.get_ptr_mut(key) else { return none };
    // SAFETY: a live map value; an entry forgotten meanwhile is still mapped memory.
    let (cached, is_answered) = unsafe { (CachedFlow((*pair).flow), (*pair).answered != 0) };
    let Some(slot) = flow::remembered(cached) else { return none };
    flow::touch(slot, way);
    let is_with = flow::is_with(slot, &flow::address(key.peer_addr), key.protocol);
    if !is_with || !(is_answered || is_from_asking(slot, way)) {
        return none;
    }
    // SAFETY: as above.
    unsafe { (*pair).last_seen_ns = clock::now_ns() };
    flow::note(state, cached.answered_is(is_answered));
    slot
}

/// Whether a packet goes the way of those that asked: one more of these is no answer.
#[inline(always)]
fn is_from_asking(slot: *mut FlowSlot, way: Way) -> bool {
    // SAFETY: a live map value.
    let direction = unsafe { (*slot).direction };
    match way {
        Way::Sent => direction == DIRECTION_EGRESS,
        Way::Received => direction == DIRECTION_INGRESS,
    }
}

/// Any packet of all protocols but TCP.
#[inline(never)]
pub fn observe(ctx: &SkBuffContext, packet: &mut Packet) {
    let Some(sk) = socket::of(ctx) else { return count::lost(STAGE_NO_SOCKET) };
    let Some(state) = socket::state(sk) else { return flow::unseen(sk) };
    let decision = decide(ctx, packet, sk, state);
    // What was known of each value by the way it was decided on is hidden from the verifier.
    let zero = opaque::zero(ctx);
    let step = zero.u32(decision.step as u32);
    let direction = zero.u8(decision.direction);
    let answered = zero.u32(u32::from(decision.answered)) != 0;
    let mut marks = zero.u32(decision.marks);
    let mut number = zero.u32(decision.number);
    if step == Step::None as u32 {
        return;
    }
    let is_found = number == NO_SLOT;
    if is_found {
        number = zero.u32(flow::find(ctx, packet, direction));
    }
    let word = flow::word(number, packet, answered);
    if step == Step::New as u32 {
        if !keep(ctx, packet, state, direction, word) {
            marks &= !ATTEMPT;
        }
    } else {
        flow::note(state, word);
        if is_found && step == Step::Pair as u32 {
            remember(ctx, packet, word);
        }
    }
    flow::settle(number, packet, marks, 0);
    names::answer(ctx, packet, direction);
}

/// What a packet means.
struct Decision {
    step: Step,
    /// The slot of its flow; [`NO_SLOT`] if it is still to be found.
    number: u32,
    /// `DIRECTION_*`.
    direction: u8,
    marks: Marks,
    /// Whether the pair was answered with it or before.
    answered: bool,
}

/// Where the flow is remembered.
#[repr(u32)]
#[derive(Clone, Copy)]
enum Step {
    /// The packet is of no flow.
    None,
    /// By the socket.
    Socket,
    /// By the socket, and by its pair in the table.
    Pair,
    /// Nowhere yet: the pair is new.
    New,
}

impl Decision {
    /// Of no flow.
    const NONE: Self =
        Self { step: Step::None, number: NO_SLOT, direction: 0, marks: NOTHING, answered: false };
}

/// Says what the packet means, and notes in the pair that it was heard of.
#[inline(always)]
fn decide(
    ctx: &SkBuffContext,
    packet: &mut Packet,
    sk: *mut bpf_sock,
    state: *mut SocketState,
) -> Decision {
    let cached = socket::cached(state);
    if has_ports(packet.protocol) || packet.protocol == IPPROTO_SCTP {
        socket::set_own_port(packet, sk);
    }
    let mut number = remembered(ctx, packet, cached);
    if number == NO_SLOT
        && has_ports(packet.protocol)
        && (as_asked(packet, sk) || as_sent(packet, sk, state, cached))
    {
        number = opaque::zero(ctx).u32(remembered(ctx, packet, cached));
    }
    if let Some(slot) = flow::slot(number) {
        return of_socket(ctx, packet, state, (number, slot), cached);
    }
    match known(ctx, packet, state) {
        Some(pair) => of_pair(ctx, packet, pair),
        None if is_copy(packet, sk) => Decision::NONE,
        None => beginning(ctx, packet, state).decision(),
    }
}

/// The slot that the socket remembers, if the packet is of that pair.
#[inline(always)]
fn remembered(ctx: &SkBuffContext, packet: &Packet, cached: CachedFlow) -> u32 {
    if cached.peer_port() == packet.pair_port {
        flow::cached_slot(ctx, cached, packet, ANY_DIRECTION)
    } else {
        NO_SLOT
    }
}

#[inline(always)]
fn has_ports(protocol: u8) -> bool {
    matches!(protocol, IPPROTO_UDP | IPPROTO_UDPLITE)
}

/// What a raw socket reads of others' datagrams, which are counted at the sockets they are for.
#[inline(always)]
fn is_copy(packet: &Packet, sk: *mut bpf_sock) -> bool {
    if !has_ports(packet.protocol) || !matches!(packet.way, Way::Received) {
        return false;
    }
    socket::is_raw(sk)
}

#[inline(always)]
fn is_connected(sk: *mut bpf_sock) -> bool {
    // SAFETY: a field that all sockets have.
    unsafe { (*sk).state == STATE_ESTABLISHED }
}

/// A connected socket of the node that asked for a Service: on its way out the packet has the
/// backend's address already, on its way in the Service's again. Whether the packet has another
/// peer now comes out.
#[inline(always)]
fn as_asked(packet: &mut Packet, sk: *mut bpf_sock) -> bool {
    if !is_connected(sk) {
        return false;
    }
    let (wire_addr, wire_port) = (packet.peer, packet.peer_port);
    socket::set_asked(packet, sk);
    let is_wire = packet.peer_port == wire_port && packet.peer == wire_addr;
    if is_wire {
        return false;
    }
    // A connected socket may also send to somebody else.
    let is_service = flow::service(packet).is_some();
    if !is_service {
        packet.set_peer(wire_addr, wire_port);
    }
    is_service
}

/// A socket of the node that asked for a Service without being connected to it: on their way out
/// its packets have the backend's address already, and answers have the Service's. A Service begins
/// nothing, so what comes from one to a socket that asked one peer is from that peer.
#[inline(always)]
fn as_sent(
    packet: &mut Packet,
    sk: *mut bpf_sock,
    state: *mut SocketState,
    cached: CachedFlow,
) -> bool {
    // SAFETY: a live map value.
    let one_peer = has_one_peer(unsafe { (*state).phase });
    if matches!(packet.way, Way::Sent) || !one_peer || is_connected(sk) {
        return false;
    }
    let Some(slot) = flow::remembered(cached) else { return false };
    // SAFETY: a live map value.
    let (peer, direction) = unsafe { ((*slot).peer_addr, (*slot).direction) };
    let is_answer = direction == DIRECTION_EGRESS && flow::service(packet).is_some();
    if is_answer {
        packet.set_peer(flow::address(peer), cached.peer_port());
    }
    is_answer
}

#[inline(always)]
fn of_socket(
    ctx: &SkBuffContext,
    packet: &Packet,
    state: *mut SocketState,
    (number, slot): (u32, *mut FlowSlot),
    cached: CachedFlow,
) -> Decision {
    // SAFETY: a live map value.
    let direction = unsafe { (*slot).direction };
    let (marks, answered) = marks(direction, packet, cached.answered());
    if answered != cached.answered() || is_untold(state, packet.time_ns) {
        tell(ctx, packet, state, direction, cached.answered_is(answered));
    }
    Decision { step: Step::Socket, number, direction, marks, answered }
}

/// Whether the table was not told for too long of what the socket knows by itself.
#[inline(always)]
fn is_untold(state: *mut SocketState, now_ns: u64) -> bool {
    // SAFETY: a live map value.
    now_ns.saturating_sub(unsafe { (*state).told_ns }) > TELL_EVERY_NS
}

/// Tells the table that the pair that the socket remembers is in use, and how.
#[inline(never)]
fn tell(
    ctx: &SkBuffContext,
    packet: &Packet,
    state: *mut SocketState,
    direction: u8,
    word: CachedFlow,
) {
    // SAFETY: a live map value.
    let phase = unsafe {
        (*state).told_ns = packet.time_ns;
        (*state).phase
    };
    if !is_in_table(packet.protocol, phase) {
        return;
    }
    let key = key(ctx, packet);
    let Some(pair) = PAIRS.get_ptr_mut(key) else {
        // The socket was quiet for so long that it was forgotten. Nothing is lost without room: the
        // socket goes on to know it.
        insert(ctx, &key, direction, word);
        return;
    };
    // SAFETY: as above; an entry forgotten meanwhile is still mapped memory.
    unsafe {
        (*pair).last_seen_ns = packet.time_ns;
        (*pair).answered = u32::from(word.answered());
    }
}

/// What a packet of a pair with this direction counts, and whether the pair was answered then.
#[inline(always)]
fn marks(direction: u8, packet: &Packet, answered: bool) -> (Marks, bool) {
    if direction == DIRECTION_UNKNOWN {
        return (NOTHING, answered);
    }
    let from_asked = match packet.way {
        Way::Sent => direction == DIRECTION_INGRESS,
        Way::Received => direction == DIRECTION_EGRESS,
    };
    if answered {
        // Another association between the same ports. An INIT that is only sent again was not
        // answered.
        let again = !from_asked && packet.protocol == IPPROTO_SCTP && packet.role() == Role::Asks;
        return if again { (ATTEMPT, false) } else { (NOTHING, true) };
    }
    match (from_asked, packet.role()) {
        (true, Role::Refuses) => (RESET, true),
        (true, Role::Plain | Role::Follows | Role::Completes) | (false, Role::Completes) => {
            (ANSWER, true)
        }
        _ => (NOTHING, false),
    }
}

#[inline(always)]
fn key(ctx: &SkBuffContext, packet: &Packet) -> PairKey {
    let owner = if packet.protocol == IPPROTO_SCTP {
        // SAFETY: the context is valid for the whole program.
        unsafe { bpf_skb_cgroup_id(ctx.skb.skb) }
    } else {
        socket::cookie(ctx)
    };
    PairKey {
        owner,
        peer_addr: flow::bytes(packet.peer),
        peer_port: packet.pair_port,
        local_port: packet.local_port,
        protocol: packet.protocol,
        reserved: [0; 3],
    }
}

/// The pair in the table, if the socket has any there.
#[inline(always)]
pub fn known(ctx: &SkBuffContext, packet: &Packet, state: *mut SocketState) -> Option<*mut Pair> {
    // SAFETY: a live map value.
    if !is_in_table(packet.protocol, unsafe { (*state).phase }) {
        return None;
    }
    PAIRS.get_ptr_mut(key(ctx, packet))
}

#[inline(always)]
fn of_pair(ctx: &SkBuffContext, packet: &Packet, pair: *mut Pair) -> Decision {
    // SAFETY: a live map value; an entry forgotten meanwhile is still mapped memory.
    let (direction, before, cached) =
        unsafe { ((*pair).direction as u8, (*pair).answered != 0, CachedFlow((*pair).flow)) };
    if let Some(slot) = flow::slot(cached.slot()) {
        flow::touch(slot, packet.way);
    }
    let (marks, answered) = marks(direction, packet, before);
    // SAFETY: as above.
    unsafe {
        (*pair).last_seen_ns = packet.time_ns;
        if answered != before {
            (*pair).answered = u32::from(answered);
        }
    }
    let number = flow::cached_slot(ctx, cached, packet, direction);
    Decision { step: Step::Pair, number, direction, marks, answered }
}

/// The pair's flow has another slot now.
#[inline(always)]
fn remember(ctx: &SkBuffContext, packet: &Packet, word: CachedFlow) {
    if let Some(pair) = PAIRS.get_ptr_mut(key(ctx, packet)) {
        // SAFETY: a live map value; one aligned word, written whole.
        unsafe { core::ptr::write_volatile(&raw mut (*pair).flow, word.0) };
    }
}

/// Who began, and when. Without fields: the kernel's type checker refuses what the compiler makes
/// of an enum that has some.
#[repr(u32)]
enum Beginning {
    /// The packet is of no flow.
    None,
    /// Nobody can tell who began.
    Unknown,
    /// With this packet, by us.
    WeAsk,
    /// With this packet, by the peer.
    PeerAsks,
    /// Before, by us.
    WeAsked,
    /// Before, by the peer.
    PeerAsked,
}

impl Beginning {
    #[inline(always)]
    fn decision(self) -> Decision {
        let (direction, marks) = match self {
            Self::None => return Decision::NONE,
            Self::Unknown => (DIRECTION_UNKNOWN, NOTHING),
            Self::WeAsk => (DIRECTION_EGRESS, ATTEMPT),
            Self::PeerAsks => (DIRECTION_INGRESS, ATTEMPT),
            Self::WeAsked => (DIRECTION_EGRESS, NOTHING),
            Self::PeerAsked => (DIRECTION_INGRESS, NOTHING),
        };
        let step = Step::New;
        Decision { step, number: NO_SLOT, direction, marks, answered: false }
    }
}

/// For the first packet of a pair, or of one that was forgotten.
#[inline(never)]
fn beginning(ctx: &SkBuffContext, packet: &Packet, state: *mut SocketState) -> Beginning {
    let sent = matches!(packet.way, Way::Sent);
    match packet.role() {
        // What the kernel's own sockets say for nobody, and copies that every raw socket gets.
        Role::Follows | Role::Refuses | Role::Completes => return Beginning::None,
        // The kernel answers an echo request, no process: it is seen where it began.
        Role::Asks if !sent && matches!(packet.protocol, IPPROTO_ICMP | IPPROTO_ICMPV6) => {
            return Beginning::None;
        }
        Role::Asks if sent => return Beginning::WeAsk,
        Role::Asks => return Beginning::PeerAsks,
        Role::Plain if packet.protocol == IPPROTO_SCTP => return Beginning::Unknown,
        Role::Plain => {}
    }
    // SAFETY: a live map value.
    let (phase, used) = unsafe { ((*state).phase, (*state).flow != 0) };
    if phase == PHASE_OLDER_CONNECTED {
        return Beginning::Unknown;
    }
    let is_older = phase == PHASE_OLDER || phase == PHASE_OLDER_PEERS;
    if sent {
        // Also of a socket on which nothing was heard: one is made for each client of a server that
        // heard it on another socket of the same port.
        if flow::is_known(ctx, packet, DIRECTION_INGRESS) {
            return Beginning::PeerAsked;
        }
        return if is_older { Beginning::Unknown } else { Beginning::WeAsk };
    }
    // A Service begins nothing: this is what its backend answered to a process of the node, whose
    // own packets carry the backend's address.
    // A socket on which nothing was heard has forgotten nothing.
    let may_follow = used || is_older || phase == PHASE_PEERS;
    if may_follow
        && (flow::service(packet).is_some() || flow::is_known(ctx, packet, DIRECTION_EGRESS))
    {
        return Beginning::WeAsked;
    }
    Beginning::PeerAsks
}

/// Remembers a new pair: in the socket if it is its only one, else in the table, together with the
/// one that the socket remembered so far. False, and the packet counted as lost, without room.
#[inline(never)]
fn keep(
    ctx: &SkBuffContext,
    packet: &Packet,
    state: *mut SocketState,
    direction: u8,
    word: CachedFlow,
) -> bool {
    let new_key = key(ctx, packet);
    let before = socket::cached(state);
    if word.0 != 0 {
        flow::note(state, word);
    }
    // SAFETY: a live map value.
    let phase = unsafe { (*state).phase };
    if !is_in_table(packet.protocol, phase) {
        match flow::remembered(before) {
            None if word.0 != 0 => return true,
            // Also without a slot: the answer must not be taken for a new beginning.
            None => {}
            Some(old) => {
                // SAFETY: a live map value.
                let (peer_addr, direction) = unsafe { ((*old).peer_addr, (*old).direction) };
                let old_key = PairKey { peer_addr, peer_port: before.peer_port(), ..new_key };
                if !insert(ctx, &old_key, direction, before) {
                    count::lost(STAGE_SOCKET_PAIR);
                }
            }
        }
        let next = if phase == PHASE_OLDER { PHASE_OLDER_PEERS } else { PHASE_PEERS };
        // SAFETY: as above.
        unsafe { (*state).phase = next };
    }
    let is_kept = insert(ctx, &new_key, direction, word);
    if !is_kept {
        count::lost(STAGE_SOCKET_PAIR);
    }
    is_kept
}

/// Whether the pairs of a socket in this phase are in the table.
#[inline(always)]
fn is_in_table(protocol: u8, phase: u32) -> bool {
    !has_one_peer(phase) || protocol == IPPROTO_SCTP
}

#[inline(always)]
fn has_one_peer(phase: u32) -> bool {
    phase != PHASE_PEERS && phase != PHASE_OLDER_PEERS
}

/// False without room.
#[inline(never)]
fn insert(ctx: &SkBuffContext, key: &PairKey, direction: u8, word: CachedFlow) -> bool {
    let charged_id = share::charged(ctx);
    if !share::has_pair(ctx, charged_id) {
        return false;
    }
    let pair = Pair {
        flow: word.0,
        last_seen_ns: clock::now_ns(),
        charged_id,
        direction: u32::from(direction),
        answered: u32::from(word.answered()),
    };
    match PAIRS.insert(key, pair, u64::from(BPF_NOEXIST)) {
        Ok(()) => share::took_pair(charged_id),
        // Another CPU was first.
        Err(EEXIST) => {}
        Err(_) => return false,
    }
    true
}
