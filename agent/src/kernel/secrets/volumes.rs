//! The superblocks and files that the kernel counts on: the wanted list comes in, the kernel's maps
//! have it afterwards. What does not fit is left out and counted.

use std::collections::HashMap;
use std::hash::Hash;

use aya::Pod;
use aya::maps::{Array, HashMap as BpfHashMap, MapData};
use parapet_common::{
    VOLUME_FILES, VOLUME_WORDS, VOLUMES_MAX, Volume, WATCHED_FILES_MAX, WatchedFile, volume_bit,
};
use parapet_core::secrets::{VolumeFacts, VolumeOwner};

/// [`Volume`] as aya wants its values.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(in super::super) struct VolumeValue(Volume);

/// [`WatchedFile`] as aya wants its keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub(in super::super) struct FileKey(WatchedFile);

// SAFETY: repr(C), integers only, without padding: valid for every bit pattern.
#[expect(unsafe_code, reason = "aya asks for this promise about map values")]
unsafe impl Pod for VolumeValue {}

// SAFETY: as above.
#[expect(unsafe_code, reason = "aya asks for this promise about map keys")]
unsafe impl Pod for FileKey {}

pub(in super::super) type VolumeMap = BpfHashMap<MapData, u32, VolumeValue>;
pub(in super::super) type FileMap = BpfHashMap<MapData, FileKey, u32>;

pub(in super::super) type BitMap = Array<MapData, u64>;

/// The maps and what is in them.
pub(super) struct Volumes {
    volumes: Known<u32, VolumeValue>,
    bits: BitMap,
    known_bits: [u64; VOLUME_WORDS as usize],
    files: Known<FileKey, u32>,
}

impl Volumes {
    pub(super) fn new(volumes: VolumeMap, bits: BitMap, files: FileMap) -> Self {
        let known_bits = [0; VOLUME_WORDS as usize];
        Self { volumes: Known::new(volumes), bits, known_bits, files: Known::new(files) }
    }

    /// Makes the kernel watch exactly these; how many did not fit comes back. Files first: on a
    /// superblock that is watched for its files alone, one without an entry is not counted.
    pub(super) fn set(&mut self, wanted: &[VolumeFacts]) -> usize {
        let (volumes, files) = as_told(wanted);
        let left_out = self.files.set(&files) + self.volumes.set(&volumes);
        self.set_bits();
        left_out
    }

    /// Whether the kernel counts on all of it.
    pub(super) fn has(&self, facts: &VolumeFacts) -> bool {
        let device = facts.id.device;
        let is_there = self.volumes.known.contains_key(&device);
        let has_file = |inode| {
            let file = WatchedFile { inode, device, reserved: 0 };
            self.files.known.contains_key(&FileKey(file))
        };
        is_there
            && match facts.owner {
                VolumeOwner::Pod { .. } => true,
                VolumeOwner::Node { .. } => facts.files.iter().all(|file| has_file(file.inode)),
            }
    }

    /// Last: a bit without its volume costs one lookup more, and one too early would be no harm.
    fn set_bits(&mut self) {
        let bits = bits(self.volumes.known.keys().copied());
        for (index, (word, known)) in (0..).zip(bits.into_iter().zip(&mut self.known_bits)) {
            if word == *known {
                continue;
            }
            match self.bits.set(index, word, 0) {
                Ok(()) => *known = word,
                Err(error) => tracing::warn!(%error, "the kernel does not watch every volume"),
            }
        }
    }

