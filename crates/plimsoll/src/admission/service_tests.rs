//! The service behind the gate: what it is asked, what it is not, and what happens to a slot whose asker goes away.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use tower_layer::Layer as _;
use tower_service::Service;

use super::*;

/// Answers at once, with what it saw of the permit; counts how often it was asked.
#[derive(Clone, Default)]
struct Inner(Arc<AtomicUsize>);

impl Service<Request<&'static str>> for Inner {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<&'static str>) -> Self::Future {
        self.0.fetch_add(1, Ordering::SeqCst);
        let seen = request.extensions().get::<Permit>().map_or("none", |permit| permit.kind().work.as_str());
        ready(Ok(Response::new(seen.to_owned())))
    }
}

fn http() -> Http {
    Http::default().classify(|head| match head.uri.path() {
        "/health" => Kind::EXEMPT,
        "/export" => Kind::HEAVY,
        _ => Kind::LIGHT,
    })
}

fn heavy_pool_of_one(waiting: usize) -> Gate {
    let heavy = Lane { slots: Slots::Fixed(1), waiting, wait: Duration::from_secs(60) };
    Gate::new(Settings { heavy, ..Settings::default() }, LevelCell::new())
}

fn request(path: &'static str) -> Request<&'static str> {
    Request::builder().uri(path).body("a body").expect("a request")
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_refusal_never_reaches_the_service_and_a_probe_always_does() {
    let (level, inner) = (LevelCell::new(), Inner::default());
    let gate = Gate::new(Settings::default(), level.clone());
    let mut service = AdmissionLayer::http(gate.clone(), http()).layer(inner.clone());
    let mut ask = |path| match poll(&mut Box::pin(service.call(request(path)))) {
        Poll::Ready(Ok(response)) => (response.status().as_u16(), response.into_body()),
        Poll::Pending => panic!("neither waits"),
    };
    assert_eq!(ask("/export"), (200, "heavy".to_owned()));
    level.set_used(1.0);
    assert_eq!(ask("/item"), (503, String::new()));
    assert_eq!(ask("/health"), (200, "light".to_owned()));
    assert_eq!(inner.0.load(Ordering::SeqCst), 2);
    assert_eq!(gate.stats().refused_for(Class::Ordinary, Reason::Level), 1);
    assert_eq!(gate.stats().heavy.in_flight, 0, "the slot is free when the answer is there");
}

#[test]
fn what_waits_is_begun_when_a_slot_is_free_and_given_up_when_dropped() {
    let (gate, inner) = (heavy_pool_of_one(8), Inner::default());
    let mut service = AdmissionLayer::http(gate.clone(), http()).layer(inner.clone());
    let Answer::Now(working) = gate.admit(Arrival { kind: Kind::HEAVY, ..Arrival::default() }) else { panic!("free") };
    let mut first = Box::pin(service.call(request("/export")));
    let mut second = Box::pin(service.call(request("/export")));
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    assert_eq!(inner.0.load(Ordering::SeqCst), 0);
    drop(first);
    drop(working);
    assert!(matches!(poll(&mut second), Poll::Ready(Ok(response)) if response.body() == "heavy"));
    assert_eq!((inner.0.load(Ordering::SeqCst), gate.stats().abandoned_total), (1, 1));
    // Granted, and then dropped before it was polled again.
    let Answer::Now(working) = gate.admit(Arrival { kind: Kind::HEAVY, ..Arrival::default() }) else { panic!("free") };
    let mut third = Box::pin(service.call(request("/export")));
    assert!(poll(&mut third).is_pending());
    drop(working);
    assert_eq!(gate.stats().heavy.in_flight, 1);
    drop(third);
    assert_eq!(gate.stats().heavy.in_flight, 0);
}

#[test]
fn a_mixed_service_answers_who_waited_in_his_own_words_too() {
    let gate = heavy_pool_of_one(1);
    let mut service = AdmissionLayer::http_or_grpc(gate.clone(), http()).layer(Inner::default());
    let Answer::Now(_working) = gate.admit(Arrival { kind: Kind::HEAVY, ..Arrival::default() }) else { panic!("free") };
    let mut grpc = request("/export");
    grpc.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    let mut waits = Box::pin(service.call(grpc.clone()));
    assert!(poll(&mut waits).is_pending());
    let told = |answer: Poll<Result<Response<String>, Infallible>>| match answer {
        Poll::Ready(Ok(response)) => (response.status().as_u16(), response.headers().contains_key("grpc-status")),
        Poll::Pending => panic!("an answer"),
    };
    assert_eq!(told(poll(&mut Box::pin(service.call(grpc)))), (200, true));
    assert_eq!(told(poll(&mut Box::pin(service.call(request("/export"))))), (503, false));
    gate.close();
    assert_eq!(told(poll(&mut waits)), (200, true));
}

#[test]
fn a_layer_within_a_layer_of_the_same_gate_takes_one_slot() {
    let (gate, inner) = (heavy_pool_of_one(0), Inner::default());
    let layer = AdmissionLayer::http(gate.clone(), http());
    let mut service = layer.layer(layer.layer(inner));
    assert!(
        matches!(poll(&mut Box::pin(service.call(request("/export")))), Poll::Ready(Ok(response)) if response.status() == 200)
    );
    let stats = gate.stats();
    assert_eq!((stats.nested_total, stats.heavy.peak_in_flight, stats.refused_total()), (1, 1, 0));
}

#[test]
fn a_stack_of_two_gates_is_passed_by_a_request_of_its_own_without_a_second_slot() {
    let (outer, inner) = (heavy_pool_of_one(8), heavy_pool_of_one(8));
    let layers = [&outer, &inner].map(|gate| AdmissionLayer::http(gate.clone(), http()));
    let twice = layers[0].layer(layers[1].layer(layers[0].layer(layers[1].layer(Inner::default()))));
    let answer = poll(&mut Box::pin({ twice }.call(request("/export"))));
    assert!(matches!(answer, Poll::Ready(Ok(response)) if response.status() == 200));
    for gate in [outer, inner] {
        let stats = gate.stats();
        assert_eq!((stats.nested_total, stats.heavy.peak_in_flight, stats.heavy.in_flight), (1, 1, 0));
    }
}

#[test]
fn a_service_without_a_protocol_of_its_own_gets_an_error() {
    #[derive(Clone)]
    struct Echo;
    impl Service<u32> for Echo {
        type Response = u32;
        type Error = Refused;
        type Future = Ready<Result<u32, Refused>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refused>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, n: u32) -> Self::Future {
            ready(Ok(n))
        }
    }
    let gate = Gate::new(Settings { per_peer: Some(0), ..Settings::default() }, LevelCell::new());
    let protocol = Plain(|n: &u32| (Kind::LIGHT, (*n > 9).then(|| Peer::name("large"))));
    let mut service = AdmissionLayer::new(gate, protocol).layer(Echo);
    assert_eq!(poll(&mut Box::pin(service.call(7))), Poll::Ready(Ok(7)));
    let Poll::Ready(Err(refused)) = poll(&mut Box::pin(service.call(10))) else { panic!("refused") };
    assert_eq!(refused.reason, Reason::Peer);
}
