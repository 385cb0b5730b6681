//! What one pod's object says of its secrets: which volume is made of what, and which container
//! mounts it.
//!
//! In: [`PodParts`]. Out: [`Spec`], which tells a file's source by its path in the volume. It knows
//! no Secret: which keys one has is only seen by its files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{SecretSource, VolumePlugin};
use crate::object::{
    ContainerParts, KeyToPath, PodParts, PodVolume, ProjectedSource, ProjectedVolume, VolumeMount,
};

/// Items of one list of a pod that count: the API server refuses objects that have nearly as many.
const ITEMS_MAX: usize = 4_096;
/// Admission names the volume it adds so, and a random suffix
/// (plugin/pkg/admission/serviceaccount/admission.go, `ServiceAccountVolumeName`).
const TOKEN_VOLUME_PREFIX: &str = "kube-api-access-";
/// And mounts it there (`DefaultAPITokenMountPath`).
const TOKEN_MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What a pod has of secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spec {
    /// `automountServiceAccountToken`.
    pub(super) automount: Option<bool>,
    pub(super) volumes: BTreeMap<Arc<str>, VolumeSpec>,
    pub(super) containers: Vec<ContainerSpec>,
    pub(super) image_pull: BTreeSet<Arc<str>>,
}

/// One volume that may hold secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VolumeSpec {
    pub(super) plugin: VolumePlugin,
    pub(super) parts: Vec<Part>,
    /// Of a driver's volume: the Secret that the kubelet hands to it.
    pub(super) driver_secret: Option<Arc<str>>,
    /// Admission added it, for the service account's token.
    pub(super) is_automounted: bool,
}

/// Something a volume is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) source: SecretSource,
    pub(super) files: Files,
}

/// Which files of a volume come from one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Files {
    /// One for each key, whatever they are called.
    Every,
    /// These: path to key.
    Listed(BTreeMap<Arc<str>, Arc<str>>),
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerSpec {
    pub(super) name: Arc<str>,
    pub(super) mounts: Vec<MountSpec>,
    /// Secrets that it gets as variables.
    pub(super) env: BTreeSet<Arc<str>>,
}

/// One of its volume mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountSpec {
    pub(super) volume: Arc<str>,
    pub(super) extent: Extent,
}

/// How much of a volume is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Whole,
    /// `subPath`.
    Below(Arc<str>),
    /// `subPathExpr`: only the container's variables tell what.
    SomePart,
}

impl Spec {
    pub(super) fn of(parts: &PodParts) -> Self {
        let spec = &parts.spec;
        let containers = spec.containers.iter().chain(&spec.init_containers);
        let containers = containers.chain(&spec.ephemeral_containers).take(ITEMS_MAX);
        let volumes = spec.volumes.iter().take(ITEMS_MAX);
        let mut volumes: BTreeMap<Arc<str>, VolumeSpec> = volumes
            .filter_map(|volume| Some((volume.name.as_str().into(), VolumeSpec::of(volume)?)))
            .collect();
        for mount in containers.clone().flat_map(|container| &container.volume_mounts) {
            if mount.mount_path.trim_end_matches('/') == TOKEN_MOUNT_PATH
                && mount.name.starts_with(TOKEN_VOLUME_PREFIX)
                && let Some(volume) = volumes.get_mut(mount.name.as_str())
            {
                volume.is_automounted = true;
            }
        }
        Self {
            automount: spec.automount_service_account_token,
            containers: containers.map(ContainerSpec::of).collect(),
            volumes,
            image_pull: names(spec.image_pull_secrets.iter().map(|secret| secret.name.as_str())),
        }
    }

    pub(super) fn container(&self, name: &str) -> Option<&ContainerSpec> {
        self.containers.iter().find(|container| *container.name == *name)
    }
}

impl VolumeSpec {
    fn of(volume: &PodVolume) -> Option<Self> {
        let (plugin, parts, driver_secret) = match volume {
            PodVolume { secret: Some(secret), .. } => {
                let source = SecretSource::Secret { name: secret.secret_name.as_str().into() };
                let files = Files::of(&secret.items);
                (VolumePlugin::Secret, vec![Part { source, files }], None)
            }
            PodVolume { projected: Some(ProjectedVolume { sources }), .. } => {
                let parts = sources.iter().take(ITEMS_MAX).filter_map(Part::of);
                (VolumePlugin::Projected, parts.collect(), None)
            }
            PodVolume { csi: Some(csi), .. } => {
                let source = SecretSource::Csi { driver: csi.driver.as_str().into() };
                let secret = csi.node_publish_secret_ref.as_ref();
                let secret = secret.map(|secret| secret.name.as_str().into());
                (VolumePlugin::Csi, vec![Part { source, files: Files::Every }], secret)
            }
            _ => return None,
        };
        Some(Self { plugin, parts, driver_secret, is_automounted: false })
    }

