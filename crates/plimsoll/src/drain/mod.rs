//! Leaving in order: one signal that the drain began, and a count of the work that it waits for.
//!
//! A [`Drain`] is a handle that everybody clones. Work in flight takes a [`Hold`]; once the drain began no new one is given,
//! and it is finished when the last hold is dropped. Threads wait with [`Drain::wait_begun`] and [`Drain::wait`], tasks (feature
//! `tokio`) with `begun().await` and `finished().await` or with a `CancellationToken`. A hold costs two atomic additions.
//! At most [`HOOKS_MAX`] hooks. The drain itself has no deadline: the [watchdog](crate::watchdog) has, and [`Drain::wait`].

mod count;
#[cfg(feature = "tokio")]
mod tokio;

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::clock::{Clock as _, MonotonicClock};
use count::{Began, Count};

/// Hooks that one drain can have.
pub const HOOKS_MAX: usize = 32;

type Hook = Box<dyn FnOnce() + Send>;

struct Inner {
    count: Count,
    /// Hooks to be called once, and whether both events were told: the condition variable is for these.
    told: Mutex<Told>,
    changed: Condvar,
    began_ns: AtomicU64,
    finished_ns: AtomicU64,
    #[cfg(feature = "tokio")]
    tokens: tokio::Tokens,
}

#[derive(Default)]
struct Told {
    begun: bool,
    finished: bool,
    hooks: Vec<Hook>,
}

/// The handle that begins a drain, watches it and waits for it. Clones are the same drain.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use plimsoll::drain::Drain;
///
/// let drain = Drain::new();
/// let (tell, works) = std::sync::mpsc::sync_channel(1);
/// let worker = {
///     let drain = drain.clone();
///     std::thread::spawn(move || {
///         let mut done = 0;
///         while let Some(_hold) = drain.hold() {
///             done += 1; // One request, finished before the process may leave.
///             tell.try_send(()).ok();
///             drain.wait_begun(Duration::from_millis(1));
///         }
///         done
///     })
/// };
/// works.recv().unwrap();
/// drain.begin();
/// let drained = drain.wait(Duration::from_secs(5));
/// assert!(drained.is_finished());
/// assert!(worker.join().unwrap() > 0);
/// ```
#[derive(Clone)]
pub struct Drain {
    inner: Arc<Inner>,
}

impl Drain {
    /// A drain that has not begun.
    pub fn new() -> Drain {
        Drain {
            inner: Arc::new(Inner {
                count: Count::new(),
                // Room for all of them now: nothing is allocated when memory is short.
                told: Mutex::new(Told { hooks: Vec::with_capacity(HOOKS_MAX), ..Told::default() }),
                changed: Condvar::new(),
                began_ns: AtomicU64::new(0),
                finished_ns: AtomicU64::new(0),
                #[cfg(feature = "tokio")]
                tokens: tokio::Tokens::new(),
            }),
        }
    }

    /// Begins the drain and returns whether this call did. Wakes everybody who waits, then calls the hooks, on this thread.
    ///
    /// Waits for nothing and allocates nothing (tasks that are woken are scheduled by their runtime).
    pub fn begin(&self) -> bool {
        let inner = &*self.inner;
        inner.began_ns.compare_exchange(0, now_ns(), Ordering::AcqRel, Ordering::Acquire).ok();
        let began = inner.count.begin();
        if began == Began::Before {
            return false;
        }
        let hooks = {
            let mut told = inner.told.lock();
            told.begun = true;
            std::mem::take(&mut told.hooks)
        };
        inner.changed.notify_all();
        #[cfg(feature = "tokio")]
        inner.tokens.begun.cancel();
        for hook in hooks {
            // One that panics must not keep the others from being told.
            catch_unwind(AssertUnwindSafe(hook)).ok();
        }
        if began == Began::Finished {
            inner.finish();
        }
        true
    }

    /// Whether the drain began.
    pub fn is_begun(&self) -> bool {
        self.inner.count.begun()
    }

    /// Whether the drain began and no hold is left.
    pub fn is_finished(&self) -> bool {
        self.inner.finished_ns.load(Ordering::Acquire) != 0
    }

