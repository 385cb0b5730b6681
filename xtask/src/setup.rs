//! `cargo xtask setup`: what this machine has comes in, installed packages and a BPF toolchain go
//! out, and stock kernels and an API server in the user's cache folder. Run twice, the second run
//! changes nothing. It never starts a service, never removes a package and never installs anything
//! that `packages` does not list.

mod apt;
pub(crate) mod kernels;
pub(crate) mod packages;
pub(crate) mod servers;
pub(crate) mod toolchain;

use anyhow::bail;

use crate::layout::Layout;
use crate::run::say;
use crate::{host, run};
use packages::{Need, PACKAGES};
use toolchain::Toolchain;

/// Brings this machine to where everything builds and every tier can run.
pub(crate) fn perform_all(layout: &Layout) -> anyhow::Result<()> {
    perform(layout)?;
    kernels::ensure()?;
    servers::ensure(layout)?;
    say!("    setup complete");
    Ok(())
}

/// All but the kernels and the servers, which only one tier each needs.
fn perform(layout: &Layout) -> anyhow::Result<Toolchain> {
    run::announce("setup", "packages, the BPF compiler and bpf-linker; what is there is kept");
    let has_upstream = toolchain::find_upstream().is_some();
    let missing = missing_packages(has_upstream, true)?;
    if !missing.is_empty() {
        install(&missing)?;
    }
    let toolchain = toolchain::find_or_install(layout)?;
    say!("    BPF toolchain: {toolchain}");
    Ok(toolchain)
}

/// The BPF toolchain, installed first when something is missing and we may install it.
pub(crate) fn ensure(layout: &Layout) -> anyhow::Result<Toolchain> {
    let found = toolchain::find();
    let has_upstream = found.as_ref().is_some_and(Toolchain::is_upstream);
    let missing: Vec<_> =
        missing_packages(has_upstream, false)?.iter().map(|need| need.package).collect();
    let list = if missing.is_empty() { "no package".to_string() } else { missing.join(", ") };
    match found {
        Some(toolchain) if missing.is_empty() => Ok(toolchain),
        found if host::is_root() => {
            say!("Not set up yet (missing: {list}); running `cargo xtask setup` first.");
            match (perform(layout), found) {
                (Err(error), Some(toolchain)) => {
                    say!("warning: setup failed, but the build does not need it: {error:#}");
                    Ok(toolchain)
                }
                (result, _) => result,
            }
        }
        Some(toolchain) => {
            say!("warning: tests will miss {list}; run `cargo xtask setup` as root");
            Ok(toolchain)
        }
        None => bail!(
            "there is no complete BPF toolchain (missing: {list}) and only root may install one: \
             run `cargo xtask setup` as root"
        ),
    }
}

/// What is not there yet, each printed with its reason when `verbose`.
fn missing_packages(has_upstream: bool, verbose: bool) -> anyhow::Result<Vec<&'static Need>> {
    let installed = apt::installed(&PACKAGES)?;
    let mut missing = Vec::new();
    for need in &PACKAGES {
        let state = if need.is_for_debian_compiler && has_upstream {
            "not needed"
        } else if need.is_present(&installed) {
            "present"
        } else {
            missing.push(need);
            "MISSING"
        };
        if verbose {
            say!("    {:<10} {:<16} {}", state, need.package, need.reason);
        }
    }
    Ok(missing)
}

fn install(missing: &[&'static Need]) -> anyhow::Result<()> {
    let names: Vec<_> = missing.iter().map(|need| need.package).collect();
    if run::find_program("apt-get").is_none() {
        bail!("this is not a Debian machine; install the equivalents of: {}", names.join(" "));
    }
    if !host::is_root() {
        bail!(
            "only root may install packages: run `cargo xtask setup` as root, or \
             `apt-get install -y --no-install-recommends {}`",
            names.join(" ")
        );
    }
    apt::install(&names)
}
