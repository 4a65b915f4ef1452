//! The real thread with a scripted gauge. Every wait is for an event with a deadline of [`PATIENCE`]; none is a fixed sleep.

#![allow(clippy::disallowed_methods, reason = "the kernel's word on this very thread, a few hundred bytes")]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use super::*;
use crate::clock::{Clock as _, MonotonicClock};
use crate::gauge::{Gauge, Wake, WakeKind};
use crate::governor::{Decision, Governor, Scheduling, Setup, WAKE_FIRES_MAX};
use crate::level::Level;

const PATIENCE: Duration = Duration::from_secs(20);

/// Means "cannot be read", and "panics".
const UNREADABLE: u64 = u64::MAX;
const PANICS: u64 = u64::MAX - 1;

/// A gauge that reads what the test wrote, and says when it is gone.
#[derive(Default)]
struct Script {
    bytes: AtomicU64,
    gone: AtomicBool,
}

struct Scripted(Arc<Script>);

impl Scripted {
    fn read(&self) -> Result<u64, Unread> {
        match self.0.bytes.load(Ordering::SeqCst) {
            UNREADABLE => Err(Unread::Denied("memory.stat")),
            PANICS => panic!("as scripted"),
            bytes => Ok(bytes),
        }
    }
}

impl Gauge for Scripted {
    fn fast(&mut self) -> Result<u64, Unread> {
        self.read()
    }
    fn confirm(&mut self) -> Result<Protected, Unread> {
        self.read().map(protected)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::SeqCst);
    }
}

/// Sleeps for a minute unless something wakes it: what a test sees within its patience is not the poll.
fn drowsy() -> Policy {
    Policy { poll_interval: Duration::from_secs(60), ..Policy::observe() }
}

fn setup(policy: Policy, bytes: u64, wakes: Vec<Wake>) -> (Arc<Script>, Setup) {
    let script = Arc::new(Script::default());
    script.bytes.store(bytes, Ordering::SeqCst);
    let gauge = Box::new(Scripted(Arc::clone(&script)));
    let clock = Arc::new(MonotonicClock);
    (script, Setup { policy, gauge, wakes, clock, name: "governor".into() })
}

fn start(policy: Policy, bytes: u64, wakes: Vec<Wake>) -> (Arc<Script>, Governor, Receiver<Decision>) {
    let (tell, told) = sync_channel(4096);
    let (script, setup) = setup(policy, bytes, wakes);
    let governor =
        Governor::start(setup, move |decision| tell.try_send(*decision).unwrap_or_default()).expect("it starts");
    (script, governor, told)
}

/// The first decision that is told and fits.
fn wait_for(told: &Receiver<Decision>, fits: impl Fn(&Decision) -> bool) -> Decision {
    let deadline = MonotonicClock.now() + PATIENCE;
    loop {
        let left = deadline.saturating_sub(MonotonicClock.now());
        let decision = told.recv_timeout(left).expect("a decision in time");
        if fits(&decision) {
            return decision;
        }
    }
}

/// Waits until the status says so.
fn wait_until(governor: &Governor, fits: impl Fn(&crate::governor::GovernorStatus) -> bool) {
    let deadline = MonotonicClock.now() + PATIENCE;
    while !fits(&governor.status()) {
        assert!(MonotonicClock.now() < deadline, "{:#?}", governor.status());
        std::thread::sleep(ms(1));
    }
}

#[test]
fn the_first_sample_comes_before_the_first_sleep_and_stop_ends_the_sleep() {
    let (script, governor, told) = start(drowsy(), 20 * MIB, Vec::new());
    let first = wait_for(&told, |_| true);
    assert_eq!((first.level, first.charged_bytes, first.confirmed), (Level::Normal, Some(20 * MIB), true));
    assert!(governor.status().running);
    let before = MonotonicClock.now();
    governor.stop();
    assert!(script.gone.load(Ordering::SeqCst), "the thread is joined: what it owned is dropped");
    assert!(MonotonicClock.now() - before < PATIENCE, "it did not sleep its minute out");
}

#[test]
fn a_new_policy_and_a_nudge_take_effect_at_once() {
    let (script, governor, told) = start(drowsy(), 20 * MIB, Vec::new());
    wait_for(&told, |_| true);
    governor.set_policy(Policy { poll_interval: Duration::from_secs(60), ..Policy::new(16 * MIB, 0) }).expect("valid");
    let decision = wait_for(&told, |decision| decision.level == Level::Critical);
    assert_eq!((decision.previous, decision.budget_bytes), (Level::Normal, Some(16 * MIB)));
    governor.set_policy(drowsy()).expect("valid");
    wait_for(&told, |decision| decision.level == Level::Normal && decision.previous == Level::Critical);
    script.bytes.store(77 * MIB, Ordering::SeqCst);
    let samples = governor.status().samples_total;
    governor.nudge();
    wait_until(&governor, |status| status.samples_total > samples && status.wakes.nudge_total >= 3);
    let wrong = Policy { poll_interval: Duration::ZERO, ..drowsy() };
    assert!(governor.set_policy(wrong).is_err());
    assert_eq!(governor.policy(), drowsy(), "a policy that is refused changes nothing");
}

#[test]
fn a_wake_ends_a_sleep() {
    let (kernel, wake) = threshold();
    let (script, governor, told) = start(drowsy(), 20 * MIB, vec![wake]);
    wait_for(&told, |_| true);
    script.bytes.store(UNREADABLE, Ordering::SeqCst);
    rustix::io::write(&kernel, &1u64.to_ne_bytes()).expect("room for one more");
    wait_for(&told, |decision| decision.blind);
    wait_until(&governor, |status| status.wakes.threshold_total == 1);
}

