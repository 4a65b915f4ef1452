//! Points in time as people write them after `--since` and `--until`.
//!
//! | written | is |
//! |---|---|
//! | `10m`, `2h`, `1h30m`, `7d` | that long ago |
//! | `07:00`, `07:00:30` | today at that time |
//! | `2026-11-21`, `2026-11-21 07:00`, `2026-11-21T07:00:30.5` | local time |
//! | `2026-11-21T07:00:00Z`, `…+01:00` | RFC 3339 |
//! | `now`, `today`, `yesterday` | now; midnight of the day |

use jiff::civil::{Date, DateTime, Time};
use jiff::{Span, Timestamp, Zoned};

/// Reads `text` as a point in time, in nanoseconds since 1970-01-01 UTC; `now` carries the time zone.
///
/// # Errors
/// A sentence with the text and what would be accepted.
pub(super) fn parse(text: &str, now: &Zoned) -> Result<u64, String> {
    let text = text.trim();
    let at = named(text, now).or_else(|| ago(text, now)).or_else(|| written(text, now)).ok_or_else(|| {
        format!(
            "{text:?} is no point in time: expected 10m, 2h, today, 07:00, \"2026-11-21 07:00\" or 2026-11-21T07:00:00Z"
        )
    })?;
    u64::try_from(at.as_nanosecond()).map_err(|_| format!("{text:?} is before 1970"))
}

fn named(text: &str, now: &Zoned) -> Option<Timestamp> {
    let midnight = now.start_of_day().ok()?;
    match text.to_ascii_lowercase().as_str() {
        "now" => Some(now.timestamp()),
        "today" => Some(midnight.timestamp()),
        "yesterday" => Some(midnight.yesterday().ok()?.timestamp()),
        _ => None,
    }
}

/// `10m`, `1h30m`, `2 d`: a number and a unit, as often as wanted, and nothing else.
fn ago(text: &str, now: &Zoned) -> Option<Timestamp> {
    let text = text.strip_suffix("ago").unwrap_or(text).trim();
    if !text.starts_with(|c: char| c.is_ascii_digit()) || text.contains([':', '-', 'T']) {
        return None;
    }
    let span: Span = text.parse().ok()?;
    // A day of "ago" is 24 hours, so that "7d" means the same whatever the clocks did meanwhile.
    let length = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
    now.timestamp().checked_sub(length).ok()
}

fn written(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    let civil = if text.contains('-') {
        if text.len() > 10 {
            text.parse::<DateTime>().ok()?
        } else {
            text.parse::<Date>().ok()?.to_datetime(Time::midnight())
        }
    } else if text.contains(':') {
        now.date().to_datetime(text.parse::<Time>().ok()?)
    } else {
        return None;
    };
    Some(civil.to_zoned(now.time_zone().clone()).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    fn now() -> Zoned {
        "2026-11-21T09:30:00Z".parse::<Timestamp>().unwrap().to_zoned(TimeZone::fixed(jiff::tz::offset(1)))
    }

    #[test]
    fn times_as_people_write_them() {
        for (text, expected) in [
            ("now", "2026-11-21T09:30:00Z"),
            ("10m", "2026-11-21T09:20:00Z"),
            ("10 min ago", "2026-11-21T09:20:00Z"),
            ("1h30m", "2026-11-21T08:00:00Z"),
            ("90s", "2026-11-21T09:28:30Z"),
            ("250ms", "2026-11-21T09:29:59.75Z"),
            ("7d", "2026-11-14T09:30:00Z"),
            ("2w", "2026-11-07T09:30:00Z"),
            ("today", "2026-11-20T23:00:00Z"),
            ("Yesterday", "2026-11-19T23:00:00Z"),
            ("07:00", "2026-11-21T06:00:00Z"),
            ("07:00:30", "2026-11-21T06:00:30Z"),
            ("2026-11-20", "2026-11-19T23:00:00Z"),
            ("2026-11-20 07:00", "2026-11-20T06:00:00Z"),
            ("2026-11-20T07:00:30.5", "2026-11-20T06:00:30.5Z"),
            ("2026-11-20T07:00:00Z", "2026-11-20T07:00:00Z"),
            ("2026-11-20T07:00:00.000000001-05:00", "2026-11-20T12:00:00.000000001Z"),
        ] {
            let expected: Timestamp = expected.parse().unwrap();
            assert_eq!(parse(text, &now()), Ok(u64::try_from(expected.as_nanosecond()).unwrap()), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_would_do() {
        for text in ["", "10", "soon", "10 parsecs", "25:00", "2026-13-01", "-10m", "2026-11-20 7 o'clock"] {
            let refused = parse(text, &now()).unwrap_err();
            assert!(refused.contains("expected 10m"), "{text}: {refused}");
        }
        assert_eq!(parse("1960-01-01", &now()), Err("\"1960-01-01\" is before 1970".to_owned()));
    }
}
