//! Which pods a selector means, namespaces included.
//!
//! In: a pod with its namespace's labels. Out: whether the pattern holds of it, the long way. A
//! pattern that was linked into a [`Selection`](super::Selection) has a number there, and the
//! selection knows by that number what it holds of.

use std::fmt;
use std::sync::Arc;

use super::selector::{Known, Labels, Selector};

/// A pattern's number in the selection it is linked into. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PatternId(pub(crate) u32);

/// Pods of some namespaces with some labels. Two are equal if they mean the same by the same words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pattern {
    pub(crate) role: Role,
    pub(crate) namespaces: NamespaceChoice,
    pub(crate) pods: Selector,
}

/// A pattern as policies hold it. The number is beside the pattern and not behind it, because it is
/// all that judging needs.
#[derive(Clone, Debug)]
pub(crate) struct Linked {
    /// None: not linked.
    pub(crate) id: Option<PatternId>,
    pub(crate) pattern: Arc<Pattern>,
}

/// What a pattern is asked for. Subjects are looked up by pod, peers by pattern, so the selection
/// keeps them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Role {
    Subject,
    Peer,
}

/// The namespaces of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum NamespaceChoice {
    /// Only this one: a NetworkPolicy's own.
    Only(Arc<str>),
    /// Those with such labels; of the empty selector all.
    Labelled(Selector),
}

impl Pattern {
    /// A pattern that is not linked.
    pub(crate) fn unlinked(role: Role, namespaces: NamespaceChoice, pods: Selector) -> Linked {
        Linked { id: None, pattern: Arc::new(Self { role, namespaces, pods }) }
    }

    /// Whether this namespace is one of the pattern's. Of a namespace that was never seen its name
    /// is known nevertheless.
    pub(crate) fn holds_namespace(&self, name: &str, labels: Option<&Labels>) -> Known {
        match (&self.namespaces, labels) {
            (NamespaceChoice::Only(own), _) if **own == *name => Known::Yes,
            (NamespaceChoice::Only(_), _) => Known::No,
            (NamespaceChoice::Labelled(selector), Some(labels)) if selector.matches(labels) => {
                Known::Yes
            }
            (NamespaceChoice::Labelled(_), Some(_)) => Known::No,
            (NamespaceChoice::Labelled(selector), None) => selector.matches_name_only(name),
        }
    }
}

/// The number says nothing about what is meant.
impl PartialEq for Linked {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for Linked {}

impl PartialOrd for Linked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Linked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.pattern.cmp(&other.pattern)
    }
}

/// "pods with app=web in namespaces with team=blue".
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pods.is_everything() {
            f.write_str("all pods")?;
        } else {
            write!(f, "pods with {}", self.pods)?;
        }
        match &self.namespaces {
            NamespaceChoice::Only(name) => write!(f, " of namespace {name}"),
            NamespaceChoice::Labelled(selector) if selector.is_everything() => {
                f.write_str(" of all namespaces")
            }
            NamespaceChoice::Labelled(selector) => write!(f, " of namespaces with {selector}"),
        }
    }
}
