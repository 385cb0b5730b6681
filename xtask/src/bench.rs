//! `cargo xtask bench`: builds what is measured and measures it. Parts come in; the benchmarks' own
//! tables go out, as ratios within one run. It never compares with numbers of another machine.

use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::layout::Layout;
use crate::{build, host, run};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BenchPart {
    /// Verdicts, candidates, the index: needs nothing but this machine.
    Core,
    /// The programs in the kernel and the agent on a simulated node: needs root.
    Sensor,
    /// The watches of a live cluster, against a simulated API server of up to 100,000 pods.
    Cluster,
}

const ALL: [BenchPart; 3] = [BenchPart::Core, BenchPart::Sensor, BenchPart::Cluster];

/// Measures these parts, all of them when none is named. An absent or failing one is an error,
/// after the others have run.
pub(crate) fn perform(layout: &Layout, chosen: &[BenchPart]) -> anyhow::Result<ExitCode> {
    let mut failures = Vec::new();
    for part in ALL {
        if chosen.is_empty() || chosen.contains(&part) {
            let measured = match part {
                BenchPart::Core => core(layout),
                BenchPart::Sensor => sensor(layout),
                BenchPart::Cluster => cluster(layout),
            };
            failures.extend(measured.err());
        }
    }
    for failure in &failures {
        eprintln!("error: {failure:#}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn core(layout: &Layout) -> anyhow::Result<()> {
    if !layout.root().join("agent/core/benches").is_dir() {
        bail!("agent/core/benches is absent: no core benchmarks");
    }
    let mut command = run::cargo(layout);
    command.args(["bench", "-p", "parapet-core", "--benches"]);
    run::step("core benchmarks", "verdicts, candidates, the index", &mut command)
}

fn sensor(layout: &Layout) -> anyhow::Result<()> {
    let agent = build::perform(layout).context("sensor benchmarks")?;
    let missing = host::missing_for_kernel_tier();
    if !missing.is_empty() {
        bail!("sensor benchmarks lack here: {}", missing.join(", "));
    }
    let mut command = run::cargo(layout);
    command.args(["run", "--release", "-p", "parapet-tests", "--bin", "parapet-bench"]);
    command.env("PARAPET_BIN", &agent);
    let why = "what the sensor costs, over its floor, softflowd, conntrack and its absence";
    run::step("sensor benchmarks", why, &mut command)
}

fn cluster(layout: &Layout) -> anyhow::Result<()> {
    build::perform(layout).context("cluster benchmarks")?;
    let mut command = run::cargo(layout);
    command.args(["bench", "-p", "parapet", "--bench", "cluster"]);
    let why = "memory of a pod, beside a plain reflector; readiness; one change";
    run::step("cluster benchmarks", why, &mut command)
}
