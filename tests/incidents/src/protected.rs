//! One program under `plimsoll run`, and everything a test may ask about it.
//!
//! The supervisor is started in a memory group of its own without a limit (where one can be made), so that whatever it and its
//! child leave behind is found, killed and removed when the [`Service`] is dropped; `--dir` is a temporary directory.
//! Answers come from the product's own commands (`status --json`, `logs --json`) and from the files it documents.

use crate::account::{Account, Summary};
use crate::cgroup::TestGroup;
use crate::clock;
use crate::evidence::Evidence;
use crate::files;
use crate::launch::{self, Running};
use crate::lines::LineMaker;
use crate::product;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// The longest a question to the product may take.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The longest line `logs --json` may print: a 64 KiB line of control bytes, each six characters in JSON.
const JSON_LINE_MAX_BYTES: usize = 1 << 20;

/// What to start and how.
#[derive(Debug)]
pub struct Setup {
    name: String,
    flags: Vec<String>,
    program: Vec<String>,
    environment: Vec<(String, String)>,
    dir: Option<PathBuf>,
    limit_bytes: Option<u64>,
    grouped: bool,
}

impl Setup {
    /// A service of this name with the given flags of `plimsoll run`.
    pub fn new(name: &str, flags: &[&str]) -> Setup {
        let flags = flags.iter().map(ToString::to_string).collect();
        let (program, environment) = (Vec::new(), Vec::new());
        Setup { name: name.into(), flags, program, environment, dir: None, limit_bytes: None, grouped: true }
    }

    /// The child is `plimsoll-load` with these arguments; where its evidence goes is added.
    pub fn load(mut self, args: &[&str]) -> Setup {
        self.program = args.iter().map(ToString::to_string).collect();
        self
    }

    /// The child is any other program; the first word is a path or is looked up.
    pub fn program(mut self, words: &[&str]) -> Setup {
        self.program = std::iter::once("").chain(words.iter().copied()).map(String::from).collect();
        self
    }

    /// Adds a variable to the environment of the supervisor.
    pub fn environment(mut self, key: &str, value: &str) -> Setup {
        self.environment.push((key.into(), value.into()));
        self
    }

    /// Uses this state directory, which the caller keeps, and not a temporary one.
    pub fn dir(mut self, dir: &Path) -> Setup {
        self.dir = Some(dir.into());
        self
    }

    /// Puts supervisor and child into a group with this hard limit: the limit that is *found*.
    pub fn found_limit(mut self, bytes: u64) -> Setup {
        self.limit_bytes = Some(bytes);
        self
    }

    /// Does without a group of the harness.
    pub fn ungrouped(mut self) -> Setup {
        self.grouped = false;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// A sentence that says why it cannot be run here: no cgroup, no binary.
    pub fn start(self) -> Result<Service, String> {
        let scratch = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
        let group = if self.grouped { Some(TestGroup::new(&self.name, self.limit_bytes)?) } else { None };
        let dir = self.dir.unwrap_or_else(|| scratch.path().join("state"));
        let mut service = Service {
            evidence: scratch.path().join("evidence"),
            scratch,
            dir,
            name: self.name,
            flags: self.flags,
            program: self.program,
            environment: self.environment,
            group,
            running: None,
            starts: 0,
        };
        service.start_again()?;
        Ok(service)
    }
}

/// A supervisor and its child.
#[derive(Debug)]
pub struct Service {
    // Dropped in this order: the supervisor, then the group with all that is left in it, then the files.
    running: Option<Running>,
    group: Option<TestGroup>,
    scratch: TempDir,
    evidence: PathBuf,
    dir: PathBuf,
    name: String,
    flags: Vec<String>,
    program: Vec<String>,
    environment: Vec<(String, String)>,
    starts: u32,
}

impl Service {
    /// Starts a supervisor with the same command line; an earlier one is killed first if it still runs.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub fn start_again(&mut self) -> Result<(), String> {
        self.start_under(&[])
    }

    /// The same with another program before it, such as a tracer; [`Service::pid`] is then the tracer's.
    ///
    /// # Errors
    /// As [`Service::start_again`].
    pub fn start_under(&mut self, tracer: &[&str]) -> Result<(), String> {
        self.running = None;
        self.starts += 1;
        let output = self.scratch.path().join(format!("start-{}", self.starts));
        std::fs::create_dir(&output).map_err(|error| format!("{}: {error}", output.display()))?;
        let (binary, line) = (product::plimsoll()?, self.command_line()?);
        let mut command = match tracer {
            [] => launch::command(binary, line, self.group.as_ref()),
            [program, flags @ ..] => {
                let words = flags.iter().map(ToString::to_string).chain([binary.display().to_string()]).chain(line);
                launch::command(Path::new(program), words, self.group.as_ref())
            }
        };
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.env("XDG_STATE_HOME", self.scratch.path());
        self.running = Some(Running::start(command, &output)?);
        Ok(())
    }

