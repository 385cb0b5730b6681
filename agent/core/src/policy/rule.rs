//! One rule of a compiled policy: whom it is about, on which ports, and what it does.
//!
//! In: a peer and a port. Out: whether the rule matches, or the nearest thing that kept it from
//! matching. It never parses, looks up anything but what a selection holds, or allocates.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Probe;
use super::cidr::unmap;
use super::domain::DomainName;
use super::pattern::Linked;
use super::profile::{BlockChoice, Choices, PeerChoice};
use super::selection::{Identity, Selection};
use super::selector::{Known, Selector};
use crate::flow::{End, Endpoint, Protocol, UnknownEnd};
use crate::verdict::{Action, Reason, RuleMatch};

/// One item of `ingress` or `egress`: a peer and a port must match, where they are given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    pub(crate) action: Action,
    pub(crate) peers: Peers,
    /// Empty: every port of every protocol.
    pub(crate) ports: Box<[PortRule]>,
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peers {
    Everyone,
    AnyOf(Box<[Peer]>),
    /// The rule holds something newer than this program and must not let anything pass.
    FailsClosed,
}

/// One item of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Pods(Linked),
    Blocks(Box<[Block]>),
    /// Nodes, by the addresses they have.
    Nodes(Selector),
    Domains(Box<[DomainName]>),
}

/// One CIDR without its exceptions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Block {
    pub(crate) net: IpNet,
    pub(crate) except: Box<[IpNet]>,
}

/// One item of `ports` or `protocols`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortRule {
    /// None: whichever the named port has.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) port: PortChoice,
}

/// Which ports of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PortChoice {
    Any,
    /// Both ends included.
    Range(u16, u16),
    /// A container port of the target pod.
    Named(Arc<str>),
}

/// What one rule, peer or port says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    No(RuleMatch),
    Unknown(Reason, RuleMatch),
}

/// What a rule is asked, beside the probe.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) selection: &'a Selection,
    pub(crate) choices: &'a Choices,
    pub(crate) probe: &'a Probe<'a>,
    /// The end that is not the subject.
    pub(crate) peer: &'a End,
    /// What was resolved of the peer. None: nothing was, or the nearest miss is wanted too.
    pub(crate) peer_identity: Option<&'a Identity>,
    /// What a selector says of a pod on the host network, if it holds of its labels.
    pub(crate) host_network_peer: PeerChoice,
    /// The port that is seen by what does not select pods, if it is another than the probe's.
    pub(crate) service_port: Option<u16>,
}

impl Rule {
    /// Peers are asked first: a rule about somebody else is not near because its port fits.
    pub(crate) fn answer(&self, question: &Question<'_>) -> Answer {
        let Some(port) = question.service_port else {
            return self.answer_at(self.peers.answer(question, |_| true), question.probe);
        };
        let selects = |peer: &Peer| matches!(peer, Peer::Pods(_));
        let by_selectors = match self.peers {
            Peers::AnyOf(_) => self.answer_at(self.peers.answer(question, selects), question.probe),
            Peers::Everyone | Peers::FailsClosed => Answer::No(RuleMatch::PeerIsNoPod),
        };
        let others = self.peers.answer(question, |peer| !selects(peer));
        let others = self.answer_at(others, &Probe { port, ..*question.probe });
        match (by_selectors, others) {
            (Answer::Yes, _) | (_, Answer::Yes) => Answer::Yes,
            (unknown @ Answer::Unknown(..), Answer::No(_)) => unknown,
            (Answer::No(_), others) => others,
            (a, b) => least_known(a, b),
        }
    }

    fn answer_at(&self, peer: Answer, probe: &Probe<'_>) -> Answer {
        if let Answer::No(_) = peer {
            return peer;
        }
        match (peer, self.answer_ports(probe)) {
            (_, no @ Answer::No(_)) => no,
            (Answer::Yes, ports) => ports,
            (peer, Answer::Yes) => peer,
            (peer, ports) => least_known(peer, ports),
        }
    }

    fn answer_ports(&self, probe: &Probe<'_>) -> Answer {
        if self.ports.is_empty() {
            return Answer::Yes;
        }
        let mut miss = Answer::No(RuleMatch::ProtocolDiffers);
        for port in &self.ports {
            match port.answer(probe) {
                Answer::Yes => return Answer::Yes,
                unknown @ Answer::Unknown(..) => miss = unknown,
                Answer::No(RuleMatch::PortDiffers) if matches!(miss, Answer::No(_)) => {
                    miss = Answer::No(RuleMatch::PortDiffers);
                }
                Answer::No(_) => {}
            }
        }
        miss
    }
}

