//! What reading costs, against the number of lines: the newest ten, a poll with a cursor, a search through everything. The store is open
//! and its writer alive; all but the last few lines are sealed.
//!
//! `cargo bench -p plimsoll-store --bench read -- [lines …]`; default 10,000 and 1,000,000 lines of 200 bytes, words drawn uniformly from
//! 20,000 made-up ones with a fixed seed.
#![allow(clippy::disallowed_methods)] // a benchmark reads the clock
#![allow(missing_docs)]

use std::error::Error;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use plimsoll_store::{Entry, Intake, LogLevel, Query, Reader, Settings, Stream};
use rustix::pipe::{PipeFlags, pipe_with};

const BYTES: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let counts: Result<Vec<u64>, _> = std::env::args().skip(1).filter(|a| a != "--bench").map(|a| a.parse()).collect();
    let counts = counts?;
    for lines in if counts.is_empty() { vec![10_000, 1_000_000] } else { counts } {
        let place = std::env::temp_dir().join(format!("plimsoll-read-{}", std::process::id()));
        let outcome = measure(&place, lines);
        std::fs::remove_dir_all(&place)?;
        outcome?;
    }
    Ok(())
}

fn measure(place: &Path, lines: u64) -> Result<(), Box<dyn Error>> {
    let dir = place.join("bench");
    let settings = Settings { spool_bytes: 4 << 30, ..Settings::new(&dir, place.join("ring"), "bench") };
    let (mut intake, store, _) = plimsoll_store::open(settings)?;
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let mut pipe = Pipe { read, write: write.into(), words: Words::new() };
    for at in 0..lines {
        pipe.print(&mut intake, at)?;
        if at % 1000 == 0 {
            while store.stats().ring_used_bytes > 4 << 20 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    while store.stats().ring_used_bytes > 0 || store.stats().spool_used_bytes > 24 << 20 {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));
    let stats = store.stats();
    println!(
        "{lines} lines: {} MiB in the database, {} KiB in the spool",
        stats.database_bytes >> 20,
        stats.spool_used_bytes >> 10
    );

    let mut count = 0u64;
    report("open a reader, newest 10 lines", 50, || {
        count = 0;
        Reader::open(&dir)?.tail(&Query::default(), 10, &mut counted(&mut count))?;
        Ok(())
    })?;
    assert_eq!(count, 10);
    let mut reader = Reader::open(&dir)?;
    report("newest 10 lines, reader kept", 50, || {
        reader.tail(&Query::default(), 10, &mut counted(&mut count))?;
        Ok(())
    })?;
    let mut cursor = reader.tail(&Query::default(), 0, &mut counted(&mut count))?;
    report("poll, nothing new", 1000, || {
        cursor = reader.read(&Query::default(), Some(cursor), &mut counted(&mut count))?;
        Ok(())
    })?;
    count = 0;
    report("poll, one new line (its writing included)", 1000, || {
        pipe.print(&mut intake, lines)?;
        cursor = reader.read(&Query::default(), Some(cursor), &mut counted(&mut count))?;
        Ok(())
    })?;
    assert_eq!(count, 1000);
    let search = |query: Query| {
        let mut count = 0;
        Reader::open(&dir)?.read(&query, None, &mut counted(&mut count))?;
        Ok::<_, Box<dyn Error>>(count)
    };
    let pattern = |text: &str| {
        Ok::<_, Box<dyn Error>>(Some(plimsoll_store::Pattern::new(text, plimsoll_store::Find::default())?))
    };
    let rare = format!("^{:09} ", lines / 2);
    for (name, query) in [
        ("read everything", Query::default()),
        ("search: a word that one line has", Query { pattern: pattern(&rare[1..])?, ..Query::default() }),
        ("search: a regular expression, no match", Query { pattern: pattern("qq[xyz]+ .*end$")?, ..Query::default() }),
        ("search: by level, no match", Query { min_level: Some(LogLevel::Error), ..Query::default() }),
        ("search: the newest tenth", Query { since_unix_ns: Some(lines - lines / 10), ..Query::default() }),
    ] {
        let mut found = 0;
        report(name, 5, || {
            found = search(query.clone())?;
            Ok(())
        })?;
        println!("    found {found}");
    }
    drop(store);
    Ok(())
}

fn counted(count: &mut u64) -> impl FnMut(Entry<'_>) -> ControlFlow<()> {
    move |_| {
        *count += 1;
        ControlFlow::Continue(())
    }
}

/// Median and extremes of the time of one call.
fn report(
    name: &str,
    rounds: usize,
    mut call: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = Instant::now();
        call()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    println!("  {name:<44} {:>11.1} us  [{:.1} .. {:.1}]", times[rounds / 2], times[0], times[rounds - 1]);
    Ok(())
}

struct Pipe {
    read: std::os::fd::OwnedFd,
    write: std::fs::File,
    words: Words,
}

impl Pipe {
    fn print(&mut self, intake: &mut Intake, at: u64) -> Result<(), Box<dyn Error>> {
        let line = self.words.line(at);
        self.write.write_all(line.as_bytes())?;
        intake.read_from(Stream::Stdout, self.read.as_fd(), at + 1)?;
        Ok(())
    }
}

struct Words {
    words: Vec<String>,
    seed: u64,
}

impl Words {
    fn new() -> Words {
        let mut all = Words { words: Vec::new(), seed: 88_172_645_463_325_252 };
        for _ in 0..20_000 {
            let len = 3 + all.random(10);
            let word = (0..len).map(|_| char::from(b'a' + u8::try_from(all.random(26)).unwrap_or(0))).collect();
            all.words.push(word);
        }
        all
    }

    fn random(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % below
    }

    fn line(&mut self, number: u64) -> String {
        let mut line = format!("{number:09} ");
        while line.len() < BYTES - 1 {
            let word = usize::try_from(self.random(20_000)).unwrap_or(0);
            line.push_str(&self.words[word]);
            line.push(' ');
        }
        line.truncate(BYTES - 1);
        line.push('\n');
        line
    }
}
