//! What reporting costs: a decision noted on the watchdog's thread, a report of 32 accounts and four queues written and read, and
//! one datagram to a supervisor that hangs. `cargo bench -p plimsoll --bench report`

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use divan::{Bencher, black_box};
use plimsoll::clock::{Clock as _, MonotonicClock};
use plimsoll::gauge::Protected;
use plimsoll::governor::{Reading, State, step};
use plimsoll::policy::Policy;
use plimsoll::report::notify::Notify;
use plimsoll::report::wire::{Part, Writer, key, read};
use plimsoll::report::{ACCOUNTS_MAX, Report};

fn main() {
    divan::main();
}

/// A socket that nobody reads, and the path to it.
fn wedged() -> (tempfile::TempDir, UnixDatagram, std::path::PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("report.sock");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    (dir, socket, path)
}

/// A report as a busy service sends it; the datagrams' bytes.
fn write(part: &mut Part, send: &mut dyn FnMut(&[u8])) -> u64 {
    let mut bytes = 0;
    let mut count = |datagram: &[u8]| {
        bytes += datagram.len() as u64;
        send(datagram);
        true
    };
    let mut writer = Writer::new(part, 1, 2, &mut count);
    for n in 0..ACCOUNTS_MAX as u64 {
        writer.line(key::ACCOUNT, |line| {
            line.put("held_bytes", n << 20).put("cap_bytes", 1_u64 << 30).put("refused_total", n);
            line.put("forced_bytes_total", 0_u64).name("an account of some kind");
        });
    }
    for _ in 0..4 {
        writer.line(key::QUEUE, |line| line.put("items", 812_u64).put("bytes", 90_000_u64).name("ingest"));
        for n in 0..4_u64 {
            writer.line(key::PRODUCER, |line| line.put("accepted_items_total", n).name("web/stderr"));
            writer.line(key::DROPPED, |line| line.put("items_total", n).put("bytes_total", n).name("full"));
        }
    }
    writer.end();
    bytes
}

#[divan::bench]
fn a_decision_noted(bencher: Bencher<'_, '_>) {
    let (_dir, _socket, path) = wedged();
    let report = Report::from_var(Some(path.into())).every(Duration::from_secs(3600)).start().expect("a thread");
    let confirmed = Some(Ok(Protected { program_bytes: 200 << 20, ..Protected::default() }));
    let reading = Reading { at: MonotonicClock.now(), confirmed, ..Reading::default() };
    let decision = step(&Policy::new(300 << 20, 64 << 20), State::default(), &reading).1;
    let mut observe = report.observe();
    bencher.bench_local(|| observe(black_box(&decision)));
}

#[divan::bench]
fn a_report_written(bencher: Bencher<'_, '_>) {
    let mut part = Part::new();
    let bytes = write(&mut part, &mut |_| {});
    bencher.counter(divan::counter::BytesCount::new(bytes)).bench_local(|| black_box(write(&mut part, &mut |_| {})));
}

#[divan::bench]
fn a_report_read(bencher: Bencher<'_, '_>) {
    let (mut part, mut all) = (Part::new(), Vec::new());
    let bytes = write(&mut part, &mut |datagram| all.push(datagram.to_vec()));
    bencher.counter(divan::counter::BytesCount::new(bytes)).bench_local(|| {
        let numbers = |bytes: &Vec<u8>| {
            read(bytes).map_or(0, |datagram| datagram.records().filter_map(|one| one.number("held_bytes")).sum::<u64>())
        };
        black_box(all.iter().map(numbers).sum::<u64>())
    });
}

#[divan::bench]
fn a_datagram_to_a_supervisor_that_hangs(bencher: Bencher<'_, '_>) {
    let (_dir, _socket, path) = wedged();
    let notify = Notify::from_vars(|name| (name == "NOTIFY_SOCKET").then(|| path.clone().into()));
    while notify.send(&[b'x'; 8192]) {}
    bencher.bench_local(|| black_box(notify.send(&[b'x'; 8192])));
}
