//! What outlives the agent: killed, stopped and replaced under load, its counts equal the
//! generators' in the end; and once it is uninstalled, nothing of it is left.
//!
//! In: traffic that never pauses. Out: nothing but assertions. Pins are on a BPF file system of the
//! test's own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parapet::kernel::inventory::Inventory;
use support::agent::Agent;
use support::network::Family;
use support::node::Node;
use support::pod::{Pod, PodSpec};
use support::report::Report;
use support::task::{Connect, Counts, Send, Serve, Sockets, Task};
use support::{lifetime, tool};

use crate::agent::{BOTH, binary, expect, new_node};

mod killed;
mod talker;

const TCP: u16 = 8080;
const UDP: u16 = 5353;

/// Where pins go, on a BPF file system that goes with the node.
fn pins(node: &Node) -> PathBuf {
    lifetime::mount_bpffs(&node.folder()).unwrap().join("parapet")
}

fn arguments(pins: &Path, more: &[&str]) -> Vec<String> {
    let own = ["--pin-dir", pins.to_str().unwrap()];
    own.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

fn start(node: &Node, pins: &Path) -> Agent {
    Agent::start_with(&binary(), node, &arguments(pins, &[])).unwrap()
}

/// A client and a server that serves it as long as the value lives.
fn two_pods(node: &mut Node) -> (Pod, Pod, support::process::Process) {
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let server = node.pod(&PodSpec::new("b", "server")).unwrap();
    let serve = Serve { tcp: vec![TCP], udp: vec![UDP], reply_bytes: 64, ..Serve::default() };
    let serving = server.spawn(&Task::Serve(serve)).unwrap();
    (client, server, serving)
}

/// So patient that a busy machine makes no attempt fail.
fn connect(target: SocketAddr, count: u64) -> Task {
    let targets = vec![target];
    Task::Connect(Connect { targets, count, request_bytes: 32, timeout_ms: 10_000, pause_ms: 2 })
}

/// A new socket for each datagram: each is an attempt.
fn send(target: SocketAddr, count: u64) -> Task {
    Task::Send(Send {
        targets: vec![target],
        count,
        datagram_bytes: 32,
        timeout_ms: 10_000,
        pause_ms: 2,
        sockets: Sockets::PerDatagram,
        lite: false,
    })
}

/// Tasks that begin anew until the value is asked what they counted.
struct Load {
    stop: Arc<AtomicBool>,
    runs: Vec<JoinHandle<Counts>>,
}

impl Load {
    fn start(pod: &Pod, tasks: &[Task]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let run = |task: &Task| {
            let (pod, task, stop) = (pod.clone(), task.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                let mut all = Counts::default();
                while !stop.load(Ordering::Relaxed) {
                    let counts = pod.run(&task).unwrap();
                    all.attempts += counts.attempts;
                    all.answered += counts.answered;
                }
                all
            })
        };
        Self { runs: tasks.iter().map(run).collect(), stop }
    }

    /// One result for each task.
    fn finish(mut self) -> Vec<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        std::mem::take(&mut self.runs).into_iter().map(|run| run.join().unwrap()).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// (attempts, answered, packets sent, packets received) of every edge.
fn rows(report: &Report) -> BTreeMap<String, (u64, u64, u64, u64)> {
    let row = |edge: &support::report::Edge| {
        let counts = edge.counts;
        let packets = (counts.sent_packets, counts.received_packets);
        (edge.shown(), (counts.attempts, counts.answered, packets.0, packets.1))
    };
    report.edges.iter().map(row).collect()
}

/// Both ends count the same attempts, all answered, and the same packets; how many of them.
fn both_ends(report: &Report, who: &str, protocol: &str) -> (u64, u64, u64) {
    let rows = rows(report);
    let row = |direction: &str| rows.get(&format!("{direction} {who} {protocol}")).copied();
    let (Some(egress), Some(ingress)) = (row("egress"), row("ingress")) else {
        panic!("{rows:#?}")
    };
    assert_eq!(egress, ingress, "{who} {protocol}");
    assert_eq!(egress.0, egress.1, "{who} {protocol}: {egress:?}");
    (egress.0, egress.2, egress.3)
}

fn doctor(pins: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let done = Command::new(binary())
        .args(["doctor", "--pin-dir"])
        .arg(pins)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

/// Everything below a folder, sorted.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

/// The moment is too short to be met: links are made under another name first.
fn as_if_killed_while_it_pinned(pins: &Path) {
    for pin in tree(pins) {
        let name = pin.file_name().unwrap().to_str().unwrap();
        if name.starts_with("link_packet_") {
            std::fs::rename(&pin, pin.with_file_name(format!("new_{name}"))).unwrap();
        }
    }
}

#[test]
fn killed_twenty_times_under_load_it_loses_nothing_and_doubles_nothing() {
    let mut node = new_node();
    // The first pod, because the talker finds its namespace by number.
    let talking = node.pod(&PodSpec::new("a", "talker")).unwrap();
    let (client, server, _serving) = two_pods(&mut node);
    let pins = pins(&node);
    let mut agent = start(&node, &pins);
    let mut talker = talker::Talker::start(
        &node,
        &talking,
        server.at(Family::V4, TCP),
        server.at(Family::V6, UDP),
    );
    let tasks: Vec<_> = BOTH
        .into_iter()
        .flat_map(|family| [connect(server.at(family, TCP), 20), send(server.at(family, UDP), 20)])
        .collect();
    let load = Load::start(&client, &tasks);
    for round in 0_u64..20 {
        talker.talk();
        // At another moment of the agent's life each time.
        thread::sleep(Duration::from_millis(31 * (round % 7)));
        agent.kill();
        talker.talk();
        thread::sleep(Duration::from_millis(53 * (round % 5)));
        // One that does not even get as far as that.
        let hasty = Agent::launch(&binary(), &node, &arguments(&pins, &[])).unwrap();
        thread::sleep(Duration::from_millis(40 * (round % 13)));
        hasty.kill();
        if round % 2 == 1 {
            as_if_killed_while_it_pinned(&pins);
        }
        talker.talk();
        agent = start(&node, &pins);
    }
    talker.talk();
    let counts = load.finish();
    let total = |tasks: [usize; 2]| tasks.iter().map(|task| counts[*task].attempts).sum::<u64>();
    let (connections, datagrams) = (total([0, 2]), total([1, 3]));
    assert!(
        counts.iter().all(|one| one.answered == one.attempts && one.attempts > 200),
        "{counts:?}"
    );
    let said = talker.finish();
    let (clients, talkers) = ("a/client -> b/server", "a/talker -> b/server");
    let edges = |who: &str| ["egress", "ingress"].map(|end| format!("{end} {who} UDP/{UDP}"));
    let holds = |report: &Report| {
        let rows = rows(report);
        let sent = |who, count| {
            edges(who).iter().all(|edge| rows.get(edge).is_some_and(|row| row.2 == count))
        };
        let connected = ["egress", "ingress"].map(|end| format!("{end} {clients} TCP/{TCP}"));
        let connected =
            connected.iter().all(|edge| rows.get(edge).is_some_and(|row| row.1 == connections));
        report.pending == 0 && connected && sent(clients, datagrams) && sent(talkers, said)
    };
    let report = agent.report_when(holds).unwrap();
    assert_eq!(both_ends(&report, clients, "TCP/8080").0, connections);
    assert_eq!(both_ends(&report, talkers, "TCP/8080").0, 1);
    assert_eq!(both_ends(&report, talkers, "UDP/5353"), (1, said, said));
    let rows = rows(&report);
    assert_eq!(rows.len(), 8, "every edge has a direction and names: {rows:#?}");
    let [egress, ingress] = edges(clients).map(|edge| rows[&edge]);
    assert_eq!(egress, (datagrams, datagrams, datagrams, datagrams));
    // To the server a port that a later socket is given again is the same client.
    assert_eq!((ingress.2, ingress.3), (datagrams, datagrams));
    assert!(ingress.0 == ingress.1 && ingress.0 <= datagrams, "{ingress:?}");
    assert_eq!(report.lost.values().sum::<u64>(), 0, "{:?}", report.lost);
    assert_eq!((report.pending, report.unjudged), (0, 0));
    assert!(agent.stop().unwrap().success());
}

#[test]
fn what_passes_while_it_is_stopped_is_in_the_next_ones_report() {
    let mut node = new_node();
    let (client, server, _serving) = two_pods(&mut node);
    let pins = pins(&node);
    let edge = "egress a/client -> b/server TCP/8080";
    client.run(&connect(server.at(Family::V4, TCP), 100)).unwrap();
    let agent = start(&node, &pins);
    client.run(&connect(server.at(Family::V4, TCP), 3)).unwrap();
    expect(&agent, &[(edge, &[("answered", 3)])]);
    let there = tree(&pins);
    assert!(agent.stop().unwrap().success());
    assert_eq!(tree(&pins), there, "a stop keeps the pins");
    client.run(&connect(server.at(Family::V6, TCP), 4)).unwrap();
    let agent = start(&node, &pins);
    client.run(&connect(server.at(Family::V4, TCP), 5)).unwrap();
    let report = expect(&agent, &[(edge, &[("answered", 12)])]);
    assert_eq!(both_ends(&report, "a/client -> b/server", "TCP/8080").0, 12);
}

#[test]
fn a_second_agent_with_the_same_pins_says_what_to_do() {
    let mut node = new_node();
    let (client, server, _serving) = two_pods(&mut node);
    let pins = pins(&node);
    let agent = start(&node, &pins);
    let refused = Agent::start_with(&binary(), &node, &arguments(&pins, &[])).unwrap_err();
    let refused = format!("{refused:#}");
    let said = format!(
        "{}: another agent uses these pins\n  costs: two agents would share one set of counters\n  \
         to get it: stop the other one, or give this one a folder of its own with --pin-dir",
        pins.display()
    );
    assert!(refused.contains(&said), "{refused}");
    // With a folder of its own it runs beside the first, and each counts everything.
    let own = arguments(&pins.with_file_name("other"), &[]);
    let second = Agent::start_with(&binary(), &node, &own).unwrap();
    client.run(&connect(server.at(Family::V4, TCP), 3)).unwrap();
    for agent in [&agent, &second] {
        expect(agent, &[("egress a/client -> b/server TCP/8080", &[("answered", 3)])]);
    }
}

#[test]
fn pins_of_another_version_or_size_are_replaced() {
    let mut node = new_node();
    let (client, server, _serving) = two_pods(&mut node);
    let pins = pins(&node);
    let run = |size: &str| {
        let arguments = arguments(&pins, &["--flows-max", size]);
        Agent::start_with(&binary(), &node, &arguments).unwrap()
    };
    let edge = "egress a/client -> b/server TCP/8080";
    let agent = run("8");
    client.run(&connect(server.at(Family::V4, TCP), 3)).unwrap();
    expect(&agent, &[(edge, &[("answered", 3)])]);
    assert!(agent.stop().unwrap().success());
    let folders = || std::fs::read_dir(&pins).unwrap().map(|one| one.unwrap().path());
    let old: Vec<_> = folders().collect();
    let [small] = &old[..] else { panic!("{old:?}") };
    assert!(small.to_str().unwrap().ends_with("-flows8"), "{small:?}");
    let gone = Inventory::of(&pins).unwrap();
    // As an agent of the first version would have left them; and what is nobody's of ours.
    std::fs::rename(small, pins.join("abi1-cgroup1-flows8")).unwrap();
    std::fs::create_dir(pins.join("somebody-else")).unwrap();
    let agent = run("16");
    let mut names: Vec<_> =
        folders().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].starts_with("abi") && names[0].ends_with("-flows16"), "{names:?}");
    assert_eq!(names[1], "somebody-else");
    assert_gone(&gone);
    client.run(&connect(server.at(Family::V4, TCP), 4)).unwrap();
    expect(&agent, &[(edge, &[("answered", 4)])]);
}

