//! The shop on the simulated node: who is there and who talks to whom.
//!
//! In: a node. Out: pods that run, traffic, and what was sent on the dependencies that the policies
//! forgot. It knows nothing of the agent.

use std::collections::VecDeque;
use std::net::IpAddr;

use support::network::{Addresses, Family};
use support::node::Node;
use support::pod::{Owner, Pod, PodSpec};
use support::process::Process;
use support::service::{Port, Service};
use support::task::{Connect, Resolve, Task, Zone};

use crate::secrets::{self, Secrets};

const BOTH: [Family; 2] = [Family::V4, Family::V6];
const METRICS: u16 = 9090;
/// Whom the shop has its payments done by, outside of the cluster.
const PROVIDER: &str = "payments.example";
/// Between two requests of one client.
const PAUSE_MS: u64 = 60;

/// Addresses that the pods of the CronJob take in turn, so that the shop can stay open for long.
const REPORT_HOSTS: [u8; 8] = [100, 101, 102, 103, 104, 105, 106, 107];
/// How many of them stay listed once they are done, as the limit of a CronJob's history.
const HISTORY: usize = 3;

/// The shop while it is open.
pub(crate) struct Shop {
    node: Node,
    clients: Vec<(Pod, Vec<Task>)>,
    database: Service,
    reports: VecDeque<Pod>,
    reports_made: usize,
    secrets: Secrets,
    // Servers stop when these are dropped.
    _servers: Vec<Process>,
}

impl Shop {
    /// Sets up the shop: everything serves, nobody asks yet.
    pub(crate) fn open(mut node: Node) -> anyhow::Result<Self> {
        let app = |namespace: &str, name: &str, owner, port: u16| {
            PodSpec::new(namespace, name)
                .owned_by(owner)
                .port("main", "TCP", port)
                .port("metrics", "TCP", METRICS)
        };
        let frontend = app("web", "frontend", Owner::Deployment, 8080).token();
        let frontend = frontend.mounts(&[(secrets::TOKEN, None)]).sidecar(secrets::SIDECAR, &[]);
        let frontend = node.pod(&frontend)?;
        let api = app("shop", "api", Owner::Deployment, 8080);
        let api = api.secret(secrets::PAYMENTS).secret(secrets::MAIL);
        let api = api.mounts(&[(secrets::PAYMENTS, None), (secrets::MAIL, None)]);
        let api = node.pod(&api)?;
        let database = app("data", "database", Owner::StatefulSet, 5432).secret(secrets::PASSWORD);
        let database = node.pod(&database.mounts(&[(secrets::PASSWORD, None)]))?;
        let cache = node.pod(&app("data", "cache", Owner::Deployment, 6379))?;
        let secrets = Secrets::mount(&node, &frontend, &api, &database)?;
        let scraper = node.pod(&PodSpec::new("monitoring", "scraper"))?;
        let dns = node.pod(&PodSpec::new("kube-system", "coredns").label("k8s-app", "kube-dns"))?;

        let mut servers = Vec::new();
        for (pod, port) in [(&frontend, 8080), (&api, 8080), (&database, 5432), (&cache, 6379)] {
            servers.push(pod.spawn(&Task::serve_tcp(&[port, METRICS]))?);
        }
        let provider = provider(&node)?;
        servers.push(node.spawn_outside(&Task::serve_tcp(&[443]))?);
        servers.push(dns.spawn(&Task::Names(vec![Zone {
            name: PROVIDER.to_string(),
            addresses: provider.clone(),
            padding_bytes: 0,
        }]))?);

        let ports = vec![Port::new("dns", "UDP", 53, 53), Port::new("dns-tcp", "TCP", 53, 53)];
        let dns_service = node.service("kube-system", "kube-dns", ports, &[&dns])?;
        let mut one = |name: &str, pod: &Pod, port, target| {
            node.service(&pod.namespace, name, vec![Port::new("main", "TCP", port, target)], &[pod])
        };
        let api_service = one("api", &api, 80, 8080)?;
        let database_service = one("database", &database, 5432, 5432)?;
        let cache_service = one("cache", &cache, 6379, 6379)?;

        let ask = |service: &Service, port| connect(BOTH.map(|family| service.at(family, port)));
        let resolve_udp = || BOTH.map(|family| resolve(&dns_service, family, false));
        let resolve_tcp = || BOTH.map(|family| resolve(&dns_service, family, true));
        let scraped = [&frontend, &api, &database, &cache];
        let clients = vec![
            (frontend.clone(), [&resolve_udp()[..], &[ask(&api_service, 80)]].concat()),
            (
                api.clone(),
                [
                    &resolve_udp()[..],
                    &resolve_tcp(),
                    &[
                        ask(&database_service, 5432),
                        ask(&cache_service, 6379),
                        connect(provider.into_iter().map(|address| (address, 443).into())),
                    ],
                ]
                .concat(),
            ),
            (scraper, vec![connect(scraped.map(|pod| pod.at(Family::V4, METRICS)))]),
        ];
        Ok(Self {
            node,
            clients,
            database: database_service,
            reports: VecDeque::new(),
            reports_made: 0,
            secrets,
            _servers: servers,
        })
    }

