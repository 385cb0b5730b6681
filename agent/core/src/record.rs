//! One fact from the kernel: bytes decoded, nothing looked up yet.
//!
//! In: the bytes of one ring event, or a flow slot's values. Out: a [`Record`], or why the bytes
//! are none. It never trusts a length, an address family or a path from the bytes.

use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::flow::{Direction, Protocol, Timestamp};
use crate::identity::Translation;
use crate::secrets::{ReadRecord, ReaderSeen};

mod seen;

/// One fact from the kernel or from the node's cgroup tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A flow's counters since they were last read (never absolute values).
    Flow(FlowRecord),
    /// A cgroup exists now. Also sent for each one found at start.
    CgroupCreated {
        /// cgroup2 id.
        cgroup_id: u64,
        /// Path below the cgroup2 root, with a leading slash.
        path: String,
        /// When.
        at: Timestamp,
    },
    /// A cgroup is gone; its id stays known as a tombstone.
    CgroupRemoved {
        /// cgroup2 id.
        cgroup_id: u64,
        /// When.
        at: Timestamp,
    },
    /// A packet from port 53.
    Dns(DnsRecord),
    /// Secret files were opened.
    Read(ReadRecord),
    /// Who opens a secret file, told once.
    Reader(ReaderSeen),
    /// Losses of a stage since they were last read.
    Lost {
        /// Label of the stage, one of `parapet_common::STAGE_NAMES` or of user space.
        stage: &'static str,
        /// How many.
        count: u64,
    },
}

/// What happened on one kernel flow between two reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// cgroup2 id of the local socket.
    pub cgroup_id: u64,
    /// The peer's address.
    pub peer: IpAddr,
    /// Our own address in its first packet; none if the kernel did not say.
    pub local_addr: Option<IpAddr>,
    /// Our own port, if this is one connection to a Service port whose backends differ.
    pub local_port: Option<NonZeroU16>,
    /// What connection tracking said of it.
    pub translation: Translation,
    /// The responder's port; 0 if the direction is unknown or the protocol has no ports.
    pub service_port: u16,
    /// IP protocol.
    pub protocol: Protocol,
    /// Who began, seen from the local socket; none if nothing told.
    pub direction: Option<Direction>,
    /// No packet of this record is older.
    pub since: Timestamp,
    /// The newest packet.
    pub last_seen: Timestamp,
    /// Counts since the last read.
    pub counts: Counts,
}

/// What one packet from a DNS server carried, or a part of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsRecord {
    /// cgroup2 id of the socket it came to.
    pub cgroup_id: u64,
    /// When it came.
    pub at: Timestamp,
    /// What it came by.
    pub carrier: DnsCarrier,
    /// The bytes.
    pub payload: Vec<u8>,
}

/// How a DNS server's bytes came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsCarrier {
    /// One datagram.
    Udp {
        /// The kernel handed over its beginning only.
        is_cut: bool,
    },
    /// Some bytes of a connection.
    Tcp {
        /// The socket.
        cookie: u64,
        /// Sequence number of the first byte.
        sequence: u32,
    },
}

/// Counts of one flow over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[expect(missing_docs, reason = "documented at parapet_common::FlowSlot")]
pub struct Counts {
    pub sent_packets: u64,
    pub sent_bytes: u64,
    pub received_packets: u64,
    pub received_bytes: u64,
    pub attempts: u64,
    pub answered: u64,
    pub refused: u64,
    /// Those of `refused` by ICMP "port unreachable" or "protocol unreachable".
    #[serde(default)]
    pub refused_port: u64,
    /// Those of `refused` by another ICMP "unreachable".
    #[serde(default)]
    pub refused_route: u64,
    pub closed: u64,
    /// Sum of the TCP handshakes of answered attempts, in nanoseconds; known where they began.
    #[serde(default)]
    pub handshake_ns: u64,
}

impl Counts {
    /// What was added since `before`. A counter that went back counts from zero.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let delta = |now: u64, before: u64| if now < before { now } else { now - before };
        Self {
            sent_packets: delta(self.sent_packets, before.sent_packets),
            sent_bytes: delta(self.sent_bytes, before.sent_bytes),
            received_packets: delta(self.received_packets, before.received_packets),
            received_bytes: delta(self.received_bytes, before.received_bytes),
            attempts: delta(self.attempts, before.attempts),
            answered: delta(self.answered, before.answered),
            refused: delta(self.refused, before.refused),
            refused_port: delta(self.refused_port, before.refused_port),
            refused_route: delta(self.refused_route, before.refused_route),
            closed: delta(self.closed, before.closed),
            handshake_ns: delta(self.handshake_ns, before.handshake_ns),
        }
    }
}

/// The address in a flow key; none for a family that is neither 4 nor 6.
#[must_use]
pub fn address(family: u8, bytes: [u8; 16]) -> Option<IpAddr> {
    let [a, b, c, d, ..] = bytes;
    match family {
        4 => Some(IpAddr::from([a, b, c, d])),
        6 => Some(IpAddr::from(bytes).to_canonical()),
        _ => None,
    }
}

