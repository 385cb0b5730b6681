//! From a cgroup to the pod and container it belongs to.
//!
//! In: cgroup ids with their paths, as the kernel makes and removes them. Out: the [`Place`] of a
//! cgroup, also for some time after it is gone. It never looks at the file system and never decides
//! by an address. What is outside of every pod's cgroup is the node itself, by the unit it is in.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use parapet_common::CGROUP_PATH_BYTES_MAX;

/// Cgroups that exist at once. Further ones are refused and counted.
pub const CGROUPS_MAX: usize = 65_536;
/// Removed cgroups that are still known, the newest ones.
pub const CGROUP_TOMBSTONES_MAX: usize = 16_384;

/// Units of this node that are told apart. Those of further ones are all [`OTHER_UNITS`].
pub const UNITS_MAX: usize = 256;
/// Stands for every unit beyond [`UNITS_MAX`].
pub const OTHER_UNITS: &str = "__other__";

/// Whose cgroup it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The node's own: nothing of it is inside a pod.
    Node {
        /// The service or container it belongs to: the first two names of its path,
        /// "system.slice/kubelet.service". Sessions of people are one, "user.slice". Empty for the
        /// root, where the kernel itself is and what nobody put elsewhere.
        unit: Arc<str>,
    },
    /// A pod's.
    Pod {
        /// UID of the pod, with dashes as the API has it.
        uid: Arc<str>,
        /// Id of the container without the runtime's prefix; none for the pod's own cgroup.
        container: Option<Arc<str>>,
    },
}

/// Reads a path below the cgroup2 root, which itself is `/`. None if it was cut before it told
/// whose it is, and of an empty one: that is how the kernel says that it could not tell the path.
#[must_use]
pub fn parse(path: &str) -> Option<Place> {
    if path.is_empty() {
        return None;
    }
    // A cut path may end inside a name, and a name cut short would be another pod's.
    let cut = path.len() >= CGROUP_PATH_BYTES_MAX;
    let path = if cut { path.rsplit_once('/').map_or("", |(whole, _)| whole) } else { path };
    let mut inside_kubepods = false;
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    while let Some(part) = parts.next() {
        if let Some(uid) = uid_of(part, inside_kubepods) {
            let joined = part.split(':').nth(2);
            let container = joined.or_else(|| parts.next()).and_then(container_of);
            return Some(Place::Pod { uid, container });
        }
        // Below kubepods only the two QoS folders may stand before a pod.
        let qos = inside_kubepods && matches!(part, "burstable" | "besteffort");
        inside_kubepods = qos || part == "kubepods";
    }
    (!cut).then(|| Place::Node { unit: unit_of(path).into() })
}

fn unit_of(path: &str) -> String {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    match (parts.next(), parts.next()) {
        (None, _) => String::new(),
        (Some("user.slice"), _) => "user.slice".to_owned(),
        (Some(first), Some(second)) => format!("{first}/{second}"),
        (Some(first), None) => first.to_owned(),
    }
}

/// The UID in a pod's own folder name: `pod<uid>` below kubepods (cgroupfs driver),
/// `[prefix-]kubepods[-burstable]-pod<uid>.slice` anywhere (systemd driver).
fn uid_of(part: &str, inside_kubepods: bool) -> Option<Arc<str>> {
    let name = part.split(':').next().unwrap_or(part);
    let uid = match name.strip_suffix(".slice") {
        Some(slice) => {
            let (before, uid) = slice.rsplit_once("-pod")?;
            let parent = before.strip_suffix("-burstable").or(before.strip_suffix("-besteffort"));
            let parent = parent.unwrap_or(before);
            if parent != "kubepods" && !parent.ends_with("-kubepods") {
                return None;
            }
            uid
        }
        None if inside_kubepods => name.strip_prefix("pod")?,
        None => return None,
    };
    let plain = uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    // systemd reads a dash in a slice's name as a level, so kubelet writes the dashes as
    // underscores.
    (plain && !uid.is_empty()).then(|| uid.replace('_', "-").into())
}

