//! What is known of secrets as a table or Markdown: what a security engineer looks at first comes
//! first.
//!
//! In: a [`Report`] and the part of its secrets that was asked for. Out: text, the same for the
//! same report. It says nothing that the rows do not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use parapet_core::secrets::{
    MountState, ReadCounts, Reader, Relation, SecretOwner, SecretSource, TokenMount,
};

use super::{Report, form};
use crate::export::report::secrets::{MountRow, ReadRow, SecretsReport, TokenRow};
use crate::export::report::select::{Finding, Selection, is_foreign, is_routine, is_secret};

pub mod spreadsheet;
mod words;

/// One table under its title.
struct Section {
    title: &'static str,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// As tables, then a summary. `all`: also what is no secret, and reads by the kubelet and the
/// container runtime.
#[must_use]
pub fn table(report: &Report, selection: &Selection, all: bool) -> String {
    let mut text = String::new();
    for Section { title, header, rows } in sections(report, selection, all) {
        // Writing to a string does not fail, here and below.
        let _ = writeln!(text, "{title}:\n{}", form::aligned(&header, rows));
    }
    text + &summary(report, selection, all)
}

/// As Markdown: the same tables under headings, then the summary as a list.
#[must_use]
pub fn markdown(report: &Report, selection: &Selection, all: bool) -> String {
    let mut text = String::new();
    for Section { title, header, rows } in sections(report, selection, all) {
        let _ = writeln!(text, "### {title}\n\n{}", form::markdown(&header, &rows));
    }
    for sentence in summary(report, selection, all).lines() {
        let _ = writeln!(text, "- {}", form::markdown_cell(sentence));
    }
    text
}

/// The rows that are shown one by one.
fn chosen(report: &Report, selection: &Selection, all: bool) -> SecretsReport {
    let secrets = report.secrets.as_ref().map(|secrets| selection.of(secrets)).unwrap_or_default();
    if all { secrets } else { secrets.without_routine() }
}

/// Those that have rows.
fn sections(report: &Report, selection: &Selection, all: bool) -> Vec<Section> {
    let chosen = chosen(report, selection, all);
    let is_merged = !report.nodes.is_empty();
    let reads = |title, wanted: fn(&ReadRow) -> bool| {
        let reads = chosen.reads.iter().filter(|read| wanted(read));
        read_section(title, reads, is_merged)
    };
    let known = report.secrets.as_ref().map_or(&[][..], |secrets| &secrets.tokens);
    let all = [
        reads("Read by others than the containers that mount it", is_foreign),
        mount_section(&chosen.mounts),
        stale_section(&chosen.mounts, is_merged),
        token_section(&chosen.tokens, known),
        reads("Files of the node, and who read them", |read| read.owner == SecretOwner::Node),
        reads("Read by its own containers", |read| read.relation == Relation::Own),
        reads("Read by the kubelet and the container runtime", is_routine),
    ];
    all.into_iter().filter(|section| !section.rows.is_empty()).collect()
}

fn header<const N: usize>(columns: [&str; N], is_merged: bool) -> Vec<String> {
    let nodes = is_merged.then_some("nodes");
    columns.into_iter().chain(nodes).map(str::to_owned).collect()
}

/// What is the same reader of the same secret, whatever key it read. Most foreign first.
type Group<'a> = (u8, (&'a str, &'a SecretSource), &'a SecretOwner, &'a Reader, &'a str, u32);

fn read_section<'a>(
    title: &'static str,
    reads: impl Iterator<Item = &'a ReadRow>,
    is_merged: bool,
) -> Section {
    let mut groups: BTreeMap<Group<'_>, Vec<&ReadRow>> = BTreeMap::new();
    for read in reads {
        let secret = words::secret_order(&read.owner, &read.source);
        let rank = words::relation_rank(read.relation);
        let group = (rank, secret, &read.owner, &read.reader, &*read.program, read.uid);
        groups.entry(group).or_default().push(read);
    }
    let columns =
        ["secret", "of", "read by", "which is", "process", "keys", "uses", "first", "last"];
    Section {
        title,
        header: header(columns, is_merged),
        rows: groups.values().filter_map(|reads| read_row(reads, is_merged)).collect(),
    }
}

