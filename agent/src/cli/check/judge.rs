//! Evidence held against policy sets: every edge judged anew, `enforced` and each candidate.
//!
//! In: a report and the declared cluster. Out: a [`SetResult`] for each candidate. Of the verdicts
//! that the report holds nothing is used but that a peer was a pod's own node.

use std::borrow::Cow;
use std::collections::BTreeMap;

use anyhow::Context;
use parapet_core::engine::ENFORCED;
use parapet_core::flow::{Direction, End, Protocol};
use parapet_core::policy::{PolicySet, Probe, Selection};
use parapet_core::verdict::{Decision, Delta, Profile, Reason, Verdict};

use super::ends::{self, Known, Placement};
use super::result::{Cliff, Deltas, EdgeResult, SetResult};
use crate::cli::input::Declared;
use crate::export::report::{EdgeRow, EndRow, Report, words};

/// What is judged once: an edge seen at both of its ends is one.
type Key<'a> = (Cow<'a, EndRow>, Cow<'a, EndRow>, u16, Protocol, bool);
/// Ends by how the evidence names them, and for a Service by what was asked for.
type Ends<'a> = BTreeMap<(&'a EndRow, u16, u8), Known>;

/// A pair of ends that stands for an edge, and what it comes to under one set.
struct Worst {
    pair: Option<(End, End)>,
    enforced: Decision,
    decision: Decision,
    delta: Delta,
}

struct Judge<'a> {
    selection: &'a Selection,
    profile: Profile,
    enforced: &'a PolicySet,
    sets: Vec<&'a PolicySet>,
    home: Option<&'a str>,
}

/// Judges all edges under these sets.
///
/// # Errors
/// The report names a protocol that there is none of.
pub(super) fn judge(
    report: &Report,
    declared: &mut Declared,
    names: &[String],
    profile: Profile,
) -> anyhow::Result<Vec<SetResult>> {
    let mut groups: BTreeMap<Key<'_>, Vec<&EdgeRow>> = BTreeMap::new();
    let mut ends = Ends::new();
    for row in &report.edges {
        let protocol = protocol_of(row)?;
        for end in [&row.source, &row.target] {
            let resolve = || ends::resolve(end, &declared.index, row.target_port, protocol);
            ends.entry(end_key(end, row, protocol)).or_insert_with(resolve);
        }
        let known = row.direction.is_some();
        let (source, target) = (row.source.without_cgroup(), row.target.without_cgroup());
        let key = (source, target, row.target_port, protocol, known);
        groups.entry(key).or_default().push(row);
    }
    let selection = declared.index.selection_mut();
    for choice in ends.values().flat_map(|known| &known.choices) {
        selection.identify_end(&choice.end);
    }
    let judge = Judge {
        selection: declared.index.selection(),
        profile,
        enforced: declared.set(ENFORCED)?,
        sets: names.iter().map(|name| declared.set(name)).collect::<Result<_, _>>()?,
        home: home(report),
    };
    let mut results: Vec<_> = judge.sets.iter().map(|set| SetResult::new(set.name())).collect();
    for rows in groups.values() {
        judge.group(rows, &ends, &mut results)?;
    }
    Ok(results)
}

/// A Service's port, and so who is behind it, is told by the edge's; others are who they are.
fn end_key<'a>(end: &'a EndRow, row: &EdgeRow, protocol: Protocol) -> (&'a EndRow, u16, u8) {
    match end {
        EndRow::Service { .. } => (end, row.target_port, protocol.0),
        _ => (end, 0, 0),
    }
}

/// The node that was watched: the only one that is ever the local end. Many may be in a merged
/// report.
fn home(report: &Report) -> Option<&str> {
    if !report.node.is_empty() {
        return Some(&report.node);
    }
    if !report.nodes.is_empty() {
        return None;
    }
    let local = report.edges.iter().map(|row| match row.direction {
        Some(Direction::Ingress) => &row.target,
        Some(Direction::Egress) | None => &row.source,
    });
    let mut names = local.filter_map(|end| match end {
        EndRow::Node { name, .. } if !name.is_empty() => Some(name.as_str()),
        _ => None,
    });
    let first = names.next()?;
    names.all(|name| name == first).then_some(first)
}

fn protocol_of(row: &EdgeRow) -> anyhow::Result<Protocol> {
    row.protocol.parse().with_context(|| {
        let EdgeRow { protocol, source, target, .. } = row;
        format!("the evidence has {protocol:?} for the protocol of {source} to {target}")
    })
}

