//! The few modules of a stock kernel that the emulated machines load.
//!
//! In: an unpacked kernel package. Out: each wanted module and what it depends on, uncompressed in
//! one folder, and a list of them in the order in which they can be loaded. What is built into the
//! kernel is left out; what the kernel does not have at all is an error that names it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::run;

/// The folder beside an image, and the list in it: a name on each line.
pub(super) const FOLDER: &str = "modules";
pub(super) const ORDER: &str = "order";

/// What the guest's traffic takes. Nobody in the guest loads a module when it is missed.
const WANTED: [&str; 14] = [
    // The simulated node: pods, their bridge, and kube-proxy's device with Service addresses.
    "veth",
    "bridge",
    "dummy",
    // Its rules, and connection tracking as the agent asks for it.
    "nf_tables",
    "nft_chain_nat",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_ct",
    "nft_reject_inet",
    "nf_conntrack_netlink",
    // Services by IPVS, their backends in turn.
    "ip_vs",
    "ip_vs_rr",
    "sctp",
];

/// Puts the modules of this release into the folder.
pub(super) fn keep(root: &Path, release: &str, folder: &Path) -> anyhow::Result<()> {
    let places = [format!("lib/modules/{release}"), format!("usr/lib/modules/{release}")];
    let place = places.iter().map(|place| root.join(place)).find(|path| path.is_dir());
    let place = place.context("the packages hold no modules")?;
    let mut files = BTreeMap::new();
    find(&place, &mut files)?;
    let builtin = fs::read_to_string(place.join("modules.builtin")).unwrap_or_default();
    let builtin: Vec<_> = builtin.lines().filter_map(|line| name(Path::new(line))).collect();

    fs::create_dir_all(folder)?;
    let mut order = Vec::new();
    for wanted in WANTED {
        let source = |name: &str| match files.get(name) {
            Some(file) => Ok(Some(file.clone())),
            None if builtin.iter().any(|one| one == name) => Ok(None),
            None => bail!("{release} has no module {name}"),
        };
        add(wanted, &source, folder, &mut order)?;
    }
    fs::write(folder.join(ORDER), order.join("\n") + "\n")?;
    Ok(())
}

/// Adds a module after everything it depends on.
fn add(
    name: &str,
    source: &impl Fn(&str) -> anyhow::Result<Option<PathBuf>>,
    folder: &Path,
    order: &mut Vec<String>,
) -> anyhow::Result<()> {
    if order.iter().any(|one| one == name) {
        return Ok(());
    }
    let Some(file) = source(name)? else { return Ok(()) };
    let kept = folder.join(format!("{name}.ko"));
    if file.extension() == Some(OsStr::new("xz")) {
        let packed = folder.join(format!("{name}.ko.xz"));
        fs::copy(&file, &packed)?;
        run::output(Command::new("xz").args(["--decompress", "--force"]).arg(&packed))?;
    } else {
        fs::copy(&file, &kept)?;
    }
    for needed in dependencies(&fs::read(&kept)?) {
        add(&needed, source, folder, order)?;
    }
    order.push(name.to_owned());
    Ok(())
}

/// Every module below, by its name.
fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), files)?;
        } else if let Some(name) = name(&entry.path()) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

/// A module's name: the kernel takes `-` in a file's name for `_`.
fn name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let stem = file.strip_suffix(".xz").unwrap_or(file).strip_suffix(".ko")?;
    Some(stem.replace('-', "_"))
}

/// What stands in a module's section of facts (scripts/mod/modpost.c): texts that end with a zero
/// byte, one of which is `depends=` and names with commas.
fn dependencies(module: &[u8]) -> Vec<String> {
    const WORD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(WORD.len()).position(|bytes| bytes == WORD) else {
        return Vec::new();
    };
    let rest = module.get(at + WORD.len()..).unwrap_or_default();
    let text = rest.split(|&byte| byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(text);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{dependencies, name};

    #[test]
    fn dependencies_stand_between_zeros() {
        let module = b"\x7fELF depends=no\0license=GPL\0depends=nf_conntrack,a-b\0name=x\0";
        assert_eq!(dependencies(module), ["nf_conntrack", "a_b"]);
        assert_eq!(dependencies(b"license=GPL\0depends=\0name=x\0"), Vec::<String>::new());
        assert_eq!(dependencies(b"\0depends="), Vec::<String>::new());
    }

    #[test]
    fn a_module_is_known_by_its_file_packed_or_not() {
        let names = ["kernel/net/ip_vs.ko", "crc32c-intel.ko.xz", "modules.dep", "a.xz"];
        let found = names.map(|path| name(Path::new(path)));
        assert_eq!(found, [Some("ip_vs".to_owned()), Some("crc32c_intel".to_owned()), None, None]);
    }
}
