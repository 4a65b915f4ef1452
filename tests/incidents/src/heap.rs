//! Incident 3, its leak part: real Node services (`data/heap-service.cjs`) under `plimsoll run`, captured and judged. One leaks, one
//! has a cache that fills and stops, one keeps freed memory, one grows in place.
//!
//! A *step* is half an hour of load, made at once; a capture follows one or more of them, and its digest is dated as if they had taken
//! their time ([`Course::dated`]). So a day takes about a minute; the memory, the snapshots and the readers are real. What a day has
//! besides, a rhythm of visitors and collections while idle, is not in it; the verdict's bench has series with those.
//! Nothing waits without a deadline.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::protected::{Service, Setup};
use crate::{clock, files, product};

/// The kinds of service, and what each one's day has to be called.
pub const KINDS: [&str; 4] = ["leak", "plateau", "retention", "inplace"];
/// How an error begins that is the machine's and not the program's.
pub const SKIP: &str = "cannot be run here";
/// What one step stands for, in seconds of the service's day.
pub const STEP_SECONDS: u64 = 1800;
/// When the first capture of a day is dated: 2026-11-26 00:00 UTC.
const FIRST_UNIX_SECONDS: u64 = 1_795_651_200;
/// How often a service is asked before its day begins. A step is half an hour at once: too short for Node to compile what half an hour
/// would have had it compile, and what it still compiles in a day of a minute is 5 % of a heap of 6 MB.
const WARM_UPS: u32 = 200;
/// The first captures are of a program whose capturing itself is new to it; a comparison begins with this one.
const EARLY: usize = 2;
/// How long Node may take to listen.
const START: Duration = Duration::from_secs(30);
/// How long the self-test may take: one that came before Node was up is tried again after 30 s.
const TESTED: Duration = Duration::from_secs(90);
/// How long one answer of the service may take.
const ANSWER: Duration = Duration::from_secs(60);

/// A service of one kind under `plimsoll run`.
#[derive(Debug)]
pub struct HeapService {
    service: Service,
    name: String,
    port: u16,
}

impl HeapService {
    /// Starts `kind` with the given flags of `plimsoll run`.
    ///
    /// # Errors
    /// A sentence that says why it cannot be run here.
    pub fn start(kind: &str, flags: &[&str]) -> Result<HeapService, String> {
        HeapService::start_with(kind, flags, |setup| setup)
    }

    /// The same, set up further.
    ///
    /// # Errors
    /// As [`HeapService::start`].
    pub fn start_with(kind: &str, flags: &[&str], further: impl FnOnce(Setup) -> Setup) -> Result<HeapService, String> {
        let scratch = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
        let port_file = scratch.path().join("port");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/heap-service.cjs");
        let (script, port_path) = (script.display().to_string(), port_file.display().to_string());
        let name = format!("heap-{kind}");
        let setup = Setup::new(&name, flags).program(&["node", &script, kind, &port_path]).ungrouped();
        let service = further(setup).start()?;
        let port =
            clock::wait_for(START, Duration::from_millis(20), || files::text(&port_file).ok()?.trim().parse().ok());
        let Some(port) = port else {
            return Err(format!("node does not listen within {START:?}: {}", service.stderr()));
        };
        let service = HeapService { service, name, port };
        // Node may be up before its supervisor has taken notice; its first capture says that it has.
        let known = clock::wait_for(TESTED, Duration::from_millis(50), || {
            service.heap_status()["self_test"].as_str().map(str::to_owned)
        });
        match known {
            Some(_) => Ok(service),
            None => Err(format!("no self-test within {TESTED:?}: {}", service.service.stderr())),
        }
    }

    /// What it is run by.
    pub fn service(&mut self) -> &mut Service {
        &mut self.service
    }

    /// One step of load; what the service then says of itself.
    ///
    /// # Errors
    /// A sentence: it does not answer.
    pub fn step(&self) -> Result<Value, String> {
        self.get("/step")
    }

    /// Lets it load and compile what a step needs, without what the kind does.
    ///
    /// # Errors
    /// A sentence: it does not answer.
    pub fn warm(&self) -> Result<(), String> {
        (0..WARM_UPS).try_for_each(|_| self.get("/warm").map(drop))
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        let failed = |error: std::io::Error| format!("{} does not answer: {error}", self.name);
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(failed)?;
        stream.set_read_timeout(Some(ANSWER)).map_err(failed)?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        stream.take(64 << 10).read_to_string(&mut answer).map_err(failed)?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).map_err(|error| format!("{}: {error} in {answer:?}", self.name))
    }

    /// `plimsoll heap snapshot`: what became of it, as JSON (`failed` is null where there is one).
    ///
    /// # Errors
    /// A sentence: there is no answer.
    pub fn snapshot(&self) -> Result<Value, String> {
        let dir = self.service.home();
        let dir = dir.parent().unwrap_or(&dir).display().to_string();
        ask(&["heap", "snapshot", &self.name, "--dir", &dir, "--json", "--wait", "5m"]).map(|(value, _)| value)
    }

    /// Its Node process.
    ///
    /// # Panics
    /// When `plimsoll status` tells none.
    pub fn node(&self) -> u32 {
        self.service.child()
    }

    /// `plimsoll status`, its `heap`.
    pub fn heap_status(&self) -> Value {
        self.service.status().map_or(Value::Null, |status| status["heap"].clone())
    }

    /// Where its captures are.
    pub fn captures(&self) -> PathBuf {
        self.service.home().join("heap")
    }
}

