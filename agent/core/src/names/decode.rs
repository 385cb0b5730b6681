//! One DNS message: which addresses the name that was asked for has, and for how long.
//!
//! In: the bytes of one message, of anybody's making. Out: an [`Answer`], or that it is none that
//! leads anywhere, or that it cannot be read. It never panics, and takes no memory beyond a small
//! multiple of the message.

use std::net::IpAddr;
use std::sync::Arc;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, RCODE, ResourceRecord};

/// Addresses taken from one answer; servers send a handful.
pub const ANSWER_ADDRESSES_MAX: usize = 256;
/// Longest name, as DNS itself has it (RFC 1035, 2.3.4), in text.
const NAME_BYTES_MAX: usize = 253;
/// Aliases followed in one answer. Resolvers give up at about as many.
const ALIASES_MAX: usize = 16;
const HEADER_BYTES: usize = 12;
/// Fewest bytes of a question (root name, type, class) and of a record (as those, TTL, length).
const QUESTION_BYTES_MIN: usize = 5;
const RECORD_BYTES_MIN: usize = 11;

/// A name and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The name that was asked for, lower case, without a final dot.
    pub name: Arc<str>,
    /// Each address with the seconds it may be used.
    pub addresses: Vec<(IpAddr, u32)>,
    /// Addresses beyond [`ANSWER_ADDRESSES_MAX`].
    pub refused: u64,
}

/// The bytes are no DNS message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no DNS message")]
pub struct Malformed;

/// Reads one message. None if it tells no address: an error, a question, a name without addresses,
/// or a name that cannot be one of a host. The bytes are changed.
///
/// # Errors
/// They are no DNS message.
pub fn decode(message: &mut [u8]) -> Result<Option<Answer>, Malformed> {
    only_answers(message)?;
    let packet = Packet::parse(message).map_err(|_| Malformed)?;
    if !packet.has_flags(PacketFlag::RESPONSE) || packet.rcode() != RCODE::NoError {
        return Ok(None);
    }
    let [question] = &*packet.questions else { return Ok(None) };
    let Some(name) = host(&question.qname) else { return Ok(None) };
    let names = aliases(&question.qname, &packet.answers);
    let mut addresses = Vec::new();
    let mut refused = 0;
    for record in packet.answers.iter().filter(|record| record.class == CLASS::IN) {
        let address: IpAddr = match &record.rdata {
            RData::A(a) => IpAddr::V4(a.address.into()),
            RData::AAAA(aaaa) => IpAddr::V6(aaaa.address.into()).to_canonical(),
            _ => continue,
        };
        if !names.contains(&&record.name) {
            continue;
        }
        if addresses.len() >= ANSWER_ADDRESSES_MAX {
            refused += 1;
            continue;
        }
        addresses.push((address, record.ttl));
    }
    Ok((!addresses.is_empty()).then_some(Answer { name, addresses, refused }))
}

/// Hides the sections after the answers: they name no address that was asked for, and one record in
/// them that the library cannot read would cost the answers. Then checks that the records announced
/// find room in the message, because room for them is taken before they are read.
fn only_answers(message: &mut [u8]) -> Result<(), Malformed> {
    let length = message.len();
    let header = message.first_chunk_mut::<HEADER_BYTES>().ok_or(Malformed)?;
    let [_, _, _, flags, q0, q1, a0, a1, others @ ..] = header;
    // A bit that must be zero and says nothing if it is not (RFC 1035, 4.1.1).
    *flags &= !0x40;
    *others = [0; 4];
    let questions = usize::from(u16::from_be_bytes([*q0, *q1]));
    let answers = usize::from(u16::from_be_bytes([*a0, *a1]));
    let needed = HEADER_BYTES + questions * QUESTION_BYTES_MIN + answers * RECORD_BYTES_MIN;
    if needed > length { Err(Malformed) } else { Ok(()) }
}

/// The name and what it is another name for, in whatever order the records stand.
fn aliases<'a>(asked: &'a Name<'a>, answers: &'a [ResourceRecord<'a>]) -> Vec<&'a Name<'a>> {
    let mut names = vec![asked];
    for at in 0..ALIASES_MAX {
        let Some(name) = names.get(at).copied() else { break };
        for record in answers.iter().filter(|record| record.name == *name) {
            if let RData::CNAME(alias) = &record.rdata
                && names.len() <= ALIASES_MAX
                && !names.contains(&&alias.0)
            {
                names.push(&alias.0);
            }
        }
    }
    names
}

/// A name as it is shown. None for one that no host has: it may hold anything at all, line feeds
/// and dots inside of labels included.
fn host(name: &Name<'_>) -> Option<Arc<str>> {
    let mut text = String::new();
    for label in name.as_bytes() {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            if !byte.is_ascii_alphanumeric() && !b"-_".contains(byte) {
                return None;
            }
            text.push(char::from(byte.to_ascii_lowercase()));
        }
    }
    (1..=NAME_BYTES_MAX).contains(&text.len()).then(|| text.into())
}

#[cfg(test)]
pub(super) mod tests {
    use simple_dns::rdata::{A, AAAA, CNAME};
    use simple_dns::{QCLASS, QTYPE, Question, TYPE};

