//! Packet bytes in, addresses, ports and the packet's role out. Works on what the cgroup hooks see:
//! the IP header first, fragments already put together on the way in and not yet made on the way
//! out (unless a raw socket made them itself).

use core::mem::offset_of;

use aya_ebpf::programs::SkBuffContext;

use crate::{clock, opaque};

const IPPROTO_HOPOPTS: u8 = 0;
pub const IPPROTO_ICMP: u8 = 1;
pub const IPPROTO_TCP: u8 = 6;
pub const IPPROTO_UDP: u8 = 17;
const IPPROTO_ROUTING: u8 = 43;
const IPPROTO_FRAGMENT: u8 = 44;
const IPPROTO_AH: u8 = 51;
pub const IPPROTO_ICMPV6: u8 = 58;
const IPPROTO_DSTOPTS: u8 = 60;
pub const IPPROTO_SCTP: u8 = 132;
pub const IPPROTO_UDPLITE: u8 = 136;

/// Extension headers followed at most; real packets carry two or three.
const EXTENSION_HEADERS_MAX: u32 = 6;
/// Version 4, and a header of five words.
const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
/// Offset bits of the fragment fields of both families; the rest are flags (RFC 791, RFC 8200).
const IPV4_FRAGMENT_OFFSET: u16 = 0x1fff;
const IPV6_FRAGMENT_OFFSET: u16 = 0xfff8;

pub const TCP_FIN: u8 = 0x01;
pub const TCP_SYN: u8 = 0x02;
pub const TCP_RST: u8 = 0x04;
pub const TCP_ACK: u8 = 0x10;

/// ICMP types (RFC 792), ICMPv6 types (RFC 4443: errors are those below 128).
const ICMP_ECHO_REPLY: u8 = 0;
const ICMP_UNREACHABLE: u8 = 3;
const ICMP_ECHO: u8 = 8;
const ICMPV6_UNREACHABLE: u8 = 1;
const ICMPV6_ECHO: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;
/// Protocol unreachable, port unreachable and fragmentation needed (RFC 792); port unreachable
/// (RFC 4443).
const ICMP_CODE_PROTOCOL: u8 = 2;
const ICMP_CODE_PORT: u8 = 3;
const ICMP_CODE_TOO_BIG: u8 = 4;
const ICMPV6_CODE_PORT: u8 = 4;

/// SCTP chunk types (RFC 9260).
const SCTP_INIT: u8 = 1;
const SCTP_INIT_ACK: u8 = 2;
const SCTP_HEARTBEAT: u8 = 4;
const SCTP_HEARTBEAT_ACK: u8 = 5;
const SCTP_ABORT: u8 = 6;
const SCTP_ERROR: u8 = 9;
const SCTP_COOKIE_ECHO: u8 = 10;
const SCTP_COOKIE_ACK: u8 = 11;
const SCTP_SHUTDOWN_COMPLETE: u8 = 14;

/// The way of a packet as the local socket sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Sent,
    Received,
}

/// What a packet may mean for who began and how it ended, by its protocol and type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nothing but its direction tells: begins what was not begun, answers what was.
    Plain,
    /// Asks: an echo request, an SCTP INIT.
    Asks,
    /// Belongs to what was begun before and can begin nothing: an echo reply, an INIT ACK.
    Follows,
    /// The asked side of an association is willing only now: an SCTP COOKIE ECHO.
    Completes,
    /// Ends what was begun: an SCTP ABORT.
    Refuses,
}

/// Sixteen bytes in network order as the two words that the machine compares and copies.
pub type Address = [u64; 2];

/// What the sensor needs of one packet.
pub struct Packet {
    pub way: Way,
    /// In the form of `FlowKey::peer_addr`.
    pub peer: Address,
    /// 0 for protocols without ports.
    pub peer_port: u16,
    /// 0 for protocols without ports.
    pub local_port: u16,
    /// What tells a socket's pairs with one peer apart: the peer's port, or the echo identifier.
    pub pair_port: u16,
    pub protocol: u8,
    pub family: u8,
    /// Flags of TCP, type of ICMP, first chunk of SCTP; else 0.
    pub kind: u8,
    pub bytes: u32,
    /// When it was seen, see `clock`.
    pub time_ns: u64,
    /// Where an ICMP error quotes the packet that it is about; else 0.
    pub quote_offset: u32,
    /// 1 if that error says that nobody listens, 0 if it says that there is no way.
    pub quote_is_port: u8,
}