/// Runs `plimsoll` and returns the JSON object it prints, and its exit code.
///
/// # Errors
/// A sentence with what it printed instead.
pub fn ask(words: &[&str]) -> Result<(Value, Option<i32>), String> {
    let output =
        Command::new(product::plimsoll()?).args(words).output().map_err(|error| format!("plimsoll: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value = serde_json::from_str(&text).map_err(|error| {
        format!("plimsoll {}: {error} in {text:?}; {}", words.join(" "), String::from_utf8_lossy(&output.stderr))
    })?;
    Ok((value, output.status.code()))
}

/// The captures of a day.
#[derive(Debug)]
pub struct Course {
    dir: tempfile::TempDir,
    captures: usize,
}

impl Course {
    /// The digests in `captures`, in the order in which they were taken, dated so many seconds apart.
    ///
    /// # Errors
    /// A sentence with the path.
    pub fn dated(captures: &Path, interval_seconds: u64) -> Result<Course, String> {
        let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
        let failed = |error: std::io::Error| format!("{}: {error}", captures.display());
        let mut digests: Vec<PathBuf> = std::fs::read_dir(captures)
            .map_err(failed)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "digest"))
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("-asked-")))
            .collect();
        digests.sort();
        for (at, digest) in digests.iter().enumerate() {
            let unix_ns = (FIRST_UNIX_SECONDS + at as u64 * interval_seconds) * 1_000_000_000;
            let text = files::text(digest).map_err(failed)?;
            let dated: Vec<String> = text
                .lines()
                .map(|line| if line.starts_with("unix_ns ") { format!("unix_ns {unix_ns}") } else { line.to_owned() })
                .collect();
            std::fs::write(dir.path().join(format!("{at:04}.digest")), dated.join("\n") + "\n").map_err(failed)?;
        }
        Ok(Course { dir, captures: digests.len() })
    }

    /// How many captures it has.
    pub fn captures(&self) -> usize {
        self.captures
    }

    /// `plimsoll heap trend` over it, as JSON.
    ///
    /// # Errors
    /// A sentence: it does not answer.
    pub fn trend(&self) -> Result<Value, String> {
        let dir = self.dir.path().display().to_string();
        ask(&["heap", "trend", &dir, "--json"]).map(|(value, _)| value)
    }
}

/// A day of one service: its captures, and what two of them differ by.
#[derive(Debug)]
pub struct Day {
    /// All of them, dated.
    pub course: Course,
    /// `plimsoll heap diff --json` of a capture of the first morning and the last one.
    pub diff: Value,
    /// Files of the first and the last capture, in bytes: all that the published comparison looked at.
    pub file_bytes: [u64; 2],
    /// What the service itself said before each capture, after a collection.
    pub said: Vec<Value>,
    /// Index of the capture of the first morning that `diff` begins with.
    pub early: usize,
}

/// Runs `kind` for a day: `captures` of them, each after `steps` steps.
///
/// # Errors
/// A sentence that says why it cannot be run here, or what did not answer.
pub fn day(kind: &str, captures: u32, steps: u32) -> Result<Day, String> {
    let flags = ["--memory", "2G", "--heap", "full", "--heap-every", "24h", "--quiet"];
    let mut service = HeapService::start(kind, &flags)?;
    service.warm()?;
    let (mut said, mut ids) = (Vec::new(), Vec::new());
    for _ in 0..captures {
        let mut figures = Value::Null;
        for _ in 0..steps {
            figures = service.step()?;
        }
        said.push(figures);
        let answer = service.snapshot()?;
        match (answer["failed"].as_str(), answer["method"].as_str()) {
            (None, Some("v8-snapshot")) => ids.push(answer["id"].as_str().unwrap_or_default().to_owned()),
            (why, method) => return Err(format!("{kind}: {method:?}, {why:?}: {}", service.service().stderr())),
        }
    }
    let file = |id: &str| service.captures().join(format!("{id}.heapsnapshot.zst"));
    let size = |id: &str| std::fs::metadata(file(id)).map_or(0, |meta| meta.len());
    let (Some(early), Some(late)) = (ids.get(EARLY), ids.get(EARLY + 1..).and_then(<[String]>::last)) else {
        return Err(format!("{captures} captures are no day"));
    };
    let (before, after) = (file(early).display().to_string(), file(late).display().to_string());
    let (diff, _) = ask(&["heap", "diff", &before, &after, "--json"])?;
    let interval = u64::from(steps) * STEP_SECONDS;
    let file_bytes = [size(early), size(late)];
    Ok(Day { course: Course::dated(&service.captures(), interval)?, diff, file_bytes, said, early: EARLY })
}

