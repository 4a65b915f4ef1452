//! Full V8 snapshots: only where it is safe; what the program grows by meanwhile is put down to them; and those that begin late.
//!
//! A runtime that does not get to the signal within 30 s gets to it some time: until it has, at most 10 min, no second one is sent and
//! the growth stays the capture's. Memory may take [`SETTLE`] (60 s) to come back before the rest is called kept by the runtime.

use std::time::Duration;

use plimsoll::clock::{Clock as _, MonotonicClock, wall};
use plimsoll::units;
use plimsoll_heap::format::Format;

use super::Context;
use super::env::{self, NodeSetup};
use super::mode::Method;
use super::node::{self, Progress};
use super::preflight::{self, Objects, Room};
use super::shelf::free_bytes;
use super::take::{self, ANSWER, Job, Nothing, Taken, Target, room};
use super::wait::Pause as _;
use crate::snapshot::CaptureView;

/// How long memory may take to come back after a full snapshot.
const SETTLE: Duration = Duration::from_secs(60);
const SETTLE_LOOK: Duration = Duration::from_millis(500);

/// A snapshot that was asked for and not begun in time.
pub(super) struct Late {
    pub(super) asked: node::Asked,
    job: Job,
}

/// A full V8 snapshot, if it is safe. What the program grows by meanwhile is put down to it.
pub(super) fn take(context: &mut Context, job: &Job) -> Result<Taken, Nothing> {
    let target = &job.target;
    if let Some(Late { asked, job }) = &context.late {
        return Err(Nothing::Failed(format!(
            "pid {} was asked for a snapshot {} s ago and has not begun it; a second one is not asked for before that",
            job.target.pid,
            asked.since().as_secs()
        )));
    }
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
    let asked = node::ask(target.pid, &setup).map_err(|why| {
        context.attribute(0);
        Nothing::Failed(why)
    })?;
    let taken = asked.wait(context.patience, &*context.desk);
    taken.map(|path| (path, Format::V8Snapshot)).map_err(|missed| {
        if missed.is_late {
            context.desk.await_late();
            context.late = Some(Late { asked, job: *job });
        }
        Nothing::Failed(missed.why)
    })
}

/// Looks after the snapshot that was not begun in time. What the process grows by stays put down to it until it is whole, the process
/// has ended, or nobody waits for it any longer. Returns the capture it became.
pub(super) fn late(context: &mut Context) -> Option<CaptureView> {
    let Late { asked, job } = context.late.take()?;
    let pid = job.target.pid;
    match asked.progress() {
        Progress::Waiting => {
            context.late = Some(Late { asked, job });
            return None;
        }
        Progress::Ended => {
            asked.remove();
            context.attribute(0);
            return None;
        }
        Progress::GivenUp => {
            context.shared.tell("heap", &format!("heap: pid {pid} never began the snapshot that it was asked for"));
            context.attribute(0);
            return None;
        }
        Progress::Begun => {}
    }
    let started = MonotonicClock.now();
    // When it was asked something else was taken, under that name.
    let job = Job { unix_ms: u64::try_from(wall().as_millis()).unwrap_or(u64::MAX), ..job };
    let mut view = take::begun(job.trigger, job.unix_ms);
    view.pid = pid.unsigned_abs();
    let begun = format!("begun late, within {} s", asked.since().as_secs());
    let whole = asked.wait(context.patience, &*context.desk).map_err(|missed| missed.why);
    let shelved = whole.and_then(|path| {
        let taken = (path, Format::V8Snapshot);
        take::shelve(context, Method::V8Snapshot, &job, taken, &mut view).map_err(Nothing::into_why)
    });
    view.notes.insert(0, begun);
    settle(context, &mut view);
    view.seconds = MonotonicClock.now().saturating_sub(started).as_secs_f64();
    if let Err(why) = shelved {
        context.shared.warn(&format!("heap: the v8-snapshot of pid {pid} that began late failed: {why}"));
        return None;
    }
    Some(view)
}

/// How the Node `pid` takes snapshots, by the environment that it runs with (whoever set it: an adopted one's is known, too).
fn setup(pid: i32) -> Result<NodeSetup, String> {
    let path = format!("/proc/{pid}/environ");
    let environment =
        crate::supervise::files::read_bounded(path.as_ref()).map_err(|error| format!("{path}: {error}"))?;
    let options = environment.split(|byte| *byte == 0).find_map(|pair| pair.strip_prefix(b"NODE_OPTIONS="));
    let cwd = format!("/proc/{pid}/cwd");
    let cwd = std::fs::read_link(&cwd).map_err(|error| format!("{cwd}: {error}"))?;
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
        Some(learnt) if learnt.life == target.life => {
            Objects::learnt(learnt.objects, learnt.anon_bytes, target.anon_bytes)
        }
        _ => Objects::worst(target.anon_bytes),
    }
}

/// Waits until what the snapshot grew by has come back; what has not is kept by the runtime, and said.
pub(super) fn settle(context: &mut Context, view: &mut CaptureView) {
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
