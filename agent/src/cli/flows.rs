//! `parapet flows`: edges as they see traffic, with their verdicts, on stdout.
//!
//! In: arguments. Out: a line each time an edge had new packets. It asks one agent, or
//! all agents of a cluster, once a second; of one agent it holds nothing but the time of the last
//! answer, of many what their edges sum up from.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use parapet_core::flow::Direction;
use parapet_core::verdict::Decision;

use super::agent;
use super::online::{Cluster, ObserverArgs, Observers, somebody_answered};
use crate::export::report::merge::EdgeName;
use crate::export::report::{EdgeRow, Report, form, render};

const ASK_EVERY: Duration = Duration::from_secs(1);

/// What `parapet flows` is asked.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    observers: ObserverArgs,
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

/// Who is asked.
enum Source {
    Agent {
        url: String,
        /// The newest packet it told of.
        since: u64,
    },
    Cluster(Box<Observers>),
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
/// The agent does not answer, or none of a cluster's does.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut source = Source::of(&args.observers)?;
    let mut header = args.output == Output::Table;
    loop {
        let mut report = source.news()?;
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

impl Source {
    fn of(args: &ObserverArgs) -> anyhow::Result<Self> {
        if args.wants_cluster() {
            let observers = Cluster::open(&args.server)?.observers(&args.agents)?;
            return Ok(Self::Cluster(Box::new(observers)));
        }
        let url = args.agent.as_deref().unwrap_or(agent::AGENT_DEFAULT);
        Ok(Self::Agent { url: url.to_owned(), since: 0 })
    }

    /// The edges that had packets since the last time.
    fn news(&mut self) -> anyhow::Result<Report> {
        match self {
            Self::Agent { url, since } => {
                let report = agent::fetch(url, &format!("/flows?since={since}"))?;
                // Packets are read later than they are seen: the time of the answer itself would
                // skip some.
                *since = report.newest_ns.max(*since);
                Ok(report)
            }
            Self::Cluster(observers) => {
                // An edge has news if any node has, and shows what all nodes know of it.
                let mut changed = BTreeSet::new();
                observers.news(|report| changed.extend(report.edges.iter().map(EdgeName::of)))?;
                let mut report = observers.fleet.report();
                somebody_answered(&report)?;
                report.edges.retain(|edge| changed.contains(&EdgeName::of(edge)));
                Ok(report)
            }
        }
    }
}

fn wanted(args: &Args, edge: &EdgeRow) -> bool {
    let namespace = args.namespace.as_ref().is_none_or(|namespace| edge.touches(namespace));
    let direction = args.direction.is_none_or(|side| {
        let wanted = match side {
            Side::Ingress => Direction::Ingress,
            Side::Egress => Direction::Egress,
        };
        edge.seen_at().contains(&wanted)
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
    let text = form::aligned(&header, rows);
    let skipped = if with_header { 0 } else { text.find('\n').map_or(0, |end| end + 1) };
    Ok(text.get(skipped..).unwrap_or_default().to_owned())
}
