//! `parapet flows`: arguments in, its result on stdout and an exit code out.

use std::process::ExitCode;

/// What `parapet flows` is asked.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
///
/// # Errors
/// Whatever keeps it from doing so, in words for the user.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`parapet flows` is not built yet")
}
