//! Where things are in this checkout. Environment variables come in, absolute paths go out. It
//! never creates a file or a folder.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Absolute paths of one checkout.
pub(crate) struct Layout {
    root: PathBuf,
    target: PathBuf,
}

impl Layout {
    /// The checkout that this xtask was started from.
    pub(crate) fn find() -> anyhow::Result<Self> {
        // Cargo sets this at run time too; the compiled-in value serves a directly started binary.
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.parent().context("the xtask folder has no parent")?.to_path_buf();
        // Relative values are relative to the folder cargo was started in, which is ours too.
        let target = match env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty()) {
            Some(value) => std::path::absolute(value).context("cannot read CARGO_TARGET_DIR")?,
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The folder that holds the workspace manifest.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo puts what it builds: CARGO_TARGET_DIR or `target`.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// The package of the BPF programs, a workspace of its own.
    pub(crate) fn ebpf_package(&self) -> PathBuf {
        self.root.join("agent-ebpf")
    }

    /// Where the BPF programs are compiled. Always inside the checkout, so that agent/build.rs
    /// finds the object without knowing CARGO_TARGET_DIR.
    pub(crate) fn ebpf_target(&self) -> PathBuf {
        self.root.join("target/ebpf")
    }

    /// The BPF object that agent/build.rs puts into the binary.
    pub(crate) fn bpf_object(&self) -> PathBuf {
        self.root.join("target/parapet-ebpf.o")
    }

    /// A binary of the release profile.
    pub(crate) fn release_binary(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }

    /// The recorded judgements of other implementations, beside the checkout when they are there.
    pub(crate) fn conformance(&self) -> PathBuf {
        self.root.join("../shared/conformance")
    }
}
