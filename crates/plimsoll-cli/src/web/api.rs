//! The routes. On the Unix socket (its own user, 0600): reading, changing the budget, stopping. On the TCP port: reading,
//! without values of variables, commands or log text. The shapes are documented in `docs/api.md`.
//!
//! Every handler calls [`Control`] once, which is bounded in time; bodies are at most 4 KiB, a decision list at most
//! [`DECISIONS_MAX`] entries.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequestParts, Query, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::count::{Counters, Refusal};
use super::heap::trend::Trends;
use super::{BODY_BYTES_MAX, metrics};
use crate::snapshot::{Control, DecisionView, Snapshot};

/// Decisions returned when `max` is not given.
const DECISIONS_DEFAULT: usize = 100;
/// The most decisions returned at once; a larger `max` is lowered to it.
const DECISIONS_MAX: usize = 1000;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const ICON: &str = "image/svg+xml";
const STYLE: &str = "text/css; charset=utf-8";

#[derive(Clone)]
pub(super) struct Shared {
    pub(super) control: Arc<dyn Control>,
    /// Of both doors.
    pub(super) trends: Trends,
    counters: Arc<Counters>,
    /// Whether the asker is the supervisor's own user.
    trusted: bool,
}

impl Shared {
    fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.control.snapshot();
        snapshot.http = Some(self.counters.view());
        snapshot.own_up();
        if self.trusted { snapshot } else { snapshot.redacted() }
    }
}

/// What the Unix socket offers.
pub(super) fn private(control: Arc<dyn Control>, counters: Arc<Counters>, trends: Trends) -> Router {
    reading()
        .route("/api/memory", put(set_memory))
        .route("/api/stop", post(stop))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Shared { control, trends, counters, trusted: true })
}

/// What the TCP port offers.
pub(super) fn public(control: Arc<dyn Control>, counters: Arc<Counters>, trends: Trends) -> Router {
    reading()
        .route("/", get(|| file(HTML, include_str!("ui/index.html"))))
        .route("/app.js", get(|| file(SCRIPT, include_str!("ui/app.js"))))
        .route("/heap.js", get(|| file(SCRIPT, include_str!("ui/heap.js"))))
        .route("/report.js", get(|| file(SCRIPT, include_str!("ui/report.js"))))
        .route("/style.css", get(|| file(STYLE, include_str!("ui/style.css"))))
        .route("/icon.svg", get(|| file(ICON, include_str!("ui/icon.svg"))))
        .with_state(Shared { control, trends, counters, trusted: false })
}

fn reading() -> Router<Shared> {
    Router::new()
        .route("/api/status", get(status))
        .route("/api/decisions", get(decisions))
        .route("/metrics", get(scrape))
        .merge(super::heap::routes())
        .route("/healthz", get(healthz))
        .fallback(|| async { complaint(StatusCode::NOT_FOUND, "no such path; see docs/api.md") })
}

async fn status(State(shared): State<Shared>) -> Json<Snapshot> {
    Json(shared.snapshot())
}

/// What stands behind the `?`. What cannot be read there is answered 400, with the reason as every error has it.
pub(super) struct Asked<T>(pub(super) T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Response<Body>;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Asked<T>, Response<Body>> {
        let refused = |why: axum::extract::rejection::QueryRejection| {
            complaint(
                StatusCode::BAD_REQUEST,
                &format!("the query cannot be read: {}; see docs/api.md", why.body_text()),
            )
        };
        Query::from_request_parts(parts, state).await.map(|Query(asked)| Asked(asked)).map_err(refused)
    }
}

#[derive(Deserialize)]
struct DecisionsQuery {
    max: Option<usize>,
}

async fn decisions(State(shared): State<Shared>, Asked(query): Asked<DecisionsQuery>) -> Json<Vec<DecisionView>> {
    let mut decisions = shared.control.decisions(query.max.unwrap_or(DECISIONS_DEFAULT).min(DECISIONS_MAX));
    if !shared.trusted {
        decisions.iter_mut().for_each(redact);
    }
    Json(decisions)
}

