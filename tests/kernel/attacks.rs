//! What a noisy or hostile pod can do to the others' counts: nothing.
//!
//! In: floods on a simulated node, and victims whose traffic goes on meanwhile. Out: nothing but
//! assertions: the victims' counts are exact, what was refused room is counted, and neither memory
//! nor metrics grow once the limits are reached.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use parapet_core::record::Counts;
use support::agent::Agent;
use support::cgroup::{self, Driver};
use support::http;
use support::network::Family;
use support::pod::{Pod, PodSpec};
use support::report::Report;
use support::task::{Connect, Flood, Send, Serve, Sockets, Task};

use crate::agent::{binary, new_node};
use crate::watched::{Flows, Watched};

/// Addresses that lead nowhere (RFC 2544, and documentation).
const NOWHERE: [&str; 2] = ["198.18.0.0/15", "2001:db8:5::/64"];
const FIRST_NOWHERE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

fn sources() -> Vec<Ipv4Addr> {
    (1..=16).map(|last| Ipv4Addr::new(198, 19, 7, last)).collect()
}

fn sweep(addresses: u32, ports: (u16, u16), sockets: u16) -> Task {
    Task::Flood(Flood::Sweep { first: FIRST_NOWHERE.into(), addresses, ports, sockets })
}

#[tokio::test]
async fn each_pod_gets_its_share_and_no_more() {
    const CAPACITY: u32 = 64;
    const SHARE: u32 = CAPACITY / 4;
    const DATAGRAMS: u64 = 3;
    let mut watched = Watched::with(new_node(), |config| parapet::kernel::KernelConfig {
        flows_max: CAPACITY,
        share_divisor: 4,
        ..config
    });
    watched.node.swallow(NOWHERE[0]).unwrap();
    let mut taken = 0;
    let mut lost = BTreeMap::new();
    // The last two find less room than their share.
    let peers = [0, 1, SHARE - 1, SHARE, 8 * SHARE, SHARE - 4, SHARE];
    for (number, peers) in peers.into_iter().enumerate() {
        let pod = watched.pod(&format!("pod{number}"));
        for _ in 0..DATAGRAMS {
            pod.run(&sweep(peers, (9, 9), 1)).unwrap();
        }
        let seen = watched.read();
        let room = SHARE.min(CAPACITY - taken);
        let kept = peers.min(room);
        taken += kept;
        let packets: u64 = seen.values().map(|counts| counts.sent_packets).sum();
        let flows = u32::try_from(seen.len()).unwrap();
        assert_eq!((flows, packets), (kept, u64::from(kept) * DATAGRAMS), "{peers} peers");
        if peers > kept {
            let stage = if room < SHARE { "flow_table_full" } else { "flow_quota" };
            *lost.entry(stage).or_insert(0) += u64::from(peers - kept) * DATAGRAMS;
        }
        assert_eq!(watched.lost, lost, "{peers} peers");
        assert_eq!(watched.capacity()[0], ("flows", u64::from(taken), u64::from(CAPACITY)));
    }
    assert_eq!(taken, CAPACITY);
}

#[tokio::test]
async fn containers_of_a_pod_share_what_it_gets_however_deep_they_are() {
    const CAPACITY: u32 = 64;
    const SHARE: u32 = CAPACITY / 4;
    let mut watched = Watched::with(new_node(), |config| parapet::kernel::KernelConfig {
        flows_max: CAPACITY,
        share_divisor: 4,
        ..config
    });
    watched.node.swallow(NOWHERE[0]).unwrap();
    for driver in [Driver::Systemd, Driver::Cgroupfs] {
        let name = format!("{driver:?}").to_lowercase();
        let spec = PodSpec::new("a", &name).sidecar("second", &[]).driver(driver);
        let mut pod = watched.node.pod(&spec).unwrap();
        watched.read();
        let before = watched.lost.get("flow_quota").copied().unwrap_or(0);
        let used = watched.capacity()[0].1;
        let alone = SHARE / 2 - 1;
        pod.run(&sweep(alone, (9, 9), 1)).unwrap();
        pod.run_in("second", &sweep(alone, (9, 9), 1)).unwrap();
        // A container that may make cgroups makes one inside of its own, named as a pod's is.
        pod.cgroup = pod.cgroup.join("kubepods-pod0.slice");
        cgroup::create(&pod.cgroup).unwrap();
        pod.run(&sweep(SHARE, (9, 9), 1)).unwrap();
        let seen = watched.read();
        // One datagram each.
        let packets: u64 = seen.values().map(|counts| counts.sent_packets).sum();
        let flows = watched.capacity()[0].1 - used;
        assert_eq!((flows, packets), (SHARE.into(), SHARE.into()), "{driver:?}");
        let lost = watched.lost["flow_quota"] - before;
        assert_eq!(lost, u64::from(2 * alone), "{driver:?}");
    }
}

