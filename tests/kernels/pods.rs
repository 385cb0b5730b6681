//! Pods on a node whose Services are IPVS, as kube-proxy sets it up.
//!
//! In: the guest's kernel, with the modules for it loaded. Out: a simulated node with a client, two
//! backends and three divided Services, and the client's traffic. It counts nothing and judges
//! nothing.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use parapet_core::flow::Protocol;
use support::network::Family;
use support::node::Node;
use support::pod::{Pod, PodSpec};
use support::process::{Process, Program};
use support::service::{self, Backend, Kind, Port, Service};
use support::task::{Connect, Exchange, Send, Serve, Sockets, Speech, Task};
use support::tool;

use crate::ipvs::Balancer;
use crate::report;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// What every step may take: the emulated kernel is slow.
const TIMEOUT_MS: u64 = 20_000;
const CONNTRACK: &str = "/proc/sys/net/ipv4/vs/conntrack";

/// Marks what comes from no pod for a Service, so that its source becomes the node's; the mark's
/// own rule stands in the table already (kube-proxy's KUBE-MARK-MASQ).
const MASQUERADE: &str = "add rule inet services dispatch ip saddr != 10.244.0.0/16 ip daddr 10.96.0.0/16 \
     meta mark set meta mark or 0x4000\n\
     add rule inet services dispatch ip6 saddr != fd00:10:244::/64 ip6 daddr fd00:10:96::/64 \
     meta mark set meta mark or 0x4000\n";

/// Of a pod that was led back to itself, which would not understand its own address
/// (kube-proxy's KUBE-LOOP-BACK).
fn loop_back(addr: IpAddr) -> String {
    let word = if addr.is_ipv4() { "ip" } else { "ip6" };
    format!("add rule inet services after {word} saddr {addr} {word} daddr {addr} masquerade\n")
}

/// The node and all that stands on it.
pub(crate) struct World {
    pub(crate) node: Node,
    client: Pod,
    blue: Pod,
    green: Pod,
    web: Service,
    dns: Service,
    loose: Service,
    serving: Vec<Process>,
}

