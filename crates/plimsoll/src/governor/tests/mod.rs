//! What the governor must do, in three files: tables over [`step`](super::step()), a plant that grows while it is sampled in
//! simulated time, and the real thread.

mod plant;
mod table;
mod thread;

use std::time::Duration;

use super::{Reading, State};
use crate::gauge::{Protected, Unread};
use crate::policy::Policy;

const MIB: u64 = 1 << 20;

/// 300 MiB, marks at 225, 264 and 300 MiB, leave marks at 210, 249 and 285 MiB.
fn policy() -> Policy {
    Policy::new(300 * MIB, 100 * MIB)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn protected(program_bytes: u64) -> Protected {
    Protected { program_bytes, ..Protected::default() }
}

/// A sample that confirmed, or tried to.
fn confirmed(at: Duration, program: Result<u64, Unread>) -> Reading {
    Reading { at, fast_bytes: program.ok(), confirmed: Some(program.map(protected)), guard_bytes: None, supply: None }
}

/// A sample of the upper bound alone.
fn fast_only(at: Duration, fast_bytes: u64) -> Reading {
    Reading { at, fast_bytes: Some(fast_bytes), confirmed: None, guard_bytes: None, supply: None }
}

/// The state after one confirmed reading.
fn after(policy: &Policy, at: Duration, bytes: u64) -> State {
    super::step(policy, State::default(), &confirmed(at, Ok(bytes))).0
}
