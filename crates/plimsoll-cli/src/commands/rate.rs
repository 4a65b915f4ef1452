//! `--log-rate`: how much a stream may print, as people write it.
//!
//! | written | is |
//! |---|---|
//! | `1M/s` | 1 MiB a second, 10 s of it at once after a rest |
//! | `200K/s:4M` | 200 KiB a second, 4 MiB at once |
//! | `500lines/s`, `500 lines/s:2000` | lines, the same |

use plimsoll::units;
use plimsoll_store::{Rate, RateLimit};

/// One `--log-rate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    Bytes(Rate),
    Lines(Rate),
}

/// Reads one `--log-rate`.
///
/// # Errors
/// A sentence with what would be accepted.
pub(crate) fn parse(text: &str) -> Result<Given, String> {
    let expected = || format!("{text:?} is no rate: expected 1M/s, 200K/s:4M, 500lines/s or 500lines/s:2000");
    let (rate, burst) = match text.split_once(':') {
        Some((rate, burst)) => (rate, Some(burst.trim())),
        None => (text, None),
    };
    let rate = rate.trim().strip_suffix("/s").ok_or_else(expected)?.trim();
    let of = |per_second: u64, burst: Option<u64>| match burst {
        _ if per_second == 0 || burst == Some(0) => {
            Err("0 would let nothing through: leave the output unread by --quiet, or print less".to_owned())
        }
        Some(burst) => Ok(Rate { per_second, burst }),
        None => Ok(Rate::new(per_second)),
    };
    if let Some(lines) = rate.strip_suffix("lines").or_else(|| rate.strip_suffix("line")) {
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| expected());
        return of(number(lines)?, burst.map(number).transpose()?).map(Given::Lines);
    }
    let size = |text: &str| units::parse_size(text).map_err(|error| format!("{}: {error}", expected()));
    of(size(rate)?, burst.map(size).transpose()?).map(Given::Bytes)
}

/// All of them together.
///
/// # Errors
/// The same unit twice.
pub(crate) fn limit(given: &[Given]) -> Result<RateLimit, String> {
    let mut limit = RateLimit::default();
    for one in given {
        let (place, rate, unit) = match one {
            Given::Bytes(rate) => (&mut limit.bytes, rate, "bytes"),
            Given::Lines(rate) => (&mut limit.lines, rate, "lines"),
        };
        if place.replace(*rate).is_some() {
            return Err(format!("--log-rate says twice how many {unit} a second"));
        }
    }
    Ok(limit)
}

/// The limit in words: `1.0 MiB/s and 500 lines/s`.
pub(crate) fn words(limit: &RateLimit) -> String {
    let bytes = limit.bytes.map(|rate| format!("{}/s", units::size(rate.per_second)));
    let lines = limit.lines.map(|rate| format!("{} lines/s", crate::output::count(rate.per_second)));
    let both: Vec<String> = [bytes, lines].into_iter().flatten().collect();
    both.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_as_people_write_them() {
        for (text, expected) in [
            ("1M/s", Given::Bytes(Rate { per_second: 1 << 20, burst: 10 << 20 })),
            ("200K/s:4M", Given::Bytes(Rate { per_second: 200 << 10, burst: 4 << 20 })),
            ("500lines/s", Given::Lines(Rate { per_second: 500, burst: 5000 })),
            ("500 lines/s: 2000", Given::Lines(Rate { per_second: 500, burst: 2000 })),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for text in ["", "1M", "fast", "1/s", "lines/s", "5lines", "1M/s:x", "0K/s", "5lines/s:0", "-1K/s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_and_lines_can_both_be_limited_each_once() {
        let [bytes, lines] = ["1M/s", "500lines/s"].map(|text| parse(text).unwrap());
        assert_eq!(words(&limit(&[bytes, lines]).unwrap()), "1.0 MiB/s and 500 lines/s");
        assert!(limit(&[lines, lines]).unwrap_err().contains("twice"));
        assert!(limit(&[]).unwrap().is_none());
    }
}
