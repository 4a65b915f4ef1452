//! One capture from beginning to end: whom, how, whether it is safe, where it goes; then its digest. On the capture thread.

use std::path::PathBuf;
use std::time::Duration;

use plimsoll::clock::{Clock as _, MonotonicClock, wall};
use plimsoll::gauge::process::read_process;
use plimsoll::gauge::{Root, host};
use plimsoll::limit;
use plimsoll::units;
use plimsoll_heap::format::Format;

use super::due::Trigger;
use super::env::{self, NodeSetup};
use super::mode::{self, Method, Runtime};
use super::preflight::{self, Objects, Room};
use super::shelf::free_bytes;
use super::wait::Pause as _;
use super::{Context, Learnt, digest, jemalloc, jvm, node, pprof, smaps};
use crate::snapshot::CaptureView;

/// How long a program may take to answer over the socket: writing a profile takes 20 to 40 ms.
const ANSWER: Duration = Duration::from_secs(10);
/// How long memory may take to come back after a full snapshot before the rest is called kept by the runtime.
const SETTLE: Duration = Duration::from_secs(60);
const SETTLE_LOOK: Duration = Duration::from_millis(500);

/// Whom a capture is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) pid: i32,
    runtime: Runtime,
    connected: bool,
    pub(super) anon_bytes: u64,
    pub(super) resident_bytes: u64,
    /// Pid and start time in one number: no other life of any program has it on this machine.
    pub(super) life: u64,
}

/// What a capture is taken for, and of whom.
struct Job {
    trigger: Trigger,
    unix_ms: u64,
    target: Target,
}

/// Why a method gave nothing.
enum Nothing {
    /// It was not safe.
    Refused(String),
    /// It was tried and did not work.
    Failed(String),
}

/// Takes one capture for `trigger` and tells what became of it.
pub(super) fn one(context: &mut Context, trigger: Trigger) -> CaptureView {
    at(context, trigger, u64::try_from(wall().as_millis()).unwrap_or(u64::MAX))
}

/// As [`one`], taken at `unix_ms`.
fn at(context: &mut Context, trigger: Trigger, unix_ms: u64) -> CaptureView {
    let started = MonotonicClock.now();
    let mut view =
        CaptureView { at_unix: unix_ms as f64 / 1000.0, trigger: trigger.as_str().into(), ..CaptureView::default() };
    let outcome = prepare(context).and_then(|()| target(context)).and_then(|target| {
        view.pid = target.pid.unsigned_abs();
        attempt(context, &Job { trigger, unix_ms, target }, &mut view)
    });
    // The one way out of everything that puts memory down to a capture.
    if context.attributed {
        settle(context, &mut view);
    }
    view.seconds = MonotonicClock.now().saturating_sub(started).as_secs_f64();
    if let Err(why) = outcome {
        view.failed = Some(why);
    }
    view
}

fn prepare(context: &Context) -> Result<(), String> {
    context.shelf.make()?;
    // jemalloc writes by itself: what lies there is not unfinished.
    let unfinished = if context.mode == mode::Mode::Jemalloc { 0 } else { context.shelf.clean()? };
    if unfinished > 0 {
        context.desk.show(|view| *view.failed_total.entry("unfinished".into()).or_default() += unfinished);
    }
    Ok(())
}

/// The process of the program that a capture tells most of: the largest one whose runtime is known, else the largest.
fn target(context: &mut Context) -> Result<Target, String> {
    let pids = context.shared.members();
    let connected = context.agents.as_mut().map(|agents| agents.connected(&pids)).unwrap_or_default();
    let mut best: Option<Target> = None;
    for pid in pids {
        let Ok(reading) = read_process(&Root::default(), pid) else { continue };
        let found = Target {
            pid,
            runtime: runtime(pid),
            connected: connected.contains(&pid),
            anon_bytes: reading.anon_bytes,
            resident_bytes: reading.resident_bytes(),
            life: u64::from(pid.unsigned_abs()) << 40 ^ reading.identity.start_ticks,
        };
        let rank = |one: &Target| (one.runtime != Runtime::Other || one.connected, one.anon_bytes);
        if best.as_ref().is_none_or(|best| rank(&found) > rank(best)) {
            best = Some(found);
        }
    }
    best.ok_or_else(|| "no process of the program can be read".to_owned())
}

fn runtime(pid: i32) -> Runtime {
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = exe.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match name {
        "java" => Runtime::Jvm,
        // node, nodejs, node-20, node20: what follows the word is a version.
        _ if name.strip_prefix("node").is_some_and(|rest| !rest.contains(|c: char| c.is_ascii_lowercase()))
            || name == "nodejs" =>
        {
            Runtime::Node
        }
        _ => Runtime::Other,
    }
}

