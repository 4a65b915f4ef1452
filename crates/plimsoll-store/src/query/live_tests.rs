//! Readers beside a store that is written, sealed, closed and opened again as fast as it goes: every line once and in order, or counted
//! in a gap, whatever was moved, sealed or freed under the reader's feet.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::testing::{Entry as Seen, Place, Program, account};
use crate::{Settings, open};

const BOTH: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// What the writer has come to.
#[derive(Default)]
struct Progress {
    done: AtomicBool,
    lines: [AtomicU64; 2],
}

fn seen(entry: &Entry<'_>) -> (u64, Seen) {
    let what = match entry.kind {
        EntryKind::Line { text, continued, .. } => Seen::Line { text: text.to_vec(), continued },
        EntryKind::Gap { lines, reason, .. } => Seen::Gap { lines, reason },
    };
    (entry.position, what)
}

/// What the writer does: lives of the store, writes in each, and how long a write is at most.
struct Load {
    seed: u64,
    lives: u64,
    turns: u64,
    widest: u64,
}

/// Writes `lives` lives of a store, each closed (with or without time to seal) and opened again.
fn write(settings: &Settings, load: &Load, progress: &Progress) {
    let Load { seed, lives, turns, widest } = *load;
    let mut program = Program::new(seed);
    for life in 0..lives {
        let (mut intake, store, _) = open(settings.clone()).unwrap();
        for turn in 0..turns {
            let stream = BOTH[program.random(2) as usize];
            let len = 1 + program.random(widest) as usize;
            program.print(stream, len);
            program.deliver(&mut intake, stream, life * turns + turn + 1);
            if program.random(20) == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let last = life + 1 == lives;
        for stream in BOTH {
            // A store that is closed ends the line that it has; this test wants whole ones.
            program.finish_lines(stream);
            program.deliver(&mut intake, stream, (life + 1) * turns);
            progress.lines[stream.index()].store(program.lines(stream), Ordering::SeqCst);
        }
        if last || life % 2 == 0 {
            assert!(store.close(Duration::from_secs(30)).complete);
        } else {
            drop(store);
        }
    }
    progress.done.store(true, Ordering::SeqCst);
}

/// The accounting; returns how many lines lie in gaps.
fn check(all: &[(u64, Stream, Seen)], lines: &[u64; 2], who: &str) -> u64 {
    assert!(all.windows(2).all(|two| two[0].0 < two[1].0), "{who}: positions do not rise across streams");
    let of = |stream| all.iter().filter(|e| e.1 == stream).map(|e| (e.0, e.2.clone())).collect::<Vec<_>>();
    BOTH.into_iter().zip(lines).map(|(stream, lines)| account(&of(stream), *lines)).sum()
}

fn keep(all: &mut Vec<(u64, Stream, Seen)>, entry: &Entry<'_>) {
    let (position, what) = seen(entry);
    all.push((position, entry.stream, what));
}

/// Follows with a cursor, breaking off now and then, until the writer is done.
fn follow(dir: &Path, progress: &Progress, break_off: bool) -> Vec<(u64, Stream, Seen)> {
    let mut all = Vec::new();
    let mut reader = None;
    let mut cursor = None;
    loop {
        let done = progress.done.load(Ordering::SeqCst);
        let reader = match reader.as_mut() {
            Some(reader) => reader,
            None => match Reader::open(dir) {
                Ok(open) => reader.insert(open),
                Err(_) => continue,
            },
        };
        let mut left = if break_off { 777 } else { usize::MAX };
        let now = reader.read(&Query::default(), cursor, &mut |entry| {
            keep(&mut all, &entry);
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let now = now.unwrap();
        if done && Some(now) == cursor {
            return all;
        }
        cursor = Some(now);
        std::thread::yield_now();
    }
}

/// Reads everything, again and again: each time a whole beginning of the log.
fn read_again_and_again(dir: &Path, progress: &Progress) -> u64 {
    let mut rounds = 0;
    while !progress.done.load(Ordering::SeqCst) {
        let Ok(mut reader) = Reader::open(dir) else { continue };
        let mut all = Vec::new();
        let sink = &mut |entry: Entry<'_>| {
            keep(&mut all, &entry);
            ControlFlow::Continue(())
        };
        reader.read(&Query::default(), None, sink).unwrap();
        // Up to its own end nothing may be missing; how far that is the entries say.
        let upto = BOTH.map(|stream| {
            all.iter()
                .filter(|e| e.1 == stream)
                .map(|e| if let Seen::Gap { lines, .. } = e.2 { lines } else { 1 })
                .sum()
        });
        check(&all, &upto, "from the beginning");
        let mut newest = Vec::new();
        let sink = &mut |entry: Entry<'_>| {
            keep(&mut newest, &entry);
            ControlFlow::Continue(())
        };
        reader.tail(&Query::default(), 30, sink).unwrap();
        assert!(newest.windows(2).all(|two| two[0].0 < two[1].0));
        assert_eq!(newest.len(), 30.min(all.len().max(newest.len())));
        let after = all.last().map_or(0, |e| e.0);
        if let Some(first) = newest.first().filter(|first| first.0 <= after) {
            let from = all.iter().position(|e| e.0 == first.0).expect("the tail's first entry was read before");
            assert_eq!(newest[..all.len() - from], all[from..], "the newest entries are those that were read");
        }
        rounds += 1;
    }
    rounds
}

fn beside_a_writer(settings: &Settings, load: &Load) -> u64 {
    let progress = Progress::default();
    let dir = settings.dir.clone();
    let (plain, broken) = std::thread::scope(|scope| {
        let plain = scope.spawn(|| follow(&dir, &progress, false));
        let broken = scope.spawn(|| follow(&dir, &progress, true));
        scope.spawn(|| read_again_and_again(&dir, &progress));
        write(settings, load, &progress);
        (plain.join().unwrap(), broken.join().unwrap())
    });
    let lines = BOTH.map(|stream| progress.lines[stream.index()].load(Ordering::SeqCst));
    assert_eq!(plain.len(), broken.len());
    assert!(plain == broken, "breaking off changes nothing");
    check(&plain, &lines, "following")
}

#[test]
fn readers_beside_a_store_that_seals_all_the_time() {
    let place = Place::new();
    let settings = Settings { seal_after: Duration::from_millis(3), ..place.settings() };
    beside_a_writer(&settings, &Load { seed: 11, lives: 3, turns: 150, widest: 20_000 });
}

#[test]
fn readers_beside_a_store_whose_ring_is_too_small() {
    let place = Place::new();
    let settings = Settings { seal_after: Duration::from_millis(50), ring_bytes: 256 << 10, ..place.settings() };
    let missing = beside_a_writer(&settings, &Load { seed: 12, lives: 3, turns: 120, widest: 64_000 });
    assert!(missing > 0, "the ring was never full");
}

#[test]
fn readers_beside_a_store_that_comes_and_goes() {
    let place = Place::new();
    let settings = Settings { seal_after: Duration::from_secs(60), ..place.settings() };
    beside_a_writer(&settings, &Load { seed: 13, lives: 20, turns: 12, widest: 20_000 });
}
