//! RFC 3339 times of Kubernetes objects.
//!
//! In: the text of `creationTimestamp` or `startTime`. Out: a [`Timestamp`], or none if it is no
//! such time or before 1970. It never fails and never guesses a time zone.

use crate::flow::Timestamp;

const SECOND_NS: u64 = 1_000_000_000;

/// Reads `2026-11-23T11:19:33Z`, with an optional fraction and with `Z` or a numeric offset.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at_checked(zone_at)?;
    let mut fields = date.split('-');
    let year = number(fields.next()?, 4)?;
    let month = number(fields.next()?, 2)?;
    let day = number(fields.next()?, 2)?;
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = whole.split(':');
    let hour = number(parts.next()?, 2)?;
    let minute = number(parts.next()?, 2)?;
    let second = number(parts.next()?, 2)?;
    let extra = fields.next().is_some() || parts.next().is_some();
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24;
    // 60 is a leap second; it counts as the first of the next minute.
    if extra || !in_range || minute > 59 || second > 60 {
        return None;
    }
    let local = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let seconds = u64::try_from(local - offset_seconds(zone)?).ok()?;
    Some(Timestamp(seconds.checked_mul(SECOND_NS)?.checked_add(fraction_ns(fraction)?)?))
}

fn number(digits: &str, len: usize) -> Option<i64> {
    let plain = digits.len() == len && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// Days of the proleptic Gregorian calendar. Years are counted from March, so that the leap day is
/// the last one and every month has its fixed place.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let from_march = (month + 9) % 12;
    let year = if month <= 2 { year - 1 } else { year };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (from_march * 306 + 5) / 10 + day - 1 - 719_468
}

fn offset_seconds(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    Some(sign * (number(hours, 2)? * 3600 + number(minutes, 2)? * 60))
}

fn fraction_ns(digits: &str) -> Option<u64> {
    let mut value = 0;
    let mut unit = SECOND_NS / 10;
    for byte in digits.bytes() {
        if !byte.is_ascii_digit() {
            return None;
        }
        value += u64::from(byte - b'0') * unit;
        unit /= 10;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_times_an_api_server_writes_and_refuses_the_rest() {
        let at = |seconds: u64, ns: u64| Some(Timestamp(seconds * SECOND_NS + ns));
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", at(0, 0)),
            ("2000-02-29T23:59:59Z", at(951_868_799, 0)),
            ("2026-11-23T11:19:33Z", at(1_795_432_773, 0)),
            ("2026-11-23T11:19:33.5Z", at(1_795_432_773, 500_000_000)),
            ("2026-11-23T12:19:33+01:00", at(1_795_432_773, 0)),
            ("2026-11-23T05:49:33.000000001-05:30", at(1_795_432_773, 1)),
            ("1969-12-31T23:59:59Z", None),
            ("2026-11-23T11:19:33", None),
            ("2026-13-23T11:19:33Z", None),
            ("2026-11-23T24:00:00Z", None),
            ("2026-11-23T11:19:33+0100", None),
            ("9999-12-31T23:59:59Z", None),
            ("T:Z", None),
            ("", None),
            ("2026-11-23T11:19:\u{e9}3Z", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
