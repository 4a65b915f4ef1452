//! What is kept while lines come all the time: each bound of retention holds at every moment, the newest lines stay, and what goes is
//! counted by its reason. And a database that cannot be written: said, waited for, healed.

use std::io::Write;
use std::time::Duration;

use super::{Place, Program, account, everything, until};
use crate::{Intake, RetainReason, Settings, Stats, Store, Stream, open};

const LONG: Duration = Duration::from_secs(30);

fn now_unix_ns() -> u64 {
    crate::clock::unix_ns()
}

/// Prints numbered lines of 1,000 bytes that do not compress, and has `see` look in between.
fn flood(intake: &mut Intake, store: &Store, lines: u32, at_unix_ns: u64, see: &mut dyn FnMut(Stats)) {
    let (read, mut write) = super::pipe();
    let mut random = Program::new(9);
    for number in 0..lines {
        let text: String = (0..990).map(|_| char::from(b'!' + random.random(90) as u8)).collect();
        writeln!(write, "{number} {text}").unwrap();
        intake.read_from(Stream::Stdout, std::os::fd::AsFd::as_fd(&read), at_unix_ns).unwrap();
        if number % 50 == 49 {
            // The sealer keeps up, so that what it keeps can be seen.
            until("there is room", || {
                let stats = store.stats();
                stats.ring_used_bytes < 100_000 && stats.spool_used_bytes < 4 << 20
            });
            see(store.stats());
        }
    }
}

fn numbers(place: &Place) -> Vec<u64> {
    let all = everything(&place.path(), &place.ring());
    let number = |(_, entry): &(u64, super::Entry)| match entry {
        super::Entry::Line { text, .. } => str::from_utf8(text).unwrap().split(' ').next().unwrap().parse().ok(),
        super::Entry::Gap { .. } => None,
    };
    all[&Stream::Stdout].iter().filter_map(number).collect()
}

fn quick(place: &Place) -> Settings {
    Settings { seal_after: Duration::from_millis(20), spool_bytes: 8 << 20, ..place.settings() }
}

/// More than a chunk waits when sealing is due, though neither what was read is a chunk's worth, nor what was not.
#[test]
fn what_is_due_is_sealed_to_its_end() {
    let place = Place::new();
    let settings = Settings { seal_after: Duration::from_secs(3600), spool_bytes: 64 << 20, ..place.settings() };
    let (mut intake, store, _) = open(settings).unwrap();
    let (read, mut write) = super::pipe();
    let mut print = |bytes: usize, times: u64| {
        for number in 0..times {
            until("there is room", || store.stats().ring_used_bytes < 100_000);
            writeln!(write, "{number:0width$}", width = bytes - 1).unwrap();
            intake.read_from(Stream::Stdout, std::os::fd::AsFd::as_fd(&read), 1).unwrap();
        }
    };
    // Frames of 136 bytes for 100 of text: 1 MiB of them, which is read, is no full chunk.
    print(100, 8000);
    print(60_000, 15);
    until("everything is in the spool", || store.stats().ring_used_bytes == 0);
    store.core.pressed.store(true, std::sync::atomic::Ordering::Release);
    store.core.wake_sealer();
    until("everything is sealed and the spool's file gone", || {
        let stats = store.stats();
        stats.kept_lines == 8000 + 15 && stats.spool_used_bytes == 0
    });
    assert!(store.stats().sealed_chunks_total > 1, "{:?}", store.stats());
}

#[test]
fn lines_are_bounded_under_continuous_writes() {
    let place = Place::new();
    let settings = Settings { retain_lines: Some(3000), ..quick(&place) };
    let (mut intake, store, _) = open(settings).unwrap();
    let mut most = 0;
    flood(&mut intake, &store, 12_000, 1, &mut |stats| most = most.max(stats.kept_lines));
    let closed = store.close(LONG);
    assert!(closed.complete, "{closed:?}");
    // A chunk has about 1,060 of them.
    assert!((3000..=4200).contains(&most), "{most} lines were kept at most");
    let retired = closed.stats.retired(RetainReason::Lines);
    assert_eq!(retired.lines_total + closed.stats.kept_lines, 12_000);
    assert_eq!(closed.stats.deleted_chunks_total, retired.chunks_total);
    let numbers = numbers(&place);
    assert_eq!((numbers.len() as u64, numbers.last()), (closed.stats.kept_lines, Some(&11_999)));
}

