//! Events on their way to a sink: whole, counted by target, and without an end that feeds its beginning.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::queue::DropReason;
use crate::queue::batch::{Record, SinkError};

const PATIENCE: Duration = Duration::from_secs(20);

fn under(lines: &Lines, log: impl FnOnce()) {
    let subscriber = tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(lines.clone()).finish();
    tracing::subscriber::with_default(subscriber, log);
}

/// A sink that keeps what it was given, unless it is away.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Record<Line>>>>, Arc<AtomicBool>);

impl Sink<Line> for Kept {
    fn write(&mut self, records: &[Record<Line>]) -> Result<(), SinkError> {
        if self.1.load(Ordering::SeqCst) {
            return Err(io::Error::other("away").into());
        }
        self.0.lock().extend_from_slice(records);
        Ok(())
    }
}

#[test]
fn lines_arrive_whole_with_level_and_target_and_a_flood_leaves_the_quiet_target_its_share() {
    let kept = Kept::default();
    kept.1.store(true, Ordering::SeqCst);
    let limits = Limits { max_items: 60, max_bytes: MAX_BYTES };
    let (lines, guard) = Lines::builder(kept.clone()).limits(limits).every(Duration::ZERO).start().expect("a thread");
    under(&lines, || {
        tracing::warn!(target: "quiet", answer = 42, "one");
        for n in 0..10_000 {
            tracing::info!(target: "flood", n, "again");
        }
        (0..5).for_each(|n| tracing::error!(target: "quiet", n, "still heard"));
    });
    let stats = lines.queue_stats();
    let of = |name: &str| stats.producer(name).expect("it came").counters;
    assert_eq!((of("quiet").accepted.items, of("quiet").dropped_total().items), (6, 0));
    assert_eq!(of("flood").accepted.items + of("flood").dropped_for(DropReason::Full).items, 10_000);
    kept.1.store(false, Ordering::SeqCst);
    let finished = guard.finish(PATIENCE);
    assert_eq!(finished.left.items, 0);
    assert!(finished.stats.gaps_total >= 1);
    let records = kept.0.lock();
    let Record::Value(first) = &records[0] else { panic!("{:?}", records[0]) };
    assert_eq!((first.level, &*first.target), (Level::WARN, "quiet"));
    assert_eq!(String::from_utf8_lossy(&first.text), " WARN quiet: one answer=42\n");
    let lost: u64 = records
        .iter()
        .map(|record| match record {
            Record::Gap(gap) => {
                assert_eq!(&*gap.producer, "flood");
                gap.lost.items
            }
            Record::Value(_) => 0,
        })
        .sum();
    assert_eq!(lost, of("flood").dropped_total().items);
}

#[test]
fn a_sink_that_logs_neither_waits_for_itself_nor_feeds_itself() {
    let (lines, guard) = {
        let own: Arc<Mutex<Option<Lines>>> = Arc::default();
        let within = Arc::clone(&own);
        let sink = move |_: &[Record<Line>]| {
            let lines = within.lock().clone().expect("set before the first line");
            under(&lines, || tracing::error!("from inside the sink"));
            Ok::<(), SinkError>(())
        };
        let (lines, guard) = Lines::builder(sink).every(Duration::ZERO).start().expect("a thread");
        *own.lock() = Some(lines.clone());
        (lines, guard)
    };
    under(&lines, || tracing::info!("hello"));
    let finished = guard.finish(PATIENCE);
    assert_eq!((finished.stats.written_total.items, finished.is_stuck), (1, false));
    assert_eq!(lines.figures().own_total, 1);
    under(&lines, || tracing::info!("after the end"));
    assert_eq!(lines.queue_stats().total().refused[2].items, 1, "counted as refused by a closed queue");
}

#[test]
fn a_line_that_waits_for_room_holds_up_no_other_target() {
    let kept = Kept::default();
    kept.1.store(true, Ordering::SeqCst);
    let limits = Limits { max_items: 60, max_bytes: MAX_BYTES };
    let builder = Lines::builder(kept.clone()).limits(limits).when_full(WhenFull::WaitUntil(PATIENCE));
    let (lines, guard) = builder.every(Duration::ZERO).start().expect("a thread");
    let send = |target: &str| lines.send(Level::INFO, target, b"line\n".to_vec());
    let accepted = |target: &str| lines.queue_stats().producer(target).map_or(0, |of| of.counters.accepted.items);
    send("quiet");
    let flood_ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (0..100).for_each(|_| send("flood"));
            flood_ended.store(true, Ordering::SeqCst);
        });
        // Until it waits: it has all the room there is for it.
        let (mut before, mut same) = (0, 0);
        while same < 1_000 {
            let now = accepted("flood");
            same = if now > 0 && now == before { same + 1 } else { 0 };
            before = now;
            std::thread::yield_now();
        }
        scope.spawn(|| send("new"));
        while accepted("new") == 0 {
            std::thread::yield_now();
        }
        send("quiet");
        assert_eq!(accepted("quiet"), 2);
        assert!(!flood_ended.load(Ordering::SeqCst), "they waited for it");
        kept.1.store(false, Ordering::SeqCst);
    });
    assert_eq!(guard.finish(PATIENCE).stats.written_total.items, 103);
}