impl Packet {
    /// Hides from the verifier by which way each field got its value.
    #[inline(always)]
    pub fn hide(&mut self, ctx: &SkBuffContext) {
        let zero = opaque::zero(ctx);
        self.peer = self.peer.map(|word| zero.u64(word));
        self.peer_port = zero.u16(self.peer_port);
        self.local_port = zero.u16(self.local_port);
        self.pair_port = zero.u16(self.pair_port);
        self.protocol = zero.u8(self.protocol);
        self.family = zero.u8(self.family);
        self.kind = zero.u8(self.kind);
        self.quote_offset = zero.u32(self.quote_offset);
        self.quote_is_port = zero.u8(self.quote_is_port);
    }

    #[inline(always)]
    pub fn role(&self) -> Role {
        match (self.protocol, self.kind) {
            (IPPROTO_ICMP, ICMP_ECHO)
            | (IPPROTO_ICMPV6, ICMPV6_ECHO)
            | (IPPROTO_SCTP, SCTP_INIT) => Role::Asks,
            (IPPROTO_SCTP, SCTP_ABORT) => Role::Refuses,
            (IPPROTO_SCTP, SCTP_COOKIE_ECHO) => Role::Completes,
            (IPPROTO_ICMP | IPPROTO_ICMPV6, _)
            | (
                IPPROTO_SCTP,
                SCTP_INIT_ACK
                // What tries the further addresses of an association is no beginning of one.
                | SCTP_HEARTBEAT
                | SCTP_HEARTBEAT_ACK
                | SCTP_ERROR
                | SCTP_COOKIE_ACK
                | SCTP_SHUTDOWN_COMPLETE,
            ) => Role::Follows,
            _ => Role::Plain,
        }
    }

    #[inline(always)]
    fn set_ipv4(&mut self, header: &Ipv4Header) {
        self.peer = header.peer(self.way);
        self.family = 4;
        self.protocol = header.protocol;
    }

    #[inline(always)]
    fn set_ipv6(&mut self, header: &Ipv6Header) {
        (self.peer, self.family) = header.peer(self.way);
        self.protocol = header.next_header;
    }

    /// Another peer than the one that the headers name.
    #[inline(always)]
    pub fn set_peer(&mut self, peer: Address, port: u16) {
        self.peer = peer;
        self.peer_port = port;
        self.pair_port = port;
    }

    #[inline(always)]
    fn set_tcp(&mut self, tcp: &TcpStart) {
        self.set_ports(tcp.ports);
        self.kind = tcp.flags;
    }

    #[inline(always)]
    fn set_ports(&mut self, [source, destination]: Ports) {
        let (source, destination) = (u16::from_be(source), u16::from_be(destination));
        (self.local_port, self.peer_port) = match self.way {
            Way::Sent => (source, destination),
            Way::Received => (destination, source),
        };
        self.pair_port = self.peer_port;
    }

    /// Nothing read yet.
    #[inline(always)]
    pub fn new(ctx: &SkBuffContext, way: Way) -> Self {
        Self {
            way,
            peer: [0; 2],
            peer_port: 0,
            local_port: 0,
            pair_port: 0,
            protocol: 0,
            family: 0,
            kind: 0,
            bytes: ctx.len(),
            time_ns: clock::now_ns(),
            quote_offset: 0,
            quote_is_port: 0,
        }
    }
}

/// What a packet is. Without fields: a payload that only some have is, to the kernel's verifier, a
/// register that was never written.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum Parsed {
    /// Part of a flow.
    Flow,
    Malformed,
    LaterFragment,
    /// ICMP "unreachable", which a raw socket reads: see [`quoted_echo`].
    Error,
    /// Part of the network itself and of no flow: neighbour discovery, group membership, errors.
    Infrastructure,
}

