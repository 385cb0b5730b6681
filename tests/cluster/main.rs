//! The cluster tier: needs root, a kernel that lets BPF programs load, and a real kube-apiserver.
//!
//! In: objects in that API server and real packets on a simulated node. Out: nothing but
//! assertions, on what the schedule of a test says must be. It runs the agent that `PARAPET_BIN`
//! names, or the one that was built beside it, and the servers of `KUBEBUILDER_ASSETS`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what tests share may end a test as the test itself may"
)]

mod candidates;
mod churn;
mod online;
mod outages;
mod peers;
mod same;
mod scenarios;
mod servers;
mod world;
