//! The store as its users see it: one thread writes, a reader follows in the middle of a flood, and after a death.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests measure real time, and a panic is how they fail
#![allow(missing_docs)]

use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use plimsoll_store::{Cursor, EntryKind, Intake, Query, Reader, Settings, Stream, open};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

fn place() -> (tempfile::TempDir, Settings) {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::new(dir.path().join("web"), dir.path().join("web.ring"), "web");
    (dir, settings)
}

fn pipe() -> (OwnedFd, File) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    rustix::io::ioctl_fionbio(&read, true).unwrap();
    (read, File::from(write))
}

/// Takes everything until the pipe ends.
fn take_all(intake: &mut Intake, pipe: &OwnedFd) {
    loop {
        match intake.read_from(Stream::Stdout, pipe.as_fd(), unix_ns()) {
            Ok(landed) if landed.bytes == 0 => return,
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(pipe, PollFlags::IN)], None).unwrap();
            }
            Err(e) => panic!("{e}"),
        }
    }
}

fn unix_ns() -> u64 {
    u64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap()
}

/// Reads on from `cursor`; every line must have the next number, or lie in a gap. Returns the number behind the last one.
fn follow(reader: &mut Reader, cursor: &mut Option<Cursor>, mut next: u64) -> u64 {
    let end = reader.read(&Query::default(), *cursor, &mut |entry| {
        match entry.kind {
            EntryKind::Line { text, .. } => {
                let text = str::from_utf8(text).unwrap();
                assert_eq!(text.split(' ').next().unwrap().parse(), Ok(next), "{text:?}");
                next += 1;
            }
            EntryKind::Gap { lines, .. } => next += lines,
        }
        ControlFlow::Continue(())
    });
    *cursor = Some(end.unwrap());
    next
}

#[test]
fn a_follower_sees_every_line_within_half_a_second() {
    let (_dir, settings) = place();
    let dir = settings.dir.clone();
    let (mut intake, store, _) = open(settings).unwrap();
    let (read, mut write) = pipe();
    // About 100,000 lines a second: a test build can follow that.
    let lines = 60_000u64;
    let written = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for number in 0..lines {
                let line = format!("{number} {:>120}\n", number * 7919);
                write.write_all(line.as_bytes()).unwrap();
                written.store(number + 1, Ordering::Release);
                if number % 500 == 0 {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            drop(write);
        });
        threads.spawn(|| {
            take_all(&mut intake, &read);
            done.store(true, Ordering::Release);
        });
        let mut reader = Reader::open(&dir).unwrap();
        let (mut cursor, mut next) = (None, 0);
        while next < lines {
            let since = Instant::now();
            let there = written.load(Ordering::Acquire);
            while next < there {
                next = follow(&mut reader, &mut cursor, next);
            }
            let late = since.elapsed();
            assert!(late < Duration::from_millis(500), "line {there} was seen {late:?} after it was written");
        }
    });
    assert!(done.load(Ordering::Acquire));
    let stats = store.stats();
    assert_eq!(stats.stream(Stream::Stdout).lines_in_total + stats.stream(Stream::Stdout).dropped_lines_total, lines);
    let closed = store.close(Duration::from_secs(60));
    assert!(closed.complete, "{closed:?}");
    assert_eq!(follow(&mut Reader::open(&dir).unwrap(), &mut None, 0), lines);
}

#[test]
fn a_reader_finds_everything_after_a_death_without_closing() {
    let (_dir, settings) = place();
    let dir = settings.dir.clone();
    let mut next = 0u64;
    for life in 0..4 {
        let (mut intake, store, recovery) = open(settings.clone()).unwrap();
        assert_eq!(recovery.adopted_ring, life > 0);
        let (read, mut write) = pipe();
        for _ in 0..500 {
            writeln!(write, "{next} of life {life}").unwrap();
            next += 1;
        }
        drop(write);
        take_all(&mut intake, &read);
        store.heartbeat(1);
        drop(store);
        assert_eq!(follow(&mut Reader::open(&dir).unwrap(), &mut None, 0), next);
    }
}
