//! What a flood costs, from the child's `write` to the disk: 1,000,000 numbered lines of 200 bytes, one write each.
//!
//! `cargo test --release -p plimsoll-cli measure -- --ignored --nocapture --test-threads 1`
//!
//! Bounds (issue "Run"): the writer done in 1.3 s, 2.4 µs of CPU a line in all, nothing dropped. The CPU figure has the
//! writer's own system calls and the sealing in it, so it is what one flood costs the machine.
//!
//! Measured on 2 cores that others kept busy, twelve floods: under a load of 7 to 8 the writer was done in 0.6 to 0.9 s
//! and a line cost 1.4 to 1.6 µs; under a load of 8 to 11, 0.8 to 2.3 s and 1.4 to 2.0 µs. Nothing was dropped in any of
//! them; without `pace::Patience`, under a load of 5 to 7, up to a third was. On a calm machine: not measured yet.

use std::os::fd::AsFd as _;

use plimsoll::clock::MonotonicClock;
use plimsoll_store::{Intake, Settings};

use super::fifo::Fifo;
use super::*;

const LINES: usize = 1_000_000;
const LINE_BYTES: usize = 200;

/// As the supervisor wires it.
struct Stored(Intake);

impl Sink for Stored {
    fn read_from(
        &mut self,
        stream: usize,
        fd: BorrowedFd<'_>,
        at_unix_ns: u64,
        see: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Landing> {
        let stream = [plimsoll_store::Stream::Stdout, plimsoll_store::Stream::Stderr][stream];
        let landed = self.0.read_from(stream, fd, at_unix_ns)?;
        see(landed.data);
        Ok(Landing { bytes: landed.bytes, more: landed.more, pressed: landed.pressed })
    }

    fn note(&mut self, text: &str, at_unix_ns: u64) {
        self.0.note(text, at_unix_ns);
    }

    fn end_lines(&mut self, at_unix_ns: u64) {
        self.0.end_of(plimsoll_store::Stream::Stdout, at_unix_ns);
    }
}

/// Numbered lines of words drawn from 20,000 with a fixed seed.
fn text() -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words: Vec<Vec<u8>> = (0..20_000)
        .map(|_| (0..3 + next() % 9).map(|_| b'a' + u8::try_from(next() % 26).unwrap_or(0)).collect())
        .collect();
    let mut text = Vec::with_capacity(LINES * LINE_BYTES);
    for number in 0..LINES {
        let end = text.len() + LINE_BYTES - 1;
        text.extend_from_slice(format!("{number:08}").as_bytes());
        while text.len() < end {
            text.push(b' ');
            text.extend_from_slice(&words[usize::try_from(next() % 20_000).unwrap_or(0)]);
        }
        text.truncate(end);
        text.push(b'\n');
    }
    text
}

fn flood(what: &str, echo: Option<Echo>) {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::new(dir.path().join("web"), dir.path().join("ring"), "web");
    let (intake, store, _) = plimsoll_store::open(settings).unwrap();
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| Fifo::prepare(&dir.path().join(name)).unwrap());
    let child = stdout.child_end().unwrap();
    let inputs = Inputs::Fifos { stdout: stdout.into_reader(), stderr: stderr.into_reader() };
    let text = text();
    let clock = MonotonicClock;
    let tail = start(Setup { intake: Stored(intake), inputs, echo, clock: Arc::new(clock) }).unwrap();
    let (begin, cpu) = (clock.now(), cpu_seconds());
    for line in text.chunks(LINE_BYTES) {
        assert_eq!(rustix::io::write(&child, line), Ok(LINE_BYTES));
    }
    let child_done = clock.now() - begin;
    let drained = tail.drain(clock.now() + Duration::from_secs(10));
    let stats = store.stats();
    store.close(clock.now() + Duration::from_secs(60));
    let cpu = cpu_seconds() - cpu;
    let all = clock.now() - begin;
    let stream = stats.stream(plimsoll_store::Stream::Stdout);
    println!(
        "{what}: writer done {child_done:.2?}, all sealed {all:.2?}, CPU {:.2} us a line; {} reads, {} wake-ups, {} pauses; \
         {stream:?}; echo {:?}",
        cpu * 1e6 / LINES as f64,
        drained.counters.reads_total[STDOUT],
        drained.counters.wakeups_total,
        drained.counters.pauses_total,
        drained.echo,
    );
    assert_eq!(drained.counters.bytes_total[STDOUT], text.len() as u64);
    assert_eq!((stream.dropped_lines_total, stream.lines_in_total), (0, LINES as u64));
    assert!(child_done < Duration::from_millis(1300), "{child_done:?}");
    assert!(cpu < 2.4, "{cpu} s");
}

/// CPU of the whole process so far, the writer of the flood included.
fn cpu_seconds() -> f64 {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    at.tv_sec as f64 + at.tv_nsec as f64 / 1e9
}

#[test]
#[ignore = "measures: run it alone, in release"]
fn measure_quiet() {
    flood("quiet", None);
}

#[test]
#[ignore = "measures: run it alone, in release"]
fn measure_echo_to_null() {
    let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
    flood("echo to /dev/null", Some(Echo::start(null.as_fd(), null.as_fd(), false).unwrap()));
}

#[test]
#[ignore = "measures: run it alone, in release"]
fn measure_echo_to_a_file() {
    let file = tempfile::tempfile().unwrap();
    flood("echo to a file", Some(Echo::start(file.as_fd(), file.as_fd(), false).unwrap()));
}

#[test]
#[ignore = "measures: run it alone, in release"]
fn measure_echo_to_a_slow_terminal() {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let echo = Echo::start(write.as_fd(), write.as_fd(), false).unwrap();
    drop(write);
    // 1 MiB/s.
    std::thread::spawn(move || {
        let mut buffer = [0; 10_486];
        while rustix::io::read(&read, &mut buffer).is_ok_and(|n| n > 0) {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    flood("echo to a terminal of 1 MiB/s", Some(echo));
}
