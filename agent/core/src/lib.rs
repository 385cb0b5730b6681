//! Parapet's pure core: records, cluster changes, node facts and time in; verdicts and a snapshot
//! out.
//!
//! It does no I/O, reads no clock, spawns nothing and cannot panic on any input. Every behaviour is
//! a replayable list of [`engine::Input`]s.
#![forbid(unsafe_code)]

pub mod access;
pub mod engine;
pub mod flow;
pub mod identity;
pub mod judgement;
pub mod ledger;
pub mod lint;
pub mod names;
pub mod object;
pub mod policy;
pub mod record;
pub mod secrets;
pub mod snapshot;
pub mod verdict;

mod listing;
