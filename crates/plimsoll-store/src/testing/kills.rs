//! A kill at every step of the writer, and of the recovery from it; and real SIGKILLs in the middle of a flood.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::{Place, Program, account, account_torn, everything};
use crate::recover::{check_frames, finish_intent};
use crate::ring::{Found, Ring, at};
use crate::writer::Writer;
use crate::{Settings, Stream, open};

static COPIES: AtomicU64 = AtomicU64::new(0);
const CAPACITY: u64 = 256 << 10;

/// The ring as a kill at some step leaves it, and what of the pipe was taken by then.
struct Moment {
    place: &'static str,
    ring: PathBuf,
    taken: usize,
}

/// Has `writer` copy the ring at every step from now on, with the bytes that were taken from `fd`, of `written` in all.
fn copies(
    writer: &mut Writer,
    ring: &Path,
    into: &Path,
    fd: OwnedFd,
    written: usize,
    moments: &Arc<Mutex<Vec<Moment>>>,
) {
    let (ring, into, moments) = (ring.to_path_buf(), into.to_path_buf(), moments.clone());
    writer.hook = Some(Box::new(move |place| {
        let mut moments = moments.lock().unwrap();
        let copy = into.join(format!("{}.ring", COPIES.fetch_add(1, Ordering::Relaxed)));
        std::fs::copy(&ring, &copy).unwrap();
        let waiting = usize::try_from(rustix::io::ioctl_fionread(&fd).unwrap()).unwrap();
        let taken = written.saturating_sub(waiting);
        moments.push(Moment { place, ring: copy, taken });
    }));
}

/// Recovers the ring at `path` (twice: the second time must change nothing) and checks that it has exactly the first bytes of `text`.
fn recovers(dir: &Path, path: &Path, taken: &[u8], context: &str, hook: impl Fn(&mut Writer)) {
    let Found::Alive(ring) = Ring::find(path).unwrap() else { panic!("{context}: no ring") };
    let ring = Arc::new(ring);
    let mut writer = Writer::new(ring.clone());
    hook(&mut writer);
    finish_intent(&ring, &mut writer);
    writer.hook = None;
    let head = ring.head();
    finish_intent(&ring, &mut writer);
    assert_eq!(ring.head(), head, "{context}: a second recovery changed the ring");
    check_frames(&ring, ring.tail()).unwrap_or_else(|e| panic!("{context}: {e:?}"));
    let all = everything(dir, path);
    let complete = taken.iter().filter(|b| **b == b'\n').count() as u64;
    let torn = taken.last().is_some_and(|b| *b != b'\n');
    let entries = &all[&Stream::Stdout];
    account_torn(entries, complete, torn);
    let counted = ring.counter(Stream::Stdout, at::BYTES_IN) + ring.dropped(Stream::Stdout).1;
    assert_eq!(counted, taken.len() as u64, "{context}: bytes stored and dropped");
}

