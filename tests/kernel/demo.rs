//! The demo is what a newcomer runs first: it must find what it promises to find.

use std::process::Command;

use crate::agent::binary;

/// It checks its own numbers and fails if they differ.
#[test]
fn the_demo_finds_exactly_the_forgotten_dependencies() {
    let done = Command::new(env!("CARGO_BIN_EXE_parapet-demo"))
        .env("PARAPET_BIN", binary())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let last = out.lines().rfind(|line| !line.is_empty());
    let expected = "as it should be: exactly the two forgotten dependencies and the four \
        findings, with exact counts";
    assert_eq!((last, done.status.code()), (Some(expected), Some(0)), "{out}{err}");
}
