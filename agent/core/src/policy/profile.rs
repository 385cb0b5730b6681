//! What each profile chooses where implementations of the API differ, and where that is said.
//!
//! In: a profile's name. Out: its row of choices. Evaluation asks this table and never the name, so
//! a further profile is a further row. A choice that no document, source or maintainer states is
//! never guessed: it is `Undecidable`.

use crate::verdict::Profile;

/// One profile's choices, each with its source in [`Row::sources`] at the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choices {
    /// An `ipBlock` or `networks` that holds a pod's address.
    pub(crate) block_holds_pod: BlockChoice,
    /// The same for the address of a node or of a pod on its host network.
    pub(crate) block_holds_node: BlockChoice,
    /// From the subject's own node to the subject, as kubelet probes.
    pub(crate) from_own_node: ExemptionChoice,
    /// From the subject to its own node.
    pub(crate) to_own_node: ExemptionChoice,
    /// A protocol without ports that no rule allows to an isolated pod.
    pub(crate) undefined_protocol: DenialChoice,
    /// Which port a NetworkPolicy is asked about when a Service leads to another one.
    pub(crate) service_port: ServicePortChoice,
    /// A selector of a NetworkPolicy that holds of a pod on the host network.
    pub(crate) host_network_peer: PeerChoice,
    /// From a pod to itself through a Service.
    pub(crate) itself_via_service: ExemptionChoice,
    /// To a multicast or broadcast address.
    pub(crate) group_peer: GroupChoice,
}

/// Whether a block of addresses is asked about ends that the cluster knows by more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockChoice {
    /// It matches.
    Matches,
    /// It is for addresses outside of the cluster only.
    NeverMatches,
    /// Nobody can tell.
    Undecidable,
}

/// What the policies say about traffic that some implementations never ask them about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExemptionChoice {
    /// They are not asked.
    Exempt,
    /// They are asked as about any other.
    Judged,
    /// They are asked, and what they would deny is undecidable.
    DeniedIsUndecidable,
}

/// What becomes of what is denied by the letter, where the letter is not all there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DenialChoice {
    /// It is denied.
    Denied,
    /// Nobody can tell.
    Undecidable,
}

/// Which port is seen of what goes through a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServicePortChoice {
    /// The pods' port.
    Pods,
    /// The pods' port by rules that select pods; others may see the Service's port, and are
    /// undecidable where that makes a difference.
    ServiceOutsideOfSelectors,
    /// Nobody can tell, where it makes a difference.
    Undecidable,
}

/// Whether a selector is asked about a pod that shares its node's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerChoice {
    /// It never matches.
    NeverMatches,
    /// Nobody can tell.
    Undecidable,
}

/// Whether policies decide what goes to many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupChoice {
    /// As of an address outside of the cluster.
    ByAddress,
    /// Nobody can tell, where any policy speaks of it.
    Undecidable,
}

/// One row of the table.
struct Row {
    choices: Choices,
    /// In the order of the fields of [`Choices`].
    sources: [&'static str; 9],
}

/// The questions, in the order of the fields of [`Choices`].
const QUESTIONS: [&str; 9] = [
    "an ipBlock holds a pod's address",
    "an ipBlock holds a node's address",
    "from the pod's own node",
    "to the pod's own node",
    "ICMP and other protocols without ports, where TCP would be denied",
    "the port of a Service that is not its pods' port",
    "a selector holds of a pod on the host network",
    "a pod to itself through a Service",
    "multicast and broadcast",
];

/// One choice of a profile, for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ProfileChoice {
    /// What implementations differ in.
    pub question: &'static str,
    /// What this profile chooses.
    pub choice: &'static str,
    /// Where that is said.
    pub source: &'static str,
}

const DISAGREE: &str = "the implementations below disagree, or one is not known";
const GROUP_BY_ADDRESS: &str = "not documented: a block is a match on addresses, whatever they are";
const KUBERNETES_DOCS: &str = "kubernetes.io/docs/concepts/services-networking/network-policies";

