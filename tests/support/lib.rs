//! The simulated node: pods as network namespaces, cgroups named as kubelet names them and real
//! processes, joined by a bridge, with Services by nftables.
//!
//! In: what a test or the demo wants to stand on the node. Out: real packets between real sockets,
//! the Kubernetes objects that describe them, and counts that the generators know exactly. It never
//! touches an interface, a rule or a cgroup that it did not make, and leaves none behind.

pub mod agent;
pub mod cgroup;
pub mod control_plane;
pub mod fault_proxy;
pub mod http;
pub mod lifetime;
pub mod namespace;
pub mod network;
pub mod node;
pub mod object;
pub mod pod;
pub mod process;
pub mod reading;
pub mod report;
pub mod secret;
pub mod service;
pub mod task;
pub mod tool;
pub mod traffic;
pub mod wire;