#[test]
fn an_overflow_that_logs_neither_waits_for_itself_nor_feeds_itself() {
    /// Keeps nothing, and says so in the log that it is part of.
    struct Chatty(Arc<Mutex<Option<Lines>>>);

    impl Overflow<Line> for Chatty {
        fn keep(&mut self, line: Line, _: &str) -> Result<(), Line> {
            let lines = self.0.lock().clone().expect("set before the first line");
            io::Write::write_all(&mut lines.make_writer(), b"from inside the overflow\n").expect("takes all");
            Err(line)
        }

        fn next(&mut self) -> Option<Line> {
            None
        }

        fn settle(&mut self, _: u64) {}

        fn kept(&self) -> u64 {
            0
        }
    }
    let own: Arc<Mutex<Option<Lines>>> = Arc::default();
    let kept = Kept::default();
    kept.1.store(true, Ordering::SeqCst);
    let limits = Limits { max_items: 1, max_bytes: MAX_BYTES };
    let overflow = WhenFull::Overflow(Box::new(Chatty(Arc::clone(&own))));
    let (lines, guard) = Lines::builder(kept.clone()).limits(limits).when_full(overflow).start().expect("a thread");
    *own.lock() = Some(lines.clone());
    (0..10).for_each(|_| lines.send(Level::INFO, "t", b"hello\n".to_vec()));
    let fell = lines.queue_stats().total().dropped_for(DropReason::Overflow).items;
    assert!(fell >= 1);
    assert_eq!(lines.figures().own_total, fell, "each time that it was asked");
    assert!(!IS_SINK.get(), "this thread is none afterwards");
    kept.1.store(false, Ordering::SeqCst);
    own.lock().take();
    assert!(!guard.finish(PATIENCE).is_stuck);
}

#[test]
fn a_long_line_is_cut_and_many_targets_share_the_last_place() {
    let kept = Kept::default();
    let (lines, guard) = Lines::builder(kept.clone()).start().expect("a thread");
    under(&lines, || tracing::info!("{}", "x".repeat(3 * LINE_BYTES)));
    for n in 0..200 {
        lines.send(Level::INFO, &format!("target {n}"), b"line\n".to_vec());
    }
    assert!(!guard.finish(PATIENCE).is_stuck);
    let records = kept.0.lock();
    let Record::Value(long) = &records[0] else { panic!("a line came first") };
    assert_eq!((long.text.len(), long.text.last(), lines.figures().cut_total), (LINE_BYTES, Some(&b'\n'), 1));
    assert_eq!(records.len(), 201);
    let stats = lines.queue_stats();
    assert_eq!(stats.producers.len(), PRODUCERS_MAX);
    assert_eq!(stats.producer(OTHERS).expect("always").counters.accepted.items, 201 - (PRODUCERS_MAX as u64 - 1));
}

/// Takes three bytes at a time and fails every other time.
#[derive(Clone, Default)]
struct Hiccup(Arc<Mutex<(Vec<u8>, bool)>>);