    /// Holds the drain open for one piece of work; `None` once it began: then the work is not to be started.
    pub fn hold(&self) -> Option<Hold> {
        self.inner.count.take().then(|| Hold { inner: Arc::clone(&self.inner) })
    }

    /// Holds that are out.
    pub fn holds(&self) -> usize {
        self.inner.count.holds()
    }

    /// Has `hook` called when the drain begins, on the thread that begins it (the watchdog's, under memory pressure): it must
    /// neither block nor wait for locks that are held for long. Called at once when the drain has begun.
    ///
    /// # Errors
    /// [`TooManyHooks`], past [`HOOKS_MAX`].
    pub fn on_begin(&self, hook: impl FnOnce() + Send + 'static) -> Result<(), TooManyHooks> {
        let mut told = self.inner.told.lock();
        if told.begun {
            drop(told);
            hook();
            return Ok(());
        }
        if told.hooks.len() == HOOKS_MAX {
            return Err(TooManyHooks);
        }
        told.hooks.push(Box::new(hook));
        Ok(())
    }

    /// Waits until the drain begins, at most `longest`; whether it has.
    pub fn wait_begun(&self, longest: Duration) -> bool {
        self.wait_for(longest, |told| told.begun)
    }

    /// Waits until the drain is finished, at most `longest` (also for its beginning).
    pub fn wait(&self, longest: Duration) -> Drained {
        self.wait_for(longest, |told| told.finished);
        self.inner.drained()
    }

    /// `Ok` until the drain begins: for `drain.check()?` between two steps of long work.
    ///
    /// # Errors
    /// [`Cancelled`] once it began.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_begun() { Err(Cancelled) } else { Ok(()) }
    }

    fn wait_for(&self, longest: Duration, is_told: impl Fn(&Told) -> bool) -> bool {
        let mut told = self.inner.told.lock();
        let until = MonotonicClock.now().saturating_add(longest);
        while !is_told(&told) {
            let left = until.saturating_sub(MonotonicClock.now());
            if left.is_zero() {
                return false;
            }
            // A day at a time: the longest durations do not fit the clock.
            self.inner.changed.wait_for(&mut told, left.min(Duration::from_secs(86_400)));
        }
        true
    }
}

impl Default for Drain {
    fn default() -> Drain {
        Drain::new()
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (begun, holds, finished) = (self.is_begun(), self.holds(), self.is_finished());
        f.debug_struct("Drain").field("begun", &begun).field("holds", &holds).field("finished", &finished).finish()
    }
}

impl Inner {
    fn finish(&self) {
        self.finished_ns.store(now_ns(), Ordering::Release);
        self.told.lock().finished = true;
        self.changed.notify_all();
        #[cfg(feature = "tokio")]
        self.tokens.finished.cancel();
    }

    fn drained(&self) -> Drained {
        let (began, finished) = (self.began_ns.load(Ordering::Acquire), self.finished_ns.load(Ordering::Acquire));
        let took = (finished != 0).then(|| Duration::from_nanos(finished.saturating_sub(began)));
        Drained { took, left: self.count.holds() }
    }
}

