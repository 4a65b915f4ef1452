//! What goes wrong around a store: files damaged, removed, cut, locked; a disk that is full; a ring that is gone. Each is said, nothing
//! else is lost by it, and the store goes on.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Entry, Place, Program, account, everything, hold_database, until};
use crate::{GapReason, Intake, Settings, Store, StoreError, Stream, open};

const LONG: Duration = Duration::from_secs(30);

/// Prints about `len` bytes of whole lines to stdout, slowly enough that nothing is dropped.
fn print(program: &mut Program, intake: &mut Intake, store: &Store, len: usize) {
    let mut done = 0;
    while done < len {
        program.print(Stream::Stdout, 30_000.min(len - done));
        done += program.deliver(intake, Stream::Stdout, 1);
        until("the ring has room", || store.stats().ring_used_bytes < 100_000);
    }
    program.finish(intake);
    until("all is spooled", || store.stats().ring_used_bytes == 0);
}

fn quick(place: &Place) -> Settings {
    Settings { seal_after: Duration::from_millis(20), ..place.settings() }
}

fn segments(place: &Place) -> Vec<PathBuf> {
    let dir = place.path().join("spool");
    crate::segment::list(&dir).unwrap().into_iter().map(|start| crate::segment::path(&dir, start)).collect()
}

fn gaps(entries: &[(u64, Entry)]) -> Vec<GapReason> {
    let reason = |(_, e): &(u64, Entry)| if let Entry::Gap { reason, .. } = e { Some(*reason) } else { None };
    entries.iter().filter_map(reason).collect()
}

/// The numbers of the whole lines among `entries`; each must rise. What stands before damage may be a part of a line.
fn numbers(entries: &[(u64, Entry)]) -> Vec<u64> {
    let number = |(_, e): &(u64, Entry)| match e {
        Entry::Line { text, .. } => str::from_utf8(text).unwrap().split(' ').next().unwrap().parse().ok(),
        Entry::Gap { .. } => None,
    };
    let damaged = |i: usize| matches!(entries.get(i), Some((_, Entry::Gap { reason: GapReason::SpoolDamaged, .. })));
    let whole = entries.iter().enumerate().filter(|(i, _)| !damaged(i + 1));
    let numbers: Vec<u64> = whole.filter_map(|(_, entry)| number(entry)).collect();
    let wrong = numbers.windows(2).find(|pair| pair[0] >= pair[1]);
    assert_eq!(wrong, None, "numbers that do not rise");
    numbers
}

#[test]
fn a_second_opener_is_refused() {
    let place = Place::new();
    let (intake, store, _) = open(place.settings()).unwrap();
    let refused = open(place.settings()).map(|_| ()).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("another process"), "{refused}");
    drop((intake, store));
    open(place.settings()).map(|_| ()).unwrap();
}

#[test]
fn closing_keeps_its_deadline_and_loses_nothing() {
    let place = Place::new();
    let (mut intake, store, _) = open(place.settings()).unwrap();
    let mut program = Program::new(1);
    print(&mut program, &mut intake, &store, 100_000);
    let lock = hold_database(&place.path());
    let start = Instant::now();
    let closed = store.close(Duration::from_millis(300));
    assert!(start.elapsed() < Duration::from_millis(1500), "closing took {:?}", start.elapsed());
    assert!(!closed.complete && closed.spool_bytes > 100_000, "{closed:?}");
    assert_eq!(closed.stuck_threads, Vec::<&str>::new());
    assert!(closed.stats.degraded.is_some_and(|said| said.contains("locked")));
    drop(lock);
    assert!(intake.read_from(Stream::Stdout, std::os::fd::AsFd::as_fd(program.read_end(Stream::Stdout)), 1).is_err());
    let (_, store, recovery) = open(place.settings()).unwrap();
    assert!(recovery.adopted_ring && !recovery.ring_lost, "{recovery:?}");
    assert!(store.close(LONG).complete);
    let all = everything(&place.path(), &place.ring());
    assert_eq!(account(&all[&Stream::Stdout], program.lines(Stream::Stdout)), 0);
}

