//! What workloads have of secrets, for as long as they are known: the pods of one come and go.
//!
//! In: pods as they are, and reads by their own containers. Out: what was read of each secret and
//! token, since when it is watched, and how many starts were seen. It looks nothing up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::attribute::{OwnRead, owner_of};
use super::limits::Limits;
use super::pods::PodFacts;
use super::readers::shown;
use super::spec::{ContainerSpec, Extent, Part, VolumeSpec};
use super::volumes::Volume;
use super::{ReadRecord, SecretOwner, SecretSource, SecretWay, VolumeId, VolumePlugin};
use crate::flow::{PodIdentity, Timestamp};

/// One secret of a workload, in one way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MountKey {
    pub(super) owner: SecretOwner,
    pub(super) source: SecretSource,
    pub(super) way: SecretWay,
}

/// The tokens of one service account in a workload's pods: the one that admission mounts, or those
/// of volumes that the pods ask for themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TokenKey {
    pub(super) owner: SecretOwner,
    pub(super) account: Arc<str>,
    pub(super) is_own_volume: bool,
}

/// For what a container's start was counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Counted {
    Mount(MountKey),
    Token(TokenKey),
}

/// What one pod has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodMount {
    pub(super) key: MountKey,
    /// None if it is no volume.
    pub(super) volume: Option<Arc<str>>,
    pub(super) containers: BTreeSet<Arc<str>>,
    /// Path to key of its files.
    keys: BTreeMap<Arc<str>, Arc<str>>,
}

/// A volume of one pod with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodToken {
    pub(super) key: TokenKey,
    pub(super) volume: Arc<str>,
    containers: BTreeSet<Arc<str>>,
}

/// What was seen of either.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) first_read: Option<Timestamp>,
    pub(super) last_read: Option<Timestamp>,
    pub(super) read_by: BTreeSet<Arc<str>>,
    pub(super) watched_since: Option<Timestamp>,
    pub(super) starts: u64,
    pub(super) has_gaps: bool,
    /// Pods that have it, as of the last look.
    pub(super) pods: u64,
    touched: Timestamp,
}

/// One secret of one workload.
#[derive(Debug, Default)]
pub(super) struct Mount {
    pub(super) seen: Seen,
    /// Of all of its pods there ever were.
    pub(super) containers: BTreeSet<Arc<str>>,
    /// By path: the key, and when it was read last.
    pub(super) keys: BTreeMap<Arc<str>, (Arc<str>, Option<Timestamp>)>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Mounts {
    pub(super) mounts: BTreeMap<MountKey, Mount>,
    pub(super) tokens: BTreeMap<TokenKey, Seen>,
    refused: u64,
    limits: Limits,
}

impl Mounts {
    pub(super) fn with_limits(limits: Limits) -> Self {
        Self { mounts: BTreeMap::new(), tokens: BTreeMap::new(), refused: 0, limits }
    }

    /// The pod is now like this: what it has is known from now on, and its containers' starts.
    pub(super) fn saw(
        &mut self,
        pod: &mut PodFacts,
        volumes: &[(VolumeId, &Volume)],
        made: &BTreeMap<Arc<str>, Timestamp>,
        now: Timestamp,
    ) {
        let PodFacts { mounts, tokens, runs, counted, is_there, .. } = pod;
        let is_there = u64::from(*is_there);
        let mut starts = |what: Counted, containers: &BTreeSet<Arc<str>>, since: &[Timestamp]| {
            let of_these = runs.iter().filter(|(_, run)| containers.contains(&run.name));
            let seen = of_these.filter(|(id, run)| {
                since.iter().any(|since| run.started_since(*since, made.get(*id).copied()))
            });
            let new = seen.filter(|(id, _)| counted.insert(((*id).clone(), what.clone())));
            new.count() as u64
        };
        let keys_max = self.limits.keys;
        for mount in mounts.iter() {
            let Some(known) = self.mount(&mount.key, now) else { continue };
            known.containers.extend(mount.containers.iter().cloned());
            let since = watched(volumes, mount.volume.as_deref());
            known.seen.watched(since.iter().copied().min());
            known.seen.pods = known.seen.pods.max(is_there);
            let what = Counted::Mount(mount.key.clone());
            known.seen.starts += starts(what, &mount.containers, &since);
            let room = keys_max.saturating_sub(known.keys.len());
            let new = mount.keys.iter().filter(|(path, _)| !known.keys.contains_key(*path));
            let new: Vec<_> = new.map(|(path, key)| (path.clone(), (key.clone(), None))).collect();
            let over = new.len().saturating_sub(room) as u64;
            known.keys.extend(new.into_iter().take(room));
            self.refused += over;
        }
        for token in tokens.iter() {
            let Some(seen) = self.token(&token.key, now) else { continue };
            let since = watched(volumes, Some(&token.volume));
            seen.watched(since.iter().copied().min());
            seen.pods = seen.pods.max(is_there);
            seen.starts += starts(Counted::Token(token.key.clone()), &token.containers, &since);
        }
    }

