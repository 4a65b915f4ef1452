//! The receiving end against real senders: the library's own reporter, strangers, floods, garbage, and a successor.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::Arc;

use plimsoll::queue::{Limits, WhenFull, bounded};
use plimsoll::reclaim::ledger::Ledger;
use plimsoll::report::Report;
use plimsoll::report::notify::Notify;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn own() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

fn bind(dir: &tempfile::TempDir) -> Reports {
    Reports::bind(&dir.path().join("report.sock"), Relay::new(Notify::default())).unwrap()
}

/// Sends as this process, which is taken for the program.
struct Sender(UnixDatagram, PathBuf);

impl Sender {
    fn to(reports: &Reports) -> Sender {
        Sender(UnixDatagram::unbound().unwrap(), reports.path().to_owned())
    }

    fn send(&self, bytes: &[u8]) {
        self.0.send_to(bytes, &self.1).unwrap();
    }
}

fn refused(reports: &Reports, reason: &str) -> u64 {
    reports.view(None).refused_total[reason]
}

/// Hears until `done`, as the loop does.
fn hear_until(reports: &Reports, done: impl Fn(&ReportsView) -> bool) -> ReportsView {
    let until = MonotonicClock.now() + PATIENCE;
    loop {
        reports.hear(Some(own()), &mut Vec::new);
        let view = reports.view(Some(own()));
        if done(&view) {
            return view;
        }
        assert!(MonotonicClock.now() < until, "{view:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn reporter(reports: &Reports) -> Report {
    Report::from_var(Some(reports.path().into())).every(Duration::from_millis(100))
}

#[test]
fn the_librarys_report_arrives_whole() {
    let dir = tempfile::tempdir().unwrap();
    let reports = bind(&dir);
    let ledger = Ledger::new();
    let _held = ledger.account("packets").unwrap().charge(3 << 20);
    let (sender, receiver) = bounded::<Vec<u8>>(Limits { max_items: 1, max_bytes: 1 << 20 }, WhenFull::DropNewest);
    let web = sender.named("web/stderr");
    for _ in 0..3 {
        web.send(vec![0; 10]).unwrap();
    }
    let reporter = reporter(&reports).ledger(&ledger).live(Arc::new(|| Some((5 << 20, Duration::ZERO))));
    let reporter = reporter.queue("ingest", receiver.monitor()).gauges("chat", |tell| tell("clients_count", 2.0));
    let reporter = reporter.start().unwrap();
    let view = hear_until(&reports, |view| view.processes.first().is_some_and(|report| report.accounts_count == 1));
    let report = &view.processes[0];
    assert_eq!((report.pid, report.library.as_str()), (std::process::id(), env!("CARGO_PKG_VERSION")));
    assert_eq!((report.accounts[0].name.as_str(), report.accounts[0].held_bytes), ("packets", 3 << 20));
    assert_eq!(report.unaccounted_bytes, Some(2 << 20));
    assert!(report.protected_bytes.is_some() && report.age_seconds < 10.0 && report.level.is_none(), "{report:?}");
    let queue = &report.queues[0];
    assert_eq!((queue.name.as_str(), queue.items, queue.max_items), ("ingest", 1, Some(1)));
    assert_eq!(queue.producers[0].name, "web/stderr", "who lost most comes first");
    assert_eq!(queue.producers[0].dropped_items_total["full"], 2);
    assert_eq!((report.gauges[0].name.as_str(), report.gauges[0].value), ("chat.clients_count", 2.0));
    assert!(view.received_total > 0 && view.refused_total.values().all(|n| *n == 0), "{view:?}");
    // A successor binds the same path; the reporter, which names it with each datagram, is heard by it.
    drop(reports);
    let successor = bind(&dir);
    hear_until(&successor, |view| !view.processes.is_empty());
    drop(reporter);
}

#[test]
fn the_socket_is_private_and_what_is_no_socket_is_left_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let reports = bind(&dir);
    assert_eq!(std::fs::metadata(reports.path()).unwrap().permissions().mode() & 0o777, 0o600);
    let file = dir.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let error = Reports::bind(&file, Relay::default()).unwrap_err();
    assert!(error.kind() == io::ErrorKind::AlreadyExists && file.exists(), "{error}");
    let long = dir.path().join("d".repeat(150));
    std::fs::create_dir(&long).unwrap();
    let reports = Reports::bind(&long.join("report.sock"), Relay::default()).unwrap();
    let _reporter = reporter(&reports).start().unwrap();
    hear_until(&reports, |view| !view.processes.is_empty());
}

#[test]
fn garbage_is_counted_with_its_reason_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let reports = bind(&dir);
    let sender = Sender::to(&reports);
    for bytes in [&b""[..], b"\0\0", b"hello", b"PLIMSOLL_REPORT=1\nMEMORY=x\n", b"PLIMSOLL_REPORT=1"] {
        sender.send(bytes);
    }
    sender.send(b"PLIMSOLL_REPORT=99\nX=1\n");
    sender.send(&[b'x'; DATAGRAM_BYTES_MAX + 100]);
    let view = hear_until(&reports, |view| view.refused_total.values().sum::<u64>() == 7);
    let count = |reason: &str| view.refused_total[reason];
    assert_eq!((count("malformed"), count("version"), count("too-long")), (5, 1, 1), "{view:?}");
    assert!(view.processes.is_empty() && view.notify.is_none() && view.received_total == 0);
}

