//! What is wrong with the policies as they are written, for the sets that were asked about.
//!
//! In: the declared cluster. Out: a [`LintRow`] a finding, of each candidate its own ones only: the
//! enforced policies are not what is to be applied.

use parapet_core::engine::ENFORCED;
use parapet_core::lint::{Finding, Severity, lint};
use serde::Serialize;

use crate::cli::input::Declared;

/// One finding of one policy set.
#[derive(Debug, Serialize)]
pub(super) struct LintRow {
    pub(super) policy_set: String,
    #[serde(flatten)]
    pub(super) finding: Finding,
}

/// Lints each candidate together with what is enforced, or what is enforced if there is none.
///
/// # Errors
/// A candidate is no set.
pub(super) fn findings(declared: &Declared, candidates: &[String]) -> anyhow::Result<Vec<LintRow>> {
    let enforced = [ENFORCED.to_owned()];
    let mut rows = Vec::new();
    for name in if candidates.is_empty() { &enforced } else { candidates } {
        let found = lint(&declared.index, declared.set(name)?);
        let own = found.into_iter().filter(|finding| *finding.origin == **name);
        rows.extend(own.map(|finding| LintRow { policy_set: name.clone(), finding }));
    }
    Ok(rows)
}

/// Whether any finding keeps a policy from doing what it says.
pub(super) fn any_error(rows: &[LintRow]) -> bool {
    rows.iter().any(|row| row.finding.severity == Severity::Error)
}
