//! Real bytes of Linux 6.18 (little endian), at every truncation and with every byte changed.

use std::net::SocketAddr;

use parapet_core::flow::Protocol;

use super::{Answer, Entry, Tuple, answers, dump_rewritten, get};

/// TCP to 10.96.0.10:80, led to 10.244.0.9:8080, which sees 10.244.0.1.
const TRANSLATED: &str = "d4000000000102000700000062150000020000003400018014000180080001000af40009080002000a60000a \
    1c0002800500010006000000060002009c41000006000300005000003400028014000180080001000af40009 \
    080002000af400011c0002800500010006000000060002001f900000060003009c41000008000300000001be \
    080008000000000008000c00f19d1c8d08000b00000000020800070000000078300004802c00018005000100 \
    04000000050002000a000000050003000a00000006000400230000000600050037000000";

/// UDP to [fd96::10]:53, led to [fd00::9]:5353, its source kept.
const TRANSLATED_6: &str = "d40000000001020008000000621500000a0000004c0001802c00018014000300fd0000000000000000000000 \
    0000000914000400fd9600000000000000000000000000101c0002800500010011000000060002009c420000 \
    06000300003500004c0002802c00018014000300fd00000000000000000000000000000914000400fd000000 \
    0000000000000000000000091c00028005000100110000000600020014e90000060003009c42000008000300 \
    000001a8080008000000000008000c00e171650708000b0000000002080007000000001d";

/// ENOENT, with the question quoted.
const NOT_TRACKED: &str = "5c000000020000000900000062150000feffffff480000000101010009000000000000000200000034000180 \
    14000180080001000af40009080002000a60000a1c0002800500010006000000060002009c49000006000300 \
    00500000";

/// The end of a dump.
const DONE: &str = "14000000030002000a0000006215000000000000";

/// What the kernel took as the question for `TRANSLATED`.
const GET: &str = "48000000010101000700000000000000020000003400018014000180080001000af40009080002000a60000a \
    1c0002800500010006000000060002009c4100000600030000500000";

/// The same for `TRANSLATED_6`.
const GET_6: &str = "600000000101010008000000000000000a0000004c0001802c00018014000300fd0000000000000000000000 \
    0000000914000400fd9600000000000000000000000000101c0002800500010011000000060002009c420000 \
    0600030000350000";

fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

fn tuple(protocol: Protocol, source: &str, target: &str) -> Tuple {
    let read = |text: &str| text.parse::<SocketAddr>().unwrap();
    Tuple { protocol, source: read(source), target: read(target) }
}

fn translated() -> Entry {
    Entry {
        original: tuple(Protocol::TCP, "10.244.0.9:40001", "10.96.0.10:80"),
        reply: tuple(Protocol::TCP, "10.244.0.9:8080", "10.244.0.1:40001"),
        status: 0x1be,
    }
}

fn translated_6() -> Entry {
    Entry {
        original: tuple(Protocol::UDP, "[fd00::9]:40002", "[fd96::10]:53"),
        reply: tuple(Protocol::UDP, "[fd00::9]:5353", "[fd00::9]:40002"),
        status: 0x1a8,
    }
}

#[test]
fn entries_are_read_as_the_kernel_wrote_them() {
    assert_eq!(answers(&bytes(TRANSLATED), 7), [Answer::Entry(translated())]);
    assert_eq!(answers(&bytes(TRANSLATED_6), 8), [Answer::Entry(translated_6())]);
    assert!(translated().has_other_source());
    assert!(!translated_6().has_other_source());
    // Only the port was changed, because another connection has it.
    let mut same = translated();
    same.reply.target.set_ip(same.original.source.ip());
    assert!(!same.has_other_source());
}

#[test]
fn errors_and_ends_are_numbers_and_answers_to_others_are_not_ours() {
    assert_eq!(answers(&bytes(NOT_TRACKED), 9), [Answer::End(2)]);
    assert_eq!(answers(&bytes(DONE), 10), [Answer::End(0)]);
    let all = bytes(&[TRANSLATED, NOT_TRACKED, TRANSLATED_6, DONE].concat());
    assert_eq!(answers(&all, 8), [Answer::Entry(translated_6())]);
    assert_eq!(answers(&all, 11), []);
}

#[test]
fn questions_are_those_that_the_kernel_took() {
    assert_eq!(get(&translated().original, 7), bytes(GET));
    assert_eq!(get(&translated_6().original, 8), bytes(GET_6));
    let dump = "24000000010101030a0000000000000000000000080003000000001008001a0000000010";
    assert_eq!(dump_rewritten(10), bytes(dump));
}

#[test]
fn no_truncation_is_an_entry_but_for_attributes_that_nobody_reads() {
    for (text, number, entry) in [(TRANSLATED, 7, translated()), (TRANSLATED_6, 8, translated_6())]
    {
        let whole = bytes(text);
        // A datagram that was cut.
        for length in 0..whole.len() {
            assert_eq!(answers(&whole[..length], number), [], "{length} bytes");
        }
        // A message that says it is shorter: its status is the last that is needed.
        let needed = whole.windows(4).position(|four| four == [8, 0, 3, 0]).unwrap() + 8;
        for length in 16..whole.len() {
            let mut cut = whole[..length].to_vec();
            cut[..4].copy_from_slice(&u32::try_from(length).unwrap().to_ne_bytes());
            let expected = if length < needed { Answer::Other } else { Answer::Entry(entry) };
            assert_eq!(answers(&cut, number), [expected], "{length} bytes");
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(0_u8.., 0..400), number in 0_u32..) {
        let _ = answers(&bytes, number);
    }

    #[test]
    fn no_changed_bytes_panic(at in 0_usize..212, value in 0_u8.., more in 0_usize..212) {
        let mut changed = bytes(TRANSLATED);
        changed[at] = value;
        changed[more] = !value;
        let _ = answers(&changed, 7);
    }
}