/// What any program on this machine may read of a decision: no commands, no values of variables.
fn redact(decision: &mut DecisionView) {
    decision.redact();
    if decision.kind == "derived" {
        "variables were derived from the budget".clone_into(&mut decision.text);
    }
}

async fn scrape(State(shared): State<Shared>) -> Response<Body> {
    match metrics::encode(shared.snapshot()) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => complaint(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// 200 while the supervise loop turns, 503 when only this thread still does.
async fn healthz(State(shared): State<Shared>) -> Response<Body> {
    match shared.snapshot().stale_seconds() {
        None => "ok\n".into_response(),
        Some(age) => (StatusCode::SERVICE_UNAVAILABLE, format!("stale, {age:.0} s\n")).into_response(),
    }
}

/// The body of `PUT /api/memory`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemoryRequest {
    /// The new budget in bytes.
    pub(super) memory: u64,
    /// The new reserve in bytes; absent or null keeps the rule in force.
    #[serde(default)]
    pub(super) reserve: Option<u64>,
}

async fn set_memory(State(shared): State<Shared>, body: Bytes) -> Response<Body> {
    let request: MemoryRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => {
            let what = format!("{error}; expected {{\"memory\": BYTES, \"reserve\": BYTES or null}}");
            return complaint(StatusCode::BAD_REQUEST, &what);
        }
    };
    match shared.control.set_memory(request.memory, request.reserve) {
        Ok(()) => Json(shared.snapshot()).into_response(),
        Err(what) => complaint(StatusCode::CONFLICT, &what),
    }
}

async fn stop(State(shared): State<Shared>) -> Response<Body> {
    shared.control.stop();
    (StatusCode::ACCEPTED, Json(serde_json::json!({ "stopping": true }))).into_response()
}

async fn file(kind: &'static str, text: &'static str) -> Response<Body> {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], text).into_response()
}

/// An error as JSON: `{"error": "…"}`.
pub(super) fn complaint(status: StatusCode, what: &str) -> Response<Body> {
    (status, Json(serde_json::json!({ "error": what }))).into_response()
}

/// An error of the router or of a body that is too long as JSON, too; what is JSON already, or no error, stays as it is.
pub(super) fn explained(answer: Response<Body>) -> Response<Body> {
    let what = match answer.status() {
        StatusCode::METHOD_NOT_ALLOWED => "this path does not take that method; see docs/api.md",
        StatusCode::PAYLOAD_TOO_LARGE => "the body is longer than 4 KiB",
        StatusCode::REQUEST_TIMEOUT => "no answer within 5 s: the body did not come, or the work goes on; ask again",
        StatusCode::BAD_REQUEST => "the request cannot be read; see docs/api.md",
        _ => return answer,
    };
    if answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json") {
        return answer;
    }
    let allow = answer.headers().get(ALLOW).cloned();
    let mut told = complaint(answer.status(), what);
    told.headers_mut().extend(allow.map(|methods| (ALLOW, methods)));
    told
}

/// The answer to a request that the guard does not let through.
pub(super) fn refusal(refusal: Refusal) -> Response<Body> {
    match refusal {
        Refusal::Method => {
            let what = "this address is for reading: GET and HEAD only, and POST with a token where one was set";
            ([(ALLOW, "GET, HEAD")], complaint(StatusCode::METHOD_NOT_ALLOWED, what)).into_response()
        }
        Refusal::Host => complaint(StatusCode::MISDIRECTED_REQUEST, "Host must be a loopback name or address"),
        Refusal::Origin => complaint(StatusCode::FORBIDDEN, "other sites' pages may not ask"),
        Refusal::Unauthorised => {
            let what = "this needs the token: Authorization: Bearer TOKEN (plimsoll run --http-token-file)";
            ([(WWW_AUTHENTICATE, "Bearer")], complaint(StatusCode::UNAUTHORIZED, what)).into_response()
        }
        Refusal::Token => complaint(StatusCode::FORBIDDEN, "the token is not the one that was set"),
        Refusal::Busy | Refusal::Body | Refusal::Slow | Refusal::Malformed | Refusal::Accept => {
            complaint(StatusCode::BAD_REQUEST, refusal.as_str())
        }
    }
}
