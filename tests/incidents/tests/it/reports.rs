//! A service that embeds the library, under the real `plimsoll run`: what it reports is shown, and that it left for memory is
//! known because it said so. The control is the same service, or another program, that ends with the same code for another reason.

use crate::support::{start, turn};
use plimsoll_incidents::protected::{Service, Setup};
use plimsoll_incidents::{clock, files, product};
use rustix::process::Signal;
use serde_json::Value;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const FLAGS: [&str; 5] = ["--memory", "400M", "--restart", "never", "--quiet"];

/// The service of incident 2 with these flags more; behind a shell when `shell`.
fn serve(name: &str, more: &[&str], shell: bool, keep: &tempfile::TempDir) -> Option<Service> {
    start(served(name, more, shell, keep))
}

fn served(name: &str, more: &[&str], shell: bool, keep: &tempfile::TempDir) -> Setup {
    let binary = product::built("plimsoll-incident-2").unwrap_or_else(|reason| panic!("{reason}"));
    let path = |name: &str| keep.path().join(name).display().to_string();
    let (binary, journal, acks) = (binary.display().to_string(), path("journal"), path("acks"));
    let mut words = vec![binary.as_str(), "serve", "--journal", &journal, "--acks", &acks, "--drain-ms", "5000"];
    words.extend(more);
    let line = format!("{}; exit $?", words.join(" "));
    let words = if shell { vec!["sh", "-c", &line] } else { words };
    Setup::new(name, &FLAGS).program(&words)
}

/// The report of the program, once it has what is wanted.
fn report<T>(service: &Service, what: &str, mut wanted: impl FnMut(&Value) -> Option<T>) -> T {
    service.until(SOON, what, |status| status["reports"]["processes"].as_array()?.iter().find_map(&mut wanted))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

#[test]
fn status_shows_accounts_queue_and_readings_and_a_watchdog_that_fired_is_reason_memory() {
    let _turn = turn();
    for shell in [false, true] {
        let keep = tempfile::tempdir().unwrap();
        let Some(mut service) = serve("reports", &["--rate", "20", "--threshold", "120M"], shell, &keep) else {
            return;
        };
        let (account, queue) = report(&service, "an account and a queue that lost notes", |report| {
            let (account, queue) = (report["accounts"][0].clone(), report["queues"][0].clone());
            let lost = queue["producers"].as_array()?.iter().map(|one| number(&one["dropped_items_total"]["full"]));
            (number(&account["held_bytes"]) > 0 && lost.sum::<u64>() > 0).then_some((account, queue))
        });
        assert_eq!((account["name"].as_str(), queue["name"].as_str()), (Some("growth"), Some("notes")));
        assert_eq!(number(&queue["max_items"]), 8, "{queue:#}");
        report(&service, "the protected number and the threshold", |report| {
            (number(&report["protected_bytes"]) > 1 << 20 && number(&report["threshold_bytes"]) == 120 << 20)
                .then_some(())
        });
        service.until(SOON, "readiness", |status| {
            let notify = &status["reports"]["notify"];
            (notify["ready"] == true && notify["status"] == "appending").then_some(())
        });
        let shown = service.ask("status", &[]).stdout;
        for words in ["accounts  growth ", "queue     notes ", "leaves at 120.0 MiB", "ready · appending"] {
            assert!(shown.contains(words), "{words}\n{shown}");
        }
        let status = service.wait(SOON).unwrap_or_else(|| panic!("it still runs: {}", service.stderr()));
        let exit = service.last_exit();
        assert_eq!(
            (status.code(), exit["reason"].as_str(), exit["code"].as_i64()),
            (Some(2), Some("memory"), Some(2)),
            "{exit:#}"
        );
        let detail = exit["detail"].as_str().unwrap_or_default();
        assert!(
            detail.contains("after it said that it leaves for memory: 12") && detail.contains("of 120.0 MiB"),
            "{detail}"
        );
        let lines = exit["last_words"]["lines"].as_array().cloned().unwrap_or_default();
        let says = |words: &str| lines.iter().any(|line| line.as_str().is_some_and(|line| line.contains(words)));
        assert!(says("plimsoll: memory pressure: ") && says("holders: growth "), "{exit:#}");
        assert!(service.ask("status", &[]).stdout.contains("holders: growth "), "also when nobody runs any more");
        assert!(service.stderr().contains("reason memory: exited with code 2"), "{}", service.stderr());
    }
}

#[test]
fn the_same_code_for_another_reason_is_reason_exit() {
    let keep = tempfile::tempdir().unwrap();
    let Some(mut reporting) = serve("other", &["--rate", "5", "--threshold", "300M", "--exit", "2"], false, &keep)
    else {
        return;
    };
    report(&reporting, "a report", |report| (number(&report["protected_bytes"]) > 0).then_some(()));
    assert_eq!(reporting.wait(SOON).and_then(|status| status.code()), Some(2));
    let exit = reporting.last_exit();
    assert_eq!((exit["reason"].as_str(), &exit["last_words"]), (Some("exit"), &Value::Null), "{exit:#}");
    let Some(mut silent) = start(Setup::new("silent", &FLAGS).program(&["sh", "-c", "exit 2"])) else { return };
    assert_eq!(silent.wait(SOON).and_then(|status| status.code()), Some(2));
    assert_eq!(silent.last_exit()["reason"].as_str(), Some("exit"));
}

#[test]
fn a_supervisor_that_hangs_delays_nobody_and_the_one_after_a_killed_one_hears_the_same_program() {
    let _turn = turn();
    let keep = tempfile::tempdir().unwrap();
    let Some(mut service) = serve("heard", &["--rate", "0"], false, &keep) else { return };
    let child = service.child();
    report(&service, "a report", |report| (number(&report["pid"]) == u64::from(child)).then_some(()));
    let acknowledged = || std::fs::metadata(keep.path().join("acks")).map_or(0, |file| file.len());
    // Stopped: it reads nothing. The service goes on.
    service.supervisor().signal(Signal::STOP);
    let before = acknowledged();
    let grew = clock::wait_for(SOON, Duration::from_millis(20), || (acknowledged() > before + 1600).then_some(()));
    assert!(grew.is_some(), "100 records more while the supervisor hangs: {before}, {}", acknowledged());
    service.supervisor().signal(Signal::CONT);
    report(&service, "a report of now", |report| (report["age_seconds"].as_f64()? < 3.0).then_some(()));
    // Killed: the next supervisor adopts the program and hears it through the same path.
    service.supervisor().signal(Signal::KILL);
    service.wait(SOON);
    service.start_again().unwrap();
    assert_eq!(service.child(), child, "adopted: {}", service.stderr());
    let report = report(&service, "a report of the adopted program", |report| {
        (number(&report["pid"]) == u64::from(child) && report["age_seconds"].as_f64()? < 3.0).then(|| report.clone())
    });
    assert_eq!(report["accounts"][0]["name"], "growth", "{report:#}");
    assert!(files::lives(child));
}

#[test]
fn a_manager_above_hears_readiness_in_plimsolls_name_and_signs_of_life() {
    let keep = tempfile::tempdir().unwrap();
    let path = keep.path().join("manager");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let setup = served("managed", &["--rate", "0"], false, &keep);
    let setup = setup.environment("NOTIFY_SOCKET", &path.display().to_string()).environment("WATCHDOG_USEC", "400000");
    let Some(mut service) = start(setup) else { return };
    let heard = |wanted: &str| {
        let mut buffer = [0; 4096];
        for _ in 0..1_000 {
            let n = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("{wanted}: {error}"));
            let message = String::from_utf8_lossy(&buffer[..n]).into_owned();
            if message.starts_with(wanted) {
                return message;
            }
        }
        panic!("no {wanted}");
    };
    assert_eq!(heard("READY=1"), format!("READY=1\nMAINPID={}\n", service.pid()));
    assert_eq!(heard("STATUS="), "STATUS=appending\n");
    assert_eq!(heard("WATCHDOG=1"), "WATCHDOG=1");
    assert_eq!(heard("WATCHDOG=1"), "WATCHDOG=1", "Plimsoll is alive for a program that gives no sign");
    service.supervisor().signal(Signal::TERM);
    assert_eq!(heard("STOPPING=1"), "STOPPING=1\nSTATUS=stopping: SIGTERM");
    service.wait(SOON);
}

