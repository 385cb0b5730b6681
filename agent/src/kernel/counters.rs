//! The kernel's counters that no table holds: losses by stage, and totals that do not depend on
//! room anywhere.

use aya::maps::{MapData, PerCpuArray};
use parapet_common::{
    STAGE_NAMES, TOTAL_ANSWERED, TOTAL_ATTEMPTS, TOTAL_REFUSED, TOTAL_SECRET_OPENS,
    TOTAL_SECRET_USES,
};

type PerCpu = PerCpuArray<MapData, u64>;

/// What was seen since the programs were loaded first, whether it found room in a table or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Attempts seen.
    pub attempts: u64,
    /// Attempts that were answered.
    pub answered: u64,
    /// Attempts that were refused.
    pub refused: u64,
}

/// What was done with secret files, whether it found room in the table or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SecretTotals {
    pub(super) opens: u64,
    /// First reads, mappings, and files found open.
    pub(super) uses: u64,
}

/// Both arrays.
pub(super) struct Counters {
    lost: PerCpu,
    totals: PerCpu,
    lost_before: [u64; STAGE_NAMES.len()],
}

impl Counters {
    pub(super) fn new(lost: PerCpu, totals: PerCpu) -> Self {
        Self { lost, totals, lost_before: [0; STAGE_NAMES.len()] }
    }

    /// (stage, losses since this was last asked), of stages that lost something.
    pub(super) fn losses(&mut self) -> Vec<(&'static str, u64)> {
        let stages = (0..).zip(STAGE_NAMES).zip(&mut self.lost_before);
        let losses = stages.map(|((index, stage), before)| {
            // What cannot be read now is read the next time.
            let total = sum(&self.lost, index).unwrap_or(*before);
            let count = total.saturating_sub(*before);
            *before = total;
            (stage, count)
        });
        losses.filter(|(_, count)| *count > 0).collect()
    }

    pub(super) fn secret_totals(&self) -> SecretTotals {
        SecretTotals { opens: self.total(TOTAL_SECRET_OPENS), uses: self.total(TOTAL_SECRET_USES) }
    }

    fn total(&self, which: u32) -> u64 {
        sum(&self.totals, which).unwrap_or_default()
    }

    pub(super) fn totals(&self) -> Totals {
        let total = |which| self.total(which);
        Totals {
            attempts: total(TOTAL_ATTEMPTS),
            answered: total(TOTAL_ANSWERED),
            refused: total(TOTAL_REFUSED),
        }
    }
}

fn sum(counters: &PerCpu, index: u32) -> Option<u64> {
    match counters.get(&index, 0) {
        Ok(per_cpu) => Some(per_cpu.iter().sum()),
        Err(error) => {
            tracing::warn!(%error, index, "a kernel counter could not be read");
            None
        }
    }
}
