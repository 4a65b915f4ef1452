//! Heap captures of real programs: safe where they fit, refused where they do not, and every failure is one that is seen.

use crate::support::{or_skip, start, turn};
use plimsoll_incidents::clock;
use plimsoll_incidents::heap::{self, HeapService};
use plimsoll_incidents::protected::Setup;
use plimsoll_incidents::tmpfs::Tmpfs;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

fn node_is_here() -> bool {
    let quiet = Command::new("node").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = quiet.is_ok_and(|status| status.success());
    if !there {
        eprintln!("skipped: no node here");
    }
    there
}

fn tested(service: &HeapService) -> String {
    let found = clock::wait_for(DEADLINE, Duration::from_millis(50), || {
        service.heap_status()["self_test"].as_str().map(str::to_owned)
    });
    found.expect("a self-test")
}

/// The safety of one capture, or `None` after saying why it cannot be seen here.
fn safety(heap_mb: u64, limit_mb: u64) -> Option<heap::Safety> {
    match heap::safety(heap_mb, limit_mb) {
        Ok(shown) => Some(shown),
        Err(why) if why.starts_with(heap::SKIP) => or_skip(Err(why)),
        Err(why) => panic!("{why}"),
    }
}

#[test]
fn a_snapshot_that_fits_is_taken_and_one_that_does_not_is_refused_with_its_figures() {
    let _turn = turn();
    if !node_is_here() {
        return;
    }
    let Some(roomy) = safety(100, 1024) else { return };
    assert_eq!(roomy.roomy(), Vec::<String>::new(), "{roomy:?}");
    let Some(tight) = safety(300, 400) else { return };
    assert_eq!(tight.tight(), Vec::<String>::new(), "{tight:?}");
    assert_eq!(tight.method, "profile", "the cheap signal: {tight:?}");
}

#[test]
fn a_program_killed_while_it_writes_leaves_a_failed_capture_and_no_file() {
    let _turn = turn();
    if !node_is_here() {
        return;
    }
    let flags = ["--memory", "1500M", "--heap", "full", "--heap-every", "1h", "--quiet", "--restart", "never"];
    let service = HeapService::start("leak", &flags).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(tested(&service), "ok");
    for _ in 0..30 {
        service.step().expect("a step");
    }
    let (pid, tmp) = (service.node(), service.captures().join("tmp"));
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| service.snapshot());
        let begun = clock::wait_for(DEADLINE, Duration::from_millis(1), || {
            std::fs::read_dir(&tmp)
                .ok()?
                .filter_map(Result::ok)
                .find(|entry| entry.file_name().to_string_lossy().ends_with(".heapsnapshot"))
        });
        assert!(begun.is_some(), "the runtime began to write");
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).expect("node lives");
        let answer = asked.join().expect("no panic");
        // The supervisor may have ended with the program before the question was answered.
        if let Ok(answer) = answer {
            let why = answer["failed"].as_str().unwrap_or_default();
            assert!(why.contains("ended"), "{answer}");
        }
    });
    let files: Vec<String> = std::fs::read_dir(service.captures())
        .expect("the shelf")
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name.contains("-asked-"))
        .collect();
    assert_eq!(files, Vec::<String>::new(), "nothing that would count as a heap");
    let left = clock::wait_for(DEADLINE, Duration::from_millis(20), || {
        let half = std::fs::read_dir(&tmp)
            .ok()?
            .filter_map(Result::ok)
            .any(|entry| entry.file_name().to_string_lossy().ends_with(".heapsnapshot"));
        (!half).then_some(())
    });
    assert!(left.is_some(), "the half file is gone");
}

#[test]
fn a_full_disk_refuses_before_anything_is_written() {
    let _turn = turn();
    if !node_is_here() {
        return;
    }
    let Some(disk) = or_skip(Tmpfs::mount(200 << 20)) else { return };
    let flags = ["--memory", "900M", "--heap", "full", "--heap-every", "1h", "--quiet"];
    let service = HeapService::start_with("leak", &flags, |setup| setup.dir(disk.path()));
    let service = service.unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(tested(&service), "ok", "a cheaper one is taken");
    let answer = service.snapshot().expect("an answer");
    let notes = answer["notes"].to_string();
    assert!(notes.contains("v8-snapshot refused") && notes.contains("of disk"), "{answer}");
    assert_eq!(answer["method"], "profile", "{answer}");
}

#[test]
fn a_snapshot_that_the_operator_has_written_to_another_filesystem_comes_onto_the_shelf() {
    let _turn = turn();
    if !node_is_here() {
        return;
    }
    let Some(disk) = or_skip(Tmpfs::mount(700 << 20)) else { return };
    let flags = ["--memory", "900M", "--heap", "full", "--heap-every", "1h", "--quiet"];
    let options = format!("--diagnostic-dir={}", disk.path().display());
    let service = HeapService::start_with("leak", &flags, |setup| setup.environment("NODE_OPTIONS", &options));
    let service = service.unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(tested(&service), "ok");
    let answer = service.snapshot().expect("an answer");
    assert_eq!((&answer["method"], &answer["failed"]), (&Value::from("v8-snapshot"), &Value::Null), "{answer}");
    let id = answer["id"].as_str().expect("an id");
    assert!(service.captures().join(format!("{id}.heapsnapshot.zst")).is_file(), "{answer}");
    assert_eq!(std::fs::read_dir(disk.path()).expect("the disk").count(), 0, "nothing stays there");
    assert_eq!(service.heap_status()["attributed_bytes"], 0);
}

