//! The end that sends: at once, waiting as a thread, or waiting as a task.
//!
//! Waiting is bounded by the patience that the queue or the caller sets; woken by whatever leaves the queue. There is no order
//! among those that wait, and one that comes new may be served before them; one sender's own values keep their order.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::buffer::Buffer;
use super::core::{Fallen, Lane, Offer};
use super::lock::Pause;
use super::shared::{Guard, Monitor, Shared};
use super::{DropReason, Refusal, SendError, Sent, Stats, Tally, Weigh};
use crate::clock::{Clock as _, MonotonicClock};

/// A day: longer waits are made of several.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(86_400);

/// The end that sends, for one producer. A clone counts as the same producer.
pub struct Sender<T> {
    pub(super) shared: Arc<Shared<T>>,
    producer: usize,
    lane: Arc<Lane>,
    buffer: Arc<Buffer<T>>,
}

impl<T: Weigh> Sender<T> {
    /// Sends. Waits for room only where the queue says so ([`WhenFull::WaitUntil`](super::WhenFull::WaitUntil)).
    ///
    /// # Errors
    /// The value back, when the queue is closed; with [`WhenFull::Reject`](super::WhenFull::Reject) and `WaitUntil` also when there is no
    /// room (in time) or never will be.
    #[inline]
    pub fn send(&self, value: T) -> Result<Sent, SendError<T>> {
        match self.shared.patience {
            None => self.try_send(value),
            Some(patience) => self.send_timeout(value, patience),
        }
    }

    /// Sends, without ever waiting for room.
    ///
    /// # Errors
    /// The value back, as [`Sender::send`].
    #[inline]
    pub fn try_send(&self, value: T) -> Result<Sent, SendError<T>> {
        let bytes = value.weight_bytes();
        if self.lane.is_full(bytes) {
            return self.turn_away(value, bytes);
        }
        let at = self.shared.clock.now();
        // Declared before the lock is taken, dropped after it is released.
        let mut fallen = Fallen::default();
        let (mut core, value) = match self.lock_for(value, bytes, at) {
            Ok(()) => return Ok(Sent::Queued),
            Err(locked) => locked,
        };
        let offer = core.offer(value, bytes, self.producer, at, false, &mut fallen);
        self.shared.publish(core);
        match offer {
            Offer::Done(done) => done,
            // Who has no patience is refused instead.
            Offer::NoRoom(value) => Err(SendError { value, refusal: Refusal::Full }),
            Offer::Spill(value) => Ok(self.spill(value, bytes, at)),
        }
    }

    /// Sends; where the value would be given back for want of room, waits for some, at most `patience`.
    ///
    /// # Errors
    /// The value back: [`Refusal::Late`] after that time; [`Refusal::Closed`] and [`Refusal::TooLarge`] at once, and
    /// [`Refusal::SumFull`] when nothing is queued here whose leaving could help.
    pub fn send_timeout(&self, mut value: T, patience: Duration) -> Result<Sent, SendError<T>> {
        let (bytes, at) = (value.weight_bytes(), self.shared.clock.now());
        // Real time, whatever the queue's clock: it is a thread that waits. Looked at only by one that has to.
        let mut until = None;
        let mut fallen = Fallen::default();
        let mut pause = Pause::default();
        loop {
            let mut core = match self.lock_for(value, bytes, at) {
                Ok(()) => return Ok(Sent::Queued),
                Err((core, back)) => {
                    value = back;
                    core
                }
            };
            match core.offer(value, bytes, self.producer, at, true, &mut fallen) {
                Offer::Done(done) => {
                    self.shared.publish(core);
                    return done;
                }
                Offer::Spill(value) => {
                    drop(core);
                    return Ok(self.spill(value, bytes, at));
                }
                Offer::NoRoom(back) => value = back,
            }
            let now = MonotonicClock.now();
            let until = *until.get_or_insert_with(|| now.saturating_add(patience));
            if now >= until {
                let late = core.give_back(value, bytes, self.producer, Refusal::Late);
                // A batcher that waits for more is told that it is full.
                self.shared.publish(core);
                return Err(late);
            }
            if core.wait.wish().is_some_and(|wish| core.grants(wish)) {
                // The receiver waits for a fuller queue than this can become.
                self.shared.publish(core);
                continue;
            }
            if core.note_full(self.producer) && pause.again() {
                drop(core);
                while self.lane.is_full(bytes) && MonotonicClock.now() < until && pause.again() {}
                continue;
            }
            core.wait.thread_sleeps();
            core.wait(&self.shared.room, Some((until - now).min(WAIT_MAX)));
            core.wait.thread_woke();
            pause = Pause::default();
        }
    }

