//! The few messages of ctnetlink that are spoken here, as bytes.
//!
//! In: a tuple to ask for, or what the kernel answered. Out: the question's bytes, or [`Answer`]s.
//! Every length in the bytes is checked before it is believed; nothing here can panic, and what
//! cannot be read is left out.
//!
//! Layouts are those of `linux/netlink.h`, `linux/netfilter/nfnetlink.h` and
//! `linux/netfilter/nfnetlink_conntrack.h`; headers are in the machine's byte order, attributes'
//! values in network order.

use std::net::{IpAddr, SocketAddr};

use parapet_core::flow::Protocol;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW`: an entry of the table.
const ENTRY: u16 = 1 << 8;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`
const GET: u16 = 1 << 8 | 1;
const NLM_F_REQUEST: u16 = 1;
/// `NLM_F_ROOT | NLM_F_MATCH`
const NLM_F_DUMP: u16 = 0x300;
const NLA_F_NESTED: u16 = 1 << 15;
/// Without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const NLA_TYPE_MASK: u16 = 0x3fff;

const HEADER_BYTES: usize = 16;
/// nfgenmsg: family, version, resource.
const GENERIC_BYTES: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
/// Newer than Linux 5.10; kernels that do not know it pass over it and send everything.
const CTA_STATUS_MASK: u16 = 26;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// `linux/netfilter/nf_conntrack_common.h`
const IPS_SRC_NAT: u32 = 1 << 4;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// One direction of a connection, from who sends to who receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// IP protocol number.
    pub protocol: Protocol,
    /// Who sends. Port 0 where the protocol has none.
    pub source: SocketAddr,
    /// Who receives.
    pub target: SocketAddr,
}

/// One tracked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As the first packet was when it came.
    pub original: Tuple,
    /// As an answer is expected: from the true target to the source that the target sees.
    pub reply: Tuple,
    /// `IPS_*` bits.
    pub status: u32,
}

impl Entry {
    /// Whether the target sees another source address than the one that began.
    #[must_use]
    pub fn has_other_source(&self) -> bool {
        self.status & IPS_SRC_NAT != 0 && self.reply.target.ip() != self.original.source.ip()
    }
}

/// One message of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// An entry.
    Entry(Entry),
    /// The question's end: 0 or an error number.
    End(i32),
    /// Something else, or an entry that cannot be read.
    Other,
}

/// Asks for the one connection that began so.
pub(super) fn get(tuple: &Tuple, sequence: u32) -> Vec<u8> {
    let family = if tuple.source.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut message = begin(NLM_F_REQUEST, family, sequence);
    nest(&mut message, CTA_TUPLE_ORIG, |message| {
        nest(message, CTA_TUPLE_IP, |message| {
            let ends = [(tuple.source.ip(), 0), (tuple.target.ip(), 1)];
            for (addr, offset) in ends {
                match addr {
                    IpAddr::V4(addr) => put(message, CTA_IP_V4_SRC + offset, &addr.octets()),
                    IpAddr::V6(addr) => put(message, CTA_IP_V6_SRC + offset, &addr.octets()),
                }
            }
        });
        nest(message, CTA_TUPLE_PROTO, |message| {
            put(message, CTA_PROTO_NUM, &[tuple.protocol.0]);
            put(message, CTA_PROTO_SRC_PORT, &tuple.source.port().to_be_bytes());
            put(message, CTA_PROTO_DST_PORT, &tuple.target.port().to_be_bytes());
        });
    });
    end(message)
}

/// Asks for every connection whose source was rewritten, of both families.
pub(super) fn dump_rewritten(sequence: u32) -> Vec<u8> {
    let mut message = begin(NLM_F_REQUEST | NLM_F_DUMP, 0, sequence);
    for kind in [CTA_STATUS, CTA_STATUS_MASK] {
        put(&mut message, kind, &IPS_SRC_NAT.to_be_bytes());
    }
    end(message)
}

