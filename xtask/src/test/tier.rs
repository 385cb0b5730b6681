//! The tiers of the test suite. A name comes in; what it proves, what it needs and the command
//! that runs it go out. It runs no test itself; it fetches the stock kernels and builds the API
//! server that are missing.

use std::process::Command;

use clap::ValueEnum;

use crate::layout::Layout;
use crate::setup::{kernels, servers};
use crate::{host, run};

/// The tiers that `cargo xtask test` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TierName {
    /// rustfmt, clippy and the project's own rules.
    Tidy,
    /// Tests of xtask itself.
    Xtask,
    /// Tests of the pure core.
    Core,
    /// Tests of the agent's own modules.
    Agent,
    /// Tests of what the other tiers and the bench are made of.
    Support,
    /// The command line as a user meets it.
    Cli,
    /// One file for each rule of policy, judged by `parapet explain`.
    Scenarios,
    /// Judgements of other implementations, repeated by `parapet explain`.
    Conformance,
    /// The simulated node: real traffic through real BPF programs.
    Kernel,
    /// A real API server: watches, outages, and what the agent asks of it.
    Cluster,
    /// Stock kernels in emulated machines: every program loads, attaches and fires.
    Kernels,
}

/// How a tier is to be run here.
pub(crate) enum Plan {
    /// `cargo test`, whose results are counted.
    Cargo(Command),
    /// The checks of `tidy`, which are no libtest.
    Checks,
    /// It cannot run on this machine.
    Cannot {
        /// What is missing.
        reason: String,
        /// Whether CI provides it, so that its absence there is a failure.
        must_run_in_ci: bool,
    },
}

impl TierName {
    /// All tiers in the order in which they run.
    pub(crate) const FAST_TO_SLOW: [Self; 11] = [
        Self::Tidy,
        Self::Xtask,
        Self::Core,
        Self::Agent,
        Self::Support,
        Self::Cli,
        Self::Scenarios,
        Self::Conformance,
        Self::Kernel,
        Self::Cluster,
        Self::Kernels,
    ];

    /// The name on the command line and in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tidy => "tidy",
            Self::Xtask => "xtask",
            Self::Core => "core",
            Self::Agent => "agent",
            Self::Support => "support",
            Self::Cli => "cli",
            Self::Scenarios => "scenarios",
            Self::Conformance => "conformance",
            Self::Kernel => "kernel",
            Self::Cluster => "cluster",
            Self::Kernels => "kernels",
        }
    }

    /// What a passing tier shows, and what it needs for that.
    pub(crate) fn proves(self) -> &'static str {
        match self {
            Self::Tidy => "format, lints and the project's own rules; needs rustfmt and clippy",
            Self::Xtask => "setup, counting and the tidy rules themselves; needs nothing",
            Self::Core => "policy tables, replay, properties, the decoder; needs nothing",
            Self::Agent => "manifests, exports, the fuzz corpora; needs the BPF object",
            Self::Support => "the simulated node's, the fault proxy's and the bench's own parts",
            Self::Cli => "examples, exit codes, messages; needs the built agent",
            Self::Scenarios => "each rule of policy by name; needs the built agent",
            Self::Conformance => "other implementations' judgements; needs ../shared/conformance",
            Self::Kernel => "real traffic on the simulated node; needs root and BPF",
            Self::Cluster => "a real API server, whole and failing; needs root, BPF, and once Go",
            Self::Kernels => "every BPF program on stock kernels; needs qemu, and once the network",
        }
    }

    /// Whether it compiles or runs something with the BPF object inside.
    pub(crate) fn needs_build(self) -> bool {
        !matches!(self, Self::Xtask | Self::Core)
    }

    /// The command, or why there is none.
    pub(crate) fn plan(self, layout: &Layout) -> Plan {
        match self {
            Self::Tidy => Plan::Checks,
            Self::Xtask => Plan::Cargo(cargo_test(layout, &["-p", "xtask"])),
            Self::Core => Plan::Cargo(cargo_test(layout, &["-p", "parapet-core"])),
            Self::Agent => {
                // With what the bench and the other tiers see of it.
                let features = "parapet/measure";
                let arguments = ["-p", "parapet", "-p", "parapet-fuzz", "--features", features];
                Plan::Cargo(cargo_test(layout, &arguments))
            }
            Self::Support => {
                Plan::Cargo(cargo_test(layout, &["-p", "parapet-tests", "--lib", "--bins"]))
            }
            Self::Cli => Plan::Cargo(suite(layout, "cli")),
            Self::Scenarios => Plan::Cargo(suite(layout, "scenarios")),
            Self::Conformance => {
                let folder = layout.conformance();
                if !folder.is_dir() {
                    let reason = format!("{} is not there", folder.display());
                    // The folder is no part of the repository, so no CI can be asked for it.
                    return Plan::Cannot { reason, must_run_in_ci: false };
                }
                let mut command = suite(layout, "conformance");
                command.env("PARAPET_CONFORMANCE", folder);
                Plan::Cargo(command)
            }
            Self::Kernel => plan_node(layout, "kernel", |_| Ok(())),
            Self::Cluster => plan_node(layout, "cluster", |command| {
                command.env("KUBEBUILDER_ASSETS", servers::ensure(layout)?);
                Ok(())
            }),
            Self::Kernels => plan_kernels(layout),
        }
    }
}

/// A suite on simulated nodes, and what it needs beside them.
fn plan_node(
    layout: &Layout,
    target: &str,
    prepare: impl FnOnce(&mut Command) -> anyhow::Result<()>,
) -> Plan {
    let cannot = |reason| Plan::Cannot { reason, must_run_in_ci: true };
    let missing = host::missing_for_kernel_tier();
    if !missing.is_empty() {
        return cannot(format!("missing: {}", missing.join(", ")));
    }
    let mut command = suite(layout, target);
    if let Err(error) = prepare(&mut command) {
        return cannot(format!("{error:#}"));
    }
    // One simulated node at a time: the tests count every packet that they see.
    command.args(["--", "--test-threads=1"]);
    Plan::Cargo(command)
}

fn plan_kernels(layout: &Layout) -> Plan {
    let cannot = |reason| Plan::Cannot { reason, must_run_in_ci: true };
    let missing = host::missing_for_kernels_tier();
    if !missing.is_empty() {
        return cannot(format!("missing: {}", missing.join(", ")));
    }
    match kernels::ensure() {
        Ok(folder) => {
            let mut command = suite(layout, "kernels");
            // An emulated machine keeps one CPU busy; their tables are a result of the tier.
            command.env("PARAPET_KERNELS", folder).args(["--", "--test-threads=2", "--nocapture"]);
            Plan::Cargo(command)
        }
        Err(error) => cannot(format!("{error:#}")),
    }
}

fn cargo_test(layout: &Layout, arguments: &[&str]) -> Command {
    let mut command = run::cargo(layout);
    // Without it the first failing test program hides the results of all later ones.
    command.args(["test", "--no-fail-fast"]).args(arguments);
    command.env("PARAPET_BIN", layout.release_binary("parapet"));
    command
}

/// One test target of the package in tests/.
fn suite(layout: &Layout, target: &str) -> Command {
    cargo_test(layout, &["-p", "parapet-tests", "--test", target])
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::TierName;

    #[test]
    fn every_tier_runs_by_default_under_the_name_of_its_option() {
        let options: Vec<_> = TierName::value_variants()
            .iter()
            .filter_map(|tier| tier.to_possible_value())
            .map(|value| value.get_name().to_string())
            .collect();
        assert_eq!(options, TierName::FAST_TO_SLOW.map(TierName::name));
    }
}
