//! From the bytes of a ring entry to the names of addresses.
//!
//! In: any bytes, read as one entry of the kernel's rings, as one DNS message, and as a part of a
//! connection to a DNS server. Out: nothing, or a panic: what is decoded is what the bytes say, a
//! name that is told can be shown, and how a message was cut into parts changes nothing.

use std::sync::Arc;

use parapet_common::{COMM_BYTES, FILE_NAME_BYTES, SHORT_NAME_BYTES};
use parapet_core::flow::Timestamp;
use parapet_core::names::{self, ANSWER_ADDRESSES_MAX, Answer, Names, Owner, Use};
use parapet_core::record::{self, DnsCarrier, DnsRecord, Event, EventBody};

/// As DNS itself has it (RFC 1035, 2.3.4), in text.
const NAME_BYTES_MAX: usize = 253;
const AT: Timestamp = Timestamp(1_000_000_000);
const COOKIE: u64 = 7;
/// Close to where sequence numbers begin anew.
const SEQUENCE: u32 = u32::MAX - 20;

/// Takes one input.
pub fn check(bytes: &[u8]) {
    if let Ok(event) = record::decode(bytes) {
        check_event(bytes, &event);
    }
    check_message(bytes);
    if let Some((cut, stream)) = bytes.split_first() {
        check_parts(usize::from(*cut), stream);
    }
}

/// What follows an entry is no part of it, and less than the entry is none.
fn check_event(bytes: &[u8], event: &Event) {
    let longer = [bytes, b"more"].concat();
    assert_eq!(record::decode(&longer).as_ref(), Ok(event), "with more behind it");
    let header = size_of::<parapet_common::EventHeader>();
    for length in 0..header.min(bytes.len()) {
        assert!(record::decode(&bytes[..length]).is_err(), "{length} bytes of a header");
    }
    match &event.body {
        EventBody::FlowSeen { .. } => {}
        EventBody::CgroupCreated { path, .. } | EventBody::CgroupRemoved { path, .. } => {
            assert!(path.len() < parapet_common::CGROUP_PATH_BYTES_MAX, "{path:?}");
        }
        EventBody::Dns { payload, .. } => check_message(payload),
        EventBody::Reader(seen) => {
            for (name, bytes_max) in [
                (&seen.comm, COMM_BYTES),
                (&seen.program, SHORT_NAME_BYTES),
                (&seen.folder, SHORT_NAME_BYTES),
                (&seen.name, FILE_NAME_BYTES),
            ] {
                assert!(name.chars().count() <= bytes_max, "{name:?}");
                assert!(!name.contains(char::is_control), "{name:?}");
            }
        }
    }
}

fn check_message(bytes: &[u8]) {
    let Ok(Some(answer)) = names::decode(&mut bytes.to_vec()) else { return };
    let Answer { name, addresses, .. } = &answer;
    assert!((1..=NAME_BYTES_MAX).contains(&name.len()), "{name:?}");
    let is_shown = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    assert!(name.chars().all(|c| is_shown(c) && !c.is_ascii_uppercase()), "{name:?}");
    assert!((1..=ANSWER_ADDRESSES_MAX).contains(&addresses.len()), "{addresses:?}");

    let mut told = Names::default();
    told.take(&owner(), dns(DnsCarrier::Udp { is_cut: false }, bytes));
    check_told(&mut told, &answer);
}

/// Every address leads back to the name.
fn check_told(told: &mut Names, answer: &Answer) {
    for (address, _) in &answer.addresses {
        let used = Use { address: *address, since: AT, until: AT, is_attempt: true };
        let names = told.used(&owner(), used).unwrap_or_default();
        assert!(names.contains(&answer.name), "{address}: {names:?}, not {}", answer.name);
    }
}

/// Two parts of a connection tell what both tell as one.
fn check_parts(cut: usize, stream: &[u8]) {
    let (first, second) = stream.split_at(cut.min(stream.len()));
    let part = |sequence, bytes| dns(DnsCarrier::Tcp { cookie: COOKIE, sequence }, bytes);
    let mut whole = Names::default();
    whole.take(&owner(), part(SEQUENCE, stream));
    let mut parts = Names::default();
    parts.take(&owner(), part(SEQUENCE, first));
    let next = SEQUENCE.wrapping_add(u32::try_from(first.len()).unwrap_or(u32::MAX));
    parts.take(&owner(), part(next, second));
    assert_eq!((parts.sizes(), parts.lost()), (whole.sizes(), whole.lost()), "cut at {cut}");
}

fn owner() -> Owner {
    Owner::Pod(Arc::from("uid"))
}

fn dns(carrier: DnsCarrier, payload: &[u8]) -> DnsRecord {
    DnsRecord { cgroup_id: 1, at: AT, carrier, payload: payload.to_vec() }
}
