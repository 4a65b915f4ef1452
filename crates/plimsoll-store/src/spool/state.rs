//! `state`: how far the reader has come, and how far the disk has. Two slots in two sectors, written in turn, so that a torn write leaves
//! the other: the valid one with the higher number counts.
//!
//! A slot, 96 bytes at 0 and at 512, little endian: `PLIMSTAT` · version u32 = 1 · zero u32 · number u64 · acknowledged: position,
//! records, bytes u64 · dropped: records, bytes u64 · synced position u64 · torn ends that were cut u64 · zero u64 · CRC-32 of
//! bytes 0..88 u32 · zero u32.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::core::Mark;
use crate::StoreError;
use crate::disk::Disk;
use crate::frame::word;

const SLOT_BYTES: usize = 96;
/// The slots lie in sectors of their own.
const SLOT_AT: [u64; 2] = [0, 512];
const MAGIC: &[u8; 8] = b"PLIMSTAT";
const VERSION: u32 = 1;
/// Where the checksum stands.
const SUM_AT: usize = 88;

/// What is kept across lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// Everything before this is done: acknowledged or dropped.
    pub(super) done: Mark,
    pub(super) dropped_records: u64,
    pub(super) dropped_bytes: u64,
    /// Everything before this position survives a power cut: a bad frame there is damage, not a torn end.
    pub(super) synced: u64,
    pub(super) torn_ends: u64,
}

/// The open file.
#[derive(Debug)]
pub(super) struct StateFile {
    file: File,
    path: PathBuf,
    number: u64,
}

impl StateFile {
    /// Reads the file in `dir`, or makes it.
    pub(super) fn open(dir: &Path, disk: &dyn Disk) -> Result<(StateFile, Kept), StoreError> {
        let path = dir.join("state");
        let file = match File::options().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let made = make(&path, disk).map_err(StoreError::io("make", &path))?;
                return Ok((StateFile { file: made, path, number: 0 }, Kept::default()));
            }
            Err(e) => return Err(StoreError::io("open", &path)(e)),
        };
        let mut found = None;
        for at in SLOT_AT {
            let mut slot = [0; SLOT_BYTES];
            let whole = match file.read_exact_at(&mut slot, at) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => false,
                other => other.map(|()| true).map_err(StoreError::io("read", &path))?,
            };
            let read = if whole { decode(&slot) } else { None };
            found = found.max_by_number(read);
        }
        let Some((number, kept)) = found else {
            let what = "neither of its two slots is whole".to_string();
            return Err(StoreError::Damaged { path, offset: 0, what });
        };
        Ok((StateFile { file, path, number }, kept))
    }

    /// Writes `kept` in place of the older slot.
    pub(super) fn write(&mut self, disk: &dyn Disk, kept: &Kept) -> Result<(), StoreError> {
        let number = self.number + 1;
        let at = SLOT_AT[usize::from(number & 1 == 1)];
        disk.write_all_at(&self.file, &encode(number, kept), at).map_err(StoreError::io("write", &self.path))?;
        self.number = number;
        Ok(())
    }

    /// Makes what was written survive a power cut.
    pub(super) fn sync(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        disk.sync(&self.file).map_err(StoreError::io("sync", &self.path))
    }
}

trait Newer {
    fn max_by_number(self, other: Self) -> Self;
}

impl Newer for Option<(u64, Kept)> {
    fn max_by_number(self, other: Self) -> Self {
        match (self, other) {
            (Some(a), Some(b)) => Some(if b.0 > a.0 { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}

/// It appears under its name only when it is whole.
fn make(path: &Path, disk: &dyn Disk) -> io::Result<File> {
    let new = path.with_extension("new");
    let file = disk.create(&new)?;
    disk.write_all_at(&file, &encode(0, &Kept::default()), SLOT_AT[0])?;
    disk.sync(&file)?;
    std::fs::rename(&new, path)?;
    Ok(file)
}

fn encode(number: u64, kept: &Kept) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let Kept { done, dropped_records, dropped_bytes, synced, torn_ends } = *kept;
    let words = [number, done.position, done.records, done.bytes, dropped_records, dropped_bytes, synced, torn_ends];
    for (i, value) in words.into_iter().enumerate() {
        slot[16 + 8 * i..24 + 8 * i].copy_from_slice(&value.to_le_bytes());
    }
    let sum = crc32fast::hash(&slot[..SUM_AT]);
    slot[SUM_AT..SUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
    slot
}

fn decode(slot: &[u8; SLOT_BYTES]) -> Option<(u64, Kept)> {
    let sum = crc32fast::hash(&slot[..SUM_AT]).to_le_bytes();
    if slot[..8] != *MAGIC || slot[8..12] != VERSION.to_le_bytes() || slot[SUM_AT..SUM_AT + 4] != sum {
        return None;
    }
    let at = |i: usize| word(slot, 16 + 8 * i);
    let done = Mark { position: at(1), records: at(2), bytes: at(3) };
    Some((at(0), Kept { done, dropped_records: at(4), dropped_bytes: at(5), synced: at(6), torn_ends: at(7) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    fn kept(n: u64) -> Kept {
        let done = Mark { position: n * 8, records: n, bytes: n * 3 };
        Kept { done, dropped_records: n, dropped_bytes: n + 1, synced: n + 2, torn_ends: n + 3 }
    }

    #[test]
    fn what_was_written_last_is_read_and_a_torn_slot_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, first) = StateFile::open(dir.path(), &RealDisk).unwrap();
        assert_eq!(first, Kept::default());
        for n in 1..=4 {
            file.write(&RealDisk, &kept(n)).unwrap();
            assert_eq!(StateFile::open(dir.path(), &RealDisk).unwrap().1, kept(n));
        }
        // The fourth lies in the first slot.
        for cut in [0, 20, 90] {
            file.file.write_all_at(&[0xff; SLOT_BYTES][cut..], cut as u64).unwrap();
            assert_eq!(StateFile::open(dir.path(), &RealDisk).unwrap().1, kept(3), "cut at {cut}");
            file.file.write_all_at(&encode(4, &kept(4)), 0).unwrap();
        }
        file.file.set_len(0).unwrap();
        let refused = StateFile::open(dir.path(), &RealDisk).unwrap_err();
        assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    }
}
