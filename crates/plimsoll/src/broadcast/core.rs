//! The broadcast without its lock: who has read how far, who is too far behind, and every counter. Pure; time is passed in.
//!
//! Laws, at every moment: an active subscriber is at most `behind_bytes` behind; every message after its position is in the
//! ring; `subscribed = active + left + removed`. Publishing looks at the subscribers only when one of them may have passed a
//! bound or the ring has doubled since, so its cost does not depend on how many there are; a look costs some nanoseconds each.

use std::task::Waker;
use std::time::Duration;

use super::error::{Ended, PublishError, Reason, Refusal, Removed, SubscribeError};
use super::rate::Rate;
use super::ring::{Ring, Run, overhead};
use super::{Bounds, Stats};
use crate::reclaim::ledger::{Account, Charge};

/// Subscribers whose places are kept when they leave.
const KEPT_PLACES: usize = 64;
/// No soft mark.
const NEVER: u64 = u64::MAX;

/// What is known of one subscriber.
struct Place {
    state: State,
    /// The number of the message that it has not finished reading.
    position: u64,
    /// Since when it has been behind the soft bound, in nanoseconds of the clock; [`NEVER`]: it is not.
    soft_since: u64,
    reader: Option<Waker>,
    removal: Option<Waker>,
    /// Which of the subscribers that had this place.
    generation: u32,
    /// It is in a list of those who wait for a message.
    listed: bool,
}

enum State {
    Free,
    Active,
    Removed(Removed),
}

/// Which subscriber: a place and which of its holders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    place: u32,
    generation: u32,
}

pub(super) struct Core<M> {
    ring: Ring<M>,
    bounds: Bounds,
    account: Option<Account>,
    places: Vec<Place>,
    free: Vec<u32>,
    generation: u32,
    /// Those who wait for a message, each once.
    waiting: Vec<u32>,
    spare: Vec<u32>,
    rate: Rate,
    publishers: usize,
    /// Who reads a message before this one next is further behind than the hard, or the soft, bound.
    hard: u64,
    soft: u64,
    /// No active subscriber, and none without a soft mark, is before these.
    least: u64,
    least_unmarked: u64,
    /// When the first soft mark expires, in nanoseconds of the clock.
    soft_due: u64,
    /// At this many bytes the ring is looked at again for what everybody has read.
    trim_at: u64,
    stats: Stats,
}

/// What a subscriber finds.
pub(super) enum Found<M> {
    Messages(Run<M>),
    Nothing,
    Ended(Ended),
}

impl<M> Core<M> {
    /// Empty, with one publisher.
    pub(super) fn new(bounds: Bounds, account: Option<Account>) -> Core<M> {
        Core {
            ring: Ring::new(bounds.behind_bytes),
            bounds,
            account,
            places: Vec::new(),
            free: Vec::new(),
            generation: 0,
            waiting: Vec::new(),
            spare: Vec::new(),
            rate: Rate::default(),
            publishers: 1,
            hard: 0,
            soft: 0,
            least: 0,
            least_unmarked: 0,
            soft_due: NEVER,
            trim_at: 0,
            stats: Stats { bounds, ..Stats::default() },
        }
    }

    pub(super) fn subscribe(&mut self, now: Duration) -> Result<Ticket, SubscribeError> {
        let let_in = self.let_in(now);
        let_in.inspect_err(|error| self.stats.turned_away[error.index()] += 1)?;
        self.generation = self.generation.wrapping_add(1);
        let new = Place {
            state: State::Active,
            position: self.ring.head(),
            soft_since: NEVER,
            reader: None,
            removal: None,
            generation: self.generation,
            listed: false,
        };
        let place = match self.free.pop() {
            Some(place) => {
                // It may still be in a list, which then wakes the new holder once too often.
                let listed = self.places[place as usize].listed;
                self.places[place as usize] = Place { listed, ..new };
                place
            }
            None => {
                // By an eighth: doubling would cost a subscriber up to twice its place.
                if self.places.len() == self.places.capacity() {
                    self.places.reserve_exact((self.places.len() / 8).max(16));
                }
                self.places.push(new);
                (self.places.len() - 1) as u32
            }
        };
        if self.stats.subscribers == 0 {
            (self.least, self.least_unmarked) = (self.ring.head(), self.ring.head());
        }
        self.stats.subscribers += 1;
        self.stats.subscribed_total += 1;
        self.stats.peak_subscribers = self.stats.peak_subscribers.max(self.stats.subscribers);
        Ok(Ticket { place, generation: self.generation })
    }

