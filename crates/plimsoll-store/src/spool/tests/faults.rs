//! A disk that stops at any byte: dead, as after a kill; full; or broken for a while. After each the spool holds exactly what was said to
//! be stored, and at most the one record that was on its way.

use std::fs::File;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::*;

/// What happens when the steps are used up; a written byte is a step, and so is every other call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Nothing works any more.
    Dead,
    /// So many calls fail, then it works again.
    Fails(Errno, u32),
}

#[derive(Debug)]
struct Plan {
    left: u64,
    then: Then,
    used: u64,
    syncs: u64,
}

#[derive(Clone, Debug)]
struct Faulty(Arc<Mutex<Plan>>);

impl Faulty {
    fn after(left: u64, then: Then) -> Faulty {
        Faulty(Arc::new(Mutex::new(Plan { left, then, used: 0, syncs: 0 })))
    }

    /// How many of `steps` work.
    fn grant(&self, steps: u64) -> (u64, io::Result<()>) {
        let mut plan = self.0.lock();
        let granted = steps.min(plan.left);
        plan.left -= granted;
        plan.used += granted;
        if granted == steps {
            return (granted, Ok(()));
        }
        let errno = match &mut plan.then {
            Then::Dead => Errno::IO,
            Then::Fails(errno, times) => {
                let errno = *errno;
                *times -= 1;
                if *times == 0 {
                    plan.left = u64::MAX;
                }
                errno
            }
        };
        (granted, Err(errno.into()))
    }

    fn one(&self) -> io::Result<()> {
        self.grant(1).1
    }

    fn used(&self) -> u64 {
        self.0.lock().used
    }
}

impl Disk for Faulty {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.one()?;
        RealDisk.create(path)
    }

    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (granted, outcome) = self.grant(bytes.len() as u64);
        RealDisk.write_all_at(file, &bytes[..granted as usize], offset)?;
        outcome
    }

    fn reserve(&self, file: &File, bytes: u64) -> io::Result<()> {
        self.one()?;
        RealDisk.reserve(file, bytes)
    }

    fn cut(&self, file: &File, bytes: u64) -> io::Result<()> {
        self.one()?;
        RealDisk.cut(file, bytes)
    }

    fn sync(&self, _file: &File) -> io::Result<()> {
        self.one()?;
        self.0.lock().syncs += 1;
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.one()?;
        RealDisk.remove(path)
    }
}

/// How far a life came, as its calls said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Said {
    appended: u64,
    acked: u64,
}

/// Appends records of these lengths; after every third one it reads two and acknowledges them. Ends at the first failure.
fn live(options: &Options, disk: &Faulty, lengths: &[usize]) -> Said {
    let mut said = Said::default();
    let Ok((writer, mut reader, _)) = open_on(options.clone(), Box::new(disk.clone())) else { return said };
    for (number, len) in lengths.iter().enumerate() {
        if writer.append(&record(number as u64, *len), 1).is_err() {
            return said;
        }
        said.appended += 1;
        if number % 3 == 2 {
            for _ in 0..2 {
                let Ok(Some(record)) = reader.next() else { return said };
                let receipt = record.receipt;
                if reader.ack(receipt).is_err() {
                    return said;
                }
                said.acked += 1;
            }
        }
    }
    said
}

/// What a life after that one finds.
fn check(options: &Options, said: Said, context: &str) {
    let (writer, mut reader, recovery) = open(options.clone()).unwrap_or_else(|e| panic!("{context}: {e}"));
    let left = waiting(&mut reader);
    let stats = writer.stats();
    let first = stats.acknowledged_records_total;
    assert!((said.acked..=said.acked + 1).contains(&first), "{context}: {first} acknowledged, said was {said:?}");
    let end = stats.appended_records_total;
    assert!((said.appended..=said.appended + 1).contains(&end), "{context}: {end} stored, said was {said:?}");
    assert_eq!(left, (first..end).collect::<Vec<_>>(), "{context}");
    assert_eq!(stats.torn_ends_total, u64::from(recovery.torn_bytes > 0), "{context}");
    writer.append(&record(end, 50), 1).unwrap_or_else(|e| panic!("{context}: {e}"));
    drop((writer, reader));
    let (_writer, mut reader, again) = open(options.clone()).unwrap_or_else(|e| panic!("{context}, again: {e}"));
    assert_eq!(again.torn_bytes, 0, "{context}: cut twice");
    assert_eq!(waiting(&mut reader), (first..=end).collect::<Vec<_>>(), "{context}, again");
}

