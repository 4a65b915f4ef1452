//! Every behaviour of the published watchdog after its review rounds, by name; what it lacked is in `tests/it/watchdog.rs`.
//!
//! | in the review | here |
//! |---|---|
//! | fires once, does not fire, stops, off at zero | `fires_once_…`, `does_not_fire_…`, `stops_…`, `off_when_…` |
//! | exit code unreachable behind a fatal error, also during the start | `exit_2_wins_…`, `exit_2_also_when_…` |
//! | later errors swallowed; the cancellation is noise | `exit_2_wins_…`, `the_cancellation_…` |
//! | a lock shared by all instances; two starts at once | `each_instance_…`, `concurrent_starts_…`, `a_start_after_…` |
//! | a product that wraps to a low threshold; nonsense | `overflow_…`, `nonsense_…`, `a_bad_interval_…` |
//! | the interval logged before it was normalised; no floor | `the_values_that_hold_…`, `the_interval_…_floor_…` |
//! | no sample before the first tick | `the_first_sample_…` |
//! | a test judged on the watcher's thread | `the_callback_runs_on_…`; every test here judges on its own |
//! | readings that stop the world | `tests/it`: `watching_firing_and_the_last_words_allocate_nothing` |
//! | a metric that is missing reads as no pressure | `what_cannot_be_measured_…` |

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests, and small files of their own read whole"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::mpsc::{Receiver, sync_channel};

use super::*;
use crate::clock::Clock as _;
use crate::drain::Cancelled;
use crate::gauge::Unread;

const MIB: u64 = 1 << 20;
const LONG: Duration = Duration::from_secs(30);

/// A gauge that shows what the test says, in MiB; `u64::MAX` cannot be read.
#[derive(Clone, Default)]
struct Knob(Arc<AtomicU64>);

impl Knob {
    fn at(mib: u64) -> Knob {
        Knob(Arc::new(AtomicU64::new(mib)))
    }

    fn set(&self, mib: u64) {
        self.0.store(mib, Ordering::SeqCst);
    }

    fn gauge(&self) -> impl FnMut() -> Result<u64, Unread> + Send + 'static {
        let knob = Arc::clone(&self.0);
        move || match knob.load(Ordering::SeqCst) {
            u64::MAX => Err(Unread::Missing("knob")),
            mib => Ok(mib * MIB),
        }
    }
}

/// 300 MiB, no reserve, looked at every 10 ms.
fn config() -> Config {
    Config {
        poll_interval: Duration::from_millis(10),
        reserve_bytes: 0,
        drain_deadline: LONG,
        ..Config::new(300 * MIB)
    }
}

/// A watchdog over a knob that tells when it fires, and that ends nothing.
fn watched(config: Config, knob: &Knob) -> (Watchdog, Receiver<(u64, String)>) {
    let (tell, told) = sync_channel(8);
    let watchdog = Watchdog::new(config).gauge(knob.gauge()).at_deadline(|| {}).on_exceed(move |fired| {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        tell.send((fired.decision.charged_bytes.unwrap_or(0), thread)).unwrap();
    });
    (watchdog, told)
}

