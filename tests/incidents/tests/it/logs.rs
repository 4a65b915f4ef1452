//! Every line that was printed is stored once or lies in a gap of exactly its range; nothing grows; nobody waits.

use crate::support::{or_skip, start, turn};
use plimsoll_incidents::files;
use plimsoll_incidents::protected::{Entry, Service, Setup};
use plimsoll_incidents::tmpfs::Tmpfs;
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;

const FLAGS: [&str; 5] = ["--memory", "300M", "--restart", "never", "--quiet"];
const DEADLINE: Duration = Duration::from_secs(60);
/// What a supervisor may have resident at its worst moment.
const RSS_MAX_KIB: u64 = 32 << 10;

/// Waits for the end of a flood and accounts for it; answers the summary.
#[track_caller]
pub(crate) fn assert_accounted(service: &Service, count: u64, context: &str) -> plimsoll_incidents::account::Summary {
    let summary = service.account(1, 200, count, true).unwrap_or_else(|reason| panic!("{context}: {reason}"));
    eprintln!(
        "{context}: {} whole lines, {} pieces, {} gaps of {} bytes",
        summary.whole_lines, summary.pieces, summary.gaps, summary.gap_bytes
    );
    assert_eq!(summary.finding_count, 0, "{context}: {summary:#?}\n{}", service.stderr());
    summary
}

pub(crate) fn peak_rss_kib(pid: u32) -> u64 {
    files::text(Path::new(&format!("/proc/{pid}/status")))
        .ok()
        .and_then(|text| files::field(&text, "VmHWM"))
        .unwrap_or(0)
}

#[test]
fn a_flood_is_stored_whole_without_a_gap() {
    let _turn = turn();
    let count = 200_000;
    let load = ["lines", "--count", "200000", "--hold-ms", "1500"];
    let Some(mut service) = start(Setup::new("flood", &FLAGS).load(&load)) else { return };
    plimsoll_incidents::clock::wait_for(DEADLINE, Duration::from_millis(20), || {
        service.evidence().first("done").cloned()
    });
    let peak = peak_rss_kib(service.pid());
    // While it runs, without waiting for anything: what is there is right, up to where it goes.
    let live = service.account(1, 200, count, false).unwrap();
    assert_eq!(live.finding_count, 0, "{live:#?}");
    service.wait(DEADLINE).unwrap_or_else(|| panic!("still runs: {}", service.stderr()));
    let summary = assert_accounted(&service, count, "flood");
    assert_eq!((summary.whole_lines, summary.gaps), (count, 0), "{}", service.stderr());
    assert!((1..=RSS_MAX_KIB).contains(&peak), "peak RSS {peak} KiB");
}

#[test]
fn a_line_can_be_queried_within_half_a_second() {
    let _turn = turn();
    let load = ["lines", "--count", "2000", "--rate", "1000", "--progress", "100", "--hold-ms", "1000"];
    let Some(service) = start(Setup::new("fresh", &FLAGS).load(&load)) else { return };
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        let written = service.evidence().events.iter().map(|event| event.lines).max().unwrap_or(0);
        std::thread::sleep(Duration::from_millis(500));
        let seen = service.account(1, 200, 2000, false).unwrap();
        assert_eq!(seen.finding_count, 0, "{seen:#?}");
        assert!(seen.whole_lines >= written, "{} of {written} lines after 0.5 s", seen.whole_lines);
    }
}

#[test]
fn a_killed_supervisor_loses_nothing_and_its_successor_adopts() {
    let _turn = turn();
    let count = 100_000;
    let load = ["lines", "--count", "100000", "--rate", "25000", "--hold-ms", "1500"];
    let Some(mut service) = start(Setup::new("adopt", &FLAGS).load(&load)) else { return };
    let child = service.child();
    for round in 1..=3 {
        std::thread::sleep(Duration::from_millis(300));
        service.supervisor().signal(Signal::KILL);
        service.wait(DEADLINE).expect("SIGKILL ends it");
        assert!(files::lives(child), "round {round}: the child goes on without its supervisor");
        service.start_again().unwrap();
        assert_eq!(service.child(), child, "round {round}: the same child: {}", service.stderr());
        service
            .until(DEADLINE, "adopted", |status| status["supervisor"]["adopted"].as_bool().filter(|&adopted| adopted));
    }
    service.wait(DEADLINE).unwrap_or_else(|| panic!("still runs: {}", service.stderr()));
    assert_accounted(&service, count, "three kills");
    assert_eq!(service.evidence().all("signal").count(), 0);
}