/// One capture under a tight or a roomy limit, and what it shows.
#[derive(Debug)]
pub struct Safety {
    /// The method that gave the capture: `v8-snapshot` where a full one was safe.
    pub method: String,
    /// What was refused or failed before, in words with figures.
    pub notes: Vec<String>,
    /// Bytes of the capture.
    pub bytes: u64,
    /// How long it took, in seconds, until its digest was there.
    pub seconds: f64,
    /// A digest stands beside it: it was read, whole.
    pub parsed: bool,
    /// Kernel OOM kills of the program.
    pub oom_kills: u64,
    /// Restarts of the program: 0 when nothing was stopped for memory.
    pub restarts: u64,
    /// Captures that followed by themselves. One before it, of what the load itself grew by, is none of them.
    pub further: u64,
}

/// Fills a Node with `heap_mb` of documents under a kernel limit of `limit_mb` and asks for a full snapshot, once.
///
/// # Errors
/// A sentence that says why it cannot be run here, or what did not answer.
pub fn safety(heap_mb: u64, limit_mb: u64) -> Result<Safety, String> {
    let reserve_mb = (limit_mb / 20).max(20);
    let memory = format!("{}M", limit_mb - reserve_mb);
    let reserve = format!("{reserve_mb}M");
    let flags = ["--memory", &memory, "--reserve", &reserve, "--heap", "full", "--heap-every", "1h", "--quiet"];
    let mut service = HeapService::start_with("documents", &flags, |setup| {
        setup.environment("NODE_OPTIONS", "--max-old-space-size=2000")
    })?;
    // The self-test first, so that what follows is the only capture.
    let tested = clock::wait_for(TESTED, Duration::from_millis(100), || {
        service.heap_status()["self_test"].as_str().map(str::to_owned)
    });
    if tested.as_deref() != Some("ok") {
        return Err(format!("the self-test says {tested:?}: {}", service.service().stderr()));
    }
    for _ in 0..heap_mb / 25 {
        service.step()?;
    }
    let answer = service.snapshot()?;
    if let Some(why) = answer["failed"].as_str() {
        return Err(why.to_owned());
    }
    // Long enough for the regular look (every 30 s) to see what the snapshot left behind.
    std::thread::sleep(Duration::from_secs(31));
    let status = service.service().status().ok_or("no status after the capture")?;
    if status["group"]["kind"] == "tree" {
        return Err(format!("{SKIP}: no cgroup of its own: {}", status["group"]["why_not"]));
    }
    let id = answer["id"].as_str().unwrap_or_default().to_owned();
    Ok(Safety {
        method: answer["method"].as_str().unwrap_or_default().to_owned(),
        notes: answer["notes"]
            .as_array()
            .map(|all| all.iter().map(|one| one.as_str().unwrap_or_default().to_owned()).collect())
            .unwrap_or_default(),
        bytes: answer["bytes"].as_u64().unwrap_or(0),
        seconds: answer["seconds"].as_f64().unwrap_or(0.0),
        parsed: service.captures().join(format!("{id}.digest")).is_file(),
        oom_kills: status["group"]["oom_kills"].as_u64().unwrap_or(0),
        restarts: status["restarts"]["total"].as_u64().unwrap_or(0),
        further: later_than(&service.captures(), &id)?,
    })
}

/// How many captures on the shelf were begun after the one of this id: `<unix ms>-<trigger>-<pid>`.
fn later_than(captures: &Path, id: &str) -> Result<u64, String> {
    let begun = |id: &str| id.split('-').next()?.parse::<u64>().ok();
    let asked = begun(id).ok_or_else(|| format!("{id:?} is no capture"))?;
    let entries = std::fs::read_dir(captures).map_err(|error| format!("{}: {error}", captures.display()))?;
    let mut later: Vec<u64> = entries
        .filter_map(|entry| begun(&entry.ok()?.file_name().to_string_lossy()))
        .filter(|at| *at > asked)
        .collect();
    later.sort_unstable();
    later.dedup();
    Ok(later.len() as u64)
}

impl Safety {
    /// What does not hold of a heap that has room, as sentences; empty when all holds.
    pub fn roomy(&self) -> Vec<String> {
        let mut wrong = self.calm();
        if self.method != "v8-snapshot" {
            wrong.push(format!("{} instead of a full snapshot: {}", self.method, self.notes.join("; ")));
        }
        if !self.parsed {
            wrong.push(format!("no digest: {}", self.notes.join("; ")));
        }
        wrong
    }

    /// What does not hold of a heap that has no room.
    pub fn tight(&self) -> Vec<String> {
        let mut wrong = self.calm();
        if self.method == "v8-snapshot" {
            wrong.push("a full snapshot was taken".to_owned());
        }
        if !self.notes.iter().any(|note| note.starts_with("v8-snapshot refused") && note.contains("objects")) {
            wrong.push(format!("no refusal with figures: {:?}", self.notes));
        }
        wrong
    }

    fn calm(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.oom_kills > 0 || self.restarts > 0 {
            wrong.push(format!("{} kernel kills, {} restarts", self.oom_kills, self.restarts));
        }
        if self.further > 0 {
            wrong.push(format!("{} captures followed by themselves", self.further));
        }
        wrong
    }
}
