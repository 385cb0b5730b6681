//! A cluster that never stands still, told as a live one tells it.
//!
//! In: made-up stories of objects, and schedules of pods. Out: passed, or the shortest story after
//! which somebody is taken for another.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use parapet_core::flow::{Direction, Protocol, Timestamp};
use parapet_core::identity::Translation;
use parapet_core::record::{Counts, FlowRecord, Record};

mod churn;
mod order;
mod story;

const SECOND: u64 = 1_000_000_000;

/// The cgroup of the pod that all flows are seen at, and that pod's UID.
const WATCHER: (u64, &str) = (1, "watcher-uid");

fn t(seconds: u64) -> Timestamp {
    Timestamp(seconds * SECOND)
}

/// As the API server writes it, of the first hours of 1970.
fn time(seconds: u64) -> String {
    format!("1970-01-01T{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn cgroup() -> Record {
    let (cgroup_id, uid) = WATCHER;
    Record::CgroupCreated { cgroup_id, path: format!("/kubepods/pod{uid}/c"), at: t(1) }
}

/// One attempt that was answered, within one second.
fn flow(peer: &str, port: u16, direction: Direction, at: u64) -> FlowRecord {
    FlowRecord {
        cgroup_id: WATCHER.0,
        peer: peer.parse().unwrap(),
        local_addr: None,
        local_port: None,
        translation: Translation::default(),
        service_port: port,
        protocol: Protocol::TCP,
        direction: Some(direction),
        since: t(at),
        last_seen: t(at),
        counts: Counts { attempts: 1, answered: 1, ..Counts::default() },
    }
}
