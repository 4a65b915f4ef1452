//! Sizes and durations as people write and read them: `300M`, `1.5 GiB`, `250ms`, `+900 MiB/s`, `2 h 13 min`.
//!
//! Sizes are 1024-based, whatever the suffix says (`M`, `MB` and `MiB` are the same 1,048,576 bytes). A number needs its
//! unit: a bare one is refused, with a hint, because `--memory 300` has been read as bytes, KB and MB by three tools of
//! this kind; only `0` needs none. Parsing is exact up to `u64::MAX` bytes and nanoseconds and never panics.

use std::fmt;
use std::time::Duration;

/// Longest text that is looked at; anything longer is no size or duration.
pub const TEXT_BYTES_MAX: usize = 64;

const SIZE_UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// Why a text is no size or no duration. Fits after "invalid value: ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// Nothing but white space.
    #[error("empty: expected a number with a unit, like {example}")]
    Empty {
        /// A value that would be accepted.
        example: &'static str,
    },
    /// A number without a unit.
    #[error("{text:?} has no unit: did you mean {text}{unit}?")]
    NoUnit {
        /// What was given.
        text: String,
        /// The unit that was probably meant.
        unit: &'static str,
    },
    /// Not a decimal number: a sign, `NaN`, an exponent, a digit that is not ASCII, or no number at all.
    #[error("{text:?} does not begin with a plain number like 300 or 1.5")]
    NotANumber {
        /// What was given.
        text: String,
    },
    /// Below zero.
    #[error("{text:?} is negative")]
    Negative {
        /// What was given.
        text: String,
    },
    /// A number, but not a unit that is known.
    #[error("unknown unit {unit:?} in {text:?}: expected one of {expected}")]
    UnknownUnit {
        /// What was given.
        text: String,
        /// The part that is no unit.
        unit: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// More than fits.
    #[error("{text:?} is too large: at most {most}")]
    TooLarge {
        /// What was given.
        text: String,
        /// The largest value.
        most: &'static str,
    },
}

/// Reads a size in bytes: a decimal number and `B`, `K`, `M`, `G` or `T`, with or without `B` or `iB`, in either case,
/// 1024-based, white space allowed around and between. `0` needs no unit. A fraction of a byte is cut off.
///
/// # Errors
/// A bare number, an unknown unit, a negative or malformed number, more than `u64::MAX` bytes.
///
/// # Examples
/// ```
/// use plimsoll::units::parse_size;
/// assert_eq!(parse_size("300M"), Ok(300 << 20));
/// assert_eq!(parse_size("1.5 GiB"), Ok(3 << 29));
/// assert_eq!(parse_size("300").unwrap_err().to_string(), "\"300\" has no unit: did you mean 300M?");
/// ```
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text, "300M")?;
    let scale = match unit.to_ascii_lowercase().as_str() {
        "" if number.is_zero() => 1,
        "" => return Err(UnitError::NoUnit { text: shown(text), unit: "M" }),
        "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(unknown(text, unit, "B, K, M, G, T (1024-based; also KB, KiB, …)")),
    };
    let bytes = number.times(scale).and_then(|v| u64::try_from(v).ok());
    bytes.ok_or_else(|| UnitError::TooLarge { text: shown(text), most: "16777215T" })
}

/// Reads a duration: a decimal number and `ns`, `us` (or `µs`), `ms`, `s`, `m` (or `min`), `h` or `d`, white space allowed
/// around and between. `0` needs no unit. A fraction of a nanosecond is cut off.
///
/// # Errors
/// A bare number, an unknown unit, a negative or malformed number, more than `u64::MAX` nanoseconds (584 years).
///
/// # Examples
/// ```
/// use plimsoll::units::parse_duration;
/// use std::time::Duration;
/// assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
/// assert_eq!(parse_duration("1.5h"), Ok(Duration::from_secs(5400)));
/// assert!(parse_duration("30").is_err());
/// ```
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text, "30s")?;
    let scale = match unit {
        "" if number.is_zero() => 1,
        "" => return Err(UnitError::NoUnit { text: shown(text), unit: "s" }),
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" | "sec" => 1_000_000_000,
        "m" | "min" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        "d" => 86_400 * 1_000_000_000,
        _ => return Err(unknown(text, unit, "ns, us, ms, s, m, h, d")),
    };
    let nanos = number.times(scale).and_then(|v| u64::try_from(v).ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| UnitError::TooLarge { text: shown(text), most: "213503d" })
}

