//! Who reads which Secret, as the running agent reports it: every number is the reader's own.
//!
//! In: pods, volumes and readers of the simulated node. Out: assertions on the `secrets` part of
//! the report.

use std::collections::BTreeMap;
use std::time::Duration;

use support::agent::Agent;
use support::node::Node;
use support::pod::{Pod, PodSpec};
use support::reading::{Use, Way};
use support::report::Report;
use support::secret::{SecretVolume, TOKEN_VOLUME};
use support::task::Task;

use crate::agent::{binary, new_node};

mod evasions;
mod floods;
mod states;

const KUBELET: &str = "system.slice/kubelet.service";
const RUNTIME: &str = "system.slice/containerd.service";

/// Waits until the agent watches this many superblocks.
fn watch(agent: &Agent, volumes: u64) {
    agent.wait_for_volumes(volumes).unwrap();
}

/// The first report that has exactly these reads, with their opens; asserts that, and no loss.
fn expect(agent: &Agent, expected: &[(&str, u64)]) -> Report {
    let report = opened(agent, expected);
    assert_eq!(report.lost.values().sum::<u64>(), 0, "{:?}", report.lost);
    report
}

/// The same, whatever was lost.
fn opened(agent: &Agent, expected: &[(&str, u64)]) -> Report {
    let expected: BTreeMap<_, _> =
        expected.iter().map(|(read, opens)| ((*read).to_string(), *opens)).collect();
    let report = agent.report_when(|report| report.secrets.opens() == expected).unwrap();
    assert_eq!(report.secrets.opens(), expected, "{:#?}", report.secrets);
    assert_eq!(report.secrets.unattributed, BTreeMap::new());
    report
}

/// A pod `a/api` whose container `main` mounts the Secret `db`, with its volume.
fn api(node: &mut Node) -> (Pod, SecretVolume) {
    let spec = PodSpec::new("a", "api").secret("db").mounts(&[("db", None)]);
    let pod = node.pod(&spec.sidecar("proxy", &[])).unwrap();
    let volume = SecretVolume::secret(node, &pod, "db", &[("pass", "p"), ("user", "u")]).unwrap();
    (pod, volume)
}

#[test]
fn every_relation_of_a_reader_to_a_secret_is_told_apart() {
    let mut node = new_node();
    let (api, db) = api(&mut node);
    let web = node.pod(&PodSpec::new("b", "web")).unwrap();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    watch(&agent, 1);
    let read = |count| Task::read(db.file("pass"), count);
    api.run(&read(3)).unwrap();
    api.run(&Task::read(db.file("user"), 1)).unwrap();
    api.run_in("proxy", &read(2)).unwrap();
    web.run(&read(4)).unwrap();
    node.spawn_on_node(&read(5)).unwrap().finish().unwrap();
    node.spawn_as(KUBELET, &read(6)).unwrap().finish().unwrap();
    node.spawn_as(RUNTIME, &read(7)).unwrap().finish().unwrap();
    let report = expect(
        &agent,
        &[
            ("a/api db/pass <- self a/api:main", 3),
            ("a/api db/user <- self a/api:main", 1),
            ("a/api db/pass <- sibling a/api:proxy", 2),
            ("a/api db/pass <- other_pod b/web:main", 4),
            ("a/api db/pass <- node system.slice/node.service", 5),
            ("a/api db/pass <- kubelet system.slice/kubelet.service", 6),
            ("a/api db/pass <- runtime system.slice/containerd.service", 7),
        ],
    );
    let generation = db.generation().unwrap();
    for read in &report.secrets.reads {
        let about = (read.program.as_str(), read.comm.as_str(), read.uid, read.generation.as_str());
        assert_eq!(about, ("parapet-traffic", "parapet-traffic", 0, generation.as_str()));
        assert_ne!(read.pid, 0);
    }
    let mount = report.secrets.mount("a/api db by volume").unwrap();
    assert_eq!((mount.state.as_str(), mount.pods, mount.has_gaps), ("read", 1, false));
    assert_eq!(mount.containers, ["main"]);
    assert!(agent.stop().unwrap().success());
}

