//! What arrives, what does when nobody reads, and what a reader makes of garbage. Sockets are real and in a directory of the test's.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use proptest::prelude::*;

use super::notify::Notify;
use super::wire::{DATAGRAM_BYTES_MAX, LINES_MAX, Malformed, PARTS_MAX, Part, Writer, key, read};
use super::*;
use crate::drain::Drain;
use crate::gauge::Unread;
use crate::governor::{Reading, State, step};
use crate::policy::Policy;
use crate::queue::{self, Limits, WhenFull};
use crate::watchdog::{Config, Watchdog};

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// The supervisor's end.
struct Heard {
    socket: UnixDatagram,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

/// Key, words, name or text: one line as the tests compare it.
type Row = (String, BTreeMap<String, String>, String);

impl Heard {
    fn new() -> Heard {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Heard { socket, path, _dir: dir }
    }

    fn report(&self) -> Report {
        Report::from_var(Some(self.path.clone().into())).every(GAP)
    }

    fn datagram(&self) -> Vec<u8> {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
        let n = self.socket.recv(&mut buffer).unwrap();
        buffer.truncate(n);
        buffer
    }

    /// The lines of the next whole report that has what is wanted.
    fn rows_with(&self, wanted: impl Fn(&[Row]) -> bool) -> Vec<Row> {
        let mut rows = Vec::new();
        loop {
            let bytes = self.datagram();
            let datagram = read(&bytes).unwrap();
            rows.extend(rows_of(&bytes));
            if datagram.has_more() {
                continue;
            }
            if wanted(&rows) {
                return rows;
            }
            rows.clear();
        }
    }
}

fn rows_of(bytes: &[u8]) -> Vec<Row> {
    let row = |record: wire::Record<'_>| {
        if record.key == key::WORDS {
            return (record.key.to_owned(), BTreeMap::new(), record.text().to_owned());
        }
        let words = record.text().split("name=").next().unwrap_or_default();
        let pair = |word: &str| word.split_once('=').map(|(word, value)| (word.to_owned(), value.to_owned()));
        (record.key.to_owned(), words.split(' ').filter_map(pair).collect(), record.name().to_owned())
    };
    read(bytes).unwrap().records().map(row).collect()
}

fn find<'a>(rows: &'a [Row], key: &str, name: &str) -> Option<&'a BTreeMap<String, String>> {
    rows.iter().find(|row| row.0 == key && row.2 == name).map(|row| &row.1)
}

fn get(rows: &[Row], key: &str, name: &str, word: &str) -> String {
    find(rows, key, name).and_then(|words| words.get(word)).cloned().unwrap_or_else(|| "-".into())
}

fn decision(mib: u64) -> Decision {
    let confirmed = Some(Ok(crate::gauge::Protected { program_bytes: mib * MIB, ..Default::default() }));
    let at = MonotonicClock.now();
    let reading = Reading { at, fast_bytes: None, confirmed, guard_bytes: None, supply: None };
    step(&Policy::new(300 * MIB, 64 * MIB), State::default(), &reading).1
}

