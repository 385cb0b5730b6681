//! Compiled policies: what is left of a policy object of any kind once its text has been read.
//!
//! In: a peer and a port. Out: whether a rule matches, or the nearest thing that kept it from
//! matching. It never parses, looks up anything but what a selection holds, or allocates.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::cidr::unmap;
use super::domain::DomainName;
use super::pattern::Linked;
use super::profile::{BlockChoice, Choices, PeerChoice};
use super::selection::{Identity, Selection};
use super::selector::{Known, Selector};
use super::{Probe, Rejection};
use crate::flow::{Direction, End, Endpoint, PodIdentity, Protocol, UnknownEnd};
use crate::verdict::{Action, PolicyKind, Reason, RuleMatch, Tier};

/// One policy, defaulted, validated and ready to be asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CompiledPolicy {
    // The order of the fields is the order of policies within a tier: precedence first.
    pub(super) tier: Tier,
    /// Lower is asked first. 0 for NetworkPolicy v1, which knows no order.
    pub(super) priority: u16,
    /// Empty for cluster-scoped kinds.
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) kind: PolicyKind,
    pub(super) origin: Arc<str>,
    pub(super) id: Arc<str>,
    pub(super) subject: Linked,
    /// None: does not speak of this direction. A NetworkPolicy isolates where it has rules, even
    /// if none.
    pub(super) ingress: Option<Box<[Rule]>>,
    /// The same for egress.
    pub(super) egress: Option<Box<[Rule]>>,
    pub(super) notices: Box<[Rejection]>,
    pub(super) remarks: Box<[Remark]>,
}

/// What is written otherwise than it is read. Nobody refuses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Remark {
    /// "spec.ingress[0].from[1].ipBlock.cidr".
    pub(super) field: String,
    pub(super) oddity: Oddity,
}

/// What is odd about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Oddity {
    /// A CIDR whose address is not its network's.
    HostBits { written: String, read: IpNet },
    /// Rules of a direction that `policyTypes` does not name.
    RulesWithoutType(Direction),
}

/// One item of `ingress` or `egress`: a peer and a port must match, where they are given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rule {
    pub(super) action: Action,
    pub(super) peers: Peers,
    /// Empty: every port of every protocol.
    pub(super) ports: Box<[PortRule]>,
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peers {
    Everyone,
    AnyOf(Box<[Peer]>),
    /// The rule holds something newer than this program and must not let anything pass.
    FailsClosed,
}

/// One item of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    Pods(Linked),
    Blocks(Box<[Block]>),
    /// Nodes, by the addresses they have.
    Nodes(Selector),
    Domains(Box<[DomainName]>),
}

/// One CIDR without its exceptions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Block {
    pub(super) net: IpNet,
    pub(super) except: Box<[IpNet]>,
}

/// One item of `ports` or `protocols`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortRule {
    /// None: whichever the named port has.
    pub(super) protocol: Option<Protocol>,
    pub(super) port: PortChoice,
}

/// Which ports of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PortChoice {
    Any,
    /// Both ends included.
    Range(u16, u16),
    /// A container port of the target pod.
    Named(Arc<str>),
}

/// What one rule, peer or port says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No(RuleMatch),
    Unknown(Reason, RuleMatch),
}

/// What a rule is asked, beside the probe.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) selection: &'a Selection,
    pub(super) choices: &'a Choices,
    pub(super) probe: &'a Probe<'a>,
    /// The end that is not the subject.
    pub(super) peer: &'a End,
    /// What was resolved of the peer. None: nothing was, or the nearest miss is wanted too.
    pub(super) peer_identity: Option<&'a Identity>,
    /// What a selector says of a pod on the host network, if it holds of its labels.
    pub(super) host_network_peer: PeerChoice,
}

impl CompiledPolicy {
    /// `metadata.namespace`, empty for cluster-scoped kinds.
    #[must_use]
    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// `namespace/name`, or the name alone.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Which API it is of.
    #[must_use]
    pub fn kind(&self) -> PolicyKind {
        self.kind
    }

