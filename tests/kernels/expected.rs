//! What each stock kernel must do, as data: the programs it does not offer and the counts of the
//! guest's traffic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use parapet::kernel::Rung;
use parapet_core::flow::{Direction, Protocol};
use support::network::{Addresses, Family};
use support::reading::Way;

use crate::report::{
    ASKED, DATAGRAMS, ECHOES, EdgeLine, FLOWS, FlowKey, FlowLine, SCTP_ANSWERED, SCTP_ASSOCIATIONS,
    SCTP_REFUSED, SCTP_SILENT, SECRET_WAYS, SecretLine, TCP_ANSWERED, TCP_CONNECTIONS, TCP_REFUSED,
    TRACKED, UDP_ANSWERED, UDP_REFUSED, UNTRACKED, UNWATCHED,
};

/// Half of what the verifier allows: the next kernel's verifier may walk through more.
pub(crate) const INSTRUCTIONS_MAX: u32 = 500_000;

/// The last numbers of the IPv4 addresses of the first pod and the first Service.
const CLIENT: u8 = 10;
const SERVICE: u8 = 10;

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
        ("older_connections", "helper bpf_get_socket_cookie in iterators: Linux 5.12"),
        ("older_listeners", "helper bpf_sock_from_file: Linux 5.11"),
        (
            "secret_lsm_open",
            "bpf among the security modules in use: Debian has it there from 6.1 on",
        ),
        ("secret_held_maps", "iterator task_vma: Linux 5.12"),
        ("secret_ring_open", "request in tracepoint io_uring_complete: Linux 5.19"),
        ("secret_syscall", "helper bpf_get_current_task_btf: Linux 5.11"),
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

/// What each rung counts of what a pod did with a secret file.
pub(crate) fn secrets(kernel: &Kernel) -> Vec<SecretLine> {
    let sees_mappings = u64::from(kernel.why_not_offered("secret_held_maps").is_none());
    let of = |rung: Rung| {
        let line = SecretLine { rung: rung.name().to_owned(), ..SecretLine::default() };
        if kernel.why_not_offered(rung.program()).is_some() {
            return line;
        }
        let sum = |is: fn(Way) -> bool| {
            SECRET_WAYS.iter().filter(|(way, _)| is(*way)).map(|(_, count)| count).sum::<u64>()
        };
        SecretLine {
            attached: true,
            opens: sum(|way| !matches!(way, Way::PathOnly | Way::Status)) + 2,
            reads: sum(|way| matches!(way, Way::Open | Way::Openat2 | Way::Handle | Way::Ring)),
            maps: sum(|way| way == Way::Map) + 1,
            held: 1 + sees_mappings,
            names: vec!["token".to_owned()],
            ..line
        }
    };
    Rung::ALL.map(of).into()
}

/// The traffic of the guest and its pods, sorted by key.
pub(crate) fn flows(kernel: &Kernel) -> Vec<FlowLine> {
    let sees_icmp = u64::from(kernel.why_not_offered("socket_error").is_none());
    let mut flows = Vec::with_capacity(FLOWS);
    for family in [Family::V4, Family::V6] {
        flows.extend(guest(family, sees_icmp));
        flows.extend(pods(family));
    }
    flows.sort_by(|one, other| one.key.cmp(&other.key));
    flows
}

fn flow(who: &str, peer: IpAddr, protocol: Protocol, port: u16, direction: Direction) -> FlowLine {
    let (who, protocol, direction) = (who.to_owned(), protocol.0, Some(direction));
    FlowLine::new(FlowKey { who, peer, protocol, port, direction })
}

/// Between sockets of the guest program, over loopback.
fn guest(family: Family, sees_icmp: u64) -> Vec<FlowLine> {
    let peer = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    let flow = |protocol, port, direction| flow("guest", peer, protocol, port, direction);
    let mut flows = Vec::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        flows.push(FlowLine {
            attempts: TCP_CONNECTIONS,
            answered: TCP_CONNECTIONS,
            closed: TCP_CONNECTIONS,
            ..flow(Protocol::TCP, TCP_ANSWERED, direction)
        });
        flows.push(FlowLine {
            attempts: 1,
            answered: 1,
            sent_packets: DATAGRAMS,
            received_packets: DATAGRAMS,
            ..flow(Protocol::UDP, UDP_ANSWERED, direction)
        });
        flows.push(FlowLine {
            attempts: SCTP_ASSOCIATIONS,
            answered: SCTP_ASSOCIATIONS,
            ..flow(Protocol::SCTP, SCTP_ANSWERED, direction)
        });
    }
    let asked =
        |protocol, port| FlowLine { attempts: 1, ..flow(protocol, port, Direction::Egress) };
    flows.push(FlowLine { refused: 1, ..asked(Protocol::TCP, TCP_REFUSED) });
    let udp = asked(Protocol::UDP, UDP_REFUSED);
    flows.push(FlowLine { refused: sees_icmp, sent_packets: 1, ..udp });
    flows.push(FlowLine { refused: 1, ..asked(Protocol::SCTP, SCTP_REFUSED) });
    flows.push(asked(Protocol::SCTP, SCTP_SILENT));
    flows
}