    /// Where a file comes from, and its key there. None if the object leaves it open: of two
    /// sources with all of their keys the kubelet takes the later one that has this key
    /// (pkg/volume/projected/projected.go, `collectData`), and which keys one has nobody here knows.
    /// A listed path is its source's, because the API server refuses a path that is listed twice.
    pub(super) fn source_of(&self, path: &str) -> Option<(&SecretSource, Arc<str>)> {
        let path = clean(path);
        let listed = self.parts.iter().rev().find_map(|part| match &part.files {
            Files::Listed(files) => Some((part, files.get(path.as_str())?)),
            Files::Every => None,
        });
        if let Some((part, key)) = listed {
            return Some((&part.source, part.key(key, &path)));
        }
        let mut every = self.parts.iter().filter(|part| part.files == Files::Every);
        let part = every.next()?;
        every.next().is_none().then(|| (&part.source, part.key(&path, &path)))
    }

    /// Whether a mount of this extent shows anything of this part.
    pub(super) fn shows(&self, extent: &Extent, part: &Part) -> bool {
        let Extent::Below(sub) = extent else { return true };
        match &part.files {
            Files::Listed(files) => files.keys().any(|path| is_below(path, sub)),
            // A listed file is not of this part; of all others it may be any.
            Files::Every => self.source_of(sub).is_none_or(|(source, _)| *source == part.source),
        }
    }
}

impl Part {
    fn of(source: &ProjectedSource) -> Option<Self> {
        let one = |path: &str| {
            let path: Arc<str> = clean(path).into();
            Files::Listed([(path.clone(), path)].into())
        };
        let (source, files) = match source {
            ProjectedSource { secret: Some(secret), .. } => {
                let name = secret.name.as_str().into();
                (SecretSource::Secret { name }, Files::of(&secret.items))
            }
            ProjectedSource { service_account_token: Some(token), .. } => {
                let audience = token.audience.as_str().into();
                (SecretSource::ServiceAccountToken { audience }, one(&token.path))
            }
            ProjectedSource { config_map: Some(map), .. } => {
                (SecretSource::ConfigMap { name: map.name.as_str().into() }, Files::of(&map.items))
            }
            ProjectedSource { downward_api: Some(fields), .. } => {
                (SecretSource::DownwardApi, Files::listed(&fields.items))
            }
            ProjectedSource { cluster_trust_bundle: Some(bundle), .. } => {
                let names = [&bundle.name, &bundle.signer_name];
                let name = names.into_iter().find(|name| !name.is_empty());
                let name = name.map_or("", |name| name.as_str()).into();
                (SecretSource::ClusterTrustBundle { name }, one(&bundle.path))
            }
            // Newer than this program.
            _ => return None,
        };
        Some(Self { source, files })
    }

    /// Of a Secret the key in it, of all others the path.
    fn key(&self, key: &str, path: &str) -> Arc<str> {
        match self.source {
            SecretSource::Secret { .. } => key.into(),
            _ => path.into(),
        }
    }
}

impl Files {
    /// No items are all of them.
    fn of(items: &[KeyToPath]) -> Self {
        if items.is_empty() { Self::Every } else { Self::listed(items) }
    }

    fn listed(items: &[KeyToPath]) -> Self {
        let items = items.iter().take(ITEMS_MAX);
        Self::Listed(
            items.map(|item| (clean(&item.path).into(), item.key.as_str().into())).collect(),
        )
    }
}

impl ContainerSpec {
    fn of(container: &ContainerParts) -> Self {
        let by_key = container.env.iter().take(ITEMS_MAX);
        let by_key = by_key.filter_map(|env| env.value_from.as_ref()?.secret_key_ref.as_ref());
        let whole = container.env_from.iter().take(ITEMS_MAX);
        let whole = whole.filter_map(|env| env.secret_ref.as_ref());
        Self {
            name: container.name.as_str().into(),
            mounts: container.volume_mounts.iter().take(ITEMS_MAX).map(MountSpec::of).collect(),
            env: names(by_key.chain(whole).map(|secret| secret.name.as_str())),
        }
    }

    /// How much of the volume it has.
    pub(super) fn extents<'a>(&'a self, volume: &'a str) -> impl Iterator<Item = &'a Extent> {
        let mounts = self.mounts.iter().filter(move |mount| *mount.volume == *volume);
        mounts.map(|mount| &mount.extent)
    }
}