#[test]
fn a_log_can_be_read_after_its_supervisor_was_killed() {
    let _turn = turn();
    let load = ["lines", "--count", "5000", "--hold-ms", "60000"];
    let Some(mut service) = start(Setup::new("dead", &FLAGS).load(&load)) else { return };
    service.until(DEADLINE, "all lines in", |status| {
        status["logs"]["streams"]["stdout"]["lines_total"].as_u64().filter(|&lines| lines >= 5000)
    });
    service.supervisor().signal(Signal::KILL);
    service.wait(DEADLINE).expect("SIGKILL ends it");
    let summary = assert_accounted(&service, 5000, "read by nobody's leave");
    assert_eq!((summary.whole_lines, summary.gaps), (5000, 0));
}

#[test]
fn garbage_and_a_line_of_100_mb_are_kept_in_bounds() {
    let _turn = turn();
    let Some(mut service) = start(Setup::new("garbage", &FLAGS).load(&["garbage", "--bytes", "4M"])) else { return };
    service.wait(DEADLINE).unwrap_or_else(|| panic!("still runs: {}", service.stderr()));
    let mut entries = 0;
    service.logs(&[], |_| entries += 1).unwrap();
    assert!(entries > 4 << 10, "{entries} entries of about 256 bytes");

    let load = ["long-line", "--bytes", "100M"];
    let Some(mut service) = start(Setup::new("long", &FLAGS).load(&load)) else { return };
    let mut peak = 0;
    let ended = plimsoll_incidents::clock::wait_for(DEADLINE, Duration::from_millis(20), || {
        peak = peak.max(peak_rss_kib(service.pid()));
        service.wait(Duration::ZERO)
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "{}", service.stderr());
    let (mut bytes, mut longest, mut gap_bytes) = (0, 0, 0);
    service
        .logs(&[], |entry| match entry {
            Entry::Text { stream: "stdout", text } => {
                bytes += text.len() as u64;
                longest = longest.max(text.len());
            }
            Entry::Gap { stream: "stdout", bytes, .. } => gap_bytes += bytes,
            _ => {}
        })
        .unwrap();
    let whole = 100 << 20;
    assert!((whole..=whole + 1).contains(&(bytes + gap_bytes)), "{bytes} stored + {gap_bytes} in gaps of {whole}");
    assert!(longest <= 64 << 10, "a piece of {longest} bytes");
    assert!(peak <= RSS_MAX_KIB, "peak RSS {peak} KiB");
}

#[test]
fn eight_runs_share_a_directory_and_one_of_them_floods() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let mut quiet = Vec::new();
    for number in 1..8 {
        let setup = Setup::new(&format!("quiet-{number}"), &FLAGS).dir(dir.path());
        let Some(service) = start(setup.load(&["sleep", "--ms", "60000", "--every-ms", "500"])) else { return };
        quiet.push(service);
    }
    let setup = Setup::new("loud", &FLAGS).dir(dir.path()).load(&["lines", "--count", "100000"]);
    let Some(mut loud) = start(setup) else { return };
    loud.wait(DEADLINE).unwrap_or_else(|| panic!("still runs: {}", loud.stderr()));
    assert_accounted(&loud, 100_000, "the loud one");
    for service in &mut quiet {
        service.stop(DEADLINE).unwrap_or_else(|| panic!("does not stop: {}", service.stderr()));
        let (mut ticks, mut gaps) = (0, 0);
        service
            .logs(&[], |entry| match entry {
                Entry::Text { stream: "stdout", text } => {
                    ticks += 1;
                    assert_eq!(text, format!("tick {ticks}").as_bytes());
                }
                Entry::Gap { .. } => gaps += 1,
                Entry::Text { .. } => {}
            })
            .unwrap();
        let written = service.evidence().first("done").map_or(0, |done| done.lines);
        assert!(ticks > 0 && gaps == 0 && ticks == written, "{ticks} of {written} ticks, {gaps} gaps");
    }
}

#[test]
fn a_full_disk_costs_counted_lines_and_nothing_else() {
    let _turn = turn();
    let Some(disk) = or_skip(Tmpfs::mount(12 << 20)) else { return };
    let count = 300_000;
    let load = ["lines", "--count", "300000", "--time-writes", "--hold-ms", "3000"];
    let Some(mut service) = start(Setup::new("full", &FLAGS).dir(disk.path()).load(&load)) else { return };
    let degraded = service.until(DEADLINE, "the store says that it is degraded", |status| {
        status["logs"]["degraded"].as_str().map(String::from)
    });
    let peak = peak_rss_kib(service.pid());
    let status = service.wait(DEADLINE).unwrap_or_else(|| panic!("still runs: {}", service.stderr()));
    let done = service.evidence().first("done").cloned().expect("the child ended by itself");
    assert_eq!((status.code(), done.lines), (Some(0), count), "{}", service.stderr());
    eprintln!("degraded: {degraded}; longest write {} ms; peak RSS {peak} KiB", done.longest_write_ns / 1_000_000);
    assert!(peak <= RSS_MAX_KIB, "peak RSS {peak} KiB");
    let summary = assert_accounted(&service, count, "full disk");
    assert!(summary.gaps > 0 && summary.whole_lines > 0, "{summary:#?}");
}
