//! What the commands that read a report share: where it comes from.
//!
//! In: an agent's URL or a file. Out: its [`Report`], or what is wrong with it in words.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use crate::export::report::{FORMAT, Report};

/// The agent that `parapet run` starts unless it is told otherwise.
pub(super) const AGENT_DEFAULT: &str = "http://127.0.0.1:9464";
/// An answer must be complete by then.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// A report is at most this long.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// The report at a path of an agent, as `/report`.
pub(super) fn fetch(agent: &str, path: &str) -> anyhow::Result<Report> {
    let agent = agent.trim_end_matches('/');
    let config = ureq::Agent::config_builder().timeout_global(Some(ANSWER_TIME_MAX)).build();
    let answer = ureq::Agent::new_with_config(config).get(format!("{agent}{path}")).call();
    let mut answer = answer.with_context(|| {
        format!(
            "no agent answers at {agent}: is `parapet run` there? Name another with \
             --agent, or ask all agents of a cluster with --cluster"
        )
    })?;
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    parse(&body.with_context(|| format!("{agent}{path} broke off"))?)
        .with_context(|| format!("{agent}{path} is no report"))
}

/// The report in a file, or on stdin for `-`.
pub(super) fn read(path: &Path) -> anyhow::Result<Report> {
    let mut bytes = Vec::new();
    let done = if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(path).map(|read| bytes = read)
    };
    done.with_context(|| format!("{} cannot be read", path.display()))?;
    parse(&bytes).with_context(|| format!("{} is no report", path.display()))
}

/// A report, if it is one that this version reads.
pub(super) fn parse(bytes: &[u8]) -> anyhow::Result<Report> {
    let report: Report = serde_json::from_slice(bytes)?;
    anyhow::ensure!(
        report.format == FORMAT,
        "it has format {}, this version reads format {FORMAT}",
        report.format
    );
    Ok(report)
}
