//! One capture from beginning to end: whom, how, whether it is safe, where it goes; then its digest. On the capture thread.

use std::path::PathBuf;
use std::time::Duration;

use plimsoll::clock::{Clock as _, MonotonicClock, wall};
use plimsoll::gauge::process::read_process;
use plimsoll::gauge::{Root, host};
use plimsoll::limit;
use plimsoll_heap::format::Format;

use super::due::Trigger;
use super::mode::{self, Method, Runtime};
use super::preflight::Room;
use super::shelf::free_bytes;
use super::{Context, Learnt, digest, full, jemalloc, jvm, node, pprof, smaps};
use crate::snapshot::CaptureView;

/// How long a program may take to answer over the socket: writing a profile takes 20 to 40 ms.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// Whom a capture is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) pid: i32,
    runtime: Runtime,
    pub(super) connected: bool,
    pub(super) anon_bytes: u64,
    pub(super) resident_bytes: u64,
    /// Pid and start time in one number: no other life of any program has it on this machine.
    pub(super) life: u64,
}

/// What a capture is taken for, and of whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) trigger: Trigger,
    pub(super) unix_ms: u64,
    pub(super) target: Target,
}

/// Why a method gave nothing.
pub(super) enum Nothing {
    /// It was not safe.
    Refused(String),
    /// It was tried and did not work.
    Failed(String),
}

impl Nothing {
    pub(super) fn into_why(self) -> String {
        match self {
            Nothing::Refused(why) | Nothing::Failed(why) => why,
        }
    }
}

/// Takes one capture for `trigger` and tells what became of it.
pub(super) fn one(context: &mut Context, trigger: Trigger) -> CaptureView {
    at(context, trigger, u64::try_from(wall().as_millis()).unwrap_or(u64::MAX))
}

/// As [`one`], taken at `unix_ms`.
fn at(context: &mut Context, trigger: Trigger, unix_ms: u64) -> CaptureView {
    let started = MonotonicClock.now();
    let mut view = begun(trigger, unix_ms);
    let outcome = match prepare(context).and_then(|()| target(context)) {
        Ok(target) => {
            view.pid = target.pid.unsigned_abs();
            attempt(context, &Job { trigger, unix_ms, target }, &mut view)
        }
        Err(why) => {
            context.desk.show(|view| *view.failed_total.entry("not-begun".into()).or_default() += 1);
            if trigger != Trigger::Start {
                context.shared.warn(&format!("heap: no capture: {why}"));
            }
            Err(why)
        }
    };
    // The one way out of everything that puts memory down to a capture; one that is late goes on.
    if context.attributed && context.late.is_none() {
        full::settle(context, &mut view);
    }
    view.seconds = MonotonicClock.now().saturating_sub(started).as_secs_f64();
    if let Err(why) = outcome {
        view.failed = Some(why);
    }
    view
}

/// What is told of a capture that begins.
pub(super) fn begun(trigger: Trigger, unix_ms: u64) -> CaptureView {
    CaptureView { at_unix: unix_ms as f64 / 1000.0, trigger: trigger.as_str().into(), ..CaptureView::default() }
}

fn prepare(context: &Context) -> Result<(), String> {
    context.shelf.make()?;
    // jemalloc writes by itself, and a runtime that is late when it gets to it: what lies there is not unfinished.
    let may_be_late = |name: &str| context.late.as_ref().is_some_and(|late| late.asked.may_be(name));
    let unfinished = context.shelf.clean(&|name| jemalloc::is_profile(&context.mode, name) || may_be_late(name))?;
    if unfinished > 0 {
        context.desk.show(|view| *view.failed_total.entry("unfinished".into()).or_default() += unfinished);
    }
    Ok(())
}

/// The process of the program that a capture tells most of.
fn target(context: &mut Context) -> Result<Target, String> {
    let pids = context.shared.members();
    let connected = context.agents.as_mut().map(|agents| agents.connected(&pids)).unwrap_or_default();
    let mut found = Vec::with_capacity(pids.len());
    for pid in pids {
        let Ok(reading) = read_process(&Root::default(), pid) else { continue };
        found.push(Target {
            pid,
            runtime: runtime(pid),
            connected: connected.contains(&pid),
            anon_bytes: reading.anon_bytes,
            resident_bytes: reading.resident_bytes(),
            life: u64::from(pid.unsigned_abs()) << 40 ^ reading.identity.start_ticks,
        });
    }
    let target = choose(&found, context.newest).ok_or("no process of the program can be read")?;
    context.newest = Some(target.life);
    Ok(target)
}

/// The largest of those whose runtime is known, else the largest. The one of the capture before stays it while it has two thirds of
/// that: of workers that are about equal always the same one, so that what is compared is of one process.
fn choose(found: &[Target], before: Option<u64>) -> Option<Target> {
    let is_known = |one: &Target| one.runtime != Runtime::Other || one.connected;
    let largest = found.iter().max_by_key(|one| (is_known(one), one.anon_bytes))?;
    let is_near = |one: &Target| one.anon_bytes.saturating_mul(3) >= largest.anon_bytes.saturating_mul(2);
    let same = found.iter().find(|one| Some(one.life) == before && is_known(one) == is_known(largest) && is_near(one));
    Some(*same.unwrap_or(largest))
}

