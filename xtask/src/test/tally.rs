//! Counting. Results of tiers come in, a table and the closing line go out. It runs nothing.

use std::fmt;

use super::tier::TierName;
use crate::run::say;

/// How one tier, or all of them, ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests or checks that held.
    pub(crate) passed: u64,
    /// Tests or checks that did not, and tiers that could not even finish.
    pub(crate) failed: u64,
    /// Tests that were passed over, and one for each tier that cannot run here.
    pub(crate) skipped: u64,
    /// What a reader must know about the numbers: why it was skipped or could not finish.
    pub(crate) note: String,
}

impl Tally {
    /// A tier that cannot run here; said aloud at once, since the table comes much later.
    pub(crate) fn skip(tier: TierName, reason: &str) -> Self {
        say!("SKIPPED: tier {} cannot run here: {reason}", tier.name());
        Self { skipped: 1, note: format!("skipped: {reason}"), ..Self::default() }
    }

    /// A tier that could not be run although it should.
    pub(crate) fn failure(reason: &str) -> Self {
        say!("FAILED: {reason}");
        Self { failed: 1, note: reason.to_string(), ..Self::default() }
    }

    /// All tiers together; the notes stay with their tiers.
    pub(crate) fn sum(reports: &[TierReport]) -> Self {
        let mut total = Self::default();
        for report in reports {
            total.passed += report.tally.passed;
            total.failed += report.tally.failed;
            total.skipped += report.tally.skipped;
        }
        total
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// One tier's line of the table.
pub(crate) struct TierReport {
    /// Which tier.
    pub(crate) tier: TierName,
    /// How it ended.
    pub(crate) tally: Tally,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// The table, a line per tier and one for the head.
pub(crate) fn table(reports: &[TierReport]) -> String {
    let mut text = format!(
        "{:<12} {:>7} {:>7} {:>8} {:>8}  note\n",
        "tier", "passed", "failed", "skipped", "seconds"
    );
    for TierReport { tier, tally, seconds } in reports {
        let line = format!(
            "{:<12} {:>7} {:>7} {:>8} {:>8.1}  {}",
            tier.name(),
            tally.passed,
            tally.failed,
            tally.skipped,
            seconds,
            tally.note.lines().next().unwrap_or_default()
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Tally, TierReport, table};
    use crate::test::tier::TierName;

    fn reports() -> Vec<TierReport> {
        let ran = Tally { passed: 12, failed: 1, skipped: 2, note: String::new() };
        let skipped = Tally { skipped: 1, note: "skipped: root".to_string(), ..Tally::default() };
        vec![
            TierReport { tier: TierName::Core, tally: ran, seconds: 3.25 },
            TierReport { tier: TierName::Kernel, tally: skipped, seconds: 0.0 },
        ]
    }

    #[test]
    fn the_closing_line_adds_up_all_tiers() {
        assert_eq!(Tally::sum(&reports()).to_string(), "12 passed, 1 failed, 3 skipped");
    }

    #[test]
    fn the_table_names_every_tier_and_why_it_did_not_run() {
        let expected = "\
tier          passed  failed  skipped  seconds  note
core              12       1        2      3.2
kernel             0       0        1      0.0  skipped: root
";
        assert_eq!(table(&reports()), expected);
    }
}
