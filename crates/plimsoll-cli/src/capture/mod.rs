//! Heap captures of the supervised program: when (`due`), how (`mode`), whether it is safe (`preflight`), where they are kept
//! (`shelf`), and one capture from beginning to end (`take`, `full`, `digest`).
//!
//! One thread, `capture`, asleep on the `desk` until something is due; it wakes nothing by itself: the supervise loop's regular look
//! (every 30 s) tells it. It never runs on the governor's thread and the supervised path never waits for it. One capture at a time;
//! a V8 snapshot at most 10 min (one that begins late is looked after each second, for 10 min more), everything else at most 60 s; at
//! the end of the supervisor it gives up within 0.2 s. Disk: the bounds of `shelf`; memory: a few KB here, a digest is made by a
//! process of its own, where there is room for it.
//!
//! Failures are counted by kind, said, and shown: what does not work is known at the start (the self-test), not in the night.

mod agent;
mod desk;
mod digest;
pub(crate) mod due;
mod env;
mod full;
mod jemalloc;
mod jvm;
pub(crate) mod mode;
mod node;
mod pprof;
mod preflight;
pub(crate) mod shelf;
mod smaps;
mod take;
mod wait;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use plimsoll::clock::{Clock as _, MonotonicClock, wall};
use plimsoll::gauge::tree::Excluded;
use plimsoll::units;

use crate::history::keeper::{LEAVE, join_within};
use crate::layout::Layout;
use crate::snapshot::CaptureView;
use crate::supervise::derive::Derived;
use crate::supervise::shared::Shared;
use agent::Agents;
pub(crate) use desk::Desk;
use desk::Next;
use due::Trigger;
use env::Places;
use mode::{Method, Mode};
use shelf::{Keep, Shelf};

/// What Node loads.
const AGENT: &str = include_str!("agent.cjs");
/// The thread parses nothing; its own stack need not be the default 2 MiB.
const STACK_BYTES: usize = 512 * 1024;

/// What `plimsoll run` was asked to capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `--heap`.
    pub(crate) mode: Mode,
    /// `--heap-every`.
    pub(crate) every: Duration,
    /// `--heap-keep`, `--heap-max-age`, `--heap-max-size`.
    pub(crate) keep: Keep,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { mode: Mode::default(), every: due::EVERY, keep: Keep::default() }
    }
}

/// What is set up before the first life: the desk for everybody, and what the program's environment needs.
pub(crate) struct Capture {
    settings: Settings,
    places: Places,
    shelf: Shelf,
    desk: Arc<Desk>,
}

/// The running thread; joined when it is dropped.
pub(crate) struct CaptureHandle {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// For the program of `layout`; `None` where captures are off.
    pub(crate) fn new(settings: &Settings, layout: &Layout) -> Option<Capture> {
        if settings.mode == Mode::Off {
            return None;
        }
        // The program may change its directory, and what Node cannot find keeps it from starting.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let heap = absolute(layout.heap());
        let shelf = Shelf::new(heap.clone(), settings.keep);
        let socket = absolute(layout.home()).join("heap.sock");
        let places = Places { tmp: shelf.tmp(), agent: heap.join("agent.cjs"), socket };
        let desk = Arc::new(Desk::new(&settings.mode.to_string(), settings.every));
        Some(Capture { settings: settings.clone(), places, shelf, desk })
    }

    /// Where everybody else meets the thread.
    pub(crate) fn desk(&self) -> Arc<Desk> {
        Arc::clone(&self.desk)
    }

    /// Where captures are kept.
    pub(crate) fn shelf(&self) -> Shelf {
        self.shelf.clone()
    }

