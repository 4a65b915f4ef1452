//! `kills`: SIGKILL of the supervisor at each system call of the log path, and at random moments, then adoption.
//!
//! | part | how |
//! |---|---|
//! | log path | `strace -f -p` attached to the supervisor before the flood: `-e inject=CALL:signal=SIGKILL:when=N`; the call is not made |
//! | adoption | the second supervisor is started under `strace -f`, detached at `execve` so that no child is traced, and killed |
//! | moments | killed again and again after a random time, also while it is adopting |
//!
//! Which calls there are is measured first (`strace -c`), so none is forgotten when the product changes. `when=N` counts for
//! each thread by itself. After every kill the next supervisor adopts the same child, and in the end every line must be stored
//! once or lie in a gap record of its range, and the child must never have been signalled.

use crate::flood::{DEADLINE, FLAGS, flooding};
use crate::report::{Must, Report};
use plimsoll_incidents::judge;
use plimsoll_incidents::protected::{Service, Setup};
use plimsoll_incidents::words::Random;
use plimsoll_incidents::{clock, files};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Lines of the flood of one placed kill, and their rate.
const PLACED_LINES: u64 = 40_000;
const PLACED_RATE: &str = "40000";
/// Calls of threads that have no part in the log, or that a kill cannot fall into in another way than into its neighbour.
const NOT_KILLED: [&str; 3] = ["exit", "exit_group", "rt_sigreturn"];

/// Which kills, and how many.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// The Nth calls at which to kill
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3, 7, 20, 60])]
    nth: Vec<u32>,
    /// Only these system calls
    #[arg(long, value_delimiter = ',')]
    calls: Vec<String>,
    /// Placed kills at a time, each with a supervisor of its own
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Kills at random moments
    #[arg(long, default_value_t = 200)]
    random: u32,
    /// Random kills of one flood
    #[arg(long, default_value_t = 25)]
    each: u32,
    /// What determines the random moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Append one JSON object a row to this file
    #[arg(long)]
    raw: Option<PathBuf>,
}

/// What all kills of one kind came to.
#[derive(Default)]
struct Seen {
    floods: usize,
    kills: usize,
    missed: Vec<String>,
    findings: Vec<String>,
    bad: usize,
    gaps: u64,
    gap_bytes: u64,
    inexact: u64,
}

impl Seen {
    /// Lets the flood end under the last supervisor and accounts for it.
    fn settle(&mut self, mut service: Service, count: u64, what: &str) -> Result<(), String> {
        self.floods += 1;
        let ended = service.wait(DEADLINE);
        let summary = service.account(1, 200, count, true)?;
        self.gaps += summary.gaps;
        self.gap_bytes += summary.gap_bytes;
        self.inexact += summary.inexact_gaps;
        let mut wrong = summary.findings;
        wrong.extend(judge::undisturbed(&service.evidence()).err().map(|reason| format!("the child was {reason}")));
        if ended.is_none() {
            wrong.push(format!("it does not end: {}", service.stderr()));
        }
        self.bad += usize::from(!wrong.is_empty());
        for finding in wrong {
            // At once: the whole campaign takes a while.
            eprintln!("{what}: {finding}");
            self.findings.push(format!("{what}: {finding}"));
        }
        Ok(())
    }

    fn add(&mut self, other: Seen) {
        self.floods += other.floods;
        self.kills += other.kills;
        self.missed.extend(other.missed);
        self.findings.extend(other.findings);
        self.bad += other.bad;
        self.gaps += other.gaps;
        self.gap_bytes += other.gap_bytes;
        self.inexact += other.inexact;
    }

    fn report(&self, report: &mut Report, what: &str) {
        report.counted(
            &format!("{what}: {} kills, accounting holds, same child", self.kills),
            self.floods - self.bad,
            self.floods,
            &self.findings,
        );
        report.fact(
            &format!("{what}: gap records"),
            &format!("{} of {} bytes, {} of them a bound", self.gaps, self.gap_bytes, self.inexact),
        );
        if !self.missed.is_empty() {
            report.fact(&format!("{what}: call not made so often, nothing killed"), &self.missed.join(" "));
        }
    }
}