#[test]
fn the_program_is_offered_both_sockets_and_the_pressure_of_its_group() {
    let offered = "[ -S \"$PLIMSOLL_REPORT_SOCKET\" ] && [ \"$NOTIFY_SOCKET\" = \"$PLIMSOLL_REPORT_SOCKET\" ] || exit 3
        [ -z \"$MEMORY_PRESSURE_WATCH\" ] && exit 0
        case $MEMORY_PRESSURE_WATCH in */plimsoll-*/memory.pressure) ;; *) exit 4;; esac
        echo \"$MEMORY_PRESSURE_WRITE\" | base64 -d | tr '\\0' . | grep -qx 'some 200000 2000000.' || exit 5";
    let kept = "[ \"$MEMORY_PRESSURE_WATCH\" = /dev/null ] && [ -z \"$MEMORY_PRESSURE_WRITE\" ]";
    let none = "[ -z \"$NOTIFY_SOCKET$MEMORY_PRESSURE_WATCH\" ] && [ -S \"$PLIMSOLL_REPORT_SOCKET\" ]";
    for (script, flag, set) in
        [(offered, "--swap", None), (kept, "--swap", Some("/dev/null")), (none, "--no-derive", None)]
    {
        let setup = Setup::new("offered", &[&FLAGS[..], &[flag][..]].concat()).program(&["sh", "-c", script]);
        let setup = set.into_iter().fold(setup, |setup, value| setup.environment("MEMORY_PRESSURE_WATCH", value));
        let Some(mut service) = start(setup) else { return };
        let code = service.wait(SOON).and_then(|status| status.code());
        assert_eq!(code, Some(0), "{script}: {}", service.stderr());
    }
}
