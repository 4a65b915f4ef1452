//! What people see, the same in every command: colours, numbers, ages and times.
//!
//! Colours only where the descriptor is a terminal, `NO_COLOR` is unset or empty and `TERM` is not `dumb`; programs get
//! plain text. Numbers carry separators (`4,211`) and units (`plimsoll::units`); times are local, to the millisecond.

use std::fmt::{self, Display};
use std::io::IsTerminal;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use plimsoll::units;

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Palette {
    on: bool,
}

/// What a colour means; the colour itself is chosen here, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// All is well.
    Good,
    /// Look at it.
    Warn,
    /// Act on it.
    Bad,
    /// Beside the point: times, units, hints.
    Dim,
    /// A name, told apart from its neighbours.
    Name(u8),
}

impl Palette {
    /// No colours.
    pub(crate) const PLAIN: Palette = Palette { on: false };
    /// Colours, whatever the descriptor is.
    #[cfg(test)]
    pub(crate) const COLOURED: Palette = Palette { on: true };

    /// Colours where `stream` (stdout, say) goes to a person who wants them.
    pub(crate) fn of(stream: &impl IsTerminal) -> Palette {
        let set = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty());
        Palette::decide(stream.is_terminal(), set("NO_COLOR").is_some(), set("TERM").is_some_and(|term| term == "dumb"))
    }

    fn decide(is_terminal: bool, no_color: bool, dumb: bool) -> Palette {
        Palette { on: is_terminal && !no_color && !dumb }
    }

    /// Colours are on.
    pub(crate) fn is_on(self) -> bool {
        self.on
    }

    /// What turns `style` on and off again; empty where colours are off.
    pub(crate) fn codes(self, style: Style) -> (&'static str, &'static str) {
        const NAMES: [&str; 6] = ["\x1b[36m", "\x1b[35m", "\x1b[34m", "\x1b[32m", "\x1b[96m", "\x1b[95m"];
        if !self.on {
            return ("", "");
        }
        let begin = match style {
            Style::Good => "\x1b[32m",
            Style::Warn => "\x1b[33m",
            Style::Bad => "\x1b[31m",
            Style::Dim => "\x1b[2m",
            Style::Name(n) => NAMES[usize::from(n) % NAMES.len()],
        };
        (begin, "\x1b[0m")
    }

    /// `text` in `style`. Pad the text first: the codes count as width otherwise.
    pub(crate) fn paint(self, style: Style, text: impl Display) -> impl Display {
        let (begin, end) = self.codes(style);
        Shown(move |f: &mut fmt::Formatter<'_>| write!(f, "{begin}{text}{end}"))
    }
}

/// A number with separators: `4,211`.
pub(crate) fn count(number: u64) -> impl Display {
    Shown(move |f: &mut fmt::Formatter<'_>| {
        let digits = number.to_string();
        let mut text = String::with_capacity(digits.len() * 4 / 3);
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    })
}

/// A number and its noun: `1 line`, `4,211 lines`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// What a service reads whose supervisor is dead or hung: `stale, 12 s`.
pub(crate) fn stale(age: Duration) -> String {
    format!("stale, {}", units::duration(age))
}

/// Formats many points in time: the calendar is asked once a second of log time, not once a line.
pub(crate) struct LocalClock {
    zone: TimeZone,
    second: Option<i64>,
    /// `2026-11-21 07:01:02`
    shown: String,
    /// `+01:00`
    offset: String,
}

impl LocalClock {
    /// The time zone of this machine, or `TZ`.
    pub(crate) fn system() -> LocalClock {
        LocalClock::of(TimeZone::system())
    }

    /// The time zone given.
    pub(crate) fn of(zone: TimeZone) -> LocalClock {
        LocalClock { zone, second: None, shown: String::new(), offset: String::new() }
    }

    /// Appends `2026-11-21 07:01:02.123`.
    pub(crate) fn date_and_time(&mut self, unix_ns: u64, out: &mut String) {
        self.turn_to(unix_ns);
        out.push_str(&self.shown);
        push_fraction(out, unix_ns, 3);
    }