#[test]
fn two_pods_that_share_a_secret_have_a_volume_each() {
    let mut node = new_node();
    let pod = |node: &mut Node, name: &str| {
        let spec = PodSpec::new("a", name).secret("shared").mounts(&[("shared", None)]);
        let pod = node.pod(&spec).unwrap();
        let volume = SecretVolume::secret(node, &pod, "shared", &[("key", "k")]).unwrap();
        (pod, volume)
    };
    let (one, first) = pod(&mut node, "one");
    let (two, second) = pod(&mut node, "two");
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    watch(&agent, 2);
    one.run(&Task::read(first.file("key"), 2)).unwrap();
    two.run(&Task::read(second.file("key"), 3)).unwrap();
    two.run(&Task::read(first.file("key"), 4)).unwrap();
    let report = expect(
        &agent,
        &[
            ("a/one shared/key <- self a/one:main", 2),
            ("a/two shared/key <- self a/two:main", 3),
            ("a/one shared/key <- other_pod a/two:main", 4),
        ],
    );
    let states: Vec<_> =
        report.secrets.mounts.iter().map(|it| (it.shown(), it.state.as_str())).collect();
    let read = |owner: &str| (format!("{owner} shared by volume"), "read");
    assert_eq!(states, [read("a/one"), read("a/two")]);
}

#[test]
fn the_parts_of_a_projected_volume_are_told_apart() {
    let mut node = new_node();
    let spec = PodSpec::new("a", "api").token().mounts(&[(TOKEN_VOLUME, None)]);
    let api = node.pod(&spec).unwrap();
    let volume = SecretVolume::token(&node, &api).unwrap();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    watch(&agent, 1);
    for (file, count) in [("token", 2), ("ca.crt", 3), ("namespace", 4)] {
        api.run(&Task::read(volume.file(file), count)).unwrap();
    }
    let report = expect(
        &agent,
        &[
            ("a/api token/token <- self a/api:main", 2),
            ("a/api configmap:kube-root-ca.crt/ca.crt <- self a/api:main", 3),
            ("a/api downward/namespace <- self a/api:main", 4),
        ],
    );
    let token = report.secrets.token("a/api").unwrap();
    assert_eq!((token.state.as_str(), token.is_candidate), ("read", false));
    assert_eq!(token.read_by, ["main"]);
}

#[test]
fn named_files_of_the_node_are_watched_and_their_neighbours_are_not() {
    let mut node = new_node();
    let web = node.pod(&PodSpec::new("b", "web")).unwrap();
    let folder = node.folder().join("pki");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["ca.key", "other"] {
        std::fs::write(folder.join(name), name).unwrap();
    }
    let key = folder.join("ca.key").to_str().unwrap().to_owned();
    let arguments = ["--pin-dir", "none", "--watch-file", &key].map(str::to_owned);
    let agent = Agent::start_with(&binary(), &node, &arguments).unwrap();
    watch(&agent, 1);
    let both = Use { paths: vec![folder.join("ca.key"), folder.join("other")], ..Use::default() };
    web.run(&Use { count: 3, ..both.clone() }.task()).unwrap();
    node.spawn_on_node(&Use { count: 2, ..both.clone() }.task()).unwrap().finish().unwrap();
    let pod = format!("node file:{key}/ <- other_pod b/web:main");
    let own = format!("node file:{key}/ <- node system.slice/node.service");
    expect(&agent, &[(&pod, 3), (&own, 2)]);
    // Replaced, as every tool does it.
    std::fs::write(folder.join("draft"), "2").unwrap();
    std::fs::rename(folder.join("draft"), folder.join("ca.key")).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    web.run(&Use { count: 4, ..both }.task()).unwrap();
    expect(&agent, &[(&pod, 7), (&own, 2)]);
}

#[test]
fn hostile_names_are_shown_as_what_they_are_not() {
    let mut node = new_node();
    let (api, db) = api(&mut node);
    let name = format!("\u{1b}[31m\n\r{}", "x".repeat(200));
    let program = node.folder().join(&name);
    std::fs::copy(env!("CARGO_BIN_EXE_parapet-traffic"), &program).unwrap();
    let mut hostile = api.clone();
    hostile.run_as(&program);
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    watch(&agent, 1);
    let task = Use {
        comm: Some("\u{1b}]0;x\u{7}\n".to_owned()),
        ..Use::of(db.file("pass"), Way::Open, 1)
    };
    hostile.run(&task.task()).unwrap();
    let report = expect(&agent, &[("a/api db/pass <- self a/api:main", 1)]);
    let read = &report.secrets.reads[0];
    for shown in [&read.comm, &read.program] {
        assert!(!shown.is_empty() && shown.len() < 200, "{shown:?}");
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }
}
