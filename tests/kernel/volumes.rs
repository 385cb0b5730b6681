//! The registry of volumes on real file systems: what is mounted is told, and nothing else.
//!
//! In: volumes of the simulated node, laid out, replaced and unmounted. Out: assertions on what the
//! registry tells, with inode numbers that the tests ask for themselves.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use parapet::node::volumes::{Registry, Scan};
use parapet_core::flow::Timestamp;
use parapet_core::secrets::{VolumeFacts, VolumeFile, VolumeOwner, VolumePlugin};
use support::pod::{Pod, PodSpec};
use support::reading::{Use, Way};
use support::secret::SecretVolume;

use crate::agent::new_node;

const NOW: Timestamp = Timestamp(1_000_000_000_000);

fn later(seconds: u64) -> Timestamp {
    Timestamp(NOW.0 + seconds * 1_000_000_000)
}

/// `volumes::Registry` has to be told of mounts; here it always is.
fn scan(registry: &mut Registry, at: Timestamp) -> Scan {
    registry.doubt_mounts();
    registry.scan(at)
}

fn file(path: &Path, name: &str, generation: &str) -> VolumeFile {
    let inode = path.metadata().unwrap().ino();
    VolumeFile { inode, path: name.into(), generation: generation.into() }
}

fn owner(pod: &Pod, volume: &str, plugin: VolumePlugin) -> VolumeOwner {
    VolumeOwner::Pod { uid: pod.uid.as_str().into(), volume: volume.into(), plugin }
}

/// The only volume of this owner, whose device number is that of its folder.
fn one<'a>(scan: &'a Scan, owner: &VolumeOwner, folder: &Path) -> &'a VolumeFacts {
    let found: Vec<_> = scan.volumes.iter().filter(|it| it.owner == *owner).collect();
    assert_eq!(found.len(), 1, "{owner:?} in {scan:#?}");
    // The major number of a tmpfs is 0, and the minor is below 256 or in the bits above 20.
    let device = rustix::fs::stat(folder).unwrap().st_dev;
    assert_eq!(rustix::fs::minor(device), found[0].id.device);
    assert_ne!(found[0].id.generation, 0);
    found[0]
}

#[test]
fn volumes_are_told_with_their_files_whatever_their_kind() {
    let mut node = new_node();
    let pod = node.pod(&PodSpec::new("a", "api")).unwrap();
    let mut registry = Registry::new(&node.kubelet_root(), &[]);
    assert_eq!(registry.scan(NOW), Scan::default());
    let secret =
        SecretVolume::secret(&node, &pod, "db", &[("user", "u"), ("n/pass", "p")]).unwrap();
    let token = SecretVolume::token(&node, &pod).unwrap();
    let csi = SecretVolume::mount(&node, &pod, "csi", "vault").unwrap();
    std::fs::create_dir(csi.file("deep")).unwrap();
    std::fs::write(csi.file("deep/key"), "k").unwrap();
    // No secret: what else is below a pod's folder.
    SecretVolume::mount(&node, &pod, "empty-dir", "cache").unwrap();
    let found = scan(&mut registry, NOW);
    assert_eq!((found.volumes.len(), found.problems.as_slice()), (3, [].as_slice()));
    let facts = one(&found, &owner(&pod, "db", VolumePlugin::Secret), secret.folder());
    let generation = secret.generation().unwrap();
    let expected = vec![
        file(&secret.file("n/pass"), "n/pass", &generation),
        file(&secret.file("user"), "user", &generation),
    ];
    assert_eq!((&facts.files, &facts.generation), (&expected, &generation));
    assert_eq!(facts.watched_since, NOW);
    assert!(facts.mounted_at.is_some());
    let kind = owner(&pod, "kube-api-access-x7k2p", VolumePlugin::Projected);
    let names: Vec<_> =
        one(&found, &kind, token.folder()).files.iter().map(|file| &*file.path).collect();
    assert_eq!(names, ["ca.crt", "namespace", "token"]);
    let facts = one(&found, &owner(&pod, "vault", VolumePlugin::Csi), csi.folder());
    assert_eq!(facts.files, [file(&csi.file("deep/key"), "deep/key", "")]);
    assert_eq!(facts.generation, "");
}

#[test]
fn a_rotation_is_noticed_without_a_look_at_the_mounts() {
    let mut node = new_node();
    let pod = node.pod(&PodSpec::new("a", "api")).unwrap();
    let secret = SecretVolume::secret(&node, &pod, "db", &[("a", "1"), ("b", "1")]).unwrap();
    let below = secret.mount_file("main", 0, "a").unwrap();
    let mut registry = Registry::new(&node.kubelet_root(), &[]);
    let first = registry.scan(NOW);
    let old = secret.generation().unwrap();
    let whose = owner(&pod, "db", VolumePlugin::Secret);
    let kept = file(&below, "a", &old);
    assert_eq!(
        one(&first, &whose, secret.folder()).files,
        [kept.clone(), file(&secret.file("b"), "b", &old)]
    );
    let new = secret.write(&[("a", "2"), ("c", "2")]).unwrap();
    let second = registry.scan(later(1));
    let facts = one(&second, &whose, secret.folder());
    assert_eq!(facts.id, one(&first, &whose, secret.folder()).id);
    assert_eq!(facts.generation, new);
    // The file that is mounted by itself stays what it was, and is known to be.
    let expected =
        [file(&secret.file("a"), "a", &new), file(&secret.file("c"), "c", &new), kept.clone()];
    assert_eq!(facts.files, expected);
    // Its name is gone for the kernel, too: who begins now finds it all the same.
    let anew = Registry::new(&node.kubelet_root(), &[]).scan(later(2));
    assert_eq!(one(&anew, &whose, secret.folder()).files, expected);
}

