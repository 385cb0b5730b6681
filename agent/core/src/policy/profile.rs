//! What each profile chooses where implementations of the API differ.
//!
//! In: a profile's name. Out: its row of choices. Evaluation asks this table and never the name, so
//! a further profile is a further row.

use crate::verdict::Profile;

/// One profile's choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choices {
    /// An `ipBlock` that holds a pod's address. Cilium goes by identity and says no.
    pub(crate) block_holds_pod: BlockChoice,
    /// The same for the address of a node or of a pod on its host network.
    pub(crate) block_holds_node: BlockChoice,
    /// From the subject's own node to the subject.
    pub(crate) from_own_node: OwnNodeChoice,
    /// From the subject to its own node.
    pub(crate) to_own_node: OwnNodeChoice,
    /// A protocol without ports that no rule allows to an isolated pod.
    pub(crate) undefined_protocol: UndefinedProtocolChoice,
}

/// Whether an `ipBlock` is asked about ends that the cluster knows by more than their address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockChoice {
    /// It matches.
    Matches,
    /// Nobody can tell.
    Undecidable,
}

/// What the policies say about the subject's own node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnNodeChoice {
    /// They are not asked.
    Exempt,
    /// They are asked as about any other peer.
    Judged,
    /// They are asked, and what they would deny is undecidable.
    DeniedIsUndecidable,
}

/// What becomes of a protocol other than TCP, UDP and SCTP where TCP would be denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UndefinedProtocolChoice {
    /// It is denied.
    Denied,
    /// Nobody can tell.
    Undecidable,
}

static COMMON: Choices = Choices {
    block_holds_pod: BlockChoice::Undecidable,
    block_holds_node: BlockChoice::Undecidable,
    from_own_node: OwnNodeChoice::Exempt,
    to_own_node: OwnNodeChoice::DeniedIsUndecidable,
    undefined_protocol: UndefinedProtocolChoice::Undecidable,
};

static SPEC: Choices = Choices {
    block_holds_pod: BlockChoice::Matches,
    block_holds_node: BlockChoice::Matches,
    from_own_node: OwnNodeChoice::Exempt,
    to_own_node: OwnNodeChoice::Judged,
    undefined_protocol: UndefinedProtocolChoice::Denied,
};

impl Profile {
    /// Its row.
    pub(crate) fn choices(self) -> &'static Choices {
        match self {
            Self::Common => &COMMON,
            Self::Spec => &SPEC,
        }
    }
}
