//! A big cluster: 1,000 policies, 10,000 pods.
//!
//! In: how many namespaces share them. Out: the objects, the compiled set, the pods. It measures
//! nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use parapet_core::flow::{End, Endpoint, PodIdentity, Protocol, Workload};
use parapet_core::object::NetworkPolicy;
use parapet_core::policy::{CompiledPolicy, Probe, Selection, compile};

pub(crate) const POLICIES: usize = 1_000;
pub(crate) const PODS: usize = 10_000;
/// From pod i to pod (i + a prime), so that namespaces mix.
const STEP: usize = 7_919;

pub(crate) struct Cluster {
    pub(crate) objects: Vec<NetworkPolicy>,
    pub(crate) labels: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) pods: Vec<End>,
}

impl Cluster {
    /// Namespaces are known; nothing is linked or identified.
    pub(crate) fn selection(&self) -> Selection {
        let mut selection = Selection::default();
        for (name, labels) in &self.labels {
            selection.insert_namespace(name, labels);
        }
        selection
    }

    /// The policies as they come from the API.
    pub(crate) fn compiled(&self) -> impl Iterator<Item = CompiledPolicy> {
        self.objects.iter().map(|object| compile(object, "enforced".into()).unwrap())
    }

    /// The connection with this number.
    pub(crate) fn probe(&self, number: usize) -> Probe<'_> {
        Probe {
            source: &self.pods[number.wrapping_mul(STEP) % PODS],
            target: &self.pods[(number.wrapping_mul(STEP) + number / PODS + STEP) % PODS],
            protocol: Protocol::TCP,
            port: 8080,
        }
    }
}

/// Each policy selects the pods of one app in its namespace and lets in one other app of a team.
pub(crate) fn cluster(namespace_count: usize) -> Cluster {
    let labels = (0..namespace_count).map(|index| {
        let labels = BTreeMap::from([("team".to_owned(), format!("t{}", index % 5))]);
        (format!("ns{index}"), labels)
    });
    let objects = (0..POLICIES).map(|index| {
        let (namespace, app) = (index % namespace_count, index / namespace_count);
        policy(&format!("p{index}"), namespace, app, app + 1)
    });
    let apps = POLICIES / namespace_count + 1;
    let pods = (0..PODS).map(|index| pod(index, index % namespace_count, index % apps)).collect();
    Cluster { objects: objects.collect(), labels: labels.collect(), pods }
}

/// Selects the pods of one app and lets in another one of a team.
pub(crate) fn policy(name: &str, namespace: usize, app: usize, from: usize) -> NetworkPolicy {
    let yaml = format!(
        "{{metadata: {{name: {name}, namespace: ns{namespace}}}, spec: {{
            podSelector: {{matchLabels: {{app: a{app}}}}},
            ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{team: t1}}}},
                podSelector: {{matchLabels: {{app: a{from}}}}}}}], ports: [{{port: 8080}}]}}],
            egress: [{{to: [{{ipBlock: {{cidr: 10.0.0.0/8}}}}], ports: [{{port: 8080}}]}},
                {{ports: [{{port: 53, protocol: UDP}}]}}]}}}}"
    );
    serde_saphyr::from_str(&yaml).unwrap()
}

fn pod(index: usize, namespace: usize, app: usize) -> End {
    let addr = format!("10.{}.{}.1", index / 256, index % 256).parse().unwrap();
    let label = |key: &str, value: String| (Arc::from(key), Arc::from(value));
    let identity = PodIdentity {
        uid: format!("uid-{index}").into(),
        namespace: format!("ns{namespace}").into(),
        name: format!("pod-{index}").into(),
        labels: [
            label("app", format!("a{app}")),
            label("pod-template-hash", format!("{index:x}")),
            label("tier", "web".to_owned()),
        ]
        .into(),
        node: format!("n{}", index % 100).into(),
        host_network: false,
        addrs: [addr].into(),
        named_ports: [].into(),
        workload: Workload { kind: "Deployment".into(), name: format!("a{app}").into() },
        service_account: "default".into(),
    };
    End { addr: Some(addr), endpoint: Endpoint::Pod(Arc::new(identity)) }
}
