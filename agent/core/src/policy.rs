//! Network policies of every kind: read once, judged often.
//!
//! In: policy objects as the API has them; then resolved ends, protocol and target port. Out: what
//! the API server would refuse, and the [`Verdict`](crate::verdict::Verdict) of a set of policies.
//! It never holds Kubernetes types after [`compile`]; what selectors select is resolved when
//! objects change ([`Selection`]), so that evaluation only looks up.

use crate::flow::{End, Protocol};

pub use self::compile::{compile, compile_object};
pub use self::compiled::CompiledPolicy;
pub use self::profile::ProfileChoice;
pub use self::selection::Selection;
pub use self::selector::Labels;
pub use self::set::PolicySet;

mod case;
mod cidr;
mod compile;
pub(crate) mod compiled;
pub(crate) mod domain;
mod effect;
mod evaluate;
mod labels;
pub(crate) mod pattern;
mod profile;
pub(crate) mod rule;
pub(crate) mod selection;
pub(crate) mod selector;
mod set;
mod tiers;

/// One thing the API server would refuse an object for, or that this program cannot read of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Rejection {
    /// "NetworkPolicy namespace/name", "ClusterNetworkPolicy name".
    pub object: String,
    /// `spec.ingress[0].from[1].ipBlock.cidr`.
    pub field: String,
    /// What is wrong with it, and with which value.
    pub problem: String,
}

/// One connection to judge.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    /// Who begins.
    pub source: &'a End,
    /// Who is asked. For a Service each of its backends is, at its own port.
    pub target: &'a End,
    /// IP protocol.
    pub protocol: Protocol,
    /// The target's own port, after any Service.
    pub port: u16,
}
