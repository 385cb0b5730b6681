//! Times as people and other programs read them.
//!
//! In: nanoseconds since the epoch. Out: RFC 3339 in UTC, seconds, ages. It never reads a clock.

use parapet_core::flow::Timestamp;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// `2026-11-23T11:40:00.250Z`; empty for the zero timestamp, which means "never".
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    if at == Timestamp::default() {
        return String::new();
    }
    let seconds = at.0 / NANOS_PER_SECOND;
    let millis = at.0 % NANOS_PER_SECOND / 1_000_000;
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Seconds from `from` to `to`; zero if the clock went back or `from` is never.
#[must_use]
pub fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    if from == Timestamp::default() {
        return 0.0;
    }
    std::time::Duration::from_nanos(to.0.saturating_sub(from.0)).as_secs_f64()
}

/// Year, month and day of a day since 1970-01-01, by counting the years' and months' lengths.
fn civil(days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    let mut rest = days;
    while rest >= year_days(year) {
        rest -= year_days(year);
        year += 1;
    }
    let february = year_days(year) - 337;
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    (year, month, rest + 1)
}

fn year_days(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if leap { 366 } else { 365 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        let at = |seconds: u64| rfc3339(Timestamp(seconds * NANOS_PER_SECOND));
        assert_eq!(at(0), "");
        assert_eq!(at(1), "1970-01-01T00:00:01.000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59.000Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59.000Z");
        assert_eq!(rfc3339(Timestamp(1_795_434_000_250_000_000)), "2026-11-23T11:40:00.250Z");
    }

    #[test]
    fn a_clock_that_went_back_makes_no_negative_age() {
        assert!(seconds_between(Timestamp(2_000_000_000), Timestamp(3_500_000_000)) - 1.5 < 1e-9);
        assert!(seconds_between(Timestamp(9), Timestamp(3)) == 0.0);
        assert!(seconds_between(Timestamp(0), Timestamp(3)) == 0.0);
    }
}