    /// Where it stands.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Everybody reads their secrets, and some those of others.
    pub(crate) fn read_secrets(&mut self) -> anyhow::Result<()> {
        self.secrets.read(&self.node)
    }

    /// Its secrets.
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Everybody asks for names and then does what they do, all at once, until each is done.
    /// Returns how many requests were made on the forgotten ways: to the cache and from the nightly
    /// report.
    pub(crate) fn round(&mut self) -> anyhow::Result<[u64; 2]> {
        let is_question = |task: &Task| matches!(task, Task::Resolve(_));
        finish(self.start(is_question)?)?;
        let running = self.start(|task| !is_question(task))?;
        let report = self.nightly_report()?;
        Ok([finish(running)?, report])
    }

    /// Each with whether it asks the cache.
    fn start(&self, wanted: impl Fn(&Task) -> bool) -> anyhow::Result<Vec<(bool, Process)>> {
        let mut running = Vec::new();
        for (pod, tasks) in &self.clients {
            for task in tasks.iter().filter(|task| wanted(task)) {
                running.push((is_for_cache(task), pod.spawn(task)?));
            }
        }
        Ok(running)
    }

    /// The pod of a CronJob: it lives for about 100 ms and is gone.
    fn nightly_report(&mut self) -> anyhow::Result<u64> {
        let host = REPORT_HOSTS[self.reports_made % REPORT_HOSTS.len()];
        self.reports_made += 1;
        let spec = PodSpec::new("shop", "nightly-report")
            .owned_by(Owner::CronJob)
            .reusing(Addresses::of_pod(host));
        let pod = self.node.pod(&spec)?;
        let counts = pod.run(&Task::connect(self.database.at(Family::V4, 5432), 2))?;
        self.node.complete_pod(&pod)?;
        self.reports.push_back(pod);
        if self.reports.len() > HISTORY {
            self.reports.pop_front().map_or(Ok(()), |pod| self.node.forget_pod(&pod))?;
        }
        Ok(counts.attempts)
    }
}

/// Asks for the provider's addresses.
fn resolve(dns: &Service, family: Family, tcp: bool) -> Task {
    Task::Resolve(Resolve {
        server: dns.at(family, 53),
        name: PROVIDER.to_string(),
        ipv6: family == Family::V6,
        tcp,
        count: 4,
    })
}

/// The addresses of whoever does the payments.
fn provider(node: &Node) -> anyhow::Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for address in ["203.0.113.10", "2001:db8::10"] {
        let address = address.parse()?;
        node.add_outside(address)?;
        addresses.push(address);
    }
    Ok(addresses)
}

/// How many requests went to the cache.
fn finish(running: Vec<(bool, Process)>) -> anyhow::Result<u64> {
    let mut cache = 0;
    for (is_for_cache, process) in running {
        let counts = process.finish()?;
        anyhow::ensure!(counts.answered == counts.attempts, "the shop is broken: {counts:?}");
        cache += if is_for_cache { counts.attempts } else { 0 };
    }
    Ok(cache)
}

fn connect(targets: impl IntoIterator<Item = std::net::SocketAddr>) -> Task {
    Task::Connect(Connect {
        targets: targets.into_iter().collect(),
        count: 4,
        request_bytes: 200,
        timeout_ms: 1_000,
        pause_ms: PAUSE_MS,
    })
}

fn is_for_cache(task: &Task) -> bool {
    matches!(task, Task::Connect(task) if task.targets.iter().all(|target| target.port() == 6379))
}
