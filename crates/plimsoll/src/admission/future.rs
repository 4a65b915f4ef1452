//! The answer of a service behind a gate: refused, waiting for a slot, or worked on.
//!
//! The slot is held until the head of the answer is there; what streams a body takes the [`Permit`] along, from the request's
//! extensions. A future that is dropped before gives its slot back; its time counts only where it was too long already.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::permit::{Permit, Ticket};
use super::protocol::{Protocol, Refuse};

/// A permit whose work is not finished yet.
struct Unfinished(Option<Permit>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(permit) = &self.0 {
            permit.abandon();
        }
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, S, P, Request, Answer> {
        Refused { answer: Option<Answer> },
        Waiting { ticket: Ticket, inner: S, request: Option<Request>, protocol: P },
        Running { #[pin] future: F, permit: Unfinished },
    }
}

pin_project! {
    /// The future of an answer.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the request is given up: its place or slot is free at once.
    pub struct ResponseFuture<S: Service<Request>, P, Request> {
        #[pin]
        state: State<S::Future, S, P, Request, Result<S::Response, S::Error>>,
    }
}

impl<S: Service<Request>, P, Request> ResponseFuture<S, P, Request> {
    pub(super) fn refused(answer: Result<S::Response, S::Error>) -> ResponseFuture<S, P, Request> {
        ResponseFuture { state: State::Refused { answer: Some(answer) } }
    }

    pub(super) fn waiting(ticket: Ticket, inner: S, request: Request, protocol: P) -> ResponseFuture<S, P, Request> {
        ResponseFuture { state: State::Waiting { ticket, inner, request: Some(request), protocol } }
    }

    pub(super) fn running(future: S::Future, permit: Permit) -> ResponseFuture<S, P, Request> {
        ResponseFuture { state: State::Running { future, permit: Unfinished(Some(permit)) } }
    }
}

impl<S, P, Request> Future for ResponseFuture<S, P, Request>
where
    S: Service<Request>,
    P: Protocol<Request> + Refuse<S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Refused { answer } => {
                    return answer.take().map_or(Poll::Pending, Poll::Ready);
                }
                StateProjection::Waiting { ticket, inner, request, protocol } => {
                    let next = match ready!(Pin::new(ticket).poll(context)) {
                        Ok(permit) => {
                            let Some(mut request) = request.take() else { return Poll::Pending };
                            protocol.admitted(&mut request, &permit);
                            State::Running { future: inner.call(request), permit: Unfinished(Some(permit)) }
                        }
                        Err(refused) => State::Refused { answer: Some(protocol.refuse(refused)) },
                    };
                    this.state.set(next);
                }
                StateProjection::Running { future, permit } => {
                    let answer = ready!(future.poll(context));
                    drop(permit.0.take());
                    return Poll::Ready(answer);
                }
            }
        }
    }
}

impl<S: Service<Request>, P, Request> fmt::Debug for ResponseFuture<S, P, Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Refused { .. } => "refused",
            State::Waiting { .. } => "waiting",
            State::Running { .. } => "running",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
