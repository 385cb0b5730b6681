//! Ends by every address that leads to them: Services, nodes, groups.

use super::*;

/// A Service `shop/db` with these fields of `spec` and this `status`.
fn service_with(spec: Value, status: Value) -> Change {
    let metadata = json!({"namespace": "shop", "name": "db"});
    let object = json!({"metadata": metadata, "spec": spec, "status": status});
    Change::Applied(Object::Service(read(object)))
}

fn node_with(name: &str, range: &str, addr: &str, annotations: Value) -> Change {
    Change::Applied(Object::Node(read(json!({
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"podCIDRs": [range]},
        "status": {"addresses": [{"type": "InternalIP", "address": addr}]},
    }))))
}

/// What web is seen to ask, with these objects, at these addresses and ports.
fn asked<const N: usize>(more: Vec<Change>, asked: [(&str, u16); N]) -> Vec<String> {
    let ask = |(addr, port)| flow(1, EGRESS, addr, port, (110, 110));
    let mut engine =
        run(with([Input::Cluster(more, t(100)), flows(asked.map(ask)), Input::Tick(t(200))]));
    let lines = seen(&mut engine).into_iter();
    let short = |line: String| {
        let line = line.strip_prefix("shop/Pod/web -> ").unwrap_or(&line).to_owned();
        line.strip_suffix(" egress answered=1").map(str::to_owned).unwrap_or(line)
    };
    lines.map(short).collect()
}

fn backend() -> Change {
    slice(json!([{"addresses": ["10.0.0.20"]}]), 5432)
}

#[test]
fn a_service_is_asked_by_its_load_balancer_too() {
    let ports = json!([{"name": "pg", "port": 80, "nodePort": 30080}]);
    let spec = json!({"clusterIP": "10.96.0.5", "type": "LoadBalancer", "ports": ports});
    let status = json!({"loadBalancer": {"ingress": [
        {"ip": "203.0.113.5", "ports": []}, {"ip": "203.0.113.6", "ipMode": "VIP"},
        {"ip": "203.0.113.7", "ipMode": "Proxy"}, {"hostname": "lb.example"},
    ]}});
    let asks = [
        ("10.96.0.5", 80),
        ("203.0.113.5", 80),
        ("203.0.113.6", 80),
        ("203.0.113.7", 80),
        ("203.0.113.5", 30080),
    ];
    let seen = asked(vec![service_with(spec, status), backend()], asks);
    // The third goes to the load balancer itself, and no port of the last leads anywhere.
    let expected =
        ["203.0.113.7 6/80", "shop/Pod/db 6/5432 egress answered=3", "service/shop/db 6/30080"];
    let mut sorted = [seen, Vec::new()].concat();
    sorted.sort();
    let mut expected = expected.map(str::to_owned);
    expected.sort();
    assert_eq!(sorted, expected);
}

#[test]
fn a_node_port_leads_to_the_service_on_every_node_and_other_ports_do_not() {
    let ports = json!([{"name": "pg", "port": 80, "nodePort": 30080},
        {"name": "pg", "port": 81, "nodePort": 30081, "protocol": "UDP"}]);
    let spec = |kind: &str| {
        json!({"clusterIP": "10.96.0.5", "type": kind, "ports": ports,
        "externalTrafficPolicy": "Local"})
    };
    let other = node_with("n2", "10.0.1.0/24", "192.168.0.2", json!({}));
    let objects = |kind| vec![service_with(spec(kind), json!({})), backend(), other.clone()];
    let asks = [
        ("192.168.0.1", 30080),
        ("10.0.0.1", 30080),
        ("192.168.0.2", 30080),
        ("192.168.0.2", 30081),
        ("192.168.0.2", 22),
        ("10.0.0.20", 30080),
    ];
    assert_eq!(
        asked(objects("NodePort"), asks),
        [
            "node/n2 6/22",
            "shop/Pod/db 6/5432 egress answered=3",
            "shop/Pod/db 6/30080",
            "node/n2 6/30081",
        ]
    );
    assert_eq!(asked(objects("LoadBalancer"), asks), asked(objects("NodePort"), asks));
    // What is left of a Service that was of another type.
    assert_eq!(
        asked(objects("ClusterIP"), asks),
        [
            "node/n2 6/22",
            "shop/Pod/db 6/30080",
            "node/n1 6/30080 egress answered=2",
            "node/n2 6/30080",
            "node/n2 6/30081",
        ]
    );
}

#[test]
fn a_headless_service_has_no_address_and_its_pods_are_themselves() {
    let ports = json!([{"name": "pg", "port": 80, "targetPort": 5432}]);
    let spec = json!({"clusterIP": "None", "clusterIPs": ["None"], "type": "ClusterIP",
        "ports": ports});
    let objects = vec![service_with(spec, json!({"loadBalancer": {}})), backend()];
    assert_eq!(asked(objects, [("10.0.0.20", 5432)]), ["shop/Pod/db 6/5432"]);
}