impl MountSpec {
    fn of(mount: &VolumeMount) -> Self {
        let sub = clean(&mount.sub_path);
        let extent = match (sub.as_str(), mount.sub_path_expr.as_str()) {
            ("", "") => Extent::Whole,
            ("", _) => Extent::SomePart,
            (sub, _) => Extent::Below(sub.into()),
        };
        Self { volume: mount.name.as_str().into(), extent }
    }
}

impl Extent {
    /// Whether it may show a file of the volume.
    pub(super) fn has(&self, path: &str) -> bool {
        match self {
            Self::Whole | Self::SomePart => true,
            Self::Below(sub) => is_below(path, sub),
        }
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// As the kubelet writes a path (`path.Clean`; pkg/volume/util/atomic_writer.go); one that would
/// lead out of the volume is refused by the API server.
fn clean(path: &str) -> String {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    parts.join("/")
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<Arc<str>> {
    names.filter(|name| !name.is_empty()).take(ITEMS_MAX).map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(value: Value) -> VolumeSpec {
        VolumeSpec::of(&serde_json::from_value(value).unwrap()).unwrap()
    }

    fn told(volume: &VolumeSpec, path: &str) -> Option<(SecretSource, String)> {
        let (source, key) = volume.source_of(path)?;
        Some((source.clone(), key.to_string()))
    }

    fn secret(name: &str) -> SecretSource {
        SecretSource::Secret { name: name.into() }
    }

    #[test]
    fn items_say_which_key_a_file_is_and_without_them_it_is_its_name() {
        let all = volume(json!({"name": "v", "secret": {"secretName": "s"}}));
        assert_eq!(told(&all, "a"), Some((secret("s"), "a".to_owned())));
        let some = volume(json!({"name": "v", "secret": {"secretName": "s",
            "items": [{"key": "k", "path": "./db//user"}]}}));
        assert_eq!(told(&some, "db/user"), Some((secret("s"), "k".to_owned())));
        assert_eq!(told(&some, "k"), None);
    }

    #[test]
    fn a_listed_path_is_its_sources_and_others_are_known_if_one_source_has_all_of_its_keys() {
        let sources = json!([
            {"secret": {"name": "all"}},
            {"secret": {"name": "some", "items": [{"key": "k", "path": "x"}]}},
            {"serviceAccountToken": {"path": "token", "audience": "vault"}},
            {"clusterTrustBundle": {"signerName": "signer", "path": "ca.pem"}},
            {"newerThanThis": {"path": "y"}}]);
        let one = volume(json!({"name": "v", "projected": {"sources": sources}}));
        let vault = SecretSource::ServiceAccountToken { audience: "vault".into() };
        let bundle = SecretSource::ClusterTrustBundle { name: "signer".into() };
        for (path, source, key) in [
            ("x", secret("some"), "k"),
            ("k", secret("all"), "k"),
            ("token", vault, "token"),
            ("ca.pem", bundle, "ca.pem"),
        ] {
            assert_eq!(told(&one, path), Some((source, key.to_owned())), "{path}");
        }
        let two = volume(json!({"name": "v", "projected": {"sources": [
            {"secret": {"name": "a"}}, {"configMap": {"name": "b"}},
            {"downwardAPI": {"items": [{"path": "labels"}]}}]}}));
        assert_eq!(told(&two, "x"), None, "both may have it");
        let labels = (SecretSource::DownwardApi, "labels".to_owned());
        assert_eq!(told(&two, "labels"), Some(labels));
    }

    #[test]
    fn a_part_of_a_volume_is_what_is_at_or_below_its_path() {
        let below = Extent::Below("db".into());
        let has = ["db", "db/user", "dbx", "x/db"].map(|path| below.has(path));
        assert_eq!(has, [true, true, false, false]);
        let parts = volume(json!({"name": "v", "projected": {"sources": [
            {"secret": {"name": "a", "items": [{"key": "k", "path": "db/user"}]}},
            {"secret": {"name": "b"}}]}}));
        let told = |extent: &Extent| {
            let shown = parts.parts.iter().map(|part| parts.shows(extent, part));
            shown.collect::<Vec<_>>()
        };
        assert_eq!(told(&below), [true, true]);
        assert_eq!(told(&Extent::Below("db/user".into())), [true, false]);
        assert_eq!(told(&Extent::Below("other".into())), [false, true]);
        assert_eq!(told(&Extent::SomePart), [true, true]);
    }
}