    use super::*;

    /// An answer to `asked` with these records: (name, TTL, address or alias).
    pub(in super::super) fn message(asked: &str, records: &[(&str, u32, &str)]) -> Vec<u8> {
        let mut packet = Packet::new_reply(7);
        let name = |text: &str| Name::new(text).unwrap().into_owned();
        let (class, kind) = (QCLASS::CLASS(CLASS::IN), QTYPE::TYPE(TYPE::A));
        packet.questions.push(Question::new(name(asked), kind, class, false));
        for (owner, ttl, value) in records {
            let data = match value.parse::<IpAddr>() {
                Ok(IpAddr::V4(v4)) => RData::A(A { address: v4.into() }),
                Ok(IpAddr::V6(v6)) => RData::AAAA(AAAA { address: v6.into() }),
                Err(_) => RData::CNAME(CNAME(name(value))),
            };
            packet.answers.push(ResourceRecord::new(name(owner), CLASS::IN, *ttl, data));
        }
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn decoded(message: &[u8]) -> Result<Option<Answer>, Malformed> {
        decode(&mut message.to_vec())
    }

    fn answer(name: &str, addresses: &[(&str, u32)]) -> Answer {
        let addresses = addresses.iter().map(|(addr, ttl)| (addr.parse().unwrap(), *ttl)).collect();
        Answer { name: name.into(), addresses, refused: 0 }
    }

    #[test]
    fn the_name_is_the_one_that_was_asked_for() {
        let bytes = message(
            "API.Example.com",
            &[
                ("b.cdn.example", 30, "203.0.113.7"),
                ("b.cdn.example", 31, "2001:db8::7"),
                ("a.cdn.example", 60, "b.cdn.example"),
                ("api.example.COM", 300, "a.cdn.example"),
                ("unrelated.example", 9, "203.0.113.66"),
            ],
        );
        let expected = answer("api.example.com", &[("203.0.113.7", 30), ("2001:db8::7", 31)]);
        assert_eq!(decoded(&bytes), Ok(Some(expected)));
    }

    #[test]
    fn aliases_in_a_circle_end() {
        let bytes =
            message("a.example", &[("a.example", 1, "b.example"), ("b.example", 1, "a.example")]);
        assert_eq!(decoded(&bytes), Ok(None));
    }

    #[test]
    fn errors_questions_and_odd_names_tell_nothing() {
        let good = message("a.example", &[("a.example", 5, "203.0.113.7")]);
        assert_eq!(decoded(&good), Ok(Some(answer("a.example", &[("203.0.113.7", 5)]))));
        let mut refused = good.clone();
        refused[3] |= 3;
        assert_eq!(decoded(&refused), Ok(None), "NXDOMAIN");
        let mut asked = good.clone();
        asked[2] &= 0x7f;
        assert_eq!(decoded(&asked), Ok(None), "a question");
        let odd = r"a\010b.example";
        assert_eq!(decoded(&message(odd, &[(odd, 5, "203.0.113.7")])), Ok(None));
        assert_eq!(decoded(&message(".", &[(".", 5, "203.0.113.7")])), Ok(None));
    }

    #[test]
    fn what_stands_after_the_answers_costs_them_nothing() {
        let mut bytes = message("a.example", &[("a.example", 5, "203.0.113.7")]);
        bytes[3] |= 0x40;
        bytes[11] = 3;
        bytes.extend([0xff; 9]);
        assert_eq!(decoded(&bytes), Ok(Some(answer("a.example", &[("203.0.113.7", 5)]))));
    }

    #[test]
    fn a_record_count_beyond_the_bytes_takes_no_memory() {
        let mut bytes = message("a.example", &[("a.example", 5, "203.0.113.7")]);
        bytes[6..8].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(decoded(&bytes), Err(Malformed));
    }

    #[test]
    fn addresses_beyond_the_limit_are_counted() {
        let texts: Vec<_> =
            (0..300_u32).map(|n| format!("203.0.{}.{}", n / 256, n % 256)).collect();
        let records: Vec<_> = texts.iter().map(|text| ("a.example", 5, text.as_str())).collect();
        let found = decoded(&message("a.example", &records)).unwrap().unwrap();
        assert_eq!((found.addresses.len(), found.refused), (256, 44));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = message(
            "api.example.com",
            &[("api.example.com", 300, "cdn.example"), ("cdn.example", 30, "203.0.113.7")],
        );
        for length in 0..whole.len() {
            assert_eq!(decoded(&whole[..length]), Err(Malformed), "{length} bytes");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(0_u8.., 0..600)) {
            let _ = decoded(&bytes);
        }

        #[test]
        fn no_change_to_an_answer_panics(
            changes in proptest::collection::vec((0_usize..200, 0_u8..), 1..6),
        ) {
            let mut bytes = message(
                "api.example.com",
                &[("api.example.com", 300, "cdn.example"), ("cdn.example", 30, "203.0.113.7")],
            );
            let length = bytes.len();
            for (at, byte) in changes {
                bytes[at % length] = byte;
            }
            let _ = decoded(&bytes);
        }
    }
}