fn steps_of(options: &Options, lengths: &[usize]) -> u64 {
    let disk = Faulty::after(u64::MAX, Then::Dead);
    let said = live(options, &disk, lengths);
    assert_eq!(said.appended, lengths.len() as u64);
    std::fs::remove_dir_all(&options.dir).unwrap();
    disk.used()
}

/// A kill after each of the steps that `stops` names.
fn killed_at(lengths: &[usize], sync: SyncPolicy, stops: impl Fn(u64) -> bool) {
    let dir = quick_dir();
    let options = Options { sync, ..small(&dir.path().join("spool")) };
    let steps = steps_of(&options, lengths);
    let mut kills = 0;
    for stop in (0..=steps).filter(|stop| stops(*stop)) {
        let said = live(&options, &Faulty::after(stop, Then::Dead), lengths);
        check(&options, said, &format!("killed after {stop} of {steps} steps"));
        std::fs::remove_dir_all(&options.dir).unwrap();
        kills += 1;
    }
    assert!(kills > 100, "only {kills} kills");
}

#[test]
fn a_kill_at_every_byte_loses_nothing_that_was_stored_and_doubles_nothing() {
    killed_at(&[0, 1, 40, 7, 130, 8, 64, 3, 20], SyncPolicy::Never, |_| true);
}

#[test]
fn a_kill_at_every_byte_with_a_sync_after_each_record() {
    killed_at(&[0, 30, 9, 17], SyncPolicy::Always, |_| true);
}

#[test]
fn a_kill_around_the_end_of_segments() {
    killed_at(&[6000; 9], SyncPolicy::Never, |stop| stop % 97 == 0);
    killed_at(&[6000; 9], SyncPolicy::Always, |stop| stop % 211 == 0);
}

#[test]
fn a_kill_inside_a_record_of_several_frames_takes_it_whole() {
    let dir = quick_dir();
    let options = Options { sync: SyncPolicy::Never, ..Options::new(dir.path().join("spool")).budget(2 << 20) };
    let lengths = [10, 200_000, 10];
    let steps = steps_of(&options, &lengths);
    // Around the ends of the frames, and some in between.
    let near = |stop: u64| (stop % 65_568).abs_diff(300) < 260;
    for stop in (0..steps).filter(|stop| (near(*stop) && stop % 7 == 0) || stop % 6007 == 0) {
        let said = live(&options, &Faulty::after(stop, Then::Dead), &lengths);
        check(&options, said, &format!("killed after {stop} of {steps} steps"));
        std::fs::remove_dir_all(&options.dir).unwrap();
    }
}

/// A disk that fails at every step, for so many calls, with a service that tries again: nothing is missing, nothing is double.
fn fails_at_every_step(errno: Errno, times: u32, lengths: &[usize]) {
    let dir = quick_dir();
    let options = small(&dir.path().join("spool"));
    let steps = steps_of(&options, lengths);
    for stop in 0..steps {
        let context = format!("{errno} after {stop} of {steps} steps, {times} times");
        let disk = Faulty::after(stop, Then::Fails(errno, times));
        let (writer, mut reader) = loop {
            match open_on(options.clone(), Box::new(disk.clone())) {
                Ok((writer, reader, _)) => break (writer, reader),
                Err(e) => assert!(matches!(e, StoreError::Io { .. }), "{context}: {e}"),
            }
        };
        let mut failed = 0;
        for (number, len) in lengths.iter().enumerate() {
            while let Err(e) = writer.append(&record(number as u64, *len), 1) {
                assert!(matches!(e, AppendError::Io(_)), "{context}: {e}");
                failed += 1;
                assert!(failed <= times, "{context}: it does not heal");
            }
        }
        assert!(writer.stats().errors_total >= u64::from(failed), "{context}");
        let all: Vec<u64> = (0..lengths.len() as u64).collect();
        assert_eq!(waiting(&mut reader), all, "{context}");
        drop((writer, reader));
        let (_writer, mut reader, recovery) = open(options.clone()).unwrap_or_else(|e| panic!("{context}: {e}"));
        assert_eq!((waiting(&mut reader), recovery.torn_bytes), (all, 0), "{context}: after its end");
        std::fs::remove_dir_all(&options.dir).unwrap();
    }
}

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_record_costs_a_retry() {
    fails_at_every_step(Errno::NOSPC, 1, &[100, 300, 20, 1]);
}

