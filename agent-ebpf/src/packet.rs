//! Packet bytes in, addresses and ports out. Works on what the cgroup hooks see: the IP header
//! first, fragments already put together on the way in and not yet made on the way out.

use aya_ebpf::programs::SkBuffContext;

const IPPROTO_HOPOPTS: u8 = 0;
pub const IPPROTO_TCP: u8 = 6;
pub const IPPROTO_UDP: u8 = 17;
const IPPROTO_ROUTING: u8 = 43;
const IPPROTO_FRAGMENT: u8 = 44;
const IPPROTO_AH: u8 = 51;
const IPPROTO_DSTOPTS: u8 = 60;

/// Extension headers followed at most; real packets carry two or three.
const EXTENSION_HEADERS_MAX: u32 = 6;

pub const TCP_FIN: u8 = 0x01;
pub const TCP_SYN: u8 = 0x02;
pub const TCP_RST: u8 = 0x04;
pub const TCP_ACK: u8 = 0x10;

/// The way of a packet as the local socket sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Sent,
    Received,
}

/// What the sensor needs of one packet.
pub struct Packet {
    pub peer_addr: [u8; 16],
    pub peer_port: u16,
    pub local_port: u16,
    pub protocol: u8,
    pub family: u8,
    /// Zero for UDP.
    pub tcp_flags: u8,
    /// Sequence number, to know a repeated SYN. Zero for UDP.
    pub tcp_sequence: u32,
    pub bytes: u32,
}

/// Why a packet has no flow.
pub enum NoFlow {
    Malformed,
    OtherProtocol,
}

#[repr(C)]
struct Ipv4Header {
    version_ihl: u8,
    tos: u8,
    total_length: [u8; 2],
    id: [u8; 2],
    fragment: [u8; 2],
    ttl: u8,
    protocol: u8,
    checksum: [u8; 2],
    source: [u8; 4],
    destination: [u8; 4],
}

#[repr(C)]
struct Ipv6Header {
    version: [u8; 4],
    payload_length: [u8; 2],
    next_header: u8,
    hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

/// The part of the TCP header up to its flags; its first four bytes are those of UDP too.
#[repr(C)]
struct TcpStart {
    source: [u8; 2],
    destination: [u8; 2],
    sequence: [u8; 4],
    acknowledgement: [u8; 4],
    offset: u8,
    flags: u8,
}

#[inline(always)]
fn load<T>(ctx: &SkBuffContext, offset: usize) -> Result<T, NoFlow> {
    ctx.load(offset).map_err(|_| NoFlow::Malformed)
}

#[inline(always)]
fn ipv4(bytes: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = bytes;
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

pub fn parse(ctx: &SkBuffContext, way: Way) -> Result<Packet, NoFlow> {
    let version: u8 = load(ctx, 0)?;
    match version >> 4 {
        4 => parse_ipv4(ctx, way),
        6 => parse_ipv6(ctx, way),
        _ => Err(NoFlow::Malformed),
    }
}

#[inline(always)]
fn parse_ipv4(ctx: &SkBuffContext, way: Way) -> Result<Packet, NoFlow> {
    let header: Ipv4Header = load(ctx, 0)?;
    let peer = if matches!(way, Way::Sent) { header.destination } else { header.source };
    let offset = usize::from(header.version_ihl & 0x0f) * 4;
    transport(ctx, way, offset, header.protocol, ipv4(peer), 4)
}

#[inline(always)]
fn parse_ipv6(ctx: &SkBuffContext, way: Way) -> Result<Packet, NoFlow> {
    let header: Ipv6Header = load(ctx, 0)?;
    let peer = if matches!(way, Way::Sent) { header.destination } else { header.source };
    let mut next = header.next_header;
    let mut offset = size_of::<Ipv6Header>();
    for _ in 0..EXTENSION_HEADERS_MAX {
        let units = match next {
            IPPROTO_HOPOPTS | IPPROTO_ROUTING | IPPROTO_DSTOPTS => 8,
            IPPROTO_AH => 4,
            IPPROTO_FRAGMENT => 0,
            _ => break,
        };
        let [following, length]: [u8; 2] = load(ctx, offset)?;
        next = following;
        // AH counts in units of 4 bytes less 2, the others in units of 8 less 1 (RFC 8200, RFC
        // 4302).
        offset += match units {
            8 => (usize::from(length) + 1) * 8,
            4 => (usize::from(length) + 2) * 4,
            _ => 8,
        };
    }
    // ::ffff:a.b.c.d on the wire is IPv4 to everyone who reads it.
    if let [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] = peer {
        return transport(ctx, way, offset, next, ipv4([a, b, c, d]), 4);
    }
    transport(ctx, way, offset, next, peer, 6)
}

#[inline(always)]
fn transport(
    ctx: &SkBuffContext,
    way: Way,
    offset: usize,
    protocol: u8,
    peer_addr: [u8; 16],
    family: u8,
) -> Result<Packet, NoFlow> {
    let (ports, tcp_flags, tcp_sequence) = match protocol {
        IPPROTO_TCP => {
            let tcp: TcpStart = load(ctx, offset)?;
            ([tcp.source, tcp.destination], tcp.flags, u32::from_be_bytes(tcp.sequence))
        }
        IPPROTO_UDP => (load::<[[u8; 2]; 2]>(ctx, offset)?, 0, 0),
        _ => return Err(NoFlow::OtherProtocol),
    };
    let [source, destination] = ports.map(u16::from_be_bytes);
    let (local_port, peer_port) = match way {
        Way::Sent => (source, destination),
        Way::Received => (destination, source),
    };
    let bytes = ctx.len();
    Ok(Packet {
        peer_addr,
        peer_port,
        local_port,
        protocol,
        family,
        tcp_flags,
        tcp_sequence,
        bytes,
    })
}
