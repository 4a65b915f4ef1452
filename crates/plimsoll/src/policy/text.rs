//! A policy as text: `key = value` lines that say what differs from another policy, at most [`TEXT_BYTES_MAX`] bytes.
//!
//! The same keys and values stand in the decision log's `policy` records. A line may carry a `#` comment, a value quotes; white space
//! does not count. Everything that is wrong is said at once, with line, key, value and what is allowed; nothing is applied then.
//!
//! | key | value | |
//! |---|---|---|
//! | `budget` | a size, or `none` | what the program may hold |
//! | `reserve` | a size | beyond it, before the kernel acts |
//! | `kernel-allowance` | a size | half of a `reserve` that is given, unless said |
//! | `elevated`, `high`, `critical` | `80 %` or `0.8` | enter marks, of the budget |
//! | `elevated-leave`, `high-leave`, `critical-leave` | the same | 5 points below a mark that is given, unless said |
//! | `fill` | the same | up to where stores may fill the budget |
//! | `elevated-sustain`, `high-sustain`, `critical-sustain` | a duration | how long above, before it is entered |
//! | `dwell` | a duration | how long below, before it is left |
//! | `poll-interval`, `min-interval` | a duration | longest and shortest sleep |
//! | `fastest-fill` | a size | a second |
//! | `blind` | `hold`, or `LEVEL after DURATION` | what holds while nothing can be read |

use std::fmt;
use std::time::Duration;

use super::{BlindPolicy, Policy, PolicyErrors, WAIT_MAX, index};
use crate::level::Level;
use crate::units::{duration, parse_duration, parse_size, size};

/// The longest policy file: 64 KiB.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// The distance of a leave mark that follows its enter mark: 5 points.
const LEAVE_BELOW: f64 = 0.05;

/// All keys, in the order in which they are shown.
pub const KEYS: [&str; 18] = [
    "budget",
    "reserve",
    "kernel-allowance",
    "elevated",
    "high",
    "critical",
    "elevated-leave",
    "high-leave",
    "critical-leave",
    "fill",
    "elevated-sustain",
    "high-sustain",
    "critical-sustain",
    "dwell",
    "poll-interval",
    "min-interval",
    "fastest-fill",
    "blind",
];

/// One line of a policy's text that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError {
    /// Its number, from 1; `None`: the value comes from several lines, or from the policy underneath.
    pub line: Option<usize>,
    /// The key, as written.
    pub key: String,
    /// The value, as written.
    pub value: String,
    /// What may stand there.
    pub allowed: String,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        match self.value.as_str() {
            "" => write!(f, "{}: {}", self.key, self.allowed),
            value => write!(f, "{} is {value}: allowed is {}", self.key, self.allowed),
        }
    }
}

/// Everything that is wrong with a policy's text; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextErrors(pub Vec<TextError>);

impl fmt::Display for TextErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if n > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for TextErrors {}

/// What differs from a policy underneath.
///
/// # Examples
/// ```
/// use plimsoll::policy::{Overrides, Policy};
///
/// let overrides = Overrides::parse("high = 80 %   # earlier\ndwell = 10s\n").unwrap();
/// let policy = overrides.apply(&Policy::new(300 << 20, 100 << 20)).unwrap();
/// assert_eq!((policy.enter_ratio[1], policy.leave_ratio[1]), (0.8, 0.75));
///
/// let wrong = Overrides::parse("high = 120 %\nhihg = 80 %\nbudget = 300\n").unwrap_err();
/// assert_eq!(wrong.0.len(), 3);
/// assert!(wrong.to_string().contains("line 3: budget is 300"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    set: Vec<(usize, Set)>,
}

/// One value that is set.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Set {
    Budget(Option<u64>),
    Reserve(u64),
    Allowance(u64),
    Enter(usize, f64),
    Leave(usize, f64),
    Fill(f64),
    Sustain(usize, Duration),
    Dwell(Duration),
    Poll(Duration),
    Least(Duration),
    FastestFill(u64),
    Blind(BlindPolicy),
}

