//! What an agent's pins keep in the kernel: maps, the programs that use them, and the links that
//! attach those.
//!
//! In: a folder of pins. Out: ids, which the kernel gives to nothing else later. Only tests use it;
//! it changes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use aya::maps::{MapInfo, loaded_maps};
use aya::programs::{loaded_links, loaded_programs};

/// Ids of what is in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Pinned maps.
    pub maps: BTreeSet<u32>,
    /// Programs that use one of them.
    pub programs: BTreeSet<u32>,
    /// Links of those programs.
    pub links: BTreeSet<u32>,
}

impl Inventory {
    /// Everything below a folder of pins.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn of(root: &Path) -> io::Result<Self> {
        let mut found = Self::default();
        for folder in fs::read_dir(root)? {
            for pin in fs::read_dir(folder?.path())? {
                // A link is no map, and the kernel says so.
                found.maps.extend(MapInfo::from_pin(pin?.path()).ok().map(|map| map.id()));
            }
        }
        for program in loaded_programs().filter_map(Result::ok) {
            let maps = program.map_ids().ok().flatten().unwrap_or_default();
            if maps.iter().any(|map| found.maps.contains(map)) {
                found.programs.insert(program.id());
            }
        }
        for link in loaded_links().filter_map(Result::ok) {
            if found.programs.contains(&link.program_id()) {
                found.links.insert(link.id());
            }
        }
        Ok(found)
    }

    /// What of it is still there.
    #[must_use]
    pub fn remaining(&self) -> Self {
        let maps: BTreeSet<_> = loaded_maps().filter_map(Result::ok).map(|map| map.id()).collect();
        let programs: BTreeSet<_> =
            loaded_programs().filter_map(Result::ok).map(|program| program.id()).collect();
        let links: BTreeSet<_> =
            loaded_links().filter_map(Result::ok).map(|link| link.id()).collect();
        Self {
            maps: &self.maps & &maps,
            programs: &self.programs & &programs,
            links: &self.links & &links,
        }
    }
}
