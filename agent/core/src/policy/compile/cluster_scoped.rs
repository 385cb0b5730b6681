//! What the cluster-scoped policies of all versions share: subjects, peers, and how a rule with
//! unknown parts fails closed.
//!
//! In: subjects and peers of the API. Out: their compiled forms, with every reason to refuse them.
//! A peer or port of which only unknown fields are set is from a newer version of the API: it is
//! told, and its rule must let nothing pass.

use std::sync::Arc;

use ipnet::IpNet;

use super::super::Rejection;
use super::super::compiled::CompiledPolicy;
use super::super::domain::DomainName;
use super::super::pattern::{Linked, NamespaceChoice, Pattern, Role};
use super::super::rule::{Block, Peer, Peers, PortRule, Rule};
use super::super::selector::Selector;
use super::{Refusals, compile_selector};
use crate::flow::Direction;
use crate::object::{ClusterPolicyPeer, ClusterPolicySubject, NamespacedPods, UnknownFields};
use crate::verdict::{Action, PolicyKind, Tier};

/// Longest name of a rule, in characters.
const RULE_NAME_CHARS_MAX: usize = 100;
/// The lowest precedence an administrator can give.
const PRIORITY_MAX: u16 = 1_000;
/// CIDRs and domain names of one peer.
const PEER_ITEMS_MAX: usize = 25;

/// Something of this rule is newer than this program.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailsClosed;

/// What a version of the API allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version {
    pub(super) kind: PolicyKind,
    /// Rules of a direction, and peers and ports of a rule.
    pub(super) items_max: usize,
    /// "Accept" or "Allow".
    pub(super) allow: &'static str,
    /// "protocols" or "ports".
    pub(super) ports_field: &'static str,
    /// "destinationNamedPort" or "namedPort".
    pub(super) named_port_field: &'static str,
}

/// A policy as a version of the API writes it, its precedence read.
pub(super) struct WrittenPolicy<'a, R> {
    pub(super) name: &'a str,
    pub(super) precedence: (Tier, u16),
    pub(super) subject: Option<&'a ClusterPolicySubject>,
    pub(super) ingress: Option<&'a [R]>,
    pub(super) egress: Option<&'a [R]>,
}

/// One rule as a version of the API writes it.
pub(super) trait WrittenRule {
    /// An item of its ports.
    type Port;
    fn name(&self) -> Option<&str>;
    fn action(&self) -> &str;
    fn from(&self) -> Option<&[ClusterPolicyPeer]>;
    fn to(&self) -> Option<&[ClusterPolicyPeer]>;
    fn ports(&self) -> Option<&[Self::Port]>;
    /// Whether it asks for a container port by its name.
    fn is_named(port: &Self::Port) -> bool;
    /// Nothing if it was refused.
    fn compile_port(
        port: &Self::Port,
        path: &str,
        refusals: &mut Refusals,
    ) -> Result<Option<PortRule>, FailsClosed>;
}

pub(super) fn compile_priority(priority: Option<i64>, refusals: &mut Refusals) -> u16 {
    let field = "spec.priority";
    match priority {
        None => refusals.add(field, "is missing"),
        Some(given) => match u16::try_from(given) {
            Ok(priority) if priority <= PRIORITY_MAX => return priority,
            _ => refusals.add(field, format!("{given} is not between 0 and {PRIORITY_MAX}")),
        },
    }
    0
}

fn compile_subject(subject: Option<&ClusterPolicySubject>, refusals: &mut Refusals) -> Linked {
    let path = "spec.subject";
    let (namespaces, pods) = match subject {
        None => {
            refusals.add(path, "is missing");
            return Pattern::unlinked(Role::Subject, everywhere(), Selector::default());
        }
        Some(subject) => (&subject.namespaces, &subject.pods),
    };
    match (namespaces, pods) {
        (Some(namespaces), None) => {
            let path = format!("{path}.namespaces");
            let namespaces = compile_selector(namespaces, &path, refusals);
            let namespaces = NamespaceChoice::Labelled(namespaces);
            Pattern::unlinked(Role::Subject, namespaces, Selector::default())
        }
        (None, Some(pods)) => compile_pods(Role::Subject, pods, &format!("{path}.pods"), refusals),
        (None, None) | (Some(_), Some(_)) => {
            refusals.add(path, "must have either namespaces or pods");
            Pattern::unlinked(Role::Subject, everywhere(), Selector::default())
        }
    }
}

