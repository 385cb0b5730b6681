//! `parapet-demo [--keep]`: a small shop on a simulated node, watched by the real agent.
//!
//! In: `PARAPET_BIN`, the agent to run. Out: what the candidate policies would deny and why, and an
//! exit code that says whether that is the truth. With `--keep` the shop stays open until Ctrl-C.
//! It applies no policy anywhere and leaves nothing on the machine.

mod secrets;
mod shop;
mod table;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use support::agent::Agent;
use support::node::Node;
use support::process::Program;
use support::report::{Edge, Report};

use crate::secrets::{Secrets, findings};
use crate::shop::Shop;

const CANDIDATE: &str = "roadmap";
const WATCH_TIME: Duration = Duration::from_secs(10);
/// What the six policies forgot, as the report names it.
const FORGOTTEN: [&str; 2] =
    ["shop/api -> data/cache TCP/6379", "shop/nightly-report -> data/database TCP/5432"];

fn main() -> ExitCode {
    // The processes of the shop are this same program.
    if let Some(code) = support::traffic::perform_if_told() {
        return code;
    }
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if arguments.iter().any(|argument| argument != "--keep") {
        say("usage: parapet-demo [--keep]");
        return ExitCode::from(2);
    }
    match perform(!arguments.is_empty()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(keep: bool) -> anyhow::Result<()> {
    let started = Instant::now();
    let binary = std::env::var_os("PARAPET_BIN").map_or_else(default_binary, Ok)?;
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/policies");
    step(started, "set up a node: bridge, Services, cgroups, an outside world");
    let node = Node::start(&Program::current()?)?;
    step(started, "open the shop: frontend, api, database, cache, scraper, cluster DNS");
    let mut shop = Shop::open(node)?;
    step(started, "start the agent; the candidate is what lies in tests/demo/policies");
    let candidate = format!("{CANDIDATE}={}", policies.display());
    let agent = Agent::start(&PathBuf::from(binary), shop.node(), &[candidate])?;
    agent.wait_for_volumes(Secrets::VOLUMES)?;
    shop.read_secrets()?;
    step(started, "watch the shop's traffic for ten seconds; no policy is in force");
    let since = Instant::now();
    let mut forgotten = [0; 2];
    while since.elapsed() < WATCH_TIME {
        for (sum, more) in forgotten.iter_mut().zip(shop.round()?) {
            *sum += more;
        }
    }
    // A flow inside the node is seen at both of its ends.
    let expected: BTreeMap<_, _> = FORGOTTEN
        .into_iter()
        .zip(forgotten)
        .flat_map(|(flow, count)| ["egress", "ingress"].map(|end| (format!("{end} {flow}"), count)))
        .collect();
    let known = shop.secrets().expected();
    let report = agent.report_when(|report| {
        denied(report) == expected && report.pending == 0 && findings(report) == known
    })?;
    step(started, "done");
    say(&table::would_be_denied(&report, CANDIDATE));
    say(&table::deltas(&report));
    say("who reads which Secret\n");
    findings(&report).iter().for_each(|finding| say(finding));
    say("");
    let url = format!("http://{}", agent.address());
    say(&format!("metrics for Prometheus: {url}/metrics\nthe whole report:       {url}/report\n"));
    check(&report, &expected)?;
    let found = findings(&report);
    anyhow::ensure!(found == known, "expected {known:#?}, the agent says {found:#?}");
    say("as it should be: exactly the two forgotten dependencies and the four \
         findings, with exact counts");
    if keep {
        say("the shop stays open; Ctrl-C closes it");
        loop {
            shop.round()?;
        }
    }
    let status = agent.stop()?;
    anyhow::ensure!(status.success(), "the agent ended with {status}");
    Ok(())
}

/// The agent that was built beside this program.
fn default_binary() -> anyhow::Result<OsString> {
    let own = std::env::current_exe().context("cannot find the running program")?;
    Ok(own.with_file_name("parapet").into_os_string())
}

/// Edges that the candidate would deny, with their attempts.
fn denied(report: &Report) -> BTreeMap<String, u64> {
    let is_cut =
        |edge: &&Edge| edge.deltas.get(CANDIDATE).is_some_and(|delta| delta == "newly_denied");
    let edges = report.edges.iter().filter(is_cut);
    edges.map(|edge| (edge.shown(), edge.counts.attempts)).collect()
}

/// The demo proves itself: it knows what is forgotten and how often it was used.
fn check(report: &Report, expected: &BTreeMap<String, u64>) -> anyhow::Result<()> {
    let found = denied(report);
    anyhow::ensure!(found == *expected, "expected {expected:?}, the agent says {found:?}");
    let lost: u64 = report.lost.values().sum();
    anyhow::ensure!(lost == 0, "the agent lost something: {:?}", report.lost);
    anyhow::ensure!(report.pending == 0, "{} records still wait", report.pending);
    let open = |edge: &&Edge| edge.deltas.get(CANDIDATE).is_none_or(|delta| delta == "undecidable");
    let open: Vec<_> = report.edges.iter().filter(open).map(|edge| edge.shown()).collect();
    anyhow::ensure!(open.is_empty(), "nothing is decided for {open:?}");
    Ok(())
}

fn step(started: Instant, what: &str) {
    say(&format!("[{:5.1} s] {what}", started.elapsed().as_secs_f64()));
}

fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}");
    let _ = stdout.flush();
}
