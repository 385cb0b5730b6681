//! The Service ports that the packet programs know: the wanted list comes in, the kernel's map has
//! it afterwards. What does not fit is left out and counted.

use std::collections::HashMap;

use aya::Pod;
use aya::maps::{Array, HashMap as BpfHashMap, MapData, MapError};
use parapet_common::{SERVICES_MAX, ServicePort};

/// [`ServicePort`] as aya wants its keys.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct PortKey(ServicePort);

// SAFETY: ServicePort is repr(C), integers only, without padding: valid for every bit pattern.
#[expect(unsafe_code, reason = "aya asks for this promise about map keys")]
unsafe impl Pod for PortKey {}

pub(super) type PortMap = BpfHashMap<MapData, PortKey, u32>;

/// The map and what is in it.
pub(super) struct ServicePorts {
    map: PortMap,
    /// Raised with each change: what the programs have found out of the map is over then.
    version: Array<MapData, u32>,
    known: HashMap<ServicePort, u32>,
}

impl ServicePorts {
    /// With what an agent before us put there.
    pub(super) fn new(map: PortMap, version: Array<MapData, u32>) -> Self {
        let known = map.iter().filter_map(Result::ok).map(|(PortKey(port), bits)| (port, bits));
        Self { known: known.collect(), map, version }
    }

    /// Makes the map hold exactly these; how many did not fit comes back.
    pub(super) fn set(&mut self, wanted: &HashMap<ServicePort, u32>) -> usize {
        let gone: Vec<_> =
            self.known.keys().filter(|port| !wanted.contains_key(port)).copied().collect();
        let mut is_changed = !gone.is_empty();
        for port in gone {
            let _ = self.map.remove(&PortKey(port));
            self.known.remove(&port);
        }
        let mut left_out = 0;
        for (port, bits) in wanted {
            if self.known.get(port) == Some(bits) {
                continue;
            }
            match self.map.insert(PortKey(*port), bits, 0) {
                Ok(()) => {
                    is_changed = true;
                    self.known.insert(*port, *bits);
                }
                Err(_) => left_out += 1,
            }
        }
        if is_changed && let Err(error) = self.raise_version() {
            tracing::error!(%error, "the packet programs cannot be told of changed Services");
        }
        left_out
    }

    fn raise_version(&mut self) -> Result<(), MapError> {
        let version = self.version.get(&0, 0)?.wrapping_add(1);
        self.version.set(0, version, 0)
    }

    pub(super) fn sizes(&self) -> (u64, u64) {
        (self.known.len() as u64, u64::from(SERVICES_MAX))
    }
}
