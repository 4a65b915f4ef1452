//! The figures of one program over days: a line a minute (about 80 bytes, 115 KB a day) in `DIR/NAME/history.log`, at most two files
//! of [`FILE_BYTES_MAX`] (1 MiB), so a week and more. Written by a thread of its own (`keeper`) with one `write` a line; a kill leaves at most
//! a torn last line, which is not read. A disk that refuses is counted, and the line is lost.
//!
//! ```text
//! plimsoll-history 1
//! 1795253400 4711 271056896 262144000 31 12 8 4 7 0 0 0 9 -
//! ```
//! Seconds since 1970, the life (start of the program, Unix seconds), bytes charged and anonymous, descriptors in all and by the
//! seven kinds, threads, live bytes. `-` is what could not be read. Lines of other lengths are not read, so fields can be added.

pub(crate) mod judge;
pub(crate) mod keeper;

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The most that one of the two files holds, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;
/// Time between two lines.
pub(crate) const EVERY: Duration = Duration::from_secs(60);
/// Lines that are looked at; of more, evenly some.
pub(crate) const RECORDS_MAX: usize = 2_048;
const HEAD: &str = "plimsoll-history 1";
/// The longest line that is read.
const LINE_BYTES_MAX: usize = 512;
/// Figures in a line behind time and life.
pub(crate) const FIGURES: usize = 12;
/// What the figures are called, in the order of the line.
pub(crate) const NAMES: [&str; FIGURES] = [
    "memory",
    "anonymous",
    "fds",
    "fds file",
    "fds socket",
    "fds pipe",
    "fds anon_inode",
    "fds proc",
    "fds device",
    "fds other",
    "threads",
    "live",
];

/// One line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) unix_seconds: u64,
    /// When this life of the program began, Unix seconds.
    pub(crate) life: u64,
    /// In the order of [`NAMES`].
    pub(crate) figures: [Option<u64>; FIGURES],
}

impl Record {
    fn line(&self) -> String {
        let mut line = format!("{} {}", self.unix_seconds, self.life);
        for figure in self.figures {
            line.push(' ');
            line.push_str(&figure.map_or_else(|| "-".to_owned(), |figure| figure.to_string()));
        }
        line.push('\n');
        line
    }

    /// `None` for what is no line of this version.
    fn parse(line: &str) -> Option<Record> {
        let mut words = line.split(' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let (unix_seconds, life) = (number()?, number()?);
        let mut figures = [None; FIGURES];
        for figure in &mut figures {
            *figure = match words.next()? {
                "-" => None,
                word => Some(word.parse().ok()?),
            };
        }
        Some(Record { unix_seconds, life, figures })
    }
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct History {
    path: PathBuf,
    file: Option<File>,
    written_bytes: u64,
    /// Lines that the disk refused.
    pub(crate) unwritten_total: u64,
}

impl History {
    /// Continues the file at `path`; nothing is opened before the first line.
    pub(crate) fn new(path: PathBuf) -> History {
        History { path, file: None, written_bytes: 0, unwritten_total: 0 }
    }

    /// Adds a line.
    pub(crate) fn add(&mut self, record: &Record) {
        if self.write(record).is_err() {
            self.file = None;
            self.unwritten_total += 1;
        }
    }

    fn write(&mut self, record: &Record) -> std::io::Result<()> {
        let line = record.line();
        if self.file.is_none() {
            self.open()?;
        }
        if self.written_bytes + line.len() as u64 > FILE_BYTES_MAX {
            std::fs::rename(&self.path, older(&self.path))?;
            self.open()?;
        }
        if let Some(file) = &mut self.file {
            file.write_all(line.as_bytes())?;
            self.written_bytes += line.len() as u64;
        }
        Ok(())
    }

    fn open(&mut self) -> std::io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        self.written_bytes = file.metadata()?.len();
        // An end of line first: a line that a kill tore stays alone.
        let begin = if self.written_bytes == 0 { format!("{HEAD}\n") } else { "\n".to_owned() };
        file.write_all(begin.as_bytes())?;
        self.written_bytes += begin.len() as u64;
        self.file = Some(file);
        Ok(())
    }
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// What both files tell, oldest first; at most [`RECORDS_MAX`], evenly chosen. What is not there or of another version is empty.
pub(crate) fn load(path: &Path) -> Vec<Record> {
    let mut records = Vec::new();
    // A line has 60 bytes or more: about so many are there.
    let length = |path: &Path| path.metadata().map_or(0, |m| m.len());
    let some = (length(path) + length(&older(path))) / 60;
    let every = (some as usize).div_ceil(RECORDS_MAX).max(1);
    let mut seen = 0;
    for path in [older(path), path.to_owned()] {
        let Ok(file) = File::open(&path) else { continue };
        let mut lines = BufReader::new(file.take(2 * FILE_BYTES_MAX));
        let mut line = String::new();
        let mut is_first = true;
        while let Ok(1..) = (&mut lines).take(LINE_BYTES_MAX as u64).read_line(&mut line) {
            // What ends without an end of line is torn.
            let whole = line.strip_suffix('\n');
            if is_first && whole != Some(HEAD) {
                break;
            }
            is_first = false;
            if let Some(record) = whole.and_then(Record::parse) {
                if seen % every == 0 {
                    records.push(record);
                }
                seen += 1;
            }
            line.clear();
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at: u64) -> Record {
        let mut figures = [Some(at * 10); FIGURES];
        figures[11] = None;
        Record { unix_seconds: at, life: 7, figures }
    }

    #[test]
    fn what_is_written_is_read_and_a_torn_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.log");
        let mut history = History::new(path.clone());
        (1..=3).for_each(|at| history.add(&record(at)));
        // Killed inside a write.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"4 7 40 4").unwrap();
        assert_eq!(load(&path), [record(1), record(2), record(3)]);
        let mut next = History::new(path.clone());
        next.add(&record(5));
        assert_eq!(load(&path), [record(1), record(2), record(3), record(5)]);
        assert_eq!(next.unwritten_total, 0);
    }

    #[test]
    fn two_files_bound_it_and_evenly_some_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.log");
        let mut history = History::new(path.clone());
        let big = |at| Record { unix_seconds: at, life: u64::MAX, figures: [Some(u64::MAX); FIGURES] };
        (1..=12_000).for_each(|at| history.add(&big(at)));
        for file in [path.clone(), older(&path)] {
            assert!(file.metadata().unwrap().len() <= FILE_BYTES_MAX);
        }
        let records = load(&path);
        assert!((RECORDS_MAX / 6..=RECORDS_MAX).contains(&records.len()), "{}", records.len());
        assert!(records.is_sorted_by_key(|r| r.unix_seconds) && records.last().unwrap().unix_seconds > 11_900);
    }

    #[test]
    fn what_is_of_another_version_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.log");
        assert_eq!(load(&path), []);
        std::fs::write(&path, "plimsoll-history 2\n1 2 3 4 5 6 7 8 9 10 11 12 13 14\n").unwrap();
        assert_eq!(load(&path), []);
        // A directory in its place: refused, counted.
        let taken = dir.path().join("taken.log");
        std::fs::create_dir(&taken).unwrap();
        let mut history = History::new(taken);
        history.add(&record(1));
        assert_eq!(history.unwritten_total, 1);
    }
}