#[test]
fn a_report_has_the_three_numbers_accounts_queues_producers_and_gauges() {
    let heard = Heard::new();
    let ledger = Ledger::new();
    let _held =
        (ledger.account("packet store").unwrap().charge(3 * MIB), ledger.account("index").unwrap().charge(5 * MIB));
    let limits = Limits { max_items: 2, max_bytes: 100 };
    let (sender, receiver) = queue::bounded::<Vec<u8>>(limits, WhenFull::DropNewest);
    let web = sender.named("web/stderr");
    for bytes in [30, 40, 50] {
        web.send(Vec::with_capacity(bytes)).unwrap();
    }
    let report = heard
        .report()
        .ledger(&ledger)
        .live(Arc::new(|| Some((20 * MIB, Duration::from_millis(7)))))
        .queue("ingest", receiver.monitor())
        .gauges("chat", |tell| tell("clients_count", 17.5))
        .start()
        .unwrap();
    report.observe()(&decision(290));
    let rows = heard.rows_with(|rows| get(rows, key::LEVEL, "", "level") == "high");
    let of = |key: &str, name: &str, word: &str| get(&rows, key, name, word);
    assert_eq!(of(key::LIBRARY, env!("CARGO_PKG_VERSION"), "x"), "-");
    assert_eq!(of(key::MEMORY, "", "protected_bytes"), (290 * MIB).to_string());
    assert_eq!(
        (of(key::MEMORY, "", "live_bytes"), of(key::MEMORY, "", "live_age_ms")),
        ((20 * MIB).to_string(), "7".into())
    );
    assert_eq!(of(key::MEMORY, "", "accounted_bytes"), (8 * MIB).to_string());
    assert_eq!(
        (of(key::ACCOUNTS, "", "count"), of(key::ACCOUNTS, "", "held_bytes")),
        ("2".into(), (8 * MIB).to_string())
    );
    assert_eq!(of(key::ACCOUNT, "packet store", "held_bytes"), (3 * MIB).to_string());
    let places: Vec<_> = rows.iter().filter(|row| row.0 == key::ACCOUNT).map(|row| row.2.as_str()).collect();
    assert_eq!(places, ["index", "packet store"], "the largest first");
    assert_eq!((of(key::QUEUE, "ingest", "items"), of(key::QUEUE, "ingest", "bytes")), ("2".into(), "70".into()));
    assert_eq!((of(key::QUEUE, "ingest", "max_items"), of(key::QUEUE, "ingest", "closed")), ("2".into(), "0".into()));
    assert_eq!(of(key::PRODUCER, "web/stderr", "accepted_items_total"), "2");
    assert_eq!(
        (of(key::DROPPED, "full", "items_total"), of(key::DROPPED, "full", "bytes_total")),
        ("1".into(), "50".into())
    );
    assert_eq!(of(key::GAUGE, "chat.clients_count", "value"), "17.5");
    drop((sender, web));
    drop(report);
}

#[test]
fn a_service_that_nobody_governs_reports_its_own_reading_and_no_level() {
    let heard = Heard::new();
    let _report = heard.report().start().unwrap();
    let rows = heard.rows_with(|_| true);
    assert!(get(&rows, key::MEMORY, "", "protected_bytes").parse::<u64>().unwrap() > 100_000, "{rows:?}");
    assert!(find(&rows, key::LEVEL, "").is_none() && get(&rows, key::MEMORY, "", "live_bytes") == "-", "{rows:?}");
}

#[test]
fn nobody_to_report_to_is_said_and_costs_no_thread() {
    for (value, said) in [
        (None, "report: no supervisor, nothing is reported"),
        (Some(""), "report: no supervisor, nothing is reported"),
        (
            Some("run/x"),
            "report: PLIMSOLL_REPORT_SOCKET=\"run/x\": neither an absolute path nor @ and an abstract name: nothing is reported",
        ),
    ] {
        let reporter = Report::from_var(value.map(Into::into)).start().unwrap();
        assert_eq!(reporter.to_string(), said);
        assert!(reporter.thread.is_none() && reporter.supervisor().is_none());
        reporter.observe()(&decision(1));
        assert_eq!(reporter.sent(), Sent::default());
    }
}

#[test]
fn a_wedged_supervisor_delays_nobody_and_every_drop_is_counted() {
    let heard = Heard::new();
    let report = heard.report().start().unwrap();
    // Nobody reads: after some datagrams the kernel's queue is full.
    let began = MonotonicClock.now();
    let mut flood = 0;
    while report.sent().dropped_for(Dropped::Full) < 3 {
        let outlet = report.shared.outlet.as_ref().unwrap();
        outlet.send(&[b'x'; 4096]).ok();
        flood += 1;
        assert!(MonotonicClock.now() - began < PATIENCE, "{:?}", report.sent());
    }
    let before = report.sent();
    let mut observe = report.observe();
    let began = MonotonicClock.now();
    (0..1_000).for_each(|_| observe(&decision(290)));
    assert!(MonotonicClock.now() - began < Duration::from_secs(2), "never waits");
    assert_eq!(before.dropped_for(Dropped::Gone) + before.dropped_for(Dropped::Failed), 0, "{before:?}");
    // What was taken is there, whole; then the next report comes through, with the count.
    for _ in 0..flood {
        if heard.datagram() != [b'x'; 4096] {
            break;
        }
    }
    heard.socket.set_nonblocking(true).unwrap();
    while !matches!(heard.socket.recv(&mut [0; 10]).map_err(|e| e.kind()), Err(ErrorKind::WouldBlock)) {}
    heard.socket.set_nonblocking(false).unwrap();
    let rows = heard.rows_with(|rows| find(rows, key::SENDER, "").is_some());
    assert!(get(&rows, key::SENDER, "", "full_total").parse::<u64>().unwrap() >= 3, "{rows:?}");
}

