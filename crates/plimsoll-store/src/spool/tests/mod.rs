//! What the tests of the spool share, and what it does while nothing goes wrong.
#![allow(clippy::disallowed_methods)] // tests read their own small files

mod damage;
mod faults;
mod kills;
mod model;
mod sink;

use std::path::Path;
use std::time::Duration;

use super::*;

/// The least budget: segments of 16 KiB.
fn small(dir: &Path) -> Options {
    Options { sync: SyncPolicy::Never, ..Options::new(dir).budget(MIN_BUDGET_BYTES) }
}

/// A directory whose syncs cost nothing, for tests that make thousands of them.
fn quick_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A record that says which it is, `len` bytes long or as short as that can be.
fn record(number: u64, len: usize) -> Vec<u8> {
    let mut text = format!("{number} ").into_bytes();
    while text.len() < len {
        text.push(b'a' + (number % 26) as u8);
    }
    text
}

/// The number in a record that [`record`] made.
///
/// # Panics
/// If it was not made so.
fn number(data: &[u8]) -> u64 {
    let text = str::from_utf8(data).unwrap();
    let (number, rest) = text.split_once(' ').unwrap_or_else(|| panic!("torn record {text:?}"));
    let number: u64 = number.parse().unwrap();
    assert!(rest.bytes().all(|b| b == b'a' + (number % 26) as u8), "torn record {text:?}");
    number
}

/// The numbers of all that waits; nothing is acknowledged.
fn waiting(reader: &mut Reader) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        assert_eq!(record.receipt.number(), number(record.data));
        numbers.push(number(record.data));
    }
    numbers
}

fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
}

#[test]
fn records_come_back_as_they_were_in_order_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(dir.path().join("spool"));
    let lengths = [0, 1, 7, 8, 100, 65_536, 65_537, 200_000, 3];
    let (writer, mut reader, recovery) = open(options.clone()).unwrap();
    assert_eq!(recovery, Recovery::default());
    for (number, len) in lengths.into_iter().enumerate() {
        assert_eq!(writer.append(&vec![number as u8; len], 1000 + number as u64).unwrap(), number as u64);
    }
    for round in 0..2 {
        for (number, len) in lengths.into_iter().enumerate() {
            let record = reader.next().unwrap().unwrap();
            assert_eq!((record.data, record.at_unix_ns), (&vec![number as u8; len][..], 1000 + number as u64));
            assert_eq!(record.receipt.number(), number as u64);
            if (round, number) == (1, 4) {
                let receipt = record.receipt;
                reader.ack(receipt).unwrap();
            }
        }
        assert!(reader.next().unwrap().is_none());
        reader.rewind();
    }
    assert_eq!(reader.next().unwrap().unwrap().receipt.number(), 5, "acknowledged is done");
    let stats = writer.stats();
    assert_eq!((stats.appended_records_total, stats.acknowledged_records_total, stats.waiting_records), (9, 5, 4));
    assert_eq!(stats.waiting_bytes, 65_536 + 65_537 + 200_000 + 3);
    assert_eq!(stats.oldest_unix_ns, Some(1005));
    drop((writer, reader));
    let (writer, mut reader, recovery) = open(options).unwrap();
    assert_eq!((recovery.waiting_records, recovery.waiting_bytes), (4, stats.waiting_bytes));
    assert_eq!(writer.append(b"9 ", 9).unwrap(), 9, "numbers go on");
    assert_eq!(reader.next().unwrap().unwrap().receipt.number(), 5);
}

#[test]
fn at_the_budget_a_record_is_refused_and_room_comes_with_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, mut reader, _) = open(small(dir.path())).unwrap();
    let mut stored = 0;
    let refused = loop {
        match writer.append(&record(stored, 1000), 1) {
            Ok(_) => stored += 1,
            Err(refused) => break refused,
        }
        assert!(disk_bytes(dir.path()) <= MIN_BUDGET_BYTES + 8192, "{stored} records");
    };
    assert!(matches!(refused, AppendError::Full { .. }), "{refused}");
    assert!(stored > 40, "three segments of 16 KiB hold more than {stored} records");
    let stats = writer.stats();
    assert_eq!((stats.refused_records_total, stats.refused_bytes_total), (1, 1000));
    assert!(stats.used_bytes <= MIN_BUDGET_BYTES, "{stats:?}");
    // A segment's worth is done: as much fits again.
    for _ in 0..20 {
        let receipt = reader.next().unwrap().unwrap().receipt;
        reader.ack(receipt).unwrap();
    }
    writer.append(&record(stored, 1000), 1).unwrap();
    assert_eq!(waiting(&mut reader), (20..=stored).collect::<Vec<_>>());
    let too_large = writer.append(&vec![0; 20_000], 1).unwrap_err();
    assert!(matches!(too_large, AppendError::TooLarge { bytes: 20_000, .. }), "{too_large}");
    assert_eq!(writer.stats().too_large_records_total, 1);
}

