//! The addresses and wires of the simulated node.
//!
//! In: numbers of pods. Out: their addresses, and the commands that wire them. Pods have no
//! neighbours: everything goes through the node, as with point-to-point CNIs, so that its rules see
//! every packet. Neighbour tables are static: no packet waits for, or is, a question about them.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::namespace::{self, Namespace};
use crate::tool;

/// Pods, IPv4 and IPv6.
pub const POD_RANGES: [&str; 2] = ["10.244.0.0/24", "fd00:10:244::/64"];
/// The node's end of the pods' wires.
pub const GATEWAY: Addresses = Addresses {
    v4: Ipv4Addr::new(10, 244, 0, 1),
    v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 1),
};
/// The node as others know it.
pub const NODE: Addresses = Addresses {
    v4: Ipv4Addr::new(192, 168, 77, 2),
    v6: Ipv6Addr::new(0xfd00, 0x192, 0x168, 0x77, 0, 0, 0, 2),
};
/// The next hop outside of the node.
pub const ROUTER: Addresses = Addresses {
    v4: Ipv4Addr::new(192, 168, 77, 1),
    v6: Ipv6Addr::new(0xfd00, 0x192, 0x168, 0x77, 0, 0, 0, 1),
};
/// Outside addresses that swallow everything: nothing comes back.
pub const SILENT: Addresses = Addresses {
    v4: Ipv4Addr::new(198, 51, 100, 9),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, 9),
};

/// The kernel looks at links once a second if many change.
const LINK_PATIENCE: Duration = Duration::from_secs(10);

const BRIDGE_MAC: &str = "02:00:00:00:00:01";
const UPLINK_MAC: &str = "02:00:00:00:00:02";
const ROUTER_MAC: &str = "02:00:00:00:00:03";

/// One address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Addresses {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Family {
    V4,
    V6,
}

impl Addresses {
    /// The one of this family.
    #[must_use]
    pub fn of(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// Both, IPv4 first.
    #[must_use]
    pub fn both(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// Those of a pod by the last number of its IPv4 address.
    #[must_use]
    pub fn of_pod(host: u8) -> Self {
        let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, u16::from(host));
        Self { v4: Ipv4Addr::new(10, 244, 0, host), v6 }
    }

    /// Those of a Service by the last number of its IPv4 address.
    #[must_use]
    pub fn of_service(host: u8) -> Self {
        let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, u16::from(host));
        Self { v4: Ipv4Addr::new(10, 96, 0, host), v6 }
    }
}

/// Joins the node to the world outside and makes the bridge for its pods.
///
/// # Errors
/// If `ip` fails.
pub fn wire_node(node: &Namespace, outside: &Namespace) -> anyhow::Result<()> {
    node.within(|| {
        namespace::forward_packets()?;
        tool::ip_batch(&format!(
            "link add br0 address {BRIDGE_MAC} type bridge stp_state 0 mcast_snooping 0\n\
             link set br0 addrgenmode none\n\
             link set br0 up\n\
             addr add {}/24 dev br0\n\
             addr add {}/64 dev br0 nodad\n\
             link add eth0 address {UPLINK_MAC} type veth peer name eth0 address {ROUTER_MAC} \
             netns {}\n\
             {}route add default via {}\n\
             route add default via {}\n",
            GATEWAY.v4,
            GATEWAY.v6,
            outside.name(),
            uplink(&NODE, &ROUTER, ROUTER_MAC),
            ROUTER.v4,
            ROUTER.v6,
        ))
    })?;
    outside.within(|| {
        namespace::forward_packets()?;
        // Of the node's ranges only; a default route would lead packets for nobody back.
        let routes = POD_RANGES.map(|range| {
            let via = if range.contains(':') { NODE.of(Family::V6) } else { NODE.of(Family::V4) };
            format!("route add {range} via {via}\n")
        });
        tool::ip_batch(&format!(
            "{}route add blackhole {}/32\n\
             route add blackhole {}/128\n{}",
            uplink(&ROUTER, &NODE, UPLINK_MAC),
            SILENT.v4,
            SILENT.v6,
            routes.concat(),
        ))
    })?;
    Ok(())
}