#[test]
fn other_nodes_are_known_by_bridges_and_tunnels_unless_a_pod_is_there() {
    let annotations = json!({
        "projectcalico.org/IPv4Address": "192.0.2.99/24",
        "projectcalico.org/IPv4IPIPTunnelAddr": "10.9.0.1",
        "projectcalico.org/IPv4VXLANTunnelAddr": "10.9.0.2/32",
        "projectcalico.org/IPv4WireguardInterfaceAddr": "10.9.0.3",
        "network.cilium.io/ipv4-cilium-host": "10.9.0.4",
        "io.cilium.network.ipv4-cilium-host": "no address",
        "huge": {"not": "even a text"},
    });
    let objects = vec![
        node_with("n2", "10.0.1.0/24", "192.168.0.2", annotations),
        node_with("n3", "10.0.3.0/31", "192.168.0.3", Value::Null),
        applied_pod(pod("shop", "calico", "10.0.1.1", 10)),
        applied_pod(pod("shop", "late", "10.9.0.3", 105)),
    ];
    let asks = [
        ("10.0.1.0", 1),
        ("10.0.1.1", 2),
        ("10.0.1.2", 3),
        ("10.9.0.1", 4),
        ("10.9.0.2", 5),
        ("10.9.0.3", 6),
        ("10.9.0.4", 7),
        ("192.0.2.99", 8),
        ("10.0.3.0", 9),
    ];
    assert_eq!(
        asked(objects, asks),
        [
            "node/n2 6/1",
            "shop/Pod/calico 6/2",
            "?no_holder 6/3",
            "node/n2 6/4",
            "node/n2 6/5",
            "shop/Pod/late 6/6",
            "node/n2 6/7",
            "192.0.2.99 6/8",
            "?no_holder 6/9",
        ]
    );
}

#[test]
fn what_is_only_likely_a_node_waits_for_a_pod_that_is_on_its_way() {
    let n2 = node_with("n2", "10.0.1.0/24", "192.168.0.2", json!({}));
    let mut engine = run(with([
        Input::Cluster(vec![n2], t(100)),
        flows([flow(1, EGRESS, "10.0.1.1", 80, (101, 101))]),
    ]));
    assert_eq!((engine.snapshot().pending, seen(&mut engine)), (1, vec![]));
    let pod = applied_pod(pod("shop", "new", "10.0.1.1", 100));
    engine.step(Input::Cluster(vec![pod], t(102)));
    assert_eq!(seen(&mut engine), ["shop/Pod/web -> shop/Pod/new 6/80 egress answered=1"]);
}

#[test]
fn what_goes_to_many_at_once_is_no_outside_end() {
    let facts = Input::Node(NodeFacts {
        name: "n1".to_owned(),
        addrs: vec![IpAddr::from([192, 168, 0, 1]), IpAddr::from([10, 0, 0, 1])],
        broadcasts: vec![IpAddr::from([10, 0, 0, 255]), IpAddr::from([10, 0, 0, 20])],
    });
    let asks = ["224.0.0.251", "ff02::fb", "255.255.255.255", "10.0.0.255", "10.0.0.20"];
    let asks = asks.map(|addr| flow(1, EGRESS, addr, 5353, (110, 110)));
    let deny = policy(
        "shop",
        "web",
        json!({"podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Egress"]}),
    );
    let inputs = [facts, flows(asks), candidate("c", vec![deny], 110)];
    let config = EngineConfig { candidates: vec!["c".into()], ..EngineConfig::default() };
    let mut engine = run_with(config, with(inputs));
    engine.step(Input::Tick(t(200)));
    let mut lines = seen(&mut engine);
    lines.sort();
    assert_eq!(
        lines,
        [
            "shop/Pod/web -> broadcast/10.0.0.255 6/5353 egress answered=1",
            "shop/Pod/web -> broadcast/255.255.255.255 6/5353 egress answered=1",
            "shop/Pod/web -> multicast/224.0.0.251 6/5353 egress answered=1",
            "shop/Pod/web -> multicast/ff02::fb 6/5353 egress answered=1",
            // Whatever the node's networks look like, a pod holds this one.
            "shop/Pod/web -> shop/Pod/db 6/5353 egress answered=1",
        ]
    );
    let mut verdicts = judged(&mut engine);
    verdicts.retain(|line| line.starts_with("multicast/224"));
    assert_eq!(
        verdicts,
        ["multicast/224.0.0.251 c=undecidable:egress:cni_dependent[undecidable] \
          default-deny=undecidable:egress:cni_dependent[undecidable] \
          enforced=allowed:egress:not_isolated"]
    );
}