impl PortRule {
    fn answer(&self, probe: &Probe<'_>) -> Answer {
        if self.protocol.is_some_and(|protocol| protocol != probe.protocol) {
            return Answer::No(RuleMatch::ProtocolDiffers);
        }
        match &self.port {
            PortChoice::Any => Answer::Yes,
            PortChoice::Range(first, last) => {
                yes_or((*first..=*last).contains(&probe.port), RuleMatch::PortDiffers)
            }
            // Always resolved on the target, for egress too: the same name may be another number
            // on each pod.
            PortChoice::Named(name) => match &probe.target.endpoint {
                Endpoint::Pod(pod) if !pod.host_network => yes_or(
                    pod.named_ports.iter().any(|each| {
                        each.name == *name
                            && each.port == probe.port
                            && each.protocol == probe.protocol
                    }),
                    RuleMatch::PortDiffers,
                ),
                Endpoint::Unknown(why) => Answer::Unknown(why.reason(), RuleMatch::PeerUnknown),
                Endpoint::Pod(_)
                | Endpoint::Node(_)
                | Endpoint::Service(_)
                | Endpoint::Named(_)
                | Endpoint::Group(_)
                | Endpoint::External => Answer::No(RuleMatch::PortDiffers),
            },
        }
    }
}

impl Peers {
    /// Of all peers, or of some of them. None is no match.
    fn answer(&self, question: &Question<'_>, counts: impl Fn(&Peer) -> bool) -> Answer {
        let peers = match self {
            Self::Everyone => return Answer::Yes,
            Self::FailsClosed => return Answer::No(RuleMatch::FailsClosed),
            Self::AnyOf(peers) => peers,
        };
        let mut found: Option<Answer> = None;
        for peer in peers.iter().filter(|peer| counts(peer)) {
            let answer = peer.answer(question);
            found = match (found, answer) {
                (_, Answer::Yes) => return Answer::Yes,
                (None, answer) => Some(answer),
                (Some(Answer::No(a)), Answer::No(b)) => Some(Answer::No(nearer(a, b))),
                (Some(Answer::No(_)), unknown) => Some(unknown),
                (Some(known), Answer::No(_)) => Some(known),
                (Some(a), b) => Some(least_known(a, b)),
            };
        }
        found.unwrap_or(Answer::No(RuleMatch::FailsClosed))
    }
}

impl Peer {
    fn answer(&self, question: &Question<'_>) -> Answer {
        match self {
            Self::Pods(linked) => answer_pattern(linked, question),
            Self::Blocks(blocks) => answer_blocks(blocks, question),
            Self::Nodes(selector) => answer_nodes(selector, question),
            Self::Domains(names) => match &question.peer.endpoint {
                // By which of several names it was asked for is a guess: they have to agree.
                Endpoint::Named(asked) => {
                    let mut meant =
                        asked.iter().map(|name| names.iter().any(|each| each.matches(name)));
                    match meant.next() {
                        Some(first) if meant.all(|other| other == first) => {
                            yes_or(first, RuleMatch::DomainNameDiffers)
                        }
                        _ => Answer::Unknown(Reason::NameUnknown, RuleMatch::DomainNameUnknown),
                    }
                }
                Endpoint::External | Endpoint::Group(_) => {
                    Answer::Unknown(Reason::NameUnknown, RuleMatch::DomainNameUnknown)
                }
                Endpoint::Unknown(why) => Answer::Unknown(why.reason(), RuleMatch::PeerUnknown),
                // A name may lead into the cluster too, but nobody told that it did.
                Endpoint::Pod(_) | Endpoint::Node(_) | Endpoint::Service(_) => {
                    Answer::No(RuleMatch::DomainNameDiffers)
                }
            },
        }
    }

    /// How near the miss is, see [`nearer`]. For those who explain it.
    pub(crate) fn miss(&self, question: &Question<'_>) -> Option<RuleMatch> {
        match self.answer(question) {
            Answer::No(miss) => Some(miss),
            Answer::Yes | Answer::Unknown(..) => None,
        }
    }
}

impl UnknownEnd {
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::AmbiguousAddress => Reason::AmbiguousAddress,
            Self::PodNotListed | Self::CgroupNotKnown | Self::NoHolder => Reason::UnknownEnd,
        }
    }
}

fn answer_pattern(linked: &Linked, question: &Question<'_>) -> Answer {
    match &question.peer.endpoint {
        Endpoint::Pod(pod) if !pod.host_network => match (question.peer_identity, linked.id) {
            (Some(identity), Some(id)) => yes_or(identity.is_peer(id), RuleMatch::PodLabelsDiffer),
            _ => {
                let (namespace, labels) = question.selection.holds(&linked.pattern, pod);
                answer_pod(namespace, labels)
            }
        },
        Endpoint::Pod(pod) if question.host_network_peer == PeerChoice::Undecidable => {
            match question.selection.holds(&linked.pattern, pod) {
                (Known::Yes | Known::Unknown, true) => {
                    Answer::Unknown(Reason::CniDependent, RuleMatch::CniDependent)
                }
                _ => Answer::No(RuleMatch::PeerIsNoPod),
            }
        }
        Endpoint::Unknown(why) => Answer::Unknown(why.reason(), RuleMatch::PeerUnknown),
        Endpoint::Pod(_)
        | Endpoint::Node(_)
        | Endpoint::Service(_)
        | Endpoint::Named(_)
        | Endpoint::Group(_)
        | Endpoint::External => Answer::No(RuleMatch::PeerIsNoPod),
    }
}

