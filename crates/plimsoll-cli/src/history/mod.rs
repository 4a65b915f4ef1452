//! The figures of one program over days: a line a minute (about 80 bytes, 115 KB a day; 330 KB where all [`named::NAMED_MAX`] names
//! are told) in `DIR/NAME/history.log`, at most two files of [`FILE_BYTES_MAX`] (2 MiB), so six days and more. Written by a thread of its own (`keeper`) with one `write` a line; a kill leaves at most
//! a torn last line, which is not read. A disk that refuses is counted, and the line is lost.
//!
//! ```text
//! plimsoll-history 1
//! = queue%20orders account%20cache
//! 1795253400 4711 271056896 262144000 31 12 8 4 7 0 0 0 9 - 8192 1048576
//! ```
//! Seconds since 1970, the life (start of the program, Unix seconds), bytes charged and anonymous, descriptors in all and by the
//! seven kinds, threads, live bytes. `-` is what could not be read. Behind them bytes of what the last line with `=` names; it is
//! written when the names change, and first in each file and after each start. Lines with fewer figures are not read; more are
//! passed over, so figures can be added.

pub(crate) mod judge;
pub(crate) mod keeper;
pub(crate) mod named;

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use named::{NAMED_MAX, Named};

/// The most that one of the two files holds, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 2 << 20;
/// Time between two lines.
pub(crate) const EVERY: Duration = Duration::from_secs(60);
/// Lines that are looked at; of more, evenly some.
pub(crate) const RECORDS_MAX: usize = 2_048;
const HEAD: &str = "plimsoll-history 1";
/// The longest line that is read.
const LINE_BYTES_MAX: usize = 4_096;
/// How a line begins that names what stands behind the figures.
const NAMES_MARK: &str = "= ";
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
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) unix_seconds: u64,
    /// When this life of the program began, Unix seconds.
    pub(crate) life: u64,
    /// In the order of [`NAMES`].
    pub(crate) figures: [Option<u64>; FIGURES],
    /// Bytes by name, at most [`NAMED_MAX`].
    pub(crate) named: Named,
}

impl Record {
    fn line(&self) -> String {
        let mut line = format!("{} {}", self.unix_seconds, self.life);
        for figure in self.figures {
            line.push(' ');
            line.push_str(&figure.map_or_else(|| "-".to_owned(), |figure| figure.to_string()));
        }
        self.named.iter().for_each(|(_, bytes)| line.push_str(&format!(" {bytes}")));
        line.push('\n');
        line
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.named.iter().map(|(name, _)| Arc::clone(name)).collect()
    }

    /// `None` for what is no line of this version. `names` are those of the last line of names.
    fn parse(line: &str, names: &[Arc<str>]) -> Option<Record> {
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
        let bytes = |word: &str| word.parse().ok();
        let named = names.iter().zip(words).filter_map(|(name, word)| Some((Arc::clone(name), bytes(word)?)));
        Some(Record { unix_seconds, life, figures, named: named.collect() })
    }
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct History {
    path: PathBuf,
    file: Option<File>,
    written_bytes: u64,
    /// What the last line of names in this file says.
    names: Vec<Arc<str>>,
    /// Lines that the disk refused.
    pub(crate) unwritten_total: u64,
}

impl History {
    /// Continues the file at `path`; nothing is opened before the first line.
    pub(crate) fn new(path: PathBuf) -> History {
        History { path, file: None, written_bytes: 0, names: Vec::new(), unwritten_total: 0 }
    }

    /// Adds a line.
    pub(crate) fn add(&mut self, record: &Record) {
        if self.write(record).is_err() {
            self.file = None;
            self.unwritten_total += 1;
        }
    }

    fn write(&mut self, record: &Record) -> std::io::Result<()> {
        let names = record.names();
        let words: Vec<String> = names.iter().map(|name| named::word(name)).collect();
        let heading = format!("{NAMES_MARK}{}\n", words.join(" "));
        let mut line = record.line();
        if self.file.is_none() {
            self.open()?;
        }
        if self.written_bytes + (heading.len() + line.len()) as u64 > FILE_BYTES_MAX {
            std::fs::rename(&self.path, older(&self.path))?;
            self.open()?;
        }
        if names != self.names {
            line.insert_str(0, &heading);
        }
        if let Some(file) = &mut self.file {
            file.write_all(line.as_bytes())?;
            self.written_bytes += line.len() as u64;
            self.names = names;
        }
        Ok(())
    }

    fn open(&mut self) -> std::io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        self.written_bytes = file.metadata()?.len();
        // An end of line first: a line that a kill tore stays alone.
        let begin = if self.written_bytes == 0 { format!("{HEAD}\n") } else { format!("\n{NAMES_MARK}\n") };
        file.write_all(begin.as_bytes())?;
        self.written_bytes += begin.len() as u64;
        // Who reads from here on knows of none.
        self.names = Vec::new();
        self.file = Some(file);
        Ok(())
    }
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// What both files tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loaded {
    /// Oldest first; at most [`RECORDS_MAX`], evenly chosen.
    pub(crate) records: Vec<Record>,
    /// Lines that could not be read, those that a kill tore among them.
    pub(crate) unread: u64,
}