/// Reads of these lengths in turn; a kill at every step; with room, without room, and when room comes back.
#[test]
fn a_kill_at_any_step_loses_nothing_and_doubles_nothing() {
    let place = Place::new();
    let (dir, copies_dir) = (place.path(), place.dir.path().join("copies"));
    std::fs::create_dir_all(dir.join("spool")).unwrap();
    std::fs::create_dir(&copies_dir).unwrap();
    let ring = Arc::new(Ring::create(&place.ring(), CAPACITY, 0).unwrap());
    let mut writer = Writer::new(ring.clone());
    let (read, mut write) = super::pipe();
    let text = numbered(700_000);
    let mut written = 0;
    let lengths =
        [1, 7, 15, 16, 17, 300, 4096, 5000, 60_000, 65_536, 65_536, 30_000, 9, 40_000, 5, 65_536, 3, 40_000, 20];
    let room_again = 15;
    let mut seen = BTreeSet::new();
    for (round, len) in lengths.into_iter().enumerate() {
        if round == room_again {
            let file = std::fs::File::create(crate::segment::path(&dir.join("spool"), 0)).unwrap();
            let header = crate::segment::header(crate::segment::Content::Log, 0);
            file.write_all_at(&header, 0).unwrap();
            let frames = ring.bytes(0, usize::try_from(ring.head()).unwrap());
            file.write_all_at(frames, crate::segment::SEGMENT_HEADER).unwrap();
            ring.set(at::TAIL, ring.head());
        }
        write.write_all(&text[written..written + len]).unwrap();
        written += len;
        let moments = Arc::new(Mutex::new(Vec::new()));
        copies(&mut writer, &place.ring(), &copies_dir, read.try_clone().unwrap(), written, &moments);
        writer.read(Stream::Stdout, read.as_fd(), round as u64 + 1).unwrap();
        writer.hook = None;
        for moment in moments.lock().unwrap().drain(..) {
            seen.insert(moment.place);
            let context = format!("read {round} of {len} bytes, killed at {:?}", moment.place);
            let again = Arc::new(Mutex::new(Vec::new()));
            recovers(&dir, &moment.ring, &text[..moment.taken], &context, |writer| {
                copies(writer, &moment.ring, &copies_dir, read.try_clone().unwrap(), moment.taken, &again);
            });
            for second in again.lock().unwrap().drain(..) {
                let context = format!("{context}, its recovery at {:?}", second.place);
                recovers(&dir, &second.ring, &text[..moment.taken], &context, |_| ());
                std::fs::remove_file(second.ring).unwrap();
            }
            std::fs::remove_file(moment.ring).unwrap();
        }
    }
    let steps = [
        "sentinel placed",
        "intent published",
        "read done",
        "frame complete",
        "head stored",
        "lines counted",
        "bytes counted",
        "gap slot filled",
        "gap epoch stored",
        "gap intent published",
        "gap taken",
        "intent cleared",
    ];
    assert_eq!(seen, steps.into());
    assert!(ring.dropped(Stream::Stdout).1 > 0, "the ring was never full");
}

fn numbered(len: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for number in 0u64.. {
        text.extend_from_slice(format!("{number} ").as_bytes());
        text.extend(std::iter::repeat_n(b'a' + (number % 26) as u8, (number * 31 % 90) as usize));
        text.push(b'\n');
        if text.len() > len {
            break;
        }
    }
    text
}

const VICTIM: &str = "PLIMSOLL_TEST_VICTIM";

/// What the process does that is killed: takes standard input into the store in this directory, until the input ends.
fn victim(dir: &Path) {
    let settings = Settings {
        seal_after: Duration::from_millis(20),
        ..Settings::new(dir.join("web"), dir.join("web.ring"), "web")
    };
    let (mut intake, store, _) = open(settings).unwrap();
    let input = std::io::stdin();
    loop {
        match intake.read_from(Stream::Stdout, input.as_fd(), 1) {
            Ok(landed) if landed.bytes == 0 => break,
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                rustix::event::poll(&mut [PollFd::new(&input, PollFlags::IN)], None).unwrap();
            }
            Err(e) => panic!("{e}"),
        }
    }
    assert!(store.close(Duration::from_secs(60)).complete);
}

#[test]
fn sigkills_in_a_flood() {
    // This test starts itself as its victim.
    if let Some(dir) = std::env::var_os(VICTIM) {
        return victim(Path::new(&dir));
    }
    let place = Place::new();
    let (read, write) = super::pipe();
    // Only the test's own end may block.
    rustix::io::ioctl_fionbio(&write, false).unwrap();
    let lines = 400_000u64;
    let printer = std::thread::spawn(move || {
        let mut out = std::io::BufWriter::with_capacity(3000, write);
        for number in 0..lines {
            let text = [b'a' + (number % 26) as u8; 90];
            write!(out, "{number} ").unwrap();
            out.write_all(&text[..(number * 31 % 90) as usize]).unwrap();
            out.write_all(b"\n").unwrap();
        }
    });
    let start = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "testing::kills::sigkills_in_a_flood", "--nocapture"]).env(VICTIM, place.dir.path());
        command.stdin(Stdio::from(read.try_clone().unwrap())).stdout(Stdio::null()).spawn().unwrap()
    };
    let mut random = Program::new(77);
    for _ in 0..30 {
        let mut victim = start();
        std::thread::sleep(Duration::from_micros(2_000 + random.random(40_000)));
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    assert!(start().wait().unwrap().success());
    printer.join().unwrap();
    let all = everything(&place.path(), &place.ring());
    assert_eq!(account(&all[&Stream::Stdout], lines), 0);
}
