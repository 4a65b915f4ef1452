//! Ten million lines: what questions cost the store, and what they cost `grep` and `zstdgrep` over files, SQLite rows with `LIKE`, and
//! FTS5, in the same run on the same lines. Also the newest ten lines and a cursor's poll at 10,000 lines and at all of them.
//!
//! `cargo bench -p plimsoll-store --bench query -- [lines] [directory [keep]]`; default 10,000,000 lines of 200 bytes, words drawn uniformly from
//! 20,000 with a fixed seed, each line with a number of its own, over 24 hours. Needs 7 GB of disk below the directory (default: the
//! temporary one), which it gives back; with `keep` it stays, and the next run with the same words only asks. FTS5 gets a tenth of the lines (it takes a minute a million), and is asked over these.
//!
//! What `grep` counts and what the store finds must be the same, but for the last hour, where `grep` knows four digits of the number.
#![allow(clippy::disallowed_methods)] // a benchmark reads the clock and its own files
#![allow(missing_docs)]

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use plimsoll_store::{Entry, Find, Intake, Pattern, Query, Reader, Settings, Store, Stream};
use rusqlite::Connection;
use rustix::pipe::{PipeFlags, pipe_with};

type Outcome<T> = Result<T, Box<dyn Error>>;

const BYTES: usize = 200;
const WORDS: usize = 20_000;
const BASE_NS: u64 = 1_795_000_000_000_000_000;
const DAY_NS: u64 = 24 * 3_600_000_000_000;
const BATCH: u64 = 320;

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let lines: u64 = args.next().map_or(Ok(10_000_000), |arg| arg.parse())?;
    let base = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    if args.next().as_deref() == Some("keep") {
        let place = base.join(format!("plimsoll-query-kept-{lines}"));
        let whole = place.join("whole");
        if !whole.exists() {
            std::fs::create_dir(&place)?;
            fill_all(&place, lines)?;
            File::create(whole)?;
        }
        return questions(&place, lines);
    }
    let place = base.join(format!("plimsoll-query-{}", std::process::id()));
    std::fs::create_dir(&place)?;
    let outcome = fill_all(&place, lines).and_then(|()| questions(&place, lines));
    std::fs::remove_dir_all(&place)?;
    outcome
}

/// Fills all stores, and says what that took.
fn fill_all(place: &Path, lines: u64) -> Outcome<()> {
    let dir = place.join("store");
    let settings =
        Settings { spool_bytes: 8 << 30, retain_bytes: 64 << 30, ..Settings::new(&dir, place.join("ring"), "bench") };
    let (intake, store, _) = plimsoll_store::open(settings)?;
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    rustix::pipe::fcntl_setpipe_size(&write, 1 << 20)?;
    let mut pipe = Pipe { intake, read, write: write.into() };
    let mut words = Words::new();
    let mut file = BufWriter::new(File::create(place.join("lines.log"))?);

    println!("## The newest lines and a cursor, at 10,000 and at {lines} lines\n");
    let (began, cpu) = (Instant::now(), cpu_seconds()?);
    fill(&mut pipe, &store, &mut words, &mut file, 0, 10_000.min(lines), lines)?;
    newest(&dir, &mut pipe, &store, "10,000 lines")?;
    let (filled, filled_cpu) = (Instant::now(), cpu_seconds()?);
    fill(&mut pipe, &store, &mut words, &mut file, 10_000.min(lines), lines, lines)?;
    file.flush()?;
    settle(&store);
    let (sealed, sealed_cpu) = (filled.elapsed().as_secs_f64(), cpu_seconds()? - filled_cpu);
    newest(&dir, &mut pipe, &store, &format!("{lines} lines"))?;
    let (took, used) = (began.elapsed(), cpu_seconds()? - cpu);
    drop(pipe);
    let closed = store.close(Duration::from_secs(60));
    println!(
        "\nFilled in {:.0} s ({:.2} us of CPU a line, generating them included; {:.2} M lines/s; in all {:.0} s, {used:.0} s of CPU).",
        sealed,
        sealed_cpu * 1e6 / lines as f64,
        lines as f64 / sealed / 1e6,
        took.as_secs_f64()
    );
    if !closed.complete {
        return Err(format!("not everything was sealed: {:?}", closed.stats.degraded).into());
    }
    let raw = std::fs::metadata(place.join("lines.log"))?.len();
    others(place, lines)?;
    println!("\n## On disk\n");
    println!("| | bytes of {raw} | ratio |\n|---|---|---|");
    for (name, path) in [
        ("store", "store/logs.db"),
        ("plain file", "lines.log"),
        ("zstd -1", "lines.log.zst"),
        ("SQLite rows", "rows.db"),
        ("FTS5, a tenth of the lines", "fts.db"),
    ] {
        let len = std::fs::metadata(place.join(path)).map_or(0, |m| m.len());
        println!("| {name} | {len} | {:.3} |", len as f64 / raw as f64);
    }
    Ok(())
}

