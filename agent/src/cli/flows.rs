//! `parapet flows`: edges of an agent as they see traffic, with their verdicts, on stdout.
//!
//! In: arguments. Out: a line each time an edge had new packets. It asks the agent once a second
//! and holds nothing but the time of the last answer.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use parapet_core::flow::Direction;
use parapet_core::verdict::Decision;

use super::agent;
use crate::export::report::{EdgeRow, Report, render};

const ASK_EVERY: Duration = Duration::from_secs(1);

/// What `parapet flows` is asked.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The agent to ask
    #[arg(long, value_name = "URL", default_value = agent::AGENT_DEFAULT, env = "PARAPET_AGENT")]
    agent: String,
    /// Only edges with an end in this namespace
    #[arg(short, long, value_name = "NS", env = "PARAPET_NAMESPACE")]
    namespace: Option<String>,
    /// Only edges of which any policy set says this
    #[arg(long, value_enum, env = "PARAPET_VERDICT")]
    verdict: Option<Verdict>,
    /// Only edges seen at this end
    #[arg(long, value_enum, env = "PARAPET_DIRECTION")]
    direction: Option<Side>,
    /// Show what is known now, then end
    #[arg(long, env = "PARAPET_ONCE")]
    once: bool,
    /// The form of each line
    #[arg(short, long, value_enum, default_value_t, env = "PARAPET_OUTPUT")]
    output: Output,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Columns for people
    #[default]
    Table,
    /// One JSON object a line; stable
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Verdict {
    Allowed,
    Denied,
    Undecidable,
    Exempt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Side {
    Ingress,
    Egress,
}

/// Does it, until it is interrupted or its output is closed.
///
/// # Errors
/// The agent does not answer.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut since = 0;
    let mut header = args.output == Output::Table;
    loop {
        let mut report = agent::fetch(&args.agent, &format!("/flows?since={since}"))?;
        since = newest(&report, since);
        report.edges.retain(|edge| wanted(&args, edge));
        let text = match args.output {
            Output::Table => lines(&report, header)?,
            Output::Json => json_lines(&report)?,
        };
        header &= text.is_empty();
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
        drop(stdout);
        if args.once {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(ASK_EVERY);
    }
}

/// The newest packet of an answer: packets are read later than they are seen, so the time of the
/// answer itself would skip some.
fn newest(report: &Report, since: u64) -> u64 {
    report.newest_ns.max(since)
}

fn wanted(args: &Args, edge: &EdgeRow) -> bool {
    let namespace = args.namespace.as_ref().is_none_or(|namespace| edge.touches(namespace));
    let direction = args.direction.is_none_or(|side| {
        let wanted = match side {
            Side::Ingress => Direction::Ingress,
            Side::Egress => Direction::Egress,
        };
        edge.direction == Some(wanted)
    });
    let verdict = args.verdict.is_none_or(|verdict| {
        let wanted = match verdict {
            Verdict::Allowed => Decision::Allowed,
            Verdict::Denied => Decision::Denied,
            Verdict::Undecidable => Decision::Undecidable,
            Verdict::Exempt => Decision::Exempt,
        };
        edge.verdicts.values().any(|verdict| verdict.decision == wanted)
    });
    namespace && direction && verdict
}

fn json_lines(report: &Report) -> anyhow::Result<String> {
    let mut text = String::new();
    for edge in &report.edges {
        text.push_str(&serde_json::to_string(edge)?);
        text.push('\n');
    }
    Ok(text)
}

/// Each edge with the time of its last packet in front.
fn lines(report: &Report, with_header: bool) -> anyhow::Result<String> {
    if report.edges.is_empty() {
        return Ok(String::new());
    }
    let (mut header, mut rows) = render::rows(report);
    header.insert(0, "last_seen".to_owned());
    for (row, edge) in rows.iter_mut().zip(&report.edges) {
        row.insert(0, edge.last_seen.clone());
    }
    let text = render::aligned(&header, rows);
    let skipped = if with_header { 0 } else { text.find('\n').map_or(0, |end| end + 1) };
    Ok(text.get(skipped..).unwrap_or_default().to_owned())
}