#[test]
fn a_disk_that_breaks_in_the_middle_of_a_record_and_cannot_be_cut_either_costs_retries() {
    fails_at_every_step(Errno::IO, 3, &[100, 300, 20, 1]);
}

/// The trap: what a failed write left must not stand behind a shorter record that is written in its place.
#[test]
fn a_shorter_record_in_place_of_a_failed_one_leaves_nothing_of_it() {
    let dir = quick_dir();
    let options = small(dir.path());
    let disk = Faulty::after(u64::MAX, Then::Dead);
    let (writer, reader, _) = open_on(options.clone(), Box::new(disk.clone())).unwrap();
    writer.append(&record(0, 10), 1).unwrap();
    *disk.0.lock() = Plan { left: 5000, then: Then::Fails(Errno::NOSPC, 2), used: 0, syncs: 0 };
    writer.append(&record(1, 9000), 1).unwrap_err();
    writer.append(&record(1, 10), 1).unwrap();
    std::mem::forget((writer, reader)); // as a kill: nothing is tidied up
    let copy = quick_dir();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let (_writer, mut reader, recovery) = open(small(copy.path())).unwrap();
    assert_eq!((waiting(&mut reader), recovery.torn_bytes), (vec![0, 1], 0));
}

#[test]
fn a_failed_sync_is_told_and_its_records_are_written_again_not_twice() {
    let dir = quick_dir();
    let disk = Faulty::after(u64::MAX, Then::Dead);
    let options = Options { sync: SyncPolicy::Always, ..small(dir.path()) };
    let (writer, mut reader, _) = open_on(options, Box::new(disk.clone())).unwrap();
    writer.append(&record(0, 100), 1).unwrap();
    assert_eq!(disk.0.lock().syncs, 2, "the state's, when it was made, and the record's");
    let frame = record_bytes(100) as u64;
    *disk.0.lock() = Plan { left: frame, then: Then::Fails(Errno::IO, 1), used: 0, syncs: 0 };
    let told = writer.append(&record(1, 100), 1).unwrap_err();
    assert!(matches!(told, AppendError::NotSynced(_)), "{told}");
    let before = disk.used();
    writer.sync().unwrap();
    assert!(disk.used() - before >= 2 * frame, "all of the segment that the kernel took for written is written again");
    assert_eq!(waiting(&mut reader), [0, 1]);
}

/// After a power cut only the newest segment may be torn, whatever is said about syncing.
#[test]
fn a_segment_is_synced_before_the_next_one_begins() {
    let dir = quick_dir();
    let disk = Faulty::after(u64::MAX, Then::Dead);
    let options = Options { sync: SyncPolicy::Never, ..small(dir.path()) };
    let (writer, _reader, _) = open_on(options, Box::new(disk.clone())).unwrap();
    let before = disk.0.lock().syncs;
    for number in 0..300 {
        writer.append(&record(number, 100), 1).unwrap();
        let begun = crate::segment::list(dir.path()).unwrap().len() as u64;
        assert_eq!(disk.0.lock().syncs - before, begun - 1);
    }
    assert_eq!(disk.0.lock().syncs - before, 2);
}