/// Prints lines into the store and into the file.
fn fill(
    pipe: &mut Pipe,
    store: &Store,
    words: &mut Words,
    file: &mut impl Write,
    from: u64,
    to: u64,
    all: u64,
) -> Outcome<()> {
    let mut batch = Vec::new();
    let mut at = from;
    while at < to {
        let end = (at + BATCH).min(to);
        batch.clear();
        for number in at..end {
            words.line(number, &mut batch);
        }
        file.write_all(&batch)?;
        while store.stats().ring_used_bytes > 4 << 20 {
            std::thread::sleep(Duration::from_micros(200));
        }
        pipe.print(&batch, moment(at, all))?;
        at = end;
    }
    Ok(())
}

fn moment(line: u64, all: u64) -> u64 {
    BASE_NS + (u128::from(line) * u128::from(DAY_NS) / u128::from(all.max(1))) as u64
}

/// Waits until no more than a chunk's worth is unsealed.
fn settle(store: &Store) {
    while store.stats().ring_used_bytes > 0 || store.stats().spool_used_bytes > 24 << 20 {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
}

fn newest(dir: &Path, pipe: &mut Pipe, store: &Store, name: &str) -> Outcome<()> {
    settle(store);
    let everything = Query::default();
    let mut count = 0;
    let mut sink = |_: Entry<'_>| {
        count += 1;
        ControlFlow::Continue(())
    };
    println!("| {name} | p50 | p99 |\n|---|---|---|");
    report("open a reader, the newest 10 lines", 100, |_| {
        Reader::open(dir)?.tail(&everything, 10, &mut sink)?;
        Ok(())
    })?;
    let mut reader = Reader::open(dir)?;
    let mut cursor = reader.tail(&everything, 0, &mut sink)?;
    report("a poll with a cursor, nothing new", 1000, |_| {
        cursor = reader.read(&everything, Some(cursor), &mut sink)?;
        Ok(())
    })?;
    report("a poll with a cursor, one new line (printing it included)", 1000, |_| {
        pipe.print(b"one more line\n", BASE_NS)?;
        cursor = reader.read(&everything, Some(cursor), &mut sink)?;
        Ok(())
    })?;
    Ok(())
}

/// The same lines, as others keep them.
fn others(place: &Path, lines: u64) -> Outcome<()> {
    let log = place.join("lines.log");
    let squeezed = Command::new("zstd").args(["-1", "-q", "-k"]).arg(&log).status();
    if !squeezed.as_ref().is_ok_and(std::process::ExitStatus::success) {
        println!("(no zstd here: {squeezed:?})");
    }
    for (name, most, table) in [
        (
            "rows.db",
            lines,
            "CREATE TABLE line (at INTEGER NOT NULL, text TEXT NOT NULL); CREATE INDEX by_at ON line (at);",
        ),
        (
            "fts.db",
            lines / 10,
            "CREATE TABLE line (at INTEGER NOT NULL, text TEXT NOT NULL);
             CREATE VIRTUAL TABLE words USING fts5 (text, content = 'line', content_rowid = 'rowid');",
        ),
    ] {
        let mut db = Connection::open(place.join(name))?;
        let speed = "PRAGMA page_size = 16384; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;";
        db.execute_batch(&format!("{speed} {table}"))?;
        let write = db.transaction()?;
        {
            use std::io::BufRead;
            let mut add = write.prepare("INSERT INTO line (at, text) VALUES (?1, ?2)")?;
            let mut index = name
                .starts_with("fts")
                .then(|| write.prepare("INSERT INTO words (rowid, text) VALUES (?1, ?2)"))
                .transpose()?;
            let file = std::io::BufReader::with_capacity(1 << 20, File::open(&log)?);
            for (number, line) in (0..most).zip(file.lines()) {
                let line = line?;
                let id = add.insert((moment(number, lines) as i64, &line))?;
                if let Some(index) = index.as_mut() {
                    index.execute((id, &line))?;
                }
            }
        }
        write.commit()?;
    }
    Ok(())
}