fn vars(list: &[(&'static str, &str)]) -> (Option<Config>, Vec<Problem>) {
    let map: BTreeMap<_, _> = list.iter().copied().collect();
    Config::from_vars(|name| map.get(name).map(Into::into))
}

#[test]
fn fires_once_when_the_threshold_is_crossed() {
    let knob = Knob::at(100);
    let (watchdog, told) = watched(config(), &knob);
    assert!(matches!(watchdog.start().unwrap(), Started::Now(_)));
    assert_eq!(watchdog.wait_fired(Duration::from_millis(30)), None);
    knob.set(300);
    let (bytes, _) = told.recv_timeout(LONG).unwrap();
    assert_eq!(bytes, 300 * MIB, "at the threshold itself");
    knob.set(500);
    knob.set(10);
    std::thread::sleep(Duration::from_millis(50));
    knob.set(400);
    std::thread::sleep(Duration::from_millis(50));
    assert!(told.try_recv().is_err(), "once, whatever comes after");
    let fired = watchdog.fired().unwrap();
    assert_eq!(fired.protected.unwrap().program_bytes, 300 * MIB);
    assert!(fired.at_unix > Duration::from_secs(1_700_000_000));
}

#[test]
fn does_not_fire_below_the_threshold() {
    let knob = Knob::at(299);
    let (watchdog, told) = watched(config(), &knob);
    watchdog.start().unwrap();
    // What happened on the watcher's thread is judged on the test's.
    assert!(told.recv_timeout(Duration::from_millis(100)).is_err());
    let status = watchdog.status().unwrap();
    assert!(status.samples_total > 3 && !watchdog.has_fired(), "it looked: {status:?}");
}

#[test]
fn stops_when_it_is_dropped() {
    let knob = Knob::at(100);
    let (watchdog, told) = watched(config(), &knob);
    watchdog.start().unwrap();
    drop(watchdog);
    knob.set(400);
    assert!(told.recv().is_err(), "the callback is gone with its thread, which was joined");
    assert_eq!(Arc::strong_count(&knob.0), 1, "and so is the gauge");
}

#[test]
fn off_when_unset_empty_blank_or_zero_and_nothing_is_started() {
    for list in [
        &[][..],
        &[(THRESHOLD_VAR, "")],
        &[(THRESHOLD_VAR, "  ")],
        &[(THRESHOLD_VAR, "0")],
        &[(THRESHOLD_MB_VAR, "")],
        &[(THRESHOLD_MB_VAR, "0")],
        &[(THRESHOLD_VAR, "0"), (THRESHOLD_MB_VAR, "0"), (POLL_INTERVAL_VAR, "5s")],
    ] {
        assert_eq!(vars(list), (None, vec![]), "{list:?}");
    }
    let (tell, told) = sync_channel::<()>(1);
    let watchdog = Watchdog::new(None).on_exceed(move |_| tell.send(()).unwrap()).gauge(Knob::at(500).gauge());
    assert_eq!(watchdog.start().unwrap(), Started::Off);
    assert!(watchdog.status().is_none() && told.try_recv().is_err());
    assert_eq!(Watchdog::new(Config::new(0)).start().unwrap(), Started::Off, "also by code");
    assert_eq!(watchdog.outcome(Ok::<(), Cancelled>(())).code, EXIT_OK);
}

#[test]
fn both_forms_of_the_threshold_are_read() {
    let threshold = |list| vars(list).0.unwrap().threshold_bytes;
    assert_eq!(threshold(&[(THRESHOLD_VAR, "300M")]), 300 * MIB);
    assert_eq!(threshold(&[(THRESHOLD_VAR, " 1.5 GiB ")]), 1536 * MIB);
    assert_eq!(threshold(&[(THRESHOLD_MB_VAR, "300")]), 300 * MIB);
    assert_eq!(threshold(&[(THRESHOLD_VAR, ""), (THRESHOLD_MB_VAR, "300")]), 300 * MIB);
    assert_eq!(vars(&[(THRESHOLD_VAR, "300M"), (THRESHOLD_MB_VAR, "300")]).1, vec![], "both, and they agree");
    let (config, problems) = vars(&[(THRESHOLD_VAR, "300M"), (THRESHOLD_MB_VAR, "400")]);
    assert_eq!(config.unwrap().threshold_bytes, 300 * MIB);
    assert_eq!(problems[0].effect, Effect::Ignored);
    assert_eq!(
        problems[0].to_string(),
        "PLIMSOLL_SHUTDOWN_THRESHOLD_MB=\"400\" differs from PLIMSOLL_SHUTDOWN_THRESHOLD=300M, which is used: ignored"
    );
}

#[test]
fn overflow_is_reported_and_disables_instead_of_wrapping_to_a_low_threshold() {
    // 2^44 MiB is 2^64 bytes: a product that wrapped would be 0, one MiB more would fire at once.
    for (text, fits) in [("17592186044415", true), ("17592186044416", false), ("17592186044417", false)] {
        let (config, problems) = vars(&[(THRESHOLD_MB_VAR, text)]);
        assert_eq!((config.is_some(), problems.is_empty()), (fits, fits), "{text}");
    }
    for list in [(THRESHOLD_MB_VAR, "99999999999999999999999"), (THRESHOLD_VAR, "17592186044416M")] {
        let (config, problems) = vars(&[list]);
        assert!(
            config.is_none() && problems[0].effect == Effect::Off && problems[0].why.contains("too large"),
            "{problems:?}"
        );
    }
}

#[test]
fn nonsense_is_reported_and_disables() {
    for (name, text) in [
        (THRESHOLD_VAR, "lots"),
        (THRESHOLD_VAR, "300"),
        (THRESHOLD_VAR, "-300M"),
        (THRESHOLD_VAR, "300 apples"),
        (THRESHOLD_VAR, "1K"),
        (THRESHOLD_MB_VAR, "300M"),
        (THRESHOLD_MB_VAR, "-1"),
        (THRESHOLD_MB_VAR, "+1"),
        (THRESHOLD_MB_VAR, "1.5"),
        (THRESHOLD_MB_VAR, "0x10"),
    ] {
        let (config, problems) = vars(&[(name, text)]);
        assert_eq!(config, None, "{name}={text}");
        assert_eq!((problems.len(), problems[0].variable, problems[0].effect), (1, name, Effect::Off), "{name}={text}");
        assert!(problems[0].to_string().ends_with(": the memory watchdog is off"), "{}", problems[0]);
    }
    let raw: OsStringOf = Config::from_vars(|name| {
        let bytes = vec![0xff, b'M'];
        (name == THRESHOLD_VAR).then(|| std::os::unix::ffi::OsStringExt::from_vec(bytes))
    });
    assert!(raw.0.is_none() && raw.1[0].why == "is not UTF-8", "{raw:?}");
    let long = "9".repeat(1000);
    assert_eq!(vars(&[(THRESHOLD_MB_VAR, &long)]).1[0].value.len(), 64, "what is reported is bounded");
}

type OsStringOf = (Option<Config>, Vec<Problem>);

#[test]
fn a_bad_interval_is_reported_and_the_default_holds() {
    for text in ["soon", "5", "0", "0s", "-1s", "999999999999d"] {
        let (config, problems) = vars(&[(THRESHOLD_VAR, "300M"), (POLL_INTERVAL_VAR, text)]);
        assert_eq!(config.unwrap().poll_interval, Duration::from_secs(1), "{text}");
        assert_eq!((problems.len(), problems[0].effect), (1, Effect::Default), "{text}");
        assert!(problems[0].to_string().ends_with(": the default of 1.0 s holds"), "{}", problems[0]);
    }
    let unset = vars(&[(THRESHOLD_VAR, "300M")]);
    assert_eq!((unset.0.unwrap().poll_interval, unset.1), (Duration::from_secs(1), vec![]));
}

#[test]
fn the_interval_a_user_sets_has_a_floor_of_10_ms_and_a_ceiling() {
    for (text, holds) in [("1us", 10), ("9ms", 10), ("10ms", 10), ("250ms", 250), ("1h", 60_000)] {
        let config = vars(&[(THRESHOLD_VAR, "300M"), (POLL_INTERVAL_VAR, text)]).0.unwrap();
        assert_eq!(config.poll_interval, Duration::from_millis(holds), "{text}");
    }
    let coded = Config { poll_interval: Duration::from_nanos(1), soft_ratio: f64::NAN, ..config() }.effective();
    assert_eq!((coded.poll_interval, coded.soft_ratio), (Duration::from_millis(10), SOFT_RATIO));
    assert_eq!(Config { soft_ratio: 7.0, ..config() }.effective().soft_ratio, 0.99);
}

#[test]
fn the_values_that_hold_are_told_and_not_those_that_were_asked_for() {
    let asked = Config { poll_interval: Duration::ZERO, drain_deadline: Duration::from_secs(5), ..config() };
    let (watchdog, _told) = watched(asked, &Knob::at(1));
    let Started::Now(effective) = watchdog.start().unwrap() else { panic!("it starts") };
    assert_eq!(effective.config.poll_interval, Duration::from_millis(10));
    let text = effective.to_string();
    assert!(text.starts_with("threshold 300.0 MiB (soft 264.0 MiB) on a gauge of its own, "), "{text}");
    assert!(text.contains("poll interval 10 ms, drain deadline 5.0 s, reserve 0 B"), "{text}");
}

#[test]
fn concurrent_starts_run_one_watcher() {
    let knob = Knob::at(400);
    let (watchdog, told) = watched(config(), &knob);
    let started = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| watchdog.start().unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).filter(|s| matches!(s, Started::Now(_))).count()
    });
    assert_eq!(started, 1);
    told.recv_timeout(LONG).unwrap();
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "one watcher, one callback");
}

