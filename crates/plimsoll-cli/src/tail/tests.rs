//! The tail thread against a sink in memory: real FIFOs, real threads, no store.

use std::os::fd::AsFd as _;
use std::time::Instant;

use plimsoll::clock::MonotonicClock;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::fifo::Fifo;
use super::*;

/// Keeps everything; fails on request.
#[derive(Default)]
struct Memory {
    streams: [Vec<u8>; 2],
    /// What came, in order: `out:N`, `err:N`, or a note's text.
    order: Vec<String>,
    fail: Arc<std::sync::atomic::AtomicBool>,
    /// Asks for a moment after every read.
    pressed: bool,
    buffer: Vec<u8>,
}

impl Sink for Memory {
    fn read_from(
        &mut self,
        stream: usize,
        fd: BorrowedFd<'_>,
        at_unix_ns: u64,
        see: &mut dyn FnMut(&[u8], u64),
    ) -> io::Result<Landing> {
        assert!(at_unix_ns > 1_600_000_000_000_000_000);
        if self.fail.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(Errno::NOMEM.into());
        }
        self.buffer.resize(64 << 10, 0);
        let n = rustix::io::read(fd, &mut self.buffer[..])?;
        self.streams[stream].extend_from_slice(&self.buffer[..n]);
        self.order.push(format!("{}:{n}", ["out", "err"][stream]));
        see(&self.buffer[..n], self.buffer[..n].iter().filter(|b| **b == b'\n').count() as u64);
        Ok(Landing { bytes: n, more: n == self.buffer.len(), pressed: self.pressed })
    }

    fn note(&mut self, text: &str, _at_unix_ns: u64) {
        self.order.push(text.to_owned());
    }

    fn end_lines(&mut self, _at_unix_ns: u64) {
        self.order.push("end of lines".to_owned());
    }
}

struct Rig {
    _dir: tempfile::TempDir,
    child: [OwnedFd; 2],
    tail: TailHandle<Memory>,
}

fn rig(sink: Memory, echo: Option<Echo>) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| Fifo::prepare(&dir.path().join(name)).unwrap());
    let child = [stdout.child_end().unwrap(), stderr.child_end().unwrap()];
    let inputs = Inputs::Fifos { stdout: stdout.into_reader(), stderr: stderr.into_reader() };
    let tail = start(Setup { intake: sink, inputs, echo, clock: Arc::new(MonotonicClock) }).unwrap();
    Rig { _dir: dir, child, tail }
}

fn within(seconds: u64) -> Duration {
    MonotonicClock.now() + Duration::from_secs(seconds)
}

/// Waits for what another thread does; fails after ten seconds.
#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    #[allow(clippy::disallowed_methods, reason = "a test's own patience")]
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn write_all(fd: &OwnedFd, mut data: &[u8]) {
    while !data.is_empty() {
        let n = rustix::io::write(fd, data).unwrap();
        data = &data[n..];
    }
}

#[test]
fn every_byte_of_both_streams_arrives_and_a_dead_child_is_drained() {
    let rig = rig(Memory::default(), None);
    let [out, err] = rig.child;
    let text = |mark: u8| {
        (0..3_000_000_u32).map(|i| if i % 200 == 199 { b'\n' } else { mark + (i % 7) as u8 }).collect::<Vec<_>>()
    };
    let writers = [(out, text(b'a')), (err, text(b'q'))].map(|(fd, text)| {
        std::thread::spawn(move || {
            for piece in text.chunks(200) {
                write_all(&fd, piece);
            }
            text
        })
    });
    let [out, err] = writers.map(|writer| writer.join().unwrap());
    let drained = rig.tail.drain(within(10));
    let sink = drained.intake.unwrap();
    assert!(sink.streams[STDOUT] == out && sink.streams[STDERR] == err, "bytes differ");
    assert_eq!(drained.counters.bytes_total, [3_000_000; 2]);
    assert_eq!(drained.counters.read_errors_total, [0; 2]);
    assert!(drained.counters.wakeups_total < 15_000, "one wake-up per line or more: {:?}", drained.counters);
}

#[test]
fn an_idle_tail_does_not_wake_up_and_the_dead_child_does_not_make_it_spin() {
    let rig = rig(Memory::default(), None);
    write_all(&rig.child[STDOUT], b"last words\n");
    drop(rig.child);
    eventually("the line is read", || rig.tail.counters().bytes_total[STDOUT] == 11);
    std::thread::sleep(Duration::from_millis(100));
    let before = rig.tail.counters().wakeups_total;
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(rig.tail.counters().wakeups_total, before);
}

