//! Running the programs that configure a network: `ip` and `nft`.
//!
//! In: arguments and what goes to stdin. Out: stdout, or an error that quotes the command,
//! its input and what it said. It never goes through a shell.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Runs `ip` with these words in the caller's network namespace.
///
/// # Errors
/// If it cannot start or fails.
pub fn ip(words: &str) -> anyhow::Result<String> {
    run("ip", &words.split_whitespace().collect::<Vec<_>>(), "")
}

/// Runs one `ip` with a command on each line. It stops at the first that fails.
///
/// # Errors
/// If it cannot start or fails.
pub fn ip_batch(lines: &str) -> anyhow::Result<String> {
    run("ip", &["-batch", "-"], lines)
}

/// Applies these commands to the namespace's rules as one transaction.
///
/// # Errors
/// If it cannot start or fails.
pub fn nft(lines: &str) -> anyhow::Result<String> {
    run("nft", &["-f", "-"], lines)
}

/// Runs a program to its end.
///
/// # Errors
/// If it cannot start or fails.
pub fn run(program: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let shown = || format!("{program} {}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", shown()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read everything says so by its status.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(shown)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {}\n{input}", shown(), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
