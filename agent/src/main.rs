//! The process: arguments and environment in, an exit code out.
//!
//! Nothing is decided here and nothing is printed to stdout; see [`parapet::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    parapet::cli::main()
}
