//! Sidecar meshes: connections that a pod's own rules turn to a proxy in the same pod.
//!
//! In: a pod with such rules on a simulated node. Out: nothing but assertions.

use std::time::Duration;

use parapet::kernel::KernelConfig;
use parapet_core::record::Counts;
use support::agent::Agent;
use support::network::Family;
use support::pod::{Pod, PodSpec};
use support::task::{HeldLine, Hold, Task};
use support::tool;

use crate::agent::{BOTH, binary, expect, new_node};
use crate::services::{from_pod, server, web};
use crate::watched::{Flows, Watched, outcomes};

const PROXY: u16 = 15_001;

/// Turns what the pod asks these ports for to its proxy.
fn turn(pod: &Pod, ports: &str) {
    let rules = format!(
        "add table inet mesh\n\
         add chain inet mesh out {{ type nat hook output priority -100; }}\n\
         add rule inet mesh out tcp dport {{ {ports} }} redirect to :{PROXY}\n"
    );
    pod.network().within(|| tool::nft(&rules)).unwrap();
}

/// As a sidecar mesh does it. What the proxy asks for then is the pod's traffic.
#[test]
fn what_a_pod_turns_to_a_proxy_of_its_own_is_loopback() {
    let mut node = new_node();
    let app = node.pod(&PodSpec::new("a", "app")).unwrap();
    let (web_pod, _web) = server(&mut node, "web", 8080);
    let service = node.service("b", "web", web(), &[&web_pod]).unwrap();
    let _proxy = app.spawn(&Task::serve_tcp(&[PROXY, 82])).unwrap();
    turn(&app, "80, 81");
    app.network().within(|| tool::nft("add rule inet mesh out tcp dport 82 redirect")).unwrap();
    let agent = Agent::start_on(&binary(), &node, &[]).unwrap();
    for family in BOTH {
        from_pod(&app, service.at(family, 80), 3);
        // Nobody is there, and the proxy answers all the same.
        from_pod(&app, web_pod.at(family, 81), 2);
        from_pod(&app, web_pod.at(family, 82), 2);
        from_pod(&app, web_pod.at(family, 8080), 1);
    }
    let report = expect(
        &agent,
        &[
            ("egress a/app -> loopback TCP/15001", &[("answered", 10)]),
            ("ingress loopback -> a/app TCP/15001", &[("answered", 10)]),
            ("egress a/app -> loopback TCP/82", &[("answered", 4)]),
            ("ingress loopback -> a/app TCP/82", &[("answered", 4)]),
            ("egress a/app -> b/web TCP/8080", &[("answered", 2)]),
            ("ingress a/app -> b/web TCP/8080", &[("answered", 2)]),
        ],
    );
    assert_eq!(report.edges.len(), 6);
}

/// Nothing but the pod's rules says where its packets really go.
#[tokio::test]
async fn a_turned_connection_whose_flow_was_forgotten_is_loopback_again() {
    let idle_max = Duration::from_millis(50);
    let mut watched = Watched::with(new_node(), |config| KernelConfig { idle_max, ..config });
    let (app, web) = (watched.pod("app"), watched.pod("web"));
    turn(&app, "80");
    for family in BOTH {
        let proxy = app.spawn(&Task::serve_tcp(&[PROXY])).unwrap();
        let hold = Hold { target: web.at(family, 80), line: HeldLine::Tcp, count: 0 };
        let held = app.spawn(&Task::Hold(hold)).unwrap();
        let loopback = if family == Family::V4 { "127.0.0.1" } else { "::1" };
        let both = |counts| -> Flows {
            let flows = ["app > {} 6/15001", "app < app 6/15001"];
            flows.map(|flow| (flow.replace("{}", loopback), counts)).into()
        };
        let open = Counts { attempts: 1, answered: 1, ..Counts::default() };
        assert_eq!(outcomes(watched.read()), both(open));
        // Idle, hidden, then free.
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(120)).await;
            assert_eq!(watched.read(), Flows::new());
        }
        assert_eq!(watched.capacity()[0].1, 0, "flows");
        // The first that is heard again comes from the proxy, in the name of who was asked.
        drop(proxy);
        let closed = Counts { closed: 1, ..Counts::default() };
        assert_eq!(outcomes(watched.read()), both(closed));
        // Whose end is nobody's any more.
        drop(held);
        watched.read();
    }
}