static COMMON: Row = Row {
    choices: Choices {
        block_holds_pod: BlockChoice::Undecidable,
        block_holds_node: BlockChoice::Undecidable,
        from_own_node: ExemptionChoice::Exempt,
        to_own_node: ExemptionChoice::DeniedIsUndecidable,
        undefined_protocol: DenialChoice::Undecidable,
        service_port: ServicePortChoice::ServiceOutsideOfSelectors,
        host_network_peer: PeerChoice::Undecidable,
        itself_via_service: ExemptionChoice::DeniedIsUndecidable,
        group_peer: GroupChoice::Undecidable,
    },
    sources: [
        DISAGREE,
        DISAGREE,
        "all of the implementations below, for what runs as root on the node, as the kubelet does",
        DISAGREE,
        DISAGREE,
        "aws sees the Service's port, and its pods' by selectors only; all others see the pods'",
        DISAGREE,
        DISAGREE,
        DISAGREE,
    ],
};

static SPEC: Row = Row {
    choices: Choices {
        block_holds_pod: BlockChoice::Matches,
        block_holds_node: BlockChoice::Matches,
        from_own_node: ExemptionChoice::Exempt,
        to_own_node: ExemptionChoice::Judged,
        undefined_protocol: DenialChoice::Denied,
        service_port: ServicePortChoice::Pods,
        host_network_peer: PeerChoice::NeverMatches,
        itself_via_service: ExemptionChoice::Exempt,
        group_peer: GroupChoice::ByAddress,
    },
    sources: [
        "networking.k8s.io/v1 IPBlock: a particular CIDR is allowed, with no exception for pods",
        KUBERNETES_DOCS,
        "networking.k8s.io/v1 NetworkPolicySpec.ingress: allowed if the source is the local node",
        "networking.k8s.io/v1 NetworkPolicySpec.egress says nothing of the node, unlike ingress",
        "an isolated pod accepts what a rule allows; a rule with ports allows no other protocol",
        "networking.k8s.io/v1 NetworkPolicyPort is about the pods' ports",
        "kubernetes.io/docs: the most common of the two treatments it names",
        "kubernetes.io/docs: a pod cannot block access to itself",
        "networking.k8s.io/v1 NetworkPolicyPeer: an address that no selector can mean",
    ],
};

static CILIUM: Row = Row {
    choices: Choices {
        block_holds_pod: BlockChoice::NeverMatches,
        block_holds_node: BlockChoice::NeverMatches,
        from_own_node: ExemptionChoice::Exempt,
        to_own_node: ExemptionChoice::Judged,
        undefined_protocol: DenialChoice::Denied,
        service_port: ServicePortChoice::Pods,
        host_network_peer: PeerChoice::NeverMatches,
        itself_via_service: ExemptionChoice::Exempt,
        group_peer: GroupChoice::Undecidable,
    },
    sources: [
        "cilium/cilium Documentation/security/policy/layer3.rst, with policy-cidr-match-mode unset",
        "the same; cilium/cilium#46571",
        "layer3.rst: access from the local host, with allow-localhost unset",
        "cilium/cilium#12277 and #13081: needs toEntities: host",
        "cilium/cilium Documentation/security/policy/layer4.rst",
        "layer4.rst: ports after translation of the Service",
        "layer3.rst: host and remote-node stand for the pods on them",
        "cilium/cilium#15321, #23480",
        "cilium/cilium#29470: policies for multicast are asked for, not there",
    ],
};

static CALICO: Row = Row {
    choices: Choices {
        block_holds_pod: BlockChoice::Matches,
        block_holds_node: BlockChoice::Matches,
        from_own_node: ExemptionChoice::Exempt,
        to_own_node: ExemptionChoice::Judged,
        undefined_protocol: DenialChoice::Denied,
        service_port: ServicePortChoice::Pods,
        host_network_peer: PeerChoice::NeverMatches,
        itself_via_service: ExemptionChoice::DeniedIsUndecidable,
        group_peer: GroupChoice::ByAddress,
    },
    sources: [
        "projectcalico/calico libcalico-go/lib/backend/k8s/conversion: blocks become nets",
        "the same",
        "projectcalico/calico felix/rules/static.go, #2691: the host's own traffic is let through",
        "felix/rules/static.go: egress policy first, then DefaultEndpointToHostAction",
        "felix/rules/static.go: what no rule accepts is dropped",
        "felix/rules/static.go: the filter chains come after the translation of addresses",
        "projectcalico/calico#4667, #4493: pods on the host network are no endpoints",
        "not documented; projectcalico/calico#6949",
        GROUP_BY_ADDRESS,
    ],
};

