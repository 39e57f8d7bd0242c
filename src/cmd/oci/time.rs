//! Instants as RFC 3339 has them, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now.
pub fn now() -> String {
    format(SystemTime::now())
}

/// An instant.
pub fn format(instant: SystemTime) -> String {
    let since = instant.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, nanoseconds) = (since.as_secs(), since.subsec_nanos());
    let (year, month, day) = date(seconds / 86_400);
    let rest = seconds % 86_400;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
}

/// Year, month and day of a day since 1970, in the Gregorian calendar. Years are counted from March, so
/// that the leap day is the last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn known_instants() {
        let of = |seconds| format(UNIX_EPOCH + Duration::new(seconds, 5));
        assert_eq!(of(0), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(of(951_782_400), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(of(1_795_247_999), "2026-11-21T07:59:59.000000005Z");
        assert_eq!(of(4_107_542_400), "2100-03-01T00:00:00.000000005Z");
    }
}