impl Set {
    /// Its place among [`KEYS`], as the key.
    fn key(&self) -> &'static str {
        let place = match self {
            Set::Budget(_) => 0,
            Set::Reserve(_) => 1,
            Set::Allowance(_) => 2,
            Set::Enter(i, _) => 3 + i,
            Set::Leave(i, _) => 6 + i,
            Set::Fill(_) => 9,
            Set::Sustain(i, _) => 10 + i,
            Set::Dwell(_) => 13,
            Set::Poll(_) => 14,
            Set::Least(_) => 15,
            Set::FastestFill(_) => 16,
            Set::Blind(_) => 17,
        };
        KEYS[place]
    }
}

impl Overrides {
    /// Reads a policy's text.
    ///
    /// # Errors
    /// Each line that cannot be read: no `=`, an unknown key, one that stands there twice, a value of the wrong kind or outside its range.
    pub fn parse(text: &str) -> Result<Overrides, TextErrors> {
        let mut overrides = Overrides::default();
        let mut wrong = Vec::new();
        if text.len() > TEXT_BYTES_MAX {
            let allowed = format!("at most {}", size(TEXT_BYTES_MAX as u64));
            let value = size(text.len() as u64).to_string();
            return Err(TextErrors(vec![TextError { line: None, key: "length".into(), value, allowed }]));
        }
        let mut seen = [0; KEYS.len()];
        for (line, content) in (1..).zip(text.lines()) {
            let content = content.split('#').next().unwrap_or_default().trim();
            if content.is_empty() {
                continue;
            }
            let mut fault = |key: &str, value: &str, allowed: String| {
                let (key, value) = (shown(key), shown(value));
                wrong.push(TextError { line: Some(line), key, value, allowed });
            };
            let Some((key, value)) = content.split_once('=') else {
                fault(content, "", "expected key = value".into());
                continue;
            };
            let (key, value) = (key.trim(), value.trim().trim_matches('"').trim());
            let Some(place) = KEYS.iter().position(|known| *known == key) else {
                fault(key, "", format!("unknown key: expected one of {}", KEYS.join(", ")));
                continue;
            };
            if seen[place] > 0 {
                fault(key, value, format!("once; line {} sets it too", seen[place]));
                continue;
            }
            seen[place] = line;
            match read(key, value) {
                Ok(set) => overrides.set.push((line, set)),
                Err(allowed) => fault(key, value, allowed),
            }
        }
        if wrong.is_empty() { Ok(overrides) } else { Err(TextErrors(wrong)) }
    }