#[test]
fn a_start_after_it_fired_does_nothing() {
    let (watchdog, told) = watched(config(), &Knob::at(400));
    watchdog.start().unwrap();
    told.recv_timeout(LONG).unwrap();
    assert_eq!(watchdog.start().unwrap(), Started::Before);
    assert!(told.recv_timeout(Duration::from_millis(30)).is_err());
}

#[test]
fn the_first_sample_comes_before_the_first_sleep() {
    let config = Config { poll_interval: Duration::from_secs(60), ..config() };
    let (watchdog, told) = watched(config, &Knob::at(301));
    let began = MonotonicClock.now();
    watchdog.start().unwrap();
    told.recv_timeout(LONG).unwrap();
    let after = MonotonicClock.now() - began;
    assert!(after < Duration::from_secs(20), "already above at the start, with a poll interval of a minute: {after:?}");
}

#[test]
fn the_callback_runs_on_the_watchers_thread_and_a_panic_in_it_stops_nothing() {
    let knob = Knob::at(400);
    let (watchdog, told) = watched(config(), &knob);
    watchdog.start().unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap().1, "memory-watchdog");

    let drain = Drain::new();
    let panics = Watchdog::new(config()).gauge(knob.gauge()).drain(&drain).at_deadline(|| {});
    let panics = panics.on_exceed(|_| panic!("a callback that panics (expected in this test)"));
    panics.start().unwrap();
    assert!(drain.wait_begun(LONG) && panics.wait_fired(LONG).is_some());
    assert!(panics.status().unwrap().running, "the watcher lives on");
}

