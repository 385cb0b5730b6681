//! What an address is called, from answers and uses alone.
//!
//! In: messages and times written down by hand. Out: assertions on the names. The decoder has tests
//! of its own.

use super::decode::tests::message;
use super::*;

const POD: u64 = 1;
const MINUTE: u64 = 60;
const HOUR: u64 = 3600;

fn t(seconds: u64) -> Timestamp {
    Timestamp(seconds * SECOND_NS)
}

fn owner(number: u64) -> Owner {
    Owner::Pod(format!("uid-{number}").into())
}

fn tell(names: &mut Names, pod: u64, at: u64, asked: &str, ttl: u32, addresses: &[&str]) {
    let records: Vec<_> = addresses.iter().map(|address| (asked, ttl, *address)).collect();
    let payload = message(asked, &records);
    let carrier = DnsCarrier::Udp { is_cut: false };
    names.take(&owner(pod), DnsRecord { cgroup_id: 9, at: t(at), carrier, payload });
}

fn used(
    names: &mut Names,
    pod: u64,
    address: &str,
    (since, until): (u64, u64),
    is_attempt: bool,
) -> String {
    let address = address.parse().unwrap();
    let used = Use { address, since: t(since), until: t(until), is_attempt };
    names.used(&owner(pod), used).map_or_else(String::new, |names| names.join(" "))
}

/// What a connection at this time is named.
fn connected(names: &mut Names, pod: u64, address: &str, at: u64) -> String {
    used(names, pod, address, (at, at + 1), true)
}

fn lost(names: &Names) -> Vec<(&'static str, u64)> {
    names.lost().into_iter().filter(|(_, count)| *count > 0).collect()
}

#[test]
fn an_address_has_the_name_its_pod_asked_for() {
    let mut names = Names::default();
    tell(&mut names, 1, 10, "One.example", 300, &["203.0.113.7", "2001:db8::7"]);
    tell(&mut names, 2, 10, "two.example", 300, &["203.0.113.7"]);
    assert_eq!(connected(&mut names, 1, "203.0.113.7", 11), "one.example");
    assert_eq!(connected(&mut names, 1, "2001:db8::7", 11), "one.example");
    assert_eq!(connected(&mut names, 1, "::ffff:203.0.113.7", 11), "one.example");
    assert_eq!(connected(&mut names, 2, "203.0.113.7", 11), "two.example");
    assert_eq!(connected(&mut names, 2, "2001:db8::7", 11), "");
    assert_eq!(connected(&mut names, 3, "203.0.113.7", 11), "");
    assert_eq!(names.sizes(), (3, NAMES_MAX as u64));
}

#[test]
fn what_was_told_later_names_nothing_that_began_before() {
    let mut names = Names::default();
    tell(&mut names, POD, 10, "late.example", 300, &["203.0.113.7"]);
    assert_eq!(connected(&mut names, POD, "203.0.113.7", 9), "");
    assert_eq!(used(&mut names, POD, "203.0.113.7", (11, 12), false), "", "it went on");
    assert_eq!(connected(&mut names, POD, "203.0.113.7", 10), "late.example");
    assert_eq!(used(&mut names, POD, "203.0.113.7", (11, 12), false), "late.example");
}

#[test]
fn a_name_holds_for_its_ttl_but_a_minute_at_least_and_a_day_at_most() {
    let day = 24 * HOUR;
    for (ttl, holds) in [(0, 60), (59, 60), (61, 61), (300, 300), (u32::MAX, day)] {
        for (after, expected) in [(holds - 1, "a.example"), (holds, "")] {
            let mut names = Names::default();
            tell(&mut names, POD, 10, "a.example", ttl, &["203.0.113.7"]);
            let found = connected(&mut names, POD, "203.0.113.7", 10 + after);
            assert_eq!(found, expected, "TTL {ttl}, {after} s later");
        }
    }
}

#[test]
fn an_address_in_use_keeps_its_name() {
    let mut names = Names::default();
    tell(&mut names, POD, 0, "a.example", 60, &["203.0.113.7", "203.0.113.8"]);
    assert_eq!(connected(&mut names, POD, "203.0.113.7", 1), "a.example");
    // It goes on for a day, with pauses and new connections.
    for hours in 1..24 {
        let at = hours * HOUR;
        names.age(t(at));
        let found = used(&mut names, POD, "203.0.113.7", (at, at + 1), hours % 2 == 0);
        assert_eq!(found, "a.example", "after {hours} h");
    }
    assert_eq!(names.sizes().0, 1, "the one that was never used is forgotten");
    let later = 23 * HOUR + 3 * HOUR + 2;
    assert_eq!(used(&mut names, POD, "203.0.113.7", (later, later), false), "");
    assert_eq!(connected(&mut names, POD, "203.0.113.7", later), "");
    names.age(t(later + HOUR));
    assert_eq!((names.sizes().0, names.owners.len()), (0, 0));
}

