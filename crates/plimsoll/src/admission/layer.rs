//! The tower layer: a gate and a protocol in front of a service.

use tower_layer::Layer;

use super::gate::Gate;
use super::grpc::{Grpc, HttpOrGrpc};
use super::protocol::Http;
use super::service::Admission;

/// Puts a [`Gate`] in front of a service.
///
/// # Examples
/// ```
/// use std::net::SocketAddr;
///
/// use axum::{Router, extract::ConnectInfo, routing::get};
/// use plimsoll::admission::{AdmissionLayer, Gate, Http, Identity, Kind, LevelCell, Peer, Settings};
///
/// let level = LevelCell::new();
/// let gate = Gate::new(Settings { per_peer: Some(32), ..Settings::default() }, level.clone());
/// // Who asks, as axum knows it. Behind a proxy: `Identity::ForwardedFor { trusted_hops: 1 }`.
/// let address = Identity::by(|head| {
///     head.extensions.get().map(|ConnectInfo(address): &ConnectInfo<SocketAddr>| Peer::from(*address))
/// });
/// let http = Http::default().identity(address).classify(|head| match head.uri.path() {
///     "/health" | "/metrics" => Kind::EXEMPT,
///     path if path.starts_with("/export") => Kind::HEAVY,
///     _ => Kind::LIGHT,
/// });
/// let routes = Router::new().route("/health", get(|| async { "ok" })).layer(AdmissionLayer::http(gate.clone(), http));
/// // Without this nobody has an address, and `gate.stats().unknown_peers_total` grows.
/// let service = routes.into_make_service_with_connect_info::<SocketAddr>();
/// # let _ = service;
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

impl AdmissionLayer<HttpOrGrpc> {
    /// For a service that speaks both, by each request's `content-type`.
    pub fn http_or_grpc(gate: Gate, http: Http) -> AdmissionLayer<HttpOrGrpc> {
        AdmissionLayer::new(gate, HttpOrGrpc::new(http))
    }
}

impl<S, P: Clone> Layer<S> for AdmissionLayer<P> {
    type Service = Admission<S, P>;

    fn layer(&self, inner: S) -> Admission<S, P> {
        Admission::new(inner, self.gate.clone(), self.protocol.clone())
    }
}
