//! How runs end: exit codes, reasons, grace, orphans, and everything that can be wrong around a supervisor.

use crate::support::{start, turn};
use plimsoll_incidents::files;
use plimsoll_incidents::protected::{Setup, ask};
use rustix::process::Signal;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const NEVER: [&str; 5] = ["--memory", "300M", "--restart", "never", "--quiet"];

#[test]
fn nonsense_is_refused_with_64() {
    for words in
        [&["--nonsense"][..], &["run"], &["run", "--memory", "12", "--", "true"], &["run", "--memory", "300M", "true"]]
    {
        let answer = ask(words);
        assert_eq!(answer.code, Some(64), "{words:?}: {answer:?}");
        assert!(!answer.stderr.is_empty(), "{words:?} says nothing");
    }
    assert_eq!(ask(&["--help"]).code, Some(0));
}

#[test]
fn the_childs_code_is_ours_and_its_reason_is_kept() {
    let ends: [(&[&str], i32, &str); 4] = [
        (&["exit", "--code", "0"], 0, "exit"),
        (&["exit", "--code", "7"], 7, "exit"),
        (&["exit", "--code", "2"], 2, "exit"),
        (&["exit", "--by-signal", "9"], 137, "signal"),
    ];
    for (load, code, reason) in ends {
        let Some(mut service) = start(Setup::new("code", &NEVER).load(load)) else { return };
        let status = service.wait(SOON).unwrap_or_else(|| panic!("{load:?} still runs: {}", service.stderr()));
        let exit = service.last_exit();
        assert_eq!((status.code(), exit["reason"].as_str()), (Some(code), Some(reason)), "{load:?}: {exit:#}");
        assert_eq!(exit["plimsoll_code"].as_i64(), Some(code.into()), "{load:?}: {exit:#}");
    }
}

#[test]
fn sigterm_to_the_supervisor_reaches_the_child_and_leaves_nobody() {
    let Some(mut service) = start(Setup::new("term", &["--memory", "300M", "--quiet"]).load(&["sleep"])) else {
        return;
    };
    let child = service.child();
    let status = service.stop(SOON).expect("it stops");
    assert_eq!(service.evidence().all("signal").count(), 1, "{}", service.stderr());
    assert!(!files::lives(child) && service.evidence().all_done());
    assert_eq!(status.code(), Some(0), "the child's own code: {}", service.stderr());
    assert_eq!(service.group().map(|group| group.groups_below().len()), Some(0), "the child's group is removed");
}

#[test]
fn a_child_that_ignores_sigterm_is_killed_after_the_grace() {
    let flags = ["--memory", "300M", "--restart", "never", "--quiet", "--grace", "700ms"];
    let Some(mut service) = start(Setup::new("deaf", &flags).load(&["ignore-term", "--with-child"])) else { return };
    service.child();
    service.until(SOON, "its first line", |status| {
        status["logs"]["streams"]["stdout"]["lines_total"].as_u64().filter(|&lines| lines > 0)
    });
    let before = plimsoll_incidents::clock::monotonic_ns();
    let status = service.stop(SOON).expect("it stops");
    let took_ms = (plimsoll_incidents::clock::monotonic_ns() - before) / 1_000_000;
    assert!((690..5000).contains(&took_ms), "{took_ms} ms");
    let exit = service.last_exit();
    assert_eq!(
        (status.code(), exit["killed_after_grace"].as_bool()),
        (Some(137), Some(true)),
        "{exit:#}\n{}",
        service.stderr()
    );
    let left: Vec<u32> =
        service.evidence().all("start").map(|start| start.pid).filter(|&pid| files::lives(pid)).collect();
    assert!(left.is_empty(), "left running: {left:?}");
}

#[test]
fn a_daemon_that_double_forks_does_not_get_away() {
    for more in [&[][..], &["--no-cgroup"][..]] {
        let flags = [&NEVER[..], more].concat();
        let Some(mut service) = start(Setup::new("daemon", &flags).load(&["double-fork"])) else { return };
        service.wait(SOON).or_else(|| service.stop(SOON)).unwrap_or_else(|| panic!("still runs: {}", service.stderr()));
        let left: Vec<u32> =
            service.evidence().all("start").map(|start| start.pid).filter(|&pid| files::lives(pid)).collect();
        assert!(left.is_empty(), "{more:?}: orphans {left:?}: {}", service.stderr());
        assert_eq!(service.evidence().all("start").count(), 2);
    }
}

#[test]
fn two_runs_of_one_name_are_refused_and_the_first_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let setup = || Setup::new("one", &["--memory", "300M", "--quiet"]).dir(dir.path()).load(&["sleep"]);
    let Some(first) = start(setup()) else { return };
    first.child();
    let Some(mut second) = start(setup()) else { return };
    let status = second.wait(SOON).expect("the second ends at once");
    assert_eq!(status.code(), Some(1), "{}", second.stderr());
    assert!(
        second.stderr().contains(&first.pid().to_string()),
        "does not name pid {}: {}",
        first.pid(),
        second.stderr()
    );
    first.until(SOON, "the first goes on", |status| (status["state"] == "running").then_some(()));
}

#[test]
fn a_port_that_is_taken_is_a_warning_and_on_it_goes() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let flag = format!("--http={}", taken.local_addr().unwrap());
    let Some(service) = start(Setup::new("port", &["--memory", "300M", "--quiet", &flag]).load(&["sleep"])) else {
        return;
    };
    service.child();
    let port = taken.local_addr().unwrap().port().to_string();
    assert!(service.stderr().contains(&port), "no word about port {port}: {}", service.stderr());
}