struct Question {
    name: &'static str,
    rounds: usize,
    query: Box<dyn Fn(usize) -> Outcome<Query>>,
    /// What `grep` is given in front of the file.
    grep: Box<dyn Fn(usize) -> Vec<String>>,
    /// What SQLite is asked of the rows.
    rows: Box<dyn Fn(usize) -> String>,
    fts: Option<Box<dyn Fn(usize) -> String>>,
}

fn questions(place: &Path, lines: u64) -> Outcome<()> {
    let (dir, words) = (&place.join("store"), Words::new());
    let word = words.words[7].clone();
    let two = (words.words[11].clone(), words.words[13].clone());
    // Spread over all lines, and in the tenth that FTS5 has.
    let rare = move |round: usize| format!("{:08}", (round as u64 * 7_919 * 104_729) % (lines / 10));
    let whole = Find { plain_text: true, whole_words: true, ..Find::default() };
    let pattern = |text: &str, find: Find| Pattern::new(text, find).map_err(Box::<dyn Error>::from);
    let hour = BASE_NS + DAY_NS - DAY_NS / 24;
    let hour_line = lines - lines / 24;
    let common = word.clone();
    let (common_grep, common_rows, common_fts) = (word.clone(), word.clone(), word);
    let both = (two.clone(), two.clone(), two);
    let text = |value: &str| value.to_owned();
    let list: Vec<Question> = vec![
        Question {
            name: "a rare word (one line)",
            rounds: 200,
            query: Box::new(move |i| Ok(Query { pattern: Some(pattern(&rare(i), whole)?), ..Query::default() })),
            grep: Box::new(move |i| vec![text("-c"), text("-w"), text("-F"), rare(i)]),
            rows: Box::new(move |i| format!("text LIKE '%{}%'", rare(i))),
            fts: Some(Box::new(rare)),
        },
        Question {
            name: "a common word (one line in 800)",
            rounds: 3,
            query: Box::new(move |_| Ok(Query { pattern: Some(pattern(&common, whole)?), ..Query::default() })),
            grep: Box::new(move |_| vec![text("-c"), text("-w"), text("-F"), common_grep.clone()]),
            rows: Box::new(move |_| format!("' ' || text || ' ' LIKE '% {common_rows} %'")),
            fts: Some(Box::new(move |_| common_fts.clone())),
        },
        Question {
            name: "a regular expression with two words",
            rounds: 3,
            query: Box::new(move |_| {
                let text = format!(r"\b{}\b.*\b{}\b", both.0.0, both.0.1);
                Ok(Query { pattern: Some(pattern(&text, Find::default())?), ..Query::default() })
            }),
            grep: Box::new(move |_| vec![text("-c"), text("-P"), format!(r"\b{}\b.*\b{}\b", both.1.0, both.1.1)]),
            rows: Box::new(move |_| format!("text LIKE '%{}%{}%'", both.2.0, both.2.1)),
            fts: None,
        },
        Question {
            name: "a regular expression without one, no match",
            rounds: 3,
            query: Box::new(move |_| {
                Ok(Query { pattern: Some(pattern("q[xyz]{4}[0-9]", Find::default())?), ..Query::default() })
            }),
            grep: Box::new(move |_| vec![text("-c"), text("-E"), text("q[xyz]{4}[0-9]")]),
            rows: Box::new(|_| "text LIKE '%qxyzx0%'".into()),
            fts: None,
        },
        Question {
            name: "the last hour of 24",
            rounds: 5,
            query: Box::new(move |_| Ok(Query { since_unix_ns: Some(hour), ..Query::default() })),
            grep: Box::new(move |_| vec![text("-c"), text("-E"), at_least(hour_line)]),
            rows: Box::new(move |_| format!("at >= {hour}")),
            fts: None,
        },
    ];
    let db = Connection::open(place.join("rows.db"))?;
    let fts = Connection::open(place.join("fts.db"))?;
    for connection in [&db, &fts] {
        connection.execute_batch("PRAGMA cache_size = -65536; PRAGMA mmap_size = 0")?;
    }
    for question in &list {
        println!("\n| {} | p50 | p99 |\n|---|---|---|", question.name);
        let mut found = 0u64;
        report("store, a fresh reader", question.rounds, |i| {
            found = 0;
            let query = (question.query)(i)?;
            Reader::open(dir)?.read(&query, None, &mut |_| {
                found += 1;
                ControlFlow::Continue(())
            })?;
            Ok(())
        })?;
        report("store, counting them", question.rounds, |i| {
            found = Reader::open(dir)?.count(&(question.query)(i)?)?.lines;
            Ok(())
        })?;
        if question.rounds <= 5 {
            report("store, the newest 100 of them", 20, |i| {
                let query = (question.query)(i)?;
                Reader::open(dir)?.tail(&query, 100, &mut |_| ControlFlow::Continue(()))?;
                Ok(())
            })?;
        }
        let rounds = question.rounds.min(3);
        for (program, file) in [("grep", "lines.log"), ("zstdgrep", "lines.log.zst")] {
            let mut counted = 0u64;
            let path = place.join(file);
            let asked = report(program, rounds, |i| {
                let args = (question.grep)(i);
                let out =
                    Command::new(program).args(&args).arg(&path).env("LC_ALL", "C").stderr(Stdio::null()).output()?;
                counted = String::from_utf8_lossy(&out.stdout).trim().rsplit(':').next().unwrap_or_default().parse()?;
                Ok(())
            });
            match asked {
                Ok(()) if counted != found && !question.name.contains("hour") => {
                    return Err(format!("{}: the store finds {found}, {program} {counted}", question.name).into());
                }
                Ok(()) => println!("| … found | {counted} | store: {found} |"),
                Err(e) => println!("| {program} | {e} | |"),
            }
        }
        let ask = |connection: &Connection, sql: &str| -> Outcome<i64> {
            Ok(connection.query_row(sql, [], |row| row.get(0))?)
        };
        let mut counted = 0;
        report("SQLite rows", rounds, |i| {
            counted = ask(&db, &format!("SELECT count(*) FROM (SELECT text FROM line WHERE {})", (question.rows)(i)))?;
            Ok(())
        })?;
        println!("| … found | {counted} | store: {found} |");
        if let Some(of) = &question.fts {
            report("FTS5, a tenth of the lines", question.rounds.min(20), |i| {
                counted = ask(&fts, &format!("SELECT count(*) FROM words WHERE words MATCH '\"{}\"'", of(i)))?;
                Ok(())
            })?;
            println!("| … found | {counted} | |");
        }
    }
    Ok(())
}