    /// The arguments after `plimsoll`.
    fn command_line(&self) -> Result<Vec<String>, String> {
        let mut words = vec!["run".to_owned(), "--name".into(), self.name.clone()];
        words.extend(["--dir".into(), self.dir.display().to_string()]);
        words.extend(self.flags.iter().cloned());
        words.push("--".into());
        match self.program.split_first() {
            Some((first, rest)) if first.is_empty() => words.extend(rest.iter().cloned()),
            _ => {
                words.push(product::load()?.display().to_string());
                words.extend(self.program.iter().cloned());
                words.extend(["--evidence".into(), self.evidence.display().to_string()]);
            }
        }
        Ok(words)
    }

    /// The supervisor's process.
    pub fn supervisor(&mut self) -> &mut Running {
        self.running.as_mut().expect("a service is started when it is made")
    }

    /// The supervisor's process id.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("a service is started when it is made").pid()
    }

    /// Waits for the supervisor's end.
    pub fn wait(&mut self, deadline: Duration) -> Option<ExitStatus> {
        self.supervisor().wait(deadline)
    }

    /// Asks the supervisor to stop and waits for it; `None` when it still runs after `deadline`.
    pub fn stop(&mut self, deadline: Duration) -> Option<ExitStatus> {
        self.supervisor().signal(Signal::TERM);
        self.wait(deadline)
    }

    /// `DIR/NAME`.
    pub fn home(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// A path in the temporary directory that goes with this service.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The group that supervisor and child are in.
    pub fn group(&self) -> Option<&TestGroup> {
        self.group.as_ref()
    }

    /// What the child has written about itself so far.
    pub fn evidence(&self) -> Evidence {
        Evidence::read(&self.evidence).unwrap_or_else(|error| panic!("evidence: {error}"))
    }

    /// Runs `plimsoll WORD NAME --dir DIR more…`; stdout, stderr and exit code. Killed after [`ANSWER_MAX`].
    pub fn ask(&self, word: &str, more: &[&str]) -> Answer {
        let mut words = vec![word, &self.name, "--dir"];
        let dir = self.dir.display().to_string();
        words.push(&dir);
        words.extend(more);
        ask(&words)
    }

    /// `plimsoll status NAME --json`, when it answers.
    pub fn status(&self) -> Option<Value> {
        let answer = self.ask("status", &["--json"]);
        let value: Value = serde_json::from_str(&answer.stdout).ok()?;
        match value {
            Value::Array(all) => all.into_iter().find(|one| one["name"] == self.name.as_str()),
            one => Some(one),
        }
    }

    /// Asks for the status until `wanted` answers something.
    ///
    /// # Panics
    /// With the last status and the supervisor's stderr when that does not happen within `deadline`.
    pub fn until<T>(&self, deadline: Duration, what: &str, mut wanted: impl FnMut(&Value) -> Option<T>) -> T {
        let found = clock::wait_for(deadline, Duration::from_millis(50), || wanted(&self.status()?));
        found.unwrap_or_else(|| {
            let status = self.status().map(|status| format!("{status:#}")).unwrap_or_default();
            panic!("not within {deadline:?}: {what}\nlast status: {status}\nstderr: {}", self.stderr())
        })
    }

    /// Waits until this supervisor has a child, adopted or its own, by `state.json`; the child's pid.
    ///
    /// # Panics
    /// When it has none after [`ANSWER_MAX`].
    pub fn child(&self) -> u32 {
        let path = self.home().join("state.json");
        let child = || {
            let state: Value = serde_json::from_str(&files::text(&path).ok()?).ok()?;
            let ours = state["supervisor"]["pid"] == self.pid();
            state["child"]["pid"].as_u64().filter(|&pid| ours && pid > 0).map(|pid| pid as u32)
        };
        clock::wait_for(ANSWER_MAX, Duration::from_millis(10), child)
            .unwrap_or_else(|| panic!("no child after {ANSWER_MAX:?}; stderr: {}", self.stderr()))
    }

    /// `last-exit.json`, once it is there.
    ///
    /// # Panics
    /// When it is not, after [`ANSWER_MAX`].
    pub fn last_exit(&self) -> Value {
        let path = self.home().join("last-exit.json");
        let read = || serde_json::from_str(&files::text(&path).ok()?).ok();
        clock::wait_for(ANSWER_MAX, Duration::from_millis(20), read)
            .unwrap_or_else(|| panic!("no {}; stderr: {}", path.display(), self.stderr()))
    }

    /// What the supervisor has said on stderr.
    pub fn stderr(&self) -> String {
        self.running.as_ref().map(Running::stderr).unwrap_or_default()
    }

    /// Walks `plimsoll logs NAME --json more…` entry by entry.
    ///
    /// # Errors
    /// A sentence when the command fails or prints something else than one JSON object a line.
    pub fn logs(&self, more: &[&str], sink: impl FnMut(Entry<'_>)) -> Result<u64, String> {
        let mut command = Command::new(product::plimsoll()?);
        command.args(["logs", &self.name, "--json", "--dir"]).arg(&self.dir).args(more);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("plimsoll logs does not start: {error}"))?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let walked = walk(BufReader::with_capacity(1 << 20, stdout), sink);
        if walked.is_err() {
            // It may have ended by itself.
            child.kill().ok();
        }
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        let count = walked?;
        if !output.status.success() {
            return Err(format!(
                "plimsoll logs ends with {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        Ok(count)
    }

    /// Accounts for `count` lines of `plimsoll-load lines --seed SEED --bytes BYTES` on stdout.
    ///
    /// # Errors
    /// As [`Service::logs`].
    pub fn account(&self, seed: u64, bytes: usize, count: u64, complete: bool) -> Result<Summary, String> {
        let mut account = Account::new(LineMaker::new(seed, bytes), count);
        self.logs(&[], |entry| match entry {
            Entry::Text { stream: "stdout", text } => account.text(text),
            Entry::Gap { stream: "stdout", lines, bytes, exact, .. } => account.gap(lines, bytes, exact),
            _ => {}
        })?;
        Ok(account.finish(complete))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let ring = files::text(&self.home().join("ring.path")).ok();
        if let Some(running) = self.running.as_mut() {
            running.signal(Signal::KILL);
            running.wait(Duration::from_secs(5));
        }
        // Without a group of ours, the load's own evidence says what may be left.
        for start in self.evidence().all("start").filter(|start| is_load(start.pid)) {
            Pid::from_raw(start.pid as i32).map(|pid| kill_process(pid, Signal::KILL).ok());
        }
        if let Some(ring) = ring {
            // A supervisor that was killed leaves its ring on purpose; this service has no successor.
            std::fs::remove_file(ring.trim()).ok();
        }
    }
}

fn is_load(pid: u32) -> bool {
    files::text(Path::new(&format!("/proc/{pid}/comm"))).is_ok_and(|comm| comm.trim() == "plimsoll-load")
}

/// One entry of `plimsoll logs --json`.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// A line, or a piece of one.
    Text {
        /// `stdout`, `stderr` or `plimsoll`.
        stream: &'a str,
        /// Without its line feed.
        text: &'a [u8],
    },
    /// What is missing here.
    Gap {
        /// `stdout`, `stderr` or `plimsoll`.
        stream: &'a str,
        /// Lines missing.
        lines: u64,
        /// Bytes missing.
        bytes: u64,
        /// Whether the two are counts and not bounds.
        exact: bool,
        /// Why, in the product's word.
        reason: &'a str,
    },
}

/// Reads entries, one JSON object a line; answers how many there were.
///
/// # Errors
/// A sentence with the line that is not an entry.
pub fn walk(mut from: impl BufRead, mut sink: impl FnMut(Entry<'_>)) -> Result<u64, String> {
    let mut line = Vec::new();
    let mut count = 0;
    loop {
        line.clear();
        let length = from.read_until(b'\n', &mut line).map_err(|error| format!("logs: {error}"))?;
        if length == 0 {
            return Ok(count);
        }
        if length > JSON_LINE_MAX_BYTES {
            return Err(format!("a JSON line of {length} bytes"));
        }
        let raw: RawEntry = serde_json::from_slice(&line).map_err(|error| {
            format!("not an entry: {error}: {}", String::from_utf8_lossy(&line[..line.len().min(300)]))
        })?;
        sink(raw.entry());
        count += 1;
    }
}

/// The fields of an entry as printed.
#[derive(serde::Deserialize)]
struct RawEntry {
    #[serde(default)]
    stream: String,
    text: Option<String>,
    gap: Option<RawGap>,
}

#[derive(serde::Deserialize)]
struct RawGap {
    lines: u64,
    bytes: u64,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    inexact: bool,
}

impl RawEntry {
    fn entry(&self) -> Entry<'_> {
        match &self.gap {
            Some(gap) => Entry::Gap {
                stream: &self.stream,
                lines: gap.lines,
                bytes: gap.bytes,
                exact: !gap.inexact,
                reason: &gap.reason,
            },
            None => Entry::Text { stream: &self.stream, text: self.text.as_deref().unwrap_or_default().as_bytes() },
        }
    }
}

/// What a command of the product said.
#[derive(Debug)]
pub struct Answer {
    /// Its exit code; `None` when it had to be killed.
    pub code: Option<i32>,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

/// Runs `plimsoll words…`, killed after [`ANSWER_MAX`].
///
/// # Panics
/// When it cannot be started at all.
pub fn ask(words: &[&str]) -> Answer {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let binary = product::plimsoll().unwrap_or_else(|reason| panic!("{reason}"));
    let command = launch::command(binary, words, None);
    let mut running = Running::start(command, dir.path()).unwrap_or_else(|reason| panic!("{reason}"));
    let status = running.wait(ANSWER_MAX);
    Answer { code: status.and_then(|status| status.code()), stdout: running.stdout(), stderr: running.stderr() }
}