/// A decimal number as its digits: `digits` × 10^−`decimals`.
struct Decimal {
    digits: u128,
    decimals: u32,
}

impl Decimal {
    fn is_zero(&self) -> bool {
        self.digits == 0
    }

    /// The number times `scale`, rounded down; `None` when it does not fit.
    fn times(&self, scale: u64) -> Option<u128> {
        Some(self.digits.checked_mul(u128::from(scale))? / 10u128.checked_pow(self.decimals)?)
    }
}

/// Splits a text into its number and its unit.
fn split<'a>(text: &'a str, example: &'static str) -> Result<(Decimal, &'a str), UnitError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(UnitError::Empty { example });
    }
    if trimmed.len() > TEXT_BYTES_MAX {
        return Err(UnitError::NotANumber { text: shown(text) });
    }
    if let Some(rest) = trimmed.strip_prefix('-') {
        let negative = rest.starts_with(|c: char| c.is_ascii_digit());
        let text = shown(text);
        return Err(if negative { UnitError::Negative { text } } else { UnitError::NotANumber { text } });
    }
    let end = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let malformed = || UnitError::NotANumber { text: shown(text) };
    if whole.is_empty() || fraction.contains('.') || (number.ends_with('.')) {
        return Err(malformed());
    }
    // Past 18 decimals a digit is worth less than a byte or a nanosecond in every unit; cutting keeps the sum exact.
    let fraction = fraction.get(..fraction.len().min(18)).unwrap_or_default();
    let mut digits: u128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        let next = digits.checked_mul(10).and_then(|d| d.checked_add(u128::from(digit - b'0')));
        digits = next.unwrap_or(u128::MAX);
    }
    let decimals = u32::try_from(fraction.len()).map_err(|_| malformed())?;
    Ok((Decimal { digits, decimals }, unit.trim_start()))
}

fn unknown(text: &str, unit: &str, expected: &'static str) -> UnitError {
    UnitError::UnknownUnit { text: shown(text), unit: shown(unit), expected }
}

/// The text for a message: trimmed and cut, so that a pasted file does not fill the terminal.
fn shown(text: &str) -> String {
    let trimmed = text.trim();
    match trimmed.char_indices().nth(TEXT_BYTES_MAX) {
        Some((at, _)) => format!("{}…", &trimmed[..at]),
        None => trimmed.to_owned(),
    }
}

/// Shows bytes with one decimal and a 1024-based unit: `312.4 MiB`, `512 B`. Honours width and alignment.
///
/// # Examples
/// ```
/// assert_eq!(plimsoll::units::size(300 << 20).to_string(), "300.0 MiB");
/// ```
pub fn size(bytes: u64) -> impl fmt::Display {
    Shown(move |f: &mut fmt::Formatter<'_>| {
        let (value, unit) = scaled(bytes as f64, 1);
        f.pad(&if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", SIZE_UNITS[unit]) })
    })
}

/// Shows a rate in bytes a second with its sign: `+900 MiB/s`, `-1.5 KiB/s`, `0 B/s`; `unknown` when it is not a number.
/// One decimal below ten, none from there on. Honours width and alignment.
///
/// # Examples
/// ```
/// assert_eq!(plimsoll::units::rate(900.0 * 1048576.0).to_string(), "+900 MiB/s");
/// ```
pub fn rate(bytes_per_second: f64) -> impl fmt::Display {
    Shown(move |f: &mut fmt::Formatter<'_>| {
        if !bytes_per_second.is_finite() {
            return f.pad("unknown");
        }
        let (value, unit) = scaled(bytes_per_second.abs(), 0);
        let decimals = usize::from(unit > 0 && value < 9.95);
        let number = format!("{value:.decimals$} {}/s", SIZE_UNITS[unit]);
        let sign = match bytes_per_second {
            _ if number == "0 B/s" => "",
            below if below < 0.0 => "-",
            _ => "+",
        };
        f.pad(&format!("{sign}{number}"))
    })
}

