//! The kernel tier: needs root and a kernel that lets BPF programs load.
//!
//! In: real packets on simulated nodes. Out: nothing but assertions, on numbers the generators
//! know. It runs the agent that `PARAPET_BIN` names, or the one that was built beside it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what tests share may end a test as the test itself may"
)]

mod agent;
mod aging;
mod attacks;
mod child;
mod connections;
mod crafted;
mod demo;
mod matrix;
mod mesh;
mod names;
mod node;
mod prometheus;
mod protocols;
mod secret_sensor;
mod secrets;
mod sensor;
mod services;
mod survival;
mod volumes;
mod watched;
