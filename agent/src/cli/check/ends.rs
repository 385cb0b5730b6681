//! The ends of evidence in the declared cluster.
//!
//! In: an [`EndRow`] and the index. Out: every [`End`] that it may be now, told apart as policies
//! tell pods apart, and in words what is not declared any more. It judges nothing and never takes
//! one pod's address for that of all pods of its workload.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use parapet_core::flow::{End, Endpoint, Group, PodIdentity, Protocol, UnknownEnd};
use parapet_core::identity::{Index, NotAnEnd};

use crate::export::report::{EndRow, NameRow};

/// Different pods of one workload that are judged. Each pod of a StatefulSet has labels of its own.
const CHOICES_MAX: usize = 64;

/// Everything one end may be now.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// At least one, at most one more than [`CHOICES_MAX`].
    pub(super) choices: Vec<Choice>,
    /// What is not declared, in words.
    pub(super) missing: Option<String>,
}

/// One thing an end may be: of a workload, all pods that are judged alike.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) end: End,
    /// Where those pods run.
    pub(super) nodes: Vec<Arc<str>>,
}

/// Pods with the same labels, named ports and network: the first, and what they all have.
struct Alike<'a> {
    pod: &'a Arc<PodIdentity>,
    addrs: Vec<IpAddr>,
    nodes: Vec<Arc<str>>,
}

/// What the evidence tells about where the pods of an edge ran.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Placement<'a> {
    /// The agent saw that the one end is the other's own node.
    pub(super) own_node: bool,
    /// The node that was watched, where it is known: that of the local end.
    pub(super) home: Option<&'a str>,
    /// The source is the local end.
    pub(super) source_is_local: bool,
}

impl Known {
    fn one(end: End) -> Self {
        Self { choices: vec![Choice { end, nodes: Vec::new() }], missing: None }
    }

    fn unknown(reason: UnknownEnd, missing: Option<String>) -> Self {
        let end = End { addr: None, endpoint: Endpoint::Unknown(reason) };
        Self { missing, ..Self::one(end) }
    }
}

/// Who this is now. The port is the target's own, after any Service.
pub(super) fn resolve(row: &EndRow, index: &Index, port: u16, protocol: Protocol) -> Known {
    match row {
        EndRow::Pod { namespace, workload } => {
            let (choices, all) = alike(index.pods_of(namespace, workload));
            if !all {
                let (kind, name) = (&workload.kind, &workload.name);
                let missing =
                    format!("{kind} {namespace}/{name} has pods of more than {CHOICES_MAX} kinds");
                let mut known = Known::unknown(UnknownEnd::PodNotListed, Some(missing));
                known.choices.extend(choices);
                return known;
            }
            if choices.is_empty() {
                let (kind, name) = (&workload.kind, &workload.name);
                let missing = format!("no running pod of {kind} {namespace}/{name} is declared");
                return Known::unknown(UnknownEnd::PodNotListed, Some(missing));
            }
            Known { choices, missing: None }
        }
        EndRow::Node { name, .. } => {
            let node: Arc<str> = name.as_str().into();
            let end = |addr| End { addr, endpoint: Endpoint::Node(node.clone()) };
            let addrs = index.addrs_of_node(name).iter().take(CHOICES_MAX);
            let choices: Vec<_> = addrs.map(|addr| end(Some(*addr))).map(plain).collect();
            if choices.is_empty() {
                Known::one(end(None))
            } else {
                Known { choices, missing: None }
            }
        }
        EndRow::Service { namespace, name } => {
            match index.services_reaching((namespace, name), (port, protocol)) {
                Ok(ends) => {
                    let choices = ends.into_iter().take(CHOICES_MAX).map(plain).collect();
                    Known { choices, missing: None }
                }
                Err(error) => {
                    let missing = match error {
                        NotAnEnd::NoSuchObject => {
                            format!("Service {namespace}/{name} is not declared")
                        }
                        NotAnEnd::NoSuchPort => {
                            format!("no port of Service {namespace}/{name} leads to {port}")
                        }
                    };
                    Known::unknown(UnknownEnd::NoHolder, Some(missing))
                }
            }
        }
        EndRow::External { address } => by_address(*address, Endpoint::External),
        EndRow::Multicast { address } => by_address(*address, Endpoint::Group(Group::Multicast)),
        EndRow::Broadcast { address } => by_address(*address, Endpoint::Group(Group::Broadcast)),
        EndRow::Name(row) => Known { choices: named(row), missing: None },
        EndRow::Loopback => {
            let addr = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
            Known::one(End { addr, endpoint: Endpoint::External })
        }
        EndRow::Unknown { reason } => {
            let all = [
                UnknownEnd::PodNotListed,
                UnknownEnd::CgroupNotKnown,
                UnknownEnd::AmbiguousAddress,
                UnknownEnd::NoHolder,
            ];
            let known = all.into_iter().find(|known| known.label() == reason);
            Known::unknown(known.unwrap_or(UnknownEnd::NoHolder), None)
        }
    }
}

