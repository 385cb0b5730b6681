//! One question: from whom, to whom, which port and protocol.
//!
//! In: flags or a line of JSON. Out: a [`Question`], then both [`Ends`] of it in the cluster. It
//! judges nothing.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use parapet_core::flow::{End, Endpoint, PodIdentity, Protocol};
use parapet_core::identity::Index;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is asked. Also the form of a line for `--batch`, and of `probe` in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    pub(super) from: Who,
    pub(super) to: Who,
    /// Absent for protocols without ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
    #[serde(default)]
    pub(super) protocol: ProtocolName,
}

/// One end as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WhoFields", into = "WhoFields")]
pub(super) enum Who {
    Pod {
        pod: Name,
        ip: Option<IpAddr>,
    },
    Ip(IpAddr),
    /// Outside of the cluster, by the domain name it is asked by.
    Domain {
        name: String,
        ip: Option<IpAddr>,
    },
    Service(Name),
}

/// The keys of [`Who`] in JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhoFields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<Name>,
}

/// `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    namespace: String,
    name: String,
}

/// "TCP", "UDP", "SCTP", "ICMP", another well-known name, or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProtocolName(pub(super) Protocol);

/// Both ends of a question, in the cluster as it is declared.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    pub(super) source: End,
    pub(super) target: End,
    pub(super) port: u16,
}

impl Question {
    /// Both ends.
    ///
    /// # Errors
    /// What is not in the cluster, or is asked for in a way that cannot be, in words for the user.
    pub(super) fn resolve(&self, index: &Index) -> Result<Ends, String> {
        let protocol = self.protocol.0;
        let has_ports = [Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&protocol);
        let port = match self.port {
            Some(0) => return Err("port: 0 is no port".to_owned()),
            Some(port) => port,
            None if has_ports => return Err(format!("port: is missing for {}", self.protocol)),
            None => 0,
        };
        let wanted_family = |other: &Who| match other {
            Who::Pod { ip, .. } | Who::Domain { ip, .. } => ip.map(|ip| ip.is_ipv6()),
            Who::Ip(ip) => Some(ip.is_ipv6()),
            Who::Service(_) => None,
        };
        let target = match &self.to {
            Who::Pod { pod, ip } => pod_end(index, pod, *ip, wanted_family(&self.from), "to")?,
            Who::Ip(ip) => index.target_at(*ip, port, protocol),
            Who::Domain { name, ip } => {
                let addr = ip.map(|ip| ip.to_canonical());
                End { addr, endpoint: Endpoint::Named([name.as_str().into()].into()) }
            }
            Who::Service(name) => index
                .service_named((&name.namespace, &name.name), (port, protocol))
                .map_err(|error| format!("to: service {name}: {error}"))?,
        };
        let source = match &self.from {
            Who::Pod { pod, ip } => {
                let family = target.addr.map(|addr| addr.is_ipv6());
                pod_end(index, pod, *ip, family, "from")?
            }
            Who::Ip(ip) => index.source_at(*ip),
            Who::Domain { name, .. } => {
                return Err(format!("from: {name}: only who is asked is asked by a domain name"));
            }
            Who::Service(name) => {
                return Err(format!("from: service {name}: connections come from pods"));
            }
        };
        Ok(Ends { source, target, port })
    }
}

fn pod_end(
    index: &Index,
    name: &Name,
    ip: Option<IpAddr>,
    ipv6: Option<bool>,
    side: &str,
) -> Result<End, String> {
    let pod = index
        .pod_named(&name.namespace, &name.name)
        .ok_or_else(|| format!("{side}: pod {name}: there is no such object"))?;
    let addr = match ip.map(|ip| ip.to_canonical()) {
        Some(ip) if !pod.addrs.contains(&ip) => {
            return Err(format!("{side}: pod {name}: {ip} is not one of its addresses"));
        }
        Some(ip) => Some(ip),
        None => addr_of(pod, ipv6),
    };
    Ok(End { addr, endpoint: Endpoint::Pod(pod.clone()) })
}

