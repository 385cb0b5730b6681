//! Compiles agent-ebpf. Its sources and a BPF toolchain come in, `target/parapet-ebpf.o` goes out.
//! The object is replaced whole and only when its bytes changed, so that an unchanged program
//! never makes cargo rebuild the agent.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::layout::Layout;
use crate::run;
use crate::run::say;
use crate::setup::toolchain::Toolchain;

const TARGET: &str = "bpfel-unknown-none";

/// Brings the BPF object up to date.
pub(crate) fn build(layout: &Layout, toolchain: &Toolchain) -> anyhow::Result<()> {
    run::step(
        "compile the BPF programs",
        "core is built from source for bpfel-unknown-none; 20 s cold, 1 s warm",
        toolchain
            .cargo(layout)
            .args(["build", "--release", "--target", TARGET, "-Z", "build-std=core"])
            .arg("--target-dir")
            .arg(layout.ebpf_target())
            .env("CARGO_ENCODED_RUSTFLAGS", flags(toolchain.linker())),
    )?;
    let built = layout.ebpf_target().join(TARGET).join("release/parapet-ebpf");
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let object = layout.bpf_object();
    let size = bytes.len();
    let word = if replace_if_changed(&object, &bytes)? { "new" } else { "unchanged" };
    say!("    {} is {word}: {size} bytes", object.display());
    Ok(())
}

/// Debug information is what BTF is made from. Without the last option the linker leaves every
/// clearing of a few bytes to a loop over single bytes, which costs a packet 25 turns. The encoding
/// takes a path with spaces.
fn flags(linker: &Path) -> OsString {
    const OPTIONS: [&str; 3] =
        ["debuginfo=2", "link-arg=--btf", "link-arg=--disable-expand-memcpy-in-order"];
    let mut flags = OsString::new();
    for option in OPTIONS {
        flags.push("-C\x1f");
        flags.push(option);
        flags.push("\x1f");
    }
    flags.push("-C\x1flinker=");
    flags.push(linker);
    flags
}

/// Writes beside the file and renames, so that a reader sees the old bytes or the new ones.
fn replace_if_changed(path: &Path, bytes: &[u8]) -> anyhow::Result<bool> {
    if fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(false);
    }
    let beside = path.with_extension(format!("o.{}", std::process::id()));
    fs::write(&beside, bytes).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::replace_if_changed;

    #[test]
    fn the_object_keeps_its_time_unless_its_bytes_changed() {
        let folder = std::env::temp_dir().join(format!("xtask-object-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("parapet-ebpf.o");

        assert!(replace_if_changed(&path, b"one").unwrap());
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        assert!(!replace_if_changed(&path, b"one").unwrap());
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
        assert!(replace_if_changed(&path, b"two").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        // Nothing is left beside it.
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