/// Ends a first life cleanly, then prints in a second one whose database cannot be written at its start, but can be later.
fn unwritable_at_an_ordinary_start(place: &Place, dir: &Path, spoil: impl FnOnce(), mend: impl FnOnce()) {
    let settings = || Settings { dir: dir.to_path_buf(), ..quick(place) };
    let (mut intake, store, _) = open(settings()).unwrap();
    let mut program = Program::new(1);
    print(&mut program, &mut intake, &store, 50_000);
    assert!(store.close(LONG).complete);
    assert!(!place.ring().exists(), "a clean end removes the ring");
    spoil();
    let (mut intake, store, recovery) = open(settings()).unwrap();
    assert!(recovery.degraded.is_some() && !recovery.ring_lost && !recovery.database_lost, "{recovery:?}");
    program.print(Stream::Stdout, 50_000);
    program.finish_lines(Stream::Stdout);
    program.deliver(&mut intake, Stream::Stdout, 2);
    assert!(store.stats().degraded.is_some(), "{:?}", store.stats());
    mend();
    until("it heals", || store.stats().degraded.is_none() && store.stats().spool_used_bytes == 0);
    assert!(store.close(LONG).complete);
    let all = everything(dir, &place.ring());
    assert_eq!(account(&all[&Stream::Stdout], program.lines(Stream::Stdout)), 0);
    assert_eq!(gaps(&all[&Stream::Plimsoll]), []);
}

#[test]
fn a_database_that_is_locked_at_an_ordinary_start_costs_nothing() {
    let place = Place::new();
    let lock = std::cell::RefCell::new(None);
    let spoil = || drop(lock.replace(Some(hold_database(&place.path()))));
    unwritable_at_an_ordinary_start(&place, &place.path(), spoil, || drop(lock.take()));
}

/// Needs the right to mount: elsewhere it says that it did not run.
#[test]
fn a_disk_that_is_full_at_an_ordinary_start_costs_nothing() {
    let place = Place::new();
    let Some(small) = super::Small::mount(&place, c"size=12m") else { return };
    let filler = small.path.join("filler");
    let fill = || {
        let mut file = File::create(&filler).unwrap();
        while file.write(&[7; 4096]).is_ok_and(|n| n > 0) {}
    };
    unwritable_at_an_ordinary_start(&place, &small.path.join("web"), fill, || std::fs::remove_file(&filler).unwrap());
}

#[test]
fn a_torn_segment_is_cut_once_and_read_again_from_the_ring() {
    let place = Place::new();
    let (mut intake, store, _) = open(place.settings()).unwrap();
    let mut program = Program::new(1);
    print(&mut program, &mut intake, &store, 60_000);
    drop(store);
    let newest = segments(&place).pop().unwrap();
    let file = OpenOptions::new().write(true).open(&newest).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1000).unwrap();
    let (_, store, recovery) = open(place.settings()).unwrap();
    assert!(recovery.torn_bytes > 0 && recovery.ring_bytes >= 1000, "{recovery:?}");
    drop(store);
    let (_, store, recovery) = open(place.settings()).unwrap();
    assert_eq!(recovery.torn_bytes, 0);
    assert!(store.close(LONG).complete);
    let all = everything(&place.path(), &place.ring());
    assert_eq!(account(&all[&Stream::Stdout], program.lines(Stream::Stdout)), 0);
}

/// Fills three segments and leaves them unsealed.
fn three_segments(place: &Place) -> (Program, Vec<PathBuf>) {
    let (mut intake, store, _) = open(place.settings()).unwrap();
    let mut program = Program::new(1);
    let lock = hold_database(&place.path());
    print(&mut program, &mut intake, &store, 2_500_000);
    drop(store);
    drop(lock);
    let files = segments(place);
    assert_eq!(files.len(), 3);
    (program, files)
}