/// What both files tell. What is not there or of another version is empty; a line that cannot be read is passed over and counted.
pub(crate) fn load(path: &Path) -> Loaded {
    let mut loaded = Loaded::default();
    let files = [older(path), path.to_owned()];
    let every = files.iter().map(|path| lines(path)).sum::<usize>().div_ceil(RECORDS_MAX).max(1);
    let mut seen = 0;
    for path in files {
        let mut names: Vec<Arc<str>> = Vec::new();
        let Ok(file) = File::open(&path) else { continue };
        let mut lines = BufReader::new(file.take(2 * FILE_BYTES_MAX));
        let mut line = Vec::new();
        let mut is_first = true;
        while let Ok(1..) = (&mut lines).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line);
            // What ends without an end of line is torn.
            let whole = text.strip_suffix('\n');
            if is_first && whole != Some(HEAD) {
                break;
            }
            if let Some(told) = whole.and_then(|line| line.strip_prefix(NAMES_MARK)) {
                names = told.split(' ').filter(|word| !word.is_empty()).take(NAMED_MAX).map(named::name).collect();
            } else if let Some(record) = whole.and_then(|line| Record::parse(line, &names)) {
                if seen % every == 0 {
                    loaded.records.push(record);
                }
                seen += 1;
            } else if !is_first && whole != Some("") {
                loaded.unread += 1;
            }
            is_first = false;
            line.clear();
        }
    }
    loaded
}

/// Lines of a file, by their ends.
fn lines(path: &Path) -> usize {
    let Ok(file) = File::open(path) else { return 0 };
    let mut file = file.take(2 * FILE_BYTES_MAX);
    let (mut buffer, mut lines) = (vec![0; 64 << 10], 0);
    while let Ok(length @ 1..) = file.read(&mut buffer) {
        lines += buffer[..length].iter().filter(|byte| **byte == b'\n').count();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at: u64) -> Record {
        let mut figures = [Some(at * 10); FIGURES];
        figures[11] = None;
        Record { unix_seconds: at, life: 7, figures, named: Vec::new() }
    }

    #[test]
    fn what_is_written_is_read_and_a_torn_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.log");
        let mut history = History::new(path.clone());
        (1..=3).for_each(|at| history.add(&record(at)));
        // Killed inside a write.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"4 7 40 4").unwrap();
        assert_eq!(load(&path).records, [record(1), record(2), record(3)]);
        let mut next = History::new(path.clone());
        next.add(&record(5));
        assert_eq!(load(&path).records, [record(1), record(2), record(3), record(5)]);
        assert_eq!(next.unwritten_total, 0);
    }

    #[test]
    fn two_files_bound_it_and_evenly_some_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.log");
        let mut history = History::new(path.clone());
        let big =
            |at| Record { unix_seconds: at, life: u64::MAX, figures: [Some(u64::MAX); FIGURES], named: Vec::new() };
        (1..=24_000).for_each(|at| history.add(&big(at)));
        for file in [path.clone(), older(&path)] {
            assert!(file.metadata().unwrap().len() <= FILE_BYTES_MAX);
        }
        let records = load(&path).records;
        assert!((RECORDS_MAX / 2..=RECORDS_MAX).contains(&records.len()), "{}", records.len());
        assert!(records.is_sorted_by_key(|r| r.unix_seconds) && records.last().unwrap().unix_seconds > 23_900);
    }

    #[test]
    fn names_are_told_when_they_change_and_in_each_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.log");
        let with = |at, named: &[(&str, u64)]| {
            let named = named.iter().map(|(name, bytes)| ((*name).into(), *bytes)).collect();
            Record { named, ..record(at) }
        };
        let told = [
            with(1, &[]),
            with(2, &[("queue orders", 5), ("account 1 %", 6)]),
            with(3, &[("queue orders", 7), ("account 1 %", 8)]),
            with(4, &[("store é", 9)]),
            with(5, &[]),
            with(6, &[("store é", 9)]),
        ];
        let mut history = History::new(path.clone());
        told[..3].iter().for_each(|record| history.add(record));
        // Another supervisor goes on, after a line that a kill tore.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"4 7 40 4").unwrap();
        let mut next = History::new(path.clone());
        told[3..].iter().for_each(|record| next.add(record));
        assert_eq!(load(&path).records, told);
        let mut text = String::new();
        File::open(&path).unwrap().take(FILE_BYTES_MAX).read_to_string(&mut text).unwrap();
        assert_eq!(text.matches("= queue%20orders account%201%20%25\n").count(), 1, "{text}");
        // The names stand at the beginning of the next file, too.
        let long = (10..40_000).map(|at| with(at, &[("queue orders", at)]));
        long.for_each(|record| next.add(&record));
        assert!(
            load(&path)
                .records
                .iter()
                .all(|record| record.unix_seconds < 10 || record.named[0].1 == record.unix_seconds)
        );
    }

    #[test]
    fn a_line_that_cannot_be_read_is_passed_over_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.log");
        let mut history = History::new(path.clone());
        history.add(&record(1));
        // Not a number, then bytes that are no text, then a line longer than any.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"2 7 x\n\xff\xfe 3 7\n").unwrap();
        file.write_all(&[b'9'; LINE_BYTES_MAX - 1]).unwrap();
        file.write_all(b"\n").unwrap();
        history.add(&record(4));
        let loaded = load(&path);
        assert_eq!((loaded.records, loaded.unread), (vec![record(1), record(4)], 3));
    }

    #[test]
    fn what_is_of_another_version_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.log");
        assert_eq!(load(&path).records, []);
        std::fs::write(&path, "plimsoll-history 2\n1 2 3 4 5 6 7 8 9 10 11 12 13 14\n").unwrap();
        assert_eq!(load(&path).records, []);
        // A directory in its place: refused, counted.
        let taken = dir.path().join("taken.log");
        std::fs::create_dir(&taken).unwrap();
        let mut history = History::new(taken);
        history.add(&record(1));
        assert_eq!(history.unwritten_total, 1);
    }
}
