//! Tables for what each contract line promises, naive models beside the queue, and threads and tasks that meet in it.

mod contract;
mod credit;
mod model;
mod overflow;
mod ring;
mod shares;
mod sum;
mod threads;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use super::*;

/// A value that knows who sent it and how heavy it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) id: u64,
    pub(super) bytes: u64,
}

impl Weigh for Load {
    fn weight_bytes(&self) -> u64 {
        self.bytes
    }
}

pub(super) fn load(id: u64, bytes: u64) -> Load {
    Load { id, bytes }
}

pub(super) fn limits(max_items: usize, max_bytes: u64) -> Limits {
    Limits { max_items, max_bytes }
}

pub(super) fn tally(items: u64, bytes: u64) -> Tally {
    Tally { items, bytes }
}

/// For what must happen: long enough for a busy machine, and an end for a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A queue on a clock that a test moves.
fn on_clock<T: Weigh>(
    limits: Limits,
    when_full: WhenFull<T>,
) -> (Sender<T>, Receiver<T>, Arc<crate::clock::ManualClock>) {
    let clock = Arc::new(crate::clock::ManualClock::default());
    let (sender, receiver) = Builder::new(limits, when_full).clock(Arc::clone(&clock) as Arc<dyn Clock>).build();
    (sender, receiver, clock)
}
