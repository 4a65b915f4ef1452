//! The lock and the condition variable of a queue: parking_lot's, or in loom's models loom's under the same face.

#[cfg(not(loom))]
pub(super) use parking_lot::{Condvar, Mutex, MutexGuard};

/// Pauses that double from 1 to 2⁶ spins, then so many times the processor is offered to others; then it is time to sleep.
const SPINS: u32 = 6;
const YIELDS: u32 = 8;

/// A pause that grows, for what is over in a moment: the lock is held for some tens of nanoseconds, a value may come in the next microsecond,
/// and putting a thread to sleep and waking it costs twenty.
#[derive(Default)]
pub(super) struct Pause(u32);

impl Pause {
    /// Pauses; false once it is time to sleep.
    pub(super) fn again(&mut self) -> bool {
        self.0 += 1;
        if cfg!(loom) {
            return false;
        }
        if self.0 <= SPINS {
            (0..1 << self.0).for_each(|_| std::hint::spin_loop());
        } else if self.0 <= SPINS + YIELDS {
            std::thread::yield_now();
        } else {
            return false;
        }
        true
    }
}

/// Takes the lock; a thread that finds it taken sleeps only when its pauses did not help.
#[cfg(not(loom))]
#[inline]
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cold]
    fn contended<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        let mut pause = Pause::default();
        while pause.again() {
            if !mutex.is_locked()
                && let Some(guard) = mutex.try_lock()
            {
                return guard;
            }
        }
        mutex.lock()
    }
    mutex.try_lock().unwrap_or_else(|| contended(mutex))
}

/// A mutex that is held for some nanoseconds, by few: half the price of one that can put threads to sleep.
#[cfg(not(loom))]
pub(super) type BriefMutex<T> = spin::mutex::SpinMutex<T>;

/// How long a thread sleeps when a brief lock is not free after all pauses: who holds it was not let run meanwhile.
#[cfg(not(loom))]
const BRIEF_SLEEP: std::time::Duration = std::time::Duration::from_micros(50);

/// Takes a brief lock.
#[cfg(not(loom))]
#[inline]
pub(super) fn brief<T>(mutex: &BriefMutex<T>) -> spin::mutex::SpinMutexGuard<'_, T> {
    #[cold]
    fn contended<T>(mutex: &BriefMutex<T>) -> spin::mutex::SpinMutexGuard<'_, T> {
        let mut pause = Pause::default();
        loop {
            if !pause.again() {
                std::thread::sleep(BRIEF_SLEEP);
            }
            if !mutex.is_locked()
                && let Some(guard) = mutex.try_lock()
            {
                return guard;
            }
        }
    }
    mutex.try_lock().unwrap_or_else(|| contended(mutex))
}

#[cfg(loom)]
pub(super) use modelled::Mutex as BriefMutex;

#[cfg(loom)]
pub(super) fn brief<T>(mutex: &BriefMutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

#[cfg(loom)]
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

#[cfg(loom)]
pub(super) use modelled::{Condvar, Mutex, MutexGuard};

#[cfg(loom)]
mod modelled {
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    pub(in crate::queue) struct Mutex<T>(loom::sync::Mutex<T>);

    /// `None` only while a condition variable has it.
    pub(in crate::queue) struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

    pub(in crate::queue) struct Condvar(loom::sync::Condvar);

    impl<T> Mutex<T> {
        pub(in crate::queue) fn new(value: T) -> Mutex<T> {
            Mutex(loom::sync::Mutex::new(value))
        }

        pub(in crate::queue) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().expect("no model panics under the lock")))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("held")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("held")
        }
    }

    impl Condvar {
        pub(in crate::queue) fn new() -> Condvar {
            Condvar(loom::sync::Condvar::new())
        }

        pub(in crate::queue) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let held = guard.0.take().expect("held");
            guard.0 = Some(self.0.wait(held).expect("no model panics under the lock"));
        }

        /// Time does not pass in a model: as long as it takes.
        pub(in crate::queue) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) {
            self.wait(guard);
        }

        pub(in crate::queue) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(in crate::queue) fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}
