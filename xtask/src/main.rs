//! `cargo xtask`: the project's own commands. A subcommand comes in from the command line, an exit
//! code and lines on the terminal go out. It only starts other programs and reads files; nothing
//! here is linked into the agent, and it never changes anything outside the checkout except by
//! `setup`, which says each change before it makes it.
#![expect(clippy::print_stderr, reason = "a command line tool says on stderr why it failed")]

mod bench;
mod bpf;
mod build;
mod demo;
mod fuzz;
mod host;
mod layout;
mod run;
mod setup;
mod test;
mod tidy;

use std::num::NonZeroU64;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::bench::BenchPart;
use crate::fuzz::FuzzTarget;
use crate::layout::Layout;
use crate::test::tier::TierName;

/// Set up, build, test, fuzz, measure and show Parapet.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing need; does nothing where it is there already.
    Setup,
    /// Compile the BPF object and then target/release/parapet with it inside.
    Build,
    /// Show a small shop on a simulated node and what a set of policies would deny (needs root).
    Demo {
        /// Leave the shop and the agent running until Ctrl-C.
        #[arg(long)]
        keep: bool,
    },
    /// Set up, build and run the test tiers, fast ones first.
    Test {
        /// Run only this tier; may be given more than once.
        #[arg(long = "tier", value_enum, value_name = "TIER")]
        tiers: Vec<TierName>,
    },
    /// Measure the sensor and the policy engine, as ratios within one run.
    Bench {
        /// Measure only this part; may be given more than once.
        #[arg(value_enum, value_name = "PART")]
        parts: Vec<BenchPart>,
    },
    /// Search for inputs that break what must hold for any input (needs g++).
    Fuzz {
        /// Search only with this target; may be given more than once.
        #[arg(long = "target", value_enum, value_name = "NAME")]
        targets: Vec<FuzzTarget>,
        /// How long to search with each target.
        #[arg(long, default_value = "10", value_name = "N")]
        minutes: NonZeroU64,
        /// Add what reached new code to the corpora that the tests replay.
        #[arg(long)]
        keep: bool,
    },
    /// Check the import rules, header docs and size limits of the source.
    Tidy,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match Layout::find().and_then(|layout| perform(&arguments.task, &layout)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: &Task, layout: &Layout) -> anyhow::Result<ExitCode> {
    match task {
        Task::Setup => setup::perform_all(layout).map(|()| ExitCode::SUCCESS),
        Task::Build => build::perform(layout).map(|_| ExitCode::SUCCESS),
        Task::Demo { keep } => demo::perform(layout, *keep),
        Task::Test { tiers } => test::perform(layout, tiers),
        Task::Bench { parts } => bench::perform(layout, parts),
        Task::Fuzz { targets, minutes, keep } => {
            fuzz::perform(layout, targets, minutes.get(), *keep)
        }
        Task::Tidy => tidy::perform(layout),
    }
}