impl Judge<'_> {
    /// One edge, under every set.
    fn group(
        &self,
        rows: &[&EdgeRow],
        ends: &Ends<'_>,
        results: &mut [SetResult],
    ) -> anyhow::Result<()> {
        let Some(first) = rows.first() else { return Ok(()) };
        let protocol = protocol_of(first)?;
        let mut worst: Vec<Option<Worst>> = self.sets.iter().map(|_| None).collect();
        for row in rows {
            if row.direction.is_none() {
                let none = || Worst {
                    pair: None,
                    enforced: Decision::Undecidable,
                    decision: Decision::Undecidable,
                    delta: Delta::Undecidable,
                };
                worst.iter_mut().for_each(|worst| *worst = Some(none()));
                continue;
            }
            let end = |end| ends.get(&end_key(end, row, protocol));
            let (Some(sources), Some(targets)) = (end(&row.source), end(&row.target)) else {
                continue;
            };
            let placement = self.placement(row);
            for source in &sources.choices {
                for target in &targets.choices {
                    let pair = ends::pair(source, target, placement);
                    self.pair(&pair, (row.target_port, protocol), &mut worst);
                }
            }
        }
        for ((set, worst), result) in self.sets.iter().zip(worst).zip(results) {
            let Some(worst) = worst else { continue };
            result.deltas.add(worst.delta);
            if Deltas::is_listed(worst.delta) {
                let edge = self.listed(set, rows, &worst, (ends, protocol));
                result.edges.push(edge);
            }
        }
        Ok(())
    }

    /// Where the pods of an edge ran, as far as the evidence tells.
    fn placement<'b>(&'b self, row: &'b EdgeRow) -> Placement<'b> {
        let own = |verdict: &Verdict| {
            [&verdict.egress, &verdict.ingress].iter().any(|side| side.reason == Reason::OwnNode)
        };
        Placement {
            own_node: row.verdicts.values().any(own),
            home: self.home.or_else(|| row.seen_by_one()),
            source_is_local: row.direction != Some(Direction::Ingress),
        }
    }

    fn pair(
        &self,
        pair: &(End, End),
        (port, protocol): (u16, Protocol),
        worst: &mut [Option<Worst>],
    ) {
        let probe = Probe { source: &pair.0, target: &pair.1, protocol, port };
        let (enforced, _) = self.enforced.decide(self.selection, self.profile, &probe);
        for (set, worst) in self.sets.iter().zip(worst) {
            let (decision, _) = set.decide(self.selection, self.profile, &probe);
            let delta = Delta::between(enforced, decision);
            let is_worse = worst.as_ref().is_none_or(|known| {
                (delta.severity(), decision.severity())
                    > (known.delta.severity(), known.decision.severity())
            });
            if is_worse {
                *worst = Some(Worst { pair: Some(pair.clone()), enforced, decision, delta });
            }
        }
    }

    /// The edge with its reasons.
    fn listed(
        &self,
        set: &PolicySet,
        rows: &[&EdgeRow],
        worst: &Worst,
        (ends, protocol): (&Ends<'_>, Protocol),
    ) -> EdgeResult {
        let mut edge = EdgeResult::of(rows, worst.delta);
        edge.enforced = worst.enforced;
        edge.decision = worst.decision;
        let Some((source, target)) = &worst.pair else {
            edge.reason = Reason::UnknownDirection;
            edge.why = words::reason_in_words(Reason::UnknownDirection).to_owned();
            return edge;
        };
        let probe = Probe { source, target, protocol, port: edge.target_port };
        let before = self.enforced.evaluate(self.selection, self.profile, &probe);
        let verdict = set.evaluate(self.selection, self.profile, &probe);
        let said = said(worst.delta, &before, &verdict);
        (edge.decided_by, edge.reason, edge.why) = (Some(said.0), said.1, said.2);
        let cliffs = verdict.newly_isolated(&before).into_iter();
        edge.newly_isolated = cliffs
            .map(|direction| {
                let subject = match direction {
                    Direction::Egress => &edge.source,
                    Direction::Ingress => &edge.target,
                };
                Cliff { direction, subject: subject.to_string() }
            })
            .collect();
        if worst.delta == Delta::Undecidable {
            let row = rows.first();
            let known = row.into_iter().flat_map(|row| {
                [&row.source, &row.target].map(|end| ends.get(&end_key(end, row, protocol)))
            });
            edge.missing = known.flatten().filter_map(|known| known.missing.clone()).collect();
        }
        edge
    }
}

/// Which side tells most, its reason under the set, and both in words. What is newly allowed was
/// denied on one side, and what is undecidable may be so only as it is enforced.
fn said(delta: Delta, before: &Verdict, verdict: &Verdict) -> (Direction, Reason, String) {
    let enforced = || format!("as enforced, {}", words::why(before));
    match delta {
        Delta::NewlyAllowed => {
            let (direction, _) = before.deciding();
            let side = verdict.side(direction);
            let (word, why) = (words::direction(Some(direction)), words::why_side(side));
            (direction, side.reason, format!("{word}: {why}; {}", enforced()))
        }
        Delta::Undecidable if verdict.decision != Decision::Undecidable => {
            let (direction, side) = before.deciding();
            (direction, side.reason, enforced())
        }
        _ => {
            let (direction, side) = verdict.deciding();
            (direction, side.reason, words::why(verdict))
        }
    }
}
