//! What a measure found: numbers in, one JSON object a line and a line in words out.
//!
//! A number is held against its goal here and nowhere else. It compares nothing with other runs.
#![expect(clippy::print_stdout, reason = "the results of a bench go to stdout")]

use serde_json::{Map, Value, json};

/// What a number is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Said beside another number, to understand it.
    None,
}

impl Goal {
    /// Every number will do where there is no goal.
    pub(crate) fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
            Self::None => true,
        }
    }
}

/// One number.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    name: String,
    value: f64,
    unit: &'static str,
    goal: Goal,
    /// Why the number is not what its goal is about, if so.
    note: Option<&'static str>,
    detail: Map<String, Value>,
}

impl Outcome {
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &'static str, goal: Goal) -> Self {
        Self { name: name.into(), value, unit, goal, note: None, detail: Map::new() }
    }

    /// With one more field in the JSON.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(key.to_owned(), value.into());
        self
    }

    /// With words behind the number.
    pub(crate) fn noting(mut self, note: Option<&'static str>) -> Self {
        self.note = note;
        self
    }

    /// None without a goal.
    pub(crate) fn is_met(&self) -> Option<bool> {
        (self.goal != Goal::None).then(|| self.goal.is_met_by(self.value))
    }

    fn goal(&self) -> Option<String> {
        match self.goal {
            Goal::AtMost(limit) => Some(format!("<= {limit}")),
            Goal::AtLeast(limit) => Some(format!(">= {limit}")),
            Goal::None => None,
        }
    }

    fn json(&self) -> Value {
        let mut line = json!({
            "bench": self.name, "value": self.value, "unit": self.unit,
            "goal": self.goal(), "met": self.is_met(),
        });
        if let (Some(note), Some(line)) = (self.note, line.as_object_mut()) {
            line.insert("note".to_owned(), note.into());
        }
        if let Some(line) = line.as_object_mut() {
            line.extend(self.detail.clone());
        }
        line
    }

    fn words(&self) -> String {
        let verdict = match (self.goal(), self.is_met()) {
            (Some(goal), Some(true)) => format!(" (goal {goal}: met)"),
            (Some(goal), _) => format!(" (goal {goal}: MISSED)"),
            (None, _) => String::new(),
        };
        let note = self.note.map_or_else(String::new, |note| format!(", {note}"));
        let digits = if self.value.abs() < 100.0 { 2 } else { 0 };
        format!("  {}: {:.digits$} {}{note}{verdict}", self.name, self.value, self.unit)
    }

    /// Both lines, at once: who stops a bench has what was measured until then.
    pub(crate) fn print(&self) {
        println!("{}", self.json());
        println!("{}", self.words());
    }
}

/// The middle of these numbers; of none 0.
pub(crate) fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = numbers.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.get(middle) {
        Some(upper) if sorted.len() % 2 == 1 => *upper,
        Some(upper) => f64::midpoint(sorted[middle - 1], *upper),
        None => 0.0,
    }
}

/// A count as a number to divide.
#[expect(clippy::cast_precision_loss, reason = "counts of one bench, far below 2^52")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Goal, Outcome, median};

    #[test]
    fn a_goal_is_met_up_to_its_limit_and_missed_beyond() {
        let outcome = |value, goal| Outcome::new("x", value, "times", goal);
        assert_eq!(outcome(1.5, Goal::AtMost(1.5)).is_met(), Some(true));
        assert_eq!(outcome(1.51, Goal::AtMost(1.5)).is_met(), Some(false));
        assert_eq!(outcome(4.0, Goal::AtLeast(4.0)).is_met(), Some(true));
        assert_eq!(outcome(3.9, Goal::AtLeast(4.0)).is_met(), Some(false));
        assert_eq!(outcome(3.9, Goal::None).is_met(), None);
    }

    #[test]
    fn both_lines_say_number_goal_and_verdict() {
        let outcome = Outcome::new("a", 1.75, "times", Goal::AtMost(1.5)).with("rounds", 5);
        assert_eq!(outcome.words(), "  a: 1.75 times (goal <= 1.5: MISSED)");
        let expected = json!({"bench": "a", "value": 1.75, "unit": "times", "goal": "<= 1.5",
            "met": false, "rounds": 5});
        assert_eq!(outcome.json(), expected);
        let outcome = Outcome::new("b", 120.4, "MB", Goal::None).noting(Some("at the end"));
        assert_eq!(outcome.words(), "  b: 120 MB, at the end");
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([]), 0.0);
    }
}