#[test]
fn each_instance_has_its_own_state() {
    let (high, low) = (Knob::at(400), Knob::at(100));
    let (one, one_told) = watched(config(), &high);
    let (two, two_told) = watched(config(), &low);
    one.start().unwrap();
    two.start().unwrap();
    one_told.recv_timeout(LONG).unwrap();
    assert!(one.has_fired() && !two.has_fired());
    low.set(400);
    two_told.recv_timeout(LONG).unwrap();
    assert!(one_told.try_recv().is_err());
}

fn fired() -> Watchdog {
    let (watchdog, told) = watched(config(), &Knob::at(400));
    watchdog.start().unwrap();
    told.recv_timeout(LONG).unwrap();
    watchdog
}

#[test]
fn exit_2_wins_over_success_and_over_later_errors() {
    let watchdog = fired();
    assert_eq!(watchdog.outcome(Ok::<(), io::Error>(())).code, EXIT_MEMORY);
    let outcome = watchdog.outcome(Err::<(), _>(io::Error::other("listener closed")));
    assert_eq!((outcome.code, outcome.exit_code()), (2, std::process::ExitCode::from(2)));
    assert_eq!(outcome.error.unwrap().to_string(), "listener closed", "it is still to be logged");
    assert!(outcome.fired.is_some());
}

#[test]
fn the_cancellation_itself_is_no_error_to_log() {
    let watchdog = fired();
    assert_eq!(watchdog.outcome(Err::<(), _>(Cancelled)).error, None);
    let wrapped = watchdog.outcome(Err::<(), _>(io::Error::other(Cancelled)));
    assert!(wrapped.code == 2 && wrapped.error.is_none());
    // A drain that something else began, SIGTERM say: told to stop, stopped, no failure.
    let calm = Watchdog::new(None);
    assert_eq!(calm.outcome(Err::<(), _>(Cancelled)).code, EXIT_OK);
    assert_eq!(calm.outcome(Err::<(), _>(io::Error::other("no port"))).code, EXIT_FAILURE);
}

