//! What was taken back of each pod's share of the kernel's tables, and of each cgroup's in no pod.
//!
//! In: how many flows and pairs left, by the cgroup that was charged for them. Out: the map that
//! the packet programs subtract from what they gave. The agent never writes the kernel's own
//! counts.

use std::collections::HashMap;

use aya::Pod;
use aya::maps::{HashMap as BpfHashMap, MapData, MapError};
use parapet_common::Share;

/// [`Share`] as aya wants its values.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct ShareValue(Share);

// SAFETY: Share is repr(C), integers only, without padding: valid for every bit pattern.
#[expect(unsafe_code, reason = "aya asks for this promise about map values")]
unsafe impl Pod for ShareValue {}

pub(super) type ShareMap = BpfHashMap<MapData, u64, ShareValue>;

/// Both maps.
pub(super) struct Shares {
    taken: ShareMap,
    returned: ShareMap,
}

impl Shares {
    pub(super) fn new(taken: ShareMap, returned: ShareMap) -> Self {
        Self { taken, returned }
    }

    /// After a restart: only what is really there counts, whatever an earlier agent left undone.
    pub(super) fn reconcile(&mut self, live: &HashMap<u64, Share>) -> Result<(), MapError> {
        let taken: Vec<_> = self.taken.iter().filter_map(Result::ok).collect();
        for (charged_id, ShareValue(taken)) in taken {
            let live = live.get(&charged_id).copied().unwrap_or_default();
            let returned = Share {
                flows: taken.flows.saturating_sub(live.flows),
                pairs: taken.pairs.saturating_sub(live.pairs),
            };
            self.returned.insert(charged_id, ShareValue(returned), 0)?;
        }
        Ok(())
    }

    /// A pod has less of the tables than before.
    pub(super) fn give_back(&mut self, charged_id: u64, less: Share) -> Result<(), MapError> {
        let before = match self.returned.get(&charged_id, 0) {
            Ok(ShareValue(before)) => before,
            Err(MapError::KeyNotFound) => Share::default(),
            Err(error) => return Err(error),
        };
        let after = Share {
            flows: before.flows.saturating_add(less.flows),
            pairs: before.pairs.saturating_add(less.pairs),
        };
        let taken = match self.taken.get(&charged_id, 0) {
            Ok(ShareValue(taken)) => taken,
            Err(MapError::KeyNotFound) => Share::default(),
            Err(error) => return Err(error),
        };
        // Nothing of it is left: the pod may be gone for good, and its entries with it.
        if taken.flows <= after.flows && taken.pairs <= after.pairs {
            let _ = self.taken.remove(&charged_id);
            let _ = self.returned.remove(&charged_id);
            return Ok(());
        }
        self.returned.insert(charged_id, ShareValue(after), 0)
    }
}
