//! What becomes of a volume: never read, rotated under its reader, gone, mounted anew.

use std::time::Duration;

use serde_json::json;
use support::agent::Agent;
use support::pod::PodSpec;
use support::reading::{Use, Way};
use support::report::Report;
use support::secret::{SecretVolume, TOKEN_VOLUME};
use support::task::Task;

use super::{api, expect, opened, watch};
use crate::agent::{binary, new_node};

#[test]
fn what_is_mounted_and_never_read_is_said_to_be_so() {
    let mut node = new_node();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    let variable = json!([{"name": "PASS",
        "valueFrom": {"secretKeyRef": {"name": "settings", "key": "pass"}}}]);
    let spec = PodSpec::new("a", "api").secret("db").token();
    let spec = spec.mounts(&[("db", None), (TOKEN_VOLUME, None)]).main("env", variable);
    let api = node.pod(&spec.more("imagePullSecrets", json!([{"name": "pull"}]))).unwrap();
    let db = SecretVolume::secret(&node, &api, "db", &[("pass", "p"), ("user", "u")]).unwrap();
    SecretVolume::token(&node, &api).unwrap();
    watch(&agent, 2);
    let states = |report: &Report| -> Vec<_> {
        let mounts = report.secrets.mounts.iter();
        mounts.map(|it| format!("{}: {}", it.shown(), it.state)).collect()
    };
    let expected = |state: &str| {
        vec![
            format!("a/api db by volume: {state}"),
            "a/api pull by image_pull: unobservable".to_owned(),
            "a/api settings by env: unobservable".to_owned(),
            "a/api token by volume: never_read".to_owned(),
        ]
    };
    let sorted = |report: &Report| {
        let mut states = states(report);
        states.sort_unstable();
        states
    };
    let report = agent.report_when(|report| sorted(report) == expected("never_read")).unwrap();
    assert_eq!(sorted(&report), expected("never_read"));
    let mount = report.secrets.mount("a/api db by volume").unwrap();
    let keys: Vec<_> = mount.keys.iter().map(|key| (&*key.key, &*key.state)).collect();
    assert_eq!(keys, [("pass", "never_read"), ("user", "never_read")]);
    assert!(!mount.watched_since.is_empty());
    let token = report.secrets.token("a/api").unwrap();
    assert_eq!((token.state.as_str(), token.mounted_by.as_str()), ("never_read", "default"));
    // A process of the node is not its owner.
    node.spawn_on_node(&Task::read(db.file("pass"), 1)).unwrap().finish().unwrap();
    api.run(&Task::read(db.file("user"), 1)).unwrap();
    let report = agent.report_when(|report| sorted(report) == expected("read")).unwrap();
    assert_eq!(sorted(&report), expected("read"));
    let mount = report.secrets.mount("a/api db by volume").unwrap();
    let keys: Vec<_> = mount.keys.iter().map(|key| (&*key.key, &*key.state)).collect();
    assert_eq!(keys, [("pass", "never_read"), ("user", "read")]);
}

#[test]
fn a_reader_of_an_old_generation_is_stale_until_it_reads_again() {
    let mut node = new_node();
    let (api, db) = api(&mut node);
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    watch(&agent, 1);
    let old = db.generation().unwrap();
    let holding = api.spawn(&Use::of(db.file("pass"), Way::Open, 1).held().task()).unwrap();
    let own = "a/api db/pass <- self a/api:main";
    expect(&agent, &[(own, 1)]);
    let new = db.write(&[("pass", "2"), ("user", "2")]).unwrap();
    let stale = |report: &Report| -> Vec<[String; 3]> {
        let mount = report.secrets.mount("a/api db by volume").unwrap();
        let stale = mount.stale.iter();
        stale.map(|it| [&it.container, &it.read, &it.current].map(String::clone)).collect()
    };
    let expected: Vec<[String; 3]> = vec![["main".to_owned(), old, new]];
    let report = agent.report_when(|report| stale(report) == expected).unwrap();
    assert_eq!(stale(&report), expected);
    api.run(&Task::read(db.file("pass"), 1)).unwrap();
    let report = agent.report_when(|report| stale(report).is_empty()).unwrap();
    assert_eq!(stale(&report), Vec::<[String; 3]>::new());
    assert_eq!(report.secrets.counts(own).opens, 2);
    holding.finish().unwrap();
}

#[test]
fn a_device_number_used_again_is_never_taken_for_the_old_volume() {
    let mut node = new_node();
    let (_api, db) = api(&mut node);
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    watch(&agent, 1);
    node.spawn_on_node(&Task::read(db.file("pass"), 2)).unwrap().finish().unwrap();
    let before = "a/api db/pass <- node system.slice/node.service";
    expect(&agent, &[(before, 2)]);
    let spec = PodSpec::new("b", "next").secret("key").mounts(&[("key", None)]);
    let next = node.pod(&spec).unwrap();
    let device = |folder: &std::path::Path| rustix::fs::stat(folder).unwrap().st_dev;
    let number = device(db.folder());
    let mut opens = 0;
    let after = "b/next key/k <- self b/next:main";
    for _ in 0..50 {
        // The number is free for the next one, which may be a test beside this one.
        db.unmount().unwrap();
        let key = SecretVolume::mount(&node, &next, "secret", "key").unwrap();
        key.write(&[("k", "v")]).unwrap();
        let is_same = device(key.folder()) == number;
        watch(&agent, 1);
        std::thread::sleep(Duration::from_millis(100));
        next.run(&Task::read(key.file("k"), 3)).unwrap();
        opens += 3;
        opened(&agent, &[(before, 2), (after, opens)]);
        if is_same {
            return;
        }
        key.unmount().unwrap();
        db.mount_again().unwrap();
    }
    panic!("the kernel never gave the number out again");
}

#[test]
fn a_volume_that_comes_later_is_watched_and_one_that_goes_is_forgotten() {
    let mut node = new_node();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    watch(&agent, 0);
    let (api, db) = api(&mut node);
    watch(&agent, 1);
    api.run(&Task::read(db.file("pass"), 2)).unwrap();
    expect(&agent, &[("a/api db/pass <- self a/api:main", 2)]);
    db.unmount().unwrap();
    node.delete_pod(&api).unwrap();
    watch(&agent, 0);
    // What was seen of it stays, and that nobody has it now.
    let gone = |report: &Report| report.secrets.mounts.iter().all(|mount| mount.pods == 0);
    let report = agent.report_when(gone).unwrap();
    assert!(gone(&report), "{:#?}", report.secrets.mounts);
}
