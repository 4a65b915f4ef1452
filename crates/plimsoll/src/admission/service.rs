//! The tower service: asks the gate, and only then the service behind it.

use std::task::{Context, Poll};

use tower_service::Service;

use super::future::ResponseFuture;
use super::gate::{Answer, Arrival, Gate};
use super::protocol::{Protocol, Refuse};

/// A service behind a [`Gate`]. Requests are refused before their body is read.
///
/// It is ready when the service behind it is: put what may be busy for long (a buffer, a balancer) in front of it, so that probes pass.
#[derive(Clone, Debug)]
pub struct Admission<S, P> {
    inner: S,
    gate: Gate,
    protocol: P,
}

impl<S, P> Admission<S, P> {
    /// A service behind a gate.
    pub fn new(inner: S, gate: Gate, protocol: P) -> Admission<S, P> {
        Admission { inner, gate, protocol }
    }

    /// The gate.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }
}

impl<S, P, Request> Service<Request> for Admission<S, P>
where
    S: Service<Request> + Clone,
    P: Protocol<Request> + Refuse<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, P, Request>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let peer = self.protocol.peer(&request);
        let answer = self.gate.admit(Arrival {
            kind: self.protocol.kind(&request),
            peer: peer.as_ref(),
            within: self.protocol.held(&request),
            time: self.protocol.time(&request),
        });
        match answer {
            Answer::Now(permit) => {
                self.protocol.admitted(&mut request, &permit);
                ResponseFuture::running(self.inner.call(request), permit)
            }
            Answer::Wait(ticket) => {
                // The one that is ready goes with the request; its clone is made ready for the next.
                let clone = self.inner.clone();
                let inner = std::mem::replace(&mut self.inner, clone);
                let protocol = self.protocol.answering(&request);
                ResponseFuture::waiting(ticket, inner, request, protocol)
            }
            Answer::Refused(refused) => ResponseFuture::refused(self.protocol.answering(&request).refuse(refused)),
        }
    }
}
