//! `cargo xtask build`: sources come in, `target/release/parapet` with the BPF object inside goes
//! out. It never installs anything itself; `setup` does, and says so.

use std::path::PathBuf;

use crate::layout::Layout;
use crate::run::say;
use crate::setup::toolchain::Toolchain;
use crate::{bpf, run, setup};

/// Builds the BPF object and the agent; the agent's path goes out.
pub(crate) fn perform(layout: &Layout) -> anyhow::Result<PathBuf> {
    let toolchain = setup::ensure(layout)?;
    compile(layout, &toolchain)
}

/// The same with a toolchain that is there already.
pub(crate) fn compile(layout: &Layout, toolchain: &Toolchain) -> anyhow::Result<PathBuf> {
    bpf::build(layout, toolchain)?;
    run::step(
        "build the agent",
        "release profile, with the BPF object inside; minutes on a fresh machine",
        run::cargo(layout).args(["build", "--release", "-p", "parapet"]),
    )?;
    let binary = layout.release_binary("parapet");
    say!("    built {}", binary.display());
    Ok(binary)
}