/// Prints the table; true when the accounting held after every kill.
pub(crate) fn run(plan: &Plan) -> Result<bool, String> {
    let mut report = Report::new("Kills: SIGKILL of the supervisor, then adoption", plan.raw.as_deref())?;
    if strace(&["-V"])
        .and_then(|mut child| child.wait().map_err(|error| error.to_string()))
        .is_ok_and(|status| status.success())
    {
        let calls = if plan.calls.is_empty() { calls_of_the_log_path()? } else { plan.calls.clone() };
        report.fact("system calls of the log path", &calls.join(" "));
        let (path, adoption) = all_placed(plan, &calls)?;
        path.report(&mut report, "at each call of the log path");
        adoption.report(&mut report, "at each call of an adoption");
        report.measured("placed kills that happened", "", &[(path.kills + adoption.kills) as f64], Must::Report);
    } else {
        report.holds("placed kills", "no strace here", "strace", false);
    }
    let mut moments = Seen::default();
    let mut random = Random::new(plan.seed);
    while (moments.kills as u32) < plan.random {
        at_random(plan.each.min(plan.random - moments.kills as u32), &mut random, &mut moments)?;
    }
    if plan.random > 0 {
        moments.report(&mut report, "at random moments");
    }
    Ok(report.finish())
}

/// Every call at every `nth`, some at a time: most of each case is waiting.
fn all_placed(plan: &Plan, calls: &[String]) -> Result<(Seen, Seen), String> {
    let cases: Vec<(&str, u32)> =
        calls.iter().flat_map(|call| plan.nth.iter().map(move |&nth| (call.as_str(), nth))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut path, mut adoption) = (Seen::default(), Seen::default());
        while let Some(&(call, nth)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            placed(call, nth, &mut path)?;
            while_adopting(call, nth, &mut adoption)?;
        }
        Ok((path, adoption))
    };
    let seen: Result<Vec<(Seen, Seen)>, String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().map_err(|_| "a case panicked".to_owned())?).collect()
    });
    let mut all = (Seen::default(), Seen::default());
    for (path, adoption) in seen? {
        all.0.add(path);
        all.1.add(adoption);
    }
    Ok(all)
}

/// How long an strace may take to let go.
const STRACE_PATIENCE: Duration = Duration::from_secs(3);

fn strace(arguments: &[&str]) -> Result<Child, String> {
    let mut command = Command::new("strace");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| format!("strace does not start: {error}"))
}

fn placed_flood() -> Result<Service, String> {
    let pace = ["--rate", PLACED_RATE, "--delay-ms", "1200", "--hold-ms", "2500"];
    let count = PLACED_LINES.to_string();
    let service = Setup::new("kill", &FLAGS).load(&[&["lines", "--count", &count][..], &pace].concat()).start()?;
    service.child();
    Ok(service)
}

/// Attaches to every thread of the supervisor and waits until it is attached, or the supervisor is dead already: a call that it makes
/// all the time kills it as soon as the first thread is traced.
fn attach(service: &Service, arguments: &[&str]) -> Result<Child, String> {
    let pid = service.pid();
    let child = strace(&[&["-f", "-q", "-p", &pid.to_string()][..], arguments].concat())?;
    let traced = || {
        let home = PathBuf::from(format!("/proc/{pid}"));
        let dead = files::text(&home.join("status")).map_or(true, |text| text.contains("State:\tZ"));
        let Some(tasks) = std::fs::read_dir(home.join("task")).ok().filter(|_| !dead) else { return Some(()) };
        let traced = |task: &std::fs::DirEntry| {
            files::text(&task.path().join("status")).ok().and_then(|text| files::field(&text, "TracerPid"))
                == Some(child.id().into())
        };
        tasks.flatten().all(|task| traced(&task)).then_some(())
    };
    clock::wait_for(Duration::from_secs(3), Duration::from_millis(5), traced).ok_or("strace does not attach")?;
    Ok(child)
}

/// Ends an strace that is still there; it lets its tracees go. One that waits for ever for a thread of a group whose leader is gone
/// (seen once in 250 kills) is killed after [`STRACE_PATIENCE`].
fn release(mut child: Child) {
    if let Some(pid) = rustix::process::Pid::from_raw(child.id() as i32) {
        rustix::process::kill_process(pid, Signal::TERM).ok();
    }
    if clock::wait_for(STRACE_PATIENCE, Duration::from_millis(10), || child.try_wait().ok().flatten()).is_none() {
        child.kill().ok();
        child.wait().ok();
    }
}

