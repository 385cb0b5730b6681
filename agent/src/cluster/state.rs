//! How the watches are doing, for whoever reports it.
//!
//! In: what each watch says of itself. Out: a copy of all of it. Ages are of the monotonic clock: a
//! wall clock that jumps makes nothing fresh or stale.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Objects with a problem that are named; more are counted.
pub(super) const PROBLEMS_MAX: usize = 100;

/// One watched resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchState {
    /// Whether its first full list was handed over.
    pub synced: bool,
    /// When it was last known to be as the API server has it.
    pub current_at: Option<Instant>,
    /// Objects there are.
    pub objects: u64,
    /// What is in the way, in words; none while all is well.
    pub failure: Option<String>,
    /// Objects that could not be read, or only in part, and why.
    pub problems: BTreeMap<String, String>,
    /// The same, beyond those that are named.
    pub problems_left_out: u64,
}

/// All of them, by resource.
#[derive(Debug, Default)]
pub(super) struct States(Mutex<BTreeMap<&'static str, WatchState>>);

impl States {
    pub(super) fn all(&self) -> BTreeMap<&'static str, WatchState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn change(&self, resource: &'static str, change: impl FnOnce(&mut WatchState)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(resource).or_default());
    }
}

impl WatchState {
    /// Whether it is new, and so to be told.
    pub(super) fn problem(&mut self, object: String, problem: String) -> bool {
        if self.problems.get(&object) == Some(&problem) {
            return false;
        }
        if self.problems.len() >= PROBLEMS_MAX && !self.problems.contains_key(&object) {
            self.problems_left_out += 1;
            return false;
        }
        self.problems.insert(object, problem);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_once_and_again_when_it_is_another() {
        let mut state = WatchState::default();
        let mut tell = |problem: &str| state.problem("shop/a".into(), problem.into());
        assert_eq!([tell("one"), tell("one"), tell("two")], [true, false, true]);
        for number in 0..PROBLEMS_MAX + 4 {
            state.problem(format!("shop/{number}"), "x".to_owned());
        }
        assert_eq!((state.problems.len(), state.problems_left_out), (PROBLEMS_MAX, 5));
    }
}
