//! What is asked, with everything that is looked up once.
//!
//! In: a probe, a policy set, a selection. Out: [`Case`] and [`Side`], which evaluation hands down.
//! It judges nothing.

use super::profile::Choices;
use super::selection::Identity;
use super::{PolicySet, Probe, Selection};
use crate::flow::{Direction, End, Endpoint};

/// What a side is asked, whichever backend it is about.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) set: &'a PolicySet,
    pub(super) selection: &'a Selection,
    pub(super) choices: &'static Choices,
    pub(super) direction: Direction,
}

/// A probe with what was resolved of its ends.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) probe: Probe<'a>,
    pub(super) source: Option<&'a Identity>,
    pub(super) target: Option<&'a Identity>,
    /// A Service's port that NetworkPolicies are to see in the pods' stead, where they do not
    /// select pods.
    pub(super) service_port: Option<u16>,
}

impl<'a> Case<'a> {
    pub(super) fn new(selection: &'a Selection, probe: &Probe<'a>) -> Self {
        let (source, target) = (probe.source, probe.target);
        Self {
            probe: *probe,
            source: identity_of(selection, source),
            target: identity_of(selection, target),
            service_port: None,
        }
    }
}

/// What was resolved of the pod at this end.
pub(super) fn identity_of<'a>(selection: &'a Selection, end: &End) -> Option<&'a Identity> {
    match &end.endpoint {
        Endpoint::Pod(pod) => selection.identity(pod),
        _ => None,
    }
}
