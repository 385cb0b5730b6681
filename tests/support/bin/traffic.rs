//! The program that pods of the simulated node run.
//!
//! In: `traffic` and one JSON order. Out: JSON lines on stdout, and an exit code. It does nothing
//! that was not ordered.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    support::traffic::perform_if_told().unwrap_or_else(|| {
        let _ = writeln!(std::io::stderr(), "usage: parapet-traffic traffic ORDER");
        ExitCode::from(2)
    })
}
