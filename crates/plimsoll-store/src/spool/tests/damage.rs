//! A torn end is cut once and counted; anything else that is wrong is an error with file and offset, and nothing is changed.

use super::*;
use crate::segment::{SEGMENT_HEADER, path};

/// A frame of a record of 100 bytes.
const FRAME: usize = 136;

/// A spool with `synced` records that are synced and `more` that are not, all of 100 bytes.
fn made(dir: &Path, synced: u64, more: u64) {
    let (writer, reader, _) = open(small(dir)).unwrap();
    for number in 0..synced + more {
        writer.append(&record(number, 100), 1).unwrap();
        if number + 1 == synced {
            writer.sync().unwrap();
        }
    }
    drop((writer, reader));
}

fn files(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Changes the first segment's bytes and opens: `Ok` what was cut and what is left, or what was said.
fn after(synced: u64, more: u64, change: impl FnOnce(&mut Vec<u8>)) -> Result<(u64, Vec<u64>), String> {
    let dir = quick_dir();
    made(dir.path(), synced, more);
    let segment = path(dir.path(), 0);
    let mut bytes = std::fs::read(&segment).unwrap();
    change(&mut bytes);
    std::fs::write(&segment, bytes).unwrap();
    let before = files(dir.path());
    match open(small(dir.path())) {
        Ok((writer, mut reader, recovery)) => {
            let left = waiting(&mut reader);
            assert_eq!(writer.stats().torn_ends_total, u64::from(recovery.torn_bytes > 0));
            drop((writer, reader));
            let (_writer, mut reader, again) = open(small(dir.path())).unwrap();
            assert_eq!((again.torn_bytes, waiting(&mut reader)), (0, left.clone()), "cut once");
            Ok((recovery.torn_bytes, left))
        }
        Err(error) => {
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            assert_eq!(files(dir.path()), before, "nothing is changed");
            Err(error.to_string())
        }
    }
}

fn at(record: usize) -> usize {
    SEGMENT_HEADER as usize + record * FRAME
}

#[test]
fn a_torn_end_is_cut_once_and_counted() {
    let all: Vec<u64> = (0..9).collect();
    assert_eq!(after(5, 5, |_| ()), Ok((0, (0..10).collect())));
    assert_eq!(after(5, 5, |bytes| bytes.truncate(at(9) + 40)), Ok((40, all.clone())), "an append that a kill cut");
    assert_eq!(
        after(5, 5, |bytes| bytes[at(9)..].fill(0)),
        Ok((FRAME as u64, all.clone())),
        "pages that a power cut ate"
    );
    assert_eq!(after(5, 5, |bytes| bytes[at(9) + 50] ^= 1), Ok((FRAME as u64, all)), "of the last frame, a part");
    assert_eq!(after(0, 10, |bytes| bytes.truncate(20)), Ok((20, vec![])), "a segment that was being begun");
}

#[test]
fn what_was_synced_is_never_cut() {
    let refused = after(10, 0, |bytes| bytes.truncate(at(9) + 40)).unwrap_err();
    assert!(refused.contains("0000000000000000.seg at byte 1256: the frame is cut off"), "{refused}");
    let refused = after(10, 0, |bytes| bytes[at(9) + 50] ^= 1).unwrap_err();
    assert!(refused.contains("at byte 1256: the frame's checksum does not match"), "{refused}");
    let refused = after(10, 0, |bytes| bytes[at(9)..].fill(0)).unwrap_err();
    assert!(refused.contains("at byte 1256: no frame begins here"), "{refused}");
}

#[test]
fn damage_with_a_whole_record_behind_it_is_never_cut() {
    for (change, said) in [
        (at(4), "at byte 576: no frame begins here"),
        (at(4) + 2, "at byte 576: no frame begins here"),
        (at(4) + 60, "at byte 576: the frame's checksum does not match"),
        (3, "not a spool segment"),
        (8, "a spool segment of version 3, this program knows 1"),
    ] {
        let refused = after(0, 10, |bytes| bytes[change] ^= 2).unwrap_err();
        assert!(refused.contains(said), "{refused}");
    }
}

#[test]
fn a_segment_that_is_missing_is_an_error_unless_all_in_it_was_done() {
    let dir = quick_dir();
    made(dir.path(), 0, 300);
    let starts = crate::segment::list(dir.path()).unwrap();
    assert_eq!(starts.len(), 3);
    for (missing, said) in [(0, "are missing before it"), (1, "are missing before it")] {
        let (from, to) = (path(dir.path(), starts[missing]), dir.path().join("away"));
        std::fs::rename(&from, &to).unwrap();
        let refused = open(small(dir.path())).unwrap_err().to_string();
        assert!(refused.contains(said) && refused.contains(&format!("{:016x}.seg", starts[missing + 1])), "{refused}");
        std::fs::rename(&to, &from).unwrap();
    }
    let (writer, mut reader, recovery) = open(small(dir.path())).unwrap();
    assert_eq!(recovery.waiting_records, 300);
    std::fs::remove_file(path(dir.path(), starts[1])).unwrap();
    let refused = loop {
        match reader.next() {
            Ok(record) => assert!(record.is_some(), "passed over in silence"),
            Err(refused) => break refused.to_string(),
        }
    };
    assert!(refused.contains("is missing"), "{refused}");
    assert_eq!(reader.next().unwrap_err().to_string(), refused, "again at each call");
    drop((writer, reader));
}

#[test]
fn damage_that_comes_while_it_is_open_is_an_error_at_its_place() {
    let dir = quick_dir();
    let (writer, mut reader, _) = open(small(dir.path())).unwrap();
    for number in 0..5 {
        writer.append(&record(number, 100), 1).unwrap();
    }
    let file = std::fs::File::options().write(true).open(path(dir.path(), 0)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", at(3) as u64 + 70).unwrap();
    for number in 0..3 {
        assert_eq!(reader.next().unwrap().unwrap().receipt.number(), number);
    }
    for _ in 0..2 {
        let refused = reader.next().unwrap_err().to_string();
        assert!(refused.contains("at byte 440: the frame's checksum does not match"), "{refused}");
    }
}

#[test]
fn a_state_that_contradicts_the_segments_is_an_error() {
    let dir = quick_dir();
    made(dir.path(), 0, 10);
    let (writer, mut reader, _) = open(small(dir.path())).unwrap();
    let receipt = (0..4).map(|_| reader.next().unwrap().unwrap().receipt).last().unwrap();
    reader.ack(receipt).unwrap();
    drop((writer, reader));
    let state = std::fs::read(dir.path().join("state")).unwrap();
    std::fs::write(dir.path().join("state"), vec![0; state.len()]).unwrap();
    let refused = open(small(dir.path())).unwrap_err().to_string();
    assert!(refused.contains("neither of its two slots is whole"), "{refused}");
    std::fs::write(dir.path().join("state"), &state).unwrap();
    // Segments of another spool.
    let other = quick_dir();
    let (writer, reader, _) = open(small(other.path())).unwrap();
    writer.append(&[0; 2000], 1).unwrap();
    drop((writer, reader));
    std::fs::copy(path(other.path(), 0), path(dir.path(), 0)).unwrap();
    let refused = open(small(dir.path())).unwrap_err().to_string();
    assert!(refused.contains("no record of the spool ends at 0x220"), "{refused}");
}