#[test]
fn a_supervisor_that_is_gone_is_counted_and_its_successor_hears() {
    let heard = Heard::new();
    let report = heard.report().start().unwrap();
    heard.rows_with(|_| true);
    let Heard { socket, path, _dir } = heard;
    drop(socket);
    let began = MonotonicClock.now();
    while report.sent().dropped_for(Dropped::Gone) == 0 {
        assert!(MonotonicClock.now() - began < PATIENCE, "{:?}", report.sent());
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::remove_file(&path).unwrap();
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = Heard { socket, path, _dir };
    let rows = next.rows_with(|rows| find(rows, key::SENDER, "").is_some());
    assert_ne!(get(&rows, key::SENDER, "", "gone_total"), "0");
}

#[test]
fn a_long_path_and_an_abstract_name_are_reached() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("d".repeat(120));
    std::fs::create_dir(&long).unwrap();
    let path = long.join("report.sock");
    // Bound through a short path, as the supervisor does it.
    let link = dir.path().join("s");
    std::os::unix::fs::symlink(&long, &link).unwrap();
    let socket = UnixDatagram::bind(link.join("report.sock")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let outlet = Outlet::open(path.as_os_str()).unwrap();
    outlet.send(b"hello").unwrap();
    assert_eq!(socket.recv(&mut [0; 9]).unwrap(), 5);
    let name = format!("@plimsoll-test-{}", std::process::id());
    let outlet = Outlet::open(name.as_ref()).unwrap();
    assert_eq!(outlet.send(b"x"), Err(Dropped::Gone));
    use std::os::linux::net::SocketAddrExt as _;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name[1..]).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    outlet.send(b"hello").unwrap();
    assert_eq!(socket.recv(&mut [0; 9]).unwrap(), 5);
}

#[test]
fn a_watchdog_says_that_it_leaves_with_its_last_words_and_may_take_it_back() {
    let heard = Heard::new();
    let ledger = Ledger::new();
    let _held = ledger.account("sessions").unwrap().charge(9 * MIB);
    let report = heard.report().every(Duration::from_secs(3600)).start().unwrap();
    let words = crate::last_words::LastWords::new().ledger(&ledger);
    let config = Config { drain_deadline: PATIENCE, reserve_bytes: 0, ..Config::new(300 * MIB) };
    let drain = Drain::new();
    let gauge = || -> Result<u64, Unread> { Ok(301 * MIB) };
    let watchdog =
        Watchdog::new(config).drain(&drain).report(&report).last_words(words).gauge(gauge).at_deadline(|| {});
    watchdog.start().unwrap();
    let leave = loop {
        let rows = rows_of(&heard.datagram());
        if find(&rows, key::LEAVE, "").is_some() {
            break rows;
        }
    };
    assert_eq!(get(&leave, key::LEAVE, "", "leaving"), "1");
    assert_eq!(get(&leave, key::LEAVE, "", "deadline_ms"), PATIENCE.as_millis().to_string());
    assert_eq!(get(&leave, key::LEAVE, "", "protected_bytes"), (301 * MIB).to_string());
    let words: Vec<_> = leave.iter().filter(|row| row.0 == key::WORDS).map(|row| row.2.as_str()).collect();
    assert!(words[0].starts_with("plimsoll: memory pressure: 301.0 MiB of 300.0 MiB"), "{words:?}");
    assert!(words.iter().any(|line| line.contains("sessions 9.0 MiB")), "{words:?}");
    // The report that follows at once says so, too.
    heard.rows_with(|rows| get(rows, key::LEVEL, "", "leaving") == "1");
    watchdog.disarm();
    heard.rows_with(|rows| get(rows, key::LEAVE, "", "leaving") == "0");
}

#[test]
fn last_words_that_are_not_taken_at_once_are_tried_again_and_then_given_up() {
    let heard = Heard::new();
    let report = heard.report().every(Duration::from_secs(3600)).start().unwrap();
    let shared = report.shared();
    let outlet = shared.outlet.as_ref().unwrap();
    while outlet.send(&[b'x'; 4096]).is_ok() {}
    shared.leave(&decision(301), PATIENCE, "plimsoll: words\n");
    assert!(shared.leave.lock().waits);
    std::thread::scope(|scope| {
        scope.spawn(|| shared.finish_leaving());
        let leave = loop {
            let bytes = heard.datagram();
            if bytes.starts_with(b"PLIMSOLL_REPORT=1\nLEAVE=") {
                break bytes;
            }
        };
        assert!(leave.ends_with(b"WORDS=plimsoll: words\n"));
    });
    while outlet.send(&[b'x'; 4096]).is_ok() {}
    shared.leave(&decision(301), PATIENCE, "again");
    let began = MonotonicClock.now();
    shared.finish_leaving();
    let took = MonotonicClock.now() - began;
    assert!(took >= crate::last_words::PATIENCE && !shared.leave.lock().waits, "{took:?}");
}

