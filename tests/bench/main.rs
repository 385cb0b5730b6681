//! `parapet-bench`: what the sensor costs and what it can follow, as ratios within one run.
//!
//! In: names of measures, all of them if there is none. Out: for each number one JSON object a line
//! and a line in words. What is compared sees the same traffic or takes turns with it, so that a
//! noisy machine disturbs both alike; that everything was counted right is checked meanwhile.
//! Traffic stays in network namespaces of its own.

mod cost;
mod footprint;
mod load;
mod loss;
mod opens;
mod outcome;
mod place;
mod pods;
mod programs;
mod rounds;
mod sockets;
mod usage;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

type Measure = fn() -> anyhow::Result<()>;

/// In the order in which they run.
const MEASURES: [(&str, Measure); 6] = [
    ("programs", programs::measure),
    ("cost", cost::measure),
    ("rounds", rounds::measure),
    ("footprint", footprint::measure),
    ("loss", loss::measure),
    ("opens", opens::measure),
];

fn main() -> ExitCode {
    if let Some(code) = support::traffic::perform_if_told()
        .or_else(load::perform_if_told)
        .or_else(sockets::perform_if_told)
    {
        return code;
    }
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let mut failures = Vec::new();
    if let Err(error) = check(&chosen) {
        failures.push(error);
    } else {
        for (name, measure) in MEASURES {
            if chosen.is_empty() || chosen.iter().any(|each| each == name) {
                failures.extend(measure().err().map(|error| error.context(name)));
            }
        }
    }
    for failure in &failures {
        let _ = writeln!(std::io::stderr(), "error: {failure:#}");
    }
    // A missed goal is a result; only what was not measured, or counted wrong, is a failure.
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn check(chosen: &[String]) -> anyhow::Result<()> {
    let names = MEASURES.map(|(name, _)| name);
    match chosen.iter().find(|each| !names.contains(&each.as_str())) {
        Some(stranger) => bail!("no measure `{stranger}`: there are {}", names.join(", ")),
        None => Ok(()),
    }
}

/// The agent that was built for this bench, or the one beside it.
fn agent() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the running program")?;
    Ok(std::env::var_os("PARAPET_BIN").map_or_else(|| own.with_file_name("parapet"), PathBuf::from))
}
