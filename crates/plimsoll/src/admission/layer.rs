//! The tower layer: a gate and a protocol in front of a service.

use tower_layer::Layer;

use super::gate::Gate;
use super::protocol::{Grpc, Http};
use super::service::Admission;

/// Puts a [`Gate`] in front of a service.
///
/// # Examples
/// ```
/// use plimsoll::admission::{AdmissionLayer, Gate, Http, Identity, Kind, LevelCell, Settings};
///
/// let level = LevelCell::new();
/// let gate = Gate::new(Settings { per_peer: Some(32), ..Settings::default() }, level.clone());
/// let http = Http::default().identity(Identity::Address).classify(|head| match head.uri.path() {
///     "/health" | "/metrics" => Kind::EXEMPT,
///     path if path.starts_with("/export") => Kind::HEAVY,
///     _ => Kind::LIGHT,
/// });
/// let layer = AdmissionLayer::http(gate, http);
/// # let _ = layer;
/// // axum: `Router::new().route(...).layer(layer)`
/// ```
#[derive(Clone, Debug)]
pub struct AdmissionLayer<P> {
    gate: Gate,
    protocol: P,
}

impl<P> AdmissionLayer<P> {
    /// For any protocol.
    pub fn new(gate: Gate, protocol: P) -> AdmissionLayer<P> {
        AdmissionLayer { gate, protocol }
    }
}

impl AdmissionLayer<Http> {
    /// For HTTP.
    pub fn http(gate: Gate, http: Http) -> AdmissionLayer<Http> {
        AdmissionLayer::new(gate, http)
    }
}

impl AdmissionLayer<Grpc> {
    /// For gRPC.
    pub fn grpc(gate: Gate, http: Http) -> AdmissionLayer<Grpc> {
        AdmissionLayer::new(gate, Grpc(http))
    }
}

impl<S, P: Clone> Layer<S> for AdmissionLayer<P> {
    type Service = Admission<S, P>;

    fn layer(&self, inner: S) -> Admission<S, P> {
        Admission::new(inner, self.gate.clone(), self.protocol.clone())
    }
}