#[test]
fn a_disk_that_fills_up_while_the_runtime_writes_is_a_failed_capture_and_the_service_lives() {
    let _turn = turn();
    if !node_is_here() {
        return;
    }
    let Some(disk) = or_skip(Tmpfs::mount(700 << 20)) else { return };
    let flags = ["--memory", "900M", "--heap", "full", "--heap-every", "1h", "--quiet"];
    let service = HeapService::start_with("documents", &flags, |setup| setup.dir(disk.path()));
    let service = service.unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(tested(&service), "ok");
    for _ in 0..4 {
        service.step().expect("a step");
    }
    let (tmp, filler) = (service.captures().join("tmp"), disk.path().join("filler"));
    let answer = std::thread::scope(|scope| {
        let asked = scope.spawn(|| service.snapshot());
        let begun = clock::wait_for(DEADLINE, Duration::from_millis(1), || {
            let mut names =
                std::fs::read_dir(&tmp).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            names.find(|name| name.ends_with(".heapsnapshot"))
        });
        assert!(begun.is_some(), "the runtime began to write");
        // Somebody else takes all that is left; 100 MB of documents are still to be written.
        let file = std::fs::File::create(&filler).expect("a file");
        let mut left = 1_u64 << 30;
        while left >= 4096 {
            let used = file.metadata().expect("its length").len();
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), used, left) {
                Ok(()) => {}
                Err(_) => left /= 2,
            }
        }
        asked.join().expect("no panic").expect("an answer")
    });
    let said = answer["failed"].as_str().unwrap_or_default().to_owned() + &answer["notes"].to_string();
    assert!(said.contains("v8-snapshot failed") && said.contains("disk is full"), "{answer}");
    let names = std::fs::read_dir(service.captures()).expect("the shelf").chain(std::fs::read_dir(&tmp).expect("tmp"));
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let halves: Vec<String> = names.filter(|name| name.contains("heapsnapshot") && !name.contains("-start-")).collect();
    assert_eq!(halves, Vec::<String>::new(), "nothing that would count as a heap");
    std::fs::remove_file(&filler).expect("it is there");
    service.step().expect("it lives");
    let again = service.snapshot().expect("an answer");
    assert_eq!((&again["method"], &again["failed"]), (&Value::from("v8-snapshot"), &Value::Null), "{again}");
}

#[test]
fn a_runtime_that_does_not_take_the_signal_is_not_sent_it_and_that_is_said() {
    let _turn = turn();
    let dir = tempfile::tempdir().expect("a directory");
    // A program that passes for Node and is none: the signal would be its end.
    let sleeper = dir.path().join("node");
    std::fs::copy("/bin/sleep", &sleeper).expect("a copy");
    let flags = ["--memory", "300M", "--heap", "full", "--heap-every", "1h", "--quiet"];
    let path = sleeper.display().to_string();
    let Some(service) = start(Setup::new("deaf", &flags).program(&[&path, "600"]).ungrouped()) else { return };
    let heap = |status: &Value| {
        let heap = &status["heap"];
        let failed = heap["failed_total"]["v8-snapshot"].as_u64()?;
        heap["last"]["method"].as_str().map(|method| (failed, method.to_owned()))
    };
    let (failed, method) = service.until(DEADLINE, "its self-test", heap);
    assert!(failed >= 1);
    assert_eq!(method, "smaps", "what any process gives");
    let status = service.status().expect("a status");
    assert_eq!(status["restarts"]["total"], 0, "it lives: {status}");
}

#[test]
fn a_jvm_is_captured_by_class_and_any_process_by_its_mappings() {
    let _turn = turn();
    let flags = ["--memory", "300M", "--heap-every", "1h", "--quiet"];
    let Some(service) = start(Setup::new("any", &flags).program(&["/bin/sleep", "600"]).ungrouped()) else { return };
    let last = |status: &Value| status["heap"]["last"]["method"].as_str().map(str::to_owned);
    assert_eq!(service.until(DEADLINE, "its self-test", last), "smaps");
    drop(service);
    let java = Command::new("jcmd").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !java.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no jcmd here");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("Held.java");
    std::fs::write(
        &source,
        "public class Held {\n  static final java.util.List<Held> ALL = new java.util.ArrayList<>();\n  final byte[] bytes = new byte[1000];\n  \
         public static void main(String[] a) throws Exception {\n    for (int n = 0; n < 5000; n++) ALL.add(new Held());\n    Thread.sleep(600000);\n  }\n}\n",
    )
    .expect("a source");
    let flags = ["--memory", "600M", "--heap", "full", "--heap-every", "1h", "--quiet"];
    let source = source.display().to_string();
    let Some(service) = start(Setup::new("jvm", &flags).program(&["java", &source]).ungrouped()) else { return };
    // The class is compiled first; a self-test that came too early is tried again.
    let found = clock::wait_for(Duration::from_secs(120), Duration::from_millis(500), || {
        let dir = service.home().parent()?.display().to_string();
        let (answer, _) = heap::ask(&["heap", "snapshot", "jvm", "--dir", &dir, "--json"]).ok()?;
        let id = answer["id"].as_str().filter(|_| answer["method"] == "jvm-live")?;
        let file = service.home().join("heap").join(format!("{id}.histogram")).display().to_string();
        let (opened, _) = heap::ask(&["heap", "open", &file, "--json", "--limit", "100"]).ok()?;
        opened["rows"].as_array()?.iter().find(|row| row["key"] == "Held").cloned()
    });
    assert_eq!(found.expect("the class is found")["count"], 5000);
}

