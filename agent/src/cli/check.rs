//! `parapet check`: policies and evidence in; whether it is safe to apply them out, as text and as
//! an exit code.
//!
//! Objects and evidence are from files, or both from a cluster. It needs no root, and without a
//! kubeconfig no cluster, and it changes nothing. Without evidence it says only whether
//! the policies can be read, and what is wrong with them as they are written.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use parapet_core::engine::{DEFAULT_DENY, ENFORCED};
use parapet_core::snapshot::RejectedPolicy;

use self::result::{Answer, CheckResult, Evidence, FORMAT, ProblemRow};
use super::cluster::ClusterArgs;
use super::input::{Candidate, Declared, PolicyArgs};
use super::online::{AgentsArgs, Cluster};
use super::{Exit, agent};
use crate::export::report::Report;

mod ends;
mod judge;
mod lint;
mod print;
mod result;

/// Why a cluster is asked that nobody may have thought of.
const EVIDENCE_OF_CLUSTER: &str = "without --evidence and --agent the cluster's agents are asked";

/// What `--policies` is called.
const CANDIDATE: &str = "candidate";

/// What `parapet check` is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("what").multiple(true).required(true)
    .args(["policies", "candidates", "removals", "lint", "evidence", "agent", "cluster"]))]
pub struct Args {
    /// The cluster: files or folders of objects, as `kubectl get -A -o yaml` prints them; "-" is
    /// stdin [default: the objects of the cluster, from its API server]
    #[arg(
        long, value_name = "PATH", num_args = 1.., env = "PARAPET_MANIFESTS", value_delimiter = ','
    )]
    manifests: Vec<PathBuf>,
    /// Policies that are not applied yet: short for --candidate candidate=PATH
    #[arg(
        long, value_name = "PATH", num_args = 1.., env = "PARAPET_POLICIES", value_delimiter = ','
    )]
    policies: Vec<PathBuf>,
    #[command(flatten)]
    sets: PolicyArgs,
    /// Tell what is wrong with the policies as they are written: those of the candidates, or the
    /// enforced ones if there is no candidate
    #[arg(long, env = "PARAPET_LINT")]
    lint: bool,
    /// What was seen: a report saved with `parapet report flows -o json`, or "-" for stdin;
    /// instead of --agent
    #[arg(long, value_name = "FILE", env = "PARAPET_EVIDENCE")]
    evidence: Option<PathBuf>,
    /// What was seen: ask this agent, as in http://127.0.0.1:9464
    #[arg(long, value_name = "URL", env = "PARAPET_AGENT")]
    agent: Option<String>,
    #[command(flatten)]
    agents: AgentsArgs,
    #[command(flatten)]
    server: ClusterArgs,
    /// The form of the result
    #[arg(short, long, value_enum, default_value_t, env = "PARAPET_OUTPUT")]
    output: Output,
}

const EXAMPLES: &str = r#"Examples:
  Can these policies be read, and do they say what they were meant to?
    parapet check --manifests cluster.yaml --policies policies/ --lint
  Would they deny anything that is in use? Watch first, then ask:
    kubectl get ns,no,po,svc,endpointslices,netpol,deploy,rs -A -o yaml > cluster.yaml
    parapet report flows -o json > seen.json
    parapet check --manifests cluster.yaml --policies policies/ --evidence seen.json
  The same of the cluster of this kubeconfig, by what all of its agents saw:
    parapet check --context prod --policies policies/
  Two ways to do it, held side by side, and one policy less:
    parapet check --manifests cluster.yaml --agent http://127.0.0.1:9464 \
        --candidate strict=strict/ --candidate loose=loose/ --remove strict=shop/allow-all
  Could everything be denied today that no policy allows?
    parapet check --manifests cluster.yaml --evidence seen.json
  In a pipeline, which edges and why:
    parapet check --manifests cluster.yaml --policies policies/ --evidence seen.json -o json |
        jq -r '.policy_sets[].edges[] | select(.in_use) | .why'

Every edge of the evidence is judged anew, as what is enforced says and as each candidate together
with it would; without a candidate the question is default-deny. What was never answered, as a scan,
is no use: it is shown apart and makes nothing unsafe.

Exit codes:
  0   safe: nothing in use would be newly denied; without evidence: every policy can be read
  10  something in use would be newly denied
  1   a policy or manifest was refused or could not be read, or lint found an error
  11  not enough evidence: records were lost or wait, a node did not answer, something in use is
      undecidable, nothing was seen, or there are policies of kinds that are not judged
  2   wrong usage
Where several hold, the first of 10, 1 and 11 is given; the result is printed in any case."#;

/// The form of the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people
    #[default]
    Table,
    /// One object; stable
    Json,
}