/// One event of the kernel's ring, with the kernel's own monotonic time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds on the monotonic clock.
    pub time_ns: u64,
    /// What happened.
    pub body: EventBody,
}

/// What an event tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventBody {
    /// A flow moved into a slot.
    FlowSeen {
        /// Its slot.
        slot: u32,
        /// The slot's generation.
        generation: u32,
    },
    /// A cgroup was made. The path is empty if the kernel could not say it.
    CgroupCreated {
        /// cgroup2 id.
        cgroup_id: u64,
        /// Path from the root of the hierarchy.
        path: String,
    },
    /// A cgroup was removed.
    CgroupRemoved {
        /// cgroup2 id.
        cgroup_id: u64,
        /// Path from the root of the hierarchy.
        path: String,
    },
    /// A packet from port 53.
    Dns {
        /// cgroup2 id.
        cgroup_id: u64,
        /// What it came by.
        carrier: DnsCarrier,
        /// What it carried.
        payload: Vec<u8>,
    },
    /// Somebody has a secret file open. The time of the reader is that of the event, which its
    /// receiver fills in.
    Reader(ReaderSeen),
}

/// Why bytes are no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the header or its body needs.
    #[error("event has {found} bytes, its kind needs {needed}")]
    Short {
        /// Bytes there are.
        found: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// A kind of another ABI version.
    #[error("event of unknown kind {0}")]
    Kind(u32),
    /// A cgroup path that is no UTF-8.
    #[error("cgroup path of {cgroup_id} is not UTF-8")]
    Path {
        /// cgroup2 id.
        cgroup_id: u64,
    },
}

/// Reads little and big endian alike: the kernel wrote the bytes on this machine.
fn word(bytes: &[u8], at: usize) -> Result<u32, DecodeError> {
    let short = || DecodeError::Short { found: bytes.len(), needed: at + 4 };
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or_else(short)?;
    Ok(u32::from_ne_bytes(*four))
}

fn long(bytes: &[u8], at: usize) -> Result<u64, DecodeError> {
    let short = || DecodeError::Short { found: bytes.len(), needed: at + 8 };
    let eight = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or_else(short)?;
    Ok(u64::from_ne_bytes(*eight))
}

/// One ring entry.
///
/// # Errors
/// The bytes are too short, of an unknown kind, or hold a path that is not UTF-8.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    use parapet_common as abi;
    let header_bytes = size_of::<abi::EventHeader>();
    let kind = word(bytes, std::mem::offset_of!(abi::EventHeader, kind))?;
    let body_bytes = word(bytes, std::mem::offset_of!(abi::EventHeader, body_bytes))?;
    let time_ns = long(bytes, std::mem::offset_of!(abi::EventHeader, time_ns))?;
    let needed = header_bytes.saturating_add(usize::try_from(body_bytes).unwrap_or(usize::MAX));
    let body =
        bytes.get(header_bytes..needed).ok_or(DecodeError::Short { found: bytes.len(), needed })?;
    let body = match kind {
        abi::EVENT_FLOW_SEEN => EventBody::FlowSeen {
            slot: word(body, std::mem::offset_of!(abi::FlowSeen, slot))?,
            generation: word(body, std::mem::offset_of!(abi::FlowSeen, generation))?,
        },
        abi::EVENT_CGROUP_CREATED => {
            let (cgroup_id, path) = cgroup(body)?;
            EventBody::CgroupCreated { cgroup_id, path }
        }
        abi::EVENT_CGROUP_REMOVED => {
            let (cgroup_id, path) = cgroup(body)?;
            EventBody::CgroupRemoved { cgroup_id, path }
        }
        abi::EVENT_DNS_ANSWER => dns(body)?,
        abi::EVENT_SECRET_SEEN => EventBody::Reader(seen::reader(body)?),
        other => return Err(DecodeError::Kind(other)),
    };
    Ok(Event { time_ns, body })
}

fn dns(body: &[u8]) -> Result<EventBody, DecodeError> {
    use parapet_common::DnsAnswer;
    let fixed = size_of::<DnsAnswer>();
    let payload =
        body.get(fixed..).ok_or(DecodeError::Short { found: body.len(), needed: fixed })?;
    let payload_bytes = word(body, std::mem::offset_of!(DnsAnswer, payload_bytes))?;
    let is_cut = usize::try_from(payload_bytes).is_ok_and(|bytes| bytes > payload.len());
    let protocol = word(body, std::mem::offset_of!(DnsAnswer, protocol))?;
    let carrier = if protocol == u32::from(Protocol::TCP.0) {
        DnsCarrier::Tcp {
            cookie: long(body, std::mem::offset_of!(DnsAnswer, cookie))?,
            sequence: word(body, std::mem::offset_of!(DnsAnswer, sequence))?,
        }
    } else {
        DnsCarrier::Udp { is_cut }
    };
    let cgroup_id = long(body, std::mem::offset_of!(DnsAnswer, cgroup_id))?;
    Ok(EventBody::Dns { cgroup_id, carrier, payload: payload.to_vec() })
}