fn read_row(reads: &[&ReadRow], is_merged: bool) -> Option<Vec<String>> {
    let first = reads.first()?;
    let mut counts = ReadCounts::default();
    for read in reads {
        counts.opens = counts.opens.saturating_add(read.counts.opens);
        counts.reads = counts.reads.saturating_add(read.counts.reads);
        counts.maps = counts.maps.saturating_add(read.counts.maps);
        counts.held = counts.held.saturating_add(read.counts.held);
    }
    let keys: BTreeSet<&str> = reads.iter().map(|read| words::known(&read.key)).collect();
    let first_seen = reads.iter().map(|read| &read.first_seen).min()?;
    let last_seen = reads.iter().map(|read| &read.last_seen).max()?;
    let mut row = vec![
        words::secret(&first.owner, &first.source),
        words::owner(&first.owner),
        words::reader(&first.reader),
        words::relation(first.relation).to_owned(),
        words::process(first),
        words::list(keys),
        words::uses(&counts),
        words::time(first_seen),
        words::time(last_seen),
    ];
    if is_merged {
        let named: BTreeSet<&str> =
            reads.iter().flat_map(|read| &read.nodes).map(String::as_str).collect();
        let total = reads.iter().map(|read| read.nodes_total).max()?;
        row.push(words::nodes(&named, total));
    }
    Some(row)
}

fn mount_section(mounts: &[MountRow]) -> Section {
    // Tokens for the API server have a table of their own.
    let mut mounts: Vec<&MountRow> =
        mounts.iter().filter(|row| !words::is_api_token(&row.source)).collect();
    let owner = |row: &MountRow| words::owner(&row.owner);
    mounts.sort_by_cached_key(|row| {
        (words::secret_order(&row.owner, &row.source), owner(row), row.way)
    });
    let columns =
        ["secret", "of", "how", "containers", "pods", "state", "keys", "first read", "last read"];
    let row = |row: &MountRow| {
        vec![
            words::secret(&row.owner, &row.source),
            words::owner(&row.owner),
            words::way(row.way).to_owned(),
            words::list(row.containers.iter().map(String::as_str)),
            row.pods.to_string(),
            words::mount_state(row),
            words::keys(row),
            words::time(&row.first_read),
            words::time(&row.last_read),
        ]
    };
    Section {
        title: "Mounted",
        header: header(columns, false),
        rows: mounts.into_iter().map(row).collect(),
    }
}

fn stale_section(mounts: &[MountRow], is_merged: bool) -> Section {
    let columns = ["secret", "of", "container", "read last", "current", "since"];
    let row = |row: &MountRow| {
        let (secret, owner) = (words::secret(&row.owner, &row.source), words::owner(&row.owner));
        let stale = row.stale.iter().map(move |stale| {
            let mut cells = vec![
                secret.clone(),
                owner.clone(),
                stale.container.clone(),
                stale.read.clone(),
                stale.current.clone(),
                words::time(&stale.since),
            ];
            cells.extend(is_merged.then(|| stale.node.clone()));
            cells
        });
        stale.collect::<Vec<_>>()
    };
    Section {
        title: "Still on an old version after a rotation",
        header: header(columns, is_merged),
        rows: mounts.iter().flat_map(row).collect(),
    }
}

/// `known`: all tokens, because where a change belongs depends on who else has the same account.
fn token_section(tokens: &[TokenRow], known: &[TokenRow]) -> Section {
    let columns = ["token of", "service account", "mounted by", "state", "read by", "say so in"];
    let mut tokens: Vec<&TokenRow> = tokens.iter().collect();
    tokens.sort_by_key(|row| !row.is_candidate);
    let row = |row: &TokenRow| {
        vec![
            words::owner(&row.owner),
            row.service_account.clone(),
            words::token_mount(row.mounted_by).to_owned(),
            words::watched(row.state, row.watched_seconds, row.starts_seen, row.has_gaps),
            words::list(row.read_by.iter().map(String::as_str)),
            advice(row, known),
        ]
    };
    Section {
        title: "Service account tokens, which automountServiceAccountToken: false takes away",
        header: header(columns, false),
        rows: tokens.into_iter().map(row).collect(),
    }
}

/// Where to say that the token is not wanted: a pod's own field wins over its service account's,
/// which holds for all of its pods.
fn advice(row: &TokenRow, known: &[TokenRow]) -> String {
    if !row.is_candidate {
        return match (row.state, row.mounted_by) {
            (MountState::NeverRead, TokenMount::Volume) => {
                "nowhere: a volume of the pod asks for it".to_owned()
            }
            (MountState::NeverRead, _) if row.has_gaps => {
                "not sure: it may have been read unseen".to_owned()
            }
            (MountState::NeverRead, _) => "not sure: wait until a start was seen".to_owned(),
            _ => String::new(),
        };
    }
    let template = words::template(&row.owner);
    let namespace = super::super::select::of(&row.owner);
    let account = format!("service account {}/{}", namespace.unwrap_or(""), row.service_account);
    let needs = known.iter().find(|other| {
        let same = super::super::select::of(&other.owner) == namespace;
        same && other.service_account == row.service_account && !other.is_candidate
    });
    match (row.mounted_by, needs) {
        (TokenMount::Pod, _) => {
            format!("{template}, which says true and wins over its service account")
        }
        (TokenMount::Volume, _) => format!("{template}: remove the volume that asks for it"),
        (_, Some(other)) => {
            format!("{template}; not in {account}, {} may need it", words::owner(&other.owner))
        }
        (TokenMount::ServiceAccount, None) => format!("{account}, which says true, or {template}"),
        (TokenMount::Default, None) => {
            format!("{template}, or {account} if none of its pods needs it")
        }
    }
}