#[test]
fn what_gets_too_old_goes_also_when_nothing_comes() {
    let place = Place::new();
    let settings = Settings { retain_age: Some(Duration::from_secs(3600)), ..quick(&place) };
    let (mut intake, store, _) = open(settings.clone()).unwrap();
    let old = now_unix_ns() - 3599 * 1_000_000_000;
    flood(&mut intake, &store, 500, old, &mut |_| ());
    until("they are sealed", || store.stats().kept_lines == 500);
    until("they are too old", || store.stats().kept_lines == 0);
    assert_eq!(store.stats().retired(RetainReason::Age).lines_total, 500);
    // What was too old before it was opened goes as well.
    drop(store);
    let (mut intake, store, _) = open(Settings { retain_age: None, ..settings.clone() }).unwrap();
    flood(&mut intake, &store, 300, old - 1, &mut |_| ());
    assert!(store.close(LONG).complete);
    let (_intake, store, _) = open(settings).unwrap();
    until("they went", || store.stats().retired(RetainReason::Age).lines_total == 300);
}

/// The clock was wrong for a while: what is from a time to come holds back nothing that is behind it, and goes itself when it was seen
/// for so long.
#[test]
fn a_chunk_from_a_time_to_come_does_not_stop_ageing() {
    use crate::chunk::Builder;
    use crate::split::{Found, Resume};
    let place = Place::new();
    const HOUR: u64 = 3600 * 1_000_000_000;
    let settings = Settings { retain_age: Some(Duration::from_secs(3600)), ..place.settings() };
    std::fs::create_dir_all(&settings.dir).unwrap();
    let mut opened = crate::retain::open(&settings).unwrap();
    let mut position = 0;
    let mut add = |opened: &mut crate::retain::Opened, at_unix_ns: u64| {
        let mut builder = Builder::new(Stream::Stdout);
        position += 8;
        builder.push(position, at_unix_ns, Found::Line { text: b"a line", continued: false, unterminated: false });
        let sealed = builder.finish().unwrap().unwrap();
        opened.database.insert(&[sealed], &[Resume::default(); 3]).unwrap();
        opened.sealed(1, 1);
    };
    let now = 1000 * HOUR;
    let retain = |opened: &mut crate::retain::Opened, now: u64| {
        opened.retain(&settings, now, false, &mut |reason, _| assert_eq!(reason, RetainReason::Age)).unwrap();
        opened.lines()
    };
    for at in [now - 2, now + 9000 * HOUR, now - 1, now] {
        add(&mut opened, at);
    }
    assert_eq!(retain(&mut opened, now), 4);
    assert_eq!(opened.too_old_at_unix_ns(&settings).unwrap(), Some(now - 2 + HOUR));
    assert_eq!(retain(&mut opened, now + HOUR - 1), 3);
    assert_eq!(retain(&mut opened, now + HOUR), 1, "the one from a time to come went with the one behind it");
    assert_eq!(retain(&mut opened, now + HOUR + 1), 0);
    add(&mut opened, now + 9000 * HOUR);
    assert_eq!(retain(&mut opened, now + 3 * HOUR), 1);
    assert_eq!(opened.too_old_at_unix_ns(&settings).unwrap(), Some(now + 4 * HOUR));
    assert_eq!(retain(&mut opened, now + 4 * HOUR), 1);
    assert_eq!(retain(&mut opened, now + 4 * HOUR + 1), 0, "it was seen for an hour");
    assert_eq!(opened.too_old_at_unix_ns(&settings).unwrap(), None);
}