#[test]
fn a_stranger_is_not_heard_and_a_member_is() {
    let dir = tempfile::tempdir().unwrap();
    let reports = bind(&dir);
    let script = "import socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); \
                  s.sendto(b'PLIMSOLL_REPORT=1\\nLEAVE=leaving=1 deadline_ms=9\\n', sys.argv[1]); sys.stdin.read()";
    let mut command = Command::new("python3");
    command.arg("-c").arg(script).arg(reports.path()).stdin(Stdio::piped());
    let Ok(mut stranger) = command.spawn() else {
        println!("skipped: no python3 to be a stranger");
        return;
    };
    let pid = i32::try_from(stranger.id()).unwrap();
    hear_until(&reports, |view| view.refused_total["foreign"] == 1);
    assert_eq!(reports.left_for_memory(own(), Some(2)), None, "a stranger cannot say it");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    // The same of a process that is of the program's tree: it counts.
    let mut member = command.spawn().unwrap();
    let until = MonotonicClock.now() + PATIENCE;
    while reports.left_for_memory(own(), Some(2)).is_none() {
        let members = vec![i32::try_from(member.id()).unwrap()];
        reports.hear(Some(own()), &mut || members.clone());
        assert!(MonotonicClock.now() < until, "{:?}", reports.view(None));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_ne!(member.id(), pid.unsigned_abs());
    member.kill().unwrap();
    member.wait().unwrap();
    // Nobody runs: whoever speaks is a stranger.
    Sender::to(&reports).send(b"READY=1");
    reports.hear(None, &mut Vec::new);
    assert_eq!(refused(&reports, "foreign"), 2);
}

#[test]
fn who_said_that_it_leaves_is_believed_for_its_deadline_and_may_take_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let reports = bind(&dir);
    let sender = Sender::to(&reports);
    let words = b"PLIMSOLL_REPORT=1\nLEAVE=leaving=1 deadline_ms=5000 protected_bytes=315621376 threshold_bytes=314572800 at_unix_ms=1000\n\
                  WORDS=plimsoll: memory pressure\nWORDS=plimsoll: holders: a\n";
    sender.send(words);
    hear_until(&reports, |view| view.processes.first().is_some_and(|report| report.leaving));
    let (_, said) = reports.left_for_memory(own(), Some(0)).expect("the main process is believed whatever its code");
    assert_eq!((said.figures().as_str(), said.lines.len(), said.deadline_seconds), ("301.0 MiB of 300.0 MiB", 2, 5.0));
    assert_eq!(reports.left_for_memory(own(), None), None, "a signal ended it, not its word");
    assert!(reports.left_for_memory(1, Some(2)).is_some(), "behind a shell, with a watchdog's code");
    assert_eq!(reports.left_for_memory(1, Some(1)), None, "behind a shell, with another");
    assert!(reports.news().is_some() && reports.news().is_none(), "told once");
    sender.send(b"PLIMSOLL_REPORT=1\nLEAVE=leaving=0\n");
    hear_until(&reports, |view| view.processes.first().is_some_and(|report| !report.leaving));
    assert_eq!(reports.left_for_memory(own(), Some(2)), None);
    sender.send(words);
    hear_until(&reports, |view| view.processes.first().is_some_and(|report| report.leaving));
    reports.new_life();
    assert_eq!(reports.left_for_memory(own(), Some(2)), None, "of another life");
}

#[test]
fn a_part_that_is_missing_gives_the_report_up_and_too_much_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let reports = bind(&dir);
    let sender = Sender::to(&reports);
    let part = |report: u64, part: u64, body: &str| {
        sender.send(format!("PLIMSOLL_REPORT=1\nPART=report={report} part={part} at_ms=1\n{body}").as_bytes());
    };
    part(1, 1, "ACCOUNTS=count=5\nMORE=1\n");
    part(1, 2, "ACCOUNT=held_bytes=7 name=a\n");
    let view = hear_until(&reports, |view| view.processes.first().is_some_and(|report| report.accounts_count == 5));
    assert_eq!(view.processes[0].accounts[0].held_bytes, 7, "both parts");
    part(2, 1, "ACCOUNTS=count=6\nMORE=1\n");
    part(3, 1, "ACCOUNTS=count=7\n");
    part(4, 2, "ACCOUNTS=count=8\n");
    let view = hear_until(&reports, |view| view.processes[0].accounts_count == 7);
    assert!(view.processes[0].accounts.is_empty(), "nothing of the one that was given up");
    assert_eq!(hear_until(&reports, |view| view.refused_total["incomplete"] >= 2).processes[0].accounts_count, 7);
    let many = "ACCOUNT=\n".repeat(500);
    part(5, 1, &many);
    let view = hear_until(&reports, |view| view.refused_total["too-many"] > 0);
    assert_eq!((view.processes[0].accounts.len(), view.refused_total["too-many"]), (32, 468));
}

