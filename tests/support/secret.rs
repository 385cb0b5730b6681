//! Volumes that hold secrets, laid out as the kubelet lays them out.
//!
//! In: a pod, a volume's name, files. Out: a tmpfs of its own below the node's kubelet folder,
//! whose files are replaced whole: written into a folder `..<time>`, to which `..data` is then
//! turned by a rename, with a link for each name at the top (pkg/volume/util/atomic_writer.go). The
//! mounts go with the run, however it ends.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context as _;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use crate::node::Node;
use crate::object::now;
use crate::pod::Pod;

const DATA: &str = "..data";

/// No two generations have the same name, whatever the clock says.
static GENERATIONS: AtomicU32 = AtomicU32::new(0);

/// A mounted volume. Dropping the value leaves it mounted: the run unmounts it.
#[derive(Clone, Debug)]
pub struct SecretVolume {
    pod: PathBuf,
    name: String,
    folder: PathBuf,
}

impl SecretVolume {
    /// Mounts an empty volume; `plugin` is `secret`, `projected` or `csi`.
    ///
    /// # Errors
    /// Without root, or if it is mounted already.
    pub fn mount(node: &Node, pod: &Pod, plugin: &str, name: &str) -> anyhow::Result<Self> {
        let pod = node.kubelet_root().join("pods").join(&pod.uid);
        let folder = pod.join("volumes").join(format!("kubernetes.io~{plugin}")).join(name);
        let folder = if plugin == "csi" { folder.join("mount") } else { folder };
        let volume = Self { pod, name: name.to_string(), folder };
        volume.mount_again()?;
        Ok(volume)
    }

    /// A Secret's volume with these files.
    ///
    /// # Errors
    /// Without root, or if it is mounted already.
    pub fn secret(
        node: &Node,
        pod: &Pod,
        name: &str,
        files: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let volume = Self::mount(node, pod, "secret", name)?;
        volume.write(files)?;
        Ok(volume)
    }

    /// The volume that every pod has of its service account, unless somebody forbids it.
    ///
    /// # Errors
    /// Without root, or if it is mounted already.
    pub fn token(node: &Node, pod: &Pod) -> anyhow::Result<Self> {
        let volume = Self::mount(node, pod, "projected", TOKEN_VOLUME)?;
        let namespace = pod.namespace.as_str();
        volume.write(&[("ca.crt", "ca"), ("namespace", namespace), ("token", "t0ken")])?;
        Ok(volume)
    }

    /// Mounts a new file system where the last one was.
    ///
    /// # Errors
    /// Without root.
    pub fn mount_again(&self) -> anyhow::Result<()> {
        let shown = || self.folder.display().to_string();
        fs::create_dir_all(&self.folder).with_context(shown)?;
        mount("tmpfs", &self.folder, "tmpfs", MountFlags::empty(), Some(c"size=16m"))
            .with_context(shown)
    }

    /// Takes it away, as when its pod ends.
    ///
    /// # Errors
    /// If somebody has it open.
    pub fn unmount(&self) -> anyhow::Result<()> {
        unmount(&self.folder, UnmountFlags::empty())
            .with_context(|| self.folder.display().to_string())
    }

    /// Replaces all files by these at once, and removes the old ones. Names may have folders in
    /// them. The name of the new generation comes back.
    ///
    /// # Errors
    /// If something cannot be written.
    pub fn write(&self, files: &[(&str, &str)]) -> anyhow::Result<String> {
        let data = self.folder.join(DATA);
        let old = fs::read_link(&data).ok();
        let number = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        let time = now().replace(['-', 'T', ':'], "_").replace('Z', "");
        let generation = format!("..{time}.{number:010}");
        for (name, content) in files {
            let path = self.folder.join(&generation).join(name);
            let folder = path.parent().context("no folder")?;
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            fs::write(&path, content).with_context(|| path.display().to_string())?;
        }
        fs::create_dir_all(self.folder.join(&generation))?;
        let draft = self.folder.join("..data_tmp");
        symlink(&generation, &draft).context("..data_tmp")?;
        fs::rename(&draft, &data).context("..data")?;
        let tops: Vec<_> = files.iter().map(|(name, _)| top(name)).collect();
        for name in &tops {
            let link = self.folder.join(name);
            if fs::symlink_metadata(&link).is_err() {
                symlink(Path::new(DATA).join(name), &link).context("a name")?;
            }
        }
        if let Some(old) = old {
            for entry in fs::read_dir(self.folder.join(&old))? {
                let name = entry?.file_name();
                if tops.iter().all(|top| *top != name) {
                    fs::remove_file(self.folder.join(name)).context("an old name")?;
                }
            }
            fs::remove_dir_all(self.folder.join(&old)).context("the old generation")?;
        }
        Ok(generation)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of it by the name that containers use.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The generation that it has now.
    ///
    /// # Errors
    /// If nothing was written yet.
    pub fn generation(&self) -> anyhow::Result<String> {
        let link = fs::read_link(self.folder.join(DATA)).context(DATA)?;
        Ok(link.to_string_lossy().into_owned())
    }

    /// Mounts one file of it by itself, as the kubelet does for the `subPath` of a container.
    ///
    /// # Errors
    /// Without root, or without such a file.
    pub fn mount_file(&self, container: &str, index: u32, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.pod.join("volume-subpaths").join(&self.name).join(container);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let place = folder.join(index.to_string());
        fs::write(&place, "").with_context(|| place.display().to_string())?;
        let file = self.file(name).canonicalize().context("no such file")?;
        mount_bind(file, &place).with_context(|| place.display().to_string())?;
        Ok(place)
    }
}

/// The name of a token's volume, as the API server gives it.
pub const TOKEN_VOLUME: &str = "kube-api-access-x7k2p";

fn top(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}