fn container_of(part: &str) -> Option<Arc<str>> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let id = ["cri-containerd-", "crio-conmon-", "crio-", "docker-", "libpod-"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name);
    (!id.is_empty()).then(|| id.into())
}

/// Which cgroups there are and were.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    live: HashMap<u64, Place>,
    gone: HashMap<u64, (Place, u64)>,
    /// Sequence number of the removal to id, the oldest first.
    gone_order: BTreeMap<u64, u64>,
    removals: u64,
    refused: u64,
    /// Every unit there ever was: whoever counts by unit still holds those that are gone.
    units: HashSet<Arc<str>>,
}

impl Cgroups {
    pub(super) fn created(&mut self, id: u64, path: &str) {
        let Some(mut place) = parse(path) else { return };
        if let Place::Node { unit } = &mut place {
            *unit = self.known_unit(unit);
        }
        if !self.live.contains_key(&id) && self.live.len() >= CGROUPS_MAX {
            self.refused += 1;
            return;
        }
        if let Some((_, removal)) = self.gone.remove(&id) {
            self.gone_order.remove(&removal);
        }
        self.live.insert(id, place);
    }

    /// The same unit in its one allocation.
    fn known_unit(&mut self, unit: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.units.get(unit) {
            return known.clone();
        }
        // The last place is for all others.
        let room = self.units.len() + 1 < UNITS_MAX;
        let unit = if room { unit.clone() } else { OTHER_UNITS.into() };
        self.units.insert(unit.clone());
        unit
    }

    pub(super) fn removed(&mut self, id: u64) {
        let Some(place) = self.live.remove(&id) else { return };
        self.removals += 1;
        self.gone.insert(id, (place, self.removals));
        self.gone_order.insert(self.removals, id);
        while self.gone.len() > CGROUP_TOMBSTONES_MAX {
            let Some((_, oldest)) = self.gone_order.pop_first() else { break };
            self.gone.remove(&oldest);
        }
    }

    pub(super) fn place(&self, id: u64) -> Option<&Place> {
        self.live.get(&id).or_else(|| self.gone.get(&id).map(|(place, _)| place))
    }

    /// Entries of the live and of the removed ones, and how many were refused.
    pub(super) fn sizes(&self) -> (usize, usize, u64) {
        (self.live.len(), self.gone.len(), self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "3f1c9c1e-6a55-4d0f-9a3a-0b1c2d3e4f50";

    fn pod(uid: &str, container: Option<&str>) -> Option<Place> {
        Some(Place::Pod { uid: uid.into(), container: container.map(Into::into) })
    }

    #[test]
    fn reads_both_drivers_and_every_runtime() {
        let under = UID.replace('-', "_");
        let slice = format!("kubepods-burstable-pod{under}.slice");
        for (path, expected) in [
            (format!("/kubepods/pod{UID}/abc"), pod(UID, Some("abc"))),
            (format!("/kubepods/burstable/pod{UID}/abc"), pod(UID, Some("abc"))),
            (format!("/kubepods/besteffort/pod{UID}"), pod(UID, None)),
            (format!("/kubepods/besteffort/pod{UID}/abc/deeper/x"), pod(UID, Some("abc"))),
            (format!("/kubelet/kubepods/burstable/pod{UID}/crio-abc"), pod(UID, Some("abc"))),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-abc.scope"
                ),
                pod(UID, Some("abc")),
            ),
            (
                format!("/kubepods.slice/kubepods-pod{under}.slice/crio-abc.scope/container"),
                pod(UID, Some("abc")),
            ),
            (format!("/kubepods.slice/{slice}/docker-abc.scope"), pod(UID, Some("abc"))),
            (format!("/kubepods.slice/{slice}/crio-conmon-abc.scope"), pod(UID, Some("abc"))),
            (format!("/a.slice/kubelet.slice/kubelet-{slice}/abc"), pod(UID, Some("abc"))),
            (format!("/user.slice/x/kubepods/burstable/pod{UID}/abc"), pod(UID, Some("abc"))),
            (format!("/system.slice/{slice}:cri-containerd:abc"), pod(UID, Some("abc"))),
            (
                "/kubepods/pod0123456789abcdef0123456789abcdef/abc".to_owned(),
                pod("0123456789abcdef0123456789abcdef", Some("abc")),
            ),
        ] {
            assert_eq!(parse(&path), expected, "{path}");
        }
    }