/// RFC 791. All numbers of these are in network order.
#[repr(C)]
struct Ipv4Header {
    version_ihl: u8,
    tos: u8,
    total_length: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

impl Ipv4Header {
    #[inline(always)]
    fn peer(&self, way: Way) -> Address {
        ipv4(if matches!(way, Way::Sent) { self.destination } else { self.source })
    }
}

/// RFC 8200.
#[repr(C)]
struct Ipv6Header {
    version: u32,
    payload_length: u16,
    next_header: u8,
    hop_limit: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

impl Ipv6Header {
    /// The family comes out, too, see [`ipv6`].
    #[inline(always)]
    fn peer(&self, way: Way) -> (Address, u8) {
        ipv6(if matches!(way, Way::Sent) { self.destination } else { self.source })
    }
}

/// The part of the TCP header up to its flags (RFC 9293).
#[repr(C)]
struct TcpStart {
    ports: Ports,
    sequence: [u16; 2],
    acknowledgement: [u16; 2],
    offset: u8,
    flags: u8,
}

/// Source and destination, where every protocol that has ports has them.
type Ports = [u16; 2];

#[inline(always)]
fn load<T>(ctx: &SkBuffContext, offset: usize) -> Result<T, Parsed> {
    ctx.load(offset).map_err(|_| Parsed::Malformed)
}

#[inline(always)]
fn ipv4(word: u32) -> Address {
    // The rest is zero.
    [u64::from(word), 0]
}

/// ::ffff:a.b.c.d is IPv4 to everyone who reads it; the family comes out, too.
#[inline(always)]
fn ipv6(words: [u32; 4]) -> (Address, u8) {
    let [a, b, c, d] = words.map(u64::from);
    // The machine is little endian, as the target says.
    let [high, low] = [a | b << 32, c | d << 32];
    if high == 0 && low as u32 == MAPPED { ([low >> 32, 0], 4) } else { ([high, low], 6) }
}

/// The third of the four words of ::ffff:0:0/96.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// Fills in the packet. A call of its own: what it needs of the stack is free again after it.
#[inline(never)]
pub fn parse(ctx: &SkBuffContext, packet: &mut Packet) -> Parsed {
    let parsed = if parse_plain(ctx, packet) { Parsed::Flow } else { parse_any(ctx, packet) };
    packet.hide(ctx);
    parsed
}

/// An IP header of the usual length, in the linear part of the buffer, where it is read in place:
/// that of nearly all packets.
pub struct Plain {
    pub protocol: u8,
    pub family: u8,
    pub peer: Address,
    /// Where the next header begins.
    offset: usize,
}

impl Plain {
    /// None, and nothing said, of all other packets.
    #[inline(always)]
    pub fn read(ctx: &SkBuffContext, way: Way) -> Option<Self> {
        let header = in_place::<Ipv4Header>(ctx, 0)?;
        // SAFETY: `in_place` checked that the whole of each is there.
        unsafe {
            if (*header).version_ihl == IPV4_WITHOUT_OPTIONS {
                if u16::from_be((*header).fragment) & IPV4_FRAGMENT_OFFSET != 0 {
                    return None;
                }
                let (peer, protocol) = ((*header).peer(way), (*header).protocol);
                let offset = size_of::<Ipv4Header>();
                return Some(Self { protocol, family: 4, peer, offset });
            }
            let header = in_place::<Ipv6Header>(ctx, 0)?;
            if (*header).version as u8 >> 4 != 6 {
                return None;
            }
            let (peer, family) = (*header).peer(way);
            let protocol = (*header).next_header;
            Some(Self { protocol, family, peer, offset: size_of::<Ipv6Header>() })
        }
    }

    #[inline(always)]
    fn tcp(&self, ctx: &SkBuffContext) -> Option<*const TcpStart> {
        in_place(ctx, self.offset)
    }

    #[inline(always)]
    fn ports(&self, ctx: &SkBuffContext) -> Option<*const Ports> {
        in_place(ctx, self.offset)
    }

    /// The flags of TCP, if that follows.
    #[inline(always)]
    pub fn tcp_flags(&self, ctx: &SkBuffContext) -> Option<u8> {
        // SAFETY: `in_place` checked that the whole of it is there.
        self.tcp(ctx).map(|tcp| unsafe { (*tcp).flags })
    }