#[tokio::test]
async fn a_server_with_too_many_clients_harms_no_other_pod() {
    const PORTS: (u16, u16) = (10_000, 14_199);
    /// What one cgroup gets of the pair table.
    const SHARE: u64 = 131_072 / 4;
    let mut watched = Watched::new();
    let (server, victim) = (watched.pod("server"), watched.pod("victim"));
    let asked = watched.pod("asked");
    let ports: Vec<u16> = (7_000..7_100).collect();
    let serving = server
        .spawn(&Task::Serve(Serve { udp: vec![53], silent: true, ..Serve::default() }))
        .unwrap();
    let _answering = asked.spawn(&Task::serve_udp(&ports)).unwrap();
    let (sources, target) = (sources(), server.addresses.v4);
    let flood = Flood::Ask { sources: sources.clone(), ports: PORTS, target, port: 53 };
    let attack = watched.node.spawn_outside(&Task::Flood(flood)).unwrap();
    let send = Task::Send(Send {
        targets: ports.iter().map(|&port| asked.at(Family::V4, port)).collect(),
        count: 5,
        datagram_bytes: 32,
        timeout_ms: 5_000,
        pause_ms: 1,
        sockets: Sockets::Shared,
        lite: false,
    });
    assert_eq!(victim.run(&send).unwrap().answered, 500);
    let sent = attack.finish().unwrap().attempts;
    assert_eq!(sent, 16 * 4_200);
    // What the server's kernel could not queue the sensor did not see either.
    let heard = serving.finish().unwrap().attempts;
    let mut seen = watched.read();
    let exact = Counts {
        attempts: 1,
        answered: 1,
        sent_packets: 5,
        sent_bytes: 300,
        received_packets: 5,
        received_bytes: 300,
        ..Counts::default()
    };
    let mut expected = Flows::new();
    for port in ports {
        expected.insert(format!("victim > asked 17/{port}"), exact);
        expected.insert(format!("asked < victim 17/{port}"), exact);
    }
    let attackers: Vec<Counts> = sources
        .iter()
        .filter_map(|source| seen.remove(&format!("server < {source} 17/53")))
        .collect();
    assert_eq!(seen, expected);
    let packets: u64 = attackers.iter().map(|counts| counts.received_packets).sum();
    let attempts: u64 = attackers.iter().map(|counts| counts.attempts).sum();
    assert!(packets >= heard && packets <= sent, "{heard} heard, {packets} seen, {sent} sent");
    assert_eq!(attempts, SHARE);
    assert_eq!(watched.lost, BTreeMap::from([("socket_pair", packets - SHARE)]));
}

#[tokio::test]
async fn a_busy_server_of_names_forgets_who_was_answered_before_it_has_no_room() {
    const PORTS: u16 = 1_200;
    let mut watched = Watched::with(new_node(), |config| parapet::kernel::KernelConfig {
        // Answered pairs leave after a fifth of a second where half of a share is used.
        pair_idle_max: Duration::from_secs(3),
        ..config
    });
    let server = watched.pod("server");
    let serving = server.spawn(&Task::serve_udp(&[7_000])).unwrap();
    let (mut sent, mut attempts) = (0, 0);
    // Each more than half of the share, and all of them within the usual time.
    for first in [10_000, 20_000, 30_000, 40_000] {
        let target = server.addresses.v4;
        let ports = (first, first + PORTS - 1);
        let flood = Flood::Ask { sources: sources(), ports, target, port: 7_000 };
        let asking = watched.node.spawn_outside(&Task::Flood(flood)).unwrap();
        sent += asking.finish().unwrap().attempts;
        for _ in 0..3 {
            attempts += watched.read().values().map(|counts| counts.attempts).sum::<u64>();
            tokio::time::sleep(Duration::from_millis(220)).await;
        }
    }
    attempts += watched.read().values().map(|counts| counts.attempts).sum::<u64>();
    assert_eq!(sent, 4 * 16 * u64::from(PORTS));
    let heard = serving.finish().unwrap().attempts;
    // What its queue had no room for nobody asked; the rest is far more than the share.
    assert!(heard > 40_000, "{heard} heard");
    assert!(attempts >= heard && attempts <= sent, "{attempts} of {heard} heard");
    assert_eq!(watched.lost, BTreeMap::new());
}

/// The most memory in bytes that the agent ever had, and the number of its metric series.
fn size(agent: &Agent) -> (u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    let metrics = http::get(agent.address(), "/metrics").unwrap();
    let series = metrics.body.lines().filter(|line| !line.starts_with('#')).count();
    (kilobytes * 1024, series)
}

/// One hundred flows, each asked this often; datagrams from this port on, one after the other.
fn victims(server: &Pod, count: u64, port: u16) -> [Task; 2] {
    let targets = |first: u16| (first..first + 50).map(|port| server.at(Family::V4, port));
    let tcp = Connect {
        targets: targets(8_000).collect(),
        count,
        request_bytes: 32,
        timeout_ms: 5_000,
        pause_ms: 1,
    };
    let udp = Send {
        targets: targets(7_000).collect(),
        count,
        datagram_bytes: 32,
        timeout_ms: 5_000,
        pause_ms: 1,
        sockets: Sockets::Numbered(port),
        lite: false,
    };
    [Task::Connect(tcp), Task::Send(udp)]
}

