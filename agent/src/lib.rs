//! The per-node agent: kernel records and declared objects in; metrics, reports and answers out.

pub mod cli;
pub mod clock;
pub mod cluster;
pub mod export;
pub mod kernel;
pub mod manifests;
pub mod memory;
pub mod node;
pub mod runtime;
