//! Compiled policies: what is left of a NetworkPolicy once its text has been read.
//!
//! In: a peer and a port. Out: whether a rule matches, or the nearest thing that kept it from
//! matching. It never parses, looks up anything but a namespace's labels, or allocates.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::cidr::unmap;
use super::profile::{BlockChoice, Choices};
use super::selector::{Known, Selector};
use super::{Namespaces, Probe};
use crate::flow::{Direction, End, Endpoint, PodIdentity, Protocol, UnknownEnd};
use crate::verdict::{Reason, RuleMatch};

/// One NetworkPolicy, defaulted, validated and ready to be asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CompiledPolicy {
    // The order of the fields is the order of policies within a set.
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) origin: Arc<str>,
    pub(super) id: Arc<str>,
    pub(super) subject: Selector,
    /// None: does not isolate in this direction.
    pub(super) ingress: Option<Box<[Rule]>>,
    /// None: does not isolate in this direction.
    pub(super) egress: Option<Box<[Rule]>>,
}

/// One item of `ingress` or `egress`: a peer and a port must match, where they are given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rule {
    /// Empty: everyone.
    pub(super) peers: Box<[Peer]>,
    /// Empty: every port of every protocol.
    pub(super) ports: Box<[PortRule]>,
}

/// One item of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    Pods {
        /// None: the policy's own namespace.
        namespaces: Option<Selector>,
        /// An absent one is compiled to the empty one, which selects the same pods.
        pods: Selector,
    },
    Block {
        net: IpNet,
        except: Box<[IpNet]>,
    },
}

/// One item of `ports`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortRule {
    pub(super) protocol: Protocol,
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
pub(super) struct Question<'a> {
    pub(super) namespaces: &'a Namespaces,
    pub(super) choices: &'a Choices,
    pub(super) probe: &'a Probe<'a>,
    /// The end that is not the subject.
    pub(super) peer: &'a End,
}

impl CompiledPolicy {
    /// `metadata.namespace`.
    #[must_use]
    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// `namespace/name`.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Where it came from: "enforced" or a candidate's name.
    #[must_use]
    pub fn origin(&self) -> &Arc<str> {
        &self.origin
    }

    /// Whether the pod is a subject: of this namespace, with these labels, and not on the host
    /// network.
    #[must_use]
    pub fn selects(&self, pod: &PodIdentity) -> bool {
        !pod.host_network && pod.namespace == self.namespace && self.subject.matches(&pod.labels)
    }

    /// Whether it isolates the pods it selects in this direction.
    #[must_use]
    pub fn isolates(&self, direction: Direction) -> bool {
        self.rules(direction).is_some()
    }

    pub(super) fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

impl Rule {
    /// Peers are asked first: a rule about somebody else is not near because its port fits.
    pub(super) fn answer(&self, own_namespace: &str, question: &Question<'_>) -> Answer {
        let peer = self.answer_peers(own_namespace, question);
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

    fn answer_peers(&self, own_namespace: &str, question: &Question<'_>) -> Answer {
        let mut found: Option<Answer> = None;
        for peer in &self.peers {
            let answer = peer.answer(own_namespace, question);
            found = match (found, answer) {
                (_, Answer::Yes) => return Answer::Yes,
                (None, answer) => Some(answer),
                (Some(Answer::No(a)), Answer::No(b)) => Some(Answer::No(nearer(a, b))),
                (Some(Answer::No(_)), unknown) => Some(unknown),
                (Some(known), Answer::No(_)) => Some(known),
                (Some(a), b) => Some(least_known(a, b)),
            };
        }
        found.unwrap_or(Answer::Yes)
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
        if self.protocol != probe.protocol {
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
                | Endpoint::External => Answer::No(RuleMatch::PortDiffers),
            },
        }
    }
}

impl Peer {
    fn answer(&self, own_namespace: &str, question: &Question<'_>) -> Answer {
        match self {
            Self::Pods { namespaces, pods } => match &question.peer.endpoint {
                Endpoint::Pod(pod) if !pod.host_network => {
                    let known = match namespaces {
                        None if *pod.namespace == *own_namespace => Known::Yes,
                        None => Known::No,
                        Some(selector) => question.namespaces.matches(&pod.namespace, selector),
                    };
                    answer_pod(known, pods.matches(&pod.labels))
                }
                Endpoint::Unknown(why) => Answer::Unknown(why.reason(), RuleMatch::PeerUnknown),
                Endpoint::Pod(_)
                | Endpoint::Node(_)
                | Endpoint::Service(_)
                | Endpoint::External => Answer::No(RuleMatch::PeerIsNoPod),
            },
            Self::Block { net, except } => {
                let choices = question.choices;
                match block_holds(net, except, question.peer) {
                    Known::No => Answer::No(RuleMatch::AddressOutside),
                    Known::Unknown => {
                        let reason = match &question.peer.endpoint {
                            Endpoint::Unknown(why) => why.reason(),
                            _ => Reason::UnknownEnd,
                        };
                        Answer::Unknown(reason, RuleMatch::PeerUnknown)
                    }
                    Known::Yes => match choice_for(&question.peer.endpoint, choices) {
                        BlockChoice::Matches => Answer::Yes,
                        BlockChoice::Undecidable => {
                            Answer::Unknown(Reason::CniDependent, RuleMatch::CniDependent)
                        }
                    },
                }
            }
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

/// Which of two unknowns is reported. By their order and not by their place, so that the order of
/// rules and policies never shows.
fn least_known(a: Answer, b: Answer) -> Answer {
    match (a, b) {
        (Answer::Unknown(x, _), Answer::Unknown(y, _)) if y < x => b,
        _ => a,
    }
}

/// The miss that is nearer to a match: right namespace before right kind before right address.
fn nearer(a: RuleMatch, b: RuleMatch) -> RuleMatch {
    if nearness(b) > nearness(a) { b } else { a }
}

fn nearness(miss: RuleMatch) -> u8 {
    match miss {
        RuleMatch::PodLabelsDiffer => 3,
        RuleMatch::NamespaceLabelsDiffer => 2,
        RuleMatch::AddressOutside => 1,
        _ => 0,
    }
}

fn yes_or(matches: bool, miss: RuleMatch) -> Answer {
    if matches { Answer::Yes } else { Answer::No(miss) }
}

fn answer_pod(namespace: Known, labels: bool) -> Answer {
    match (namespace, labels) {
        (Known::Yes, true) => Answer::Yes,
        (Known::No, _) => Answer::No(RuleMatch::NamespaceLabelsDiffer),
        (Known::Yes | Known::Unknown, false) => Answer::No(RuleMatch::PodLabelsDiffer),
        (Known::Unknown, true) => Answer::Unknown(Reason::UnknownEnd, RuleMatch::PeerUnknown),
    }
}

/// An end known by its address alone may turn out to be a pod, so it goes by the pods' choice.
fn choice_for(endpoint: &Endpoint, choices: &Choices) -> BlockChoice {
    match endpoint {
        Endpoint::External => BlockChoice::Matches,
        Endpoint::Node(_) => choices.block_holds_node,
        Endpoint::Pod(pod) if pod.host_network => choices.block_holds_node,
        Endpoint::Pod(_) | Endpoint::Service(_) | Endpoint::Unknown(_) => choices.block_holds_pod,
    }
}

/// By the address of the flow. Where a pod's address in the flow is not known, all of its
/// addresses must agree.
fn block_holds(net: &IpNet, except: &[IpNet], end: &End) -> Known {
    let holds = |addr: IpAddr| {
        let addr = unmap(addr);
        net.contains(&addr) && !except.iter().any(|each| each.contains(&addr))
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
