//! The live cluster, by its API server: the only place that imports the kube client.
//!
//! In: where the API server is and who asks. Out: the cluster's objects as changes, and agents'
//! answers. It never asks for a Secret and never writes.

pub mod agents;
pub mod connect;
pub mod listed;