    /// (table, entries, capacity).
    pub(super) fn sizes(&self) -> [(&'static str, u64, u64); 2] {
        [
            ("secret_volumes", self.volumes.known.len() as u64, u64::from(VOLUMES_MAX)),
            ("watched_files", self.files.known.len() as u64, u64::from(WATCHED_FILES_MAX)),
        ]
    }
}

fn bits(devices: impl Iterator<Item = u32>) -> [u64; VOLUME_WORDS as usize] {
    let mut bits = [0; VOLUME_WORDS as usize];
    for device in devices {
        let (word, bit) = volume_bit(device);
        if let Some(word) = bits.get_mut(word as usize) {
            *word |= 1 << bit;
        }
    }
    bits
}

/// A superblock that is a volume of a pod is one with all its files, whatever is watched besides.
fn as_told(wanted: &[VolumeFacts]) -> (HashMap<u32, VolumeValue>, HashMap<FileKey, u32>) {
    let (mut volumes, mut files) = (HashMap::new(), HashMap::new());
    for facts in wanted {
        let (device, generation) = (facts.id.device, facts.id.generation);
        match facts.owner {
            VolumeOwner::Pod { .. } => {
                volumes.insert(device, VolumeValue(Volume { generation, flags: 0 }));
            }
            VolumeOwner::Node { .. } => {
                let value = VolumeValue(Volume { generation: 0, flags: VOLUME_FILES });
                volumes.entry(device).or_insert(value);
                for file in &facts.files {
                    let file = WatchedFile { inode: file.inode, device, reserved: 0 };
                    files.insert(FileKey(file), generation);
                }
            }
        }
    }
    (volumes, files)
}

/// A map, and what is in it.
struct Known<K, V> {
    map: BpfHashMap<MapData, K, V>,
    known: HashMap<K, V>,
}

impl<K: Pod + Eq + Hash, V: Pod + PartialEq> Known<K, V> {
    fn new(map: BpfHashMap<MapData, K, V>) -> Self {
        Self { map, known: HashMap::new() }
    }

    fn set(&mut self, wanted: &HashMap<K, V>) -> usize {
        let gone: Vec<K> =
            self.known.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        for key in gone {
            // It fails only if it is not there.
            let _ = self.map.remove(&key);
            self.known.remove(&key);
        }
        let mut left_out = 0;
        for (key, value) in wanted {
            if self.known.get(key) == Some(value) {
                continue;
            }
            match self.map.insert(key, value, 0) {
                Ok(()) => {
                    self.known.insert(*key, *value);
                }
                Err(_) => left_out += 1,
            }
        }
        left_out
    }
}

#[cfg(test)]
mod tests {
    use parapet_core::flow::Timestamp;
    use parapet_core::secrets::{VolumeFile, VolumeId, VolumePlugin};

    use super::*;

    fn facts(device: u32, generation: u32, owner: VolumeOwner, inodes: &[u64]) -> VolumeFacts {
        let file =
            |inode: &u64| VolumeFile { inode: *inode, path: "token".into(), generation: "".into() };
        VolumeFacts {
            id: VolumeId { device, generation },
            owner,
            files: inodes.iter().map(file).collect(),
            generation: String::new(),
            mounted_at: None,
            watched_since: Timestamp(0),
        }
    }

    fn value(generation: u32, flags: u32) -> VolumeValue {
        VolumeValue(Volume { generation, flags })
    }

    fn file(device: u32, inode: u64) -> FileKey {
        FileKey(WatchedFile { inode, device, reserved: 0 })
    }

    impl std::fmt::Debug for VolumeValue {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.fmt(f)
        }
    }

    impl std::fmt::Debug for FileKey {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.fmt(f)
        }
    }

    #[test]
    fn every_device_number_has_a_bit() {
        let mut expected = [0; VOLUME_WORDS as usize];
        assert_eq!(bits([].into_iter()), expected);
        // 0:1, 0:64, 0:65, and 8:1, which falls on 0:9.
        (expected[0], expected[1]) = (1 << 1 | 1 << 9, 1 << 0 | 1 << 1);
        assert_eq!(bits([1, 64, 65, 8 << 20 | 1].into_iter()), expected);
    }

    #[test]
    fn volumes_are_watched_whole_and_files_of_the_node_one_by_one() {
        let pod =
            VolumeOwner::Pod { uid: "u".into(), volume: "v".into(), plugin: VolumePlugin::Secret };
        let node = VolumeOwner::Node { path: "/etc/kubernetes/pki".into() };
        let wanted = [
            facts(7, 70, pod.clone(), &[1, 2]),
            facts(8, 80, node.clone(), &[3, 4]),
            facts(8, 81, node.clone(), &[5]),
            facts(9, 90, node, &[6]),
            facts(9, 91, pod, &[]),
        ];
        let (volumes, files) = as_told(&wanted);
        let expected =
            HashMap::from([(7, value(70, 0)), (8, value(0, VOLUME_FILES)), (9, value(91, 0))]);
        assert_eq!(volumes, expected);
        let expected =
            HashMap::from([(file(8, 3), 80), (file(8, 4), 80), (file(8, 5), 81), (file(9, 6), 90)]);
        assert_eq!(files, expected);
    }
}