#[test]
fn an_attack_grows_nothing_and_hides_nothing() {
    let mut node = new_node();
    let server = node.pod(&PodSpec::new("b", "server")).unwrap();
    let victim = node.pod(&PodSpec::new("a", "victim")).unwrap();
    let attacker = node.pod(&PodSpec::new("a", "attacker")).unwrap();
    for range in NOWHERE {
        node.swallow(range).unwrap();
    }
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    let serve = Serve {
        tcp: (8_000..8_050).collect(),
        udp: (7_000..7_050).collect(),
        reply_bytes: 64,
        ..Serve::default()
    };
    let _serving = server.spawn(&Task::Serve(serve)).unwrap();
    // To the limits: the attacker's share of flows and pairs, all series there may be, and a line
    // in the report for each address that knocks.
    let first = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);
    let sweep_v6 =
        Flood::Sweep { first: first.into(), addresses: 20_000, ports: (9, 10), sockets: 1 };
    let mut sent = attacker.run(&Task::Flood(sweep_v6)).unwrap().attempts;
    let target = server.addresses.v4;
    let scan = |ports| Task::Flood(Flood::Scan { sources: sources(), target, ports });
    sent += attacker.run(&scan((7_990, 8_060))).unwrap().attempts;
    let [tcp, udp] = victims(&server, 2, 20_000);
    assert_eq!(victim.run(&tcp).unwrap().answered, 100);
    assert_eq!(victim.run(&udp).unwrap().answered, 100);
    settle(&agent, 2);
    let (bytes, series) = size(&agent);
    // Beyond: every port of the server as sixteen addresses, and a million tuples.
    let scanning = attacker.spawn(&scan((1, 65_535))).unwrap();
    let running = victims(&server, 5, 21_000).map(|task| victim.spawn(&task).unwrap());
    let sweeping = attacker.spawn(&sweep(250, (1_000, 1_249), 16)).unwrap();
    assert_eq!(running.map(|process| process.finish().unwrap().answered), [250, 250]);
    sent += scanning.finish().unwrap().attempts + sweeping.finish().unwrap().attempts;
    assert_eq!(sent, 40_000 + 71 * 16 + 65_535 * 16 + 1_000_000);
    let report = settle(&agent, 7);
    // How many find room in the kernel is a matter of time, for idle flows leave sooner where a
    // share is used up. What was there and found no room in the report is counted, too.
    let of_attacker = report.edges.iter().filter(|edge| edge.source.shown() == "a/attacker");
    let of_attacker: Vec<u64> = of_attacker.map(|edge| edge.counts.sent_packets).collect();
    let (edges, kept) = (of_attacker.len(), of_attacker.iter().sum::<u64>());
    let lost = |stage: &str| report.lost.get(stage).copied().unwrap_or(0);
    let (in_kernel, refused) = (sent - lost("flow_quota"), lost("edges_quota"));
    assert!(in_kernel >= 65_536 / 4, "{in_kernel} in the kernel");
    assert!(kept + refused <= in_kernel, "{kept} kept, {refused} refused of {in_kernel}");
    assert!(refused > 0 || kept == in_kernel, "{kept} kept of {in_kernel}");
    assert_eq!((edges, kept >= 65_536 / 4), (65_536 / 4, true), "{kept} kept");
    let stages: Vec<_> = report.lost.iter().filter(|(_, count)| **count > 0).collect();
    let known = ["flow_quota", "edges_quota", "socket_pair", "ring_full"];
    assert!(stages.iter().all(|(stage, _)| known.contains(&stage.as_str())), "{stages:?}");
    let (bytes_after, series_after) = size(&agent);
    assert!(bytes_after <= bytes + bytes / 10, "{bytes} bytes before, {bytes_after} after");
    assert!(series_after <= series + series / 10 + 1, "{series} before, {series_after} after");
}

/// Waits until all flows of the victims were asked this often, and asserts that both ends say so.
fn settle(agent: &Agent, count: u64) -> Report {
    let mut names = Vec::new();
    for (protocol, first) in [("TCP", 8_000), ("UDP", 7_000)] {
        for port in first..first + 50 {
            for direction in ["egress", "ingress"] {
                names.push(format!("{direction} a/victim -> b/server {protocol}/{port}"));
            }
        }
    }
    let ended = |report: &Report, name: &str| {
        report
            .ended(name)
            .iter()
            .map(|&(word, count)| (word.to_string(), count))
            .collect::<Vec<_>>()
    };
    let expected = vec![("answered".to_string(), count)];
    let holds = |report: &Report| names.iter().all(|name| ended(report, name) == expected);
    let report = agent.report_when(|report| report.pending == 0 && holds(report)).unwrap();
    for name in &names {
        assert_eq!(ended(&report, name), expected, "{name}");
    }
    // The last counts of the others come with the next reads.
    std::thread::sleep(Duration::from_millis(600));
    agent.report().unwrap()
}
