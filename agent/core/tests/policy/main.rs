//! The policy evaluation from outside: a table of small cases named after the rules of the API, and
//! properties on random clusters against a second, slow evaluator.
//!
//! In: policies as YAML or random ones. Out: passed or failed. It never reads files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod allocation;
mod cluster;
mod items;
mod lint;
mod lint_random;
mod random;
mod refused;
mod shop;
mod slow;
mod undecided;
mod world;