    /// Our port and the peer's, if a protocol that has ports follows.
    #[inline(always)]
    pub fn own_and_peer_port(&self, ctx: &SkBuffContext, way: Way) -> Option<[u16; 2]> {
        // SAFETY: as above.
        let [source, destination] = unsafe { *self.ports(ctx)? }.map(u16::from_be);
        Some(if matches!(way, Way::Sent) { [source, destination] } else { [destination, source] })
    }
}

/// TCP or UDP right behind a plain header. False, and nothing said, of all others.
#[inline(always)]
fn parse_plain(ctx: &SkBuffContext, packet: &mut Packet) -> bool {
    let Some(plain) = Plain::read(ctx, packet.way) else { return false };
    packet.peer = plain.peer;
    packet.family = plain.family;
    packet.protocol = plain.protocol;
    match plain.protocol {
        IPPROTO_TCP => {
            let Some(tcp) = plain.tcp(ctx) else { return false };
            // SAFETY: `in_place` checked that the whole of it is there.
            packet.set_tcp(unsafe { &*tcp });
        }
        IPPROTO_UDP => {
            let Some(ports) = plain.ports(ctx) else { return false };
            // SAFETY: as above.
            packet.set_ports(unsafe { *ports });
        }
        _ => return false,
    }
    true
}

/// Bytes of the packet where they are; none if they are not all in the linear part of the buffer.
/// A header may stand at any address: this machine reads words from there, and where one does not
/// the kernel refuses the program (its `CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS`).
#[inline(always)]
fn in_place<T>(ctx: &SkBuffContext, offset: usize) -> Option<*const T> {
    // SAFETY: the context is valid for the whole program. To the verifier these are no numbers but
    // pointers, and this comparison is how it learns what may be read.
    let (start, end) = unsafe { ((*ctx.skb.skb).data as usize, (*ctx.skb.skb).data_end as usize) };
    let at = start + offset;
    if at + size_of::<T>() > end { None } else { Some(at as *const T) }
}

/// Every packet, by copies of what may be anywhere.
#[inline(always)]
fn parse_any(ctx: &SkBuffContext, packet: &mut Packet) -> Parsed {
    let Ok(version) = ctx.load::<u8>(0) else { return Parsed::Malformed };
    let parsed = match version >> 4 {
        4 => parse_ipv4(ctx, packet),
        6 => parse_ipv6(ctx, packet),
        _ => Err(Parsed::Malformed),
    };
    match parsed {
        Ok(()) => Parsed::Flow,
        Err(parsed) => parsed,
    }
}

#[inline(always)]
fn parse_ipv4(ctx: &SkBuffContext, packet: &mut Packet) -> Result<(), Parsed> {
    let header: Ipv4Header = load(ctx, 0)?;
    if u16::from_be(header.fragment) & IPV4_FRAGMENT_OFFSET != 0 {
        return Err(Parsed::LaterFragment);
    }
    let words = header.version_ihl & 0x0f;
    if words < 5 {
        return Err(Parsed::Malformed);
    }
    packet.set_ipv4(&header);
    transport(ctx, packet, usize::from(words) * 4)
}

#[inline(always)]
fn parse_ipv6(ctx: &SkBuffContext, packet: &mut Packet) -> Result<(), Parsed> {
    let header: Ipv6Header = load(ctx, 0)?;
    packet.set_ipv6(&header);
    let offset = skip_extensions(ctx, packet)?;
    transport(ctx, packet, offset)
}

/// Sets the protocol to that of the first header that is no extension; where that header is comes
/// out.
#[inline(always)]
fn skip_extensions(ctx: &SkBuffContext, packet: &mut Packet) -> Result<usize, Parsed> {
    let mut offset = size_of::<Ipv6Header>();
    for _ in 0..EXTENSION_HEADERS_MAX {
        if !is_extension(packet.protocol) {
            return Ok(offset);
        }
        let [following, length, high, low]: [u8; 4] = load(ctx, offset)?;
        let is_fragment = packet.protocol == IPPROTO_FRAGMENT;
        if is_fragment && u16::from_be_bytes([high, low]) & IPV6_FRAGMENT_OFFSET != 0 {
            return Err(Parsed::LaterFragment);
        }
        // AH counts in units of 4 bytes less 2, the others in units of 8 less 1, a fragment header
        // has 8 bytes and no length (RFC 8200, RFC 4302).
        offset += if is_fragment {
            8
        } else if packet.protocol == IPPROTO_AH {
            (usize::from(length) + 2) * 4
        } else {
            (usize::from(length) + 1) * 8
        };
        packet.protocol = following;
    }
    if is_extension(packet.protocol) { Err(Parsed::Malformed) } else { Ok(offset) }
}

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        IPPROTO_HOPOPTS | IPPROTO_ROUTING | IPPROTO_DSTOPTS | IPPROTO_AH | IPPROTO_FRAGMENT
    )
}