/// Tries the methods in order; the first that works is the capture.
fn attempt(context: &mut Context, job: &Job, view: &mut CaptureView) -> Result<(), String> {
    let mut told = Vec::new();
    for method in mode::methods(&context.mode, job.target.runtime, job.target.connected, job.trigger) {
        let taken = by(context, method, &job.target).and_then(|taken| shelve(context, method, job, taken, view));
        let (name, why) = match taken {
            Ok(()) => {
                told.append(&mut view.notes);
                view.notes = told;
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
        told.push(text);
    }
    Err(told.join("; "))
}

/// Puts what a method gave onto the shelf, and makes its digest. What cannot be put there or read is removed: it would pass for a
/// capture, or lie for ever where nobody looks after it.
fn shelve(
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
            context.learnt = Some(Learnt { pid: job.target.pid, objects, anon_bytes: job.target.anon_bytes });
        }
        view.bytes = *bytes;
    }
    view.id = item.id;
    view.method = method.as_str().into();
    context.taken(method);
    Ok(())
}

type Taken = (PathBuf, Format);

fn by(context: &mut Context, method: Method, target: &Target) -> Result<Taken, Nothing> {
    let out = context.shelf.tmp().join(format!("{}.part", method.as_str()));
    let done = |result: Result<(), String>, format| match result {
        Ok(()) => Ok((out.clone(), format)),
        Err(why) => {
            std::fs::remove_file(&out).ok();
            Err(Nothing::Failed(why))
        }
    };
    match method {
        Method::V8Snapshot => v8(context, target),
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

/// A full V8 snapshot, if it is safe. What the program grows by meanwhile is put down to it.
fn v8(context: &mut Context, target: &Target) -> Result<Taken, Nothing> {
    let setup = setup(target.pid).map_err(Nothing::Failed)?;
    let objects = objects(context, target);
    let room = room(target.pid, &setup.dir).map_err(Nothing::Failed)?;
    let shelf = context.shelf.tmp();
    // Where the runtime writes elsewhere, what it wrote comes here from there.
    let shelf_bytes = free_bytes(&shelf).map_err(|error| Nothing::Failed(format!("{}: {error}", shelf.display())))?;
    let disk_bytes = room.disk_bytes.min(shelf_bytes);
    let room = Room { kept_bytes: context.shared.budget().1 / 4, disk_bytes, ..room };
    let cleared = preflight::judge(objects, target.anon_bytes, room).map_err(Nothing::Refused)?;
    context.shared.tell(
        "heap",
        &format!(
            "heap: full snapshot of pid {} begins: {objects}; may need {} of {} and stop it for {} ms",
            target.pid,
            units::size(cleared.need_bytes),
            units::size(room.headroom_bytes),
            cleared.stall_ms
        ),
    );
    context.attribute(cleared.need_bytes);
    match node::snapshot(target.pid, &setup, node::Patience::default(), &*context.desk) {
        Ok(path) => Ok((path, Format::V8Snapshot)),
        Err(why) => {
            context.attribute(0);
            Err(Nothing::Failed(why))
        }
    }
}

/// How the Node `pid` takes snapshots, by the environment that it runs with (whoever set it: an adopted one's is known, too).
fn setup(pid: i32) -> Result<NodeSetup, String> {
    let path = format!("/proc/{pid}/environ");
    let environment =
        crate::supervise::files::read_bounded(path.as_ref()).map_err(|error| format!("{path}: {error}"))?;
    let options = environment.split(|byte| *byte == 0).find_map(|pair| pair.strip_prefix(b"NODE_OPTIONS="));
    let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    env::setup(&String::from_utf8_lossy(options.unwrap_or_default()), &cwd)
        .ok_or_else(|| format!("pid {pid} runs without --heapsnapshot-signal in its NODE_OPTIONS"))
}

/// How many objects there are at most, by the best source there is.
fn objects(context: &mut Context, target: &Target) -> Objects {
    if let Some(agents) = context.agents.as_mut().filter(|_| target.connected)
        && let Ok(figures) = agents.count(target.pid, ANSWER)
        && let Some(sampled) = figures.objects
    {
        return Objects::told(sampled);
    }
    match context.learnt {
        Some(learnt) if learnt.pid == target.pid => {
            Objects::learnt(learnt.objects, learnt.anon_bytes, target.anon_bytes)
        }
        _ => Objects::worst(target.anon_bytes),
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

/// Waits until what the snapshot grew by has come back; what has not is kept by the runtime, and said.
fn settle(context: &mut Context, view: &mut CaptureView) {
    let until = MonotonicClock.now() + SETTLE;
    loop {
        let charged = context.shared.charged_bytes();
        let mark = context.shared.own_mark_bytes();
        let below = match (charged, mark) {
            (Some(charged), Some(mark)) => charged < mark,
            _ => true,
        };
        if below || !context.desk.pause(SETTLE_LOOK) {
            break;
        }
        if MonotonicClock.now() > until {
            view.notes.push(format!(
                "the runtime keeps what the snapshot needed: {} are held, above the first mark of {}",
                units::size(charged.unwrap_or(0)),
                units::size(mark.unwrap_or(0))
            ));
            break;
        }
    }
    context.attribute(0);
}

#[cfg(test)]
mod tests;
