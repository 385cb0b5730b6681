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

    /// How bad it is, where several pairs of pods stand for one edge and the worst one speaks.
    #[must_use]
    pub const fn severity(self) -> u8 {
        match self {
            Self::Exempt => 0,
            Self::Allowed => 1,
            Self::Undecidable => 2,
            Self::Denied => 3,
        }
    }
}

/// Why a side decided as it did. Also a metric label, so the list is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Allowed: no NetworkPolicy isolates the subject in this direction, and the other tiers say
    /// nothing.
    NotIsolated,
    /// Allowed: a rule of any tier matched that lets it pass.
    RuleMatched,
    /// Denied: isolated, and no rule matched.
    NoRuleMatched,
    /// Denied: a rule of the admin or baseline tier denies it.
    RuleDenies,
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
    /// Undecidable: policies of one tier and priority disagree, and the API leaves it open which
    /// one is applied.
    PriorityTie,
    /// Undecidable: a rule asks for a domain name, and it is not known by which name the address
    /// was asked for.
    NameUnknown,
}

/// One side's verdict.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SideVerdict {
    /// What it says.
    pub decision: Decision,
    /// Why.
    pub reason: Reason,
    /// The tier that decided; none if no policy did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// Every policy that selects the subject in this direction, in the order they are asked, and
    /// what each rule said until it was decided.
    pub effects: Vec<Effect>,
}

/// One side's verdict without its effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct SideDecision {
    /// What it says.
    pub decision: Decision,
    /// Why.
    pub reason: Reason,
    /// The tier that decided; none if no policy did.
    pub tier: Option<Tier>,
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
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

    /// What this side says.
    #[must_use]
    pub fn side(&self, direction: Direction) -> &SideVerdict {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }

    /// The directions in which the subject is isolated here and was not `before`: the first policy
    /// that selects a pod denies it everything that the policy does not name.
    #[must_use]
    pub fn newly_isolated(&self, before: &Self) -> Vec<Direction> {
        let directions = [Direction::Egress, Direction::Ingress].into_iter();
        let isolates = |side: &SideVerdict| side.tier == Some(Tier::NetworkPolicy);
        let open = |side: &SideVerdict| {
            side.tier.is_none() && matches!(side.decision, Decision::Allowed)
                || side.tier == Some(Tier::Baseline)
        };
        directions.filter(|each| isolates(self.side(*each)) && open(before.side(*each))).collect()
    }
}

/// Which letter the rules are read by where implementations differ. What each one chooses, and
/// where that is said, is a table in `policy/profile.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Decide only where the known implementations agree.
    #[default]
    Common,
    /// The letter of the API.
    Spec,
    /// Cilium.
    Cilium,
    /// Calico.
    Calico,
    /// The network policy agent of the Amazon VPC CNI.
    Aws,
    /// Antrea.
    Antrea,
    /// OVN-Kubernetes.
    OvnKubernetes,
    /// kube-network-policies, the reference of SIG Network.
    KubeNetworkPolicies,
}

/// One policy's part in a side's verdict.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Effect {
    /// `namespace/name` of the policy, or its name alone if it is cluster-scoped.
    pub policy: Arc<str>,
    /// Which API it is of. Reports of before there were several do not say it.
    #[serde(default)]
    pub kind: PolicyKind,
    /// The set's member it came from: "enforced" or the candidate's name.
    pub origin: Arc<str>,
    /// Its tier.
    pub tier: Tier,
    /// Index of the rule in its list; none if the policy has no rule in this direction.
    pub rule: Option<usize>,
    /// What the rule does with what it matches.
    #[serde(default)]
    pub action: Action,
    /// Whether it matched, or what did not.
    pub matched: RuleMatch,
    /// For a miss, what the rule asks for where it missed: "TCP 80", "pods with app=web ..".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Arc<str>>,
}

/// The API a policy is of.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[expect(missing_docs, reason = "the names of the API")]
pub enum PolicyKind {
    #[default]
    NetworkPolicy,
    ClusterNetworkPolicy,
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
}

impl PolicyKind {
    /// Its name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::AdminNetworkPolicy => "AdminNetworkPolicy",
            Self::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
        }
    }
}

/// What a rule does with what it matches.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Lets it pass: every rule of a NetworkPolicy, "Allow" and "Accept" elsewhere.
    #[default]
    Allow,
    /// Denies it, whatever the tiers below say.
    Deny,
    /// Leaves it to the next tier.
    Pass,
}

/// The tier a policy belongs to, in the order they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// AdminNetworkPolicy, and ClusterNetworkPolicy of the tier "Admin".
    Admin,
    /// NetworkPolicy v1.
    NetworkPolicy,
    /// BaselineAdminNetworkPolicy, and ClusterNetworkPolicy of the tier "Baseline".
    Baseline,
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
    /// No peer matches: the rule asks for nodes and the peer is none.
    PeerIsNoNode,
    /// No peer matches: the nearest one's node labels differ.
    NodeLabelsDiffer,
    /// No peer matches: the rule asks for other domain names.
    DomainNameDiffers,
    /// Whether it matches is not known because the name the address was asked by is not.
    DomainNameUnknown,
    /// The address is inside of a block, but blocks do not hold the cluster's own pods and nodes
    /// under this profile.
    BlockSkipsCluster,
    /// The rule holds something newer than this Parapet, and must not let anything pass.
    FailsClosed,
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

    /// How bad it is, where several pairs of pods stand for one edge and the worst one speaks.
    #[must_use]
    pub const fn severity(self) -> u8 {
        match self {
            Self::UnchangedAllowed => 0,
            Self::NewlyAllowed => 1,
            Self::UnchangedDenied => 2,
            Self::Undecidable => 3,
            Self::NewlyDenied => 4,
        }
    }
}
