//! `parapet report`: what was observed, from an agent, from all agents of a cluster, or from
//! evidence in a file, as text on stdout.
//!
//! In: arguments. Out: a report in the form asked for. It judges nothing that the agent did not.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::agent;
use super::online::ObserverArgs;
use crate::export::report::select::{Finding, SecretName, Selection};
use crate::export::report::{Report, render};

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
    /// Every secret: who mounts it, who read which keys, what is never read, what nobody can see
    #[command(after_help = SECRETS_HELP)]
    Secrets(Secrets),
}

const SECRETS_HELP: &str = "\
Examples:
  What should somebody look at?
    parapet report secrets --only findings
  Who read this Secret, on any node?
    parapet report secrets --secret shop/db-creds --cluster
  Which mounts and tokens can go, as a spreadsheet?
    parapet report secrets --only never-read --only token-candidates -o csv
  Who read the keys of this node? The agent must run with --watch-file /etc/kubernetes/pki
    parapet report secrets --secret /etc/kubernetes/pki

\"Never read\" says for how long it was watched, and how many starts of its containers were seen:
most programs read their secrets when they start. What a container gets as a variable (env,
envFrom) is no file and cannot be seen; subPath mounts are files and are seen.";

#[derive(Debug, clap::Args)]
struct Flows {
    #[command(flatten)]
    from: From,
    /// The form of the result
    #[arg(short, long, value_enum, default_value_t, env = "PARAPET_OUTPUT")]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct Secrets {
    #[command(flatten)]
    from: From,
    /// Only secrets of pods in this namespace, and what pods in it read
    #[arg(short, long, value_name = "NS", env = "PARAPET_NAMESPACE")]
    namespace: Option<String>,
    /// Only this Secret, by name or namespace/name; or a file or folder of the node by its path
    #[arg(long, value_name = "NAME", env = "PARAPET_SECRET")]
    secret: Option<SecretName>,
    /// Only what is found of this kind; may be given more than once
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',', env = "PARAPET_ONLY")]
    only: Vec<Finding>,
    /// Also ConfigMaps and other parts of volumes that are no secrets, and reads by the kubelet and
    /// the container runtime; JSON has them always
    #[arg(long, env = "PARAPET_ALL")]
    all: bool,
    /// The form of the result
    #[arg(short, long, value_enum, default_value_t, env = "PARAPET_OUTPUT")]
    output: Output,
}

/// Where a report comes from.
#[derive(Debug, clap::Args)]
struct From {
    #[command(flatten)]
    observers: ObserverArgs,
    /// A report saved with `-o json`, or `-` for stdin, instead of an agent
    #[arg(long, value_name = "FILE", env = "PARAPET_EVIDENCE")]
    evidence: Option<PathBuf>,
}

impl From {
    fn report(&self) -> anyhow::Result<Report> {
        match &self.evidence {
            Some(path) => agent::read(path),
            None => self.observers.report(),
        }
    }
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
    let text = match args.about {
        About::Flows(flows) => self::flows(&flows)?,
        About::Secrets(secrets) => self::secrets(secrets)?,
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn flows(args: &Flows) -> anyhow::Result<String> {
    let report = args.from.report()?;
    Ok(match args.output {
        Output::Table => render::table(&report),
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&report)?),
        Output::Csv => render::csv(&report),
        Output::Markdown => render::markdown(&report),
    })
}

fn secrets(args: Secrets) -> anyhow::Result<String> {
    let mut report = args.from.report()?;
    let Secrets { namespace, secret, only, all, output, .. } = args;
    let selection = Selection { namespace, secret, only };
    let Some(secrets) = &report.secrets else {
        anyhow::bail!(
            "nothing is known of secrets: the report is of an agent that did not watch them, or \
             of `parapet flows`"
        );
    };
    Ok(match output {
        Output::Table => render::secrets::table(&report, &selection, all),
        Output::Json => {
            report.secrets = Some(selection.of(secrets));
            format!("{}\n", serde_json::to_string_pretty(&report)?)
        }
        Output::Csv => render::secrets::spreadsheet::csv(&report, &selection, all),
        Output::Markdown => render::secrets::markdown(&report, &selection, all),
    })
}
