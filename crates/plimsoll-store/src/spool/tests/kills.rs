//! Real SIGKILLs: a process that appends, reads and acknowledges as fast as it can, and says what it has done.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

const VICTIM: &str = "PLIMSOLL_TEST_SPOOL_VICTIM";
const KILLS: u64 = 60;

fn options(dir: &Path) -> Options {
    // Small segments, so that kills meet their beginnings and ends; a record now and then has several frames.
    Options { sync: SyncPolicy::Never, ..Options::new(dir.join("spool")).budget(1 << 20) }
}

fn length(number: u64) -> usize {
    match number % 50 {
        0 => 140_000,
        n => (n * n * 7 % 900) as usize,
    }
}

/// What the process does that is killed.
fn victim(dir: &Path) -> ! {
    let (writer, mut reader, _) = open(options(dir)).unwrap();
    let mut out = std::io::stdout();
    let mut number = writer.stats().appended_records_total;
    loop {
        match writer.append(&record(number, length(number)), number) {
            Ok(stored) => {
                assert_eq!(stored, number);
                writeln!(out, "stored {number}").unwrap();
                number += 1;
            }
            Err(full) => assert!(matches!(full, AppendError::Full { .. }), "{full}"),
        }
        // Reads behind, so that kills find something waiting.
        if writer.stats().waiting_records > 30 {
            let receipt = reader.next().unwrap().unwrap().receipt;
            reader.ack(receipt).unwrap();
            writeln!(out, "done {}", receipt.number()).unwrap();
        }
    }
}

#[test]
fn sigkills_at_random_moments() {
    // This test starts itself as its victim.
    if let Some(dir) = std::env::var_os(VICTIM) {
        victim(Path::new(&dir));
    }
    let dir = quick_dir();
    let mut seed = 88_172_645_463_325_252_u64;
    let (mut stored, mut done, mut torn) = (0, 0, 0);
    for kill in 0..KILLS {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "spool::tests::kills::sigkills_at_random_moments", "--nocapture"]);
        command.env(VICTIM, dir.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut victim = command.spawn().unwrap();
        let out = BufReader::new(victim.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let (mut stored, mut done) = (0, 0);
            for line in out.lines().map_while(Result::ok) {
                let said = |what: &str| line.strip_prefix(what).and_then(|n| n.parse::<u64>().ok());
                stored = said("stored ").map_or(stored, |n| n + 1);
                done = said("done ").map_or(done, |n| n + 1);
            }
            (stored, done)
        });
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        std::thread::sleep(Duration::from_micros(5_000 + seed % 40_000));
        victim.kill().unwrap();
        victim.wait().unwrap();
        let said = reader.join().unwrap();
        (stored, done) = (said.0.max(stored), said.1.max(done));

        let (writer, mut reader, recovery) = open(options(dir.path())).unwrap_or_else(|e| panic!("kill {kill}: {e}"));
        torn += u64::from(recovery.torn_bytes > 0);
        let stats = writer.stats();
        let (first, end) = (stats.acknowledged_records_total, stats.appended_records_total);
        // The one that was on its way may be there: it was said to nobody.
        assert!((done..=done + 1).contains(&first), "kill {kill}: {first} done, said was {done}");
        assert!((stored..=stored + 1).contains(&end), "kill {kill}: {end} stored, said was {stored}");
        assert_eq!(waiting(&mut reader), (first..end).collect::<Vec<_>>(), "kill {kill}");
        assert_eq!(stats.torn_ends_total, torn, "kill {kill}");
        (stored, done) = (end, first);
    }
    assert!(stored > KILLS * 10, "only {stored} records were stored");
    eprintln!("{KILLS} kills, {stored} records, {torn} torn ends");
}