static AWS: Row = Row {
    choices: Choices {
        block_holds_pod: BlockChoice::Matches,
        block_holds_node: BlockChoice::Matches,
        from_own_node: ExemptionChoice::Exempt,
        to_own_node: ExemptionChoice::DeniedIsUndecidable,
        undefined_protocol: DenialChoice::Undecidable,
        service_port: ServicePortChoice::Undecidable,
        host_network_peer: PeerChoice::Undecidable,
        itself_via_service: ExemptionChoice::DeniedIsUndecidable,
        group_peer: GroupChoice::ByAddress,
    },
    sources: [
        "aws/amazon-network-policy-controller-k8s pkg/resolvers/endpoints.go: the block as it is",
        "the same",
        "aws/aws-network-policy-agent#65: the node's address is let through",
        "aws/aws-network-policy-agent pkg/fwruleprocessor: the node's primary address only",
        "aws/aws-network-policy-agent pkg/ebpf/c: ICMPv6 passes, other protocols do not",
        "amazon-network-policy-controller-k8s#210, #224: Services are added by address and port",
        "amazon-network-policy-controller-k8s#202, #206: left out as subjects only",
        "not documented",
        GROUP_BY_ADDRESS,
    ],
};

static ANTREA: Row = Row {
    choices: Choices {
        block_holds_pod: BlockChoice::Matches,
        block_holds_node: BlockChoice::Undecidable,
        from_own_node: ExemptionChoice::Exempt,
        to_own_node: ExemptionChoice::DeniedIsUndecidable,
        undefined_protocol: DenialChoice::Denied,
        service_port: ServicePortChoice::Pods,
        host_network_peer: PeerChoice::NeverMatches,
        itself_via_service: ExemptionChoice::DeniedIsUndecidable,
        group_peer: GroupChoice::Undecidable,
    },
    sources: [
        "antrea-io/antrea#1764",
        "antrea-io/antrea#3078: a node's traffic may have the gateway's address",
        "antrea-io/antrea docs/design/ovs-pipeline.md: IngressRuleTable",
        "not documented",
        "antrea-io/antrea docs/design/ovs-pipeline.md: the default tables drop all IP; #3263",
        "antrea-io/antrea docs/design/ovs-pipeline.md: Services before egress rules",
        "antrea-io/antrea#3080, since 1.5",
        "antrea-io/antrea#5687: exempt at its ingress, judged at its egress",
        "antrea-io/antrea docs/multicast-guide.md: by its own policies, only some of them",
    ],
};

static OVN_KUBERNETES: Row = Row {
    choices: Choices {
        block_holds_pod: BlockChoice::Matches,
        block_holds_node: BlockChoice::Undecidable,
        from_own_node: ExemptionChoice::Exempt,
        to_own_node: ExemptionChoice::DeniedIsUndecidable,
        undefined_protocol: DenialChoice::Denied,
        service_port: ServicePortChoice::Pods,
        host_network_peer: PeerChoice::Undecidable,
        itself_via_service: ExemptionChoice::Exempt,
        group_peer: GroupChoice::Undecidable,
    },
    sources: [
        "ovn-kubernetes/ovn-kubernetes docs, ACLs: a block is a match on addresses",
        "a node's traffic may have its management port's address",
        "ovn-kubernetes docs, ACLs: NetpolNode",
        "not documented",
        "ovn-kubernetes/ovn-kubernetes#5247, with allowICMPNetworkPolicy unset",
        "ovn-kubernetes docs, ACLs: egress is applied after load balancing",
        "ovn-kubernetes/ovn-kubernetes#4086, #6258: it depends on the selectors that are given",
        "ovn-kubernetes/ovn-kubernetes#3500",
        "ovn-kubernetes docs, Multicast: up to the annotation k8s.ovn.org/multicast-enabled",
    ],
};