/// Every system call that the supervisor makes during a flood and while it idles after it.
fn calls_of_the_log_path() -> Result<Vec<String>, String> {
    let mut service = placed_flood()?;
    let output = service.scratch("calls");
    let path = output.display().to_string();
    let tracer = attach(&service, &["-c", "-o", &path])?;
    clock::wait_for(DEADLINE, Duration::from_millis(50), || service.evidence().first("done").cloned());
    service.wait(DEADLINE);
    release(tracer);
    let table = files::text(&output).map_err(|error| error.to_string())?;
    let mut calls = BTreeMap::new();
    for line in table.lines() {
        // % time, seconds, usecs/call, calls, [errors,] name
        let words: Vec<&str> = line.split_whitespace().collect();
        if let (Some(count), Some(name)) = (words.get(3).and_then(|word| word.parse::<u64>().ok()), words.last())
            && !NOT_KILLED.contains(name)
            && *name != "total"
        {
            calls.insert((*name).to_owned(), count);
        }
    }
    if calls.is_empty() { Err(format!("strace counted nothing: {table}")) } else { Ok(calls.into_keys().collect()) }
}

fn inject(call: &str, nth: u32) -> String {
    format!("inject={call}:signal=SIGKILL:when={nth}")
}

/// Kills the supervisor as it makes its `nth` call of this name during the flood; the next one adopts.
fn placed(call: &str, nth: u32, seen: &mut Seen) -> Result<(), String> {
    let mut service = placed_flood()?;
    let what = format!("{call}#{nth}");
    let tracer = attach(&service, &["-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject(call, nth)])?;
    // The flood takes a second, sealing and idling another two.
    let ended = service.wait(Duration::from_millis(4500));
    release(tracer);
    let ended = ended.or_else(|| service.wait(Duration::from_millis(500)));
    let dead = ended.is_some_and(|status| status.code().is_none());
    if dead {
        seen.kills += 1;
        adopt(&mut service)?;
    } else {
        seen.missed.push(what.clone());
    }
    seen.settle(service, PLACED_LINES, &what)
}

/// Kills the first supervisor mid-flood, and the second as it makes its `nth` call of this name while adopting.
fn while_adopting(call: &str, nth: u32, seen: &mut Seen) -> Result<(), String> {
    let mut service = placed_flood()?;
    let what = format!("adopting {call}#{nth}");
    std::thread::sleep(Duration::from_millis(1300));
    service.supervisor().signal(Signal::KILL);
    service.wait(DEADLINE);
    let injection = inject(call, nth);
    let trace = format!("trace={call}");
    service.start_under(&["strace", "-f", "-q", "-b", "execve", "-o", "/dev/null", "-e", &trace, "-e", &injection])?;
    let dead = service.wait(Duration::from_millis(900)).is_some_and(|status| status.code().is_none());
    if dead {
        seen.kills += 1;
    } else {
        seen.missed.push(what.clone());
        // strace takes its tracee along: a kill like any other.
        service.supervisor().signal(Signal::KILL);
        service.wait(DEADLINE);
    }
    adopt(&mut service)?;
    seen.settle(service, PLACED_LINES, &what)
}

/// The next supervisor; the child may have ended in the meantime.
fn adopt(service: &mut Service) -> Result<(), String> {
    // A tracer that was killed may leave the supervisor a moment longer.
    clock::wait_for(Duration::from_secs(3), Duration::from_millis(10), || {
        let lock = std::fs::File::open(service.home().join("lock")).ok()?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).ok()
    });
    service.start_again()
}

/// Up to `kills` kills during one flood that goes as fast as it can.
fn at_random(kills: u32, random: &mut Random, seen: &mut Seen) -> Result<(), String> {
    let count = 4_000_000;
    let mut service = flooding(Setup::new("random", &FLAGS), count, &["--hold-ms", "2000"])?;
    std::thread::sleep(Duration::from_millis(700));
    for _ in 0..kills {
        std::thread::sleep(Duration::from_micros(random.below(180_000).into()));
        if service.evidence().first("done").is_some() {
            break;
        }
        service.supervisor().signal(Signal::KILL);
        service.wait(DEADLINE);
        service.start_again()?;
        seen.kills += 1;
    }
    seen.settle(service, count, &format!("after {} random kills", seen.kills))
}
