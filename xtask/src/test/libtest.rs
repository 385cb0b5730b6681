//! Reading what `cargo test` says. A cargo command comes in, counts go out. It judges by the
//! numbers that were printed and by the exit status, and a silent run never counts as a good one.

use std::process::{Command, ExitStatus};

use super::tally::Tally;
use crate::run;

/// Runs the command with its output seen live, and counts its tests.
pub(crate) fn run(command: &mut Command) -> Tally {
    let mut counts = Counts::default();
    match run::stream(command, |line| counts.read(line)) {
        Ok(status) => counts.conclude(status.success(), &ended(status)),
        Err(error) => Tally::failure(&format!("{error:#}")),
    }
}

fn ended(status: ExitStatus) -> String {
    format!("cargo test ended with {status}")
}

/// The sum over all test programs of one `cargo test`.
#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Counts {
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; ..`
    fn read(&mut self, line: &str) {
        let Some((_, numbers)) =
            line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in numbers.split("; ") {
            let Some((number, word)) = part.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    fn conclude(self, is_success: bool, ended: &str) -> Tally {
        let Self { passed, failed, ignored } = self;
        let mut tally = Tally { passed, failed, skipped: ignored, note: String::new() };
        if !is_success && failed == 0 {
            // It did not compile, or a test program died before it could count.
            tally.failed = 1;
            tally.note = ended.to_string();
        } else if is_success && passed + failed == 0 {
            tally.failed = 1;
            tally.note = "no test was run".to_string();
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;
    use crate::test::tally::Tally;

    const OK: &str = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out";
    const BAD: &str =
        "test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; in 1.02s";

    fn read(lines: &[&str], is_success: bool) -> Tally {
        let mut counts = Counts::default();
        lines.iter().for_each(|line| counts.read(line));
        counts.conclude(is_success, "ended badly")
    }

    fn tally(passed: u64, failed: u64, skipped: u64, note: &str) -> Tally {
        Tally { passed, failed, skipped, note: note.to_string() }
    }

    #[test]
    fn the_results_of_all_test_programs_are_added() {
        let lines = ["running 4 tests", "test a ... ok", OK, "test 9 passed; ... ok", BAD];
        assert_eq!(read(&lines, false), tally(8, 2, 1, ""));
    }

    #[test]
    fn a_run_that_ends_badly_without_a_failed_test_is_one_failure() {
        assert_eq!(read(&[OK], false), tally(3, 1, 1, "ended badly"));
        assert_eq!(read(&[], false), tally(0, 1, 0, "ended badly"));
    }

    #[test]
    fn a_run_without_a_single_test_is_a_failure() {
        let empty = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out";
        assert_eq!(read(&[empty], true), tally(0, 1, 0, "no test was run"));
        assert_eq!(read(&["test result: garbage", "test result: ok. x passed; y"], true).failed, 1);
    }
}
