//! The command line: arguments and `PARAPET_*` variables in, results on stdout, everything else on
//! stderr, an exit code out. It never judges anything itself and never writes to a cluster.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

mod agent;
pub mod check;
pub mod cluster;
pub mod doctor;
pub mod explain;
pub mod flows;
pub mod input;
mod online;
pub mod report;
pub mod run;

/// Every exit code but 0 (done, or safe) and 2 (usage, by clap).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Any failure that has no code of its own.
    Failed = 1,
    /// Something would be denied.
    WouldDeny = 10,
    /// Not enough evidence to say.
    NotEnoughEvidence = 11,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Watch from the parapet before you shut the gate: which NetworkPolicy would deny which real
/// traffic.
///
/// Parapet observes, judges and proposes. It never blocks traffic and never writes a NetworkPolicy.
#[derive(Debug, Parser)]
#[command(name = "parapet", version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How to write messages on stderr
    #[arg(long, global = true, value_enum, default_value_t, env = "PARAPET_LOG_FORMAT")]
    log_format: LogFormat,
    /// Which messages: a level, or targets with levels as in "parapet=debug,warn"
    #[arg(long, global = true, default_value = "info", env = "PARAPET_LOG", value_name = "FILTER")]
    log: String,
}

const EXAMPLES: &str = "\
Examples:
  Would these policies let the shop's front end reach its API?
    parapet explain --manifests cluster.yaml --candidate new=policies/ \\
        --from shop/frontend-0 --to service:shop/api --port 80
  What does this machine allow Parapet to see?
    parapet doctor
  Watch this node and serve what would be denied to Prometheus:
    parapet run --manifests cluster/ --candidate new=policies/ --listen 127.0.0.1:9464

Exit codes: 0 done or safe, 10 something would be denied, 11 not enough evidence, 2 wrong usage,
1 any other failure.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch this node: judge its real traffic, serve metrics and reports
    Run(run::Args),
    /// List what this kernel and node allow, and which feature each missing thing costs
    Doctor(doctor::Args),
    /// Show flows as they happen, with their verdicts
    Flows(flows::Args),
    /// Report what was observed
    Report(report::Args),
    /// Say whether policies are safe to apply: the gate, by evidence and by lint
    Check(check::Args),
    /// Explain one connection, or many: every rule that decided
    Explain(explain::Args),
}

/// The form of messages on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// A line for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Reads the arguments, does what they ask, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = log_to_stderr(cli.log_format, &cli.log) {
        let _ = writeln!(std::io::stderr(), "error: --log {:?}: {error}", cli.log);
        return ExitCode::from(2);
    }
    let done = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Flows(args) => flows::run(args),
        Command::Report(args) => report::run(args),
        Command::Check(args) => check::run(args),
        Command::Explain(args) => explain::run(args),
    };
    done.unwrap_or_else(|error| {
        if broken_pipe(&error) {
            // Whoever read our output has seen enough, as `head` does.
            return ExitCode::SUCCESS;
        }
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
        Exit::Failed.into()
    })
}

fn log_to_stderr(
    format: LogFormat,
    filter: &str,
) -> Result<(), tracing_subscriber::filter::ParseError> {
    // The client of the API server logs each failure, which we tell in context. Whoever wants to
    // hear it names it in the filter.
    let filter = tracing_subscriber::EnvFilter::try_new(format!("kube_client=off,{filter}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.without_time().init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

fn broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
