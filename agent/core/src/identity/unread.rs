//! Texts of objects that ought to be addresses or times and are none.
//!
//! In: objects as they are applied. Out: how often each field could not be read, and the first
//! object it was seen in. What can be read of the same object is used by others; here nothing is
//! kept of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::time;
use crate::object::{Object, Pod, Service};

/// Longest text that is kept of what could not be read.
const SHOWN_CHARS_MAX: usize = 64;

/// What could not be read, by field. There are as many as there are fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread(BTreeMap<&'static str, Misread>);

/// One field that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misread {
    /// How often. An object that is applied again counts again.
    pub count: u64,
    /// The first one, "Pod shop/api".
    pub object: String,
    /// What it said, cut.
    pub said: String,
}

impl Unread {
    /// By field, "status.podIPs" of a Pod.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Misread)> {
        self.0.iter().map(|(field, misread)| (*field, misread))
    }

    pub(super) fn look_at(&mut self, object: &Object) {
        match object {
            Object::Pod(pod) => self.pod(object, pod),
            Object::Node(node) => {
                for address in &node.status.addresses {
                    // Of the others some are host names.
                    let is_addr = matches!(address.kind.as_str(), "InternalIP" | "ExternalIP");
                    if is_addr {
                        self.addr(object, "status.addresses", &address.address);
                    }
                }
                for range in &node.spec.pod_cidrs {
                    self.check(range.parse::<IpNet>().is_ok(), object, "spec.podCIDRs", range);
                }
            }
            Object::Service(service) => self.service(object, service),
            Object::EndpointSlice(slice) if slice.address_type != "FQDN" => {
                for addr in slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
                    self.addr(object, "endpoints[].addresses", addr);
                }
            }
            _ => {}
        }
    }

    fn pod(&mut self, object: &Object, pod: &Pod) {
        for ip in &pod.status.pod_ips {
            self.addr(object, "status.podIPs", &ip.ip);
        }
        self.addr(object, "status.podIP", &pod.status.pod_ip);
        let (started, made) = (&pod.status.start_time, &pod.metadata.creation_timestamp);
        for (field, text) in [("status.startTime", started), ("metadata.creationTimestamp", made)] {
            if let Some(text) = text {
                self.check(time::parse(text).is_some(), object, field, text);
            }
        }
    }

    fn service(&mut self, object: &Object, service: &Service) {
        let spec = &service.spec;
        for addr in spec.cluster_ips.iter().chain([&spec.cluster_ip]) {
            if addr != "None" {
                self.addr(object, "spec.clusterIPs", addr);
            }
        }
        for addr in &spec.external_ips {
            self.addr(object, "spec.externalIPs", addr);
        }
        for ingress in &service.status.load_balancer.ingress {
            self.addr(object, "status.loadBalancer.ingress[].ip", &ingress.ip);
        }
    }

    fn addr(&mut self, object: &Object, field: &'static str, text: &str) {
        // An empty one is an absent one.
        self.check(text.is_empty() || text.parse::<IpAddr>().is_ok(), object, field, text);
    }

    fn check(&mut self, readable: bool, object: &Object, field: &'static str, text: &str) {
        if readable {
            return;
        }
        let misread = self.0.entry(field).or_insert_with(|| {
            let meta = object.meta();
            let slash = if meta.namespace.is_empty() { "" } else { "/" };
            let name = format!("{:?} {}{slash}{}", object.kind(), meta.namespace, meta.name);
            Misread { count: 0, object: name, said: text.chars().take(SHOWN_CHARS_MAX).collect() }
        });
        misread.count = misread.count.saturating_add(1);
    }
}
