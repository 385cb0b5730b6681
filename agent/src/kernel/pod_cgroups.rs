//! The cgroups of pods, as the packet programs know them: all containers of a pod use one share of
//! the tables.
//!
//! In: cgroups made and removed. Out: the kernel's map has the pods' own among them. Until it is
//! told of a pod, as beyond the map's room, each of its containers is charged for itself.

use std::collections::HashSet;

use aya::maps::{HashMap as BpfHashMap, MapData};
use parapet_common::POD_CGROUPS_MAX;
use parapet_core::identity::Place;
use parapet_core::identity::cgroup::parse;
use parapet_core::record::Record;

pub(super) type PodCgroupMap = BpfHashMap<MapData, u64, u32>;

/// The map and what is in it.
pub(super) struct PodCgroups {
    map: PodCgroupMap,
    known: HashSet<u64>,
}

impl PodCgroups {
    /// With what an agent before us put there.
    pub(super) fn new(map: PodCgroupMap) -> Self {
        let known = map.keys().filter_map(Result::ok).collect();
        Self { map, known }
    }

    /// Follows what was made and removed.
    pub(super) fn follow(&mut self, records: &[Record]) {
        for record in records {
            match record {
                Record::CgroupRemoved { cgroup_id, .. } => self.remove(*cgroup_id),
                record => {
                    if let Some(cgroup_id) = of_pod(record) {
                        self.insert(cgroup_id);
                    }
                }
            }
        }
    }

    /// Makes the map hold those of these that are pods', and no others.
    pub(super) fn set(&mut self, existing: &[Record]) {
        let pods: HashSet<u64> = existing.iter().filter_map(of_pod).collect();
        let gone: Vec<u64> = self.known.difference(&pods).copied().collect();
        for cgroup_id in gone {
            self.remove(cgroup_id);
        }
        for cgroup_id in pods {
            self.insert(cgroup_id);
        }
    }

    fn insert(&mut self, cgroup_id: u64) {
        if !self.known.contains(&cgroup_id) && self.map.insert(cgroup_id, 1, 0).is_ok() {
            self.known.insert(cgroup_id);
        }
    }

    fn remove(&mut self, cgroup_id: u64) {
        if self.known.remove(&cgroup_id) {
            let _ = self.map.remove(&cgroup_id);
        }
    }

    pub(super) fn sizes(&self) -> (u64, u64) {
        (self.known.len() as u64, u64::from(POD_CGROUPS_MAX))
    }
}

/// The cgroup, if it is a pod's own and not one inside of it.
fn of_pod(record: &Record) -> Option<u64> {
    let Record::CgroupCreated { cgroup_id, path, .. } = record else { return None };
    match parse(path)? {
        Place::Pod { container: None, .. } => Some(*cgroup_id),
        Place::Pod { .. } | Place::Node { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use parapet_core::flow::Timestamp;

    use super::*;

    #[test]
    fn only_a_pods_own_cgroup_is_a_pods() {
        let made = |path: &str| Record::CgroupCreated {
            cgroup_id: 7,
            path: path.to_owned(),
            at: Timestamp(7),
        };
        let pod = "/kubepods.slice/kubepods-pod1f.slice";
        assert_eq!(of_pod(&made(pod)), Some(7));
        for path in [
            "/kubepods.slice".to_owned(),
            "/system.slice/kubelet.service".to_owned(),
            String::new(),
            format!("{pod}/cri-containerd-4.scope"),
            format!("{pod}/cri-containerd-4.scope/kubepods.slice/kubepods-pod2e.slice"),
        ] {
            assert_eq!(of_pod(&made(&path)), None, "{path}");
        }
        assert_eq!(of_pod(&Record::CgroupRemoved { cgroup_id: 7, at: Timestamp(7) }), None);
    }
}