#[test]
fn a_socket_left_by_kill_9_is_replaced() {
    let Some(mut service) = start(Setup::new("stale", &["--memory", "300M", "--quiet"]).load(&["sleep"])) else {
        return;
    };
    let child = service.child();
    service.supervisor().signal(Signal::KILL);
    service.wait(SOON);
    assert!(service.home().join("control.sock").exists(), "the socket is left, as a crash would leave it");
    rustix::process::kill_process(rustix::process::Pid::from_raw(child as i32).unwrap(), Signal::KILL).unwrap();
    plimsoll_incidents::clock::wait_for(SOON, Duration::from_millis(10), || (!files::lives(child)).then_some(()));
    assert_ne!(
        service.status().map(|status| status["state"].clone()),
        Some("running".into()),
        "a dead supervisor's child is not running"
    );
    service.start_again().unwrap();
    assert_ne!(service.child(), child, "{}", service.stderr());
}

#[test]
fn a_supervisor_that_hangs_reads_stale_and_not_running() {
    let Some(mut service) = start(Setup::new("hung", &["--memory", "300M", "--quiet"]).load(&["sleep"])) else {
        return;
    };
    service.child();
    service.supervisor().signal(Signal::STOP);
    let age = service.until(Duration::from_secs(30), "stale", |status| {
        (status["state"] == "stale").then(|| status["supervisor"]["heartbeat_age_seconds"].as_f64())
    });
    service.supervisor().signal(Signal::CONT);
    assert!(age.is_some_and(|age| age > 0.5), "{age:?}");
    service.until(SOON, "running again", |status| (status["state"] == "running").then_some(()));
}

#[test]
fn a_kernel_oom_kill_is_called_one() {
    let _turn = turn();
    let flags = ["--memory", "300M", "--reserve", "4M", "--restart", "never", "--quiet"];
    let load =
        ["ramp", "--rate", "1000", "--forever", "--mark", "300M", "--obey-delay-ms", "5000", "--keep-rate", "1000"];
    let Some(mut service) = start(Setup::new("oom", &flags).load(&load)) else { return };
    let status = service.wait(SOON).unwrap_or_else(|| panic!("still runs: {}", service.stderr()));
    let exit = service.last_exit();
    assert_eq!(exit["reason"], "oom-kill", "{exit:#}\n{}", service.stderr());
    assert!(status.code() != Some(0) && exit["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{exit:#}");
    assert!(service.stderr().contains("oom-kill"), "the last line gives the reason: {}", service.stderr());
}

#[test]
fn the_limit_can_be_changed_while_the_program_runs() {
    let _turn = turn();
    let flags = ["--memory", "300M", "--reserve", "100M", "--restart", "never", "--quiet"];
    let load = ["ramp", "--rate", "100", "--to", "350M", "--mark", "400M", "--delay-ms", "4000", "--hold-ms", "1500"];
    let Some(mut service) = start(Setup::new("set", &flags).load(&load)) else { return };
    service.child();
    let answer = service.ask("set", &["--memory", "400M"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    service.until(SOON, "the new budget", |status| {
        let memory = &status["memory"];
        (memory["budget_bytes"].as_u64()? == 400 << 20 && memory["kernel_limit_bytes"].as_u64()? >= 500 << 20)
            .then_some(())
    });
    let status = service.wait(SOON).unwrap_or_else(|| panic!("still runs: {}", service.stderr()));
    assert_eq!(
        (status.code(), service.evidence().all("signal").count()),
        (Some(0), 0),
        "350M fits now: {}",
        service.stderr()
    );
    let refused = ask(&["set", "nobody", "--memory", "400M"]);
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
}

#[test]
fn a_threshold_can_be_sustained_for_a_time() {
    let _turn = turn();
    for (hold_ms, signals) in [("1000", 0), ("20000", 1)] {
        let flags =
            ["--memory", "300M", "--reserve", "100M", "--restart", "never", "--quiet", "--on", "high=stop for 3s"];
        let load = ["ramp", "--rate", "1000", "--to", "276M", "--mark", "275M", "--hold-ms", hold_ms];
        let Some(mut service) = start(Setup::new("sustained", &flags).load(&load)) else { return };
        service.wait(Duration::from_secs(40)).unwrap_or_else(|| panic!("still runs: {}", service.stderr()));
        let evidence = service.evidence();
        assert_eq!(evidence.all("signal").count(), signals, "held {hold_ms} ms: {evidence:#?}\n{}", service.stderr());
        if let Some(lag) = evidence.lag_ms() {
            assert!((2_900.0..8_000.0).contains(&lag), "after {lag} ms");
        }
    }
}

#[test]
fn a_signal_that_nobody_catches_is_skipped_and_counted() {
    let _turn = turn();
    let load = plimsoll_incidents::product::load().unwrap().display().to_string();
    let script = format!("{load} ramp --rate 1000 --to 276M --hold-ms 2500 & exec /bin/sleep 4");
    let flags = ["--memory", "300M", "--reserve", "100M", "--restart", "never", "--quiet", "--on", "high=signal:USR1"];
    let Some(mut service) = start(Setup::new("usr1", &flags).program(&["/bin/sh", "-c", &script])) else { return };
    service.until(SOON, "a skipped stage", |status| {
        status["stages"].as_array()?.iter().find(|stage| stage["skipped_total"].as_u64() > Some(0)).map(|_| ())
    });
    let status = service.wait(SOON).unwrap_or_else(|| panic!("still runs: {}", service.stderr()));
    assert_eq!(status.code(), Some(0), "sleep survives: {}", service.stderr());
}