fn by_address(addr: IpAddr, endpoint: Endpoint) -> Known {
    Known::one(End { addr: Some(addr.to_canonical()), endpoint })
}

/// One for each address the name led to, each with all names that led to it. What was not kept is
/// an address that nobody knows, by a name that nobody knows.
fn named(row: &NameRow) -> Vec<Choice> {
    let names: Arc<[Arc<str>]> =
        [&row.name].into_iter().chain(&row.also).map(|name| name.as_str().into()).collect();
    let end = |addr| End { addr, endpoint: Endpoint::Named(names.clone()) };
    let known = row.addresses.iter().take(CHOICES_MAX);
    let known = known.map(|addr| end(Some(addr.to_canonical())));
    let cut = row.is_cut || row.addresses.is_empty() || row.addresses.len() > CHOICES_MAX;
    let unknown = match row.is_cut {
        true => End { addr: None, endpoint: Endpoint::External },
        false => end(None),
    };
    known.chain(cut.then_some(unknown)).map(plain).collect()
}

fn plain(end: End) -> Choice {
    Choice { end, nodes: Vec::new() }
}

/// One choice for all pods with the same labels, named ports and network. It holds the addresses of
/// them all: a CIDR says something of it only where it says the same of each.
/// False beside them: there are more.
fn alike<'a>(pods: impl Iterator<Item = &'a Arc<PodIdentity>>) -> (Vec<Choice>, bool) {
    let mut all = true;
    let mut groups: Vec<Alike<'_>> = Vec::new();
    for pod in pods {
        let same = |known: &Alike<'_>| known.pod.is_judged_as(pod);
        let at = groups.iter().position(same).unwrap_or(groups.len());
        if at >= CHOICES_MAX {
            all = false;
            continue;
        }
        if at == groups.len() {
            groups.push(Alike { pod, addrs: Vec::new(), nodes: Vec::new() });
        }
        let Some(group) = groups.get_mut(at) else { continue };
        group.addrs.extend(pod.addrs.iter());
        if !group.nodes.contains(&pod.node) {
            group.nodes.push(pod.node.clone());
        }
    }
    let choice = |Alike { pod, addrs, nodes }: Alike<'a>| {
        let pod = PodIdentity { addrs: addrs.into(), ..PodIdentity::clone(pod) };
        Choice { end: End { addr: None, endpoint: Endpoint::Pod(Arc::new(pod)) }, nodes }
    };
    (groups.into_iter().map(choice).collect(), all)
}

/// Both ends of one pair: two pods of one workload are two pods, and where a node is an end, the
/// pod runs where the evidence says, else not there if any pod of its kind runs elsewhere.
pub(super) fn pair(source: &Choice, target: &Choice, placement: Placement<'_>) -> (End, End) {
    let (mut one, mut other) = (source.end.clone(), target.end.clone());
    if let (Endpoint::Pod(source), Endpoint::Pod(target)) = (&one.endpoint, &other.endpoint)
        && source.uid == target.uid
    {
        // An edge between a pod and itself has a loopback end, so this is another one.
        let another = PodIdentity { uid: "".into(), ..PodIdentity::clone(target) };
        other.endpoint = Endpoint::Pod(Arc::new(another));
    }
    place(&mut one, &source.nodes, (&other, &target.nodes), placement, placement.source_is_local);
    place(&mut other, &target.nodes, (&one, &source.nodes), placement, !placement.source_is_local);
    (one, other)
}

/// Puts a pod on a node, if the other end is a node or on the network of one.
fn place(
    end: &mut End,
    nodes: &[Arc<str>],
    (peer, peer_nodes): (&End, &[Arc<str>]),
    placement: Placement<'_>,
    is_local: bool,
) {
    let Endpoint::Pod(pod) = &end.endpoint else { return };
    let peer_node = match &peer.endpoint {
        _ if pod.host_network => return,
        Endpoint::Node(name) => name,
        Endpoint::Pod(peer) if peer.host_network => &peer.node,
        _ => return,
    };
    let elsewhere = || nodes.iter().find(|node| *node != peer_node && !node.is_empty()).cloned();
    let node = match placement.home {
        _ if placement.own_node => Some(peer_node.clone()),
        Some(home) if is_local && matches!(peer.endpoint, Endpoint::Node(_)) => Some(home.into()),
        // A peer on several nodes is surely on another one than one of its pods.
        _ => elsewhere().or_else(|| peer_nodes.len().gt(&1).then(|| "another".into())),
    };
    if let Some(node) = node.filter(|node| *node != pod.node) {
        end.endpoint = Endpoint::Pod(Arc::new(PodIdentity { node, ..PodIdentity::clone(pod) }));
    }
}
