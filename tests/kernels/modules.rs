//! The kernel's modules that the guest's traffic takes.
//!
//! In: the folder that the image was packed with, and its list in the order of loading. Out: loaded
//! modules, or the name of the first that the kernel does not take. Nothing is unloaded.

use std::fs::{self, File};
use std::path::Path;

use anyhow::Context as _;
use rustix::io::Errno;

/// Where the image has them.
const FOLDER: &str = "/modules";

/// Loads all; their names come back.
pub(crate) fn load() -> anyhow::Result<Vec<String>> {
    let folder = Path::new(FOLDER);
    let order = fs::read_to_string(folder.join("order")).context("the list of modules")?;
    let names: Vec<_> = order.lines().map(str::to_owned).collect();
    for name in &names {
        let file = File::open(folder.join(format!("{name}.ko"))).with_context(|| name.clone())?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).context(format!("module {name} cannot be loaded")),
        }
    }
    Ok(names)
}
