//! The BPF toolchain: a rustc that can build `core` for BPF, and bpf-linker with an LLVM that is
//! not older. What is installed comes in, a way to start cargo for BPF goes out. It only installs
//! bpf-linker, by cargo; compilers come from rustup or Debian.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::packages::LLVM_MAJOR;
use crate::layout::Layout;
use crate::run;

const BPF_LINKER_VERSION: &str = "0.13.0";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A complete way to compile BPF programs.
pub(crate) struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compiler {
    /// rustup's nightly with the rust-src component.
    RustupNightly,
    /// Debian's rustc-web with rust-web-src, told to accept unstable flags.
    Debian,
}

impl Toolchain {
    /// Whether it came from rustup, so that Debian's compiler is not needed.
    pub(crate) fn is_upstream(&self) -> bool {
        self.compiler == Compiler::RustupNightly
    }

    /// The linker, an absolute path.
    pub(crate) fn linker(&self) -> &Path {
        &self.linker
    }

    /// A cargo that uses this toolchain's compiler and none of the caller's compiler settings.
    pub(crate) fn cargo(&self, layout: &Layout) -> Command {
        let mut command = match self.compiler {
            Compiler::RustupNightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]);
                // `cargo xtask` runs below rustup's proxy, which pins the workspace's toolchain.
                command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
                command
            }
            Compiler::Debian => {
                let mut command = run::cargo(layout);
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                command
            }
        };
        for name in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"]
        {
            command.env_remove(name);
        }
        command.current_dir(layout.ebpf_package());
        command
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compiler = match self.compiler {
            Compiler::RustupNightly => "rustup nightly with rust-src",
            Compiler::Debian => "Debian's rustc-web with rust-web-src",
        };
        write!(f, "{compiler}, linker {}", self.linker.display())
    }
}

/// A toolchain that is complete already.
pub(crate) fn find() -> Option<Toolchain> {
    find_upstream().or_else(|| {
        debian_compiler().ok()?;
        Some(Toolchain { compiler: Compiler::Debian, linker: working_linker()? })
    })
}

/// rustup's nightly with rust-src and a bpf-linker, both there already.
pub(crate) fn find_upstream() -> Option<Toolchain> {
    let linker = working_linker()?;
    let sysroot = run::output(
        Command::new("rustup")
            .args(["run", "nightly", "rustc", "--print", "sysroot"])
            // A look must not download a toolchain.
            .env("RUSTUP_AUTO_INSTALL", "0")
            .env_remove("RUSTUP_TOOLCHAIN"),
    )
    .ok()?;
    has_core_source(Path::new(sysroot.trim()))
        .then_some(Toolchain { compiler: Compiler::RustupNightly, linker })
}

/// A complete toolchain; builds bpf-linker when only that is missing.
pub(crate) fn find_or_install(layout: &Layout) -> anyhow::Result<Toolchain> {
    if let Some(toolchain) = find() {
        return Ok(toolchain);
    }
    let llvm_at_least = debian_compiler()?;
    let prefix = llvm_prefix(llvm_at_least)?;
    run::step(
        &format!("cargo install bpf-linker {BPF_LINKER_VERSION}"),
        &format!("links the BPF object with the LLVM in {}; about half a minute", prefix.display()),
        run::cargo(layout)
            .args(["install", "bpf-linker", "--version", BPF_LINKER_VERSION, "--locked", "--force"])
            .args(["--no-default-features", "--features", &format!("llvm-{LLVM_MAJOR}")])
            .arg("--target-dir")
            .arg(layout.root().join("target/bpf-linker"))
            .env("LLVM_PREFIX", &prefix),
    )?;
    let linker = working_linker().context("bpf-linker was installed but does not start")?;
    Ok(Toolchain { compiler: Compiler::Debian, linker })
}

/// The LLVM major version of Debian's compiler, when it can build `core` from source.
fn debian_compiler() -> anyhow::Result<u32> {
    let version = run::output(Command::new(DEBIAN_RUSTC).arg("-vV"))
        .context("neither rustup nightly with rust-src nor Debian's rustc-web is installed")?;
    let sysroot = run::output(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]))?;
    if !has_core_source(Path::new(sysroot.trim())) {
        bail!("{DEBIAN_RUSTC} has no source of core: install Debian's rust-web-src");
    }
    llvm_major(&version)
        .with_context(|| format!("`{DEBIAN_RUSTC} -vV` does not name its LLVM version"))
}

/// Where the LLVM is that bpf-linker is to be built against.
fn llvm_prefix(at_least: u32) -> anyhow::Result<PathBuf> {
    if LLVM_MAJOR < at_least {
        bail!(
            "{DEBIAN_RUSTC} uses LLVM {at_least}, and bpf-linker {BPF_LINKER_VERSION} is built \
             against {LLVM_MAJOR} here: raise LLVM_MAJOR in xtask/src/setup/packages.rs"
        );
    }
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{LLVM_MAJOR}"));
    if !run::is_executable(&prefix.join("bin/llvm-config")) {
        bail!("{} has no llvm-config: install llvm-{LLVM_MAJOR}-dev", prefix.display());
    }
    Ok(prefix)
}

/// `LLVM version: 22.1.8` as `rustc -vV` prints it.
fn llvm_major(version: &str) -> Option<u32> {
    let value = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    value.split('.').next()?.trim().parse().ok()
}

fn has_core_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
}

/// A bpf-linker that starts: one whose LLVM library was removed is as good as none.
fn working_linker() -> Option<PathBuf> {
    let installed = cargo_home().map(|home| home.join("bin/bpf-linker"));
    run::find_program("bpf-linker")
        .into_iter()
        .chain(installed)
        .find(|path| run::output(Command::new(path).arg("--version")).is_ok())
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
}

#[cfg(test)]
mod tests {
    use super::llvm_major;

    #[test]
    fn the_llvm_version_is_read_from_the_compilers_own_words() {
        let version =
            "rustc 1.96.0 (ac68faa20 2026-05-25)\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_major(version), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\nrelease: 1.96.0\n"), None);
        assert_eq!(llvm_major("LLVM version: unknown\n"), None);
    }
}