    /// Appends `07:01:02.123`.
    pub(crate) fn time(&mut self, unix_ns: u64, out: &mut String) {
        self.turn_to(unix_ns);
        out.push_str(self.shown.get(11..).unwrap_or(""));
        push_fraction(out, unix_ns, 3);
    }

    /// The local date, `2026-11-21`.
    pub(crate) fn date(&mut self, unix_ns: u64) -> &str {
        self.turn_to(unix_ns);
        self.shown.get(..10).unwrap_or("")
    }

    /// Appends RFC 3339 to the nanosecond: `2026-11-21T07:01:02.123456789+01:00`.
    pub(crate) fn rfc3339(&mut self, unix_ns: u64, out: &mut String) {
        self.turn_to(unix_ns);
        out.push_str(self.shown.get(..10).unwrap_or(""));
        out.push('T');
        out.push_str(self.shown.get(11..).unwrap_or(""));
        push_fraction(out, unix_ns, 9);
        out.push_str(&self.offset);
    }

    fn turn_to(&mut self, unix_ns: u64) {
        let second = i64::try_from(unix_ns / 1_000_000_000).unwrap_or(i64::MAX);
        if self.second == Some(second) {
            return;
        }
        let at = Timestamp::from_second(second).unwrap_or(Timestamp::MAX).to_zoned(self.zone.clone());
        self.shown = at.strftime("%Y-%m-%d %H:%M:%S").to_string();
        self.offset = at.strftime("%:z").to_string();
        self.second = Some(second);
    }
}

/// Appends a point and the fraction of the second, cut off after `digits`.
fn push_fraction(out: &mut String, unix_ns: u64, digits: usize) {
    out.push('.');
    let mut scale = 100_000_000;
    let fraction = unix_ns % 1_000_000_000;
    for _ in 0..digits {
        out.push(char::from(b'0' + (fraction / scale % 10) as u8));
        scale /= 10;
    }
}

/// A closure as something that can be shown.
struct Shown<F>(F);

impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> Display for Shown<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_people_who_want_them() {
        for (terminal, no_color, dumb, on) in [
            (true, false, false, true),
            (false, false, false, false),
            (true, true, false, false),
            (true, false, true, false),
        ] {
            assert_eq!(Palette::decide(terminal, no_color, dumb).is_on(), on);
        }
        assert_eq!(Palette::PLAIN.paint(Style::Bad, "x").to_string(), "x");
        assert_eq!(Palette::COLOURED.paint(Style::Bad, "x").to_string(), "\x1b[31mx\x1b[0m");
    }

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, shown) in [(0, "0"), (999, "999"), (1_000, "1,000"), (4_211, "4,211"), (12_345_678, "12,345,678")]
        {
            assert_eq!(count(number).to_string(), shown);
        }
        assert_eq!(format!("{:>7}", count(4211)), "  4,211");
        assert_eq!((counted(1, "line"), counted(2_000, "line")), ("1 line".to_owned(), "2,000 lines".to_owned()));
    }

    #[test]
    fn what_is_stale_says_since_when() {
        assert_eq!(stale(Duration::from_secs(12)), "stale, 12 s");
    }

    #[test]
    fn times_are_local_and_rfc_3339_is_exact() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let mut clock = LocalClock::of(zone);
        let at = 1_795_244_462_123_456_789; // 2026-11-21T07:01:02.123456789Z
        let shown = |clock: &mut LocalClock, how: fn(&mut LocalClock, u64, &mut String), at| {
            let mut out = String::new();
            how(clock, at, &mut out);
            out
        };
        assert_eq!(shown(&mut clock, LocalClock::date_and_time, at), "2026-11-21 08:01:02.123");
        assert_eq!(shown(&mut clock, LocalClock::time, at + 1_000_000_000), "08:01:03.123");
        assert_eq!(shown(&mut clock, LocalClock::rfc3339, at), "2026-11-21T08:01:02.123456789+01:00");
        assert_eq!(shown(&mut clock, LocalClock::rfc3339, 5), "1970-01-01T01:00:00.000000005+01:00");
    }
}