    /// One of its own containers read a file.
    pub(super) fn read(
        &mut self,
        pod: &PodFacts,
        (volume, source): (&str, &SecretSource),
        read: &ReadRecord,
        own: &OwnRead,
    ) {
        let keys_max = self.limits.keys;
        for mount in &pod.mounts {
            let is_way = match mount.key.way {
                SecretWay::Volume => own.whole,
                SecretWay::SubPath => own.sub_path,
                _ => false,
            };
            if !is_way || mount.volume.as_deref() != Some(volume) || mount.key.source != *source {
                continue;
            }
            let Some(known) = self.mount(&mount.key, read.last_seen) else { continue };
            known.seen.read(read, &own.container);
            let path = shown(&own.path);
            if let Some((_, last)) = known.keys.get_mut(&path) {
                *last = (*last).max(Some(read.last_seen));
            } else if let Some(key) = mount.keys.get(&path)
                && known.keys.len() < keys_max
            {
                known.keys.insert(path, (key.clone(), Some(read.last_seen)));
            }
        }
        if matches!(source, SecretSource::ServiceAccountToken { .. }) {
            for token in pod.tokens.iter().filter(|token| *token.volume == *volume) {
                if let Some(seen) = self.token(&token.key, read.last_seen) {
                    seen.read(read, &own.container);
                }
            }
        }
    }

    /// A read of a file of this volume may have been by one of its own containers.
    pub(super) fn may_have_read(&mut self, pod: &PodFacts, volume: &str, source: &SecretSource) {
        let is_unknown = matches!(source, SecretSource::Unknown { .. });
        let is_it = |mount: &&PodMount| {
            mount.volume.as_deref() == Some(volume) && (is_unknown || mount.key.source == *source)
        };
        for mount in pod.mounts.iter().filter(is_it) {
            if let Some(known) = self.mounts.get_mut(&mount.key) {
                known.seen.has_gaps = true;
            }
        }
        if !is_unknown && !matches!(source, SecretSource::ServiceAccountToken { .. }) {
            return;
        }
        for token in pod.tokens.iter().filter(|token| *token.volume == *volume) {
            if let Some(seen) = self.tokens.get_mut(&token.key) {
                seen.has_gaps = true;
            }
        }
    }

    /// Entries of both, the limit, and how many were refused.
    pub(super) fn sizes(&self) -> (u64, u64, u64) {
        (self.mounts.len() as u64, self.limits.mounts as u64, self.refused)
    }

    fn mount(&mut self, key: &MountKey, now: Timestamp) -> Option<&mut Mount> {
        if !has_room(&mut self.mounts, key, self.limits.mounts, |mount| &mount.seen) {
            self.refused += 1;
            return None;
        }
        let mount = self.mounts.entry(key.clone()).or_default();
        mount.seen.touched = mount.seen.touched.max(now);
        Some(mount)
    }

    fn token(&mut self, key: &TokenKey, now: Timestamp) -> Option<&mut Seen> {
        if !has_room(&mut self.tokens, key, self.limits.mounts, |seen| seen) {
            self.refused += 1;
            return None;
        }
        let seen = self.tokens.entry(key.clone()).or_default();
        seen.touched = seen.touched.max(now);
        Some(seen)
    }
}

/// Whether there is room for this key, which may be made by what no pod has any more.
fn has_room<K: Ord + Clone, V>(
    known: &mut BTreeMap<K, V>,
    key: &K,
    max: usize,
    seen: fn(&V) -> &Seen,
) -> bool {
    if known.contains_key(key) || known.len() < max {
        return true;
    }
    let unused = known.iter().filter(|(_, value)| seen(value).pods == 0);
    let oldest = unused.min_by_key(|(_, value)| seen(value).touched);
    let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return false };
    known.remove(&oldest);
    true
}

impl Seen {
    fn read(&mut self, read: &ReadRecord, container: &Arc<str>) {
        let first = self.first_read.map_or(read.since, |first| first.min(read.since));
        self.first_read = Some(first);
        self.last_read = self.last_read.max(Some(read.last_seen));
        self.read_by.insert(container.clone());
    }

