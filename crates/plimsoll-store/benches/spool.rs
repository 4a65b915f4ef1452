//! What an append and a replay of [`plimsoll_store::spool`] cost, in wall and CPU time, beside bare `write(2)` of the same bytes.
//!
//! `cargo bench -p plimsoll-store --bench spool -- [records] [bytes a record] [directory]`; default 1,000,000 of 200 bytes.
#![allow(clippy::disallowed_methods)] // a benchmark reads the clock
#![allow(missing_docs)]

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use plimsoll_store::spool::{self, Options, SyncPolicy};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    let records: u64 = args.next().map_or(Ok(1_000_000), |a| a.parse())?;
    let bytes: usize = args.next().map_or(Ok(200), |a| a.parse())?;
    let base = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let place = base.join(format!("plimsoll-spool-bench-{}", std::process::id()));
    fs::create_dir_all(&place)?;
    let outcome = all(&place, records, &vec![b'x'; bytes]);
    fs::remove_dir_all(&place)?;
    outcome
}

fn all(place: &std::path::Path, records: u64, record: &[u8]) -> Result<(), Box<dyn Error>> {
    let mut file = fs::File::create(place.join("bare"))?;
    measured("bare write(2)", records, || {
        for _ in 0..records {
            file.write_all(record)?;
        }
        Ok(())
    })?;
    for (what, sync) in [("never", SyncPolicy::Never), ("every second", SyncPolicy::Every(Duration::from_secs(1)))] {
        let options = Options { sync, ..Options::new(place.join(what)).budget(4 << 30) };
        let (writer, mut reader, _) = spool::open(options)?;
        measured(&format!("append, sync {what}"), records, || {
            for _ in 0..records {
                writer.append(record, 1)?;
            }
            Ok(())
        })?;
        let mut newest = None;
        measured("replay, one acknowledgement each", records / 2, || {
            for _ in 0..records / 2 {
                let receipt = reader.next()?.ok_or("too few records")?.receipt;
                reader.ack(receipt)?;
            }
            Ok(())
        })?;
        measured("replay, one acknowledgement for all", records - records / 2, || {
            while let Some(record) = reader.next()? {
                newest = Some(record.receipt);
            }
            newest.map_or(Ok(()), |newest| Ok(reader.ack(newest)?))
        })?;
    }
    let options = Options { sync: SyncPolicy::Always, ..Options::new(place.join("always")) };
    let (writer, _reader, _) = spool::open(options)?;
    measured("append, sync always", 200, || {
        for _ in 0..200 {
            writer.append(record, 1)?;
        }
        Ok(())
    })
}

fn measured(what: &str, count: u64, work: impl FnOnce() -> Result<(), Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    let (start, cpu) = (Instant::now(), cpu_ns()?);
    work()?;
    let wall = start.elapsed().as_secs_f64() * 1e6 / count as f64;
    let cpu = (cpu_ns()? - cpu) as f64 / 1e3 / count as f64;
    println!("{what:<40} {wall:>9.3} us wall, {cpu:>7.3} us CPU a record");
    Ok(())
}

/// The scheduler's time of this thread.
fn cpu_ns() -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().ok_or("no figure")?.parse()?)
}
