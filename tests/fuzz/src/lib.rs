//! What must hold for any input at all.
//!
//! In: bytes, from libFuzzer or from the committed corpora. Out: nothing, or a panic that says
//! which promise is broken. A target keeps nothing between two inputs and reads no clock, so that a
//! file is all it takes to repeat a finding.

pub mod events;
pub mod manifests;
pub mod policy;

/// One thing that is fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its corpus is `corpus/NAME`, its binary `fuzz-NAME`.
    pub name: &'static str,
    /// Takes one input; panics if a promise is broken.
    pub check: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 3] = [
    Target { name: "events", check: events::check },
    Target { name: "manifests", check: manifests::check },
    Target { name: "policy", check: policy::check },
];