    /// Sets one value, as a line of a text would.
    ///
    /// # Errors
    /// An unknown key or a value that cannot be read: what is allowed.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let known = KEYS.contains(&key);
        let set = if known { read(key, value)? } else { return Err(format!("unknown key {key:?}")) };
        self.set.push((0, set));
        Ok(())
    }

    /// What is set here, and then what `other` sets: that wins.
    #[must_use]
    pub fn then(mut self, other: Overrides) -> Overrides {
        self.set.retain(|(_, set)| other.set.iter().all(|(_, later)| later.key() != set.key()));
        self.set.extend(other.set);
        self
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Where among what is set a key stands.
    #[cfg(any(test, feature = "testkit"))]
    pub(crate) fn place_of(&self, key: &str) -> Option<usize> {
        self.set.iter().position(|(_, set)| set.key() == key)
    }

    /// The budget that is set, if one is.
    pub fn budget_bytes(&self) -> Option<u64> {
        self.set.iter().find_map(|(_, set)| if let Set::Budget(bytes) = set { *bytes } else { None })
    }

    /// The reserve that is set, if one is.
    pub fn reserve_bytes(&self) -> Option<u64> {
        self.set.iter().find_map(|(_, set)| if let Set::Reserve(bytes) = set { Some(*bytes) } else { None })
    }

    /// The policy underneath with what is set.
    ///
    /// # Errors
    /// The result is not [valid](Policy::validate).
    pub fn apply(&self, to: &Policy) -> Result<Policy, TextErrors> {
        let mut policy = *to;
        // What follows another value is set first, what is said itself last.
        for (_, set) in &self.set {
            match *set {
                Set::Reserve(bytes) => policy.kernel_allowance_bytes = bytes / 2,
                Set::Enter(i, ratio) => policy.leave_ratio[i] = tidy(ratio - LEAVE_BELOW),
                _ => {}
            }
        }
        for (_, set) in &self.set {
            match *set {
                Set::Budget(bytes) => policy.budget_bytes = bytes,
                Set::Reserve(bytes) => policy.reserve_bytes = bytes,
                Set::Allowance(bytes) => policy.kernel_allowance_bytes = bytes,
                Set::Enter(i, ratio) => policy.enter_ratio[i] = ratio,
                Set::Leave(i, ratio) => policy.leave_ratio[i] = ratio,
                Set::Fill(ratio) => policy.fill_ratio = ratio,
                Set::Sustain(i, time) => policy.sustain[i] = time,
                Set::Dwell(time) => policy.dwell = time,
                Set::Poll(time) => policy.poll_interval = time,
                Set::Least(time) => policy.min_interval = time,
                Set::FastestFill(bytes) => policy.fill_bytes_per_second = bytes,
                Set::Blind(blind) => policy.blind = blind,
            }
        }
        policy.validate().map_err(|PolicyErrors(errors)| {
            let told = errors.into_iter().map(|error| TextError {
                line: self.line_of(error.field),
                key: keys_of(error.field).to_owned(),
                value: error.value,
                allowed: error.allowed,
            });
            TextErrors(told.collect())
        })?;
        Ok(policy)
    }

    /// The line that sets a field of the policy, if only one does.
    fn line_of(&self, field: &str) -> Option<usize> {
        let belongs = |set: &Set| keys_of(field).split(", ").any(|key| key == set.key());
        let mut lines = self.set.iter().filter(|(_, set)| belongs(set)).map(|(line, _)| *line);
        lines.next().filter(|line| lines.next().is_none() && *line > 0)
    }
}

