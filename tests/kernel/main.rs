//! The kernel tier: needs root and a kernel that lets BPF programs load.

mod sensor;