    /// Its tier.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Where it came from: "enforced" or a candidate's name.
    #[must_use]
    pub fn origin(&self) -> &Arc<str> {
        &self.origin
    }

    /// What was read of it, but means less than was written: rules that fail closed.
    #[must_use]
    pub fn notices(&self) -> &[Rejection] {
        &self.notices
    }

    /// Whether the pod is a subject. False for one on the host network.
    #[must_use]
    pub fn selects(&self, selection: &Selection, pod: &PodIdentity) -> bool {
        self.selects_known(selection, selection.identity(pod), pod) == Known::Yes
    }

    /// Whether the pod may be a subject: it is, or its namespace was never seen.
    #[must_use]
    pub fn may_select(&self, selection: &Selection, pod: &PodIdentity) -> bool {
        self.selects_known(selection, selection.identity(pod), pod) != Known::No
    }

    /// Whether it speaks of this direction: isolates, or has rules.
    #[must_use]
    pub fn speaks_of(&self, direction: Direction) -> bool {
        self.rules(direction).is_some()
    }

    pub(super) fn selects_known(
        &self,
        selection: &Selection,
        identity: Option<&Identity>,
        pod: &PodIdentity,
    ) -> Known {
        if pod.host_network {
            return Known::No;
        }
        match (identity, self.subject.id) {
            (Some(identity), Some(id)) if identity.is_subject(id) => Known::Yes,
            (Some(_), Some(_)) => Known::No,
            _ => match selection.holds(&self.subject.pattern, pod) {
                (namespace, true) => namespace,
                (_, false) => Known::No,
            },
        }
    }

    pub(super) fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    pub(super) fn for_each_pattern(&mut self, mut f: impl FnMut(&mut Linked)) {
        f(&mut self.subject);
        let rules = [&mut self.ingress, &mut self.egress].into_iter().flatten();
        for rule in rules.flat_map(|rules| rules.iter_mut()) {
            let Peers::AnyOf(peers) = &mut rule.peers else { continue };
            for peer in peers {
                if let Peer::Pods(pattern) = peer {
                    f(pattern);
                }
            }
        }
    }
}

impl Rule {
    /// Peers are asked first: a rule about somebody else is not near because its port fits.
    pub(super) fn answer(&self, question: &Question<'_>) -> Answer {
        let peer = self.peers.answer(question);
        if let Answer::No(_) = peer {
            return peer;
        }
        match (peer, self.answer_ports(question.probe)) {
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
                | Endpoint::External => Answer::No(RuleMatch::PortDiffers),
            },
        }
    }
}

impl Peers {
    fn answer(&self, question: &Question<'_>) -> Answer {
        let peers = match self {
            Self::Everyone => return Answer::Yes,
            Self::FailsClosed => return Answer::No(RuleMatch::FailsClosed),
            Self::AnyOf(peers) => peers,
        };
        let mut found: Option<Answer> = None;
        for peer in peers {
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
                Endpoint::Named(name) => yes_or(
                    names.iter().any(|each| each.matches(name)),
                    RuleMatch::DomainNameDiffers,
                ),
                Endpoint::External => {
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
    pub(super) fn miss(&self, question: &Question<'_>) -> Option<RuleMatch> {
        match self.answer(question) {
            Answer::No(miss) => Some(miss),
            Answer::Yes | Answer::Unknown(..) => None,
        }
    }
}

impl UnknownEnd {
    pub(super) fn reason(self) -> Reason {
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
        Endpoint::Pod(_) | Endpoint::Service(_) | Endpoint::Named(_) | Endpoint::External => {
            return Answer::No(RuleMatch::PeerIsNoNode);
        }
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
pub(super) fn nearer(a: RuleMatch, b: RuleMatch) -> RuleMatch {
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
        Endpoint::External | Endpoint::Named(_) => BlockChoice::Matches,
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