static KUBE_NETWORK_POLICIES: Row = Row {
    choices: Choices {
        block_holds_pod: BlockChoice::Matches,
        block_holds_node: BlockChoice::Matches,
        from_own_node: ExemptionChoice::DeniedIsUndecidable,
        to_own_node: ExemptionChoice::DeniedIsUndecidable,
        undefined_protocol: DenialChoice::Denied,
        service_port: ServicePortChoice::Pods,
        host_network_peer: PeerChoice::NeverMatches,
        itself_via_service: ExemptionChoice::DeniedIsUndecidable,
        group_peer: GroupChoice::ByAddress,
    },
    sources: [
        "kubernetes-sigs/kube-network-policies pkg/networkpolicy: the block as it is",
        "the same",
        "kube-network-policies#65, #66: processes of root are let through, others are judged",
        "not documented",
        "kube-network-policies pkg/networkpolicy: only a rule without ports matches",
        "kube-network-policies pkg/dataplane: after the translation of addresses",
        "kube-network-policies#380: pods on the host network are not found by address",
        "not documented",
        GROUP_BY_ADDRESS,
    ],
};

impl Profile {
    /// Its row.
    pub(crate) fn choices(self) -> &'static Choices {
        &self.row().choices
    }

    /// Its row for people, with the sources.
    #[must_use]
    pub fn table(self) -> Vec<ProfileChoice> {
        let Row { choices, sources } = self.row();
        let said = [
            choices.block_holds_pod.words(),
            choices.block_holds_node.words(),
            choices.from_own_node.words(),
            choices.to_own_node.words(),
            choices.undefined_protocol.words(),
            choices.service_port.words(),
            choices.host_network_peer.words(),
            choices.itself_via_service.words(),
            choices.group_peer.words(),
        ];
        let rows = QUESTIONS.into_iter().zip(said).zip(*sources);
        rows.map(|((question, choice), source)| ProfileChoice { question, choice, source })
            .collect()
    }

    fn row(self) -> &'static Row {
        match self {
            Self::Common => &COMMON,
            Self::Spec => &SPEC,
            Self::Cilium => &CILIUM,
            Self::Calico => &CALICO,
            Self::Aws => &AWS,
            Self::Antrea => &ANTREA,
            Self::OvnKubernetes => &OVN_KUBERNETES,
            Self::KubeNetworkPolicies => &KUBE_NETWORK_POLICIES,
        }
    }
}

impl BlockChoice {
    const fn words(self) -> &'static str {
        match self {
            Self::Matches => "matches",
            Self::NeverMatches => "never matches",
            Self::Undecidable => "undecidable",
        }
    }
}

impl ExemptionChoice {
    const fn words(self) -> &'static str {
        match self {
            Self::Exempt => "exempt",
            Self::Judged => "judged as any other",
            Self::DeniedIsUndecidable => "judged, undecidable where denied",
        }
    }
}

impl DenialChoice {
    const fn words(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Undecidable => "undecidable",
        }
    }
}

impl ServicePortChoice {
    const fn words(self) -> &'static str {
        match self {
            Self::Pods => "the pods' port is seen",
            Self::ServiceOutsideOfSelectors => {
                "undecidable for rules without selectors, else the pods' port"
            }
            Self::Undecidable => "undecidable",
        }
    }
}

impl PeerChoice {
    const fn words(self) -> &'static str {
        match self {
            Self::NeverMatches => "never matches",
            Self::Undecidable => "undecidable",
        }
    }
}

impl GroupChoice {
    const fn words(self) -> &'static str {
        match self {
            Self::ByAddress => "judged by the address",
            Self::Undecidable => "undecidable, where a policy speaks of it",
        }
    }
}