fn begin(flags: u16, family: u8, sequence: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(128);
    message.extend(0_u32.to_ne_bytes());
    message.extend(GET.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    // Zero: the kernel knows the socket.
    message.extend(0_u32.to_ne_bytes());
    message.extend([family, 0, 0, 0]);
    message
}

/// Writes the length that `begin` left open.
fn end(mut message: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or_default();
    if let Some(place) = message.first_chunk_mut::<4>() {
        *place = length.to_ne_bytes();
    }
    message
}

fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len().saturating_add(4)).unwrap_or_default();
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn nest(message: &mut Vec<u8>, kind: u16, inside: impl FnOnce(&mut Vec<u8>)) {
    let mut value = Vec::with_capacity(64);
    inside(&mut value);
    put(message, kind | NLA_F_NESTED, &value);
}

/// The messages of one datagram that answer the question of this number.
pub(super) fn answers(mut bytes: &[u8], sequence: u32) -> Vec<Answer> {
    let mut found = Vec::new();
    while let Some((kind, number, body, rest)) = split_message(bytes) {
        bytes = rest;
        if number == sequence {
            found.push(answer(kind, body));
        }
    }
    found
}

/// Kind, number and body of the first message, and what follows it.
fn split_message(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let number = u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?);
    // A length below the header's would never come to an end.
    let body = bytes.get(HEADER_BYTES..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, number, body, rest))
}

fn answer(kind: u16, body: &[u8]) -> Answer {
    match kind {
        // Both begin with a number that is negative or 0.
        NLMSG_ERROR | NLMSG_DONE => match body.first_chunk() {
            Some(code) => Answer::End(i32::from_ne_bytes(*code).saturating_neg()),
            None => Answer::End(0),
        },
        ENTRY => match body.get(GENERIC_BYTES..).and_then(entry) {
            Some(entry) => Answer::Entry(entry),
            None => Answer::Other,
        },
        _ => Answer::Other,
    }
}

fn entry(attributes: &[u8]) -> Option<Entry> {
    let (mut original, mut reply, mut status) = (None, None, None);
    for (kind, value) in Attributes(attributes) {
        match kind {
            CTA_TUPLE_ORIG => original = tuple(value),
            CTA_TUPLE_REPLY => reply = tuple(value),
            CTA_STATUS => status = Some(u32::from_be_bytes(*value.first_chunk()?)),
            _ => {}
        }
    }
    Some(Entry { original: original?, reply: reply?, status: status? })
}

fn tuple(attributes: &[u8]) -> Option<Tuple> {
    let (mut source, mut target) = (None, None);
    let (mut protocol, mut source_port, mut target_port) = (None, 0, 0);
    for (kind, value) in Attributes(attributes) {
        for (inner, value) in Attributes(value) {
            match (kind, inner) {
                (CTA_TUPLE_IP, CTA_IP_V4_SRC | CTA_IP_V6_SRC) => source = address(value),
                (CTA_TUPLE_IP, CTA_IP_V4_DST | CTA_IP_V6_DST) => target = address(value),
                (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => protocol = value.first().copied(),
                (CTA_TUPLE_PROTO, CTA_PROTO_SRC_PORT) => source_port = port(value)?,
                (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => target_port = port(value)?,
                _ => {}
            }
        }
    }
    Some(Tuple {
        protocol: Protocol(protocol?),
        source: SocketAddr::new(source?, source_port),
        target: SocketAddr::new(target?, target_port),
    })
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::from(*value.first_chunk::<4>()?)),
        16 => Some(IpAddr::from(*value.first_chunk::<16>()?)),
        _ => None,
    }
}

fn port(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Type and value of each attribute, up to the first that does not fit.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(*self.0.first_chunk()?));
        let kind = u16::from_ne_bytes(*self.0.get(2..)?.first_chunk()?);
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & NLA_TYPE_MASK, value))
    }
}

#[cfg(test)]
mod tests;
