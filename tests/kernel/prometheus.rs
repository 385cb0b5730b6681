//! A real Prometheus reads the agent, and promtool its text.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::agent::Agent;
use support::network::Family;
use support::pod::PodSpec;
use support::task::Task;
use support::{cgroup, http, tool};

use crate::agent::{binary, new_node};

/// Killed when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn prometheus_scrapes_the_counts_and_promtool_has_no_complaint() {
    let mut node = new_node();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let server = node.pod(&PodSpec::new("b", "server")).unwrap();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    let _serving = server.spawn(&Task::serve_tcp(&[8080])).unwrap();
    client.run(&Task::connect(server.at(Family::V4, 8080), 9)).unwrap();

    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let config = node.folder().join("prometheus.yaml");
    let text = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: parapet\n    \
         static_configs: [{{targets: [\"{}\"]}}]\n",
        agent.address()
    );
    std::fs::write(&config, text).unwrap();
    let prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", node.folder().join("tsdb").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let prometheus = Server(prometheus);
    cgroup::join(&node.side_cgroup().unwrap(), prometheus.0.id()).unwrap();

    let query = "sum%20by%20(direction,source_workload,target_workload,target_port,outcome)\
                 (parapet_flow_attempts_total)%3E0";
    let since = Instant::now();
    let mut seen = Vec::new();
    while seen.len() < 2 && since.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(200));
        let path = format!("/api/v1/query?query={query}");
        let answer = http::get(address, &path).map(|answer| answer.body).unwrap_or_default();
        seen = samples(&answer);
    }
    let expected =
        ["egress", "ingress"].map(|direction| format!("{direction} client server 8080 answered 9"));
    assert_eq!(seen, expected);

    let metrics = http::get(agent.address(), "/metrics").unwrap();
    assert!(metrics.head.contains("text/plain"), "{}", metrics.head);
    tool::run("promtool", &["check", "metrics"], &metrics.body).unwrap();
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// The labels and value of each sample, sorted.
fn samples(answer: &str) -> Vec<String> {
    let answer: Value = serde_json::from_str(answer).unwrap_or_default();
    let results = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    let labels = ["direction", "source_workload", "target_workload", "target_port", "outcome"];
    let mut samples: Vec<_> = results
        .iter()
        .map(|sample| {
            let mut words =
                labels.map(|label| sample["metric"][label].as_str().unwrap_or("?")).to_vec();
            words.push(sample["value"][1].as_str().unwrap_or("?"));
            words.join(" ")
        })
        .collect();
    samples.sort();
    samples
}