    /// Sends; where the value would be given back for want of room, the task waits for some, as long as that takes. Runs on any
    /// runtime.
    ///
    /// # Errors
    /// As [`Sender::send_timeout`]; with [`WhenFull::WaitUntil`](super::WhenFull::WaitUntil) [`Refusal::Late`] when it is polled
    /// after that time (put your runtime's timer around it to be woken then, or use `send_timeout_async`).
    ///
    /// # Cancel safety
    /// A future that is dropped before it is ready has sent nothing; its value is dropped with it and counted as
    /// [`DropReason::Cancelled`]. To have the value back, call [`SendFuture::give_up`] instead.
    ///
    /// # Examples
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use plimsoll::queue::{Limits, Sent, WhenFull, bounded};
    ///
    /// let (sender, mut receiver) = bounded(Limits { max_items: 1, max_bytes: 100 }, WhenFull::Reject);
    /// assert_eq!(sender.send_async(vec![1u8]).await.unwrap(), Sent::Queued);
    /// let mut second = sender.send_async(vec![2u8]);
    /// let ten_ms = std::time::Duration::from_millis(10);
    /// assert!(tokio::time::timeout(ten_ms, &mut second).await.is_err()); // full
    /// assert_eq!(receiver.recv_async().await, Some(vec![1u8]));
    /// assert_eq!(second.await.unwrap(), Sent::Queued);
    /// # });
    /// ```
    pub fn send_async(&self, value: T) -> SendFuture<'_, T> {
        let (bytes, at) = (value.weight_bytes(), self.shared.clock.now());
        let until = self.shared.patience.map(|patience| at.saturating_add(patience));
        SendFuture { sender: self, value: Some(value), bytes, until, number: None }
    }

    /// As [`Sender::send_timeout`], for a task on tokio. Needs its timer.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As [`Sender::send_async`].
    #[cfg(feature = "tokio")]
    pub async fn send_timeout_async(&self, value: T, patience: Duration) -> Result<Sent, SendError<T>> {
        let mut sending = self.send_async(value);
        match tokio::time::timeout(patience, &mut sending).await {
            Ok(done) => done,
            Err(_) => {
                sending.give_up().map_or(Ok(Sent::Dropped), |value| Err(SendError { value, refusal: Refusal::Late }))
            }
        }
    }

    /// Sends the value on credit, or gives it back with the whole queue, to be asked for room.
    #[inline]
    fn lock_for(&self, mut value: T, bytes: u64, at: Duration) -> Result<(), (Guard<'_, T>, T)> {
        match self.buffer.put(value, bytes, self.producer, at, &self.shared.tickets) {
            Ok(()) => return Ok(()),
            Err(back) => value = back,
        }
        let mut core = self.shared.lock_settled();
        if self.buffer.lacks_often(at) {
            match core.put_on_new_credit(&self.buffer, value, bytes, self.producer, at, &self.shared.tickets) {
                Ok(()) => return Ok(()),
                Err(back) => value = back,
            }
        }
        core.see_whole();
        Err((core, value))
    }

    fn turn_away(&self, value: T, bytes: u64) -> Result<Sent, SendError<T>> {
        self.lane.turned_away(bytes);
        if self.shared.drops_newest { Ok(Sent::Dropped) } else { Err(SendError { value, refusal: Refusal::Full }) }
    }

    #[cold]
    fn spill(&self, value: T, bytes: u64, at: Duration) -> Sent {
        if self.shared.spill(value, bytes, self.producer, at) { Sent::Overflowed } else { Sent::Dropped }
    }
}

impl<T> Sender<T> {
    pub(super) fn first(shared: &Arc<Shared<T>>, name: &str) -> Sender<T> {
        let mut core = shared.lock();
        let producer = core.sender_named(name);
        let lane = core.lane(producer);
        // Shares have changed: one that waits may have lost its right to what is there, or won some.
        shared.settle_all(core);
        Sender { shared: Arc::clone(shared), producer, lane, buffer: Arc::new(Buffer::new()) }
    }

