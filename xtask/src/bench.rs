//! `cargo xtask bench`: builds everything and measures. Nothing comes in; the benchmarks' own
//! tables go out, as ratios within one run. It never compares with numbers of another machine.

use std::process::ExitCode;

use crate::layout::Layout;
use crate::{build, host, run};

/// Runs both benchmarks; an absent or failing one is an error, after the other has run.
pub(crate) fn perform(layout: &Layout) -> anyhow::Result<ExitCode> {
    let agent = build::perform(layout)?;
    let mut failures = Vec::new();

    if layout.root().join("agent/core/benches").is_dir() {
        let mut command = run::cargo(layout);
        command.args(["bench", "-p", "parapet-core", "--benches"]);
        if let Err(error) =
            run::step("core benchmarks", "verdicts, candidates, the index", &mut command)
        {
            failures.push(format!("{error:#}"));
        }
    } else {
        failures.push("agent/core/benches is absent: no core benchmarks".to_string());
    }

    let missing = host::missing_for_kernel_tier();
    if missing.is_empty() {
        let mut command = run::cargo(layout);
        command.args(["run", "--release", "-p", "parapet-tests", "--bin", "parapet-bench"]);
        command.env("PARAPET_BIN", &agent);
        let why = "the packet program over an empty one and over its floor";
        if let Err(error) = run::step("kernel benchmarks", why, &mut command) {
            failures.push(format!("{error:#}"));
        }
    } else {
        failures.push(format!("kernel benchmarks lack here: {}", missing.join(", ")));
    }

    for failure in &failures {
        eprintln!("error: {failure}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
