//! The end that reads: a position in the ring, handed out as batches of at most [`BLOCK_MESSAGES`].
//!
//! What was handed out counts as unread until the batch is dropped and the subscriber asks again. Reading takes the lock once a batch.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use super::core::{Found, Ticket};
use super::error::{Ended, Removed};
use super::ring::{BLOCK_MESSAGES, Run};
use super::{Shared, Stats};
use crate::clock::{Clock as _, MonotonicClock};

/// The end that reads. Dropping it unsubscribes.
pub struct Subscriber<M> {
    pub(super) shared: Arc<Shared<M>>,
    pub(super) ticket: Ticket,
    /// Everything before this message was read.
    pub(super) read_to: u64,
}

impl<M> Subscriber<M> {
    pub(super) fn new(shared: Arc<Shared<M>>, ticket: Ticket, read_to: u64) -> Subscriber<M> {
        Subscriber { shared, ticket, read_to }
    }

    /// The next messages; waits for one.
    ///
    /// # Errors
    /// [`Ended`]: removed, or closed and read to the end.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped before it is ready. A batch that was handed out is read when it is dropped.
    ///
    /// # Examples
    /// A connection's task, which also learns of its removal while it is stuck in a write:
    /// ```no_run
    /// # async fn write<'a>(_: impl Iterator<Item = &'a Vec<u8>>) {}
    /// # async fn close(_code: u16) {}
    /// # async fn either<A, B>(a: impl Future<Output = A>, _: impl Future<Output = B>) -> Result<A, B> { Ok(a.await) }
    /// async fn converse(mut subscriber: plimsoll::broadcast::Subscriber<Vec<u8>>) {
    ///     let mut removal = subscriber.removal();
    ///     let code = loop {
    ///         match subscriber.next().await {
    ///             // With tokio: `tokio::select!`.
    ///             Ok(batch) => match either(write(batch.iter()), &mut removal).await {
    ///                 Ok(()) => {}
    ///                 Err(_) => break plimsoll::broadcast::CLOSE_TRY_AGAIN_LATER,
    ///             },
    ///             Err(ended) => break ended.close_code(),
    ///         }
    ///     };
    ///     close(code).await;
    /// }
    /// ```
    pub async fn next(&mut self) -> Result<Batch<'_, M>, Ended> {
        self.next_up_to(BLOCK_MESSAGES).await
    }

    /// As [`Subscriber::next`], at most `most` messages (at least one).
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn next_up_to(&mut self, most: usize) -> Result<Batch<'_, M>, Ended> {
        let run = poll_fn(|context| self.poll_fetch(context.waker(), most)).await?;
        Ok(Batch { subscriber: self, run })
    }

    /// The next messages, if there are any now.
    ///
    /// # Errors
    /// As [`Subscriber::next`].
    pub fn try_next(&mut self) -> Result<Option<Batch<'_, M>>, Ended> {
        let found = self.shared.core.lock().fetch(self.ticket, self.read_to, BLOCK_MESSAGES);
        match found {
            Found::Messages(run) => Ok(Some(Batch { subscriber: self, run })),
            Found::Nothing => Ok(None),
            Found::Ended(ended) => Err(ended),
        }
    }

    /// The next messages; blocks the thread until there is one, for at most `timeout`. `None`: there was none in time.
    ///
    /// # Errors
    /// As [`Subscriber::next`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Batch<'_, M>>, Ended> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let end = MonotonicClock.now().saturating_add(timeout);
        loop {
            match self.poll_fetch(&waker, BLOCK_MESSAGES) {
                Poll::Ready(Ok(run)) => return Ok(Some(Batch { subscriber: self, run })),
                Poll::Ready(Err(ended)) => return Err(ended),
                Poll::Pending => {}
            }
            let left = end.saturating_sub(MonotonicClock.now());
            if left.is_zero() {
                return Ok(None);
            }
            std::thread::park_timeout(left);
        }
    }

    fn poll_fetch(&mut self, waker: &Waker, most: usize) -> Poll<Result<Run<M>, Ended>> {
        let mut core = self.shared.core.lock();
        match core.fetch(self.ticket, self.read_to, most.max(1)) {
            Found::Messages(run) => Poll::Ready(Ok(run)),
            Found::Ended(ended) => Poll::Ready(Err(ended)),
            Found::Nothing => {
                core.wait(self.ticket, waker);
                Poll::Pending
            }
        }
    }

    /// A future that is ready when this subscriber was removed, for whoever must then abandon a write. One at a time is woken: the last polled.
    pub fn removal(&self) -> Removal<M> {
        Removal { shared: Arc::clone(&self.shared), ticket: self.ticket }
    }

    /// Gauges and counters of the broadcast.
    pub fn stats(&self) -> Stats {
        self.shared.core.lock().stats()
    }
}

impl<M> Drop for Subscriber<M> {
    fn drop(&mut self) {
        let told = self.shared.core.lock().leave(self.ticket, self.read_to);
        told.into_iter().for_each(Waker::wake);
    }
}

impl<M> fmt::Debug for Subscriber<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("read_to", &self.read_to).finish_non_exhaustive()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Ready when its subscriber was removed; `None` when that has gone by itself.
///
/// # Cancel safety
/// It may be polled, dropped and made again at will.
pub struct Removal<M> {
    shared: Arc<Shared<M>>,
    ticket: Ticket,
}

impl<M> Future for Removal<M> {
    type Output = Option<Removed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Removed>> {
        let found = self.shared.core.lock().wait_removal(self.ticket, context.waker());
        found.map_or(Poll::Pending, Poll::Ready)
    }
}

impl<M> fmt::Debug for Removal<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Removal").finish_non_exhaustive()
    }
}

/// Messages in the order in which they were published: at least one, at most [`BLOCK_MESSAGES`]. They are read when this is dropped.
pub struct Batch<'a, M> {
    subscriber: &'a mut Subscriber<M>,
    run: Run<M>,
}

impl<M> Batch<'_, M> {
    /// How many.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.run.len
    }

    /// The messages.
    pub fn iter(&self) -> Iter<'_, M> {
        Iter { run: &self.run, next: 0 }
    }
}

impl<'b, M> IntoIterator for &'b Batch<'_, M> {
    type Item = &'b M;
    type IntoIter = Iter<'b, M>;

    fn into_iter(self) -> Iter<'b, M> {
        self.iter()
    }
}

impl<M> Drop for Batch<'_, M> {
    fn drop(&mut self) {
        self.subscriber.read_to += self.run.len as u64;
    }
}

impl<M> fmt::Debug for Batch<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("run", &self.run).finish()
    }
}

/// The messages of a [`Batch`].
pub struct Iter<'b, M> {
    run: &'b Run<M>,
    next: usize,
}

impl<'b, M> Iterator for Iter<'b, M> {
    type Item = &'b M;

    fn next(&mut self) -> Option<&'b M> {
        if self.next >= self.run.len {
            return None;
        }
        let message = self.run.block.message(self.run.at + self.next);
        self.next += 1;
        message
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.run.len - self.next;
        (left, Some(left))
    }
}

impl<M> ExactSizeIterator for Iter<'_, M> {}

impl<M> fmt::Debug for Iter<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("left", &(self.run.len - self.next)).finish()
    }
}
