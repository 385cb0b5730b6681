//! The Service ports that the packet programs are told of.
//!
//! In: the index. Out: the wanted content of the kernel's table, when it is another one. It waits
//! for nobody: who hands it to the kernel takes the newest when there is time.

use std::collections::HashMap;
use std::net::IpAddr;

use parapet_common::{SERVICE_ONE_BY_ONE, ServicePort};
use parapet_core::identity::{AskedPort, Index};
use tokio::sync::watch;

/// What the kernel's table is to hold: a port to its `SERVICE_*` bits.
pub(super) type Wanted = HashMap<ServicePort, u32>;

/// Tells of changes.
#[derive(Debug)]
pub(super) struct Services {
    version: Option<u64>,
    wanted: watch::Sender<Wanted>,
}

impl Services {
    /// Nothing told yet; and where it is told.
    pub(super) fn new() -> (Self, watch::Receiver<Wanted>) {
        let (wanted, told) = watch::channel(Wanted::new());
        (Self { version: None, wanted }, told)
    }

    /// Looks whether another content is wanted; costs nothing while no object changes.
    pub(super) fn look(&mut self, index: &Index) {
        let version = index.services_version();
        if self.version.replace(version) == Some(version) {
            return;
        }
        let asked = index.asked_ports();
        if asked.refused > 0 {
            tracing::warn!(refused = asked.refused, "Service ports found no room in the kernel");
        }
        let wanted: Wanted = asked.ports.iter().map(entry).collect();
        self.wanted.send_if_modified(|known| {
            let is_other = *known != wanted;
            *known = wanted;
            is_other
        });
    }
}

fn entry(asked: &AskedPort) -> (ServicePort, u32) {
    let mut addr = [0; 16];
    let family = match asked.addr {
        IpAddr::V4(v4) => {
            addr[..4].copy_from_slice(&v4.octets());
            4
        }
        IpAddr::V6(v6) => {
            addr = v6.octets();
            6
        }
    };
    let port =
        ServicePort { addr, port: asked.port, protocol: asked.protocol.0, family, reserved: 0 };
    (port, if asked.is_divided { SERVICE_ONE_BY_ONE } else { 0 })
}

#[cfg(test)]
mod tests {
    use parapet_core::flow::Protocol;

    use super::*;

    #[test]
    fn addresses_are_as_the_kernel_reads_them() {
        let asked = |addr: &str, is_divided| AskedPort {
            addr: addr.parse().unwrap(),
            port: 80,
            protocol: Protocol::UDP,
            is_divided,
        };
        let mut addr = [0; 16];
        addr[..4].copy_from_slice(&[10, 96, 0, 1]);
        let v4 = ServicePort { addr, port: 80, protocol: 17, family: 4, reserved: 0 };
        assert_eq!(entry(&asked("10.96.0.1", true)), (v4, 1));
        let addr = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        let v6 = ServicePort { addr, port: 80, protocol: 17, family: 6, reserved: 0 };
        assert_eq!(entry(&asked("fd00::7", false)), (v6, 0));
    }
}