#[inline(always)]
fn transport(ctx: &SkBuffContext, packet: &mut Packet, offset: usize) -> Result<(), Parsed> {
    match packet.protocol {
        IPPROTO_TCP => {
            let tcp: TcpStart = load(ctx, offset)?;
            packet.set_tcp(&tcp);
        }
        IPPROTO_UDP | IPPROTO_UDPLITE => {
            packet.set_ports(load(ctx, offset)?);
        }
        IPPROTO_SCTP => {
            packet.set_ports(load(ctx, offset)?);
            packet.kind = load(ctx, offset + SCTP_HEADER_BYTES)?;
        }
        IPPROTO_ICMP | IPPROTO_ICMPV6 => return echo(ctx, packet, offset),
        _ => {}
    }
    Ok(())
}

/// Ports, verification tag, checksum; then the first chunk.
const SCTP_HEADER_BYTES: usize = 12;

/// The only ICMP that is a flow.
#[inline(always)]
fn echo(ctx: &SkBuffContext, packet: &mut Packet, offset: usize) -> Result<(), Parsed> {
    let [kind, code, _, _, high, low]: [u8; 6] = load(ctx, offset)?;
    let is_v6 = packet.protocol == IPPROTO_ICMPV6;
    packet.kind = kind;
    packet.pair_port = u16::from_be_bytes([high, low]);
    match (is_v6, kind) {
        (false, ICMP_ECHO | ICMP_ECHO_REPLY) | (true, ICMPV6_ECHO | ICMPV6_ECHO_REPLY) => Ok(()),
        // There is a way, only not for a packet of this size.
        (false, ICMP_UNREACHABLE) if code == ICMP_CODE_TOO_BIG => Err(Parsed::Infrastructure),
        (false, ICMP_UNREACHABLE) | (true, ICMPV6_UNREACHABLE) => {
            let is_port = if is_v6 {
                code == ICMPV6_CODE_PORT
            } else {
                code == ICMP_CODE_PROTOCOL || code == ICMP_CODE_PORT
            };
            // Eight bytes of ICMP, then the packet.
            packet.quote_offset = offset as u32 + 8;
            packet.quote_is_port = u8::from(is_port);
            Err(Parsed::Error)
        }
        _ => Err(Parsed::Infrastructure),
    }
}

/// Makes of an ICMP error the echo request that it quotes; false if it quotes none.
#[inline(always)]
pub fn quoted_echo(ctx: &SkBuffContext, packet: &mut Packet) -> bool {
    let mut at = packet.quote_offset as usize;
    if packet.family == 4 {
        let Ok(header) = ctx.load::<Ipv4Header>(at) else { return false };
        packet.peer = ipv4(header.destination);
        packet.protocol = header.protocol;
        at += usize::from(header.version_ihl & 0x0f) * 4;
    } else {
        let Ok(header) = ctx.load::<Ipv6Header>(at) else { return false };
        (packet.peer, _) = ipv6(header.destination);
        packet.protocol = header.next_header;
        at += size_of::<Ipv6Header>();
    }
    let Ok([kind, _, _, _, high, low]) = ctx.load::<[u8; 6]>(at) else { return false };
    packet.pair_port = u16::from_be_bytes([high, low]);
    matches!((packet.protocol, kind), (IPPROTO_ICMP, ICMP_ECHO) | (IPPROTO_ICMPV6, ICMPV6_ECHO))
}

/// Whether the packet's peer is on the same host, whatever that calls itself elsewhere.
#[inline(always)]
pub fn is_loopback(packet: &Packet) -> bool {
    let [high, low] = packet.peer;
    // 127.0.0.0/8 and ::1, in network order on a little endian machine.
    if packet.family == 4 { high as u8 == 127 } else { high == 0 && low == 1 << 56 }
}

/// The address to which a host's own rules turn what it sends, of the packet's family.
#[inline(always)]
pub fn loopback(packet: &Packet) -> Address {
    if packet.family == 4 {
        [u64::from(u32::from_ne_bytes([127, 0, 0, 1])), 0]
    } else {
        [0, 1 << 56]
    }
}

/// The local end's address, which only a new flow wants to know.
#[inline(always)]
pub fn local_address(ctx: &SkBuffContext, packet: &Packet) -> Address {
    let is_sent = matches!(packet.way, Way::Sent);
    if packet.family == 4 {
        let at = if is_sent {
            offset_of!(Ipv4Header, source)
        } else {
            offset_of!(Ipv4Header, destination)
        };
        return ctx.load(at).map_or([0; 2], ipv4);
    }
    let at =
        if is_sent { offset_of!(Ipv6Header, source) } else { offset_of!(Ipv6Header, destination) };
    ctx.load(at).map_or([0; 2], |own| ipv6(own).0)
}