    /// A sender with counters and a share under this name. The same name means the same counters and the same share.
    pub fn named(&self, name: &str) -> Sender<T> {
        Sender::first(&self.shared, name)
    }

    /// The name of its producer; [`OTHERS`](super::OTHERS) for one that came too late for its own.
    pub fn name(&self) -> Arc<str> {
        self.shared.lock().name(self.producer)
    }

    /// Ends the queue for every sender: nothing more is taken in, what waits can be received.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Gauges and counters.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Something that sees the queue without keeping it open.
    pub fn monitor(&self) -> Monitor<T> {
        Monitor(Arc::clone(&self.shared))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.lock().sender_came(self.producer);
        Sender {
            shared: Arc::clone(&self.shared),
            producer: self.producer,
            lane: Arc::clone(&self.lane),
            buffer: Arc::new(Buffer::new()),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut core = self.shared.lock();
        core.end_credit(&self.buffer);
        core.sender_left(self.producer);
        // Also for the other senders: their shares have grown.
        self.shared.settle_all(core);
    }
}

/// A value on its way into the queue: see [`Sender::send_async`].
#[must_use = "nothing is sent until it is awaited"]
pub struct SendFuture<'a, T> {
    sender: &'a Sender<T>,
    /// `None` once it is ready.
    value: Option<T>,
    bytes: u64,
    until: Option<Duration>,
    /// Under which the queue has its waker.
    number: Option<u64>,
}

/// The value is moved in and out and never borrowed across a poll.
impl<T> Unpin for SendFuture<'_, T> {}

impl<T> SendFuture<'_, T> {
    /// The value back, counted as [`Refusal::Late`]; `None` when it has been sent.
    pub fn give_up(&mut self) -> Option<T> {
        let value = self.value.take()?;
        let mut core = self.sender.shared.lock();
        self.number.take().into_iter().for_each(|number| core.wait.task_left(number));
        Some(core.give_back(value, self.bytes, self.sender.producer, Refusal::Late).value)
    }
}

impl<T: Weigh> Future for SendFuture<'_, T> {
    type Output = Result<Sent, SendError<T>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let value = this.value.take().expect("a future is not polled after it was ready");
        let (sender, shared, at) = (this.sender, &this.sender.shared, this.sender.shared.clock.now());
        let mut fallen = Fallen::default();
        let (mut core, value) = match this.number {
            None => match sender.lock_for(value, this.bytes, at) {
                Ok(()) => return Poll::Ready(Ok(Sent::Queued)),
                Err(locked) => locked,
            },
            Some(_) => (shared.lock(), value),
        };
        let offer = core.offer(value, this.bytes, sender.producer, at, true, &mut fallen);
        let done = match offer {
            Offer::NoRoom(value) if this.until.is_none_or(|until| at < until) => {
                core.wait.task_sleeps(&mut this.number, context.waker());
                shared.publish(core);
                this.value = Some(value);
                return Poll::Pending;
            }
            Offer::NoRoom(value) => Err(core.give_back(value, this.bytes, sender.producer, Refusal::Late)),
            Offer::Done(done) => done,
            Offer::Spill(value) => {
                drop(core);
                return Poll::Ready(Ok(sender.spill(value, this.bytes, at)));
            }
        };
        this.number.take().into_iter().for_each(|number| core.wait.task_left(number));
        shared.publish(core);
        Poll::Ready(done)
    }
}

impl<T> Drop for SendFuture<'_, T> {
    fn drop(&mut self) {
        if self.value.is_some() {
            let shared = &self.sender.shared;
            let (one, at) = (Tally { items: 1, bytes: self.bytes }, shared.clock.now());
            let mut core = shared.lock();
            self.number.take().into_iter().for_each(|number| core.wait.task_left(number));
            core.note_drop(self.sender.producer, DropReason::Cancelled, one, at);
            shared.publish(core);
        }
    }
}

impl<T> fmt::Debug for SendFuture<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendFuture").field("ready", &self.value.is_none()).finish_non_exhaustive()
    }
}
