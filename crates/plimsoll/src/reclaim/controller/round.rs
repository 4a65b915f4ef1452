//! One order being carried out: pass after pass, each shared over the stores that are free, until it is given or nobody can give more.

use std::sync::Arc;
use std::time::Duration;

use super::worker::{Answer, Store};
use crate::event::{Ask, Pass};
use crate::reclaim::share::{Component, share};

/// What the controller's thread knows of a store.
pub(super) struct Member {
    pub(super) store: Arc<Store>,
    /// The ask that it is at: how much, and when it is late.
    pub(super) asked: Option<(u64, Duration)>,
    /// What it was let hold.
    pub(super) bound: Option<u64>,
    /// Since when it is late.
    pub(super) late_since: Option<Duration>,
    pub(super) counts: Counts,
}

/// What one store was asked and gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) asks_total: [u64; 4],
    pub(super) asked_bytes_total: u64,
    pub(super) claimed_bytes_total: u64,
    pub(super) late_total: u64,
    pub(super) panics_total: u64,
    pub(super) took_last: Duration,
    pub(super) took_max: Duration,
}

/// What became of bytes that were ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) claimed: u64,
    pub(super) withdrawn: u64,
}

/// An order on its way.
pub(super) struct Round {
    left: u64,
    pass: usize,
    begun: bool,
}

impl Round {
    pub(super) fn new(bytes: u64) -> Round {
        Round { left: bytes, pass: 0, begun: false }
    }

    /// Asks the next pass if this one is over. True: the order is over; what is left is in `done` as withdrawn.
    pub(super) fn advance(
        &mut self,
        at: Duration,
        members: &mut [Member],
        deadline: Duration,
        done: &mut Done,
    ) -> bool {
        loop {
            if members.iter().any(|member| member.asked.is_some()) {
                return false;
            }
            if self.begun {
                self.pass += 1;
            }
            self.begun = true;
            let Some(pass) = Pass::ALL.get(self.pass).copied().filter(|_| self.left > 0) else {
                done.withdrawn += self.left;
                return true;
            };
            self.ask(at, pass, members, deadline);
        }
    }

    fn ask(&self, at: Duration, pass: Pass, members: &mut [Member], deadline: Duration) {
        // Who is still at an ask of before is not asked again.
        let mut free: Vec<&mut Member> =
            members.iter_mut().filter(|member| member.late_since.is_none() && !member.store.is_busy()).collect();
        let component =
            |member: &&mut Member| Component { held_bytes: member.store.held_bytes(), profile: member.store.profile() };
        let components: Vec<Component> = free.iter().map(component).collect();
        for (member, bytes) in free.iter_mut().zip(share(self.left, pass, &components)) {
            if bytes > 0 {
                member.asked = Some((bytes, at + deadline));
                member.counts.asks_total[pass as usize] += 1;
                member.counts.asked_bytes_total += bytes;
                member.store.give(Ask { deadline, ..Ask::new(bytes, pass) });
            }
        }
    }

    /// A store's answer. What it claims beyond what it was asked for is not believed here.
    pub(super) fn answered(&mut self, asked: u64, answer: &Answer, done: &mut Done) {
        let claimed = answer.outcome.claimed_bytes.min(asked).min(self.left);
        self.left -= claimed;
        done.claimed += claimed;
    }

    /// A store did not answer in time: what it was asked for is not waited for any more.
    pub(super) fn late(&mut self, asked: u64, done: &mut Done) {
        let given_up = asked.min(self.left);
        self.left -= given_up;
        done.withdrawn += given_up;
    }
}