/// The rows of a capture: `plimsoll heap open --json`.
fn rows(file: &std::path::Path) -> Vec<Value> {
    let (opened, _) =
        heap::ask(&["heap", "open", &file.display().to_string(), "--json", "--limit", "100"]).expect("rows");
    opened["rows"].as_array().expect("a list").clone()
}

fn bytes_of(rows: &[Value], words: &str) -> f64 {
    let of =
        rows.iter().filter(|row| row["kind"] == "stack" && row["key"].as_str().is_some_and(|key| key.contains(words)));
    of.filter_map(|row| row["bytes"].as_f64()).sum()
}

#[test]
fn a_rust_service_is_profiled_by_itself_and_by_its_allocator() {
    let _turn = turn();
    let leaky = plimsoll_incidents::product::built("plimsoll-leaky").expect("this build").display().to_string();
    // Asked over the socket: one sample in 16 KiB, so that 30 MB are 1,800 samples.
    let flags = ["--memory", "300M", "--heap-every", "1h", "--quiet"];
    let setup = Setup::new("rust", &flags).program(&[&leaky, "30"]).ungrouped();
    let setup = setup.environment("_RJEM_MALLOC_CONF", "prof:true,prof_active:true,lg_prof_sample:14");
    let Some(service) = start(setup) else { return };
    let last = |status: &Value| {
        let last = &status["heap"]["last"];
        Some((last["method"].as_str()?.to_owned(), last["id"].as_str()?.to_owned()))
    };
    let (method, id) = service.until(DEADLINE, "its self-test", last);
    assert_eq!(method, "profile", "{}", service.stderr());
    let rows = rows(&service.home().join("heap").join(format!("{id}.heap")));
    let held: f64 = rows.iter().filter(|row| row["kind"] == "stack").filter_map(|row| row["bytes"].as_f64()).sum();
    assert!((held / 30e6 - 1.0).abs() < 0.15, "30 MB are kept, {held:.0} are told: {rows:?}");
    // Its own functions are named, by its own file: a third is kept in one, the rest in the other.
    for (function, bytes) in [("plimsoll_leaky::keep_sessions", 10e6), ("plimsoll_leaky::keep_pages", 20e6)] {
        let told = bytes_of(&rows, function);
        assert!((told / bytes - 1.0).abs() < 0.2, "{bytes:.0} are kept in {function}, {told:.0} are told: {rows:?}");
    }
    // So does its digest, which outlives the file.
    let digest = service.home().join("heap").join(format!("{id}.digest"));
    let digest = plimsoll_incidents::files::text(&digest).expect("a digest");
    assert!(digest.contains("plimsoll_leaky::keep_pages"), "{digest}");
    drop(service);

    // By jemalloc itself: it writes when its mappings reach a new high.
    let flags = ["--memory", "300M", "--heap", "jemalloc", "--heap-every", "1h", "--quiet"];
    let Some(service) = start(Setup::new("jemalloc", &flags).program(&[&leaky, "60"]).ungrouped()) else { return };
    let (method, _) = service.until(DEADLINE, "its self-test", last);
    assert_eq!(method, "jemalloc", "{}", service.stderr());
}

#[test]
fn a_profile_is_fetched_from_a_url() {
    let _turn = turn();
    let python = Command::new("python3").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !python.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no python3 here");
        return;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let port = port.to_string();
    let served = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/plimsoll-heap/testdata");
    let mode = format!("pprof=http://127.0.0.1:{port}/go-1.pb.gz");
    let flags = ["--memory", "300M", "--heap", &mode, "--heap-every", "1h", "--quiet"];
    let served = served.display().to_string();
    let program = ["python3", "-m", "http.server", &port, "--bind", "127.0.0.1", "--directory", &served];
    let Some(service) = start(Setup::new("pprof", &flags).program(&program).ungrouped()) else { return };
    let last = |status: &Value| {
        let last = &status["heap"]["last"];
        (last["method"] == "pprof").then(|| last["id"].as_str().unwrap_or_default().to_owned())
    };
    let id = service.until(DEADLINE, "a profile", last);
    let rows = rows(&service.home().join("heap").join(format!("{id}.pb.gz")));
    assert!(bytes_of(&rows, "main.") > 1e6, "{rows:?}");
}
