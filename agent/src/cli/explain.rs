//! `parapet explain`: manifests, or a cluster's own objects, and questions in; verdicts with every
//! rule that decided out.
//!
//! With manifests it needs neither root nor a cluster; it changes nothing.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;
use parapet_core::engine::ENFORCED;
use parapet_core::flow::Direction;
use parapet_core::policy::{PolicySet, Probe};
use parapet_core::verdict::{Decision, Delta, Profile, Verdict};
use serde::Serialize;

use self::question::{ProtocolName, Question, Who};
use super::Exit;
use super::cluster::ClusterArgs;
use super::input::{Declared, PolicyArgs};
use super::online::Cluster;

mod print;
mod question;

/// What `parapet explain` is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Files or folders of objects, as `kubectl get -A -o yaml` prints them; "-" is stdin
    /// [default: the objects of the cluster, from its API server]
    #[arg(
        long, value_name = "PATH", num_args = 1.., env = "PARAPET_MANIFESTS", value_delimiter = ','
    )]
    manifests: Vec<PathBuf>,
    #[command(flatten)]
    server: ClusterArgs,
    #[command(flatten)]
    policies: PolicyArgs,
    /// enforced, default-deny, or a candidate's name [default: the first candidate, else enforced]
    #[arg(long, value_name = "NAME", env = "PARAPET_POLICY_SET")]
    policy_set: Option<String>,
    /// Who begins: namespace/name of a pod, or an IP address
    #[arg(
        long, value_name = "END", env = "PARAPET_FROM",
        required_unless_present_any = ["batch", "show_profile"]
    )]
    from: Option<Who>,
    /// Who is asked: namespace/name of a pod, service:namespace/name, an IP address, or an outside
    /// host as dns:name[@address]
    #[arg(
        long, value_name = "END", env = "PARAPET_TO",
        required_unless_present_any = ["batch", "show_profile"]
    )]
    to: Option<Who>,
    /// The port that is asked for
    #[arg(long, env = "PARAPET_PORT")]
    port: Option<u16>,
    /// TCP, UDP, SCTP, ICMP, ICMPv6 or a number
    #[arg(long, value_name = "NAME", default_value = "TCP", env = "PARAPET_PROTOCOL")]
    protocol: ProtocolName,
    /// Questions as JSON, one a line; "-" is stdin. Answers are JSON, one a line
    #[arg(
        long, value_name = "FILE", env = "PARAPET_BATCH",
        conflicts_with_all = ["from", "to", "port", "protocol"]
    )]
    batch: Option<PathBuf>,
    /// Print what the profile chooses where implementations differ, with sources, and nothing else
    #[arg(long)]
    show_profile: bool,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t, env = "PARAPET_OUTPUT")]
    output: Output,
}

const EXAMPLES: &str = r#"Examples:
  May this pod reach that one, by the policies that are applied?
    kubectl get ns,no,po,svc,endpointslices,netpol,deploy,rs -A -o yaml > cluster.yaml
    parapet explain --manifests cluster.yaml --from shop/web-0 --to shop/db-0 --port 5432
  And with the policies in this folder on top?
    parapet explain --manifests cluster.yaml --candidate new=policies/ \
        --from shop/web-0 --to service:shop/api --port 80
  The same by what the cluster of this kubeconfig has now:
    parapet explain --context prod --from shop/web-0 --to shop/db-0 --port 5432
  Many questions at once:
    echo '{"from": {"pod": "shop/web-0"}, "to": {"ip": "1.1.1.1"}, "port": 443}' |
        parapet explain --manifests cluster.yaml --batch -

The exit code is 0 whatever the decision is, 1 if something could not be read."#;

/// The form of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    #[default]
    Table,
    /// The object that --batch writes
    Json,
}

/// `enforced` and `default-deny`: with these alone there is nothing to compare.
const ALWAYS_THERE: usize = 2;

/// One answer. Its JSON is a contract.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    probe: &'a Question,
    policy_set: &'a str,
    #[serde(flatten)]
    verdict: Verdict,
    /// What every set says, where there is more to compare than what is always there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sets: Vec<SetAnswer<'a>>,
    /// Problems in the input: what they are about is not judged, and the answer may lack it.
    #[serde(skip_serializing_if = "is_zero")]
    input_problems: usize,
}

/// What one policy set says, held against what is enforced.
#[derive(Debug, Serialize)]
struct SetAnswer<'a> {
    policy_set: &'a str,
    decision: Decision,
    delta: Delta,
    /// Directions in which the first policy selects a pod that none did before.
    newly_isolated: Vec<Direction>,
}

/// A question that has none.
#[derive(Debug, Serialize)]
struct NoAnswer {
    error: String,
}

