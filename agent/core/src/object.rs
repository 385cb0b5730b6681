//! The Kubernetes objects Parapet reads, in the shape of their API and with only the fields it
//! uses.
//!
//! In: YAML or JSON (by serde, from files) or a watch. Out: [`Change`]s for the index and the
//! policy sets. Absent and empty stay apart here, as the API has them; nothing is defaulted in this
//! file.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Unexpected, Visitor};

pub use self::change::*;
pub use self::cluster_policy::*;
pub use self::parts::*;
pub use self::pod::*;
pub use self::policy::*;
pub use self::rbac::*;

mod change;
mod cluster_policy;
mod parts;
mod pod;
mod policy;
mod rbac;

/// `metadata`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of ObjectMeta v1")]
pub struct Meta {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub namespace: String,
    #[serde(default)]
    pub uid: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Of these only [`NODE_ADDRESS_ANNOTATIONS`] and [`MIRROR_ANNOTATION`]: others may be as large
    /// as the object itself.
    #[serde(default, deserialize_with = "known_annotations")]
    pub annotations: BTreeMap<String, String>,
    /// RFC 3339.
    pub creation_timestamp: Option<String>,
    /// RFC 3339. Set while the object is being deleted.
    pub deletion_timestamp: Option<String>,
    #[serde(default)]
    pub owner_references: Vec<OwnerReference>,
}

/// Annotations of a Node by which network plugins say addresses that the node has for itself, of
/// its tunnels and bridges: projectcalico/calico libcalico-go/lib/backend/k8s/resources/node.go and
/// cilium/cilium pkg/annotation/k8s.go (the names without a slash are those of before Cilium 1.14).
pub const NODE_ADDRESS_ANNOTATIONS: [&str; 9] = [
    "projectcalico.org/IPv4IPIPTunnelAddr",
    "projectcalico.org/IPv4VXLANTunnelAddr",
    "projectcalico.org/IPv6VXLANTunnelAddr",
    "projectcalico.org/IPv4WireguardInterfaceAddr",
    "projectcalico.org/IPv6WireguardInterfaceAddr",
    "network.cilium.io/ipv4-cilium-host",
    "network.cilium.io/ipv6-cilium-host",
    "io.cilium.network.ipv4-cilium-host",
    "io.cilium.network.ipv6-cilium-host",
];

/// Annotation of the Pod object that stands for a pod which a node's kubelet runs from a file: the
/// UID by which the kubelet itself, and so its cgroup, knows the pod (kubernetes/pkg/kubelet/types,
/// `ConfigMirrorAnnotationKey`). The object has another one.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// `metadata.ownerReferences[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of OwnerReference v1")]
pub struct OwnerReference {
    #[serde(default)]
    pub api_version: String,
    pub kind: String,
    pub name: String,
    #[serde(default)]
    pub uid: String,
    #[serde(default)]
    pub controller: bool,
}

/// core/v1 Namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct Namespace {
    pub metadata: Meta,
}

/// core/v1 Node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct Node {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: NodeSpec,
    #[serde(default)]
    pub status: NodeStatus,
}

/// `spec` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct NodeSpec {
    #[serde(default, rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
}

/// `status` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct NodeStatus {
    #[serde(default)]
    pub addresses: Vec<NodeAddress>,
}

/// `status.addresses[]` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct NodeAddress {
    #[serde(rename = "type")]
    pub kind: String,
    pub address: String,
}

/// core/v1 Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct Service {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: ServiceSpec,
    #[serde(default)]
    pub status: ServiceStatus,
}

/// `status` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ServiceStatus {
    #[serde(default)]
    pub load_balancer: LoadBalancerStatus,
}

/// `status.loadBalancer` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct LoadBalancerStatus {
    #[serde(default)]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// `status.loadBalancer.ingress[]` of a Service. One with a host name alone has no address.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct LoadBalancerIngress {
    #[serde(default)]
    pub ip: String,
    pub ip_mode: Option<String>,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ServiceSpec {
    #[serde(default, rename = "clusterIP")]
    pub cluster_ip: String,
    #[serde(default, rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    #[serde(default, rename = "externalIPs")]
    pub external_ips: Vec<String>,
    #[serde(default, rename = "type")]
    pub kind: String,
    pub external_traffic_policy: Option<String>,
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
    #[serde(default)]
    pub ports: Vec<ServicePort>,
}

/// `spec.ports[]` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ServicePort {
    #[serde(default)]
    pub name: String,
    pub protocol: Option<String>,
    pub port: u16,
    pub target_port: Option<IntOrString>,
    pub node_port: Option<u16>,
}

/// discovery.k8s.io/v1 EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct EndpointSlice {
    pub metadata: Meta,
    #[serde(default)]
    pub address_type: String,
    #[serde(default, deserialize_with = "or_default")]
    pub endpoints: Vec<SliceEndpoint>,
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<SlicePort>,
}

/// `endpoints[]` of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct SliceEndpoint {
    #[serde(default)]
    pub addresses: Vec<String>,
    #[serde(default)]
    pub conditions: SliceConditions,
}

/// `endpoints[].conditions` of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct SliceConditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

/// `ports[]` of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct SlicePort {
    pub name: Option<String>,
    pub protocol: Option<String>,
    pub port: Option<u16>,
}

/// Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, CronJob: of these only the owner chain
/// counts.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct WorkloadObject {
    #[serde(skip)]
    pub api_kind: String,
    pub metadata: Meta,
}

/// A null, as the API server writes empty lists of some fields, is an absent field.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Keeps the annotations that are read, whatever the values of the others are.
fn known_annotations<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    struct Known;

    impl<'de> Visitor<'de> for Known {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("annotations")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut known = BTreeMap::new();
            while let Some(name) = map.next_key::<String>()? {
                if name == MIRROR_ANNOTATION || NODE_ADDRESS_ANNOTATIONS.contains(&name.as_str()) {
                    known.insert(name, map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(known)
        }
    }

    deserializer.deserialize_any(Known)
}

/// `intstr.IntOrString`: "80" is the name of a port, 80 its number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants say it")]
pub enum IntOrString {
    Int(i64),
    String(String),
}

/// By hand, because derived for either of two it would only say that neither fits.
impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = IntOrString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a name")
            }

            fn visit_i64<E>(self, number: i64) -> Result<IntOrString, E> {
                Ok(IntOrString::Int(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<IntOrString, E> {
                let fits = i64::try_from(number).map(IntOrString::Int);
                fits.map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
            }

            fn visit_str<E>(self, name: &str) -> Result<IntOrString, E> {
                Ok(IntOrString::String(name.to_owned()))
            }
        }

        deserializer.deserialize_any(Either)
    }
}