#[test]
fn a_flood_on_one_stream_does_not_starve_the_other() {
    let rig = rig(Memory::default(), None);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let [out, err] = rig.child;
    let flood = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let block = [b'x'; 65536];
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                write_all(&out, &block);
            }
        }
    });
    eventually("the flood runs", || rig.tail.counters().bytes_total[STDOUT] > 4 << 20);
    write_all(&err, b"quiet\n");
    let flooded = rig.tail.counters().bytes_total[STDOUT];
    eventually("the quiet line is read", || rig.tail.counters().bytes_total[STDERR] == 6);
    let meanwhile = rig.tail.counters().bytes_total[STDOUT] - flooded;
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    flood.join().unwrap();
    drop(rig.tail.drain(within(10)));
    // Its turn comes after one read; the rest is the machine's own scheduling, 200 MB would be starvation.
    assert!(meanwhile < 200 << 20, "{} MiB came first", meanwhile >> 20);
}

#[test]
fn draining_ends_at_the_deadline_while_a_grandchild_goes_on_writing() {
    let rig = rig(Memory::default(), None);
    let [out, err] = rig.child;
    rustix::fs::fcntl_setfl(&out, OFlags::NONBLOCK).unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let grandchild = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                rustix::io::write(&out, &[b'x'; 65536]).ok();
            }
        }
    });
    let begin = MonotonicClock.now();
    let drained = rig.tail.drain(begin + Duration::from_millis(200));
    let took = MonotonicClock.now() - begin;
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    grandchild.join().unwrap();
    drop(err);
    assert!(drained.intake.is_some());
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn notes_come_after_what_was_written_before_them_and_are_bounded() {
    let rig = rig(Memory::default(), None);
    write_all(&rig.child[STDOUT], b"bye\n");
    rig.tail.child_ended();
    rig.tail.notes().note("the child left");
    let drained = rig.tail.drain(within(10));
    assert_eq!(drained.intake.unwrap().order, ["out:4", "end of lines", "the child left", "end of lines"]);

    let (notes, mut inbox) = notes::channel().unwrap();
    for i in 0..notes::NOTES + 7 {
        notes.note(&format!("{i}"));
    }
    assert_eq!(notes.dropped(), 7);
    for _ in 0..3 {
        notes.child_ended();
    }
    notes.note("dropped as well");
    assert_eq!(notes.dropped(), 8);
    let words: Vec<_> = inbox.take().collect();
    assert_eq!(words.len(), notes::NOTES + 1);
    assert!(matches!(words.last(), Some(notes::Word::ChildEnded)), "that the child is gone is never dropped");
    notes.note(&"x".repeat(notes::NOTES_BYTES + 1));
    assert_eq!((notes.dropped(), inbox.take().count()), (9, 0));
}

#[test]
fn a_stream_that_cannot_be_read_is_said_and_tried_again() {
    let fail = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let rig = rig(Memory { fail: Arc::clone(&fail), ..Memory::default() }, None);
    write_all(&rig.child[STDOUT], b"line\n");
    eventually("the failure is counted", || rig.tail.counters().read_errors_total[STDOUT] == 1);
    let warnings = rig.tail.warnings();
    assert!(warnings[0].starts_with("cannot read the child's stdout: "), "{warnings:?}");
    fail.store(false, std::sync::atomic::Ordering::SeqCst);
    eventually("it is read in the end", || rig.tail.counters().bytes_total[STDOUT] == 5);
    eventually("the warning is gone", || rig.tail.warnings().is_empty());
    let order = rig.tail.drain(within(10)).intake.unwrap().order;
    assert!(order.iter().any(|entry| entry.starts_with("cannot read the child's stdout: ")), "{order:?}");
}

