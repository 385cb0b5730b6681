//! Packets byte by byte: what no well-behaved socket would send.
//!
//! In: addresses and contents. Out: bytes from the IP header on, with the checksums that a receiver
//! looks at. IPv4 header checksums are left to the kernel, which makes them for every raw socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use support::task::Packet;

/// A UDP datagram of this source and target port; IPv6 receivers insist on its checksum.
pub(crate) fn udp(source: IpAddr, target: IpAddr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes(), length, [0; 2]].concat();
    bytes.extend(payload);
    let sum = pseudo_checksum(source, target, 17, &bytes).to_be_bytes();
    bytes[6..8].copy_from_slice(&sum);
    bytes
}

/// An ICMP or ICMPv6 message.
pub(crate) fn icmp(source: IpAddr, target: IpAddr, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = [&[kind, code, 0, 0], rest].concat();
    let sum = match source {
        IpAddr::V4(_) => checksum(&bytes),
        IpAddr::V6(_) => pseudo_checksum(source, target, 58, &bytes),
    };
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// An IPv4 packet; `fragment` is the field of that name, flags and offset.
pub(crate) fn ipv4(
    source: Ipv4Addr,
    target: Ipv4Addr,
    protocol: u8,
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let [high, low] = fragment.to_be_bytes();
    let mut bytes = vec![0x45, 0, length[0], length[1], 0x12, 0x34, high, low, 64, protocol, 0, 0];
    bytes.extend(source.octets());
    bytes.extend(target.octets());
    bytes.extend(payload);
    bytes
}

/// An IPv6 packet whose payload begins with a header of that number.
pub(crate) fn ipv6(source: Ipv6Addr, target: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x60, 0, 0, 0, high, low, next, 64];
    bytes.extend(source.octets());
    bytes.extend(target.octets());
    bytes.extend(payload);
    bytes
}

/// An extension header of eight bytes that only pads (PadN), before a header of that number.
pub(crate) fn padding(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

/// For [`support::task::Inject`].
pub(crate) fn to(to: IpAddr, bytes: Vec<u8>) -> Packet {
    Packet { to, bytes }
}

fn pseudo_checksum(source: IpAddr, target: IpAddr, protocol: u8, bytes: &[u8]) -> u16 {
    let octets = |address| match address {
        IpAddr::V4(address) => Ipv4Addr::octets(&address).to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let tail = [&[0, protocol][..], &length].concat();
    checksum(&[octets(source), octets(target), tail, bytes.to_vec()].concat())
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