/// The values of a policy under [`KEYS`], as a person reads them.
pub fn shown_values(policy: &Policy) -> [(&'static str, String); KEYS.len()] {
    let ratio = |ratio: f64| format!("{} %", tidy(ratio * 100.0));
    let time = |time: Duration| duration(time).to_string();
    let values = [
        policy.budget_bytes.map_or_else(|| "none".to_owned(), |bytes| size(bytes).to_string()),
        size(policy.reserve_bytes).to_string(),
        size(policy.kernel_allowance_bytes).to_string(),
        ratio(policy.enter_ratio[0]),
        ratio(policy.enter_ratio[1]),
        ratio(policy.enter_ratio[2]),
        ratio(policy.leave_ratio[0]),
        ratio(policy.leave_ratio[1]),
        ratio(policy.leave_ratio[2]),
        ratio(policy.fill_ratio),
        time(policy.sustain[0]),
        time(policy.sustain[1]),
        time(policy.sustain[2]),
        time(policy.dwell),
        time(policy.poll_interval),
        time(policy.min_interval),
        format!("{}/s", size(policy.fill_bytes_per_second)),
        match policy.blind {
            BlindPolicy::Hold => "hold".to_owned(),
            BlindPolicy::Assume { after, level } => format!("{level} after {}", duration(after)),
        },
    ];
    let mut all = values.into_iter();
    KEYS.map(|key| (key, all.next().unwrap_or_default()))
}

/// Writes a policy as `key=value` pairs, each after a space, so exact that reading them gives the same policy. Allocates nothing.
pub(crate) fn write_exact(policy: &Policy, f: &mut impl fmt::Write) -> fmt::Result {
    match policy.budget_bytes {
        Some(bytes) => write!(f, " budget={bytes}B")?,
        None => write!(f, " budget=none")?,
    }
    write!(f, " reserve={}B kernel-allowance={}B", policy.reserve_bytes, policy.kernel_allowance_bytes)?;
    for (i, level) in [Level::Elevated, Level::High, Level::Critical].into_iter().enumerate() {
        let (enter, leave) = (policy.enter_ratio[i], policy.leave_ratio[i]);
        let sustain = policy.sustain[i].as_nanos();
        write!(f, " {level}={enter} {level}-leave={leave} {level}-sustain={sustain}ns")?;
    }
    let (dwell, poll, least) = (policy.dwell, policy.poll_interval, policy.min_interval);
    write!(f, " fill={} dwell={}ns poll-interval={}ns", policy.fill_ratio, dwell.as_nanos(), poll.as_nanos())?;
    write!(f, " min-interval={}ns fastest-fill={}B", least.as_nanos(), policy.fill_bytes_per_second)?;
    match policy.blind {
        BlindPolicy::Hold => write!(f, " blind=hold"),
        BlindPolicy::Assume { after, level } => write!(f, " blind={level}-after-{}ns", after.as_nanos()),
    }
}

/// Reads the value of a known key; the error says what is allowed.
fn read(key: &str, value: &str) -> Result<Set, String> {
    let bytes = || parse_size(value.strip_suffix("/s").unwrap_or(value)).map_err(|e| format!("a size like 300M ({e})"));
    let time = || match parse_duration(value) {
        Ok(time) if time <= WAIT_MAX => Ok(time),
        Ok(_) => Err(format!("at most {}", duration(WAIT_MAX))),
        Err(error) => Err(format!("a duration like 30s ({error})")),
    };
    let level = key.split('-').next().and_then(|name| name.parse().ok()).and_then(index).unwrap_or(0);
    Ok(match key {
        "budget" if value == "none" => Set::Budget(None),
        "budget" => Set::Budget(Some(bytes()?)),
        "reserve" => Set::Reserve(bytes()?),
        "kernel-allowance" => Set::Allowance(bytes()?),
        "elevated" | "high" | "critical" => Set::Enter(level, ratio(value)?),
        "elevated-leave" | "high-leave" | "critical-leave" => Set::Leave(level, ratio(value)?),
        "elevated-sustain" | "high-sustain" | "critical-sustain" => Set::Sustain(level, time()?),
        "fill" => Set::Fill(ratio(value)?),
        "dwell" => Set::Dwell(time()?),
        "poll-interval" => Set::Poll(time()?),
        "min-interval" => Set::Least(time()?),
        "fastest-fill" => Set::FastestFill(bytes()?),
        _ => Set::Blind(blind(value)?),
    })
}

fn ratio(value: &str) -> Result<f64, String> {
    let allowed = "above 0 %, at most 100 %, such as 80 % or 0.8";
    let (number, scale) = match value.strip_suffix('%') {
        Some(percent) => (percent.trim_end(), 100.0),
        None => (value, 1.0),
    };
    let number: f64 = number.parse().map_err(|_| allowed.to_owned())?;
    let ratio = number / scale;
    if ratio > 0.0 && ratio <= 1.0 { Ok(ratio) } else { Err(allowed.to_owned()) }
}

fn blind(value: &str) -> Result<BlindPolicy, String> {
    let allowed = || "hold, or a level and a time such as high after 5s".to_owned();
    if value == "hold" {
        return Ok(BlindPolicy::Hold);
    }
    let parts = value.split_once(" after ").or_else(|| value.split_once("-after-"));
    let (level, after) = parts.ok_or_else(allowed)?;
    let level = level.trim().parse().map_err(|_| allowed())?;
    Ok(BlindPolicy::Assume { after: parse_duration(after).map_err(|_| allowed())?, level })
}

/// Without the last digits, which arithmetic in binary leaves: 0.75, not 0.7500000000000001.
fn tidy(value: f64) -> f64 {
    (value * 1e9).round() / 1e9
}

/// The keys behind a field of [`Policy`].
fn keys_of(field: &str) -> &str {
    match field {
        "budget_bytes" => "budget",
        "reserve_bytes" => "reserve",
        "kernel_allowance_bytes" => "kernel-allowance",
        "enter_ratio" => "elevated, high, critical",
        "leave_ratio" => "elevated-leave, high-leave, critical-leave",
        "fill_ratio" => "fill",
        "sustain" => "elevated-sustain, high-sustain, critical-sustain",
        "poll_interval" => "poll-interval",
        "min_interval" => "min-interval",
        "fill_bytes_per_second" => "fastest-fill",
        other => other,
    }
}

fn shown(text: &str) -> String {
    let cut: String = text.chars().take(64).collect();
    cut.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_and_shown_as_it_was_written() {
        let text = "budget = 300M\nreserve=100M\nkernel-allowance = 40M\nelevated = 70 %\nhigh = 0.8\ncritical = \"95%\"\n\
            elevated-leave = 60 %\nhigh-leave = 70 %\ncritical-leave = 75 %\nfill = 90 %\nelevated-sustain = 1s\n\
            high-sustain = 2s\ncritical-sustain = 0\ndwell = 10s\npoll-interval = 500ms\nmin-interval = 2ms\n\
            fastest-fill = 1G/s\nblind = high after 5s\n";
        let policy = Overrides::parse(text).unwrap().apply(&Policy::observe()).unwrap();
        let shown = shown_values(&policy).map(|(key, value)| format!("{key} = {value}\n")).concat();
        let again = Overrides::parse(&shown).unwrap().apply(&Policy::observe()).unwrap();
        assert_eq!(again, policy, "{shown}");
        let mut exact = String::new();
        write_exact(&policy, &mut exact).unwrap();
        let lines = exact.trim().replace(' ', "\n");
        assert_eq!(Overrides::parse(&lines).unwrap().apply(&Policy::observe()).unwrap(), policy, "{exact}");
    }

    #[test]
    fn what_is_not_set_stays_and_leave_marks_and_allowance_follow() {
        let base = Policy { dwell: Duration::from_secs(9), ..Policy::new(300 << 20, 100 << 20) };
        assert_eq!(Overrides::parse("# nothing\n\n").unwrap().apply(&base), Ok(base));
        let policy = Overrides::parse("reserve = 50M\nhigh = 80 %").unwrap().apply(&base).unwrap();
        assert_eq!((policy.kernel_allowance_bytes, policy.leave_ratio), (25 << 20, [0.7, 0.75, 0.95]));
        assert_eq!(policy.dwell, base.dwell);
    }

    #[test]
    fn everything_wrong_is_said_at_once_with_line_key_value_and_what_is_allowed() {
        let text =
            "high = 120 %\nhihg = 80 %\nbudget = 300\njust words\ndwell = 48h\nblind = maybe\nfill = 1\nfill = 1\n";
        let errors = Overrides::parse(text).unwrap_err().0;
        let told: Vec<_> = errors.iter().map(|e| (e.line, e.key.as_str(), e.value.as_str())).collect();
        let expected = [
            (Some(1), "high", "120 %"),
            (Some(2), "hihg", ""),
            (Some(3), "budget", "300"),
            (Some(4), "just words", ""),
            (Some(5), "dwell", "48h"),
            (Some(6), "blind", "maybe"),
            (Some(8), "fill", "1"),
        ];
        assert_eq!(told, expected);
        assert!(errors[0].allowed.contains("at most 100 %"), "{}", errors[0]);
        // Each line is fine, the whole is not.
        let crossed = Overrides::parse("elevated = 90 %\nmin-interval = 2s").unwrap();
        let errors = crossed.apply(&Policy::new(300 << 20, 0)).unwrap_err();
        assert_eq!(errors.0.iter().map(|e| e.line).collect::<Vec<_>>(), [Some(1), None, Some(2)], "{errors}");
        assert!(Overrides::parse(&"#".repeat(TEXT_BYTES_MAX + 1)).is_err());
    }
}