/// A connection is of one family: that of the other end, else that of the pod's first address.
fn addr_of(pod: &Arc<PodIdentity>, ipv6: Option<bool>) -> Option<IpAddr> {
    let of_family = pod.addrs.iter().find(|addr| Some(addr.is_ipv6()) == ipv6);
    of_family.or_else(|| pod.addrs.first()).copied()
}

impl TryFrom<WhoFields> for Who {
    type Error = &'static str;

    fn try_from(fields: WhoFields) -> Result<Self, Self::Error> {
        match fields {
            WhoFields { pod: Some(pod), ip, name: None, service: None } => {
                Ok(Self::Pod { pod, ip })
            }
            WhoFields { pod: None, ip, name: Some(name), service: None } => {
                Ok(Self::Domain { name, ip })
            }
            WhoFields { pod: None, ip: Some(ip), name: None, service: None } => Ok(Self::Ip(ip)),
            WhoFields { pod: None, ip: None, name: None, service: Some(name) } => {
                Ok(Self::Service(name))
            }
            _ => Err("an end is one of {\"pod\"}, {\"pod\", \"ip\"}, {\"ip\"}, {\"name\"}, \
                      {\"name\", \"ip\"} or {\"service\"}"),
        }
    }
}

impl From<Who> for WhoFields {
    fn from(who: Who) -> Self {
        match who {
            Who::Pod { pod, ip } => Self { pod: Some(pod), ip, ..Self::default() },
            Who::Ip(ip) => Self { ip: Some(ip), ..Self::default() },
            Who::Domain { name, ip } => Self { name: Some(name), ip, ..Self::default() },
            Who::Service(name) => Self { service: Some(name), ..Self::default() },
        }
    }
}

/// The form on the command line.
impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        let service = ["service:", "svc:", "service/", "svc/"];
        if let Some(name) = service.iter().find_map(|prefix| text.strip_prefix(prefix)) {
            return name.parse().map(Self::Service);
        }
        if let Some(ip) = text.strip_prefix("ip:") {
            return ip.parse().map(Self::Ip).map_err(|_| format!("{ip:?} is no IP address"));
        }
        if let Some(domain) = text.strip_prefix("dns:") {
            let (name, ip) = match domain.split_once('@') {
                None => (domain, None),
                Some((name, ip)) => {
                    (name, Some(ip.parse().map_err(|_| format!("{ip:?} is no IP address"))?))
                }
            };
            if name.is_empty() {
                return Err("dns: needs a name, as in dns:www.example.org".to_owned());
            }
            return Ok(Self::Domain { name: name.to_owned(), ip });
        }
        let name = text.strip_prefix("pod:").unwrap_or(text);
        let name = name.strip_prefix("pod/").filter(|rest| rest.contains('/')).unwrap_or(name);
        name.parse().map(|pod| Self::Pod { pod, ip: None }).map_err(|_: String| {
            "write a pod as namespace/name, a Service as service:namespace/name, an outside host \
             as dns:name[@address], or an IP address"
                .to_owned()
        })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { pod, ip: None } => write!(f, "pod {pod}"),
            Self::Pod { pod, ip: Some(ip) } => write!(f, "pod {pod} at {ip}"),
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Domain { name, ip: None } => write!(f, "{name}"),
            Self::Domain { name, ip: Some(ip) } => write!(f, "{name} at {ip}"),
            Self::Service(name) => write!(f, "service {name}"),
        }
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(format!("{text:?} is not of the form namespace/name")),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Default for ProtocolName {
    fn default() -> Self {
        Self(Protocol::TCP)
    }
}

impl FromStr for ProtocolName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let problem = |_| format!("{text:?} is not TCP, UDP, SCTP, ICMP, ICMPv6 or a number");
        text.parse().map(Self).map_err(problem)
    }
}

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for ProtocolName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ProtocolName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