/// Addresses of one end of the wire between the node and the outside, and the way to the other.
fn uplink(own: &Addresses, other: &Addresses, other_mac: &str) -> String {
    let mut lines = String::from("link set eth0 addrgenmode none\nlink set eth0 up\n");
    for (own, other) in own.both().into_iter().zip(other.both()) {
        let (length, flags) = if own.is_ipv4() { (24, "") } else { (64, " nodad") };
        let _ = write!(
            lines,
            "addr add {own}/{length} dev eth0{flags}\n\
             neigh replace {other} lladdr {other_mac} dev eth0 nud permanent\n"
        );
    }
    lines
}

/// Gives the outside one more address, reached through the node's default route.
///
/// # Errors
/// If `ip` fails.
pub fn add_outside(outside: &Namespace, address: IpAddr) -> anyhow::Result<()> {
    let (length, flags) = if address.is_ipv4() { (32, "") } else { (128, " nodad") };
    let line = format!("addr add {address}/{length} dev lo{flags}");
    outside.within(|| tool::ip(&line)).map(drop)
}

/// Leads outside addresses that are nobody's to the node, as a load balancer does.
///
/// # Errors
/// If `ip` fails.
pub fn lead_to_node(outside: &Namespace, addresses: &Addresses) -> anyhow::Result<()> {
    let route = |family| format!("route add {} via {}\n", addresses.of(family), NODE.of(family));
    let lines = route(Family::V4) + &route(Family::V6);
    outside.within(|| tool::ip_batch(&lines)).map(drop)
}

/// Hangs a pod on the bridge, which leads it back to itself if that is asked for (as CNI plugins
/// set it, for pods behind their own Service). The wire's number must be new, the addresses may
/// have been used.
///
/// # Errors
/// If `ip` fails.
pub fn wire_pod(
    node: &Namespace,
    pod: &Namespace,
    wire: u16,
    addresses: &Addresses,
) -> anyhow::Result<()> {
    let [high, low] = wire.to_be_bytes();
    let mac = format!("02:00:00:01:{high:02x}:{low:02x}");
    node.within(|| {
        tool::ip_batch(&format!(
            "link add v{wire} type veth peer name eth0 address {mac} netns {}\n\
             link set v{wire} addrgenmode none\n\
             link set v{wire} master br0\n\
             link set v{wire} type bridge_slave hairpin on\n\
             link set v{wire} up\n\
             neigh replace {} lladdr {mac} dev br0 nud permanent\n\
             neigh replace {} lladdr {mac} dev br0 nud permanent\n",
            pod.name(),
            addresses.v4,
            addresses.v6,
        ))
    })
    .context("the node's end of a pod's wire")?;
    pod.within(|| {
        tool::ip_batch(&format!(
            "link set eth0 addrgenmode none\n\
             link set eth0 up\n\
             addr add {}/32 dev eth0\n\
             addr add {}/128 dev eth0 nodad\n\
             neigh replace {GATEWAY_V4} lladdr {BRIDGE_MAC} dev eth0 nud permanent\n\
             neigh replace {GATEWAY_V6} lladdr {BRIDGE_MAC} dev eth0 nud permanent\n\
             route add {GATEWAY_V4} dev eth0\n\
             route add {GATEWAY_V6} dev eth0\n\
             route add default via {GATEWAY_V4}\n\
             route add default via {GATEWAY_V6}\n",
            addresses.v4,
            addresses.v6,
            GATEWAY_V4 = GATEWAY.v4,
            GATEWAY_V6 = GATEWAY.v6,
        ))
    })
    .context("the pod's end of its wire")?;
    until_up(pod, "eth0")?;
    until_up(node, &format!("v{wire}"))
}

/// Waits until packets pass: the kernel lets a link work some time after it is told to, and what is
/// sent before is lost.
fn until_up(namespace: &Namespace, link: &str) -> anyhow::Result<()> {
    let since = Instant::now();
    while !namespace.within(|| tool::ip(&format!("-o link show {link}")))?.contains("state UP") {
        anyhow::ensure!(since.elapsed() < LINK_PATIENCE, "{link} does not come up");
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Takes a pod's wire away.
///
/// # Errors
/// If `ip` fails.
pub fn unwire_pod(node: &Namespace, wire: u16) -> anyhow::Result<()> {
    node.within(|| tool::ip(&format!("link del v{wire}"))).map(drop)
}