impl io::Write for Hiccup {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut to = self.0.lock();
        to.1 = !to.1;
        if !to.1 {
            return Err(io::Error::other("not now"));
        }
        let count = text.len().min(3);
        to.0.extend_from_slice(&text[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_fails_in_the_middle_gets_no_line_twice() {
    let to = Hiccup::default();
    let mut sink = ToWriter::new(to.clone());
    let line = |text: &str| {
        let text = text.as_bytes().into();
        Record::Value(Line { at: Duration::ZERO, level: Level::INFO, target: "t".into(), text })
    };
    let batch = [line("first line\n"), line("second line\n"), line("third\n")];
    while sink.write(&batch).is_err() {}
    while sink.write(&batch[..1]).is_err() {}
    assert_eq!(String::from_utf8_lossy(&to.0.lock().0), "first line\nsecond line\nthird\nfirst line\n");
}

/// A writer of limited room, for so many calls; then it has enough.
#[derive(Clone)]
struct Disk(Arc<Mutex<DiskState>>);

struct DiskState {
    text: Vec<u8>,
    room: usize,
    calls: u32,
    /// From this call on there is room.
    well_from: u32,
    /// It takes everything and fails when it is flushed, as a `BufWriter` does.
    at_flush: bool,
    /// What is never taken.
    poison: Option<&'static [u8]>,
}

impl DiskState {
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        if self.calls < self.well_from { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl io::Write for Disk {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut to = self.0.lock();
        let poisoned = to.poison.and_then(|poison| text.windows(poison.len()).position(|part| part == poison));
        let room = to.room.saturating_sub(to.text.len());
        let count = if to.at_flush || room > 0 || to.call().is_ok() { text.len() } else { 0 };
        let count = if to.at_flush || to.calls >= to.well_from { count } else { count.min(room) };
        let count = count.min(poisoned.unwrap_or(count));
        if count == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        to.text.extend_from_slice(&text[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut to = self.0.lock();
        if to.at_flush { to.call() } else { Ok(()) }
    }
}

/// Eight lines of 100 bytes through the batcher into this disk: what is in it, and what was noticed.
fn eight_lines(disk: &Disk) -> (String, Vec<Notice>) {
    let heard: Arc<Mutex<Vec<Notice>>> = Arc::default();
    let hear = Arc::clone(&heard);
    let queue = queue::Builder::new(Limits { max_items: 100, max_bytes: 1 << 20 }, WhenFull::DropNewest);
    let (sender, receiver) = queue.build_named("t");
    for n in 0..8 {
        let text = format!("{n}{:->50}#{n}#{:->45}\n", "", "");
        let line = Line { at: Duration::ZERO, level: Level::INFO, target: "t".into(), text: text.into_bytes().into() };
        assert!(sender.send(line).is_ok());
    }
    let batcher = batch::Builder::new(receiver, ToWriter::new(disk.clone()))
        .every(Duration::ZERO)
        .retry(Duration::from_nanos(1), Duration::from_nanos(1))
        .on_notice(move |notice| hear.lock().push(notice.clone()))
        .start()
        .expect("a thread");
    assert!(!batcher.finish(PATIENCE).is_stuck);
    let text = String::from_utf8(disk.0.lock().text.clone()).expect("text");
    (text, std::mem::take(&mut heard.lock()))
}

#[test]
fn an_outage_of_any_length_and_at_any_byte_doubles_no_line_and_runs_none_into_the_next() {
    for at_flush in [false, true] {
        for room in [0, 1, 99, 100, 101, 250, 700, 799, 800] {
            for well_from in [0, 1, 2, 8, 9, 10, 11, 12, 13, 14, 15, 20, 33, 100] {
                let state = DiskState { text: Vec::new(), room, calls: 0, well_from, at_flush, poison: None };
                let disk = Disk(Arc::new(Mutex::new(state)));
                let (text, notices) = eight_lines(&disk);
                let what = format!("at_flush {at_flush}, room {room}, well from call {well_from}: {text}");
                let (whole, torn): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.len() == 99);
                let mut firsts: Vec<_> = whole.iter().map(|line| line.as_bytes()[0]).collect();
                firsts.sort_unstable();
                assert_eq!(String::from_utf8_lossy(&firsts), "01234567", "{what}");
                // There is room again just between the rest of a line, which is refused, and the newline that ends it.
                assert!(torn.is_empty() || torn.len() == 1 && !at_flush && torn[0].len() == room % 100, "{what}");
                // Well again once, when it is; but who stopped between two lines cannot know yet that what is out is all there is room for.
                let recovered = notices.iter().filter(|notice| matches!(notice, Notice::Recovered { .. })).count();
                assert!(recovered <= 1 || room % 100 == 0, "{what} {notices:?}");
            }
        }
    }
}

#[test]
fn a_line_whose_rest_is_never_taken_ends_there_and_stops_no_other() {
    let poison = Some(&b"#2#"[..]);
    let state = DiskState { text: Vec::new(), room: 0, calls: 0, well_from: 0, at_flush: false, poison };
    let (text, notices) = eight_lines(&Disk(Arc::new(Mutex::new(state))));
    let poisons = notices.iter().filter(|notice| matches!(notice, Notice::Poison { .. })).count();
    assert_eq!(poisons, 1, "{text} {notices:?}");
    let whole: String = text.lines().filter(|line| line.len() == 99).map(|line| &line[..1]).collect();
    assert_eq!(whole, "0134567", "{text}");
    // Beside them, each on a line of its own, its beginning: in the batch, alone, and once for each strike; and the gap.
    let torn: Vec<_> = text.lines().filter(|line| line.len() != 99).collect();
    assert_eq!(torn.iter().filter(|line| line.starts_with("2-")).count(), 2 + batch::POISON_STRIKES as usize, "{text}");
    assert_eq!(torn.iter().filter(|line| line.starts_with("plimsoll: 1 of t missing")).count(), 1, "{text}");
}
