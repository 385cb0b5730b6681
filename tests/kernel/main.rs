//! The kernel tier: needs root and a kernel that lets BPF programs load.

mod agent;
mod node;
mod prometheus;
mod sensor;
