//! What each stock kernel must do, as data: the programs it does not offer and the counts of the
//! guest's traffic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use parapet_core::flow::{Direction, Protocol};

use crate::report::{
    DATAGRAMS, FLOWS, FlowKey, FlowLine, TCP_ANSWERED, TCP_CONNECTIONS, TCP_REFUSED, UDP_ANSWERED,
    UDP_REFUSED,
};

/// Half of what the verifier allows: the next kernel's verifier may walk through more.
pub(crate) const INSTRUCTIONS_MAX: u32 = 500_000;

/// A kernel to be tried.
pub(crate) struct Kernel {
    /// Its folder's name below `PARAPET_KERNELS`.
    pub(crate) name: &'static str,
    /// Programs that cannot be attached, and what the kernel lacks. All others must fire.
    pub(crate) not_offered: &'static [(&'static str, &'static str)],
}

pub(crate) const LINUX_5_10: Kernel = Kernel {
    name: "5.10",
    not_offered: &[
        ("older_connections", "helper bpf_sock_from_file: Linux 5.11"),
        ("older_listeners", "helper bpf_sock_from_file: Linux 5.11"),
        ("socket_error", "tracepoint inet_sk_error_report: Linux 5.14"),
    ],
};
pub(crate) const LINUX_6_1: Kernel = Kernel { name: "6.1", not_offered: &[] };
pub(crate) const LINUX_6_12: Kernel = Kernel { name: "6.12", not_offered: &[] };
pub(crate) const LINUX_NEW: Kernel = Kernel { name: "new", not_offered: &[] };

impl Kernel {
    /// Why this program is not expected.
    pub(crate) fn why_not_offered(&self, program: &str) -> Option<&'static str> {
        self.not_offered.iter().find(|(name, _)| *name == program).map(|(_, why)| *why)
    }
}

/// The guest's traffic, sorted by key.
pub(crate) fn flows(kernel: &Kernel) -> Vec<FlowLine> {
    let sees_icmp = u64::from(kernel.why_not_offered("socket_error").is_none());
    let mut flows = Vec::with_capacity(FLOWS);
    for peer in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let flow = |protocol: Protocol, port, direction| {
            let direction = Some(direction);
            FlowLine::new(FlowKey { peer, protocol: protocol.0, port, direction })
        };
        for direction in [Direction::Ingress, Direction::Egress] {
            flows.push(FlowLine {
                attempts: TCP_CONNECTIONS,
                answered: TCP_CONNECTIONS,
                closed: TCP_CONNECTIONS,
                ..flow(Protocol::TCP, TCP_ANSWERED, direction)
            });
        }
        flows.push(FlowLine {
            attempts: 1,
            refused: 1,
            ..flow(Protocol::TCP, TCP_REFUSED, Direction::Egress)
        });
        for direction in [Direction::Ingress, Direction::Egress] {
            flows.push(FlowLine {
                attempts: 1,
                answered: 1,
                sent_packets: DATAGRAMS,
                received_packets: DATAGRAMS,
                ..flow(Protocol::UDP, UDP_ANSWERED, direction)
            });
        }
        flows.push(FlowLine {
            attempts: 1,
            refused: sees_icmp,
            sent_packets: 1,
            ..flow(Protocol::UDP, UDP_REFUSED, Direction::Egress)
        });
    }
    flows
}