impl Version {
    /// Puts a policy together.
    pub(super) fn compile<R: WrittenRule>(
        &self,
        written: WrittenPolicy<'_, R>,
        origin: Arc<str>,
        mut refusals: Refusals,
    ) -> Result<CompiledPolicy, Vec<Rejection>> {
        let WrittenPolicy { name, precedence: (tier, priority), subject, ingress, egress } =
            written;
        let subject = compile_subject(subject, &mut refusals);
        let ingress = self.compile_rules(Direction::Ingress, ingress, &mut refusals);
        let egress = self.compile_rules(Direction::Egress, egress, &mut refusals);
        if !refusals.all.is_empty() {
            return Err(refusals.all);
        }
        Ok(CompiledPolicy {
            tier,
            priority,
            namespace: "".into(),
            name: name.into(),
            kind: self.kind,
            origin,
            id: name.into(),
            subject,
            ingress,
            egress,
            notices: refusals.notices.into(),
            remarks: refusals.remarks.into(),
        })
    }

    /// Refuses a list that is longer than the API allows, or that is there and empty.
    fn check_length<T>(
        &self,
        list: Option<&[T]>,
        path: &str,
        may_be_empty: bool,
        refusals: &mut Refusals,
    ) {
        let Some(list) = list else { return };
        if list.is_empty() && !may_be_empty {
            refusals.add(path, "must have at least one item; leave it out instead");
        }
        if list.len() > self.items_max {
            let problem = format!("has {} items, at most {} may be", list.len(), self.items_max);
            refusals.add(path, problem);
        }
    }

    /// The rules of a direction. None if there are none: then it is not spoken of.
    fn compile_rules<R: WrittenRule>(
        &self,
        direction: Direction,
        given: Option<&[R]>,
        refusals: &mut Refusals,
    ) -> Option<Box<[Rule]>> {
        let field = match direction {
            Direction::Ingress => "spec.ingress",
            Direction::Egress => "spec.egress",
        };
        self.check_length(given, field, true, refusals);
        let mut rules = Vec::new();
        for (index, rule) in given.unwrap_or_default().iter().enumerate() {
            rules.extend(self.compile_rule(
                direction,
                rule,
                &format!("{field}[{index}]"),
                refusals,
            ));
        }
        (!rules.is_empty()).then(|| rules.into())
    }

    fn compile_rule<R: WrittenRule>(
        &self,
        direction: Direction,
        rule: &R,
        path: &str,
        refusals: &mut Refusals,
    ) -> Option<Rule> {
        if rule.name().is_some_and(|name| name.chars().count() > RULE_NAME_CHARS_MAX) {
            let problem = format!("is longer than {RULE_NAME_CHARS_MAX} characters");
            refusals.add(format!("{path}.name"), problem);
        }
        let ports = self.compile_ports(rule, path, refusals);
        let action = self.compile_action(rule.action(), path, refusals);
        let given = self.given_peers(direction, rule, path, refusals)?;
        let mut peers = Vec::new();
        let mut closed = ports.is_err();
        for (peer, path) in given {
            match self.compile_peer(direction, peer, &path, refusals) {
                Ok(peer) => peers.extend(peer),
                Err(FailsClosed) => closed = true,
            }
            if peer.domain_names.is_some() && action.is_some_and(|each| each != Action::Allow) {
                let problem = format!("is only supported in {} rules", self.allow);
                refusals.add(format!("{path}.domainNames"), problem);
            }
        }
        let action = action?;
        Some(match (ports, action) {
            (Ok(ports), action) if !closed => {
                Rule { action, peers: Peers::AnyOf(peers.into()), ports }
            }
            (_, Action::Allow) => Rule { action, peers: Peers::FailsClosed, ports: [].into() },
            // As the API says: a rule that denies, or leaves it to others to deny, denies all.
            (_, Action::Deny | Action::Pass) => {
                Rule { action: Action::Deny, peers: Peers::Everyone, ports: [].into() }
            }
        })
    }

