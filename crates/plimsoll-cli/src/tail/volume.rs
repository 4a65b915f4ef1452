//! Who prints what: a meter for each of the child's streams, fed by the tail thread with each read, asked by anyone.
//!
//! A lock for each stream, held by the tail for as long as a few lines take to look at, and by who asks for as long as copying at most 64
//! templates takes (some 20 us).

use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_store::volume::{Measured, Meter};

use super::{STDERR, STDOUT};

/// See the top of the file.
#[derive(Debug)]
pub(super) struct Volume([Mutex<Meter>; 2]);

impl Volume {
    pub(super) fn new(now: Duration) -> Volume {
        Volume([STDOUT, STDERR].map(|_| Mutex::new(Meter::new(now))))
    }

    /// One read of `stream` brought this.
    pub(super) fn see(&self, stream: usize, data: &[u8], lines: u64, now: Duration) {
        self.0[stream].lock().see(data, lines, now);
    }

    /// What each stream prints, by its index.
    pub(super) fn measured(&self, now: Duration) -> [Measured; 2] {
        [STDOUT, STDERR].map(|stream| self.0[stream].lock().measured(now))
    }
}