/// The kernel frees programs a moment after their last user left.
fn assert_gone(inventory: &Inventory) {
    assert!(!inventory.maps.is_empty() && !inventory.links.is_empty(), "{inventory:?}");
    let since = Instant::now();
    while inventory.remaining() != Inventory::default() && since.elapsed() < Duration::from_secs(10)
    {
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(inventory.remaining(), Inventory::default());
}

#[test]
fn an_uninstall_leaves_nothing_behind() {
    let mut node = new_node();
    let (client, server, _serving) = two_pods(&mut node);
    let pins = pins(&node);
    let bpffs = pins.parent().unwrap();
    // Not every machine has it; then there is nothing to compare.
    let qdiscs = || node.network().within(|| Ok(tool::run("tc", &["qdisc"], "").ok())).unwrap();
    let (tree_before, qdiscs_before) = (tree(bpffs), qdiscs());
    let nothing = format!("nothing to remove: no agent left anything in {}\n", pins.display());
    assert_eq!(doctor(&pins, &["--cleanup"]), (Some(0), nothing.clone(), String::new()));
    let agent = start(&node, &pins);
    client.run(&connect(server.at(Family::V4, TCP), 3)).unwrap();
    let refused = format!(
        "error: cannot clean up {}: an agent is running with these pins, stop it first\n",
        pins.display()
    );
    assert_eq!(doctor(&pins, &["--cleanup"]), (Some(1), String::new(), refused));
    expect(&agent, &[("egress a/client -> b/server TCP/8080", &[("answered", 3)])]);
    let running = Inventory::of(&pins).unwrap();
    assert!(agent.stop().unwrap().success());
    let left = Inventory::of(&pins).unwrap();
    // Flows go on being counted; what watches secret files ends with the agent.
    let is_link = |path: &&PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("link_"))
    };
    let pinned = tree(&pins).iter().filter(is_link).count();
    assert_eq!((&left.maps, left.links.len()), (&running.maps, pinned));
    assert!(left.links.is_subset(&running.links), "{left:?} {running:?}");
    let removed: String = tree(&pins)
        .iter()
        .chain([&pins])
        .map(|path| format!("removed {}\n", path.display()))
        .collect();
    let (code, said, problems) = doctor(&pins, &["--cleanup"]);
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!((code, sorted(&said), problems), (Some(0), sorted(&removed), String::new()));
    assert_gone(&running);
    assert_eq!((tree(bpffs), qdiscs()), (tree_before, qdiscs_before));
    assert_eq!(doctor(&pins, &["--cleanup"]), (Some(0), nothing, String::new()));
    // Whoever comes next begins anew.
    let agent = start(&node, &pins);
    client.run(&connect(server.at(Family::V4, TCP), 4)).unwrap();
    expect(&agent, &[("egress a/client -> b/server TCP/8080", &[("answered", 4)])]);
}