#[test]
fn a_wake_that_never_stops_signalling_cannot_make_it_spin() {
    // A pipe whose 64 KiB are drained 8 bytes at a time stays ready 8,192 times.
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    assert_eq!(rustix::io::write(&writer, &[1; 65536]).expect("a pipe's worth"), 65536);
    let stuck = Wake { fd: reader, kind: WakeKind::Threshold, guard_bytes: Some(100 * MIB) };
    let (_script, governor, _told) = start(drowsy(), 20 * MIB, vec![stuck]);
    wait_until(&governor, |status| status.wakes.muted_total >= 1);
    std::thread::sleep(ms(300));
    let status = governor.status();
    let most = u64::from(WAKE_FIRES_MAX) + 1;
    // Within the second in which it is not heard; twice as many if this test was itself held up for that second.
    assert!(status.wakes.threshold_total <= 2 * most, "{:#?}", status.wakes);
    assert!(status.samples_total <= 2 * most + 1, "{status:#?}");
}

#[test]
fn blindness_is_told_once_and_sight_again() {
    let (script, governor, told) = start(drowsy(), UNREADABLE, Vec::new());
    let first = wait_for(&told, |_| true);
    assert!(first.blind && first.unread.is_some());
    for samples in 2..6 {
        governor.nudge();
        wait_until(&governor, |status| status.samples_total >= samples);
    }
    script.bytes.store(5 * MIB, Ordering::SeqCst);
    governor.nudge();
    wait_for(&told, |decision| !decision.blind);
    let changes = governor.decisions(usize::MAX).iter().filter(|decision| decision.is_change()).count();
    let status = governor.status();
    assert_eq!((changes, status.blind_total, status.blind_since), (2, 1, None));
}

#[test]
fn a_gauge_or_callback_that_panics_does_not_end_it() {
    std::panic::set_hook(Box::new(quiet_when_scripted(std::panic::take_hook())));
    let (tell, told) = sync_channel(64);
    let (script, setup) = setup(drowsy(), PANICS, Vec::new());
    let governor = Governor::start(setup, move |decision| {
        tell.try_send(*decision).ok();
        assert!(!decision.blind, "as scripted");
    })
    .expect("it starts");
    wait_for(&told, |decision| decision.blind);
    script.bytes.store(5 * MIB, Ordering::SeqCst);
    governor.nudge();
    wait_for(&told, |decision| !decision.blind);
    wait_until(&governor, |status| status.gauge_panics_total >= 2 && status.callback_panics_total == 1);
    assert!(governor.status().running);
}

type Hook = Box<dyn Fn(&std::panic::PanicHookInfo<'_>) + Sync + Send>;

/// Keeps panics that a test asks for out of its output.
fn quiet_when_scripted(otherwise: Hook) -> impl Fn(&std::panic::PanicHookInfo<'_>) + Sync + Send {
    move |info| {
        let text = info.payload_as_str().unwrap_or_default();
        if !text.contains("as scripted") {
            otherwise(info);
        }
    }
}

#[test]
fn the_callback_runs_on_the_named_thread_whose_scheduling_is_reported() {
    let (tell, told) = sync_channel(1);
    let (_script, setup) = setup(drowsy(), 5 * MIB, Vec::new());
    let governor = Governor::start(setup, move |_| {
        let name = std::thread::current().name().map(str::to_owned);
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
        tell.try_send((name, stat)).ok();
    })
    .expect("it starts");
    let (name, stat) = told.recv_timeout(PATIENCE).expect("a call");
    assert_eq!(name.as_deref(), Some("governor"));
    wait_until(&governor, |status| status.samples_total >= 1);
    // Behind the name in brackets come field 3 (state) and on; nice is field 19, the scheduling policy 41.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let (nice, policy) = (fields[19 - 3], fields[41 - 3]);
    let scheduling = governor.status().scheduling;
    match scheduling {
        Scheduling::Fifo => assert_eq!(policy, "1"),
        Scheduling::Raised => assert_eq!((policy, nice), ("0", "-11")),
        Scheduling::Normal => assert_eq!(policy, "0"),
    }
}

#[test]
fn it_may_be_stopped_from_its_own_callback() {
    let slot: Arc<parking_lot::Mutex<Option<Governor>>> = Arc::default();
    let (tell, told) = sync_channel(1);
    let (_script, setup) = setup(Policy { poll_interval: ms(10), ..drowsy() }, 5 * MIB, Vec::new());
    let inside = Arc::clone(&slot);
    let governor = Governor::start(setup, move |_| {
        if let Some(governor) = inside.lock().take() {
            governor.stop();
            tell.try_send(()).ok();
        }
    })
    .expect("it starts");
    *slot.lock() = Some(governor);
    told.recv_timeout(PATIENCE).expect("it stopped itself without waiting for itself");
    // Then its thread ends, and with it the callback's end of the channel.
    assert!(told.recv_timeout(PATIENCE).is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn an_invalid_policy_and_too_many_wakes_are_refused() {
    let (_, bad) = setup(Policy { poll_interval: Duration::ZERO, ..drowsy() }, 0, Vec::new());
    let error = Governor::start(bad, |_| {}).expect_err("refused");
    assert!(error.to_string().contains("poll_interval"), "{error}");
    let wakes = (0..=crate::governor::WAKES_MAX).map(|_| threshold().1).collect();
    let (_, many) = setup(drowsy(), 0, wakes);
    assert_eq!(Governor::start(many, |_| {}).expect_err("refused").kind(), std::io::ErrorKind::InvalidInput);
}

fn threshold() -> (OwnedFd, Wake) {
    use rustix::event::{EventfdFlags, eventfd};
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
    let other = fd.try_clone().expect("a second descriptor");
    (fd, Wake { fd: other, kind: WakeKind::Threshold, guard_bytes: Some(100 * MIB) })
}
