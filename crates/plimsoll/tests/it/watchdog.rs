//! The watchdog in a process of its own: real memory, real exits, a real full pipe. Each test starts this binary again.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll::clock::{Clock as _, MonotonicClock};
use plimsoll::drain::Drain;
use plimsoll::gauge::{Gauge as _, ProcessGauge, Root, Unread};
use plimsoll::last_words::LastWords;
use plimsoll::reclaim::ledger::Ledger;
use plimsoll::report::Report;
use plimsoll::reserve::Reserve;
use plimsoll::watchdog::{Config, Effective, Started, Subject, Target, Watchdog};

use crate::fixture::{PID, Tree};
use crate::stage::{MIB, alone, on_stage, this_binary};
use crate::sys::allocations;

const LONG: Duration = Duration::from_secs(30);
/// Kernel counters of one process may be batched, and the test itself allocates a little.
const SLACK: u64 = MIB;

fn config(threshold_mib: u64) -> Config {
    let mut config = Config::new(threshold_mib * MIB);
    (config.reserve_bytes, config.subject) = (0, Subject::Process);
    config.poll_interval = Duration::from_millis(10);
    config
}

fn anon_bytes() -> u64 {
    ProcessGauge::own(&Root::default()).unwrap().confirm().unwrap().anon_bytes.unwrap()
}

/// Memory that is really there.
fn touched(mib: u64) -> Vec<u8> {
    let mut bytes = vec![0u8; usize::try_from(mib * MIB).unwrap()];
    bytes.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(bytes)
}