#[test]
fn a_huge_report_is_bounded_goes_on_in_parts_and_counts_what_was_cut() {
    let (mut part, mut sent) = (Part::new(), Vec::new());
    let mut send = |bytes: &[u8]| {
        sent.push(bytes.to_vec());
        true
    };
    let name = "\u{fc}".repeat(1_000);
    let mut writer = Writer::new(&mut part, 7, 1, &mut send);
    for n in 0..10_000_u64 {
        writer.line(key::ACCOUNT, |line| line.put("held_bytes", n).name(&name));
    }
    let (cut, heard) = writer.end();
    assert!(heard && cut > 0 && sent.len() == PARTS_MAX as usize);
    let mut lines = 0;
    for (n, bytes) in sent.iter().enumerate() {
        assert!(bytes.len() <= DATAGRAM_BYTES_MAX);
        let datagram = read(bytes).unwrap();
        assert_eq!(datagram.has_more(), n + 1 < sent.len());
        let rows = rows_of(bytes);
        assert_eq!(get(&rows[..1], key::PART, "", "part"), (n + 1).to_string());
        assert!(rows[1..].iter().all(|row| row.2 == "\u{fc}".repeat(32)), "cut at a character");
        lines += rows.len() as u64 - 1;
    }
    assert_eq!(lines + cut, 10_000);
    // A part that is not taken ends the report: no rest without its beginning.
    let mut calls = 0;
    let mut send = |_: &[u8]| {
        calls += 1;
        false
    };
    let mut writer = Writer::new(&mut part, 8, 1, &mut send);
    (0..10_000_u64).for_each(|n| writer.line(key::ACCOUNT, |line| line.put("held_bytes", n).name(&name)));
    assert!(!writer.end().1);
    assert_eq!(calls, 1);
}

#[test]
fn a_source_that_panics_is_counted_and_the_others_are_reported() {
    let heard = Heard::new();
    let report = heard.report().gauges("bad", |_| panic!("no")).gauges("good", |tell| tell("n_count", 1.0));
    let _report = report.start().unwrap();
    let rows = heard.rows_with(|rows| get(rows, key::SENDER, "", "panics_total") != "0");
    assert_eq!(get(&rows, key::GAUGE, "good.n_count", "value"), "1");
}