impl World {
    /// Makes everything; nobody serves yet.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let mut node = Node::start(&Program::current()?)?;
        let client = node.pod(&PodSpec::new("a", "client"))?;
        let blue = node.pod(&PodSpec::new("b", "blue"))?;
        let green = node.pod(&PodSpec::new("b", "green"))?;
        let mut service = |name, port, to: [u16; 2]| {
            let backends = [Backend::new(&blue), Backend::at(&green, to[1])];
            let kind = (Kind::ClusterIp, false);
            node.service_of("b", name, vec![port], kind, &backends)
        };
        let web = service("web", Port::new("http", "TCP", 80, 8080), [8080, 9090])?;
        let dns = service("dns", Port::new("echo", "UDP", 7000, 5353), [5353, 5354])?;
        let loose = service("loose", Port::new("http", "TCP", 80, 8080), [8080, 9090])?;
        // The manifests stay; what led to the backends goes, and the balancer does that instead.
        let own = FAMILIES.map(|family| loop_back(blue.address(family)));
        let rules = service::rules(&[]) + MASQUERADE + &own.concat();
        node.network().within(|| tool::nft(&rules).context("masquerading"))?;
        let world = Self { node, client, blue, green, web, dns, loose, serving: Vec::new() };
        world.balance().context("IPVS")?;
        Ok(world)
    }

    fn balance(&self) -> anyhow::Result<()> {
        let services = [
            (&self.web, Protocol::TCP, 80, [8080, 9090]),
            (&self.dns, Protocol::UDP, 7000, [5353, 5354]),
            (&self.loose, Protocol::TCP, 80, [8080, 9090]),
        ];
        self.node.network().within(|| {
            tool::ip("link add kube-ipvs0 type dummy")?;
            let balancer = Balancer::open()?;
            for family in FAMILIES {
                for (service, protocol, port, [blue, green]) in services {
                    let asked = service.at(family, port);
                    // Without an address of its own the node would pass it on unseen.
                    let flags = if asked.is_ipv4() { "/32" } else { "/128 nodad" };
                    tool::ip(&format!("addr add {}{flags} dev kube-ipvs0", asked.ip()))?;
                    let backends = [self.blue.at(family, blue), self.green.at(family, green)];
                    balancer.serve(protocol, asked, &backends)?;
                }
            }
            Ok(())
        })
    }

    /// Whether the balancer's connections are tracked; kube-proxy has it so.
    pub(crate) fn track(&self, yes: bool) -> anyhow::Result<()> {
        let word = if yes { "1" } else { "0" };
        self.node.network().within(|| fs::write(CONNTRACK, word).context(CONNTRACK))
    }

    /// Has the backends serve, once their sockets will be seen from the beginning.
    pub(crate) fn serve(&mut self) -> anyhow::Result<()> {
        for (pod, tcp, udp) in [(&self.blue, 8080, 5353), (&self.green, 9090, 5354)] {
            let ports = Serve { tcp: vec![tcp], udp: vec![udp], ..Serve::default() };
            self.serving.push(pod.spawn(&Task::Serve(Serve { reply_bytes: 64, ..ports }))?);
        }
        Ok(())
    }

    /// Whose traffic is told, and its cgroup's folder.
    pub(crate) fn pods(&self) -> [(&'static str, &Pod); 3] {
        [("client", &self.client), ("blue", &self.blue), ("green", &self.green)]
    }

    /// Who reads a secret.
    pub(crate) fn reader(&self) -> &Pod {
        &self.client
    }

    /// What the kernel's own counts are held against.
    pub(crate) fn ask_services(&self) -> anyhow::Result<()> {
        self.client.run(&connect(&self.both(&self.web, 80), report::ASKED))?;
        self.client.run(&send(&self.both(&self.dns, 7000), report::ASKED))?;
        let targets = FAMILIES.map(|family| self.blue.at(family, 0)).to_vec();
        for target in targets {
            let task = Exchange {
                speech: Speech::Ping,
                targets: vec![target],
                count: report::ECHOES,
                timeout_ms: TIMEOUT_MS,
            };
            self.client.run(&Task::Exchange(task))?;
        }
        Ok(())
    }

    /// Connections to a backend itself.
    pub(crate) fn ask_backend(&self) -> anyhow::Result<()> {
        let targets = FAMILIES.map(|family| self.blue.at(family, 8080));
        self.client.run(&connect(&targets, report::UNWATCHED)).map(drop)
    }

    /// Of a pod, of the node, and of a backend that is led to itself every other time.
    pub(crate) fn ask_tracked(&self) -> anyhow::Result<()> {
        let web = connect(&self.both(&self.web, 80), report::TRACKED);
        let dns = send(&self.both(&self.dns, 7000), report::TRACKED);
        self.client.run(&web)?;
        self.client.run(&dns)?;
        self.node.spawn_on_node(&web)?.finish()?;
        self.blue.run(&dns).map(drop)
    }

    /// Of a pod and of the node, to a Service that nothing was asked of before.
    pub(crate) fn ask_untracked(&self) -> anyhow::Result<()> {
        let loose = connect(&self.both(&self.loose, 80), report::UNTRACKED);
        self.client.run(&loose)?;
        self.node.spawn_on_node(&loose)?.finish().map(drop)
    }

    fn both(&self, service: &Service, port: u16) -> [SocketAddr; 2] {
        FAMILIES.map(|family| service.at(family, port))
    }
}

fn connect(targets: &[SocketAddr], count: u64) -> Task {
    let targets = targets.to_vec();
    let (request_bytes, timeout_ms, pause_ms) = (32, TIMEOUT_MS, 0);
    Task::Connect(Connect { targets, count, request_bytes, timeout_ms, pause_ms })
}

fn send(targets: &[SocketAddr], count: u64) -> Task {
    Task::Send(Send {
        targets: targets.to_vec(),
        count,
        datagram_bytes: 32,
        timeout_ms: TIMEOUT_MS,
        pause_ms: 0,
        sockets: Sockets::PerDatagram,
        lite: false,
    })
}