/// Opens after an older segment was spoilt: nothing is refused, the lines before and behind the damage are there, and a gap between them.
fn spoilt_between_two_lives(ring: bool, which: usize, spoil: impl FnOnce(&File), set_aside: u64) {
    let place = Place::new();
    let (program, files) = three_segments(&place);
    if !ring {
        // What a power cut does.
        std::fs::remove_file(place.ring()).unwrap();
    }
    let file = OpenOptions::new().read(true).write(true).open(&files[which]).unwrap();
    let before = file.metadata().unwrap().len();
    spoil(&file);
    let spoilt = file.metadata().unwrap().len();
    let (mut intake, store, recovery) = open(place.settings()).unwrap();
    assert_eq!((recovery.spool_set_aside, recovery.ring_lost), (set_aside, !ring), "{recovery:?}");
    assert_eq!(recovery.torn_bytes > 0, set_aside == 0 && spoilt < before, "{recovery:?}");
    let aside = files[which].with_extension("seg.damaged");
    assert_eq!(std::fs::metadata(aside).ok().map(|m| m.len()), (set_aside > 0).then_some(before));
    let mut later = Program::new(3);
    // Another program: what it prints begins with a line.
    intake.end_of(Stream::Stderr, 1);
    later.print(Stream::Stderr, 30_000);
    later.finish(&mut intake);
    assert!(store.close(LONG).complete);
    let all = everything(&place.path(), &place.ring());
    let (out, err) = (&all[&Stream::Stdout], &all[&Stream::Stderr]);
    let mut expected = vec![GapReason::SpoolDamaged];
    expected.extend((!ring).then_some(GapReason::RingLost));
    assert_eq!(gaps(out), expected, "{recovery:?}");
    let (kept, lines) = (numbers(out), program.lines(Stream::Stdout));
    assert_eq!((kept.first(), kept.last()), (Some(&0), Some(&(lines - 1))));
    assert!(kept.len() as u64 > lines / 5 && (kept.len() as u64) < lines, "{} of {lines}", kept.len());
    assert!(numbers(err).into_iter().eq(0..later.lines(Stream::Stderr)));
}

#[test]
fn a_power_cut_that_tears_an_older_segment_costs_what_was_torn() {
    spoilt_between_two_lives(false, 1, |file| file.set_len(file.metadata().unwrap().len() - 1000).unwrap(), 0);
    spoilt_between_two_lives(true, 0, |file| file.set_len(500_000).unwrap(), 0);
}

#[test]
fn a_damaged_segment_is_set_aside_at_open_and_what_is_whole_stays() {
    spoilt_between_two_lives(true, 1, |file| file.write_all_at(b"spoilt", 500_000).unwrap(), 1);
    spoilt_between_two_lives(false, 1, |file| file.write_all_at(&[0; 4096], 0).unwrap(), 1);
}

#[test]
fn a_segment_that_is_not_ours_is_refused_and_left() {
    let place = Place::new();
    let (_, files) = three_segments(&place);
    let mut head = crate::segment::header(crate::segment::Content::Log, 0);
    head[8] = 3;
    let sum = crc32fast::hash(&head[..24]);
    head[24..28].copy_from_slice(&sum.to_le_bytes());
    OpenOptions::new().write(true).open(&files[0]).unwrap().write_all_at(&head, 0).unwrap();
    let refused = open(place.settings()).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("a spool segment of version 3"), "{refused}");
    assert!(files[0].exists());
}

/// Files set aside: the newest two stay, within the spool's budget, and go when that is needed.
#[test]
fn what_is_set_aside_is_bounded() {
    let place = Place::new();
    let (mut intake, store, _) = open(place.settings()).unwrap();
    let mut program = Program::new(1);
    for number in 0..4 {
        std::fs::write(place.path().join(format!("spool/{number:016x}.seg.damaged")), vec![7; 1 << 20]).unwrap();
    }
    print(&mut program, &mut intake, &store, 50_000);
    assert!(store.close(LONG).complete);
    let aside = || crate::segment::aside(&place.path().join("spool")).unwrap().len();
    let (mut intake, store, _) = open(place.settings()).unwrap();
    assert_eq!(aside(), 2);
    let lock = hold_database(&place.path());
    print(&mut program, &mut intake, &store, 3_000_000);
    assert_eq!(aside(), 0, "{:?}", store.stats());
    drop(lock);
    assert!(store.close(LONG).complete);
}

#[test]
fn a_segment_that_the_disk_cannot_read_is_set_aside() {
    let place = Place::new();
    let (mut intake, store, _) = open(place.settings()).unwrap();
    let mut program = Program::new(1);
    let lock = hold_database(&place.path());
    print(&mut program, &mut intake, &store, 2_500_000);
    let files = segments(&place);
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&files[1]).unwrap());
    crate::segment::UNREADABLE.lock().insert(inode, 500_000);
    drop(lock);
    until("it is noticed", || store.stats().last_error.is_some_and(|said| said.contains("the disk cannot read it")));
    assert!(store.close(LONG).complete);
    crate::segment::UNREADABLE.lock().remove(&inode);
    assert!(files[1].with_extension("seg.damaged").exists());
    let all = everything(&place.path(), &place.ring());
    assert_eq!(gaps(&all[&Stream::Stdout]), [GapReason::SpoolDamaged]);
    assert_eq!(numbers(&all[&Stream::Stdout]).last(), Some(&(program.lines(Stream::Stdout) - 1)));
}

