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
use crate::{build, host, run, tidy};
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

/// All set-up, as the README promises for the test command. Tiers that need no BPF object run
/// even where it cannot be built, so a failure is kept for those that do.
fn build_if_needed(layout: &Layout, tiers: &[TierName]) -> Result<(), String> {
    if !tiers.iter().any(|tier| tier.needs_build()) {
        return Ok(());
    }
    match build::perform(layout) {
        Ok(_) => Ok(()),
        Err(error) => {
            let reason = format!("the build failed: {error:#}");
            say!("error: {reason}");
            Err(reason)
        }
    }
}

fn perform_tier(
    layout: &Layout,
    tier: TierName,
    build_failure: Option<&String>,
    is_ci: bool,
) -> Tally {
    if let Some(reason) = build_failure.filter(|_| tier.needs_build()) {
        // A build that fails where everything it needs is there is a defect, not a missing thing.
        let is_defect = is_ci || host::is_root();
        return if is_defect { Tally::failure(reason) } else { Tally::skip(tier, reason) };
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
