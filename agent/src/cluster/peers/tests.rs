//! The table of addresses, by a clock of the tests' own.

use serde_json::json;

use super::*;

fn addr(last: u32) -> IpAddr {
    IpAddr::V4((0x0a00_0000 + last).into())
}

fn pod(uid: &str) -> Object {
    let metadata = json!({"namespace": "b", "name": uid, "uid": uid});
    Object::Pod(serde_json::from_value(json!({"metadata": metadata})).unwrap())
}

#[test]
fn an_address_is_asked_for_once_and_again_while_it_is_in_use() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut table = Table::default();
    table.want(addr(1), at(0));
    table.want(addr(1), at(1));
    assert_eq!([table.next(), table.next()], [Some(addr(1)), None]);
    let applied = |uid| Change::Applied(pod(uid));
    assert_eq!(table.answered(addr(1), vec![pod("a")], at(1), 0.5), [applied("a")]);
    table.want(addr(1), at(300));
    assert_eq!((table.look(at(300)), table.next()), (vec![], None));
    assert_eq!((table.look(at(301)), table.next()), (vec![], Some(addr(1))));
    let changes = table.answered(addr(1), vec![pod("b")], at(302), 0.5);
    assert_eq!(changes, [Change::Deleted(name_of(&pod("a"))), applied("b")]);
    // Half an hour after it was met last.
    assert_eq!(table.look(at(2_100)), ["b"]);
    assert_eq!((table.by_addr.len(), table.next()), (0, None));
}

#[test]
fn nobody_is_remembered_for_half_a_minute() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut table = Table::default();
    table.want(addr(1), at(0));
    assert_eq!(table.next(), Some(addr(1)));
    assert_eq!(table.answered(addr(1), vec![], at(0), 0.5), []);
    table.want(addr(1), at(29));
    assert_eq!(table.next(), None);
    table.want(addr(1), at(30));
    assert_eq!(table.next(), Some(addr(1)));
    assert_eq!(table.answered(addr(1), vec![], at(30), 0.5), []);
    assert_eq!(table.look(at(61)), Vec::<String>::new());
    assert_eq!(table.by_addr.len(), 0);
}

#[test]
fn what_cannot_be_asked_is_tried_again_until_nobody_waits_for_it() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut table = Table::default();
    table.want(addr(1), at(0));
    for seconds in [0, 29] {
        assert_eq!(table.next(), Some(addr(1)));
        table.failed(addr(1), at(seconds));
    }
    assert_eq!(table.next(), Some(addr(1)));
    table.failed(addr(1), at(30));
    assert_eq!((table.by_addr.len(), table.next()), (0, None));
    // A pod that is known stays until it is asked for again.
    table.want(addr(2), at(30));
    assert_eq!(table.next(), Some(addr(2)));
    table.answered(addr(2), vec![pod("a")], at(30), 0.5);
    table.failed(addr(2), at(400));
    assert_eq!(table.next(), Some(addr(2)));
}

#[test]
fn the_table_and_the_pace_are_bounded() {
    let now = Instant::now();
    let mut table = Table::default();
    let max = u32::try_from(LOOKUPS_MAX).unwrap();
    (0..max + 3).for_each(|last| table.want(addr(last), now));
    assert_eq!(
        (table.by_addr.len(), table.queue.len(), table.refused),
        (LOOKUPS_MAX, LOOKUPS_MAX, 3)
    );
    let mut bucket = Bucket { left: BURST, at: now };
    let waits: Vec<_> = (0..52).map(|_| bucket.take(now).as_millis()).collect();
    assert_eq!(waits[..50], [0; 50]);
    assert_eq!(waits[50..], [100, 200]);
}
