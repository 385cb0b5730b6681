//! Where an outside end gets its name.
//!
//! In: a resolved record and what DNS told. Out: the same ends with the name of the target, if it
//! has one. It names nobody who is in the cluster, and nobody who began.

use crate::flow::{Direction, Endpoint};
use crate::identity::{Index, Place, Resolved};
use crate::names::{Names, Owner, Use};
use crate::record::FlowRecord;

/// Who is told what this cgroup is told.
pub(super) fn owner(index: &Index, cgroup_id: u64) -> Owner {
    match index.place(cgroup_id) {
        Some(Place::Pod { uid, .. }) => Owner::Pod(uid.clone()),
        Some(Place::Node { .. }) | None => Owner::Cgroup(cgroup_id),
    }
}

/// The record with its target's names; none if it stays as it is.
pub(super) fn named(
    names: &mut Names,
    index: &Index,
    record: &FlowRecord,
    resolved: &Resolved,
) -> Option<Resolved> {
    let asks = record.direction == Some(Direction::Egress);
    let target = &resolved.target;
    // Behind a Service's address is another one, which nobody asked for by name.
    let same = target.addr == Some(record.peer.to_canonical());
    if !asks || !same || resolved.loopback || target.endpoint != Endpoint::External {
        return None;
    }
    let used = Use {
        address: record.peer,
        since: record.since,
        until: record.last_seen,
        is_attempt: record.counts.attempts > 0,
    };
    let owner = owner(index, record.cgroup_id);
    // What was told before the cgroup's path was known was told the cgroup.
    let found = names.used(&owner, used).or_else(|| match owner {
        Owner::Pod(_) => names.used(&Owner::Cgroup(record.cgroup_id), used),
        Owner::Cgroup(_) => None,
    })?;
    let mut resolved = resolved.clone();
    resolved.target.endpoint = Endpoint::Named(found);
    Some(resolved)
}