/// Shows a duration with two figures at most: `1.4 s`, `350 ms`, `12 µs`, `2 h 13 min`, `5 d 3 h`. Honours width and
/// alignment. Below ten of a unit under a minute, one decimal is shown.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// assert_eq!(plimsoll::units::duration(Duration::from_secs(7980)).to_string(), "2 h 13 min");
/// ```
pub fn duration(d: Duration) -> impl fmt::Display {
    Shown(move |f: &mut fmt::Formatter<'_>| {
        let nanos = d.as_nanos();
        // A value that would round up to the next unit is shown in that unit: 999.6 ms is 1.0 s.
        f.pad(&match nanos {
            0 => "0 s".to_owned(),
            1..=999 => format!("{nanos} ns"),
            1_000..=999_499 => figure(nanos as f64 / 1e3, "µs"),
            999_500..=999_499_999 => figure(nanos as f64 / 1e6, "ms"),
            999_500_000..=59_499_999_999 => figure(nanos as f64 / 1e9, "s"),
            _ => {
                let seconds = d.as_secs().saturating_add(u64::from(d.subsec_nanos() >= 500_000_000));
                match seconds {
                    0..3_600 => pair(seconds / 60, "min", seconds % 60, "s"),
                    3_600..86_400 => pair(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
                    _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
                }
            }
        })
    })
}

fn figure(value: f64, unit: &str) -> String {
    let decimals = usize::from(value < 9.95);
    format!("{value:.decimals$} {unit}")
}

fn pair(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 { format!("{large} {large_unit}") } else { format!("{large} {large_unit} {small} {small_unit}") }
}

/// The value in the largest unit in which it is at least 1 after rounding to `decimals`, and that unit's index.
fn scaled(mut value: f64, decimals: usize) -> (f64, usize) {
    let rounds_up_at = if decimals == 0 { 1023.5 } else { 1023.95 };
    let mut unit = 0;
    while value >= rounds_up_at && unit + 1 < SIZE_UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    (value, unit)
}

/// A closure as something that can be shown.
struct Shown<F>(F);

impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for Shown<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("0.0", 0),
            ("0B", 0),
            ("1b", 1),
            ("512B", 512),
            ("1k", 1024),
            ("64KiB", 64 << 10),
            ("64kb", 64 << 10),
            ("300M", 300 * MIB),
            ("300MB", 300 * MIB),
            ("300mib", 300 * MIB),
            ("1.5G", 3 << 29),
            ("0.5K", 512),
            ("0.0001K", 0),
            ("1.999999999999999999999999999999999999K", 2047),
            ("2T", 2 << 40),
            ("16777215T", 16_777_215 << 40),
            ("18446744073709551615B", u64::MAX),
            ("  7 M\t", 7 * MIB),
            ("000300M", 300 * MIB),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "empty: expected a number with a unit, like 300M"),
            (" \t\n", "empty: expected a number with a unit, like 300M"),
            ("300", "\"300\" has no unit: did you mean 300M?"),
            ("1.5", "\"1.5\" has no unit: did you mean 1.5M?"),
            ("-1M", "\"-1M\" is negative"),
            ("-0", "\"-0\" is negative"),
            ("-M", "\"-M\" does not begin with a plain number like 300 or 1.5"),
            ("+1M", "\"+1M\" does not begin with a plain number like 300 or 1.5"),
            ("NaN", "\"NaN\" does not begin with a plain number like 300 or 1.5"),
            ("inf", "\"inf\" does not begin with a plain number like 300 or 1.5"),
            ("M", "\"M\" does not begin with a plain number like 300 or 1.5"),
            (".5M", "\".5M\" does not begin with a plain number like 300 or 1.5"),
            ("5.M", "\"5.M\" does not begin with a plain number like 300 or 1.5"),
            ("1.2.3M", "\"1.2.3M\" does not begin with a plain number like 300 or 1.5"),
            ("٣٠٠M", "\"٣٠٠M\" does not begin with a plain number like 300 or 1.5"),
            ("３００Ｍ", "\"３００Ｍ\" does not begin with a plain number like 300 or 1.5"),
            ("16777216T", "\"16777216T\" is too large: at most 16777215T"),
            ("18446744073709551616B", "\"18446744073709551616B\" is too large: at most 16777215T"),
            (
                "999999999999999999999999999999999999999999999M",
                "\"999999999999999999999999999999999999999999999M\" is too large: at most 16777215T",
            ),
        ] {
            assert_eq!(parse_size(text).map_err(|e| e.to_string()), Err(reason.to_owned()), "{text:?}");
        }
        for unit in ["1e9", "300P", "300Mi", "300 M M", "1_000M", "1,5G", "300Ｍ", "300%", "3m0"] {
            let error = parse_size(unit).expect_err(unit);
            assert!(matches!(error, UnitError::UnknownUnit { .. }), "{unit:?}: {error}");
        }
        let long = parse_size(&"9".repeat(10_000)).expect_err("long").to_string();
        assert!(long.len() < 200, "a pasted file fills the terminal: {} bytes", long.len());
    }

    #[test]
    fn durations_are_read() {
        for (text, expected) in [
            ("0", Duration::ZERO),
            ("0s", Duration::ZERO),
            ("1ns", Duration::from_nanos(1)),
            ("20us", Duration::from_micros(20)),
            ("20µs", Duration::from_micros(20)),
            ("250ms", Duration::from_millis(250)),
            ("1.5s", Duration::from_millis(1500)),
            ("5m", Duration::from_secs(300)),
            ("5 min", Duration::from_secs(300)),
            ("2h", Duration::from_secs(7200)),
            ("1d", Duration::from_secs(86_400)),
            ("213503d", Duration::from_secs(213_503 * 86_400)),
        ] {
            assert_eq!(parse_duration(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "empty: expected a number with a unit, like 30s"),
            ("30", "\"30\" has no unit: did you mean 30s?"),
            ("-5s", "\"-5s\" is negative"),
            ("NaN", "\"NaN\" does not begin with a plain number like 300 or 1.5"),
            ("213504d", "\"213504d\" is too large: at most 213503d"),
            ("5M", "unknown unit \"M\" in \"5M\": expected one of ns, us, ms, s, m, h, d"),
            ("1m30s", "unknown unit \"m30s\" in \"1m30s\": expected one of ns, us, ms, s, m, h, d"),
        ] {
            assert_eq!(parse_duration(text).map_err(|e| e.to_string()), Err(reason.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_shown() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (MIB - 1, "1.0 MiB"),
            (327_575_142, "312.4 MiB"),
            (MIB * 1024 - 1, "1.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(size(bytes).to_string(), shown);
        }
        assert_eq!(format!("[{:>10}] [{:<8}]", size(2048), size(1)), "[   2.0 KiB] [1 B     ]");
    }

    #[test]
    fn rates_are_shown() {
        for (bytes_per_second, shown) in [
            (0.0, "0 B/s"),
            (-0.0, "0 B/s"),
            (0.4, "0 B/s"),
            (-0.4, "0 B/s"),
            (1.0, "+1 B/s"),
            (-1536.0, "-1.5 KiB/s"),
            (9.96 * 1024.0, "+10 KiB/s"),
            (900.0 * 1048576.0, "+900 MiB/s"),
            (1023.7 * 1048576.0, "+1.0 GiB/s"),
            (f64::NAN, "unknown"),
            (f64::INFINITY, "unknown"),
        ] {
            assert_eq!(rate(bytes_per_second).to_string(), shown, "{bytes_per_second}");
        }
    }

    #[test]
    fn durations_are_shown() {
        for (nanos, shown) in [
            (0, "0 s"),
            (999, "999 ns"),
            (1_500, "1.5 µs"),
            (45_000, "45 µs"),
            (999_600, "1.0 ms"),
            (350_000_000, "350 ms"),
            (999_600_000, "1.0 s"),
            (1_400_000_000, "1.4 s"),
            (59_400_000_000, "59 s"),
            (59_600_000_000, "1 min"),
            (90_000_000_000, "1 min 30 s"),
            (7_980_000_000_000, "2 h 13 min"),
            (442_800_000_000_000, "5 d 3 h"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanos)).to_string(), shown, "{nanos}");
        }
        assert_eq!(duration(Duration::MAX).to_string(), "213503982334601 d 7 h");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            prop_assert_eq!(parse_size(&text).is_ok(), parse_size(&format!(" {text} ")).is_ok());
            prop_assert_eq!(parse_duration(&text).is_ok(), parse_duration(&format!(" {text} ")).is_ok());
        }

        #[test]
        fn whole_numbers_are_exact(value in 0u64..=u64::MAX, unit in 0usize..5) {
            let text = format!("{value}{}", ["B", "K", "M", "G", "T"][unit]);
            let expected = u128::from(value) << (10 * unit);
            prop_assert_eq!(parse_size(&text).ok().map(u128::from), u64::try_from(expected).ok().map(u128::from));
        }

        #[test]
        fn what_is_shown_is_read_back(bytes in 0u64..1 << 50) {
            let read = parse_size(&size(bytes).to_string()).expect("our own text");
            let error = bytes.abs_diff(read) as f64;
            prop_assert!(error <= 0.05 * (bytes as f64).max(1.0), "{} came back as {}", bytes, read);
        }
    }
}