#[test]
fn of_two_names_the_one_told_last_comes_first_and_the_others_are_not_hidden() {
    let mut names = Names::default();
    tell(&mut names, POD, 10, "b.example", 300, &["203.0.113.7"]);
    tell(&mut names, POD, 20, "a.example", 300, &["203.0.113.7"]);
    tell(&mut names, POD, 20, "c.example", 15, &["203.0.113.7"]);
    assert_eq!(connected(&mut names, POD, "203.0.113.7", 15), "b.example");
    assert_eq!(connected(&mut names, POD, "203.0.113.7", 25), "c.example a.example b.example");
    tell(&mut names, POD, 30, "b.example", 300, &["203.0.113.7"]);
    assert_eq!(connected(&mut names, POD, "203.0.113.7", 35), "b.example a.example c.example");
    // As of before the last answer.
    assert_eq!(connected(&mut names, POD, "203.0.113.7", 26), "c.example a.example b.example");
    // Told while attempts were made: one of them may have been by that name.
    tell(&mut names, POD, 40, "d.example", 300, &["203.0.113.7"]);
    let between = used(&mut names, POD, "203.0.113.7", (39, 41), true);
    assert_eq!(between, "b.example a.example c.example d.example");
}

#[test]
fn a_name_told_anew_after_a_gap_does_not_reach_back() {
    let mut names = Names::default();
    tell(&mut names, POD, 0, "a.example", 60, &["203.0.113.7"]);
    tell(&mut names, POD, 200, "a.example", 60, &["203.0.113.7"]);
    assert_eq!(connected(&mut names, POD, "203.0.113.7", 100), "");
    assert_eq!(connected(&mut names, POD, "203.0.113.7", 201), "a.example");
}

#[test]
fn an_answer_over_tcp_may_come_in_parts() {
    let mut names = Names::default();
    let message = message("a.example", &[("a.example", 300, "203.0.113.7")]);
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    let bytes = [&length[..], &message].concat();
    for (index, part) in bytes.chunks(10).enumerate() {
        let sequence = u32::try_from(index * 10).unwrap();
        let carrier = DnsCarrier::Tcp { cookie: 5, sequence };
        let record = DnsRecord { cgroup_id: 9, at: t(10), carrier, payload: part.to_vec() };
        names.take(&owner(POD), record);
    }
    assert_eq!(connected(&mut names, POD, "203.0.113.7", 11), "a.example");
    assert_eq!(lost(&names), []);
}

#[test]
fn what_cannot_be_read_is_counted() {
    let mut names = Names::default();
    let record = |is_cut| DnsRecord {
        cgroup_id: 9,
        at: t(1),
        carrier: DnsCarrier::Udp { is_cut },
        payload: b"no message".to_vec(),
    };
    names.take(&owner(POD), record(false));
    names.take(&owner(POD), record(true));
    names.take(&owner(POD), record(true));
    assert_eq!(lost(&names), [(STAGE_NAMES_MALFORMED, 1), (STAGE_NAMES_SPLIT, 2)]);
}

#[test]
fn one_pod_takes_its_own_room_only_and_gets_it_back() {
    let mut names = Names::default();
    let flood = NAMES_PER_OWNER_MAX as u64 + 5;
    for number in 0..flood {
        let name = format!("n{number}.example");
        let address = format!("203.0.{}.{}", number / 256, number % 256);
        tell(&mut names, 1, 10, &name, 60, &[&address]);
    }
    assert_eq!(names.sizes().0, NAMES_PER_OWNER_MAX as u64);
    assert_eq!(lost(&names), [(STAGE_NAMES_TABLE_FULL, 5)]);
    tell(&mut names, 2, 10, "a.example", 60, &["203.0.113.7"]);
    assert_eq!(connected(&mut names, 2, "203.0.113.7", 11), "a.example");
    // Once the old ones do not hold any more there is room again.
    tell(&mut names, 1, 20 * MINUTE, "new.example", 60, &["198.51.100.1"]);
    assert_eq!(connected(&mut names, 1, "198.51.100.1", 20 * MINUTE), "new.example");
    assert_eq!(names.sizes().0, 2);
}

#[test]
fn all_pods_together_are_bounded() {
    let mut names = Names::default();
    let addresses: Vec<_> = (0..256).map(|last| format!("203.0.113.{last}")).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    for pod in 0..300 {
        tell(&mut names, pod, 10, "a.example", 60, &addresses);
    }
    assert_eq!(names.sizes(), (NAMES_MAX as u64, NAMES_MAX as u64));
    let refused = 300 * 256 - NAMES_MAX as u64;
    assert_eq!(lost(&names), [(STAGE_NAMES_TABLE_FULL, refused)]);
}

#[test]
fn one_address_has_so_many_names_at_most() {
    let mut names = Names::default();
    for number in 0..NAMES_PER_ADDRESS_MAX as u64 + 2 {
        tell(&mut names, POD, number, &format!("n{number}.example"), 300, &["203.0.113.7"]);
    }
    let found = connected(&mut names, POD, "203.0.113.7", 20);
    let expected = "n9.example n2.example n3.example n4.example n5.example n6.example \
        n7.example n8.example";
    assert_eq!(found, expected);
    assert_eq!(lost(&names), [(STAGE_NAMES_TABLE_FULL, 2)]);
    assert_eq!(names.sizes().0, NAMES_PER_ADDRESS_MAX as u64);
}