/// What was found, and what a reader must know before trusting it.
#[must_use]
pub fn summary(report: &Report, selection: &Selection, all: bool) -> String {
    let mut text = String::new();
    let Some(secrets) = &report.secrets else {
        return "nothing is known of secrets: whoever made this report did not watch them\n"
            .to_owned();
    };
    let mine = selection.of(secrets);
    counts(&mut text, report, selection, &mine);
    super::nodes(&mut text, report);
    for node in &secrets.not_from {
        let _ = writeln!(text, "not from {node}: its agent does not watch secrets yet");
    }
    if !all {
        left_out(&mut text, &mine);
    }
    if !report.synced {
        let _ = writeln!(text, "objects are still being read: not all owners are known yet");
    }
    for (reason, count) in secrets.unattributed.iter().filter(|(_, count)| **count > 0) {
        let _ = writeln!(text, "{count} opens are not attributed: {}", reason.replace('_', " "));
    }
    let lost: u64 = report
        .lost
        .iter()
        .filter(|(stage, _)| words::is_secret_stage(stage))
        .map(|(_, count)| *count)
        .sum();
    if lost > 0 {
        let _ = writeln!(text, "{lost} opens or readers were not followed (see /status)");
    }
    text
}

fn counts(text: &mut String, report: &Report, selection: &Selection, mine: &SecretsReport) {
    let shown = mine.clone().without_routine();
    let names = |rows: Vec<(&SecretOwner, &SecretSource)>| -> usize {
        let names = rows.into_iter().map(|(owner, source)| words::secret_order(owner, source));
        names.collect::<BTreeSet<_>>().len()
    };
    if selection.secret.is_some() && shown.mounts.is_empty() && shown.reads.is_empty() {
        let _ = writeln!(text, "no secret of that name was seen");
    } else if mine.mounts.is_empty() && mine.reads.is_empty() && mine.tokens.is_empty() {
        let _ = writeln!(text, "no such secret was seen");
    }
    let mounted = shown.mounts.iter().filter(|row| !words::is_api_token(&row.source));
    let of = |state: MountState| mounted.clone().filter(move |row| row.state == state).count();
    let foreign: Vec<_> = shown.reads.iter().filter(|read| is_foreign(read)).collect();
    let foreign = names(foreign.into_iter().map(|read| (&read.owner, &read.source)).collect());
    let stale: usize = shown.mounts.iter().map(|row| row.stale.len()).sum();
    let candidates = shown.tokens.iter().filter(|row| row.is_candidate).count();
    let all = [
        (Finding::ForeignReads, foreign, "secrets read by others"),
        (Finding::NeverRead, of(MountState::NeverRead), "mounted and never read"),
        (Finding::Stale, stale, "containers on an old version"),
        (Finding::TokenCandidates, candidates, "tokens that nobody reads"),
        (Finding::Unobservable, of(MountState::Unobservable), "unobservable"),
    ];
    let parts = all.iter().filter(|(finding, ..)| selection.wants(*finding));
    let parts: Vec<String> = parts.map(|(_, count, what)| format!("{what}: {count}")).collect();
    let _ = writeln!(text, "{}; since {}", parts.join(", "), super::since(report));
}

/// What the tables do not show, so that nobody takes it for nothing.
fn left_out(text: &mut String, mine: &SecretsReport) {
    let routine = mine.reads.iter().filter(|read| is_routine(read));
    let opens = routine.map(|read| read.counts.opens).fold(0, u64::saturating_add);
    if opens > 0 {
        let _ = writeln!(
            text,
            "{opens} opens by the kubelet and the container runtime, whose work it is (--all)"
        );
    }
    let others = mine.reads.iter().filter(|read| !is_secret(&read.source) && !is_routine(read));
    let opens = others.map(|read| read.counts.opens).fold(0, u64::saturating_add);
    if opens > 0 {
        let _ = writeln!(
            text,
            "{opens} opens of ConfigMaps and other files beside secrets, which are none (--all)"
        );
    }
}