    #[test]
    fn everything_else_is_the_node() {
        for path in [
            "/",
            "/system.slice/kubelet.service",
            "/kubepods",
            "/kubepods/burstable",
            "/kubepods.slice/kubepods-burstable.slice",
            "/kubepods/other/poda-b",
            "/machine.slice/libpod-pod123.slice/x",
            "/user.slice/pod123/x",
            "/kubepods/pod/x",
        ] {
            assert!(matches!(parse(path), Some(Place::Node { .. })), "{path}");
        }
    }

    #[test]
    fn a_process_of_the_node_is_known_by_its_unit() {
        for (path, expected) in [
            ("/", ""),
            ("/init.scope", "init.scope"),
            ("/system.slice/kubelet.service", "system.slice/kubelet.service"),
            ("/system.slice/kubelet.service/deeper/still", "system.slice/kubelet.service"),
            ("/user.slice/user-0.slice/session-3.scope", "user.slice"),
            ("/user.slice", "user.slice"),
            ("/kubepods/burstable", "kubepods/burstable"),
            ("/podruntime", "podruntime"),
        ] {
            let unit = expected.into();
            assert_eq!(parse(path), Some(Place::Node { unit }), "{path}");
        }
    }

    #[test]
    fn units_beyond_the_bound_are_one() {
        let mut cgroups = Cgroups::default();
        for id in 0..2 * UNITS_MAX as u64 {
            cgroups.created(id, &format!("/system.slice/run-{id}.service"));
        }
        let unit = |id: usize| match cgroups.place(id as u64) {
            Some(Place::Node { unit }) => unit.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(unit(UNITS_MAX - 2), format!("system.slice/run-{}.service", UNITS_MAX - 2));
        assert_eq!([UNITS_MAX - 1, UNITS_MAX, 2 * UNITS_MAX - 1].map(unit), [OTHER_UNITS; 3]);
        assert_eq!(cgroups.units.len(), UNITS_MAX);
    }

    #[test]
    fn a_cut_path_tells_only_what_its_whole_names_tell() {
        let head = format!("/kubepods/burstable/pod{UID}/");
        let cut = format!("{head}{}", "c".repeat(CGROUP_PATH_BYTES_MAX - head.len()));
        assert_eq!(parse(&cut), pod(UID, None));
        assert_eq!(parse(""), None, "the kernel could not tell");
        let inside_uid = format!("/{}/kubepods/pod{UID}", "x".repeat(CGROUP_PATH_BYTES_MAX - 30));
        assert_eq!(parse(&inside_uid), None);
    }

    #[test]
    fn a_removed_cgroup_stays_known_until_too_many_others_are_gone() {
        let mut cgroups = Cgroups::default();
        cgroups.created(7, "/kubepods/poda/c");
        cgroups.removed(7);
        cgroups.removed(7);
        assert_eq!(cgroups.place(7), pod("a", Some("c")).as_ref());
        assert_eq!(cgroups.sizes(), (0, 1, 0));
        for id in 100..100 + CGROUP_TOMBSTONES_MAX as u64 {
            cgroups.created(id, "/kubepods/podb/c");
            cgroups.removed(id);
        }
        assert_eq!(cgroups.place(7), None);
        assert_eq!(cgroups.sizes(), (0, CGROUP_TOMBSTONES_MAX, 0));
    }
}
