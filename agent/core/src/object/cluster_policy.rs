//! The cluster-scoped policies of policy.networking.k8s.io, as their APIs have them:
//! ClusterNetworkPolicy v1alpha2 (and v1beta1, of the same shape), and the legacy
//! AdminNetworkPolicy and BaselineAdminNetworkPolicy v1alpha1 as of release v0.1.7.
//!
//! Unknown fields are errors, but in peers and ports: there the API asks implementations to expect
//! fields that are newer than they are and to fail closed, so they are kept by name.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{LabelSelector, Meta};

/// Fields that this version does not know, by name.
pub type UnknownFields = BTreeMap<String, IgnoredAny>;

/// policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ClusterNetworkPolicy {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: ClusterNetworkPolicySpec,
}

/// `spec` of a ClusterNetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ClusterNetworkPolicySpec {
    pub tier: Option<String>,
    pub priority: Option<i64>,
    pub subject: Option<ClusterPolicySubject>,
    pub ingress: Option<Vec<ClusterPolicyRule>>,
    pub egress: Option<Vec<ClusterPolicyRule>>,
}

/// `ingress[]` and `egress[]` of a ClusterNetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ClusterPolicyRule {
    pub name: Option<String>,
    #[serde(default)]
    pub action: String,
    pub from: Option<Vec<ClusterPolicyPeer>>,
    pub to: Option<Vec<ClusterPolicyPeer>>,
    pub protocols: Option<Vec<ClusterPolicyProtocol>>,
}

/// policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy, and BaselineAdminNetworkPolicy, which has
/// no priority.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct AdminNetworkPolicy {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: AdminNetworkPolicySpec,
}

/// `spec` of an AdminNetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct AdminNetworkPolicySpec {
    pub priority: Option<i64>,
    pub subject: Option<ClusterPolicySubject>,
    pub ingress: Option<Vec<AdminPolicyRule>>,
    pub egress: Option<Vec<AdminPolicyRule>>,
}

/// `ingress[]` and `egress[]` of an AdminNetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct AdminPolicyRule {
    pub name: Option<String>,
    #[serde(default)]
    pub action: String,
    pub from: Option<Vec<ClusterPolicyPeer>>,
    pub to: Option<Vec<ClusterPolicyPeer>>,
    pub ports: Option<Vec<AdminPolicyPort>>,
}

/// `subject`: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ClusterPolicySubject {
    pub namespaces: Option<LabelSelector>,
    pub pods: Option<NamespacedPods>,
}

/// `pods` of a subject or peer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct NamespacedPods {
    pub namespace_selector: Option<LabelSelector>,
    pub pod_selector: Option<LabelSelector>,
}

/// `from[]` and `to[]`: exactly one field is set. The last three are for egress only.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ClusterPolicyPeer {
    pub namespaces: Option<LabelSelector>,
    pub pods: Option<NamespacedPods>,
    pub nodes: Option<LabelSelector>,
    pub networks: Option<Vec<String>>,
    pub domain_names: Option<Vec<String>>,
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

/// `protocols[]` of a ClusterNetworkPolicy: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ClusterPolicyProtocol {
    pub tcp: Option<ProtocolPorts>,
    pub udp: Option<ProtocolPorts>,
    pub sctp: Option<ProtocolPorts>,
    pub destination_named_port: Option<String>,
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

/// `tcp`, `udp` and `sctp`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ProtocolPorts {
    pub destination_port: Option<PortOrRange>,
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

/// `destinationPort`: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct PortOrRange {
    pub number: Option<i64>,
    pub range: Option<PortRange>,
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

/// `range`, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct PortRange {
    #[serde(default)]
    pub start: i64,
    #[serde(default)]
    pub end: i64,
}

/// `ports[]` of an AdminNetworkPolicy: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct AdminPolicyPort {
    pub port_number: Option<AdminPortNumber>,
    pub named_port: Option<String>,
    pub port_range: Option<AdminPortRange>,
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

/// `portNumber`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct AdminPortNumber {
    pub protocol: Option<String>,
    #[serde(default)]
    pub port: i64,
}

/// `portRange`, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct AdminPortRange {
    pub protocol: Option<String>,
    #[serde(default)]
    pub start: i64,
    #[serde(default)]
    pub end: i64,
}
