//! Finds the compiled BPF object for the agent to embed. The environment variable
//! PARAPET_BPF_OBJECT or the place where `cargo xtask build` leaves it comes in, its absolute path
//! goes out as the compile-time variable PARAPET_BPF_OBJECT. It never compiles BPF itself, so that
//! a plain `cargo build` needs no BPF toolchain once the object is there.
use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=PARAPET_BPF_OBJECT");
    let object = match env::var_os("PARAPET_BPF_OBJECT").filter(|value| !value.is_empty()) {
        Some(value) => PathBuf::from(value),
        // The checkout's own target folder: BPF objects do not follow CARGO_TARGET_DIR.
        None => Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target/parapet-ebpf.o"),
    };
    println!("cargo::rerun-if-changed={}", object.display());
    match object.canonicalize() {
        Ok(found) => println!("cargo::rustc-env=PARAPET_BPF_OBJECT={}", found.display()),
        Err(_) => println!(
            "cargo::error=the BPF object {} is not there: run `cargo xtask setup` once, then \
             `cargo xtask build`",
            object.display()
        ),
    }
}