/// So that no test can leave programs in the kernel: a guard does the same after a kill.
#[test]
fn a_panic_takes_pins_and_programs_with_the_node() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let run = thread::spawn(move || {
        let node = new_node();
        let pins = pins(&node);
        let _agent = start(&node, &pins);
        sender.send((node.name().to_owned(), Inventory::of(&pins).unwrap())).unwrap();
        panic!("as planned");
    });
    let (name, there) = receiver.recv().unwrap();
    assert!(run.join().is_err());
    assert_eq!(lifetime::remains(&name).unwrap(), Vec::<String>::new());
    assert_gone(&there);
}

#[test]
fn without_a_bpf_file_system_it_runs_and_says_what_that_costs() {
    let node = new_node();
    let plain = node.folder().join("plain");
    let agent = start(&node, &plain);
    let answer = agent.get("/status").unwrap();
    let status: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let probes = status["probes"].as_array().unwrap();
    let pins = probes.iter().find(|probe| probe["probe"] == "pins").unwrap();
    let problem = format!(
        "{} is not on a BPF file system; mount a BPF file system (mount -t bpf bpf /sys/fs/bpf), \
         into the container too, or name a folder on one with --pin-dir",
        plain.display()
    );
    assert_eq!((&pins["attached"], &pins["error"]), (&false.into(), &problem.into()));
    assert!(!plain.exists());
    assert!(agent.stop().unwrap().success());
    let (_, said, _) = doctor(&plain, &[]);
    let line = format!("reduced pins (bpffs): {} is not on a BPF file system\n", plain.display());
    assert!(said.contains(&line), "{said}");
}