/// Of a pod to Services by IPVS, at the address it asked for, and at the backends, which take
/// turns and see the pod's own address; and its echoes.
fn pods(family: Family) -> Vec<FlowLine> {
    let [client, blue] = [CLIENT, CLIENT + 1].map(|host| Addresses::of_pod(host).of(family));
    let [web, dns] = [SERVICE, SERVICE + 1].map(|host| Addresses::of_service(host).of(family));
    let tcp = |who, peer, port, direction, count| FlowLine {
        attempts: count,
        answered: count,
        closed: count,
        ..flow(who, peer, Protocol::TCP, port, direction)
    };
    let udp = |who, peer, port, direction, count| FlowLine {
        attempts: count,
        answered: count,
        sent_packets: count,
        received_packets: count,
        ..flow(who, peer, Protocol::UDP, port, direction)
    };
    let echo = if family == Family::V4 { Protocol::ICMP } else { Protocol::ICMPV6 };
    vec![
        tcp("client", web, 80, Direction::Egress, ASKED),
        udp("client", dns, 7000, Direction::Egress, ASKED),
        FlowLine {
            attempts: 1,
            answered: 1,
            sent_packets: ECHOES,
            received_packets: ECHOES,
            ..flow("client", blue, echo, 0, Direction::Egress)
        },
        tcp("blue", client, 8080, Direction::Ingress, ASKED / 2),
        udp("blue", client, 5353, Direction::Ingress, ASKED / 2),
        tcp("green", client, 9090, Direction::Ingress, ASKED / 2),
        udp("green", client, 5354, Direction::Ingress, ASKED / 2),
    ]
}

/// What the second agent reports of pods, of both agents' time and of that between them.
pub(crate) fn edges() -> Vec<EdgeLine> {
    let mut edges: Vec<_> = EDGES
        .iter()
        .map(|(edge, answered)| EdgeLine {
            edge: (*edge).to_owned(),
            ended: vec![("answered".to_owned(), *answered)],
        })
        .collect();
    edges.sort();
    edges
}

/// Each with the attempts of both families, all of them answered.
const EDGES: [(&str, u64); 22] = [
    ("egress a/client -> b/blue ICMP/0", 1),
    ("egress a/client -> b/blue ICMPv6/0", 1),
    // Between the agents and with the second one, which knows that the backends differ ..
    ("egress a/client -> b/blue TCP/8080", 2 * UNWATCHED + TRACKED),
    ("egress a/client -> b/blue UDP/5353", TRACKED),
    ("egress a/client -> b/green TCP/9090", TRACKED),
    ("egress a/client -> b/green UDP/5354", TRACKED),
    ("egress node-1 -> b/blue TCP/8080", TRACKED),
    ("egress node-1 -> b/green TCP/9090", TRACKED),
    ("egress b/blue -> loopback UDP/5353", TRACKED),
    ("egress b/blue -> b/green UDP/5354", TRACKED),
    // .. before it knew ..
    ("egress a/client -> b/web TCP/80", 2 * ASKED),
    ("egress a/client -> b/dns UDP/7000", 2 * ASKED),
    // .. and where nobody tells which backend it was.
    ("egress a/client -> b/loose TCP/80", 2 * UNTRACKED),
    ("egress node-1 -> b/loose TCP/80", 2 * UNTRACKED),
    ("ingress a/client -> b/blue TCP/8080", ASKED + 2 * UNWATCHED + TRACKED + UNTRACKED),
    ("ingress a/client -> b/blue UDP/5353", ASKED + TRACKED),
    ("ingress a/client -> b/green TCP/9090", ASKED + TRACKED + UNTRACKED),
    ("ingress a/client -> b/green UDP/5354", ASKED + TRACKED),
    ("ingress b/blue -> b/green UDP/5354", TRACKED),
    ("ingress node-1 -> b/blue TCP/8080", TRACKED + UNTRACKED),
    ("ingress node-1 -> b/blue UDP/5353 (rewritten: conntrack)", TRACKED),
    ("ingress node-1 -> b/green TCP/9090", TRACKED + UNTRACKED),
];
