//! `status`, `top --once` and `stop` against real supervisors: running, hung, dead, ended, none.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::shop::PATIENCE;

/// A state directory, and a supervisor in it that is stopped, with its program, when the test ends.
pub(crate) struct Stage {
    dir: tempfile::TempDir,
    runs: Vec<Child>,
    programs: Vec<u64>,
    groups: Vec<PathBuf>,
}

pub(crate) fn plimsoll(dir: &Path, words: &[&str]) -> Output {
    let mut command = crate::plimsoll();
    command.args(words).arg("--dir").arg(dir).env("TZ", "UTC").stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Stage {
    pub(crate) fn new() -> Stage {
        Stage { dir: tempfile::tempdir().unwrap(), runs: Vec::new(), programs: Vec::new(), groups: Vec::new() }
    }

    /// Starts `program` under the name and waits until it runs.
    pub(crate) fn run(&mut self, name: &str, more: &[&str], program: &[&str]) -> Pid {
        let mut command = crate::plimsoll();
        command
            .args(["run", "--quiet", "--name", name, "--dir"])
            .arg(self.dir.path())
            .args(more)
            .arg("--")
            .args(program);
        let said = File::create(self.dir.path().join(format!(".{name}.said"))).unwrap();
        let run = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().unwrap();
        let pid = Pid::from_child(&run);
        self.runs.push(run);
        let status = self.until(name, |status| status["state"] == "running" && status["child"]["pid"].is_u64());
        self.programs.push(status["child"]["pid"].as_u64().unwrap());
        let state = std::fs::read(self.dir.path().join(name).join("state.json")).unwrap();
        let state: Value = serde_json::from_slice(&state).unwrap();
        let groups = state["groups"].as_array().into_iter().flatten();
        self.groups.extend(groups.filter_map(|group| group["dir"].as_str().map(PathBuf::from)));
        pid
    }

    pub(crate) fn ask(&self, words: &[&str]) -> Output {
        plimsoll(self.dir.path(), words)
    }

    fn status(&self, name: &str) -> Value {
        serde_json::from_slice(&self.ask(&["status", name, "--json"]).stdout).unwrap_or(Value::Null)
    }

    #[track_caller]
    pub(crate) fn until(&self, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let status = self.status(name);
            if holds(&status) {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "{name}: {status:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for run in &mut self.runs {
            // A supervisor that a test stopped has to go on before it can end its program.
            let pid = Pid::from_child(run);
            if run.try_wait().is_ok_and(|ended| ended.is_none()) {
                rustix::process::kill_process(pid, Signal::CONT).ok();
                rustix::process::kill_process(pid, Signal::TERM).ok();
                run.wait().ok();
            }
        }
        // What a killed supervisor left, still the process that was started here: its directory says so.
        for pid in &self.programs {
            let is_ours =
                std::fs::read_link(format!("/proc/{pid}/fd/1")).is_ok_and(|target| target.starts_with(self.dir.path()));
            if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw).filter(|_| is_ours) {
                rustix::process::kill_process(pid, Signal::KILL).ok();
            }
        }
        // Its groups are empty once the kernel has taken the program down.
        for group in &self.groups {
            let begin = Instant::now();
            while group.exists() && std::fs::remove_dir(group).is_err() && begin.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

#[test]
fn of_none_and_of_a_name_that_is_not_there() {
    let stage = Stage::new();
    let output = stage.ask(&["status"]);
    assert!(output.status.success() && printed(&output).starts_with("nothing is supervised in "), "{output:?}");
    assert_eq!(printed(&stage.ask(&["status", "--json"])), "[]\n");
    let output = stage.ask(&["top", "--once"]);
    assert!(output.status.success() && printed(&output).contains("nothing is supervised in "), "{output:?}");
    for words in [&["status", "web"][..], &["top", "web", "--once"], &["stop", "web"]] {
        let output = stage.ask(words);
        assert_eq!(output.status.code(), Some(64), "{words:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("no program \"web\""), "{output:?}");
    }
    assert_eq!(stage.ask(&["top"]).status.code(), Some(64), "top without a terminal");
}

#[test]
fn a_running_one_is_shown_with_its_budget_and_stopped_in_order() {
    let mut stage = Stage::new();
    stage.run("web", &["--memory", "100M", "--reserve", "64M"], &["sh", "-c", "echo ready; exec sleep 1000"]);
    let status = stage.until("web", |status| status["memory"]["charged_bytes"].is_u64());
    assert_eq!(status["version"], 1);
    assert_eq!(status["memory"]["budget_bytes"], 100 << 20);
    assert_eq!(status["memory"]["marks_bytes"], serde_json::json!([75 << 20, 88 << 20, 100 << 20]));
    assert_eq!(status["governor"]["level"], "normal");
    assert_eq!(status["grace_seconds"], 10.0);
    assert!(status["child"]["fds"]["total"].as_u64().unwrap() >= 3, "{status:#}");
    stage.until("web", |status| status["logs"]["streams"]["stdout"]["lines_total"] == 1);

    let all: Value = serde_json::from_slice(&stage.ask(&["status", "--json"]).stdout).unwrap();
    assert_eq!((all.as_array().unwrap().len(), &all[0]["name"]), (1, &Value::from("web")));
    let table = printed(&stage.ask(&["status"]));
    assert!(table.lines().nth(1).unwrap().contains("web   running  normal"), "{table}");
    let text = printed(&stage.ask(&["status", "web"]));
    for word in ["web  running", "NORMAL", "of 100.0 MiB", "░│", "critical → stop", "last decisions"] {
        assert!(text.contains(word), "{word:?} is missing in:\n{text}");
    }
    assert!(!text.contains('\x1b'), "no colours into a pipe: {text:?}");

    let frame = printed(&stage.ask(&["top", "web", "--once"]));
    for word in ["web  running", "NORMAL", "of 100.0 MiB", "75 %", "decisions ──"] {
        assert!(frame.contains(word), "{word:?} is missing in:\n{frame}");
    }
    assert!(frame.lines().all(|line| line.chars().count() <= 100), "{frame}");

    let output = stage.ask(&["stop", "web"]);
    let told = printed(&output);
    assert!(output.status.success(), "{output:?}");
    assert!(told.starts_with("web: stopped in ") && told.contains("SIGTERM"), "{told}");
    assert!(stage.runs[0].try_wait().unwrap().is_some(), "the supervisor has ended before `stop` has");
    let output = stage.ask(&["status", "web"]);
    assert_eq!(output.status.code(), Some(1), "ended by a signal is a finding");
    assert!(printed(&output).contains("exited: signal"), "{}", printed(&output));
    assert_eq!(printed(&stage.ask(&["stop", "web"])), "web: nothing runs\n");
}

#[test]
fn a_program_that_ignores_sigterm_is_stopped_after_its_grace() {
    let mut stage = Stage::new();
    stage.run("deaf", &["--grace", "300ms"], &["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]);
    // The trap is set before the line is written.
    stage.until("deaf", |status| status["logs"]["streams"]["stdout"]["lines_total"] == 1);
    let output = stage.ask(&["stop", "deaf"]);
    assert!(output.status.success() && printed(&output).contains("SIGKILL was needed after 300 ms"), "{output:?}");
}

#[test]
fn a_hung_supervisor_reads_stale_and_cannot_be_asked_to_stop() {
    let mut stage = Stage::new();
    let supervisor = stage.run("web", &["--memory", "100M"], &["sleep", "1000"]);
    rustix::process::kill_process(supervisor, Signal::STOP).unwrap();
    // Its threads stop one by one.
    stage.until("web", |status| status["state"] == "stale");
    let begin = Instant::now();
    let output = stage.ask(&["status"]);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(output.status.code(), Some(1));
    assert!(printed(&output).contains("web   stale, "), "{}", printed(&output));
    let status = stage.status("web");
    assert_eq!(status["state"], "stale");
    assert!(status["supervisor"]["heartbeat_age_seconds"].as_f64().unwrap() < 30.0, "{status:#}");
    assert_eq!(status["memory"]["charged_bytes"], Value::Null, "nobody measures it now");
    assert!(status["warnings"][0].as_str().unwrap().contains("stopped or hung"), "{status:#}");
    let frame = printed(&stage.ask(&["top", "--once"]));
    assert!(frame.contains("stale, ") && !frame.contains("running"), "{frame}");
    let output = stage.ask(&["stop", "web"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not answer"), "{output:?}");
    rustix::process::kill_process(supervisor, Signal::CONT).unwrap();
    stage.until("web", |status| status["state"] == "running");
}

#[test]
fn a_killed_supervisor_reads_stale_and_its_program_is_named() {
    let mut stage = Stage::new();
    let supervisor = stage.run("web", &["--memory", "100M"], &["sleep", "1000"]);
    rustix::process::kill_process(supervisor, Signal::KILL).unwrap();
    stage.runs[0].wait().unwrap();
    let status = stage.status("web");
    assert_eq!((&status["state"], &status["child"]["pid"]), (&Value::from("stale"), &Value::from(stage.programs[0])));
    let text = printed(&stage.ask(&["status", "web"]));
    assert!(text.contains("stale, ") && text.contains("is dead") && text.contains("still runs, ungoverned"), "{text}");
    assert!(!text.contains("running"), "{text}");
    let output = stage.ask(&["stop", "web"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("kill -TERM {}", stage.programs[0])), "{said}");
}

#[test]
fn what_a_killed_life_left_unfinished_is_a_line_of_its_own() {
    let mut stage = Stage::new();
    let first = ["sh", "-c", "printf 'first life unfinished'; exec sleep 1000"];
    let supervisor = stage.run("web", &["--no-cgroup"], &first);
    let stdout = |stage: &Stage| printed(&stage.ask(&["logs", "web", "--stream", "stdout", "--raw"]));
    let begin = Instant::now();
    while stdout(&stage) != "first life unfinished\n" {
        assert!(begin.elapsed() < PATIENCE, "{}", stdout(&stage));
        std::thread::sleep(Duration::from_millis(20));
    }
    for pid in [supervisor.as_raw_nonzero().get(), i32::try_from(stage.programs[0]).unwrap()] {
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
    stage.runs[0].wait().unwrap();
    stage.run("web", &["--no-cgroup"], &["sh", "-c", "echo second life; exec sleep 1000"]);
    let begin = Instant::now();
    while !stdout(&stage).contains("second life") {
        assert!(begin.elapsed() < PATIENCE, "{}", stdout(&stage));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(stdout(&stage), "first life unfinished\nsecond life\n");
}

#[test]
fn metrics_names_are_one_a_line_and_hidden() {
    let output = crate::plimsoll().arg("metrics-names").output().unwrap();
    let names = printed(&output);
    assert!(output.status.success() && names.lines().count() > 20);
    assert!(names.lines().all(|name| name.starts_with("plimsoll_") && !name.contains(' ')), "{names}");
    let help = crate::plimsoll().arg("--help").output().unwrap();
    assert!(!printed(&help).contains("metrics-names") && printed(&help).contains("  stop "));
}