fn now_ns() -> u64 {
    u64::try_from(MonotonicClock.now().as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// Work that the drain waits for. Dropping it ends the wait for it; a clone is another piece of the same work and may be
/// made during the drain.
pub struct Hold {
    inner: Arc<Inner>,
}

impl Clone for Hold {
    fn clone(&self) -> Hold {
        self.inner.count.take_another();
        Hold { inner: Arc::clone(&self.inner) }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.inner.count.give() {
            self.inner.finish();
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").finish_non_exhaustive()
    }
}

/// How a drain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// From its beginning to the last hold; `None` while it is not finished.
    pub took: Option<Duration>,
    /// Holds that are still out.
    pub left: usize,
}

impl Drained {
    /// Whether all work that held it was finished.
    pub fn is_finished(&self) -> bool {
        self.took.is_some()
    }
}

/// The error of work that stopped because the drain began: no failure of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("cancelled: the service is draining")]
pub struct Cancelled;

/// More hooks than [`HOOKS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {HOOKS_MAX} hooks on one drain")]
pub struct TooManyHooks;

/// Whether an error, or one of its causes, is the cancellation itself: [`Cancelled`], also inside an [`std::io::Error`].
///
/// # Examples
/// ```
/// use plimsoll::drain::{Cancelled, is_cancelled};
/// let wrapped = std::io::Error::other(Cancelled);
/// assert!(is_cancelled(&wrapped));
/// assert!(!is_cancelled(&std::io::Error::other("disk full")));
/// ```
pub fn is_cancelled(error: &(dyn Error + 'static)) -> bool {
    /// Chains are short; one that loops is not followed for ever.
    const CAUSES_MAX: usize = 64;
    let inside = |error: &(dyn Error + 'static)| {
        let io = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        error.is::<Cancelled>() || io.is_some_and(|error| (error as &(dyn Error + 'static)).is::<Cancelled>())
    };
    std::iter::successors(Some(error), |error| (*error).source()).take(CAUSES_MAX).any(inside)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn it_begins_once_and_finishes_with_the_last_hold() {
        let drain = Drain::new();
        let (first, second) = (drain.hold().unwrap(), drain.hold().unwrap());
        assert!(!drain.wait_begun(Duration::ZERO) && drain.check().is_ok());
        assert!(drain.begin());
        assert!(!drain.begin(), "one begins it");
        assert!(drain.hold().is_none(), "no new work");
        assert_eq!(drain.check(), Err(Cancelled));
        let third = second.clone();
        drop((first, second));
        assert_eq!(drain.wait(Duration::ZERO), Drained { took: None, left: 1 });
        drop(third);
        let drained = drain.wait(LONG);
        assert!(drained.is_finished() && drained.left == 0 && drain.is_finished(), "{drained:?}");
    }

    #[test]
    fn without_work_it_is_finished_at_once() {
        let drain = Drain::new();
        drain.begin();
        assert!(drain.is_finished() && drain.wait(Duration::ZERO).is_finished());
    }

    #[test]
    fn waiting_threads_are_woken_by_both_events() {
        let drain = Drain::new();
        let hold = drain.hold().unwrap();
        std::thread::scope(|scope| {
            let begun = scope.spawn(|| drain.wait_begun(LONG));
            let finished = scope.spawn(|| drain.wait(LONG));
            drain.begin();
            assert!(begun.join().unwrap());
            drop(hold);
            assert!(finished.join().unwrap().is_finished());
        });
    }

    #[test]
    fn hooks_are_called_once_in_order_and_one_that_panics_stops_no_other() {
        let drain = Drain::new();
        let (tell, told) = std::sync::mpsc::sync_channel(8);
        let hook = |n: u32| {
            let tell = tell.clone();
            move || tell.send(n).unwrap()
        };
        drain.on_begin(hook(1)).unwrap();
        drain.on_begin(|| panic!("a hook that panics (expected in this test)")).unwrap();
        drain.on_begin(hook(2)).unwrap();
        drain.begin();
        drain.begin();
        drain.on_begin(hook(3)).unwrap();
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn hooks_are_bounded() {
        let drain = Drain::new();
        for _ in 0..HOOKS_MAX {
            drain.on_begin(|| {}).unwrap();
        }
        assert_eq!(drain.on_begin(|| {}), Err(TooManyHooks));
    }

    #[test]
    fn cancellation_is_found_among_the_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("serving failed")]
        struct Serving(#[source] std::io::Error);
        assert!(is_cancelled(&Cancelled));
        assert!(is_cancelled(&Serving(std::io::Error::other(Cancelled))));
        assert!(!is_cancelled(&Serving(std::io::Error::other("disk full"))));
    }

    #[test]
    fn workers_that_come_and_go_are_all_waited_for() {
        let drain = Drain::new();
        let active = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(_hold) = drain.hold() {
                        active.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        active.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(5));
            drain.begin();
            assert!(drain.wait(LONG).is_finished());
            assert_eq!(active.load(Ordering::SeqCst), 0, "finished with work in flight");
        });
    }
}