#[test]
fn at_the_budget_the_oldest_segment_makes_room_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { at_budget: AtBudget::DropOldest, ..small(dir.path()) };
    let (writer, mut reader, _) = open(options.clone()).unwrap();
    writer.append(&record(0, 1000), 1).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().receipt.number(), 0, "handed out, not acknowledged");
    for number in 1..500 {
        writer.append(&record(number, 1000), 1).unwrap();
        assert!(disk_bytes(dir.path()) <= MIN_BUDGET_BYTES + 8192, "{number} records");
    }
    let stats = writer.stats();
    assert_eq!(stats.dropped_records_total + stats.waiting_records, 500);
    assert_eq!(stats.dropped_bytes_total, stats.dropped_records_total * 1000);
    let left: Vec<u64> = (stats.dropped_records_total..500).collect();
    assert_eq!(waiting(&mut reader), left, "what was dropped is passed over");
    drop((writer, reader));
    let (writer, mut reader, _) = open(options).unwrap();
    assert_eq!(waiting(&mut reader), left);
    assert_eq!(writer.stats().dropped_records_total, stats.dropped_records_total, "counts survive");
}

#[test]
fn disk_is_reserved_ahead_and_given_back_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { sync: SyncPolicy::Never, ..Options::new(dir.path()).budget(8 << 20) };
    let (writer, mut reader, _) = open(options.clone()).unwrap();
    writer.append(b"0 ", 1).unwrap();
    assert!(disk_bytes(dir.path()) >= 2 << 20, "a segment is reserved when it is begun");
    assert_eq!(writer.stats().used_bytes, 32 + (2 << 20));
    let one = reader.next().unwrap().unwrap().receipt;
    drop((writer, reader));
    assert!(disk_bytes(dir.path()) <= 16 << 10, "what was reserved and not used is given back");
    let (writer, mut reader, _) = open(options.clone()).unwrap();
    reader.ack(one).unwrap();
    drop((writer, reader));
    assert_eq!(crate::segment::list(dir.path()).unwrap(), [], "nothing waits: no segment stays");
    let (writer, _reader, _) = open(options).unwrap();
    assert_eq!(writer.append(b"1 ", 1).unwrap(), 1, "numbers go on without one");
}

#[test]
fn a_reader_that_waits_is_woken_and_one_that_waits_in_vain_returns() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, mut reader, _) = open(small(dir.path())).unwrap();
    assert!(!reader.wait(Duration::from_millis(1)));
    let waits = std::thread::spawn(move || {
        assert!(reader.wait(Duration::from_secs(30)));
        assert_eq!(reader.next().unwrap().unwrap().data, b"0 ");
    });
    writer.append(b"0 ", 1).unwrap();
    waits.join().unwrap();
}

#[test]
fn a_spool_is_one_process_s_and_a_log_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, _reader, _) = open(small(dir.path())).unwrap();
    let second = open(small(dir.path())).unwrap_err();
    assert!(matches!(second, StoreError::InUse { .. }), "{second}");
    writer.append(b"0 ", 1).unwrap();
    let segment = crate::segment::path(dir.path(), 0);
    assert_eq!(&std::fs::read(&segment).unwrap()[..16], b"PLIMSPOL\x01\0\0\0\x01\0\0\0");
    drop((writer, _reader));
    std::fs::write(&segment, crate::segment::header(crate::segment::Content::Log, 0)).unwrap();
    let log = open(small(dir.path())).unwrap_err();
    assert!(log.to_string().contains("content 0, expected was 1"), "{log}");
}

#[test]
fn options_out_of_range_are_refused_with_what_would_do() {
    let dir = tempfile::tempdir().unwrap();
    for (options, said) in [
        (Options { budget_bytes: 1, ..Options::new(dir.path()) }, "budget_bytes is 1, allowed are 65536 and more"),
        (Options { max_record_bytes: 0, ..Options::new(dir.path()) }, "max_record_bytes is 0, allowed are 1 to"),
        (Options { max_record_bytes: 17 << 20, ..Options::new(dir.path()) }, "max_record_bytes is 17825792"),
        (Options { sync: SyncPolicy::Every(Duration::ZERO), ..Options::new(dir.path()) }, "SyncPolicy::Always"),
    ] {
        let refused = options.validate().unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
    }
    for budget in [MIN_BUDGET_BYTES, 1 << 20, 3 << 20, 1 << 30] {
        let longest = longest_record(budget);
        assert!(record_bytes(longest) as u64 <= crate::segments::segment_bytes(budget), "{budget}");
        assert!(
            record_bytes(longest + 4096) as u64 > crate::segments::segment_bytes(budget),
            "{budget}: no less than fits"
        );
    }
}