    /// The peers of the direction, each with its path.
    fn given_peers<'r, R: WrittenRule>(
        &self,
        direction: Direction,
        rule: &'r R,
        path: &str,
        refusals: &mut Refusals,
    ) -> Option<Vec<(&'r ClusterPolicyPeer, String)>> {
        let (field, given, other_field, other) = match direction {
            Direction::Ingress => ("from", rule.from(), "to", rule.to()),
            Direction::Egress => ("to", rule.to(), "from", rule.from()),
        };
        if other.is_some() {
            let problem = format!("unknown field here: the peers of this rule are in {field}");
            refusals.add(format!("{path}.{other_field}"), problem);
        }
        let field = format!("{path}.{field}");
        let given = match given {
            None | Some([]) => {
                refusals.add(&field, "must have at least one peer; an empty list is not everyone");
                return None;
            }
            Some(given) => given,
        };
        self.check_length(Some(given), &field, false, refusals);
        let nameless = |peer: &ClusterPolicyPeer| {
            peer.nodes.is_some() || peer.networks.is_some() || peer.domain_names.is_some()
        };
        let named = rule.ports().unwrap_or_default().iter().any(R::is_named);
        if named && given.iter().any(nameless) {
            let problem = format!(
                "{} may not stand beside nodes, networks or domainNames, which have no named ports",
                self.named_port_field
            );
            refusals.add(format!("{path}.{}", self.ports_field), problem);
        }
        let numbered = given.iter().enumerate();
        Some(numbered.map(|(index, peer)| (peer, format!("{field}[{index}]"))).collect())
    }

    /// Each port is read, so that all problems are told.
    fn compile_ports<R: WrittenRule>(
        &self,
        rule: &R,
        path: &str,
        refusals: &mut Refusals,
    ) -> Result<Box<[PortRule]>, FailsClosed> {
        let path = format!("{path}.{}", self.ports_field);
        self.check_length(rule.ports(), &path, false, refusals);
        let mut ports = Vec::new();
        let mut closed = false;
        for (index, port) in rule.ports().unwrap_or_default().iter().enumerate() {
            match R::compile_port(port, &format!("{path}[{index}]"), refusals) {
                Ok(port) => ports.extend(port),
                Err(FailsClosed) => closed = true,
            }
        }
        if closed { Err(FailsClosed) } else { Ok(ports.into()) }
    }

    fn compile_action(&self, action: &str, path: &str, refusals: &mut Refusals) -> Option<Action> {
        let passes = self.kind != PolicyKind::BaselineAdminNetworkPolicy;
        match action {
            "Deny" => Some(Action::Deny),
            "Pass" if passes => Some(Action::Pass),
            other if other == self.allow => Some(Action::Allow),
            other => {
                let pass = if passes { ", \"Pass\"" } else { "" };
                let problem = format!("{other:?} is none of {:?}, \"Deny\"{pass}", self.allow);
                refusals.add(format!("{path}.action"), problem);
                None
            }
        }
    }

    /// Nothing if it was refused.
    fn compile_peer(
        &self,
        direction: Direction,
        peer: &ClusterPolicyPeer,
        path: &str,
        refusals: &mut Refusals,
    ) -> Result<Option<Peer>, FailsClosed> {
        let for_egress = direction == Direction::Egress;
        let for_names = for_egress && self.kind != PolicyKind::BaselineAdminNetworkPolicy;
        let ClusterPolicyPeer { namespaces, pods, nodes, networks, domain_names, unknown } = peer;
        let mut unknown: Vec<&str> = unknown.keys().map(String::as_str).collect();
        let mut known = usize::from(namespaces.is_some()) + usize::from(pods.is_some());
        for (is_set, is_known, field) in [
            (nodes.is_some(), for_egress, "nodes"),
            (networks.is_some(), for_egress, "networks"),
            (domain_names.is_some(), for_names, "domainNames"),
        ] {
            match (is_set, is_known) {
                (true, true) => known += 1,
                (true, false) => unknown.push(field),
                (false, _) => {}
            }
        }
        match (known, unknown.is_empty()) {
            (0, true) => {
                refusals.add(path, "a peer must have one field: it is empty");
                return Ok(None);
            }
            (0, false) => {
                fails_closed(path, &unknown, refusals);
                return Err(FailsClosed);
            }
            (1, true) => {}
            (_, true) => {
                refusals.add(path, "a peer must have one field: it has several");
                return Ok(None);
            }
            (_, false) => {
                let problem = format!("unknown field beside the peer: {}", unknown.join(", "));
                refusals.add(path, problem);
                return Ok(None);
            }
        }
        if let Some(namespaces) = namespaces {
            let namespaces = compile_selector(namespaces, &format!("{path}.namespaces"), refusals);
            let namespaces = NamespaceChoice::Labelled(namespaces);
            let pattern = Pattern::unlinked(Role::Peer, namespaces, Selector::default());
            return Ok(Some(Peer::Pods(pattern)));
        }
        if let Some(pods) = pods {
            let pattern = compile_pods(Role::Peer, pods, &format!("{path}.pods"), refusals);
            return Ok(Some(Peer::Pods(pattern)));
        }
        if let Some(nodes) = nodes {
            let selector = compile_selector(nodes, &format!("{path}.nodes"), refusals);
            return Ok(Some(Peer::Nodes(selector)));
        }
        if let Some(networks) = networks {
            let networks = compile_networks(networks, &format!("{path}.networks"), refusals);
            return Ok(Some(Peer::Blocks(networks)));
        }
        let names = domain_names.as_deref().unwrap_or_default();
        let names = compile_domains(names, &format!("{path}.domainNames"), refusals);
        Ok(Some(Peer::Domains(names)))
    }
}

