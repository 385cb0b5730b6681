//! `cargo xtask test`: the chosen tiers come in, their live output, a table and one closing line
//! `N passed, N failed, N skipped` go out. A tier that cannot run here is named and counted, never
//! passed over in silence.

mod libtest;
pub(crate) mod tally;
pub(crate) mod tier;

use std::process::ExitCode;
use std::time::Instant;

use crate::layout::Layout;
use crate::run::say;
use crate::{build, host, run, setup, tidy};
use tally::{Tally, TierReport};
use tier::{Plan, TierName};

/// Runs the tiers, all of them when none is named.
pub(crate) fn perform(layout: &Layout, chosen: &[TierName]) -> anyhow::Result<ExitCode> {
    let tiers: Vec<_> = TierName::FAST_TO_SLOW
        .into_iter()
        .filter(|tier| chosen.is_empty() || chosen.contains(tier))
        .collect();
    let built = build_if_needed(layout, &tiers);
    let is_ci = host::is_ci();

    let mut reports = Vec::new();
    for tier in tiers {
        let started = Instant::now();
        run::announce(&format!("tier {}", tier.name()), tier.proves());
        let tally = perform_tier(layout, tier, built.as_ref().err(), is_ci);
        reports.push(TierReport { tier, tally, seconds: started.elapsed().as_secs_f64() });
    }
    say!("");
    say!("{}", tally::table(&reports).trim_end());
    let total = Tally::sum(&reports);
    say!("{total}");
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Why there is nothing built to test.
enum NoBuild {
    /// This machine lacks the tools and we may not install them.
    Impossible(String),
    /// The tools are there and the build failed: a defect.
    Broken(String),
}

/// All set-up, as the README promises for the test command. Tiers that need no BPF object run
/// even where it cannot be built, so a failure is kept for those that do.
fn build_if_needed(layout: &Layout, tiers: &[TierName]) -> Result<(), NoBuild> {
    if !tiers.iter().any(|tier| tier.needs_build()) {
        return Ok(());
    }
    let toolchain = setup::ensure(layout).map_err(|error| {
        let reason = format!("setup failed: {error:#}");
        // Root may install everything, so there setup has no excuse either.
        if host::is_root() { NoBuild::Broken(reason) } else { NoBuild::Impossible(reason) }
    });
    let built = toolchain.and_then(|toolchain| {
        build::compile(layout, &toolchain)
            .map_err(|error| NoBuild::Broken(format!("the build failed: {error:#}")))
    });
    if let Err(NoBuild::Impossible(reason) | NoBuild::Broken(reason)) = &built {
        say!("error: {reason}");
    }
    built.map(drop)
}

fn perform_tier(layout: &Layout, tier: TierName, no_build: Option<&NoBuild>, is_ci: bool) -> Tally {
    match no_build.filter(|_| tier.needs_build()) {
        // Most of its checks read the source only.
        _ if tier == TierName::Tidy => {}
        Some(NoBuild::Impossible(reason)) if !is_ci => return Tally::skip(tier, reason),
        Some(NoBuild::Impossible(reason) | NoBuild::Broken(reason)) => {
            return Tally::failure(reason);
        }
        None => {}
    }
    match tier.plan(layout) {
        Plan::Cannot { reason, must_run_in_ci: true } if is_ci => {
            Tally::failure(&format!("CI=true and this tier cannot run here: {reason}"))
        }
        Plan::Cannot { reason, .. } => Tally::skip(tier, &reason),
        Plan::Checks => tidy::perform_tier(layout),
        Plan::Cargo(mut command) => libtest::run(&mut command),
    }
}