#[test]
fn a_flood_is_left_in_the_kernel_and_the_loop_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let reports = bind(&dir);
    let sender = Sender::to(&reports);
    sender.0.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let until = MonotonicClock.now() + PATIENCE;
    while reports.poll().is_ok() {
        while sender.0.send_to(b"READY=1", &sender.1).is_ok() {
            sent += 1;
        }
        reports.hear(Some(own()), &mut Vec::new);
        assert!(MonotonicClock.now() < until, "{sent}");
    }
    let taken = reports.view(None).received_total;
    assert!(taken >= u64::from(PER_SECOND) && sent > taken, "{taken} of {sent}");
    let again = reports.poll().expect_err("not before the second is over");
    reports.hear(Some(own()), &mut Vec::new);
    let after = reports.view(None).received_total;
    assert!(after <= taken + u64::from(BATCH) && again > MonotonicClock.now().saturating_sub(Duration::from_secs(1)));
}

#[test]
fn descriptors_that_come_along_are_closed() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};
    let dir = tempfile::tempdir().unwrap();
    let reports = bind(&dir);
    let (read, write) = rustix::pipe::pipe().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [write.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let sender = UnixDatagram::unbound().unwrap();
    let address = SocketAddrUnix::new(reports.path()).unwrap();
    sendmsg_addr(&sender, &address, &[io::IoSlice::new(b"BARRIER=1")], &mut control, SendFlags::empty()).unwrap();
    drop(write);
    reports.hear(Some(own()), &mut Vec::new);
    assert_eq!(rustix::io::read(&read, &mut [0; 1]), Ok(0), "the barrier of systemd-notify is over");
    assert_eq!(reports.view(None).notify.unwrap().messages_total, 1);
}

#[test]
fn last_words_behind_a_flood_are_heard_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let reports = bind(&dir);
    let sender = Sender::to(&reports);
    sender.0.set_nonblocking(true).unwrap();
    // Nothing more is read in this second.
    while reports.poll().is_ok() {
        while sender.0.send_to(b"READY=1", &sender.1).is_ok() {}
        reports.hear(Some(own()), &mut Vec::new);
    }
    while sender.0.send_to(b"READY=1", &sender.1).is_ok() {}
    reports.hear_rest(Some(own()), &mut Vec::new);
    sender.send(b"PLIMSOLL_REPORT=1\nLEAVE=leaving=1 deadline_ms=9\n");
    reports.hear_rest(Some(own()), &mut Vec::new);
    assert!(reports.left_for_memory(own(), Some(2)).is_some());
}

#[test]
fn what_is_kept_is_bounded_whatever_comes() {
    let whole = b"PLIMSOLL_REPORT=1\nPART=report=1 part=1 at_ms=18446744073709551615\nACCOUNTS=count=3\n\
        ACCOUNT=held_bytes=1 cap_bytes=2 name=a\nQUEUE=items=1 oldest_ms=18446744073709551615 name=q\nPRODUCER=name=p\n\
        DROPPED=items_total=1 name=full\nRECLAIM=stuck=1\nSTORE=late_ms=5 name=s\nGAUGE=value=1e308 name=g\nMORE=1\n";
    let leave = b"PLIMSOLL_REPORT=1\nLEAVE=leaving=1 deadline_ms=18446744073709551615 at_unix_ms=18446744073709551615\nWORDS=w\n";
    let mut keep = Keep::default();
    let mut refused = 0;
    let mut seed = 1_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let mut taken = 0;
    for n in 0..20_000 {
        let mut bytes = if n % 3 == 0 { leave.to_vec() } else { whole.to_vec() };
        for _ in 0..random(4) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = b" =\n19aZ_"[random(8)],
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b'7'),
            }
        }
        let Ok(datagram) = wire::read(&bytes) else { continue };
        taken += 1;
        let pid = i32::try_from(random(9)).unwrap() + 1;
        keep.take(pid, datagram, Duration::from_secs(n), &mut |_| refused += 1);
        if let Some((said_at, words)) = keep.left(None) {
            assert!(said_at <= Duration::from_secs(n) && words.lines.len() <= 64 && words.deadline_seconds >= 0.0);
        }
    }
    let views = keep.views(Some(1), Duration::from_secs(20_000));
    assert!(taken > 5_000 && refused > 0, "{taken} taken, {refused} refused");
    assert!(views.len() <= 4 && serde_json::to_string(&views).unwrap().len() < 64 << 10);
    keep.clear();
    assert!(keep.views(None, Duration::ZERO).is_empty());
}