    fn let_in(&mut self, now: Duration) -> Result<(), SubscribeError> {
        if self.is_closed() {
            return Err(SubscribeError::Closed);
        }
        let most = self.bounds.subscribers.min(u32::MAX as usize);
        if (self.stats.subscribers + self.stats.lingering) as usize >= most {
            return Err(SubscribeError::TooMany { most });
        }
        let admitted = self.rate.admit(now, self.bounds.subscribe_per_second, self.bounds.subscribe_burst);
        admitted.map_err(|retry_after| SubscribeError::TooFast { retry_after })
    }

    /// Takes a message in for everybody. Whoever is too far behind is removed, and who waits for that is in `removed`.
    pub(super) fn publish(
        &mut self,
        message: M,
        bytes: u64,
        now: Duration,
        removed: &mut Vec<Waker>,
    ) -> Result<u64, PublishError<M>> {
        let weight = bytes.saturating_add(overhead::<M>());
        let refusal = if self.is_closed() {
            Some(Refusal::Closed)
        } else if weight > self.bounds.behind_bytes || weight > self.bounds.total_bytes {
            Some(Refusal::TooLarge)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return Err(self.refuse(message, refusal));
        }
        if self.stats.subscribers == 0 {
            self.count_published(bytes);
            return Ok(0);
        }
        let Some(charge) = self.make_room(weight, removed) else {
            return Err(self.refuse(message, Refusal::Full));
        };
        self.ring.push(message, weight, charge);
        self.count_published(bytes);
        self.stats.peak_alive_bytes = self.stats.peak_alive_bytes.max(self.ring.alive_bytes());
        self.hard = self.hard.max(self.least);
        while self.ring.behind_bytes(self.hard) > self.bounds.behind_bytes {
            self.hard += 1;
        }
        if let Some(soft) = self.bounds.soft {
            self.soft = self.soft.max(self.hard);
            while self.ring.behind_bytes(self.soft) > soft.bytes {
                self.soft += 1;
            }
        }
        let soft = self.least_unmarked < self.soft || nanos(now) >= self.soft_due;
        if self.least < self.hard || soft || self.ring.bytes() > self.trim_at {
            self.look(now, removed);
        }
        Ok(self.stats.subscribers)
    }

    fn refuse(&mut self, message: M, refusal: Refusal) -> PublishError<M> {
        self.stats.refused[refusal as usize] += 1;
        PublishError { message, refusal }
    }

    fn count_published(&mut self, bytes: u64) {
        self.stats.published.items += 1;
        self.stats.published.bytes = self.stats.published.bytes.saturating_add(bytes);
    }

