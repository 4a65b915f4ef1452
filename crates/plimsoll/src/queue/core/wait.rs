//! Who sleeps: the receiver until something comes, senders until there is room. Kept under the queue's lock, so that whoever changes
//! something sees everybody who waits for it; woken after the lock is released.
//!
//! At most one receiver sleeps, as a thread or as a task. Sleeping senders are bounded by the threads and futures that
//! send. Whoever makes room wakes all of them: any of them may be the one whose value fits. A future that is dropped takes
//! its waker with it.

use std::task::Waker;

/// How the receiver sleeps.
#[derive(Debug, Default)]
pub(in crate::queue) enum Sleeper {
    #[default]
    Awake,
    Thread,
    Task(Waker),
}

/// What the receiver waits for.
#[derive(Clone, Copy, Debug)]
pub(in crate::queue) struct Wish {
    /// So many values; `usize::MAX`: none, only for the end.
    pub(in crate::queue) items: usize,
    /// Or values of so many bytes.
    pub(in crate::queue) bytes: u64,
    /// Or any value, when somebody found no room.
    pub(in crate::queue) is_pressing: bool,
    /// Or something was dropped.
    pub(in crate::queue) losses: bool,
}

impl Wish {
    /// Any value.
    pub(in crate::queue) const ANY: Wish = Wish { items: 1, bytes: u64::MAX, is_pressing: false, losses: false };
    /// Any value, or a loss to tell.
    pub(in crate::queue) const ANYTHING: Wish = Wish { losses: true, ..Wish::ANY };
    /// Only the end.
    pub(in crate::queue) const END: Wish =
        Wish { items: usize::MAX, bytes: u64::MAX, is_pressing: false, losses: false };
}

/// Who sleeps.
#[derive(Debug, Default)]
pub(in crate::queue) struct Waiting {
    receiver: Sleeper,
    wish: Option<Wish>,
    threads: usize,
    tasks: Vec<(u64, Waker)>,
    next: u64,
}

/// Senders to be woken.
#[derive(Debug, Default)]
pub(in crate::queue) struct RoomMade {
    pub(in crate::queue) threads: bool,
    pub(in crate::queue) tasks: Vec<(u64, Waker)>,
}

impl Waiting {
    /// The receiver goes to sleep until its wish is granted.
    pub(in crate::queue) fn sleep(&mut self, how: Sleeper, wish: Wish) {
        self.receiver = how;
        self.wish = Some(wish);
    }

    /// The receiver is awake, by itself.
    pub(in crate::queue) fn awake(&mut self) {
        self.receiver = Sleeper::Awake;
        self.wish = None;
    }

    /// The wish of a receiver that sleeps.
    #[inline]
    pub(in crate::queue) fn wish(&self) -> Option<Wish> {
        self.wish
    }

    /// The receiver is to be woken, once.
    pub(in crate::queue) fn wake(&mut self) -> Sleeper {
        self.wish = None;
        std::mem::take(&mut self.receiver)
    }

    pub(in crate::queue) fn thread_sleeps(&mut self) {
        self.threads += 1;
    }

    pub(in crate::queue) fn thread_woke(&mut self) {
        self.threads -= 1;
    }

    /// A sending task sleeps; under its number, if it has one.
    pub(in crate::queue) fn task_sleeps(&mut self, number: &mut Option<u64>, waker: &Waker) {
        let known = number.and_then(|number| self.tasks.iter_mut().find(|(task, _)| *task == number));
        match known {
            Some((_, old)) => old.clone_from(waker),
            None => {
                self.tasks.push((self.next, waker.clone()));
                *number = Some(self.next);
                self.next += 1;
            }
        }
    }

    /// A sending task waits no longer.
    pub(in crate::queue) fn task_left(&mut self, number: u64) {
        self.tasks.retain(|(task, _)| *task != number);
    }

    /// Room was made, or nothing will be any more.
    #[inline]
    pub(in crate::queue) fn room_made(&mut self) -> RoomMade {
        RoomMade { threads: self.threads > 0, tasks: std::mem::take(&mut self.tasks) }
    }

    #[cfg(all(test, not(loom)))]
    pub(in crate::queue) fn is_receiver_asleep(&self) -> bool {
        self.wish.is_some()
    }

    #[cfg(all(test, not(loom)))]
    pub(in crate::queue) fn sleeping_senders(&self) -> usize {
        self.threads + self.tasks.len()
    }
}