    /// What the next life of the program gets in its environment, on top of `env`. Writes what that refers to.
    ///
    /// # Errors
    /// The path that cannot be written: then nothing is set, so that the program starts all the same.
    pub(crate) fn environment(&self, env: impl Fn(&str) -> Option<String>) -> Result<Vec<Derived>, String> {
        self.shelf.make()?;
        // The profiles of the life that has ended. Everything else is cleaned by who writes it, before the next capture: here it may
        // still be written, by what makes the digest of the last one.
        self.shelf.clean(&|name| !jemalloc::is_profile(&self.settings.mode, name))?;
        if self.settings.mode.loads_agent() {
            crate::supervise::files::replace(&self.places.agent, AGENT.as_bytes())
                .map_err(|error| format!("cannot write {}: {error}", self.places.agent.display()))?;
        }
        Ok(env::derive(&self.settings.mode, &self.places, env))
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// No thread can be had.
    pub(crate) fn start(&self, shared: &Arc<Shared>, excluded: Excluded) -> io::Result<CaptureHandle> {
        let agents = match Agents::listen(&self.places.socket) {
            Ok(agents) => Some(agents),
            Err(error) => {
                shared.stand(&format!("no heap profiles by the program itself: {error}"));
                None
            }
        };
        let mut context = Context {
            mode: self.settings.mode.clone(),
            shelf: self.shelf.clone(),
            desk: Arc::clone(&self.desk),
            shared: Arc::clone(shared),
            excluded,
            agents,
            learnt: None,
            newest: None,
            own: PathBuf::from("/proc/self/exe"),
            patience: node::Patience::default(),
            late: None,
            attributed: false,
        };
        let thread =
            std::thread::Builder::new().name("capture".into()).stack_size(STACK_BYTES).spawn(move || context.work())?;
        Ok(CaptureHandle { desk: Arc::clone(&self.desk), thread: Some(thread) })
    }
}

impl Drop for CaptureHandle {
    fn drop(&mut self) {
        self.desk.close();
        if let Some(thread) = self.thread.take() {
            // It may sit in a write to a disk that stands still; the process ends with it.
            join_within(thread, LEAVE);
        }
    }
}

/// What an earlier full snapshot told of this process.
#[derive(Clone, Copy, Debug)]
struct Learnt {
    /// Pid and start time of it.
    life: u64,
    objects: u64,
    anon_bytes: u64,
}

/// What the thread works with.
struct Context {
    mode: Mode,
    shelf: Shelf,
    desk: Arc<Desk>,
    shared: Arc<Shared>,
    excluded: Excluded,
    agents: Option<Agents>,
    learnt: Option<Learnt>,
    /// Pid and start time of the process that was captured last.
    newest: Option<u64>,
    /// The binary that makes digests: this one.
    own: PathBuf,
    /// How long a full snapshot may take.
    patience: node::Patience,
    /// One that was asked for and not begun in time.
    late: Option<full::Late>,
    /// Memory of the program is put down to a capture.
    attributed: bool,
}

impl Context {
    fn work(&mut self) {
        self.keep("");
        let clock = MonotonicClock;
        loop {
            let (trigger, ticket) = match self.desk.next(&|| clock.now()) {
                Next::Due(trigger, ticket) => (trigger, ticket),
                Next::Late => {
                    let view = full::late(self);
                    if let Some(view) = &view {
                        self.tell(view);
                        self.keep(&view.id);
                    }
                    if self.late.is_none() {
                        self.desk.late_ended(view, clock.now(), self.shared.charged_bytes());
                    }
                    continue;
                }
                Next::Closed => return,
            };
            let view = take::one(self, trigger);
            self.tell(&view);
            self.keep(&view.id);
            let again = self.desk.done(trigger, ticket, view.clone(), clock.now(), self.shared.charged_bytes());
            if trigger != Trigger::Start || again {
                continue;
            }
            match (view.failed, view.fell_back) {
                (Some(why), _) => self.shared.stand(&format!("heap captures do not work: {why}")),
                (None, Some(why)) => self.shared.warn(&format!("heap: {} instead: {why}", view.method)),
                (None, None) => {}
            }
        }
    }

    fn tell(&self, view: &CaptureView) {
        match &view.failed {
            // Said for good once the last self-test has failed; for every other, it was said where it happened.
            Some(_) => {}
            None => self.shared.enter(
                "heap",
                None,
                &format!(
                    "{} of pid {} ({}): {} in {:.1} s: {}",
                    view.method,
                    view.pid,
                    view.trigger,
                    units::size(view.bytes),
                    view.seconds,
                    view.id
                ),
            ),
        }
    }

    /// Keeps the shelf within its bounds, `taken` in any case, and shows what is on it.
    fn keep(&mut self, taken: &str) {
        if self.mode == Mode::Jemalloc {
            jemalloc::tidy(&self.shelf.tmp());
        }
        let now = u64::try_from(wall().as_millis()).unwrap_or(u64::MAX);
        match self.shelf.retain(now, taken) {
            Ok((removed, _)) => self.desk.show(|view| view.removed_total += removed),
            Err(why) => self.shared.warn(&format!("heap: {why}")),
        }
        if let Ok(items) = self.shelf.items() {
            let sizes = items.iter().filter_map(|item| item.file.as_ref()).map(|(.., bytes)| *bytes);
            let (count, bytes) = sizes.fold((0, 0_u64), |(count, sum), bytes| (count + 1, sum.saturating_add(bytes)));
            self.desk.show(|view| (view.kept, view.kept_bytes) = (count, bytes));
        }
    }

    /// So much of what the program holds is a capture's.
    fn attribute(&mut self, bytes: u64) {
        self.attributed = bytes > 0;
        self.shared.attribute(bytes);
        self.desk.show(|view| view.attributed_bytes = bytes);
    }

    /// One more by this method.
    fn taken(&self, method: Method) {
        self.desk.show(|view| *view.taken_total.entry(method.as_str().to_owned()).or_default() += 1);
    }
}