#[test]
fn a_device_number_that_is_given_out_again_is_another_volume() {
    let mut node = new_node();
    let pod = node.pod(&PodSpec::new("a", "api")).unwrap();
    let secret = SecretVolume::secret(&node, &pod, "db", &[("a", "1")]).unwrap();
    let whose = owner(&pod, "db", VolumePlugin::Secret);
    let mut registry = Registry::new(&node.kubelet_root(), &[]);
    let first = one(&scan(&mut registry, NOW), &whose, secret.folder()).id;
    // Tests beside this one take numbers, too.
    for round in 0..200 {
        secret.unmount().unwrap();
        secret.mount_again().unwrap();
        secret.write(&[("a", "2")]).unwrap();
        let again = one(&scan(&mut registry, later(round)), &whose, secret.folder()).id;
        assert_ne!(again, first);
        if again.device == first.device {
            return;
        }
    }
    panic!("the kernel never gave the number out again");
}

#[test]
fn a_volume_stays_as_long_as_any_namespace_has_it() {
    let mut node = new_node();
    let pod = node.pod(&PodSpec::new("a", "api")).unwrap();
    let secret = SecretVolume::secret(&node, &pod, "db", &[("a", "1")]).unwrap();
    let mut registry = Registry::new(&node.kubelet_root(), &[]);
    let first = registry.scan(NOW);
    let holder = pod.spawn(&Use::of(secret.file("a"), Way::BindMount, 1).held().task()).unwrap();
    secret.unmount().unwrap();
    scan(&mut registry, later(1));
    let held = scan(&mut registry, later(100_000));
    assert_eq!((&held.volumes, held.problems.as_slice()), (&first.volumes, [].as_slice()));
    holder.finish().unwrap();
    // The kernel takes a namespace apart a moment after its last process.
    let since = Instant::now();
    let mut last = scan(&mut registry, later(100_001));
    while !last.volumes.is_empty() && since.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
        last = scan(&mut registry, later(100_001));
    }
    assert_eq!(last.volumes, []);
}

#[test]
fn named_files_are_followed_when_they_are_replaced() {
    let node = new_node();
    let folder = node.folder().join("pki");
    std::fs::create_dir_all(folder.join("etcd")).unwrap();
    let path = |name: &str| folder.join(name);
    for name in ["ca.key", "etcd/ca.key", "client-1.pem"] {
        std::fs::write(path(name), name).unwrap();
    }
    std::os::unix::fs::symlink("client-1.pem", path("client.pem")).unwrap();
    let missing = path("missing");
    let named = [path("etcd"), path("client.pem"), missing.clone()];
    let mut registry = Registry::new(&node.kubelet_root(), &named);
    let facts = |scan: &Scan, name: &str| {
        let path = path(name).to_str().unwrap().to_owned();
        let mut found = scan.volumes.iter().filter(|it| *it.files[0].path == *path).cloned();
        let facts = found.next().unwrap();
        assert_eq!(found.next(), None);
        facts
    };
    let first = registry.scan(NOW);
    assert_eq!(first.volumes.len(), 2);
    assert_eq!(
        first.problems,
        [format!("{}: No such file or directory (os error 2)", missing.display())]
    );
    let shown = |name: &str| path(name).to_str().unwrap().to_owned();
    for (name, named) in [("etcd/ca.key", "etcd"), ("client.pem", "client.pem")] {
        let found = facts(&first, name);
        assert_eq!(found.owner, VolumeOwner::Node { path: shown(named).into() });
        assert_eq!(found.files, [file(&path(name), &shown(name), "")]);
    }
    std::fs::write(path("client-2.pem"), "2").unwrap();
    std::os::unix::fs::symlink("client-2.pem", path("draft")).unwrap();
    std::fs::rename(path("draft"), path("client.pem")).unwrap();
    let second = registry.scan(later(1));
    let replaced = facts(&second, "client.pem");
    assert_eq!(replaced.files, [file(&path("client-2.pem"), &shown("client.pem"), "")]);
    assert_eq!(replaced.watched_since, later(1));
    assert_eq!(facts(&second, "etcd/ca.key"), facts(&first, "etcd/ca.key"));
}

#[test]
fn what_is_in_the_way_is_said_and_nothing_else_is_lost() {
    let mut node = new_node();
    let pod = node.pod(&PodSpec::new("a", "api")).unwrap();
    let missing = Registry::new(Path::new("/no/such/kubelet"), &[]).scan(NOW);
    assert_eq!(missing.volumes, []);
    assert!(missing.problems[0].starts_with("/no/such/kubelet/pods: No such file"), "{missing:?}");
    assert_eq!(missing.problems.len(), 1);
    // One volume hides another, one is an empty folder, one is as it should be.
    let hidden = SecretVolume::secret(&node, &pod, "hidden", &[("a", "1")]).unwrap();
    hidden.mount_again().unwrap();
    let whole = SecretVolume::secret(&node, &pod, "whole", &[("a", "1")]).unwrap();
    let bare = node.kubelet_root().join("pods").join(&pod.uid);
    let bare = bare.join("volumes/kubernetes.io~secret/bare");
    std::fs::create_dir_all(&bare).unwrap();
    let mut registry = Registry::new(&node.kubelet_root(), &[]);
    registry.scan(NOW);
    let found = scan(&mut registry, later(60));
    one(&found, &owner(&pod, "whole", VolumePlugin::Secret), whole.folder());
    one(&found, &owner(&pod, "hidden", VolumePlugin::Secret), hidden.folder());
    let about = |path: &Path| {
        let about = found.problems.iter().filter(|it| it.starts_with(path.to_str().unwrap()));
        about.count()
    };
    assert_eq!((about(hidden.folder()), about(&bare), found.problems.len()), (1, 1, 2));
}