#[test]
fn a_stalled_terminal_stalls_neither_the_log_nor_the_child() {
    let (stalled, write) = rustix::pipe::pipe().unwrap();
    let echo = Echo::start(write.as_fd(), write.as_fd(), false).unwrap();
    let rig = rig(Memory::default(), Some(echo));
    let line = [[b'x'; 199].as_slice(), b"\n"].concat();
    for _ in 0..20_000 {
        write_all(&rig.child[STDOUT], &line);
    }
    eventually("the log has everything", || rig.tail.counters().bytes_total[STDOUT] == 4_000_000);
    let dropped = rig.tail.echo_counters();
    assert!(dropped.dropped_lines > 10_000, "{dropped:?}");
    // The terminal comes back: it gets what waited and is told what it did not see.
    let terminal = std::thread::spawn(move || {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::from(stalled).read_to_string(&mut text).unwrap();
        text
    });
    drop(write);
    let drained = rig.tail.drain(within(10));
    let text = terminal.join().unwrap();
    let seen = text.lines().filter(|line| *line == "x".repeat(199)).count() as u64;
    let said: u64 = text
        .lines()
        .filter_map(|line| line.strip_prefix("plimsoll: ")?.strip_suffix(" lines not echoed")?.parse::<u64>().ok())
        .sum();
    assert_eq!(seen + said, 20_000, "{:?}", drained.echo);
    assert_eq!(drained.echo.dropped_lines, said);
    assert_eq!(text.lines().count() as u64, seen + text.matches("plimsoll: ").count() as u64, "a line was torn");
}

#[test]
fn a_terminal_that_went_away_is_given_up_and_the_other_goes_on() {
    let (gone, out) = rustix::pipe::pipe().unwrap();
    let (kept, err) = rustix::pipe::pipe().unwrap();
    let echo = Echo::start(out.as_fd(), err.as_fd(), false).unwrap();
    drop(gone);
    let rig = rig(Memory::default(), Some(echo));
    write_all(&rig.child[STDOUT], b"nobody reads this\n");
    eventually("the loss is counted", || rig.tail.echo_counters().dropped_lines == 1);
    assert_eq!(rig.tail.echo_counters().gone, [true, false]);
    write_all(&rig.child[STDERR], b"but this\n");
    drop(rig.tail.drain(within(10)));
    let mut buffer = [0; 64];
    let n = rustix::io::read(&kept, &mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"but this\n");
}

#[test]
fn an_echo_whose_terminal_never_takes_anything_ends_at_its_deadline() {
    let (_stalled, write) = rustix::pipe::pipe().unwrap();
    let echo = Echo::start(write.as_fd(), write.as_fd(), false).unwrap();
    for _ in 0..200 {
        echo.push(STDOUT, &[[b'y'; 999].as_slice(), b"\n"].concat());
    }
    let begin = MonotonicClock.now();
    let counters = echo.finish(begin + Duration::from_millis(100));
    let took = MonotonicClock.now() - begin;
    assert!(took < Duration::from_secs(5), "{took:?}");
    // A pipe took 64 KiB; what was not written is counted.
    assert!((130..=140).contains(&counters.dropped_lines), "{counters:?}");
}

#[test]
fn a_pseudo_terminal_is_one_stream_that_ends_without_an_error() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    rustix::fs::fcntl_setfl(&master, OFlags::NONBLOCK).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap();
    let slave = rustix::fs::open(path.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, rustix::fs::Mode::empty()).unwrap();
    let setup =
        Setup { intake: Memory::default(), inputs: Inputs::Pty(master), echo: None, clock: Arc::new(MonotonicClock) };
    let tail = start(setup).unwrap();
    write_all(&slave, b"hello\n");
    eventually("the line is read", || tail.counters().bytes_total[STDOUT] == 7);
    drop(slave);
    std::thread::sleep(Duration::from_millis(50));
    let before = tail.counters().wakeups_total;
    std::thread::sleep(Duration::from_millis(200));
    assert!(tail.counters().wakeups_total <= before + 1, "it spins on the hang-up");
    let drained = tail.drain(within(10));
    assert_eq!(drained.counters.read_errors_total, [0; 2]);
    assert_eq!(drained.intake.unwrap().streams[STDOUT], b"hello\r\n");
}

#[test]
fn a_sink_that_is_pressed_for_good_holds_the_child_back_only_for_a_moment() {
    let rig = rig(Memory { pressed: true, ..Memory::default() }, None);
    let line = [[b'x'; 199].as_slice(), b"\n"].concat();
    let begin = MonotonicClock.now();
    for _ in 0..100_000 {
        write_all(&rig.child[STDOUT], &line);
    }
    let drained = rig.tail.drain(within(10));
    let took = MonotonicClock.now() - begin;
    assert_eq!(drained.counters.bytes_total[STDOUT], 20_000_000);
    assert!((1..=pace::LONGEST_REST.as_millis() as u64 + 100).contains(&drained.counters.rests_total));
    assert!(took < Duration::from_secs(8), "{took:?}");
}