#[test]
fn exit_2_also_when_it_fires_while_the_service_is_starting_up() {
    let drain = Drain::new();
    let watchdog = Watchdog::new(config()).gauge(Knob::at(400).gauge()).drain(&drain).at_deadline(|| {});
    watchdog.start().unwrap();
    // The start loads something and looks now and then; the drain cuts it short with an error.
    let start_up = || -> io::Result<()> {
        loop {
            drain.check().map_err(io::Error::other)?;
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let outcome = watchdog.outcome(start_up());
    assert_eq!(
        (outcome.code, outcome.error.is_none()),
        (EXIT_MEMORY, true),
        "whoever sees the drain, sees that it fired"
    );
}

#[test]
fn a_soft_stage_comes_before_and_is_left_again() {
    let knob = Knob::at(100);
    let (tell, told) = sync_channel(8);
    let watchdog = Watchdog::new(config()).gauge(knob.gauge()).at_deadline(|| {}).on_soft(move |soft| {
        let (entered, bytes) = match soft {
            Soft::Entered(decision) => (true, decision.charged_bytes),
            Soft::Left(decision) => (false, decision.charged_bytes),
        };
        tell.send((entered, bytes.unwrap_or(0) / MIB)).unwrap();
    });
    watchdog.start().unwrap();
    knob.set(263);
    assert!(told.recv_timeout(Duration::from_millis(60)).is_err(), "88 % of 300 is 264");
    knob.set(264);
    assert_eq!(told.recv_timeout(LONG).unwrap(), (true, 264));
    assert!(!watchdog.has_fired());
    knob.set(100);
    assert_eq!(told.recv_timeout(LONG).unwrap(), (false, 100), "after the dwell of five seconds");
    knob.set(300);
    assert!(watchdog.wait_fired(LONG).is_some());
    assert!(told.try_recv().is_err(), "straight to the threshold: no soft stage on the way");
}

#[test]
fn what_cannot_be_measured_is_said_and_does_not_fire() {
    // The published watchdog read a missing metric as 0, which is "no pressure", silently.
    let knob = Knob::at(u64::MAX);
    let (watchdog, told) = watched(config(), &knob);
    watchdog.start().unwrap();
    assert!(told.recv_timeout(Duration::from_millis(100)).is_err());
    assert!(watchdog.status().unwrap().blind_since.is_some());
    knob.set(400);
    told.recv_timeout(LONG).unwrap();
    let nowhere = Watchdog::new(config()).root(Root::at("/nonexistent"));
    assert_eq!(
        nowhere.start().unwrap_err().to_string(),
        "memory cannot be read: /proc/self/statm: missing",
        "nothing to look at: no watchdog, and it says so"
    );
}

#[test]
fn the_deadline_runs_from_the_firing_and_can_be_disarmed() {
    let expired = Arc::new(AtomicUsize::new(0));
    let start = |deadline: Duration| {
        let expired = Arc::clone(&expired);
        let config = Config { drain_deadline: deadline, ..config() };
        let (watchdog, told) = watched(config, &Knob::at(400));
        let watchdog = watchdog.at_deadline(move || {
            expired.fetch_add(1, Ordering::SeqCst);
        });
        watchdog.start().unwrap();
        told.recv_timeout(LONG).unwrap();
        watchdog
    };
    let disarmed = start(Duration::from_secs(1));
    disarmed.disarm();
    let short = start(Duration::from_millis(20));
    drop(short);
    let until = MonotonicClock.now() + LONG;
    while expired.load(Ordering::SeqCst) == 0 && MonotonicClock.now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(expired.load(Ordering::SeqCst), 1, "once armed it outlives its owner, unless disarmed");
}

#[test]
fn the_drain_begins_after_the_reserve_is_back_and_the_last_words_are_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("last-words.txt");
    let words = LastWords::new().file(&path).unwrap();
    let drain = Drain::new();
    let knob = Knob::at(100);
    let config = Config { reserve_bytes: 4 * MIB, ..config() };
    let watchdog = Watchdog::new(config).gauge(knob.gauge()).drain(&drain).last_words(words).at_deadline(|| {});
    watchdog.start().unwrap();
    assert_eq!(watchdog.reserve_bytes(), 4 * MIB);
    knob.set(310);
    assert!(drain.wait_begun(LONG));
    assert_eq!(watchdog.reserve_bytes(), 0);
    assert!(watchdog.has_fired() && watchdog.fired().is_some());
    // A file system that cannot be written without waiting gets them right after.
    let until = MonotonicClock.now() + LONG;
    let text = loop {
        let text = std::fs::read_to_string(&path).unwrap();
        if !text.is_empty() || MonotonicClock.now() > until {
            break text;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(text.contains("memory pressure: 310.0 MiB of 300.0 MiB"), "{text}");
    assert!(text.contains("draining: reserve of 4.0 MiB given back, at most 30000 ms, then exit 2"), "{text}");
}

#[test]
fn an_offered_wake_ends_its_sleep_and_decides_nothing() {
    use crate::gauge::offered::{self, Offered, WATCH_VAR};
    use rustix::fs::{CWD, FileType, Mode};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pressure");
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let Ok(Offered::Wake(wake)) = offered::from_vars(|name| (name == WATCH_VAR).then(|| path.clone().into())) else {
        panic!("not offered");
    };
    let knob = Knob::at(100);
    let (watchdog, told) = watched(Config { poll_interval: LONG, ..config() }, &knob);
    let watchdog = watchdog.wake(wake);
    watchdog.start().unwrap();
    let offered = || watchdog.status().map_or(0, |status| status.wakes.offered_total);
    std::fs::write(&path, "!").unwrap();
    let until = MonotonicClock.now() + LONG;
    while offered() == 0 {
        assert!(MonotonicClock.now() < until, "{:?}", watchdog.status());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!watchdog.has_fired(), "a wake is no reason to leave");
    knob.set(301);
    std::fs::write(&path, "!").unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap().0, 301 * MIB);
}
