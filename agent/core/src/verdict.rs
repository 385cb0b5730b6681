//! What a policy set says of one flow, with everything that made it say so.
//!
//! In: nothing (values only). Out: the one value that metric, report line, `explain` and API row
//! are projections of.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::flow::Direction;

/// What one side says, or both together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words of the design")]
pub enum Decision {
    Allowed,
    Denied,
    Undecidable,
    Exempt,
}

impl Decision {
    /// What both sides say together: `denied` if a side denies, else `undecidable` if a side is,
    /// else `allowed`; `exempt` if both are.
    #[must_use]
    pub fn of_both(egress: Self, ingress: Self) -> Self {
        match (egress, ingress) {
            (Self::Denied, _) | (_, Self::Denied) => Self::Denied,
            (Self::Undecidable, _) | (_, Self::Undecidable) => Self::Undecidable,
            (Self::Exempt, Self::Exempt) => Self::Exempt,
            (Self::Allowed | Self::Exempt, Self::Allowed | Self::Exempt) => Self::Allowed,
        }
    }
}

/// Why a side decided as it did. Also a metric label, so the list is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Allowed: no policy isolates the subject in this direction.
    NotIsolated,
    /// Allowed: a rule matched.
    RuleMatched,
    /// Denied: isolated, and no rule matched.
    NoRuleMatched,
    /// Exempt: the peer is the subject's own node.
    OwnNode,
    /// Exempt: loopback, or a pod to itself.
    Loopback,
    /// Exempt: the subject is on the host network.
    HostNetwork,
    /// Exempt: the subject is no pod.
    NotAPod,
    /// Exempt: an answer within an allowed connection.
    EstablishedReply,
    /// Undecidable: the subject or a peer the policies ask about is not known.
    UnknownEnd,
    /// Undecidable: nothing told who began.
    UnknownDirection,
    /// Undecidable: more than one pod held the address.
    AmbiguousAddress,
    /// Undecidable: the Service's endpoints are judged differently.
    EndpointsDisagree,
    /// Undecidable: a Service without a known endpoint.
    NoEndpoints,
    /// Undecidable: implementations differ and the profile does not choose.
    CniDependent,
    /// Undecidable: NetworkPolicy v1 does not define this protocol.
    ProtocolNotDefined,
    /// Undecidable: the source address was rewritten on the way.
    SourceRewritten,
}

/// One side's verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SideVerdict {
    /// What it says.
    pub decision: Decision,
    /// Why.
    pub reason: Reason,
    /// Every policy that selects the subject in this direction, and what each rule said.
    pub effects: Vec<Effect>,
}

/// One side's verdict without its effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct SideDecision {
    /// What it says.
    pub decision: Decision,
    /// Why.
    pub reason: Reason,
}

/// Both sides' verdicts without their effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct SideSummary {
    /// The source's side.
    pub egress: SideDecision,
    /// The target's side.
    pub ingress: SideDecision,
}

/// What both sides say together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// `denied` if a side denies, else `undecidable` if a side is, else `allowed`; `exempt` if both
    /// are.
    pub decision: Decision,
    /// The profile it was made under.
    pub profile: Profile,
    /// The source's side.
    pub egress: SideVerdict,
    /// The target's side.
    pub ingress: SideVerdict,
}

impl Verdict {
    /// The side that decided: the denying one (egress first), else the undecidable one, else egress
    /// unless it is exempt and ingress is not.
    #[must_use]
    pub fn deciding(&self) -> (Direction, &SideVerdict) {
        for wanted in [Decision::Denied, Decision::Undecidable, Decision::Allowed] {
            if self.egress.decision == wanted {
                return (Direction::Egress, &self.egress);
            }
            if self.ingress.decision == wanted {
                return (Direction::Ingress, &self.ingress);
            }
        }
        (Direction::Egress, &self.egress)
    }
}

/// Which letter the rules are read by where implementations differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Decide only where the known implementations agree.
    #[default]
    Common,
    /// The letter of the API.
    Spec,
}

/// One policy's part in a side's verdict.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Effect {
    /// `namespace/name` of the policy.
    pub policy: Arc<str>,
    /// The set's member it came from: "enforced" or the candidate's name.
    pub origin: Arc<str>,
    /// Its tier.
    pub tier: Tier,
    /// Index of the rule in its list; none if the policy has no rule in this direction.
    pub rule: Option<usize>,
    /// Whether it matched, or what did not.
    pub matched: RuleMatch,
}

/// The tier a policy belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// NetworkPolicy v1.
    NetworkPolicy,
}

/// Whether a rule matched, or the first thing that kept it from matching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleMatch {
    /// It matched.
    Matched,
    /// The policy isolates the subject and has no rule in this direction.
    NoRules,
    /// A peer matches, no port does.
    PortDiffers,
    /// A peer matches, the protocol does not.
    ProtocolDiffers,
    /// No peer matches: the nearest one's namespace labels differ.
    NamespaceLabelsDiffer,
    /// No peer matches: the nearest one's pod labels differ.
    PodLabelsDiffer,
    /// No peer matches: the address is outside of the nearest CIDR or in its exceptions.
    AddressOutside,
    /// No peer matches: the rule asks for pods and the peer is none.
    PeerIsNoPod,
    /// Whether it matches depends on the implementation.
    CniDependent,
    /// Whether it matches is not known because the peer is not.
    PeerUnknown,
}

/// Enforced against candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words of the design")]
pub enum Delta {
    UnchangedAllowed,
    UnchangedDenied,
    NewlyDenied,
    NewlyAllowed,
    Undecidable,
}

impl Delta {
    /// Exempt counts as allowed: nothing about it changes.
    #[must_use]
    pub fn between(enforced: Decision, candidate: Decision) -> Self {
        use Decision::{Allowed, Denied, Exempt, Undecidable};
        match (enforced, candidate) {
            (Undecidable, _) | (_, Undecidable) => Self::Undecidable,
            (Denied, Denied) => Self::UnchangedDenied,
            (Denied, Allowed | Exempt) => Self::NewlyAllowed,
            (Allowed | Exempt, Denied) => Self::NewlyDenied,
            (Allowed | Exempt, Allowed | Exempt) => Self::UnchangedAllowed,
        }
    }
}