#[test]
fn sd_notify_speaks_its_lines_and_gives_signs_of_life_when_they_are_due() {
    let heard = Heard::new();
    let vars = |pid: Option<u32>, usec: &'static str| {
        let path = heard.path.clone();
        Notify::from_vars(move |name| match name {
            notify::SOCKET_VAR => Some(path.clone().into()),
            notify::WATCHDOG_VAR => Some(usec.into()),
            _ => pid.map(|pid| pid.to_string().into()),
        })
    };
    let notify = vars(Some(std::process::id()), "60000000");
    assert_eq!(notify.alive_interval(), Some(Duration::from_secs(30)));
    assert!(notify.ready() && notify.status("line one\nline two") && notify.stopping());
    assert!(notify.alive() && !notify.alive(), "the second one is not due yet");
    let said: Vec<_> = (0..4).map(|_| String::from_utf8(heard.datagram()).unwrap()).collect();
    assert_eq!(said, ["READY=1", "STATUS=line one line two", "STOPPING=1", "WATCHDOG=1"]);
    assert!(notify.reloading() && heard.datagram().starts_with(b"RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(vars(Some(1), "60000000").alive_interval(), None, "meant for another process");
    assert!(vars(None, "soon").problem().unwrap().to_string().starts_with("WATCHDOG_USEC=\"soon\""));
    assert!(!Notify::from_vars(|_| None).ready());
    assert!(Notify::from_vars(|name| (name == notify::SOCKET_VAR).then(|| "x".into())).problem().is_some());
}

#[test]
fn what_is_no_report_is_told_apart() {
    for (bytes, why) in [
        (&b""[..], Malformed::NoReport),
        (b"READY=1", Malformed::NoReport),
        (b"PLIMSOLL_REPORT=1", Malformed::Line(1)),
        (b"PLIMSOLL_REPORT=2\nNEW=x\n", Malformed::Version),
        (b"PLIMSOLL_REPORT=1\nMEMORY\n", Malformed::Line(2)),
        (b"PLIMSOLL_REPORT=1\nMEMORY=a=1\nmemory=a=1\n", Malformed::Line(3)),
        (b"PLIMSOLL_REPORT=1\nMEMORY=protected_bytes=1 GiB\n", Malformed::Line(2)),
        (b"PLIMSOLL_REPORT=1\nMEMORY=protected_bytes=inf\n", Malformed::Line(2)),
        (b"PLIMSOLL_REPORT=1\nACCOUNT=held_bytes=1 name=a\x1b[0m\n", Malformed::Line(2)),
        (b"PLIMSOLL_REPORT=1\nWORDS=\xff\n", Malformed::Line(2)),
    ] {
        // "inf" is a lower-case word: allowed, and no number.
        let expected = if bytes.ends_with(b"inf\n") { Ok(None) } else { Err(why) };
        let got = read(bytes).map(|datagram| datagram.records().find_map(|record| record.number("protected_bytes")));
        assert_eq!(got, expected, "{}", String::from_utf8_lossy(bytes));
    }
    let many = format!("PLIMSOLL_REPORT=1\n{}", "A=\n".repeat(LINES_MAX));
    assert_eq!(read(many.as_bytes()), Err(Malformed::TooLong));
    let long = format!("PLIMSOLL_REPORT=1\nWORDS={}\n", "x".repeat(DATAGRAM_BYTES_MAX));
    assert_eq!(read(long.as_bytes()), Err(Malformed::TooLong));
    let later = b"PLIMSOLL_REPORT=1\nFUTURE=new-word=yes count=3 name=a name=b\n";
    let record = read(later).unwrap().records().next().unwrap();
    assert_eq!(
        (record.key, record.number("count"), record.word("new-word"), record.name()),
        ("FUTURE", Some(3), Some("yes"), "a name=b")
    );
}

/// A text without control characters, as it is written.
fn clean_up(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(rows in prop::collection::vec((0..4_usize, any::<u64>(), any::<Option<f64>>(), ".{0,80}"), 0..60)) {
        let keys = [key::ACCOUNT, key::QUEUE, key::GAUGE, key::WORDS];
        let mut part = Part::new();
        part.begin();
        let mut written = Vec::new();
        for (at, count, real, text) in &rows {
            let fits = match keys[*at] {
                key::WORDS => part.text(key::WORDS, text),
                key => part.line(key, |line| line.put("count", *count).put("real", *real).name(text)),
            };
            if fits {
                written.push((keys[*at], *count, real.filter(|real| real.is_finite()), text));
            }
        }
        let datagram = read(part.bytes()).unwrap();
        let records: Vec<_> = datagram.records().collect();
        prop_assert_eq!(records.len(), written.len());
        for (record, (key, count, real, text)) in records.into_iter().zip(written) {
            let clean = clean_up(text);
            prop_assert_eq!(record.key, key);
            if key == key::WORDS {
                prop_assert_eq!(record.text(), clean);
            } else {
                prop_assert_eq!((record.number("count"), record.real("real")), (Some(count), real));
                prop_assert_eq!(record.name(), clean_up(wire::cut(text, wire::NAME_BYTES_MAX)));
            }
        }
    }

    #[test]
    fn garbage_is_refused_or_well_formed_and_never_more_than_it_is(bytes in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>()) {
        let mut mixed = b"PLIMSOLL_REPORT=1\nPART=report=1 part=1 at_ms=5\nACCOUNT=held_bytes=12 name=a b\nWORDS=x y\nMORE=1\n".to_vec();
        let place = at.index(mixed.len());
        mixed.splice(place..(place + bytes.len() / 8).min(mixed.len()), bytes.iter().copied());
        for garbage in [&bytes, &mixed] {
            if let Ok(datagram) = read(garbage) {
                for record in datagram.records() {
                    prop_assert!(record.name().len() <= 64 && !record.text().contains(char::is_control));
                    prop_assert!(record.key.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'));
                }
            }
        }
    }
}