#[test]
fn the_sum_over_sources_holds_and_the_quiet_one_keeps_all() {
    let (place, mut sum_most) = (Place::new(), 0);
    let at = |name: &str| {
        let (dir, ring) = (place.dir.path().join(name), place.dir.path().join(format!("{name}.ring")));
        Settings { dir, ring_path: ring, retain_sum_bytes: Some(8 << 20), ..quick(&place) }
    };
    let (mut quiet, quiet_store, _) = open(at("quiet")).unwrap();
    flood(&mut quiet, &quiet_store, 500, 1, &mut |_| ());
    until("it is sealed", || quiet_store.stats().kept_lines == 500);
    let (mut loud, loud_store, _) = open(at("loud")).unwrap();
    flood(&mut loud, &loud_store, 45_000, 1, &mut |stats| {
        sum_most = sum_most.max(stats.database_bytes + quiet_store.stats().database_bytes);
    });
    let closed = loud_store.close(LONG);
    assert!(closed.complete, "{closed:?}");
    assert!(closed.stats.retired(RetainReason::Sum).chunks_total > 0, "{:?}", closed.stats);
    let kept = std::fs::metadata(place.dir.path().join("loud/logs.db")).unwrap().len();
    // Looked at every 16 MiB, and when it closes.
    assert!(kept <= 8 << 20 && sum_most <= (8 + 16 + 10) << 20, "{kept} bytes are left; {sum_most} at most");
    assert_eq!(quiet_store.stats().deleted_chunks_total, 0);
    assert!(quiet_store.close(LONG).complete);
}

/// A damaged database that was set aside stays while it fits, and goes before the oldest chunk does.
#[test]
fn what_is_set_aside_goes_before_what_can_be_read() {
    let place = Place::new();
    let settings = Settings { retain_bytes: 8 << 20, ..quick(&place) };
    std::fs::create_dir_all(&settings.dir).unwrap();
    let aside = settings.dir.join("logs.db.damaged-1");
    std::fs::write(&aside, vec![7; 6 << 20]).unwrap();
    let (mut intake, store, _) = open(settings).unwrap();
    flood(&mut intake, &store, 1000, 1, &mut |_| ());
    until("they are sealed", || store.stats().kept_lines == 1000);
    assert!(aside.exists());
    flood(&mut intake, &store, 3000, 1, &mut |_| ());
    until("they are sealed", || store.stats().kept_lines == 4000);
    assert!(store.close(LONG).complete && !aside.exists());
}

/// A reader with an open transaction keeps the write-ahead log from being emptied: all bounds on disk hold, lines that find no room are
/// counted, and when it is gone all goes on.
#[test]
fn a_reader_that_holds_an_old_state_cannot_make_the_disk_full() {
    let place = Place::new();
    let settings = Settings { retain_bytes: 16 << 20, ..quick(&place) };
    let (mut intake, store, _) = open(settings.clone()).unwrap();
    flood(&mut intake, &store, 3000, 1, &mut |_| ());
    until("they are sealed", || store.stats().kept_lines == 3000);
    let reader = rusqlite::Connection::open(place.path().join("logs.db")).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    reader.query_row("SELECT count(*) FROM chunk", [], |row| row.get::<_, i64>(0)).unwrap();
    let (read, mut write) = super::pipe();
    let (mut random, mut most, mut lines) = (Program::new(9), 0, 3000);
    let dropped = || store.stats().stream(Stream::Stdout).dropped_lines_total > 0;
    let held = || store.stats().degraded.is_some_and(|said| said.contains("a reader holds"));
    while !dropped() || !held() {
        let text: String = (0..990).map(|_| char::from(b'!' + random.random(90) as u8)).collect();
        writeln!(write, "{lines} {text}").unwrap();
        intake.read_from(Stream::Stdout, std::os::fd::AsFd::as_fd(&read), 1).unwrap();
        lines += 1;
        if lines % 50 == 0 {
            until("there is room, or none", || held() || store.stats().ring_used_bytes < 100_000);
            let log = std::fs::metadata(place.path().join("logs.db-wal")).map_or(0, |m| m.len());
            most = most.max(log);
        }
        assert!(lines < 60_000, "{most} bytes of log, and nothing is dropped");
    }
    assert!(most <= 12 << 20, "the log had {most} bytes");
    let disk = store.stats().database_bytes + store.stats().spool_used_bytes;
    assert!(disk <= settings.retain_bytes + settings.spool_bytes + (12 << 20), "{disk} bytes on disk");
    reader.execute_batch("COMMIT").unwrap();
    until("it heals", || {
        let stats = store.stats();
        stats.degraded.is_none() && stats.ring_used_bytes == 0 && stats.spool_used_bytes == 0
    });
    let closed = store.close(LONG);
    assert!(closed.complete, "{closed:?}");
    let stdout = closed.stats.stream(Stream::Stdout);
    assert_eq!(stdout.lines_in_total + stdout.dropped_lines_total, lines);
    assert_eq!(closed.stats.sealed_lines_total, stdout.lines_in_total);
}

