//! The drain for tokio: two futures, and `CancellationToken`s both ways. Needs no runtime to begin: [`Drain::begin`] may be
//! called on any thread, also while every worker of the runtime is blocked; tasks then see it when they are polled again.

use tokio_util::sync::CancellationToken;

use super::{Drain, Drained, TooManyHooks};

pub(super) struct Tokens {
    pub(super) begun: CancellationToken,
    pub(super) finished: CancellationToken,
}

impl Tokens {
    pub(super) fn new() -> Tokens {
        Tokens { begun: CancellationToken::new(), finished: CancellationToken::new() }
    }
}

impl Drain {
    /// Waits until the drain begins.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost when it is dropped.
    ///
    /// # Examples
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let drain = plimsoll::drain::Drain::new();
    /// let hold = drain.hold().unwrap();
    /// let task = tokio::spawn({
    ///     let drain = drain.clone();
    ///     async move {
    ///         drain.begun().await;
    ///         drop(hold); // What was in flight is written by now.
    ///     }
    /// });
    /// drain.begin();
    /// assert!(drain.finished().await.is_finished());
    /// task.await.unwrap();
    /// # });
    /// ```
    pub async fn begun(&self) {
        self.inner.tokens.begun.cancelled().await;
    }

    /// Waits until the drain began and no hold is left. Put a `tokio::time::timeout` around it where that may take for ever.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost when it is dropped.
    pub async fn finished(&self) -> Drained {
        self.inner.tokens.finished.cancelled().await;
        self.inner.drained()
    }

    /// A token that is cancelled when the drain begins. Cancelling the token itself does not begin the drain.
    pub fn token(&self) -> CancellationToken {
        self.inner.tokens.begun.child_token()
    }

    /// Cancels a token that the service has already, when the drain begins.
    ///
    /// # Errors
    /// [`TooManyHooks`], past [`HOOKS_MAX`](super::HOOKS_MAX).
    ///
    /// # Examples
    /// ```
    /// let (drain, token) = (plimsoll::drain::Drain::new(), tokio_util::sync::CancellationToken::new());
    /// drain.cancels(token.clone())?;
    /// drain.begin();
    /// assert!(token.is_cancelled());
    /// # Ok::<(), plimsoll::drain::TooManyHooks>(())
    /// ```
    pub fn cancels(&self, token: CancellationToken) -> Result<(), TooManyHooks> {
        self.on_begin(move || token.cancel())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn tasks_see_the_beginning_and_the_end() {
        run(async {
            let drain = Drain::new();
            let hold = drain.hold().unwrap();
            let waiter = tokio::spawn({
                let drain = drain.clone();
                async move { drain.finished().await }
            });
            let beginner = std::thread::spawn({
                let drain = drain.clone();
                move || drain.begin()
            });
            drain.begun().await;
            assert!(beginner.join().unwrap());
            assert!(tokio::time::timeout(Duration::from_millis(20), drain.finished()).await.is_err(), "a hold is out");
            drop(hold);
            assert!(waiter.await.unwrap().is_finished());
        });
    }

    #[test]
    fn the_token_follows_the_drain_and_not_the_other_way() {
        let drain = Drain::new();
        let (first, second) = (drain.token(), drain.token());
        first.cancel();
        assert!(!drain.is_begun() && !second.is_cancelled());
        drain.begin();
        assert!(second.is_cancelled() && drain.token().is_cancelled());
    }

    #[test]
    fn it_begins_while_the_runtime_is_wedged() {
        let drain = Drain::new();
        let (go, wedge) = std::sync::mpsc::sync_channel::<()>(0);
        let service = std::thread::spawn({
            let drain = drain.clone();
            move || {
                run(async {
                    // The only worker blocks in code that should have been async.
                    tokio::spawn(async move { wedge.recv() });
                    drain.begun().await;
                    drain.finished().await
                })
            }
        });
        std::thread::sleep(Duration::from_millis(10));
        let token = drain.token();
        assert!(drain.begin() && token.is_cancelled(), "told without the runtime's help");
        go.send(()).unwrap();
        assert!(service.join().unwrap().is_finished());
    }
}
