//! `parapet report`: what was observed, from an agent, from all agents of a cluster, or from
//! evidence in a file, as text on stdout.
//!
//! In: arguments. Out: a report in the form asked for. It judges nothing that the agent did not.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::agent;
use super::online::ObserverArgs;
use crate::export::report::render;

/// What `parapet report` is asked.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    about: About,
}

#[derive(Debug, clap::Subcommand)]
enum About {
    /// Every edge: who talks to whom, how it ended, what each policy set says and why
    Flows(Flows),
}

#[derive(Debug, clap::Args)]
struct Flows {
    #[command(flatten)]
    observers: ObserverArgs,
    /// A report saved with `-o json`, or `-` for stdin, instead of an agent
    #[arg(long, value_name = "FILE", env = "PARAPET_EVIDENCE")]
    evidence: Option<PathBuf>,
    /// The form of the result
    #[arg(short, long, value_enum, default_value_t, env = "PARAPET_OUTPUT")]
    output: Output,
}

/// The form of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Columns for people, then a summary
    #[default]
    Table,
    /// The whole report; stable
    Json,
    /// RFC 4180, without the summary
    Csv,
    /// A table for a pull request, then the summary
    Markdown,
}

/// Does it.
///
/// # Errors
/// No agent answers, or the evidence is none.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let About::Flows(flows) = args.about;
    let report = match &flows.evidence {
        Some(path) => agent::read(path)?,
        None => flows.observers.report()?,
    };
    let text = match flows.output {
        Output::Table => render::table(&report),
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&report)?),
        Output::Csv => render::csv(&report),
        Output::Markdown => render::markdown(&report),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
