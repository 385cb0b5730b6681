//! `cargo xtask demo`: builds everything and then becomes the demo program. Nothing but `--keep`
//! comes in; the demo's own output and exit code go out. It leaves no process of ours between the
//! terminal and the demo, so that Ctrl-C and kill reach the one that cleans up.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};

use crate::layout::Layout;
use crate::{build, host, run};

/// Returns only when the demo could not be started.
pub(crate) fn perform(layout: &Layout, keep: bool) -> anyhow::Result<ExitCode> {
    // Before minutes of building. Programs are no reason to stop: building installs them.
    let missing = host::missing_for_bpf();
    if !missing.is_empty() {
        bail!("the demo watches real traffic through BPF and lacks here: {}", missing.join(", "));
    }
    let agent = build::perform(layout)?;
    run::step(
        "build the demo",
        "the simulated node and the shop on it",
        run::cargo(layout)
            .args(["build", "--release", "-p", "parapet-tests"])
            .args(["--bin", "parapet-demo"]),
    )?;
    let mut demo = Command::new(layout.release_binary("parapet-demo"));
    demo.env("PARAPET_BIN", &agent).args(keep.then_some("--keep"));
    run::announce("start the demo", "under a minute");
    Err(demo.exec()).with_context(|| format!("cannot start {}", run::shown(&demo)))
}
