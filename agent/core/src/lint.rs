//! What policies say that their author did not mean, found without any traffic.
//!
//! In: the cluster as it is now and one policy set. Out: [`Finding`]s, each with its place, what is
//! wrong with it, and what to write instead. It changes nothing and judges no flow that was seen;
//! where it must know what the set allows, it asks the same evaluation as everybody. What is right
//! under any reading is never reported, and of what was never listed (no pod, no namespace, no
//! node) nothing is said.

use std::sync::Arc;

use serde::Serialize;

use self::world::World;
use crate::flow::{Direction, Protocol};
use crate::identity::Index;
use crate::policy::compiled::CompiledPolicy;
use crate::policy::{PolicySet, Rejection};
use crate::verdict::PolicyKind;

mod blocks;
mod cover;
mod dns;
mod mesh;
mod order;
mod selectors;
mod services;
mod world;
mod written;

/// One thing to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    // The order of the fields is the order of findings.
    /// "NetworkPolicy shop/allow-web", "ClusterNetworkPolicy deny-metadata".
    pub object: String,
    /// The set's member it came from: "enforced" or the candidate's name.
    pub origin: Arc<str>,
    /// `spec.ingress[0].from[1]`.
    pub field: String,
    /// Which rule found it.
    pub rule: LintRule,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, with the values that make it so.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

/// How sure it is that something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It cannot do what it says.
    Error,
    /// It does what it says, which is probably not what was meant.
    Warning,
}

/// What is looked for. Each name says what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LintRule {
    /// A peer or port is newer than this Parapet, so its rule lets nothing pass, as the API asks.
    FailsClosed,
    /// `policyTypes` does not name the direction of these rules, so the API ignores them.
    IgnoredRules,
    /// A CIDR with host bits: the API drops them without a word, and 10.1.1.7/16 is 65,536
    /// addresses where one may have been meant.
    CidrHostBits,
    /// A selector asks for two things of a label that no object can have together.
    SelectorContradiction,
    /// The policy's namespace is not there, so the policy cannot be applied or does nothing.
    NamespaceMissing,
    /// The policy selects no pod that is there now: a label or namespace is often misspelt.
    SelectsNoPods,
    /// The policy selects pods on the host network, whose traffic policies are not asked about.
    HostNetworkSubject,
    /// A peer's namespace selector holds of no namespace that is there now.
    PeerMatchesNoNamespace,
    /// A peer's pod selector holds of no pod that is there now.
    PeerMatchesNoPods,
    /// A peer's node selector holds of no node that is there now.
    PeerMatchesNoNodes,
    /// A peer's selector holds of pods on the host network only: they have their nodes' addresses,
    /// by which implementations do not find them.
    PeerIsHostNetwork,
    /// None of the pods that would be asked has a container port of this name and protocol.
    NamedPortMissing,
    /// Another rule allows the same or more to the same pods or more: removing or changing this one
    /// changes nothing.
    ShadowedRule,
    /// An earlier rule of its tier decides all that this one is about.
    UnreachableRule,
    /// Policies of one priority contradict each other about the same pods; the API leaves open
    /// which of them is applied.
    PriorityTie,
    /// An egress rule names a Service's port, but policies are asked about the port of the pods
    /// behind it, which is another.
    ServicePort,
    /// Pods are isolated for egress and may not ask DNS, so they find nothing by name.
    EgressWithoutDns,
    /// Pods may ask DNS by UDP but not by TCP, which answers that do not fit a datagram need.
    DnsWithoutTcp,
    /// Traffic between pods of an ambient mesh comes in on TCP 15008, and a rule for its real port
    /// alone lets none of it in.
    AmbientWithoutHbone,
    /// A block of addresses holds only pods: implementations differ in whether it means them, and
    /// pods change their addresses.
    BlockHoldsPods,
    /// A block is the address of a Service, which most implementations never see: they are asked
    /// after it was replaced by a pod's.
    BlockHoldsService,
}

/// What is wrong with what the set's policies say, in the order of their names. `set` must be of
/// policies that were linked into the index's selection, or into none.
#[must_use]
pub fn lint(index: &Index, set: &PolicySet) -> Vec<Finding> {
    let world = World::new(index, set);
    let mut findings = Findings::default();
    written::check(&world, &mut findings);
    selectors::check(&world, &mut findings);
    blocks::check(&world, &mut findings);
    order::check(&world, &mut findings);
    services::check(&world, &mut findings);
    dns::check(&world, &mut findings);
    mesh::check(&world, &mut findings);
    let mut findings = findings.all;
    findings.sort();
    findings.dedup();
    findings
}

/// What was found so far.
#[derive(Debug, Default)]
struct Findings {
    all: Vec<Finding>,
}

/// What is said of a place.
struct Said {
    rule: LintRule,
    severity: Severity,
    problem: String,
    fix: String,
}

impl Said {
    fn error(rule: LintRule, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { rule, severity: Severity::Error, problem: problem.into(), fix: fix.into() }
    }

    fn warning(rule: LintRule, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { rule, severity: Severity::Warning, problem: problem.into(), fix: fix.into() }
    }
}

impl Findings {
    fn add(&mut self, policy: &CompiledPolicy, field: impl Into<String>, said: Said) {
        self.add_of((object_name(policy), policy.origin.clone()), field, said);
    }

    fn add_of(
        &mut self,
        (object, origin): (String, Arc<str>),
        field: impl Into<String>,
        said: Said,
    ) {
        let Said { rule, severity, problem, fix } = said;
        let field = field.into();
        self.all.push(Finding { object, origin, field, rule, severity, problem, fix });
    }

    fn add_notice(&mut self, policy: &CompiledPolicy, notice: &Rejection) {
        let fix = "use a Parapet that knows this field, or write the rule without it";
        let said = Said::error(LintRule::FailsClosed, notice.problem.clone(), fix);
        self.add(policy, notice.field.clone(), said);
    }
}

/// As in a finding's `object`.
fn object_name(policy: &CompiledPolicy) -> String {
    format!("{} {}", policy.kind.name(), policy.id)
}

/// `spec.egress[2]`.
fn rule_field(direction: Direction, rule: usize) -> String {
    match direction {
        Direction::Ingress => format!("spec.ingress[{rule}]"),
        Direction::Egress => format!("spec.egress[{rule}]"),
    }
}

/// `spec.egress[2].to[0]`.
fn peer_field(direction: Direction, rule: usize, peer: usize) -> String {
    let list = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    format!("{}.{list}[{peer}]", rule_field(direction, rule))
}

/// `spec.egress[2].ports[0]`.
fn port_field(policy: &CompiledPolicy, direction: Direction, rule: usize, port: usize) -> String {
    let list = match policy.kind {
        PolicyKind::ClusterNetworkPolicy => "protocols",
        PolicyKind::NetworkPolicy
        | PolicyKind::AdminNetworkPolicy
        | PolicyKind::BaselineAdminNetworkPolicy => "ports",
    };
    format!("{}.{list}[{port}]", rule_field(direction, rule))
}

/// As the API has it.
fn name_of(protocol: Protocol) -> String {
    match protocol {
        Protocol::TCP => "TCP".to_owned(),
        Protocol::UDP => "UDP".to_owned(),
        Protocol::SCTP => "SCTP".to_owned(),
        Protocol(number) => format!("protocol {number}"),
    }
}

/// Where the policy says whom it is for.
fn subject_field(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::NetworkPolicy => "spec.podSelector",
        PolicyKind::ClusterNetworkPolicy
        | PolicyKind::AdminNetworkPolicy
        | PolicyKind::BaselineAdminNetworkPolicy => "spec.subject",
    }
}
