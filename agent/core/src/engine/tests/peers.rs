//! Pods of other nodes that are looked up when they are met.

use super::*;
use crate::identity::{PEERS_MAX, PeersMet};

const LOOKUPS: fn() -> EngineConfig = || EngineConfig { lookups: true, ..EngineConfig::default() };

fn met(wanted: &[&str], used: &[&str]) -> PeersMet {
    let addrs = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    PeersMet { wanted: addrs(wanted), used: addrs(used) }
}

fn elsewhere(name: &str, ip: &str) -> Change {
    applied_pod(set(pod("shop", name, ip, 50), "/spec/nodeName", json!("n2")))
}

fn range(name: &str, ranges: Value) -> Change {
    Change::Applied(Object::Node(read(json!({
        "metadata": {"name": name}, "spec": {"podCIDRs": ranges},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.9"}]},
    }))))
}

fn asks(peer: &str, at: u64) -> Input {
    flows([flow(1, EGRESS, peer, 80, (at, at))])
}

#[test]
fn a_flow_waits_for_its_lookup_and_is_judged_right_after_it() {
    let nodes = vec![range("n2", json!(["10.0.1.0/24"]))];
    let mut engine =
        run_with(LOOKUPS(), with([Input::Cluster(nodes, t(100)), asks("10.0.1.7", 110)]));
    assert_eq!(engine.take_peers_met(), met(&["10.0.1.7"], &[]));
    assert_eq!((engine.take_peers_met(), engine.snapshot().pending), (met(&[], &[]), 1));
    engine.step(Input::Cluster(vec![elsewhere("far", "10.0.1.7")], t(111)));
    assert_eq!(seen(&mut engine), ["shop/Pod/web -> shop/Pod/far 6/80 egress answered=1"]);
    assert_eq!(engine.take_peers_met(), met(&[], &["10.0.1.7"]));
    // Forgotten, and found again by the next flow: the same pod may be told again.
    engine.step(Input::PodsUnused(vec!["uid-far".to_owned()], t(200)));
    engine.step(asks("10.0.1.7", 210));
    assert_eq!(engine.take_peers_met(), met(&["10.0.1.7"], &[]));
    engine.step(Input::Cluster(vec![elsewhere("far", "10.0.1.7")], t(211)));
    assert_eq!(seen(&mut engine), ["shop/Pod/web -> shop/Pod/far 6/80 egress answered=2"]);
}

#[test]
fn an_address_without_a_pod_is_unknown_after_its_time_and_outside_is_not_asked_for() {
    let nodes = vec![range("n2", json!(["10.0.1.0/24"]))];
    let mut engine = run_with(
        LOOKUPS(),
        with([Input::Cluster(nodes, t(100)), asks("10.0.1.7", 110), asks("10.9.0.1", 110)]),
    );
    assert_eq!(engine.take_peers_met(), met(&["10.0.1.7"], &[]));
    assert_eq!(seen(&mut engine), ["shop/Pod/web -> 10.9.0.1 6/80 egress answered=1"]);
    engine.step(Input::NobodyAt("10.0.1.7".parse().unwrap(), t(109)));
    assert_eq!(engine.snapshot().pending, 1);
    engine.step(Input::Tick(t(110)));
    let unattributed = engine.snapshot().unattributed.clone();
    assert_eq!(unattributed, [((EndSide::Target, "no_holder"), 1)].into());
}

#[test]
fn where_no_node_says_its_range_a_private_address_is_outside_only_once_nobody_is_there() {
    let nodes = vec![range("n1", json!([]))];
    let mut engine = run_with(
        LOOKUPS(),
        with([Input::Cluster(nodes, t(100)), asks("172.16.0.1", 110), asks("8.8.8.8", 110)]),
    );
    assert_eq!(seen(&mut engine), ["shop/Pod/web -> 8.8.8.8 6/80 egress answered=1"]);
    assert_eq!(engine.take_peers_met(), met(&["172.16.0.1"], &[]));
    engine.step(Input::NobodyAt("172.16.0.1".parse().unwrap(), t(109)));
    let both = ["172.16.0.1", "8.8.8.8"];
    let both = both.map(|addr| format!("shop/Pod/web -> {addr} 6/80 egress answered=1"));
    let mut lines = seen(&mut engine);
    lines.sort();
    assert_eq!(lines, both);
}

#[test]
fn what_is_met_is_bounded_and_nothing_is_met_where_all_pods_are_watched() {
    let range = || vec![range("n2", json!(["11.0.0.0/8"]))];
    let ask = |last: u32| {
        let peer = std::net::Ipv4Addr::from(0x0b00_0100 + last).to_string();
        flow(1, EGRESS, &peer, 80, (110, 110))
    };
    let many = || flows((0..u32::try_from(PEERS_MAX).unwrap() + 5).map(ask));
    let mut engine = run_with(LOOKUPS(), with([Input::Cluster(range(), t(100)), many()]));
    assert_eq!(engine.take_peers_met().wanted.len(), PEERS_MAX);
    assert_eq!(engine.snapshot().lost[STAGE_INDEX_FULL], 5);
    let mut engine = run(with([Input::Cluster(range(), t(100)), many()]));
    assert_eq!(engine.take_peers_met(), met(&[], &[]));
}