/// The cluster as declared, and the set that judges.
struct Judge {
    cluster: Declared,
    set: PolicySet,
    profile: Profile,
    input_problems: usize,
}

/// Answers one question, or one a line.
///
/// # Errors
/// If manifests, questions or answers cannot be read or written at all.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    if args.show_profile {
        print::profile(&mut out, args.policies.profile.into())?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut judge = Judge::new(&args)?;
    let answered = match (&args.batch, args.from, args.to) {
        (Some(batch), ..) => judge.answer_all(batch, &mut out)?,
        (None, Some(from), Some(to)) => {
            let question = Question { from, to, port: args.port, protocol: args.protocol };
            let answer = judge.answer(&question).map_err(anyhow::Error::msg)?;
            match args.output {
                Output::Table => print::tree(&mut out, &answer)?,
                Output::Json => json(&mut out, &answer)?,
            }
            true
        }
        (None, ..) => bail!("--from and --to, or --batch, say what is asked"),
    };
    out.flush()?;
    Ok(if judge.input_problems == 0 && answered { ExitCode::SUCCESS } else { Exit::Failed.into() })
}

impl Judge {
    fn new(args: &Args) -> anyhow::Result<Self> {
        if args.batch.as_deref() == Some("-".as_ref())
            && args.manifests.iter().any(|path| path.as_os_str() == "-")
        {
            bail!("stdin can be the manifests or the questions, not both");
        }
        let candidates = args.policies.sources();
        let cluster = match args.manifests.as_slice() {
            [] => Declared::listed(Cluster::declared(&args.server)?, &candidates),
            manifests => Declared::load(manifests, &candidates),
        };
        if cluster.is_empty() {
            bail!("no objects to judge by in {}", super::input::place(&args.manifests));
        }
        let wanted = match (&args.policy_set, candidates.first()) {
            (Some(wanted), _) => wanted.as_str(),
            (None, Some(first)) => &first.name,
            (None, None) => ENFORCED,
        };
        let set = cluster.set(wanted).context("--policy-set")?.clone();
        let input_problems = cluster.problems();
        Ok(Self { cluster, set, profile: args.policies.profile.into(), input_problems })
    }

    fn answer<'a>(&'a mut self, question: &'a Question) -> Result<Answer<'a>, String> {
        let ends = question.resolve(&self.cluster.index)?;
        let probe = Probe {
            source: &ends.source,
            target: &ends.target,
            protocol: question.protocol.0,
            port: ends.port,
        };
        let selection = self.cluster.index.selection_mut();
        selection.identify_end(probe.source);
        selection.identify_end(probe.target);
        let selection = self.cluster.index.selection();
        let verdict = self.set.explain(selection, self.profile, &probe);
        let all = self.cluster.sets.sets();
        let compared = if all.len() > ALWAYS_THERE { all } else { &[] };
        let verdicts: Vec<_> =
            compared.iter().map(|set| set.evaluate(selection, self.profile, &probe)).collect();
        // `enforced` comes first.
        let sets = verdicts.first().map_or_else(Vec::new, |enforced| {
            let answer = |(set, one): (&'a PolicySet, &Verdict)| SetAnswer {
                policy_set: set.name(),
                decision: one.decision,
                delta: Delta::between(enforced.decision, one.decision),
                newly_isolated: one.newly_isolated(enforced),
            };
            compared.iter().zip(&verdicts).map(answer).collect()
        });
        Ok(Answer {
            probe: question,
            policy_set: self.set.name(),
            verdict,
            sets,
            input_problems: self.input_problems,
        })
    }

    /// False: a line could not be read, or asks for what is not there.
    fn answer_all(&mut self, batch: &PathBuf, out: &mut impl Write) -> anyhow::Result<bool> {
        let lines: Box<dyn BufRead> = if batch.as_os_str() == "-" {
            Box::new(BufReader::new(std::io::stdin()))
        } else {
            let file = std::fs::File::open(batch);
            let file = file.with_context(|| format!("--batch {}", batch.display()))?;
            Box::new(BufReader::new(file))
        };
        let mut all = true;
        for (index, line) in lines.split(b'\n').enumerate() {
            let line = line.with_context(|| format!("--batch {}", batch.display()))?;
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let question = serde_json::from_slice::<Question>(line).map_err(|e| e.to_string());
            let answer = match &question {
                Ok(question) => self.answer(question),
                Err(error) => Err(error.clone()),
            };
            match answer {
                Ok(answer) => json(out, &answer)?,
                Err(error) => {
                    all = false;
                    json(out, &NoAnswer { error: format!("line {}: {error}", index + 1) })?;
                }
            }
        }
        Ok(all)
    }
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

fn json(out: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(())
}
