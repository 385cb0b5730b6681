//! DNS over TCP: the bytes of connections, put together to messages.
//!
//! In: the parts of connections in the order they came. Out: whole messages. It holds unfinished
//! messages only, so many and so long at most, and counts what it could not put together. A part
//! that is missing or comes early costs the message: the next part is read as a beginning.

use foldhash::HashMap;

use crate::flow::Timestamp;

/// Connections in the middle of a message at once.
pub const STREAMS_MAX: usize = 1024;
/// Bytes of unfinished messages held at once, of all connections.
pub const STREAM_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long the next part of a message may take: resolvers give up sooner.
const PART_WAIT_NS: u64 = 30_000_000_000;
/// The length in front of each message (RFC 1035, 4.2.2).
const PREFIX_BYTES: usize = 2;

/// All unfinished messages.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: HashMap<u64, Stream>,
    bytes: usize,
    /// Messages that could not be put together.
    pub(super) split: u64,
}

#[derive(Debug)]
struct Stream {
    /// Sequence number of the byte after the last one.
    next: u32,
    bytes: Vec<u8>,
    at: Timestamp,
}

impl Streams {
    /// Takes a part of a connection, hands back the messages that are whole now.
    pub(super) fn take(
        &mut self,
        (cookie, sequence): (u64, u32),
        part: &[u8],
        at: Timestamp,
    ) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut known = 0;
        if let Some(stream) = self.forget(cookie) {
            // Bytes that came before are sent again when the answer to them was lost. The
            // difference of two sequence numbers has a sign: they begin anew after 2^32.
            let again = stream.next.wrapping_sub(sequence);
            match usize::try_from(again) {
                Ok(again) if again < 1 << 31 => {
                    known = again;
                    bytes = stream.bytes;
                }
                _ => self.split += 1,
            }
        }
        let Some(new) = part.get(known..) else {
            // Nothing new: it waits on as before.
            let next = sequence.wrapping_add(u32::try_from(known).unwrap_or(u32::MAX));
            self.keep(cookie, Stream { next, bytes, at });
            return Vec::new();
        };
        bytes.extend_from_slice(new);
        let messages = split_off_whole(&mut bytes);
        if !bytes.is_empty() {
            let next = sequence.wrapping_add(u32::try_from(part.len()).unwrap_or(u32::MAX));
            self.keep(cookie, Stream { next, bytes, at });
        }
        messages
    }

    /// Forgets those that waited too long.
    pub(super) fn age(&mut self, now: Timestamp) {
        let before = self.streams.len();
        self.streams.retain(|_, stream| now.0.saturating_sub(stream.at.0) < PART_WAIT_NS);
        self.split += (before - self.streams.len()) as u64;
        self.bytes = self.streams.values().map(|stream| stream.bytes.len()).sum();
    }

    fn forget(&mut self, cookie: u64) -> Option<Stream> {
        let stream = self.streams.remove(&cookie)?;
        self.bytes -= stream.bytes.len();
        Some(stream)
    }

    fn keep(&mut self, cookie: u64, stream: Stream) {
        let bytes = self.bytes + stream.bytes.len();
        if self.streams.len() >= STREAMS_MAX || bytes > STREAM_BYTES_MAX {
            self.split += 1;
            return;
        }
        self.bytes = bytes;
        self.streams.insert(cookie, stream);
    }
}

fn split_off_whole(bytes: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((length, after)) = rest.split_first_chunk::<PREFIX_BYTES>() {
        let Some((message, after)) =
            after.split_at_checked(usize::from(u16::from_be_bytes(*length)))
        else {
            break;
        };
        messages.push(message.to_vec());
        rest = after;
    }
    *bytes = rest.to_vec();
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Timestamp = Timestamp(1_000_000_000);

    fn sent(messages: &[&[u8]]) -> Vec<u8> {
        let prefixed = |message: &&[u8]| {
            let length = u16::try_from(message.len()).unwrap().to_be_bytes();
            [&length, *message].concat()
        };
        messages.iter().flat_map(prefixed).collect()
    }

    #[test]
    fn messages_are_put_together_however_they_were_cut() {
        let messages: [&[u8]; 3] = [b"first", b"", b"the third"];
        let bytes = sent(&messages);
        // Sequence numbers begin anew on the way.
        let start = u32::MAX - 3;
        for step in 1..=bytes.len() {
            let mut streams = Streams::default();
            let mut found = Vec::new();
            for (index, part) in bytes.chunks(step).enumerate() {
                let at = start.wrapping_add(u32::try_from(index * step).unwrap());
                found.extend(streams.take((1, at), part, T));
            }
            assert_eq!(found, messages, "in parts of {step}");
            assert_eq!((streams.streams.len(), streams.bytes, streams.split), (0, 0, 0));
        }
    }

    #[test]
    fn bytes_that_come_again_count_once() {
        let bytes = sent(&[b"message"]);
        let mut streams = Streams::default();
        assert_eq!(streams.take((1, 100), &bytes[..4], T), Vec::<Vec<u8>>::new());
        assert_eq!(streams.take((1, 100), &bytes[..3], T), Vec::<Vec<u8>>::new());
        assert_eq!(streams.take((1, 102), &bytes[2..], T), [b"message".to_vec()]);
        assert_eq!(streams.split, 0);
    }

    #[test]
    fn a_missing_part_costs_one_message() {
        let bytes = sent(&[b"message"]);
        let mut streams = Streams::default();
        assert_eq!(streams.take((1, 100), &bytes[..4], T), Vec::<Vec<u8>>::new());
        assert_eq!(streams.take((1, 200), &bytes, T), [b"message".to_vec()]);
        assert_eq!((streams.split, streams.bytes), (1, 0));
    }

    #[test]
    fn what_waits_is_bounded_and_ages() {
        let mut streams = Streams::default();
        for cookie in 0..STREAMS_MAX as u64 + 3 {
            streams.take((cookie, 0), &[0, 9, 1], T);
        }
        assert_eq!((streams.streams.len(), streams.split), (STREAMS_MAX, 3));
        streams.age(Timestamp(T.0 + PART_WAIT_NS));
        assert_eq!((streams.streams.len(), streams.bytes), (0, 0));
        assert_eq!(streams.split, STREAMS_MAX as u64 + 3);
        let long = [&[0xff, 0xff][..], &[0; 60_000]].concat();
        for cookie in 0..40 {
            streams.take((cookie, 0), &long, T);
        }
        assert!(streams.bytes <= STREAM_BYTES_MAX, "{}", streams.bytes);
        assert_eq!(streams.split, STREAMS_MAX as u64 + 3 + 40 - streams.streams.len() as u64);
    }

    proptest::proptest! {
        #[test]
        fn no_parts_panic_or_pile_up(
            parts in proptest::collection::vec(
                (0_u64..3, 0_u32.., proptest::collection::vec(0_u8.., 0..9)), 0..40),
        ) {
            let mut streams = Streams::default();
            for (cookie, sequence, part) in parts {
                streams.take((cookie, sequence), &part, T);
                let held: usize = streams.streams.values().map(|stream| stream.bytes.len()).sum();
                proptest::prop_assert_eq!(held, streams.bytes);
            }
        }
    }
}