/// Does it.
///
/// # Errors
/// There is nothing to judge, or the evidence is none.
pub fn run(mut args: Args) -> anyhow::Result<ExitCode> {
    one_stdin(&args)?;
    let short = args.policies.iter();
    let short = short.map(|path| Candidate { name: CANDIDATE.into(), path: path.clone() });
    args.sets.candidates.extend(short);
    let sources = args.sets.sources();
    let report = match (&args.evidence, &args.agent) {
        (Some(file), _) => Some(agent::read(file)?),
        (None, Some(url)) => Some(agent::fetch(url, "/report")?),
        (None, None) if args.wants_evidence_of_cluster() => {
            let cluster = Cluster::open(&args.server).context(EVIDENCE_OF_CLUSTER)?;
            Some(cluster.observers(&args.agents)?.report()?)
        }
        (None, None) => None,
    };
    let mut declared = match args.manifests.as_slice() {
        [] => Declared::listed(Cluster::declared(&args.server)?, &sources),
        manifests => Declared::load(manifests, &sources),
    };
    if declared.is_empty() && declared.problems() == 0 {
        bail!("no objects to judge by in {}", super::input::place(&args.manifests));
    }
    let names: Vec<String> = declared.sets.names().iter().map(ToString::to_string).collect();
    let candidates: Vec<String> =
        names.into_iter().filter(|name| ![ENFORCED, DEFAULT_DENY].contains(&&**name)).collect();
    let result = check(&args, &mut declared, &candidates, report.as_ref())?;
    let text = match args.output {
        Output::Table => print::table(&result),
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&result)?),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(match result.verdict {
        Answer::Safe | Answer::Valid => ExitCode::SUCCESS,
        Answer::Unsafe => Exit::WouldDeny.into(),
        Answer::InsufficientEvidence => Exit::NotEnoughEvidence.into(),
        Answer::Invalid => Exit::Failed.into(),
    })
}

impl Args {
    /// Files are judged by files, a cluster by what its agents saw; unless only lint is asked.
    fn wants_evidence_of_cluster(&self) -> bool {
        let only_lint =
            self.lint && self.sets.candidates.is_empty() && self.sets.removals.is_empty();
        self.agents.cluster || self.manifests.is_empty() && !only_lint
    }
}

fn one_stdin(args: &Args) -> anyhow::Result<()> {
    let candidates = args.sets.candidates.iter().map(|candidate| &candidate.path);
    let paths = args.manifests.iter().chain(&args.policies).chain(candidates).chain(&args.evidence);
    if paths.filter(|path| *path == Path::new("-")).count() > 1 {
        bail!("stdin can be one of --manifests, --policies, --candidate and --evidence, not more");
    }
    Ok(())
}

fn check(
    args: &Args,
    declared: &mut Declared,
    candidates: &[String],
    report: Option<&Report>,
) -> anyhow::Result<CheckResult> {
    let profile = args.sets.profile.into();
    let lint = if args.lint { lint::findings(declared, candidates)? } else { Vec::new() };
    let problems = problems(declared);
    let mut policy_sets = Vec::new();
    let mut evidence = None;
    if let Some(report) = report {
        let found = evidence.insert(Evidence::of(report, left_out(declared)));
        let default_deny = [DEFAULT_DENY.to_owned()];
        let asked = if candidates.is_empty() { &default_deny[..] } else { candidates };
        policy_sets = judge::judge(report, declared, asked, profile)?;
        policy_sets.iter_mut().for_each(|set| set.finish(found, &problems));
    }
    let has_lint_error = lint::any_error(&lint);
    let verdict = Answer::Valid;
    let mut result =
        CheckResult { format: FORMAT, profile, evidence, policy_sets, lint, problems, verdict };
    result.verdict = result.answer(has_lint_error);
    Ok(result)
}

/// Policies of the cluster that Parapet has no judgement of.
fn left_out(declared: &Declared) -> Vec<String> {
    let manifests = declared.sources.iter().filter(|source| source.policy_set.is_none());
    let skipped = manifests.flat_map(|source| &source.skipped);
    skipped
        .filter(|(kind, _)| is_policy(kind))
        .map(|(kind, count)| format!("{count} of {kind} may deny too, and are not judged"))
        .collect()
}

/// As "CiliumNetworkPolicy (cilium.io/v2)".
fn is_policy(kind: &str) -> bool {
    let name = kind.split(' ').next().unwrap_or_default();
    name.ends_with("NetworkPolicy") && !name.starts_with("Staged")
}

/// All that keeps policies from being judged as they are meant. Those of files and sets were told
/// on stderr when they were found; the others are told here.
fn problems(declared: &Declared) -> Vec<ProblemRow> {
    let mut rows = Vec::new();
    for source in &declared.sources {
        let policy_set = source.policy_set.as_ref().map(ToString::to_string);
        rows.extend(source.problems.iter().cloned().map(|problem| ProblemRow {
            policy_set: policy_set.clone(),
            file: Some(problem.file),
            document: problem.document,
            line: problem.line,
            object: problem.object,
            field: problem.field,
            problem: problem.problem,
        }));
        let Some(name) = policy_set else { continue };
        let mut told: Vec<String> = source
            .skipped
            .iter()
            .filter(|(kind, _)| is_policy(kind))
            .map(|(kind, count)| format!("{count} of {kind} cannot be judged"))
            .collect();
        if source.policies == 0 && source.problems.is_empty() && told.is_empty() && source.has_paths
        {
            told.push("its files hold no network policy".to_owned());
        }
        for problem in told {
            tracing::error!("candidate {name}: {problem}");
            rows.push(ProblemRow { policy_set: Some(name.clone()), problem, ..Default::default() });
        }
    }
    rows.extend(declared.sets.rejections().into_iter().map(|rejected| {
        let RejectedPolicy { policy_set, rejection } = rejected;
        ProblemRow {
            policy_set: Some(policy_set.to_string()),
            object: Some(rejection.object),
            field: Some(rejection.field),
            problem: rejection.problem,
            ..Default::default()
        }
    }));
    rows
}