#[test]
fn damage_while_running_sets_the_segment_aside() {
    let place = Place::new();
    let (mut intake, store, _) = open(place.settings()).unwrap();
    let mut program = Program::new(1);
    let lock = hold_database(&place.path());
    print(&mut program, &mut intake, &store, 2_500_000);
    let files = segments(&place);
    OpenOptions::new().write(true).open(&files[1]).unwrap().write_all_at(b"spoilt", 500_000).unwrap();
    drop(lock);
    until("it is noticed", || store.stats().last_error.is_some_and(|said| said.contains("set aside")));
    print(&mut program, &mut intake, &store, 100_000);
    assert!(store.close(LONG).complete);
    assert!(files[1].with_extension("seg.damaged").exists());
    let all = everything(&place.path(), &place.ring());
    assert_eq!(gaps(&all[&Stream::Stdout]), [GapReason::SpoolDamaged]);
    assert_eq!(numbers(&all[&Stream::Stdout]).last(), Some(&(program.lines(Stream::Stdout) - 1)));
}

#[test]
fn a_corrupt_database_is_set_aside_at_open() {
    let place = Place::new();
    let (mut intake, store, _) = open(quick(&place)).unwrap();
    let mut program = Program::new(1);
    print(&mut program, &mut intake, &store, 50_000);
    assert!(store.close(LONG).complete);
    let database = place.path().join("logs.db");
    File::options().write(true).open(&database).unwrap().write_all_at(&[0x55; 4096], 0).unwrap();
    let (mut intake, store, recovery) = open(quick(&place)).unwrap();
    let aside = recovery.database_set_aside.clone().unwrap();
    assert!(recovery.database_lost && aside.exists(), "{recovery:?}");
    let lost = program.lines(Stream::Stdout);
    print(&mut program, &mut intake, &store, 50_000);
    assert!(store.close(LONG).complete);
    let all = everything(&place.path(), &place.ring());
    assert_eq!(gaps(&all[&Stream::Plimsoll]), [GapReason::DatabaseLost]);
    let expected: Vec<u64> = (lost..program.lines(Stream::Stdout)).collect();
    assert_eq!(numbers(&all[&Stream::Stdout]), expected);
}

/// The database is spoilt by `spoil` while the store runs; the store says so, begins a new one, and loses nothing that comes later.
fn spoilt_while_running(spoil: impl Fn(&Path)) {
    let place = Place::new();
    let (mut intake, store, _) = open(quick(&place)).unwrap();
    let mut program = Program::new(1);
    print(&mut program, &mut intake, &store, 300_000);
    until("the lines are sealed", || store.stats().spool_used_bytes == 0);
    let lost = program.lines(Stream::Stdout);
    spoil(&place.path().join("logs.db"));
    print(&mut program, &mut intake, &store, 300_000);
    until("the lines are sealed", || store.stats().spool_used_bytes == 0);
    let closed = store.close(LONG);
    assert!(closed.complete, "{closed:?}");
    let all = everything(&place.path(), &place.ring());
    assert_eq!(gaps(&all[&Stream::Plimsoll]), [GapReason::DatabaseLost]);
    let expected: Vec<u64> = (lost..program.lines(Stream::Stdout)).collect();
    assert_eq!(numbers(&all[&Stream::Stdout]), expected);
}

#[test]
fn a_database_removed_while_running_is_replaced() {
    spoilt_while_running(|database| std::fs::remove_file(database).unwrap());
}

#[test]
fn a_database_replaced_by_garbage_while_running_is_set_aside() {
    spoilt_while_running(|database| {
        let garbage = database.with_extension("garbage");
        std::fs::write(&garbage, vec![0x55; 100_000]).unwrap();
        std::fs::rename(garbage, database).unwrap();
    });
}

