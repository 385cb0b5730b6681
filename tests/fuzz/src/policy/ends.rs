//! Who may be at the end of a connection.
//!
//! In: the bytes that are left. Out: ends of every sort: pods with and without addresses, nodes,
//! Services that lead to other ends, what is outside and what is not known.

use std::net::IpAddr;
use std::sync::Arc;

use arbitrary::Result;
use parapet_core::flow::{
    End, Endpoint, NamedPort, PodIdentity, Protocol, ServiceIdentity, UnknownEnd, Workload,
};

use super::cluster_rules::DOMAINS;
use super::draw::{Draw, address, flag, labels, maybe, several, word};
use super::rules::{NAMESPACES, PORT_NAMES};

pub(super) const NODES: [&str; 3] = ["n1", "n2", ""];
const UNKNOWN: [UnknownEnd; 4] = [
    UnknownEnd::PodNotListed,
    UnknownEnd::CgroupNotKnown,
    UnknownEnd::AmbiguousAddress,
    UnknownEnd::NoHolder,
];

pub(super) fn end(u: &mut Draw<'_>) -> Result<End> {
    if !u.ratio(1, 8)? {
        return end_without_backends(u);
    }
    let backends = several(u, 3, |u| Ok((end_without_backends(u)?, port(u)?)))?;
    let service = ServiceIdentity {
        namespace: word(u, &NAMESPACES)?.into(),
        name: "service".into(),
        port: port(u)?,
        backends: backends.into(),
    };
    let endpoint = Endpoint::Service(Arc::new(service));
    Ok(End { addr: maybe(u, address)?, endpoint })
}

/// The index gives no Service to another one as a backend.
fn end_without_backends(u: &mut Draw<'_>) -> Result<End> {
    let mut addr = maybe(u, address)?;
    let endpoint = match u.int_in_range(0..=9_u8)? {
        0..=6 => {
            let pod = pod(u, addr)?;
            addr = pod.addrs.first().copied().or(addr);
            Endpoint::Pod(Arc::new(pod))
        }
        7 => Endpoint::Node(word(u, &NODES)?.into()),
        8 if flag(u)? => Endpoint::External,
        8 => Endpoint::Named(names(u)?),
        _ => Endpoint::Unknown(*u.choose(&UNKNOWN)?),
    };
    Ok(End { addr, endpoint })
}

fn pod(u: &mut Draw<'_>, addr: Option<IpAddr>) -> Result<PodIdentity> {
    let named_port = |u: &mut Draw<'_>| {
        let name = word(u, &PORT_NAMES)?.into();
        Ok(NamedPort { name, protocol: protocol(u)?, port: port(u)? })
    };
    // As the index has them: sorted by key, each key once.
    let labels = labels(u)?.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    let name = word(u, &["a", "b", "c"])?;
    Ok(PodIdentity {
        uid: word(u, &["1", "2"])?.into(),
        namespace: word(u, &NAMESPACES)?.into(),
        labels,
        node: word(u, &NODES)?.into(),
        host_network: u.ratio(1, 8)?,
        addrs: if flag(u)? { addr.into_iter().collect() } else { several(u, 2, address)?.into() },
        named_ports: several(u, 2, named_port)?.into(),
        workload: Workload { kind: "Pod".into(), name: name.as_str().into() },
        service_account: "default".into(),
        name: name.into(),
    })
}

pub(super) fn protocol(u: &mut Draw<'_>) -> Result<Protocol> {
    Ok(match u.int_in_range(0..=7_u8)? {
        0..=3 => Protocol::TCP,
        4..=5 => Protocol::UDP,
        6 => Protocol::SCTP,
        _ => Protocol(u.arbitrary()?),
    })
}

pub(super) fn port(u: &mut Draw<'_>) -> Result<u16> {
    if u.ratio(1, 8)? { u.arbitrary() } else { u.int_in_range(79..=84) }
}

/// One or two.
fn names(u: &mut Draw<'_>) -> Result<Arc<[Arc<str>]>> {
    let mut names = vec![word(u, &DOMAINS)?.into()];
    if flag(u)? {
        names.push(word(u, &DOMAINS)?.into());
    }
    Ok(names.into())
}