fn runtime(pid: i32) -> Runtime {
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = exe.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // One that was upgraded on disk runs on as what it was.
    match crate::supervise::files::without_deleted(name) {
        "java" => Runtime::Jvm,
        // node, nodejs, node-20, node20: what follows the word is a version.
        name if name.strip_prefix("node").is_some_and(|rest| !rest.contains(|c: char| c.is_ascii_lowercase()))
            || name == "nodejs" =>
        {
            Runtime::Node
        }
        _ => Runtime::Other,
    }
}

/// Tries the methods in order; the first that works is the capture.
fn attempt(context: &mut Context, job: &Job, view: &mut CaptureView) -> Result<(), String> {
    let (mut told, mut failed) = (Vec::new(), Vec::new());
    for method in mode::methods(&context.mode, job.target.runtime, job.target.connected, job.trigger) {
        let taken = by(context, method, job).and_then(|taken| shelve(context, method, job, taken, view));
        let (name, why) = match taken {
            Ok(()) => {
                told.append(&mut view.notes);
                view.notes = told;
                view.fell_back = (!failed.is_empty()).then(|| failed.join("; "));
                return Ok(());
            }
            Err(Nothing::Refused(why)) => {
                context.desk.show(|view| *view.refused_total.entry("headroom".into()).or_default() += 1);
                ("refused", why)
            }
            Err(Nothing::Failed(why)) => {
                context.desk.show(|view| *view.failed_total.entry(method.as_str().into()).or_default() += 1);
                ("failed", why)
            }
        };
        let text = format!("{} {name}: {why}", method.as_str());
        // A program that is still starting fails its first tests; that is not worth a word yet.
        if job.trigger != Trigger::Start || name == "refused" {
            context.shared.warn(&format!("heap: {text}"));
        }
        if name == "failed" {
            failed.push(text.clone());
        }
        told.push(text);
    }
    Err(told.join("; "))
}

/// Puts what a method gave onto the shelf, and makes its digest. What cannot be put there or read is removed: it would pass for a
/// capture, or lie for ever where nobody looks after it.
pub(super) fn shelve(
    context: &mut Context,
    method: Method,
    job: &Job,
    (file, format): Taken,
    view: &mut CaptureView,
) -> Result<(), Nothing> {
    let put = context.shelf.put(&file, format, job.unix_ms, job.trigger, job.target.pid);
    let item = put.map_err(|why| {
        std::fs::remove_file(&file).ok();
        Nothing::Failed(why)
    })?;
    view.notes = digest::make(context, &item, &job.target).map_err(|why| match context.shelf.remove(&item) {
        Ok(()) => Nothing::Failed(why),
        Err(left) => Nothing::Failed(format!("{why}; {left}")),
    })?;
    if let Some((format, file, bytes)) = &item.file {
        if *format == Format::V8Snapshot
            && let Some(objects) = node::objects(file)
        {
            context.learnt = Some(Learnt { life: job.target.life, objects, anon_bytes: job.target.anon_bytes });
        }
        view.bytes = *bytes;
    }
    view.id = item.id;
    view.method = method.as_str().into();
    context.taken(method);
    Ok(())
}

/// A file, and what is in it.
pub(super) type Taken = (PathBuf, Format);

fn by(context: &mut Context, method: Method, job: &Job) -> Result<Taken, Nothing> {
    let target = &job.target;
    let out = context.shelf.tmp().join(format!("{}.part", method.as_str()));
    let done = |result: Result<(), String>, format| match result {
        Ok(()) => Ok((out.clone(), format)),
        Err(why) => {
            std::fs::remove_file(&out).ok();
            Err(Nothing::Failed(why))
        }
    };
    match method {
        Method::V8Snapshot => full::take(context, job),
        Method::Agent => {
            let agents = context.agents.as_mut().ok_or_else(|| Nothing::Failed("there is no socket".into()))?;
            let format = agents.who(target.pid).map_or(Format::V8Profile, |(_, format)| format);
            done(agents.profile(target.pid, &out, ANSWER).map(drop), format)
        }
        Method::JvmLive | Method::JvmAll => {
            let live = method == Method::JvmLive;
            done(jvm::histogram(target.pid, &out, live, &context.excluded, &*context.desk), Format::JvmHistogram)
        }
        Method::Pprof => match &context.mode {
            mode::Mode::Pprof(url) => done(pprof::fetch(url, &out), Format::Pprof),
            _ => Err(Nothing::Failed("no URL was given".into())),
        },
        Method::Jemalloc => match jemalloc::newest(&context.shelf.tmp(), target.pid) {
            Ok(path) => Ok((path, Format::Jemalloc)),
            Err(why) => Err(Nothing::Failed(why)),
        },
        Method::Smaps => done(smaps::copy(target.pid, &out), Format::Smaps),
    }
}

/// What may still be taken of the memory that `pid` lives in, and of the disk of `dir`.
///
/// # Errors
/// What cannot be read.
pub(super) fn room(pid: i32, dir: &std::path::Path) -> Result<Room, String> {
    let root = Root::default();
    let limits = limit::discover(&root, pid);
    let available = host::read(&root).map_err(|why| format!("the machine's memory cannot be read: {why}"))?;
    let machine = (available.available_bytes, available.total_bytes);
    let (headroom_bytes, limit_bytes) = match limits.governing() {
        Some(limit) => {
            let headroom = limit
                .headroom_bytes()
                .ok_or_else(|| format!("{}: what is used of it cannot be read", limit.source.display()))?;
            if headroom < machine.0 { (headroom, limit.bytes) } else { machine }
        }
        None => machine,
    };
    let disk_bytes = free_bytes(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(Room { headroom_bytes, limit_bytes, kept_bytes: 0, disk_bytes })
}

#[cfg(test)]
mod tests;
