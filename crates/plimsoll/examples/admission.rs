//! An HTTP service (axum) that lets in what it can do, and says no early to the rest, before their bodies are read:
//!
//! ```text
//! cargo run -p plimsoll --features tower,tokio --example admission -- 127.0.0.1:8080 256M
//! curl -i http://127.0.0.1:8080/report ; curl http://127.0.0.1:8080/health ; curl http://127.0.0.1:8080/admission
//! ```
//!
//! Two reports at a time, two more may wait for half a second; eight requests at a time for one address; what is beyond is answered
//! 503 or 429 with `Retry-After`. `/health` and `/admission` are exempt. A governor holds this process's memory against the budget, and from
//! 88 % of it on the gate refuses a part of what comes, the more the fuller.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::routing::{get, post};
use plimsoll::admission::{
    AdmissionLayer, Class, Gate, Head, Http, Identity, Kind, Lane, LevelCell, Peer, Reason, Settings, Slots,
};
use plimsoll::clock::MonotonicClock;
use plimsoll::gauge::{ProcessGauge, Root};
use plimsoll::governor::{Governor, Setup};
use plimsoll::policy::Policy;
use plimsoll::units::parse_size;
use tokio::net::TcpListener;

fn classify(head: &Head<'_>) -> Kind {
    match head.uri.path() {
        "/health" | "/admission" => Kind::EXEMPT,
        "/report" => Kind::HEAVY,
        _ => Kind::LIGHT,
    }
}

/// axum knows the address; behind a proxy this would be `Identity::ForwardedFor { trusted_hops: 1 }`.
fn address(head: &Head<'_>) -> Option<Peer> {
    head.extensions.get().map(|ConnectInfo(address): &ConnectInfo<SocketAddr>| Peer::from(*address))
}

async fn report() -> &'static str {
    tokio::time::sleep(Duration::from_secs(2)).await;
    "a report\n"
}

/// The counters, one line for each class and reason that is not 0.
async fn counters(State(gate): State<Gate>) -> String {
    let stats = gate.stats();
    let mut text = format!("heavy {} of {}, {} wait\n", stats.heavy.in_flight, stats.heavy.slots, stats.heavy.waiting);
    for class in Class::ALL {
        text.push_str(&format!("{} admitted {}\n", class.as_str(), stats.admitted[class as usize]));
        for reason in Reason::ALL {
            let refused = stats.refused_for(class, reason);
            if refused > 0 {
                text.push_str(&format!("{} refused {} {refused}\n", class.as_str(), reason.as_str()));
            }
        }
    }
    text
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let address_arg = args.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let budget_bytes = parse_size(&args.next().unwrap_or_else(|| "256M".to_owned())).map_err(std::io::Error::other)?;
    let level = LevelCell::new();
    let mut drive = level.driver();
    let setup = Setup {
        policy: Policy::new(budget_bytes, 0),
        gauge: Box::new(ProcessGauge::own(&Root::default()).map_err(std::io::Error::other)?),
        wakes: Vec::new(),
        clock: Arc::new(MonotonicClock),
        name: "governor".into(),
    };
    let _governor = Governor::start(setup, move |d| drive(d.level, d.charged_bytes, d.budget_bytes))?;
    let heavy = Lane { slots: Slots::Fixed(2), waiting: 2, wait: Duration::from_millis(500) };
    let gate = Gate::new(Settings { heavy, per_peer: Some(8), ..Settings::default() }, level);
    let http = Http::default().classify(classify).identity(Identity::by(address));
    let routes = Router::new()
        .route("/report", get(report).post(|body: Bytes| async move { format!("{} bytes\n", body.len()) }))
        .route("/items", post(|body: Bytes| async move { format!("{} bytes\n", body.len()) }))
        .route("/health", get(|| async { "ok\n" }))
        .route("/admission", get(counters).with_state(gate.clone()))
        .layer(AdmissionLayer::http(gate, http));
    let listener = TcpListener::bind(&address_arg).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, routes.into_make_service_with_connect_info::<SocketAddr>()).await
}