fn answer_pod(namespace: Known, labels: bool) -> Answer {
    match (namespace, labels) {
        (Known::Yes, true) => Answer::Yes,
        (Known::No, _) => Answer::No(RuleMatch::NamespaceLabelsDiffer),
        (Known::Yes | Known::Unknown, false) => Answer::No(RuleMatch::PodLabelsDiffer),
        (Known::Unknown, true) => Answer::Unknown(Reason::UnknownEnd, RuleMatch::PeerUnknown),
    }
}

fn answer_blocks(blocks: &[Block], question: &Question<'_>) -> Answer {
    let mut unknown = false;
    for block in blocks {
        match block.holds(question.peer) {
            Known::No => {}
            Known::Unknown => unknown = true,
            Known::Yes => {
                return match choice_for(&question.peer.endpoint, question.choices) {
                    BlockChoice::Matches => Answer::Yes,
                    BlockChoice::NeverMatches => Answer::No(RuleMatch::BlockSkipsCluster),
                    BlockChoice::Undecidable => {
                        Answer::Unknown(Reason::CniDependent, RuleMatch::CniDependent)
                    }
                };
            }
        }
    }
    match &question.peer.endpoint {
        _ if !unknown => Answer::No(RuleMatch::AddressOutside),
        Endpoint::Unknown(why) => Answer::Unknown(why.reason(), RuleMatch::PeerUnknown),
        _ => Answer::Unknown(Reason::UnknownEnd, RuleMatch::PeerUnknown),
    }
}

/// By the address that is asked: a pod on the host network has its node's.
fn answer_nodes(selector: &Selector, question: &Question<'_>) -> Answer {
    let node = match &question.peer.endpoint {
        Endpoint::Node(name) => name,
        Endpoint::Pod(pod) if pod.host_network => &pod.node,
        Endpoint::Unknown(why) => {
            return Answer::Unknown(why.reason(), RuleMatch::PeerUnknown);
        }
        Endpoint::Pod(_)
        | Endpoint::Service(_)
        | Endpoint::Named(_)
        | Endpoint::Group(_)
        | Endpoint::External => return Answer::No(RuleMatch::PeerIsNoNode),
    };
    match question.selection.node_labels(node) {
        Some(labels) => yes_or(selector.matches(labels), RuleMatch::NodeLabelsDiffer),
        None if selector.is_everything() => Answer::Yes,
        None => Answer::Unknown(Reason::UnknownEnd, RuleMatch::PeerUnknown),
    }
}

/// Which of two unknowns is reported. By their order and not by their place, so that the order of
/// rules and policies never shows.
fn least_known(a: Answer, b: Answer) -> Answer {
    match (a, b) {
        (Answer::Unknown(x, _), Answer::Unknown(y, _)) if y < x => b,
        _ => a,
    }
}

/// The miss that is nearer to a match: right namespace before right kind before right address.
pub(crate) fn nearer(a: RuleMatch, b: RuleMatch) -> RuleMatch {
    if nearness(b) > nearness(a) { b } else { a }
}

fn nearness(miss: RuleMatch) -> u8 {
    match miss {
        RuleMatch::PodLabelsDiffer => 3,
        RuleMatch::NamespaceLabelsDiffer
        | RuleMatch::NodeLabelsDiffer
        | RuleMatch::DomainNameDiffers
        | RuleMatch::BlockSkipsCluster => 2,
        RuleMatch::AddressOutside => 1,
        _ => 0,
    }
}

fn yes_or(matches: bool, miss: RuleMatch) -> Answer {
    if matches { Answer::Yes } else { Answer::No(miss) }
}

/// An end known by its address alone may turn out to be a pod, so it goes by the pods' choice.
fn choice_for(endpoint: &Endpoint, choices: &Choices) -> BlockChoice {
    match endpoint {
        Endpoint::External | Endpoint::Named(_) | Endpoint::Group(_) => BlockChoice::Matches,
        Endpoint::Node(_) => choices.block_holds_node,
        Endpoint::Pod(pod) if pod.host_network => choices.block_holds_node,
        Endpoint::Pod(_) | Endpoint::Service(_) | Endpoint::Unknown(_) => choices.block_holds_pod,
    }
}

impl Block {
    /// By the address of the flow. Where a pod's address in the flow is not known, all of its
    /// addresses must agree.
    fn holds(&self, end: &End) -> Known {
        let holds = |addr: IpAddr| {
            let addr = unmap(addr);
            self.net.contains(&addr) && !self.except.iter().any(|each| each.contains(&addr))
        };
        let known = |holds: bool| if holds { Known::Yes } else { Known::No };
        match (end.addr, &end.endpoint) {
            (Some(addr), _) => known(holds(addr)),
            (None, Endpoint::Pod(pod)) => {
                let mut answers = pod.addrs.iter().map(|addr| holds(*addr));
                match answers.next() {
                    Some(first) if answers.all(|answer| answer == first) => known(first),
                    _ => Known::Unknown,
                }
            }
            (None, _) => Known::Unknown,
        }
    }
}
