//! What each rule said, for those who want to know why.
//!
//! In: policies and rules as they are asked. Out: [`Effect`]s, or nothing. It never changes an
//! answer.

use std::fmt::Display;
use std::sync::Arc;

use super::compiled::CompiledPolicy;
use super::rule::{Answer, Peer, Peers, PortChoice, PortRule, Question, Rule, nearer};
use crate::flow::Protocol;
use crate::verdict::{Action, Effect, PolicyKind, RuleMatch, Tier};

/// Name and origin of the policy that [`super::PolicySet::with_default_deny_everywhere`] stands
/// for.
const DEFAULT_DENY: &str = "default-deny";

/// Takes the effects, or drops them.
pub(crate) trait Sink {
    /// Whether evaluation goes on after the answer is known, for the effects' sake.
    const TAKES: bool;
    /// A policy that selects the subject has no rule in this direction.
    fn no_rules(&mut self, policy: Option<&CompiledPolicy>);
    /// What the rule with this index said.
    fn rule(
        &mut self,
        policy: &CompiledPolicy,
        rule: (usize, &Rule),
        answer: Answer,
        question: &Question<'_>,
    );
}

/// Drops them.
pub(crate) struct Nothing;

/// Takes them.
#[derive(Clone, Debug)]
pub(crate) struct Effects {
    taken: Vec<Effect>,
    /// Whether to tell of each miss what the rule asks for.
    wanted: bool,
}

impl Sink for Nothing {
    const TAKES: bool = false;

    fn no_rules(&mut self, _: Option<&CompiledPolicy>) {}

    fn rule(&mut self, _: &CompiledPolicy, _: (usize, &Rule), _: Answer, _: &Question<'_>) {}
}

impl Effects {
    pub(crate) fn new(wanted: bool) -> Self {
        Self { taken: Vec::new(), wanted }
    }

    pub(crate) fn taken(self) -> Vec<Effect> {
        self.taken
    }
}

impl Sink for Effects {
    const TAKES: bool = true;

    fn no_rules(&mut self, policy: Option<&CompiledPolicy>) {
        let (id, kind, origin, tier) = match policy {
            Some(policy) => (policy.id.clone(), policy.kind, policy.origin.clone(), policy.tier),
            None => {
                let name: Arc<str> = DEFAULT_DENY.into();
                (name.clone(), PolicyKind::NetworkPolicy, name, Tier::NetworkPolicy)
            }
        };
        self.taken.push(Effect {
            policy: id,
            kind,
            origin,
            tier,
            rule: None,
            action: Action::Allow,
            matched: RuleMatch::NoRules,
            wanted: None,
        });
    }

    fn rule(
        &mut self,
        policy: &CompiledPolicy,
        (index, rule): (usize, &Rule),
        answer: Answer,
        question: &Question<'_>,
    ) {
        let matched = match answer {
            Answer::Yes => RuleMatch::Matched,
            Answer::No(matched) | Answer::Unknown(_, matched) => matched,
        };
        self.taken.push(Effect {
            policy: policy.id.clone(),
            kind: policy.kind,
            origin: policy.origin.clone(),
            tier: policy.tier,
            rule: Some(index),
            action: rule.action,
            matched,
            wanted: if self.wanted { rule.wanted(matched, question).map(Into::into) } else { None },
        });
    }
}

impl Rule {
    /// What the rule asks for, where it missed.
    fn wanted(&self, matched: RuleMatch, question: &Question<'_>) -> Option<String> {
        match matched {
            RuleMatch::Matched | RuleMatch::NoRules | RuleMatch::FailsClosed => None,
            RuleMatch::PortDiffers => {
                let protocol = question.probe.protocol;
                let near = |port: &&PortRule| port.protocol.is_none_or(|p| p == protocol);
                Some(list(self.ports.iter().filter(near)))
            }
            RuleMatch::ProtocolDiffers => Some(list(self.ports.iter())),
            _ => {
                let Peers::AnyOf(peers) = &self.peers else { return None };
                let miss = |peer: &Peer| peer.miss(question);
                let nearest = peers.iter().filter_map(miss).reduce(nearer);
                let near = |peer: &&Peer| miss(peer).is_none_or(|miss| Some(miss) == nearest);
                Some(list(peers.iter().filter(near)))
            }
        }
    }
}

fn list(items: impl Iterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    items.join(" or ")
}

impl Display for PortRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = match self.protocol {
            None => "",
            Some(Protocol::TCP) => "TCP ",
            Some(Protocol::UDP) => "UDP ",
            Some(Protocol::SCTP) => "SCTP ",
            Some(Protocol(number)) => return write!(f, "protocol {number}"),
        };
        match &self.port {
            PortChoice::Any => write!(f, "{protocol}any port"),
            PortChoice::Range(first, last) if first == last => write!(f, "{protocol}{first}"),
            PortChoice::Range(first, last) => write!(f, "{protocol}{first}-{last}"),
            PortChoice::Named(name) => write!(f, "{protocol}port named {name}"),
        }
    }
}

impl Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pods(linked) => linked.pattern.fmt(f),
            Self::Blocks(blocks) => {
                for (index, block) in blocks.iter().enumerate() {
                    if index > 0 {
                        f.write_str(" or ")?;
                    }
                    write!(f, "{}", block.net)?;
                    if !block.except.is_empty() {
                        let except: Vec<_> = block.except.iter().map(ToString::to_string).collect();
                        write!(f, " except {}", except.join(", "))?;
                    }
                }
                Ok(())
            }
            Self::Nodes(selector) if selector.is_everything() => f.write_str("all nodes"),
            Self::Nodes(selector) => write!(f, "nodes with {selector}"),
            Self::Domains(names) => {
                let names: Vec<_> = names.iter().map(ToString::to_string).collect();
                f.write_str(&names.join(" or "))
            }
        }
    }
}