    fn watched(&mut self, since: Option<Timestamp>) {
        self.watched_since = match (self.watched_since, since) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// What the pod has of secrets, by its object and by the volumes that are there.
pub(super) fn mounts_of(
    pod: &PodIdentity,
    facts: &PodFacts,
    volumes: &[(VolumeId, &Volume)],
) -> Vec<PodMount> {
    let owner = owner_of(pod);
    let mut mounts = Vec::new();
    for (name, volume) in &facts.spec.volumes {
        let there: Vec<_> = named(volumes, name).collect();
        // What else drivers mount is no secret, and on no tmpfs.
        if volume.plugin == VolumePlugin::Csi && there.is_empty() {
            continue;
        }
        let secret = |part: &&Part| part.source.is_secret();
        for part in volume.parts.iter().filter(secret) {
            ways(&mut mounts, &owner, (name, volume, part), (&facts.spec.containers, &there));
        }
        if let Some(secret) = &volume.driver_secret {
            let source = SecretSource::Secret { name: secret.clone() };
            let key = MountKey { owner: owner.clone(), source, way: SecretWay::Driver };
            let containers = facts.spec.containers.iter();
            let containers = containers.filter(|each| each.extents(name).next().is_some());
            mounts.push(PodMount {
                key,
                volume: None,
                containers: containers.map(|each| each.name.clone()).collect(),
                keys: BTreeMap::new(),
            });
        }
    }
    let mut unseen: BTreeMap<(SecretWay, Arc<str>), BTreeSet<Arc<str>>> = BTreeMap::new();
    for container in &facts.spec.containers {
        for secret in &container.env {
            let containers = unseen.entry((SecretWay::Env, secret.clone())).or_default();
            containers.insert(container.name.clone());
        }
    }
    for secret in &facts.spec.image_pull {
        unseen.entry((SecretWay::ImagePull, secret.clone())).or_default();
    }
    mounts.extend(unseen.into_iter().map(|((way, name), containers)| PodMount {
        key: MountKey { owner: owner.clone(), source: SecretSource::Secret { name }, way },
        volume: None,
        containers,
        keys: BTreeMap::new(),
    }));
    mounts
}

/// The volumes of the pod that have a token.
pub(super) fn tokens_of(pod: &PodIdentity, facts: &PodFacts) -> Vec<PodToken> {
    let is_token = |part: &Part| matches!(part.source, SecretSource::ServiceAccountToken { .. });
    let volumes = facts.spec.volumes.iter();
    volumes
        .filter(|(_, volume)| volume.parts.iter().any(is_token))
        .map(|(name, volume)| PodToken {
            key: TokenKey {
                owner: owner_of(pod),
                account: pod.service_account.clone(),
                is_own_volume: !volume.is_automounted,
            },
            volume: name.clone(),
            containers: facts
                .spec
                .containers
                .iter()
                .filter(|container| container.extents(name).next().is_some())
                .map(|container| container.name.clone())
                .collect(),
        })
        .collect()
}

/// One part of a volume, for those who have it whole and those who have some of it.
fn ways(
    mounts: &mut Vec<PodMount>,
    owner: &SecretOwner,
    (name, volume, part): (&Arc<str>, &VolumeSpec, &Part),
    (containers, there): (&[ContainerSpec], &[&Volume]),
) {
    let having = |is_way: fn(&Extent) -> bool| -> BTreeMap<Arc<str>, Vec<&Extent>> {
        let having = containers.iter().map(|container| {
            let extents = container.extents(name).filter(|extent| is_way(extent));
            let extents = extents.filter(|extent| volume.shows(extent, part));
            (container.name.clone(), extents.collect::<Vec<_>>())
        });
        having.filter(|(_, extents)| !extents.is_empty()).collect()
    };
    let whole = having(|extent| *extent == Extent::Whole);
    let some = having(|extent| *extent != Extent::Whole);
    let ways = match (whole.is_empty(), some.is_empty()) {
        (true, true) => vec![(SecretWay::Unmounted, whole)],
        _ => vec![(SecretWay::Volume, whole), (SecretWay::SubPath, some)],
    };
    for (way, having) in ways {
        if having.is_empty() && way != SecretWay::Unmounted {
            continue;
        }
        let shows = |path: &str| {
            way != SecretWay::SubPath || having.values().flatten().any(|extent| extent.has(path))
        };
        let files = there.iter().flat_map(|volume| volume.files_now());
        let files = files.filter(|file| shows(&file.path));
        let keys = files.filter_map(|file| {
            let (source, key) = volume.source_of(&file.path)?;
            (*source == part.source).then(|| (shown(&file.path), shown(&key)))
        });
        mounts.push(PodMount {
            key: MountKey { owner: owner.clone(), source: part.source.clone(), way },
            volume: Some(name.clone()),
            keys: keys.collect(),
            containers: having.into_keys().collect(),
        });
    }
}

/// Since when each superblock of the volume is watched.
fn watched(volumes: &[(VolumeId, &Volume)], name: Option<&str>) -> Vec<Timestamp> {
    let Some(name) = name else { return Vec::new() };
    named(volumes, name).map(|volume| volume.watched_since).collect()
}

fn named<'a>(
    volumes: &'a [(VolumeId, &'a Volume)],
    name: &'a str,
) -> impl Iterator<Item = &'a Volume> {
    volumes.iter().map(|(_, volume)| *volume).filter(move |volume| volume.is(name))
}

impl SecretSource {
    /// Configuration and fields of the pod are on the same superblocks, and are none.
    fn is_secret(&self) -> bool {
        matches!(self, Self::Secret { .. } | Self::ServiceAccountToken { .. } | Self::Csi { .. })
    }
}
