//! Skipping with a reason, and turns: loads that measure time do not run beside each other.

use plimsoll_incidents::protected::{Service, Setup};
use std::sync::{Mutex, MutexGuard};

/// 300M: the budget of the reaction tests, in bytes.
pub(crate) const BUDGET: u64 = 300 << 20;
/// 400M: where the kernel kills when the reserve is 100M, in bytes.
pub(crate) const KERNEL: u64 = 400 << 20;

/// The value, or `None` after saying why this test is skipped.
pub(crate) fn or_skip<T>(result: Result<T, String>) -> Option<T> {
    result.map_err(|reason| eprintln!("skipped: {reason}")).ok()
}

/// Starts a service, or says why not and answers `None`.
///
/// # Panics
/// When the reason is a missing product: that is a failure and not a machine's limit.
pub(crate) fn start(setup: Setup) -> Option<Service> {
    plimsoll_incidents::product::plimsoll().unwrap_or_else(|reason| panic!("{reason}"));
    or_skip(setup.start())
}

/// Held by tests that measure time or need most of the machine.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
