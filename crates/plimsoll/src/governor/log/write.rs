//! Records as lines: a buffer of fixed size, no allocation, 1–2 µs a line.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::{HEADER, Record};
use crate::gauge::Unread;
use crate::governor::{Decision, Reading};
use crate::policy::write_exact;

/// The longest line, its end included. The longest that a record can make is shorter.
pub const LINE_BYTES_MAX: usize = 1024;

/// Room for one line, used again and again.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use plimsoll::governor::log::{Line, Record};
///
/// let mut line = Line::new();
/// let start = Record::Start { at: Duration::from_millis(1_500), at_unix: Duration::from_secs(1_764_000_000) };
/// assert_eq!(line.encode(&start), b"start at=1.500000000 unix=1764000000.000000000\n");
/// ```
pub struct Line {
    bytes: [u8; LINE_BYTES_MAX],
    len: usize,
}

impl Line {
    /// An empty one.
    pub fn new() -> Line {
        Line { bytes: [0; LINE_BYTES_MAX], len: 0 }
    }

    /// The first line of each file.
    pub fn header(&mut self) -> &[u8] {
        self.written(|line| writeln!(line, "{HEADER}"))
    }

    /// A record as a line, its end included.
    pub fn encode(&mut self, record: &Record) -> &[u8] {
        self.written(|line| match record {
            Record::Start { at, at_unix } => writeln!(line, "start at={} unix={}", Seconds(*at), Seconds(*at_unix)),
            Record::Policy { at, policy } => {
                write!(line, "policy at={}", Seconds(*at))?;
                write_exact(policy, line)?;
                line.write_char('\n')
            }
            Record::Sample { reading, decision } => {
                line.reading(reading)?;
                line.decision(decision)?;
                line.write_char('\n')
            }
            Record::Gap { samples } => writeln!(line, "gap samples={samples}"),
        })
    }

    fn written(&mut self, write: impl FnOnce(&mut Line) -> fmt::Result) -> &[u8] {
        self.len = 0;
        if write(self).is_err() {
            // Longer than the longest can be: a line that says so is better than half of one.
            self.len = 0;
            let said = self.write_str("gap samples=1\n");
            debug_assert!(said.is_ok(), "there is room for that");
        }
        &self.bytes[..self.len]
    }

    fn reading(&mut self, reading: &Reading) -> fmt::Result {
        write!(self, "sample at={}", Seconds(reading.at))?;
        self.option("fast", reading.fast_bytes)?;
        match &reading.confirmed {
            Some(Ok(protected)) => {
                write!(self, " program={}", protected.program_bytes)?;
                self.option("kernel", protected.kernel_bytes)?;
            }
            Some(Err(unread)) => write!(self, " unread={}", kind(*unread))?,
            None => {}
        }
        self.option("guard", reading.guard_bytes)?;
        if let Some(supply) = reading.supply {
            write!(self, " held={} claimed={}", supply.held_bytes, supply.claimed_bytes_total)?;
            write!(self, " withdrawn={} floor={}", supply.withdrawn_bytes_total, supply.floor_bytes)?;
        }
        Ok(())
    }

    fn decision(&mut self, decision: &Decision) -> fmt::Result {
        write!(self, " -> level={}", decision.level)?;
        if decision.previous != decision.level {
            write!(self, " was={}", decision.previous)?;
        }
        write!(self, " cause={}", decision.cause.as_str())?;
        self.option("charged", decision.charged_bytes)?;
        if let Some(growth) = decision.growth {
            write!(self, " growth={} confidence={}", Real(growth.bytes_per_second), Real(growth.confidence))?;
        }
        if let Some(time) = decision.time_to_limit {
            write!(self, " limit-in={}", Seconds(time))?;
        }
        write!(self, " sleep={}", Seconds(decision.sleep))?;
        if decision.blind {
            self.write_str(" blind=yes")?;
        }
        let Some(want) = decision.want else { return Ok(()) };
        write!(self, " evict={} ordered={}", want.evict_bytes, want.ordered_bytes_total)?;
        write!(self, " hold={} in-flight={}", want.hold_bytes, want.in_flight_bytes)?;
        write!(self, " base={} spread={}", want.base_bytes, want.spread_bytes)?;
        write!(self, " delay={} lag={}", Seconds(want.delay), Seconds(want.lag))?;
        write!(self, " effect={}", want.effect.as_str())?;
        if want.purge {
            self.write_str(" purge=yes")?;
        }
        if want.stuck {
            self.write_str(" stuck=yes")?;
        }
        Ok(())
    }

    fn option(&mut self, key: &str, value: Option<u64>) -> fmt::Result {
        match value {
            Some(value) => write!(self, " {key}={value}"),
            None => Ok(()),
        }
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

impl Default for Line {
    fn default() -> Line {
        Line::new()
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.bytes[..self.len]))
    }
}

/// A duration in seconds with all its nanoseconds.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0.as_secs(), self.0.subsec_nanos())
    }
}

/// A number with as few digits as tell it from every other; with an exponent where it would be long without.
struct Real(f64);

impl fmt::Display for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        if size == 0.0 || (1e-4..1e15).contains(&size) { write!(f, "{}", self.0) } else { write!(f, "{:e}", self.0) }
    }
}

fn kind(unread: Unread) -> &'static str {
    match unread {
        Unread::Missing(_) => "missing",
        Unread::Denied(_) => "denied",
        Unread::Malformed(_) => "malformed",
        Unread::Failed(..) => "failed",
    }
}
