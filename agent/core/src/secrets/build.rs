//! From what is kept to what is answered.
//!
//! In: the store, and whose token is mounted by default. Out: a [`SecretsSnapshot`] in a stable
//! order. It changes nothing but how many pods have what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::mounts::{Mount, MountKey, Seen, TokenKey};
use super::pods::PodFacts;
use super::volumes::Volume;
use super::{
    KeyUse, MountState, SecretMount, SecretOwner, SecretWay, Secrets, SecretsSnapshot, StaleReader,
    TokenMount, TokenUse, VolumeId,
};
use crate::access::Access;
use crate::flow::Timestamp;

/// What the pods that are there have of one mount.
#[derive(Default)]
struct Now {
    pods: u64,
    containers: BTreeSet<Arc<str>>,
    stale: BTreeSet<StaleReader>,
}

impl Secrets {
    pub(super) fn answers(&mut self, access: &Access) -> SecretsSnapshot {
        let (mounts, automounts) = self.now();
        for (key, mount) in &mut self.mounts.mounts {
            mount.seen.pods = mounts.get(key).map_or(0, |now| now.pods);
        }
        for (key, seen) in &mut self.mounts.tokens {
            seen.pods = u64::from(automounts.contains_key(key));
        }
        let answer =
            |(key, mount): (&MountKey, &Mount)| Arc::new(self.mount(key, mount, mounts.get(key)));
        let token = |(key, seen): (&TokenKey, &Seen)| {
            let automount = automounts.get(key).copied().flatten();
            Arc::new(self.token(key, seen, automount, access))
        };
        SecretsSnapshot {
            mounts: self.mounts.mounts.iter().map(answer).collect(),
            reads: self.rows.all(),
            tokens: self.mounts.tokens.iter().map(token).collect(),
            unattributed: self.unattributed.clone(),
        }
    }

    /// What the pods that are there have, and what each says of its token itself.
    fn now(&self) -> (BTreeMap<MountKey, Now>, BTreeMap<TokenKey, Option<bool>>) {
        let mut mounts: BTreeMap<MountKey, Now> = BTreeMap::new();
        let mut automounts: BTreeMap<TokenKey, Option<bool>> = BTreeMap::new();
        for (uid, pod) in self.pods.iter().filter(|(_, pod)| pod.is_there) {
            let uids = pod.kubelets.iter().chain([uid]);
            let volumes: BTreeMap<VolumeId, &Volume> =
                uids.flat_map(|uid| self.volumes.of_pod(uid)).collect();
            let mut counted: BTreeSet<&MountKey> = BTreeSet::new();
            for mount in &pod.mounts {
                let now = mounts.entry(mount.key.clone()).or_default();
                now.pods += u64::from(counted.insert(&mount.key));
                now.containers.extend(mount.containers.iter().cloned());
                if let Some(name) = &mount.volume {
                    let stale = stale(pod, &volumes, name, mount);
                    now.stale.extend(stale);
                }
            }
            for token in &pod.tokens {
                let said = automounts.entry(token.key.clone()).or_default();
                *said = (*said).max(pod.spec.automount);
            }
        }
        (mounts, automounts)
    }

    fn mount(&self, key: &MountKey, mount: &Mount, now: Option<&Now>) -> SecretMount {
        let is_volume = key.way.is_volume();
        let seen = &mount.seen;
        let state = seen.state(is_volume);
        let containers = now.map_or(&mount.containers, |now| &now.containers);
        let keys = mount.keys.iter().filter(|_| state != MountState::Unobservable);
        let mut keys: Vec<_> = keys
            .map(|(path, (key, last_read))| KeyUse {
                key: key.clone(),
                path: path.clone(),
                state: match last_read {
                    Some(_) => MountState::Read,
                    None => MountState::NeverRead,
                },
                last_read: *last_read,
            })
            .collect();
        keys.sort_unstable();
        SecretMount {
            owner: key.owner.clone(),
            source: key.source.clone(),
            way: key.way,
            containers: containers.iter().cloned().collect(),
            pods: seen.pods,
            state,
            keys,
            first_read: seen.first_read,
            last_read: seen.last_read,
            watched_since: seen.watched_since,
            starts_seen: seen.starts,
            has_gaps: is_volume && self.has_gaps(seen),
            stale: now.map(|now| now.stale.iter().cloned().collect()).unwrap_or_default(),
        }
    }

    fn token(
        &self,
        key: &TokenKey,
        seen: &Seen,
        automount: Option<bool>,
        access: &Access,
    ) -> TokenUse {
        let namespace = match &key.owner {
            SecretOwner::Workload { namespace, .. } => &**namespace,
            SecretOwner::Node | SecretOwner::Unknown => "",
        };
        let of_account = access.account(namespace, &key.account).and_then(|each| each.automount);
        // Of a pod that was made before its account said no, nothing but the account's word is new.
        let mounted_by = match (key.is_own_volume, automount, of_account) {
            (true, ..) => TokenMount::Volume,
            (false, Some(_), _) => TokenMount::Pod,
            (false, None, Some(_)) => TokenMount::ServiceAccount,
            (false, None, None) => TokenMount::Default,
        };
        let is_off = automount.or(of_account) == Some(false);
        let (state, has_gaps) = (seen.state(true), self.has_gaps(seen));
        TokenUse {
            owner: key.owner.clone(),
            service_account: key.account.clone(),
            mounted_by,
            state,
            read_by: seen.read_by.iter().cloned().collect(),
            watched_since: seen.watched_since,
            starts_seen: seen.starts,
            has_gaps,
            is_candidate: state == MountState::NeverRead
                && mounted_by != TokenMount::Volume
                && !is_off
                && seen.starts > 0
                && !has_gaps,
        }
    }

    /// Whether an own read may be missing since it is watched.
    fn has_gaps(&self, seen: &Seen) -> bool {
        let is_within = |gap: Timestamp| seen.watched_since.is_some_and(|since| gap >= since);
        seen.has_gaps || self.gap_at.is_some_and(is_within)
    }
}

impl Seen {
    fn state(&self, is_volume: bool) -> MountState {
        match (is_volume, self.first_read, self.watched_since) {
            (true, Some(_), _) => MountState::Read,
            (true, None, Some(_)) => MountState::NeverRead,
            // A volume that nobody found is not watched either.
            (true, None, None) | (false, ..) => MountState::Unobservable,
        }
    }
}

impl SecretWay {
    fn is_volume(self) -> bool {
        match self {
            Self::Volume | Self::SubPath | Self::Unmounted => true,
            Self::Env | Self::ImagePull | Self::Driver => false,
        }
    }
}

/// Containers that run and whose last read of it was of a generation that is not there any more.
fn stale(
    pod: &PodFacts,
    volumes: &BTreeMap<VolumeId, &Volume>,
    name: &str,
    mount: &super::mounts::PodMount,
) -> Vec<StaleReader> {
    let of_mount = pod.last.iter().filter(|((_, _, source), _)| *source == mount.key.source);
    let stale = of_mount.filter_map(|((id, volume, _), last)| {
        let run = pod.runs.get(id).filter(|_| pod.is_newest(id))?;
        let volume = volumes.get(volume).filter(|volume| volume.is_there() && volume.is(name))?;
        let is_old = !last.generation.is_empty()
            && !volume.generation.is_empty()
            && last.generation != volume.generation;
        (is_old && mount.containers.contains(&run.name)).then(|| StaleReader {
            container: run.name.clone(),
            read: last.generation.clone(),
            current: volume.generation.clone(),
            since: volume.rotated_at.unwrap_or(volume.watched_since),
        })
    });
    stale.collect()
}