    /// Room in the sum and in the ledger, for which those furthest behind go until there is enough. `None`: there is none.
    ///
    /// A block in a reader's hands stays in memory when the reader is removed. So where removing everybody would not make room now, only
    /// those furthest behind are told, who then let go of theirs; and nobody is where the whole ring is less than what is lacking.
    fn make_room(&mut self, weight: u64, removed: &mut Vec<Waker>) -> Option<Option<Charge<'static>>> {
        if let Ok(charge) = self.take_room(weight) {
            return Some(charge);
        }
        self.trim();
        let mut is_first = true;
        loop {
            let short = match self.take_room(weight) {
                Ok(charge) => return Some(charge),
                Err(short) => short,
            };
            let helps = self.ring.free_bytes() >= short;
            let will_help = is_first && self.ring.bytes() >= short;
            if !(helps || will_help) {
                return None;
            }
            is_first = false;
            let end = self.ring.oldest_end()?;
            self.remove_before(end, Reason::Sum, removed);
            self.trim();
            if !helps {
                return None;
            }
        }
    }

    /// Takes room in the sum and in the ledger, or says how many bytes are lacking.
    fn take_room(&self, weight: u64) -> Result<Option<Charge<'static>>, u64> {
        let alive = self.ring.alive_bytes().saturating_add(weight);
        if alive > self.bounds.total_bytes {
            return Err(alive - self.bounds.total_bytes);
        }
        let Some(account) = &self.account else { return Ok(None) };
        account.try_charge(weight).map(Some).map_err(|refused| {
            let wish = refused.held_bytes.saturating_add(refused.wanted_bytes);
            wish.saturating_sub(refused.bound_bytes).max(1)
        })
    }

    /// Looks at every subscriber: removes who passed a bound, marks who passed the soft one, drops what everybody has read.
    pub(super) fn look(&mut self, now: Duration, removed: &mut Vec<Waker>) {
        self.remove_before(self.hard, Reason::Behind, removed);
        if let Some(soft) = self.bounds.soft {
            let (now, allowed) = (nanos(now), nanos(soft.time));
            self.soft_due = NEVER;
            self.least_unmarked = self.ring.head();
            for at in 0..self.places.len() {
                let place = &mut self.places[at];
                if !matches!(place.state, State::Active) {
                    continue;
                }
                if place.position >= self.soft {
                    place.soft_since = NEVER;
                    self.least_unmarked = self.least_unmarked.min(place.position);
                    continue;
                }
                place.soft_since = place.soft_since.min(now);
                let due = place.soft_since.saturating_add(allowed);
                if now >= due {
                    self.remove(at, Reason::BehindTooLong, removed);
                } else {
                    self.soft_due = self.soft_due.min(due);
                }
            }
        }
        self.trim();
    }

    fn remove_before(&mut self, number: u64, reason: Reason, removed: &mut Vec<Waker>) {
        if self.least >= number {
            return;
        }
        for at in 0..self.places.len() {
            if matches!(self.places[at].state, State::Active) && self.places[at].position < number {
                self.remove(at, reason, removed);
            }
        }
        self.least = number;
    }

    fn remove(&mut self, at: usize, reason: Reason, removed: &mut Vec<Waker>) {
        let place = &mut self.places[at];
        let behind_bytes = self.ring.behind_bytes(place.position);
        place.state = State::Removed(Removed { reason, behind_bytes });
        removed.extend(place.removal.take());
        // It may wait for a message as well; the list forgets it when it comes to it.
        removed.extend(place.reader.take());
        self.stats.subscribers -= 1;
        self.stats.lingering += 1;
        self.stats.removed[reason as usize] += 1;
    }

    /// Drops what every active subscriber has read. Says how many bytes left the ring.
    pub(super) fn trim(&mut self) -> u64 {
        let before = self.ring.bytes();
        let active = self.places.iter().filter(|place| matches!(place.state, State::Active));
        self.least = active.map(|place| place.position).min().unwrap_or(self.ring.head());
        self.ring.drop_before(self.least);
        self.trim_at = self.ring.bytes().saturating_mul(2).max(self.bounds.behind_bytes / 8);
        before - self.ring.bytes()
    }

    /// Gives back at least `bytes` of the ring, as far as it has them, by removing who is furthest behind.
    pub(super) fn shed(&mut self, bytes: u64, removed: &mut Vec<Waker>) -> u64 {
        let before = self.ring.bytes();
        while before - self.ring.bytes() < bytes {
            let Some(end) = self.ring.oldest_end() else { break };
            self.remove_before(end, Reason::Sum, removed);
            self.trim();
        }
        before - self.ring.bytes()
    }

    /// This subscriber has finished reading up to this number; what it finds next.
    pub(super) fn fetch(&mut self, ticket: Ticket, read_to: u64, most: usize) -> Found<M> {
        let place = &mut self.places[ticket.place as usize];
        if let State::Removed(removed) = place.state {
            return Found::Ended(Ended::Removed(removed));
        }
        self.stats.delivered_total += read_to - place.position;
        place.position = read_to;
        if place.soft_since != NEVER && read_to >= self.soft {
            place.soft_since = NEVER;
            self.least_unmarked = self.least_unmarked.min(read_to);
        }
        match self.ring.run(read_to, most) {
            Some(run) => Found::Messages(run),
            None if self.is_closed() => Found::Ended(Ended::Closed),
            None => Found::Nothing,
        }
    }

    /// Remembers whom to wake when there is something to find.
    pub(super) fn wait(&mut self, ticket: Ticket, waker: &Waker) {
        let place = &mut self.places[ticket.place as usize];
        replace(&mut place.reader, waker);
        if !std::mem::replace(&mut place.listed, true) {
            self.waiting.push(ticket.place);
        }
    }

    /// Whether this subscriber was removed (`Some(Some)`), has left (`Some(None)`), or whom to wake when it is.
    pub(super) fn wait_removal(&mut self, ticket: Ticket, waker: &Waker) -> Option<Option<Removed>> {
        let place = self.places.get_mut(ticket.place as usize).filter(|place| place.generation == ticket.generation);
        let Some(place) = place else { return Some(None) };
        match place.state {
            State::Free => Some(None),
            State::Removed(removed) => Some(Some(removed)),
            State::Active => {
                replace(&mut place.removal, waker);
                None
            }
        }
    }

    /// The subscriber goes; who waits for its removal is told that there will be none.
    pub(super) fn leave(&mut self, ticket: Ticket, read_to: u64) -> Option<Waker> {
        let place = &mut self.places[ticket.place as usize];
        place.reader = None;
        let waker = place.removal.take();
        match std::mem::replace(&mut place.state, State::Free) {
            State::Active => {
                self.stats.delivered_total += read_to - place.position;
                self.stats.subscribers -= 1;
                self.stats.left_total += 1;
            }
            State::Removed(_) => self.stats.lingering -= 1,
            State::Free => {}
        }
        self.free.push(ticket.place);
        if self.stats.subscribers == 0 {
            self.trim();
        }
        if self.free.len() > KEPT_PLACES && self.free.len() > self.places.len() / 4 * 3 {
            self.give_places_back();
        }
        waker
    }

    /// After a burst of subscribers that is over.
    fn give_places_back(&mut self) {
        let used = self.places.iter().rposition(|place| !matches!(place.state, State::Free) || place.listed);
        let keep = used.map_or(0, |last| last + 1);
        if keep < self.places.len() / 2 {
            self.places.truncate(keep);
            self.places.shrink_to(keep.max(KEPT_PLACES));
            self.free.retain(|place| (*place as usize) < keep);
            self.free.shrink_to(KEPT_PLACES);
            self.waiting.shrink_to(KEPT_PLACES);
            self.spare.shrink_to(KEPT_PLACES);
        }
    }

    /// Those who wait for a message, to be woken with [`Core::next_wakers`].
    pub(super) fn take_waiting(&mut self) -> Vec<u32> {
        let spare = std::mem::take(&mut self.spare);
        std::mem::replace(&mut self.waiting, spare)
    }

    /// Takes the next wakers from the end of the list, as many as there is room for.
    pub(super) fn next_wakers(&mut self, list: &mut Vec<u32>, wakers: &mut [Option<Waker>]) -> usize {
        let mut count = 0;
        while count < wakers.len() {
            let Some(place) = list.pop() else { break };
            let Some(place) = self.places.get_mut(place as usize) else { continue };
            place.listed = false;
            if let Some(waker) = place.reader.take() {
                wakers[count] = Some(waker);
                count += 1;
            }
        }
        count
    }

    /// A list that was emptied is used again.
    pub(super) fn give_list_back(&mut self, list: Vec<u32>) {
        debug_assert!(list.is_empty(), "all of them were woken");
        if list.capacity() > self.spare.capacity() {
            self.spare = list;
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.stats.closed || self.publishers == 0
    }

    pub(super) fn close(&mut self) {
        self.stats.closed = true;
    }

    pub(super) fn publisher_came(&mut self) {
        self.publishers += 1;
    }

    /// Says whether it was the last.
    pub(super) fn publisher_left(&mut self) -> bool {
        self.publishers -= 1;
        self.publishers == 0
    }

    pub(super) fn position(&self, ticket: Ticket) -> u64 {
        self.places[ticket.place as usize].position
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn places_kept(&self) -> usize {
        self.places.capacity()
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            ring_bytes: self.ring.bytes(),
            alive_bytes: self.ring.alive_bytes(),
            closed: self.is_closed(),
            ..self.stats
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX - 1)
}

/// Keeps the waker that is there when it wakes the same task.
fn replace(kept: &mut Option<Waker>, waker: &Waker) {
    match kept {
        Some(kept) => kept.clone_from(waker),
        None => *kept = Some(waker.clone()),
    }
}
