//! Pressure stall information (PSI): the part of the time that tasks waited for memory. 0.6–2 µs a reading, kept open.
//!
//! `/proc/pressure/memory` tells of the whole machine, a v2 group's `memory.pressure` of the group (also on a hybrid
//! machine, where the memory controller itself is on v1). v1 groups have none. Shown and used to wake, never to decide.

use std::path::Path;
use std::time::Duration;

use super::files::{self, KeptFile};
use super::{Root, Unread};

const WHAT: &str = "memory pressure";

/// The part of the time stalled over three windows, and the sum since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Over the last 10 s, 0..=1.
    pub avg10_ratio: f64,
    /// Over the last 60 s, 0..=1.
    pub avg60_ratio: f64,
    /// Over the last 300 s, 0..=1.
    pub avg300_ratio: f64,
    /// All time stalled, exact to the microsecond: differences of it give any window.
    pub total: Duration,
}

/// One reading of memory pressure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// At least one task waited.
    pub some: Stall,
    /// All tasks that could have run waited. `None` where the kernel does not tell.
    pub full: Option<Stall>,
}

/// Reads one pressure file again and again; one descriptor.
#[derive(Debug)]
pub struct PressureGauge(KeptFile);

impl PressureGauge {
    /// Opens a pressure file.
    ///
    /// # Errors
    /// `Missing` (no PSI in this kernel) or `Denied`.
    pub fn open(path: &Path) -> Result<PressureGauge, Unread> {
        KeptFile::open_path(path, WHAT).map(PressureGauge)
    }

    /// Opens the machine's memory pressure.
    ///
    /// # Errors
    /// As for [`PressureGauge::open`].
    pub fn host(root: &Root) -> Result<PressureGauge, Unread> {
        PressureGauge::open(&root.proc.join("pressure/memory"))
    }

    /// One reading; allocates nothing.
    ///
    /// # Errors
    /// `Missing` when the group is gone, `Failed` where PSI is disabled, `Malformed`.
    pub fn read(&self) -> Result<Pressure, Unread> {
        let mut buffer = [0; 256];
        parse(self.0.read(&mut buffer)?).ok_or(Unread::Malformed(WHAT))
    }
}

/// One reading of a pressure file, opened and closed.
///
/// # Errors
/// As for [`PressureGauge::open`] and [`PressureGauge::read`].
pub fn read(path: &Path) -> Result<Pressure, Unread> {
    PressureGauge::open(path)?.read()
}

fn parse(text: &[u8]) -> Option<Pressure> {
    let line = |name: &[u8]| files::lines(text).find_map(|line| line.strip_prefix(name));
    let full = match line(b"full ") {
        Some(rest) => Some(parse_stall(rest)?),
        None => None,
    };
    Some(Pressure { some: parse_stall(line(b"some ")?)?, full })
}

fn parse_stall(line: &[u8]) -> Option<Stall> {
    let mut fields = files::fields(line);
    let mut field = |name: &[u8]| fields.next()?.strip_prefix(name);
    Some(Stall {
        avg10_ratio: parse_percent(field(b"avg10=")?)?,
        avg60_ratio: parse_percent(field(b"avg60=")?)?,
        avg300_ratio: parse_percent(field(b"avg300=")?)?,
        total: Duration::from_micros(files::parse_u64(field(b"total=")?)?),
    })
}

/// `12.34` (a percentage) as a ratio.
fn parse_percent(text: &[u8]) -> Option<f64> {
    let percent: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_in_ratios_and_durations() {
        let text = b"some avg10=12.50 avg60=0.00 avg300=100.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let read = parse(text).unwrap();
        assert_eq!((read.some.avg10_ratio, read.some.avg300_ratio), (0.125, 1.0));
        assert_eq!(read.some.total, Duration::from_millis(1500));
        assert_eq!(read.full.unwrap().total, Duration::from_micros(7));
    }

    #[test]
    fn malformed_is_not_zero() {
        let whole = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(parse(whole.as_bytes()).unwrap().full, None);
        let table = [
            "",
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
            "some avg10=0.00\n",
            "some avg10=NaN avg60=0.00 avg300=0.00 total=1\n",
            "some avg10=-1 avg60=0 avg300=0 total=1\n",
        ];
        for text in table {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
