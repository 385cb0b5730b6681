//! Where volumes are below the kubelet's folder: a mount in, whose it is out.
//!
//! The names are those of `GetPodVolumeDir` (pkg/kubelet/kubelet_getters.go) and of
//! pkg/volume/util/subpath: `pods/<uid>/volumes/kubernetes.io~<plugin>/<volume>`, of CSI with
//! `mount` behind it, and `pods/<uid>/volume-subpaths/<volume>/<container>/<index>`. Only names and
//! inode numbers are asked for.

use std::os::fd::AsFd as _;
use std::path::{Component, Path, PathBuf};

use parapet_core::secrets::{VolumeFile, VolumeOwner, VolumePlugin};
use rustix::fs::{FileType, Mode, OFlags};

use super::folder::{device, status, text};
use super::{Mount, shared};

/// A volume of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    uid: String,
    volume: String,
    plugin: VolumePlugin,
}

/// One file of a volume, mounted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subpath;

impl Place {
    /// The place of a mount that shows a whole file system, below the folder of all pods.
    pub(super) fn of(mount: &Mount, pods: &Path) -> Option<Self> {
        if mount.root != Path::new("/") {
            return None;
        }
        let names = names(&mount.point, pods)?;
        let [uid, "volumes", plugin, volume, rest @ ..] = names.as_slice() else { return None };
        let plugin = plugin_of(plugin)?;
        let is_whole = match plugin {
            VolumePlugin::Csi => rest == ["mount"],
            VolumePlugin::Secret | VolumePlugin::Projected => rest.is_empty(),
        };
        is_whole.then(|| Self { uid: (*uid).to_owned(), volume: (*volume).to_owned(), plugin })
    }

    pub(super) fn owner(&self) -> VolumeOwner {
        VolumeOwner::Pod {
            uid: shared(&self.uid),
            volume: shared(&self.volume),
            plugin: self.plugin,
        }
    }
}

impl Subpath {
    /// Of a mount of one file, below the folder of all pods.
    pub(super) fn of(mount: &Mount, pods: &Path) -> Option<Self> {
        let names = names(&mount.point, pods)?;
        let is_one = matches!(names.as_slice(), [_, "volume-subpaths", _, _, _]);
        (is_one && mount.root != Path::new("/")).then_some(Self)
    }

    /// The file that is mounted; none if it is a folder, or gone. Its inode is that of the mount,
    /// so that it is known long after its generation was removed.
    pub(super) fn file(self, mount: &Mount) -> Option<VolumeFile> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&mount.point, flags, Mode::empty()).ok()?;
        let found = status(opened.as_fd()).ok()?;
        let is_file = FileType::from_raw_mode(found.stx_mode.into()) == FileType::RegularFile;
        if !is_file || device(&found) != mount.device {
            return None;
        }
        let (generation, path) = below(&mount.root);
        Some(VolumeFile {
            inode: found.stx_ino,
            path: shared(&path),
            generation: shared(&generation),
        })
    }
}

/// Every folder of a Secret or projected volume, mounted or not, up to a limit.
pub(super) fn folders(pods: &Path, limit: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for pod in entries(pods) {
        for plugin in ["kubernetes.io~secret", "kubernetes.io~projected"] {
            found.extend(entries(&pod.join("volumes").join(plugin)));
            if found.len() >= limit {
                return found;
            }
        }
    }
    found
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|it| it.path())
}

/// The names of a path below a folder; none with one that is no text.
fn names<'a>(path: &'a Path, above: &Path) -> Option<Vec<&'a str>> {
    let below = path.strip_prefix(above).ok()?;
    let name = |component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    };
    below.components().map(name).collect()
}

fn plugin_of(folder: &str) -> Option<VolumePlugin> {
    match folder {
        "kubernetes.io~secret" => Some(VolumePlugin::Secret),
        "kubernetes.io~projected" => Some(VolumePlugin::Projected),
        "kubernetes.io~csi" => Some(VolumePlugin::Csi),
        _ => None,
    }
}

/// Generation and path of what a mount shows. The kernel writes `//deleted` behind a path that was
/// removed (`show_mountinfo` of fs/proc_namespace.c, `d_path`).
fn below(root: &Path) -> (String, String) {
    let shown = text(root.as_os_str().as_encoded_bytes().to_vec());
    let shown = shown.strip_suffix("//deleted").unwrap_or(&shown).trim_start_matches('/');
    match shown.split_once('/') {
        Some((generation, path)) if generation.starts_with("..") => {
            (generation.to_owned(), path.to_owned())
        }
        _ => (String::new(), shown.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::mountinfo::FileSystem;
    use super::*;

    fn mount(root: &str, point: &str) -> Mount {
        Mount { id: 1, device: 7, root: root.into(), point: point.into(), kind: FileSystem::Tmpfs }
    }

    #[test]
    fn only_whole_volumes_that_hold_secrets_have_a_place() {
        let of = |root: &str, below: &str| {
            Place::of(&mount(root, &format!("/k/pods/{below}")), Path::new("/k/pods"))
        };
        let place = |plugin| Some(Place { uid: "u".to_owned(), volume: "v".to_owned(), plugin });
        assert_eq!(of("/", "u/volumes/kubernetes.io~secret/v"), place(VolumePlugin::Secret));
        assert_eq!(of("/", "u/volumes/kubernetes.io~projected/v"), place(VolumePlugin::Projected));
        assert_eq!(of("/", "u/volumes/kubernetes.io~csi/v/mount"), place(VolumePlugin::Csi));
        for other in [
            "u/volumes/kubernetes.io~csi/v",
            "u/volumes/kubernetes.io~secret/v/mount",
            "u/volumes/kubernetes.io~empty-dir/v",
            "u/volumes/kubernetes.io~secret",
            "u/plugins/kubernetes.io~secret/v",
        ] {
            assert_eq!(of("/", other), None, "{other}");
        }
        assert_eq!(of("/..data", "u/volumes/kubernetes.io~secret/v"), None);
        let elsewhere = mount("/", "/x/pods/u/volumes/kubernetes.io~secret/v");
        assert_eq!(Place::of(&elsewhere, Path::new("/k/pods")), None);
    }

    #[test]
    fn a_file_mounted_by_itself_has_its_generation_and_path() {
        let shown = |root: &str| below(Path::new(root));
        let pair = |generation: &str, path: &str| (generation.to_owned(), path.to_owned());
        assert_eq!(shown("/..2024_1/db/user"), pair("..2024_1", "db/user"));
        assert_eq!(shown("/..2024_1/key//deleted"), pair("..2024_1", "key"));
        assert_eq!(shown("/plain/key"), pair("", "plain/key"));
        let at = |point: &str| Subpath::of(&mount("/..1/k", point), Path::new("/k/pods"));
        assert_eq!(at("/k/pods/u/volume-subpaths/v/main/0"), Some(Subpath));
        assert_eq!(at("/k/pods/u/volume-subpaths/v/main"), None);
    }
}