/// Needs the right to mount: elsewhere it says that it did not run.
#[test]
fn with_little_free_disk_old_chunks_go_before_new_lines_do() {
    let place = Place::new();
    let Some(small) = super::Small::mount(&place, c"size=32m") else { return };
    let settings = Settings {
        dir: small.path.join("web"),
        spool_bytes: 8 << 20,
        retain_bytes: 24 << 20,
        free_disk_bytes: 256 << 20,
        ..quick(&place)
    };
    let (mut intake, store, _) = open(settings).unwrap();
    flood(&mut intake, &store, 8000, 1, &mut |_| ());
    until("they are sealed", || store.stats().kept_lines == 8000);
    // Somebody else takes what was free.
    let mut filler = std::fs::File::create(small.path.join("filler")).unwrap();
    filler.write_all(&vec![7; 20 << 20]).unwrap();
    flood(&mut intake, &store, 4000, 1, &mut |_| ());
    let closed = store.close(LONG);
    assert!(closed.complete, "{closed:?}");
    assert_eq!(closed.stats.stream(Stream::Stdout).dropped_lines_total, 0, "no line was dropped");
    let gone = closed.stats.retired(RetainReason::Disk);
    assert!(gone.chunks_total > 0 && gone.lines_total < 12_000, "{:?}", closed.stats);
    let disk = rustix::fs::statvfs(&small.path).unwrap();
    assert!(disk.f_bavail * disk.f_frsize >= 3 << 20, "an eighth of it is free again");
}

/// Needs the right to mount: elsewhere it says that it did not run.
#[test]
fn a_database_that_is_read_only_is_waited_for() {
    use rustix::mount::{MountFlags, mount_bind, mount_remount, unmount};
    let place = Place::new();
    let (mut intake, store, _) = open(quick(&place)).unwrap();
    let mut program = Program::new(5);
    let mut print = |intake: &mut Intake| {
        program.print(Stream::Stdout, 20_000);
        program.deliver(intake, Stream::Stdout, 1);
    };
    print(&mut intake);
    until("it is sealed", || store.stats().kept_lines > 0);
    print(&mut intake);
    drop((intake, store));
    let database = place.path().join("logs.db");
    if let Err(e) = mount_bind(&database, &database) {
        eprintln!("skipped: nothing can be mounted here: {e}");
        return;
    }
    mount_remount(&database, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
    let (mut intake, store, recovery) = open(quick(&place)).unwrap();
    let said = recovery.degraded.unwrap();
    assert!(said.contains("logs.db") && said.to_lowercase().contains("read-only"), "{said}");
    until("lines are dropped: ring and spool are full", || {
        print(&mut intake);
        store.stats().stream(Stream::Stdout).dropped_lines_total > 0
    });
    assert!(store.stats().degraded.is_some() && store.stats().database_errors_total > 1, "{:?}", store.stats());
    unmount(&database, rustix::mount::UnmountFlags::DETACH).unwrap();
    until("it heals", || {
        print(&mut intake);
        let stats = store.stats();
        stats.degraded.is_none() && stats.ring_used_bytes < 100_000
    });
    program.finish(&mut intake);
    let closed = store.close(LONG);
    assert!(closed.complete, "{closed:?}");
    let all = everything(&place.path(), &place.ring());
    assert!(account(&all[&Stream::Stdout], program.lines(Stream::Stdout)) > 0);
}