fn threads() -> Vec<String> {
    let dir = std::fs::read_dir("/proc/self/task").unwrap();
    let comm = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
    let mut names: Vec<_> = dir.map(|entry| comm(entry.unwrap()).trim().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn releasing_the_reserve_makes_rss_anon_fall_by_its_size() {
    alone("watchdog::releasing_the_reserve_makes_rss_anon_fall_by_its_size", on_stage_reserve);
}

fn on_stage_reserve() {
    for mib in [1, 16, 64] {
        let (before, began) = (anon_bytes(), MonotonicClock.now());
        let reserve = Reserve::map(mib * MIB).unwrap();
        let (held, mapped) = (anon_bytes(), MonotonicClock.now());
        assert_eq!(reserve.release(), mib * MIB);
        let (after, released) = (anon_bytes(), MonotonicClock.now());
        assert!((held - before).abs_diff(mib * MIB) < SLACK, "{mib} MiB are there: {before} -> {held}");
        assert!((held - after).abs_diff(mib * MIB) < SLACK, "{mib} MiB are gone: {held} -> {after}");
        let locked = reserve.is_locked();
        let (map, release) = (mapped - began, released - mapped);
        println!("reserve of {mib} MiB: RssAnon {before} -> {held} -> {after}; {map:?}, {release:?}; locked: {locked}");
    }
}

#[test]
fn off_means_no_thread_and_on_means_two_that_are_joined() {
    alone("watchdog::off_means_no_thread_and_on_means_two_that_are_joined", on_stage_threads);
}

fn on_stage_threads() {
    let before = threads();
    let off = Watchdog::new(None);
    assert_eq!(off.start().unwrap(), Started::Off);
    assert_eq!(threads(), before);
    let on = Watchdog::new(config(1 << 20));
    assert!(matches!(on.start().unwrap(), Started::Now(_)));
    let until = MonotonicClock.now() + LONG;
    let named = |name: &str| threads().iter().any(|thread| thread == name);
    while !(named("memory-watchdog") && named("drain-deadline")) && MonotonicClock.now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(threads().len(), before.len() + 2, "{:?}", threads());
    drop(on);
    assert_eq!(threads(), before);
}

/// Runs `play` in a process of its own, which is to end with `code` by itself; returns what it wrote to stderr. `test` is the name of
/// the test that calls this.
fn ends_with(test: &str, code: i32, play: fn()) -> String {
    if on_stage() {
        play();
    }
    let output = this_binary(test).output().expect("the test binary starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    err.into_owned()
}

#[test]
fn a_drain_that_does_not_end_is_ended_with_code_2_at_its_deadline() {
    let said =
        ends_with("watchdog::a_drain_that_does_not_end_is_ended_with_code_2_at_its_deadline", 2, on_stage_deadline);
    assert!(said.contains("plimsoll: the drain is not over after 150 ms (1 holds left): exit 2"), "{said}");
    assert!(said.contains("plimsoll: memory pressure: "), "{said}");
}

fn on_stage_deadline() {
    let drain = Drain::new();
    let _never_dropped = drain.hold();
    let mut config = config(64);
    config.drain_deadline = Duration::from_millis(150);
    let watchdog = Watchdog::new(config).drain(&drain).last_words(LastWords::new().stderr());
    watchdog.start().unwrap();
    let _leak = touched(80);
    std::thread::sleep(LONG);
    panic!("still there long after the deadline");
}

#[test]
fn it_works_while_the_async_runtime_is_wedged() {
    ends_with("watchdog::it_works_while_the_async_runtime_is_wedged", 2, on_stage_wedged);
}

fn on_stage_wedged() {
    let drain = Drain::new();
    let mut config = config(64);
    config.drain_deadline = Duration::from_millis(100);
    let watchdog = Watchdog::new(config).drain(&drain);
    watchdog.start().unwrap();
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
        let _leak = touched(80);
        // The only worker never comes back: no task will ever see a token.
        std::thread::sleep(LONG);
    });
    panic!("still there long after the deadline");
}

#[test]
fn a_full_stderr_does_not_delay_the_drain() {
    if on_stage() {
        return on_stage_full_stderr();
    }
    // Nobody reads this pipe: the process fills it first.
    let mut again = this_binary("watchdog::a_full_stderr_does_not_delay_the_drain");
    let mut child = again.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let unread = child.stderr.take();
    let status = child.wait().unwrap();
    drop(unread);
    assert_eq!(status.code(), Some(0));
}

fn on_stage_full_stderr() {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let stderr = std::io::stderr();
    let flags = fcntl_getfl(&stderr).unwrap();
    fcntl_setfl(&stderr, flags | OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&stderr, &[b'x'; 4096]).is_ok() {}
    while rustix::io::write(&stderr, b"x").is_ok() {}
    fcntl_setfl(&stderr, flags).unwrap();
    let drain = Drain::new();
    let watchdog = Watchdog::new(config(64)).drain(&drain).last_words(LastWords::new().stderr());
    watchdog.start().unwrap();
    let began = MonotonicClock.now();
    let _leak = touched(80);
    assert!(drain.wait_begun(LONG));
    let after = MonotonicClock.now() - began;
    assert!(after < Duration::from_millis(900), "before what is written late is given up: {after:?}");
    watchdog.disarm();
}

#[test]
fn what_is_no_heap_counts_too() {
    alone("watchdog::what_is_no_heap_counts_too", on_stage_not_only_heap);
}

/// The published watchdog saw the heap only, though it claimed mapped files and stacks.
fn on_stage_not_only_heap() {
    let drain = Drain::new();
    let watchdog = Watchdog::new(config(64)).drain(&drain).at_deadline(|| {});
    watchdog.start().unwrap();
    // 80 MiB of stack in a thread of its own; the heap stays as it is.
    fn deep(left: u32) -> u64 {
        let frame = std::hint::black_box([left as u8; 16 << 10]);
        if left == 0 { 0 } else { deep(left - 1) + u64::from(frame[7]) }
    }
    let thread = std::thread::Builder::new().stack_size(256 << 20).spawn(|| deep(80 << 6)).unwrap();
    assert!(drain.wait_begun(LONG), "stacks are memory");
    thread.join().unwrap();
}

#[test]
fn watching_firing_and_the_last_words_allocate_nothing() {
    let ledger = Ledger::new();
    let accounts: Vec<_> = (0..40).map(|n| ledger.account(&format!("account-{n}")).unwrap()).collect();
    let charges: Vec<_> = accounts.iter().map(|account| account.charge(3 * MIB)).collect();
    let dir = tempfile::tempdir().unwrap();
    let words = LastWords::new().ledger(&ledger).file(&dir.path().join("last-words.txt")).unwrap();
    let words = words.live(Arc::new(|| Some((200 * MIB, Duration::from_millis(5)))));
    let (mib, at_first, at_last) =
        (Arc::new(AtomicU64::new(100)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let gauge = {
        let (mib, at_first) = (Arc::clone(&mib), Arc::clone(&at_first));
        let mut first = true;
        move || -> Result<u64, Unread> {
            if std::mem::take(&mut first) {
                at_first.store(allocations(), Ordering::SeqCst);
            }
            Ok(mib.load(Ordering::SeqCst) * MIB)
        }
    };
    let drain = Drain::new();
    let hook = {
        let at_last = Arc::clone(&at_last);
        move || at_last.store(allocations(), Ordering::SeqCst)
    };
    drain.on_begin(hook).unwrap();
    let mut config = config(300);
    config.reserve_bytes = MIB;
    let path = dir.path().join("report.sock");
    let supervisor = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let report = Report::from_var(Some(path.into())).ledger(&ledger).start().unwrap();
    let watchdog = Watchdog::new(config).gauge(gauge).drain(&drain).last_words(words).report(&report);
    let watchdog = watchdog.at_deadline(|| {});
    watchdog.start().unwrap();
    // It sees calm for more than a second, so that it takes note of what is held; then the slope, the soft stage, the end.
    std::thread::sleep(Duration::from_millis(1200));
    for next in [200, 250, 270, 310] {
        mib.store(next, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(30));
    }
    assert!(drain.wait_begun(LONG) && watchdog.wait_fired(LONG).is_some());
    let status = watchdog.status().unwrap();
    assert!(status.samples_total > 50, "{status:?}");
    let (first, last) = (at_first.load(Ordering::SeqCst), at_last.load(Ordering::SeqCst));
    assert!(last > 0, "the hook was called on the watcher's thread");
    assert_eq!(last - first, 0, "from the first reading to the drain");
    drop((watchdog, charges));
    let said = std::fs::read_to_string(dir.path().join("last-words.txt")).unwrap();
    assert!(said.contains("account-") && said.contains("since calm"), "{said}");
    let mut heard = vec![0; 8192];
    let leave = std::iter::repeat_with(|| supervisor.recv(&mut heard).map(|n| heard[..n].to_vec()).unwrap())
        .find(|datagram| datagram.starts_with(b"PLIMSOLL_REPORT=1\nLEAVE=leaving=1 "));
    assert!(leave.is_some_and(|leave| String::from_utf8(leave).unwrap().contains("since calm")));
}

#[test]
fn the_last_words_alone_allocate_nothing_and_take_microseconds() {
    use plimsoll::governor::{Reading, State, step};
    use plimsoll::last_words::Scene;
    let ledger = Ledger::new();
    let charges: Vec<_> = (0..256).map(|n| ledger.account(&format!("a{n}")).unwrap().charge(n + 1)).collect();
    let mut words = LastWords::new().ledger(&ledger);
    let protected = plimsoll::gauge::Protected { program_bytes: 400 * MIB, ..Default::default() };
    let reading =
        Reading { at: LONG, fast_bytes: None, confirmed: Some(Ok(protected)), guard_bytes: None, supply: None };
    let (_, decision) = step(&plimsoll::policy::Policy::new(300 * MIB, 0), State::default(), &reading);
    let (before, began) = (allocations(), MonotonicClock.now());
    const ROUNDS: u32 = 100;
    for _ in 0..ROUNDS {
        words.see(&decision);
        words.compose(&Scene::new(&decision, Some(&protected), MIB, LONG));
        words.say();
    }
    let took = (MonotonicClock.now() - began) / ROUNDS;
    assert_eq!(allocations() - before, 0);
    println!("last words of 256 accounts: {took:?}");
    drop(charges);
}

/// A fixture tree in which this very process plays process 42.
fn own_tree(name: &str) -> Tree {
    let tree = Tree::unpack(name);
    let proc = tree.path().join("proc");
    std::fs::rename(proc.join(PID.to_string()), proc.join(std::process::id().to_string())).unwrap();
    std::fs::create_dir_all(proc.join("self")).unwrap();
    tree.write("proc/self/statm", "200000 51200 10240 100 0 100000 0\n");
    tree.write("proc/self/status", "RssAnon:\t163840 kB\nRssFile:\t40960 kB\nRssShmem:\t0 kB\n");
    tree
}

fn start_on(tree: &Tree, threshold_mib: u64, subject: Subject) -> (Watchdog, Effective) {
    let mut config = config(threshold_mib);
    config.subject = subject;
    let watchdog = Watchdog::new(config).root(tree.root()).at_deadline(|| {});
    match watchdog.start().unwrap() {
        Started::Now(effective) => (watchdog, *effective),
        other => panic!("{other:?}"),
    }
}

#[test]
fn where_a_groups_limit_would_kill_the_group_is_looked_at() {
    for (name, group, file) in
        [("v2-plain", "/app", "cgroup/app/memory.max"), ("v1-plain", "/app", "cgroup/memory/app/memory.limit_in_bytes")]
    {
        let tree = own_tree(name);
        let (watchdog, effective) = start_on(&tree, 350, Subject::Auto);
        assert_eq!(effective.target, Target::Group(group.into()), "{name}");
        let limit = effective.limit.as_ref().unwrap();
        assert_eq!((limit.bytes, tree.name(&limit.source)), (400 * MIB, file), "{name}");
        assert!(effective.warnings.is_empty(), "{name}: {:?}", effective.warnings);
        assert_eq!(effective.survives_bytes_per_second(), Some((50 * MIB) as f64 / 10.0), "room by the deadline");
        assert_eq!(watchdog.wait_fired(Duration::from_millis(50)), None, "{name}: page cache does not count");
        let (watchdog, _) = start_on(&tree, 100, Subject::Auto);
        let fired = watchdog.wait_fired(LONG).unwrap_or_else(|| panic!("{name}: about 160 MiB of program"));
        assert!(fired.protected.unwrap().program_bytes > 150 * MIB, "{name}: {fired:?}");
    }
}

#[test]
fn without_a_groups_limit_the_process_alone_is_looked_at() {
    let tree = own_tree("v1-no-limit");
    let (_watchdog, effective) = start_on(&tree, 1 << 20, Subject::Auto);
    assert_eq!((effective.target, effective.limit), (Target::Process, None));
    let (_watchdog, effective) = start_on(&tree, 1 << 20, Subject::Group);
    assert!(matches!(effective.target, Target::Group(_)), "asked for: {effective}");
    let (_watchdog, effective) = start_on(&own_tree("v2-plain"), 350, Subject::Process);
    assert_eq!(effective.target, Target::Process, "asked for, though a limit is there");
}

#[test]
fn a_threshold_that_comes_too_late_is_said() {
    let (_watchdog, effective) = start_on(&own_tree("v2-plain"), 400, Subject::Auto);
    let warning = &effective.warnings[0];
    assert!(warning.starts_with("the threshold of 400.0 MiB is not below the limit of 400.0 MiB in "), "{warning}");
    assert!(warning.ends_with("/cgroup/app/memory.max: the kernel may kill first"), "{warning}");
}
