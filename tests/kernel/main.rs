//! The kernel tier: needs root and a kernel that lets BPF programs load.

mod node;
mod sensor;
