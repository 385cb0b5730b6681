//! `parapet explain`: manifests and questions in; verdicts with every rule that decided out.
//!
//! It needs no root and no cluster, and it changes nothing.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::ValueEnum;
use parapet_core::flow::Timestamp;
use parapet_core::identity::Index;
use parapet_core::policy::{PolicySet, Probe};
use parapet_core::verdict::{Profile, Verdict};
use serde::Serialize;

use self::question::{ProtocolName, Question, Who};
use super::{Exit, input};

mod print;
mod question;

/// What `parapet explain` is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Files or folders of objects, as `kubectl get -A -o yaml` prints them; "-" is stdin
    #[arg(
        long, value_name = "PATH", num_args = 1.., required = true,
        env = "PARAPET_MANIFESTS", value_delimiter = ','
    )]
    manifests: Vec<PathBuf>,
    /// Policies that are not applied yet, judged together with the enforced ones
    #[arg(
        long = "candidate",
        value_name = "NAME=PATH",
        env = "PARAPET_CANDIDATE",
        value_delimiter = ','
    )]
    candidates: Vec<input::Candidate>,
    /// enforced, default-deny, or a candidate's name [default: the first candidate, else enforced]
    #[arg(long, value_name = "NAME", env = "PARAPET_POLICY_SET")]
    policy_set: Option<String>,
    /// Who begins: namespace/name of a pod, or an IP address
    #[arg(long, value_name = "END", env = "PARAPET_FROM", required_unless_present = "batch")]
    from: Option<Who>,
    /// Who is asked: namespace/name of a pod, service:namespace/name, or an IP address
    #[arg(long, value_name = "END", env = "PARAPET_TO", required_unless_present = "batch")]
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
    /// Whose reading of the API decides
    #[arg(long, value_enum, default_value_t, env = "PARAPET_PROFILE")]
    profile: ProfileName,
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
  Many questions at once:
    echo '{"from": {"pod": "shop/web-0"}, "to": {"ip": "1.1.1.1"}, "port": 443}' |
        parapet explain --manifests cluster.yaml --batch -

The exit code is 0 whatever the decision is, 1 if something could not be read."#;

/// [`Profile`] on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ProfileName {
    /// Decide only where the known implementations agree
    #[default]
    Common,
    /// The letter of the API
    Spec,
}

/// The form of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    #[default]
    Table,
    /// The object that --batch writes
    Json,
}

/// One answer. Its JSON is a contract.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    probe: &'a Question,
    policy_set: &'a str,
    #[serde(flatten)]
    verdict: Verdict,
}

/// A question that has none.
#[derive(Debug, Serialize)]
struct NoAnswer {
    error: String,
}

/// The cluster as declared, and the set that judges.
struct Judge {
    index: Index,
    set: PolicySet,
    profile: Profile,
}

/// Answers one question, or one a line.
///
/// # Errors
/// If manifests, questions or answers cannot be read or written at all.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (judge, whole) = Judge::new(&args)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
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
    let done = whole && answered;
    Ok(if done { ExitCode::SUCCESS } else { Exit::Failed.into() })
}

impl Judge {
    /// False beside it: some of the input could not be read, and was named.
    fn new(args: &Args) -> anyhow::Result<(Self, bool)> {
        if args.batch.as_deref() == Some("-".as_ref())
            && args.manifests.iter().any(|path| path.as_os_str() == "-")
        {
            bail!("stdin can be the manifests or the questions, not both");
        }
        let (cluster, mut whole) = input::load(&args.manifests);
        if cluster.objects.is_empty() {
            bail!("no objects to judge by in --manifests");
        }
        let mut index = Index::default();
        for change in cluster.changes() {
            index.apply(&change, Timestamp(0));
        }
        let mut policies = input::policies(&cluster.objects, &"enforced".into());
        let candidates = input::by_name(&args.candidates);
        let wanted: Arc<str> = match (&args.policy_set, candidates.first()) {
            (Some(wanted), _) => wanted.as_str().into(),
            (None, Some((first, _))) => first.clone(),
            (None, None) => "enforced".into(),
        };
        let candidate = candidates.iter().find(|(name, _)| *name == wanted);
        if let Some((name, paths)) = candidate {
            let (loaded, candidate_whole) = input::load(paths);
            whole &= candidate_whole;
            policies.extend(input::policies(&loaded.objects, name));
        }
        let set = PolicySet::new(wanted.clone(), policies);
        let set = match (&*wanted, candidate) {
            ("default-deny", _) => set.with_default_deny_everywhere(),
            ("enforced", _) | (_, Some(_)) => set,
            (other, None) => {
                let known = candidates.iter().map(|(name, _)| &**name);
                let known: Vec<_> = ["enforced", "default-deny"].into_iter().chain(known).collect();
                bail!("--policy-set {other}: there is no such set; known: {}", known.join(", "));
            }
        };
        let profile = match args.profile {
            ProfileName::Common => Profile::Common,
            ProfileName::Spec => Profile::Spec,
        };
        Ok((Self { index, set, profile }, whole))
    }

    fn answer<'a>(&'a self, question: &'a Question) -> Result<Answer<'a>, String> {
        let ends = question.resolve(&self.index)?;
        let probe = Probe {
            source: &ends.source,
            target: &ends.target,
            protocol: question.protocol.0,
            port: ends.port,
        };
        let verdict = self.set.evaluate(self.index.namespaces(), self.profile, &probe);
        Ok(Answer { probe: question, policy_set: self.set.name(), verdict })
    }

    /// False: a line could not be read, or asks for what is not there.
    fn answer_all(&self, batch: &PathBuf, out: &mut impl Write) -> anyhow::Result<bool> {
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
            let answer = question.as_ref().map_err(Clone::clone).and_then(|q| self.answer(q));
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

fn json(out: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(())
}
