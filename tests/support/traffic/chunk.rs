//! The bytes of packets that no socket makes: ICMP echo and SCTP chunks.
//!
//! In: what is to be said. Out: bytes, and what received ones say. Checksums are made where the
//! receiver's kernel looks at them, which it does at ICMP for IPv4 and nowhere else here.

use std::net::SocketAddr;

/// SCTP chunk types of RFC 9260.
pub(super) const DATA: u8 = 0;
pub(super) const INIT: u8 = 1;
pub(super) const INIT_ACK: u8 = 2;
pub(super) const SACK: u8 = 3;
pub(super) const ABORT: u8 = 6;
pub(super) const COOKIE_ECHO: u8 = 10;
pub(super) const COOKIE_ACK: u8 = 11;

/// What is asked where nothing has a meaning.
pub(super) const QUESTION: &[u8] = b"question";

/// Ports and first chunk of an SCTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) source: u16,
    pub(super) target: u16,
    pub(super) kind: u8,
}

impl Chunk {
    /// Header (verification tag and checksum zero) and a chunk without a body.
    pub(super) fn bytes(self) -> Vec<u8> {
        let ports = [self.source.to_be_bytes(), self.target.to_be_bytes()].concat();
        [ports, vec![0; 8], vec![self.kind, 0, 0, 4]].concat()
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, d, _, _, _, _, _, _, _, _, kind, ..] = bytes else { return None };
        let (source, target) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        Some(Self { source, target, kind })
    }

    /// What is said back.
    pub(super) fn back(self, kind: u8) -> Self {
        Self { source: self.target, target: self.source, kind }
    }
}

/// An echo request with eight bytes of nothing, for the family of the target.
pub(super) fn echo_request(target: SocketAddr, identifier: u16, sequence: u16) -> Vec<u8> {
    let kind = if target.is_ipv4() { 8 } else { 128 };
    let [a, b] = identifier.to_be_bytes();
    let [c, d] = sequence.to_be_bytes();
    let mut bytes = [vec![kind, 0, 0, 0, a, b, c, d], vec![0; 8]].concat();
    let [high, low] = checksum(&bytes).to_be_bytes();
    bytes[2] = high;
    bytes[3] = low;
    bytes
}

/// The sequence number, if this is an echo reply; of any identifier, which ping sockets choose
/// themselves.
pub(super) fn echo_reply(bytes: &[u8]) -> Option<u16> {
    match bytes {
        &[0 | 129, 0, _, _, _, _, c, d, ..] => Some(u16::from_be_bytes([c, d])),
        _ => None,
    }
}

/// What follows the IPv4 header that raw sockets of that family, and no others, see.
pub(super) fn payload(bytes: &[u8], has_header: bool) -> &[u8] {
    let words = bytes.first().map_or(0, |first| usize::from(first & 0x0f));
    let skipped = if has_header { words * 4 } else { 0 };
    bytes.get(skipped..).unwrap_or_default()
}

/// RFC 1071.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}