/// Tells which unknown fields make a rule fail closed.
pub(super) fn fails_closed(path: &str, unknown: &[&str], refusals: &mut Refusals) {
    let problem = format!(
        "only unknown fields are set ({}): the rule fails closed, as the API asks of programs that \
         are older than a policy",
        unknown.join(", ")
    );
    refusals.notice(path, problem);
}

/// The names of unknown fields.
pub(super) fn names(unknown: &UnknownFields) -> Vec<&str> {
    unknown.keys().map(String::as_str).collect()
}

fn everywhere() -> NamespaceChoice {
    NamespaceChoice::Labelled(Selector::default())
}

fn compile_pods(role: Role, pods: &NamespacedPods, path: &str, refusals: &mut Refusals) -> Linked {
    let namespaces = match &pods.namespace_selector {
        None => everywhere(),
        Some(selector) => {
            let path = format!("{path}.namespaceSelector");
            NamespaceChoice::Labelled(compile_selector(selector, &path, refusals))
        }
    };
    let path = format!("{path}.podSelector");
    let selector = match &pods.pod_selector {
        None => {
            refusals.add(path, "is missing");
            Selector::default()
        }
        Some(selector) => compile_selector(selector, &path, refusals),
    };
    Pattern::unlinked(role, namespaces, selector)
}

fn compile_networks(networks: &[String], path: &str, refusals: &mut Refusals) -> Box<[Block]> {
    check_items(networks, path, refusals);
    let mut blocks = Vec::new();
    for (index, text) in networks.iter().enumerate() {
        // Unlike the NetworkPolicies of old, these were never accepted with leading zeros.
        match text.parse::<IpNet>() {
            Ok(net) => {
                refusals.remark_host_bits(&format!("{path}[{index}]"), text, net.trunc());
                blocks.push(Block { net: net.trunc(), except: [].into() });
            }
            Err(_) => {
                let problem = format!("{text:?} is no CIDR, such as 10.0.0.0/8");
                refusals.add(format!("{path}[{index}]"), problem);
            }
        }
    }
    blocks.sort();
    blocks.into()
}

fn compile_domains(names: &[String], path: &str, refusals: &mut Refusals) -> Box<[DomainName]> {
    check_items(names, path, refusals);
    let mut domains = Vec::new();
    for (index, text) in names.iter().enumerate() {
        match DomainName::parse(text) {
            Some(name) => domains.push(name),
            None => {
                let problem =
                    format!("{text:?} is no domain name, such as example.org or *.example.org");
                refusals.add(format!("{path}[{index}]"), problem);
            }
        }
    }
    domains.sort();
    domains.into()
}

/// Lists that are sets in the API.
fn check_items(items: &[String], path: &str, refusals: &mut Refusals) {
    if items.is_empty() || items.len() > PEER_ITEMS_MAX {
        let problem = format!("has {} items, 1 to {PEER_ITEMS_MAX} must be", items.len());
        refusals.add(path, problem);
    }
    for (index, item) in items.iter().enumerate() {
        if items.iter().take(index).any(|before| before == item) {
            refusals.add(format!("{path}[{index}]"), format!("{item:?} is there twice"));
        }
    }
}
