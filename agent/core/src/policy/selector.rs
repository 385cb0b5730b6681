//! Label selectors, compiled once and asked per flow.
//!
//! In: requirements and label lists sorted by key. Out: whether they match. It never parses, and it
//! never allocates while matching.

use std::fmt;
use std::sync::Arc;

/// Labels sorted by key, as identities and namespaces carry them.
pub type Labels = [(Arc<str>, Arc<str>)];

/// The key every namespace carries, with its own name as the value.
pub(crate) const NAMESPACE_NAME_KEY: &str = "kubernetes.io/metadata.name";

/// A present selector: all requirements must hold; none is everything. An absent selector is an
/// `Option` around this, because what absence means depends on where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Selector {
    /// Sorted, so that the same selector written in another order is the same value.
    requirements: Box<[Requirement]>,
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Requirement {
    pub(crate) key: Arc<str>,
    pub(crate) operator: Operator,
}

/// What is asked of a key's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Operator {
    /// Present, and one of these.
    In(Box<[Arc<str>]>),
    /// Absent, or none of these.
    NotIn(Box<[Arc<str>]>),
    /// Present.
    Exists,
    /// Absent.
    DoesNotExist,
}

/// Whether something matches when not all about it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Yes,
    No,
    Unknown,
}

impl Selector {
    /// All of these requirements.
    pub(crate) fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort();
        requirements.dedup();
        Self { requirements: requirements.into() }
    }

    /// What must hold, sorted.
    pub(crate) fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it requires nothing.
    pub(crate) fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// What every match must have one of: a key with these values. None if nothing is that simple.
    pub(crate) fn anchor(&self) -> Option<(&Arc<str>, &[Arc<str>])> {
        self.requirements.iter().find_map(|requirement| match &requirement.operator {
            Operator::In(values) => Some((&requirement.key, &**values)),
            Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => None,
        })
    }

    /// Whether labels sorted by key satisfy every requirement.
    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.operator.holds(value_of(labels, &requirement.key)))
    }

    /// The same for a namespace of which only its name is known.
    pub(crate) fn matches_name_only(&self, namespace: &str) -> Known {
        let mut known = Known::Yes;
        for requirement in &self.requirements {
            if &*requirement.key != NAMESPACE_NAME_KEY {
                known = Known::Unknown;
            } else if !requirement.operator.holds(Some(namespace)) {
                return Known::No;
            }
        }
        known
    }
}

/// As `kubectl get --selector` takes it: "app=web,tier in (a,b),!canary".
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Requirement { key, operator }) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match operator {
                Operator::In(values) => match &**values {
                    [one] => write!(f, "{key}={one}")?,
                    several => write!(f, "{key} in ({})", several.join(","))?,
                },
                Operator::NotIn(values) => match &**values {
                    [one] => write!(f, "{key}!={one}")?,
                    several => write!(f, "{key} notin ({})", several.join(","))?,
                },
                Operator::Exists => write!(f, "{key}")?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

impl Operator {
    fn holds(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::In(values), Some(value)) => values.iter().any(|each| &**each == value),
            (Self::NotIn(values), Some(value)) => values.iter().all(|each| &**each != value),
            (Self::In(_), None) | (Self::Exists, None) | (Self::DoesNotExist, Some(_)) => false,
            (Self::NotIn(_), None) | (Self::Exists, Some(_)) | (Self::DoesNotExist, None) => true,
        }
    }
}

fn value_of<'a>(labels: &'a Labels, key: &str) -> Option<&'a str> {
    let at = labels.binary_search_by(|(each, _)| (**each).cmp(key)).ok()?;
    labels.get(at).map(|(_, value)| &**value)
}