/// Lines with this number or more, to its first four digits: what a time stamp in front of each line lets `grep` do.
fn at_least(line: u64) -> String {
    let digits = format!("{line:08}");
    let digits = &digits.as_bytes()[..4];
    let higher = (0..4).filter(|at| digits[*at] < b'9').map(|at| {
        let before = String::from_utf8_lossy(&digits[..at]);
        format!("{before}[{}-9]", char::from(digits[at] + u8::from(at < 3)))
    });
    format!("^({})", higher.collect::<Vec<_>>().join("|"))
}

fn report(name: &str, rounds: usize, mut call: impl FnMut(usize) -> Outcome<()>) -> Outcome<()> {
    let mut times = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let start = Instant::now();
        call(round)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let p99 = times[(rounds * 99 / 100).min(rounds - 1)];
    println!("| {name} | {:.3} ms | {p99:.3} ms |", times[rounds / 2]);
    Ok(())
}

fn cpu_seconds() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

struct Pipe {
    intake: Intake,
    read: OwnedFd,
    write: File,
}

impl Pipe {
    fn print(&mut self, text: &[u8], at_unix_ns: u64) -> Outcome<()> {
        self.write.write_all(text)?;
        let mut left = text.len();
        while left > 0 {
            let landed = self.intake.read_from(Stream::Stdout, self.read.as_fd(), at_unix_ns)?;
            if landed.dropped {
                return Err("the ring was full".into());
            }
            left -= landed.bytes;
        }
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
        while all.words.len() < WORDS {
            let len = 3 + all.random(9);
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

    fn line(&mut self, number: u64, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend_from_slice(format!("{number:08}").as_bytes());
        while into.len() - start < BYTES - 1 {
            let word = usize::try_from(self.random(WORDS as u64)).unwrap_or(0);
            into.push(b' ');
            into.extend_from_slice(self.words[word].as_bytes());
        }
        into.truncate(start + BYTES - 1);
        into.push(b'\n');
    }
}