fn cgroup(body: &[u8]) -> Result<(u64, String), DecodeError> {
    let fixed = size_of::<parapet_common::CgroupEvent>();
    let cgroup_id = long(body, std::mem::offset_of!(parapet_common::CgroupEvent, cgroup_id))?;
    let path = body.get(fixed..).ok_or(DecodeError::Short { found: body.len(), needed: fixed })?;
    // A path that fills the field was cut: an ancestor's name would be taken for its own.
    if path.len() >= parapet_common::CGROUP_PATH_BYTES_MAX {
        return Ok((cgroup_id, String::new()));
    }
    let path = std::str::from_utf8(path).map_err(|_| DecodeError::Path { cgroup_id })?;
    Ok((cgroup_id, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend(u32::try_from(body.len()).unwrap().to_ne_bytes());
        bytes.extend(77_u64.to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    fn cgroup_body(path: &[u8]) -> Vec<u8> {
        let mut body = 4242_u64.to_ne_bytes().to_vec();
        body.extend([0; 8]);
        body.extend(path);
        body
    }

    #[test]
    fn a_cgroup_event_is_its_id_and_path() {
        let bytes = event(parapet_common::EVENT_CGROUP_CREATED, &cgroup_body(b"/kubepods/podx"));
        let body = EventBody::CgroupCreated { cgroup_id: 4242, path: "/kubepods/podx".to_owned() };
        assert_eq!(decode(&bytes), Ok(Event { time_ns: 77, body }));
    }

    #[test]
    fn a_flow_event_is_its_slot_and_generation() {
        let mut body = vec![9; 32];
        body.extend(5_u32.to_ne_bytes());
        body.extend(6_u32.to_ne_bytes());
        let bytes = event(parapet_common::EVENT_FLOW_SEEN, &body);
        let body = EventBody::FlowSeen { slot: 5, generation: 6 };
        assert_eq!(decode(&bytes), Ok(Event { time_ns: 77, body }));
    }

    #[test]
    fn a_dns_event_is_its_socket_and_bytes() {
        let body = |protocol: u32, payload_bytes: u32| {
            let mut body = [4242_u64.to_ne_bytes(), 77_u64.to_ne_bytes()].concat();
            for word in [5, payload_bytes, protocol, 0] {
                body.extend(word.to_ne_bytes());
            }
            body.extend(b"abc");
            event(parapet_common::EVENT_DNS_ANSWER, &body)
        };
        let decoded = |bytes: &[u8]| decode(bytes).map(|event| event.body);
        let expected =
            |carrier| Ok(EventBody::Dns { cgroup_id: 4242, carrier, payload: b"abc".to_vec() });
        let tcp = DnsCarrier::Tcp { cookie: 77, sequence: 5 };
        assert_eq!(decoded(&body(6, 3)), expected(tcp));
        assert_eq!(decoded(&body(17, 3)), expected(DnsCarrier::Udp { is_cut: false }));
        assert_eq!(decoded(&body(17, 9000)), expected(DnsCarrier::Udp { is_cut: true }));
        let whole = body(6, 3);
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn every_truncation_is_an_error_and_trailing_bytes_are_not() {
        let whole = event(parapet_common::EVENT_CGROUP_REMOVED, &cgroup_body(b"/a"));
        for length in 0..whole.len() {
            assert!(
                matches!(decode(&whole[..length]), Err(DecodeError::Short { .. })),
                "{length} of {} bytes",
                whole.len()
            );
        }
        let mut padded = whole.clone();
        padded.extend([0xff; 40]);
        assert_eq!(decode(&padded), decode(&whole));
    }

    #[test]
    fn a_length_beyond_the_bytes_an_unknown_kind_and_a_bad_path_are_named() {
        let mut long_body = event(parapet_common::EVENT_CGROUP_CREATED, &cgroup_body(b"/a"));
        long_body[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(matches!(decode(&long_body), Err(DecodeError::Short { found: 34, .. })));
        assert_eq!(decode(&event(99, &[])), Err(DecodeError::Kind(99)));
        let bad = event(parapet_common::EVENT_CGROUP_CREATED, &cgroup_body(&[b'/', 0xff]));
        assert_eq!(decode(&bad), Err(DecodeError::Path { cgroup_id: 4242 }));
    }

    #[test]
    fn a_path_that_was_cut_is_no_path() {
        let cut = vec![b'a'; parapet_common::CGROUP_PATH_BYTES_MAX];
        let bytes = event(parapet_common::EVENT_CGROUP_CREATED, &cgroup_body(&cut));
        let body = EventBody::CgroupCreated { cgroup_id: 4242, path: String::new() };
        assert_eq!(decode(&bytes), Ok(Event { time_ns: 77, body }));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(0_u8.., 0..600)) {
            let _ = decode(&bytes);
        }
    }
}