#[test]
fn a_lost_ring_is_a_gap_of_unknown_count() {
    let place = Place::new();
    let (mut intake, store, _) = open(quick(&place)).unwrap();
    let mut program = Program::new(1);
    print(&mut program, &mut intake, &store, 50_000);
    let before = program.lines(Stream::Stdout);
    drop(store);
    // What a restart of the machine does.
    std::fs::remove_file(place.ring()).unwrap();
    let (mut intake, store, recovery) = open(quick(&place)).unwrap();
    assert!(recovery.ring_lost && !recovery.adopted_ring, "{recovery:?}");
    print(&mut program, &mut intake, &store, 50_000);
    assert!(store.close(LONG).complete);
    let all = everything(&place.path(), &place.ring());
    for stream in [Stream::Stdout, Stream::Stderr] {
        assert_eq!(gaps(&all[&stream]), [GapReason::RingLost]);
    }
    let gap = all[&Stream::Stdout].iter().position(|(_, e)| matches!(e, Entry::Gap { .. })).unwrap();
    assert_eq!(gap as u64, before, "the gap stands where the ring was lost");
    let expected: Vec<u64> = (0..program.lines(Stream::Stdout)).collect();
    assert_eq!(numbers(&all[&Stream::Stdout]), expected);
}

#[test]
fn retention_deletes_the_oldest_and_gives_disk_back() {
    let place = Place::new();
    let settings = Settings { retain_bytes: 1 << 20, ..quick(&place) };
    let (mut intake, store, _) = open(settings).unwrap();
    let (read, mut write) = super::pipe();
    let mut random = Program::new(9);
    for number in 0..4000u32 {
        // Lines that do not compress: 4,000 of 1 KB.
        let text: String = (0..1000).map(|_| char::from(b'!' + random.random(90) as u8)).collect();
        write.write_all(format!("{number} {}\n", &text[..990]).as_bytes()).unwrap();
        intake.read_from(Stream::Stdout, std::os::fd::AsFd::as_fd(&read), number.into()).unwrap();
        if number % 50 == 0 {
            until("there is room", || store.stats().ring_used_bytes < 100_000);
        }
    }
    let closed = store.close(LONG);
    assert!(closed.complete && closed.stats.deleted_chunks_total > 0, "{closed:?}");
    let len = std::fs::metadata(place.path().join("logs.db")).unwrap().len();
    assert!(len < 2 << 20, "the database has {len} bytes");
    let all = everything(&place.path(), &place.ring());
    let numbers = numbers(&all[&Stream::Stdout]);
    assert_eq!(numbers.last(), Some(&3999));
    assert!(numbers[0] > 2000 && numbers.len() as u64 == 4000 - numbers[0], "from {}", numbers[0]);
}

/// Needs the right to mount: elsewhere it says that it did not run.
#[test]
fn a_full_disk_drops_counts_and_heals() {
    let place = Place::new();
    let Some(small) = super::Small::mount(&place, c"size=12m") else { return };
    let mount = small.path.clone();
    let settings = Settings { dir: mount.join("web"), spool_bytes: 64 << 20, ..quick(&place) };
    let (mut intake, store, _) = open(settings).unwrap();
    let mut program = Program::new(5);
    print(&mut program, &mut intake, &store, 200_000);
    let mut filler = File::create(mount.join("filler")).unwrap();
    while filler.write(&[7; 4096]).is_ok_and(|n| n > 0) {}
    let mut flood = || {
        program.print(Stream::Stdout, 60_000);
        program.deliver(&mut intake, Stream::Stdout, 1);
    };
    until("lines are dropped", || {
        flood();
        store.stats().stream(Stream::Stdout).dropped_lines_total > 1000
    });
    assert!(store.stats().degraded.is_some(), "{:?}", store.stats());
    drop(filler);
    std::fs::remove_file(mount.join("filler")).unwrap();
    until("it heals", || {
        flood();
        let stats = store.stats();
        stats.degraded.is_none() && stats.ring_used_bytes < 200_000
    });
    program.finish(&mut intake);
    let closed = store.close(LONG);
    assert!(closed.complete, "{closed:?}");
    let all = everything(&mount.join("web"), &place.ring());
    assert!(account(&all[&Stream::Stdout], program.lines(Stream::Stdout)) > 0);
}
