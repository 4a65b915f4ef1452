//! The heap over HTTP: what was captured, what grew between two captures, where it leads, and asking for one.
//!
//! Paths and words are those of `docs/api.md`. Keys (class names, owner paths, stacks, files) are told only to who is authorised;
//! others get the same figures without them. At most [`DIGESTS_MAX`] digests are read for an answer, 32 MiB together; files
//! themselves are never served. A trend is made once for all who ask (`trend.rs`). Reading them runs on a thread of its own, so a slow disk holds up no other answer.

mod diff;
mod digests;
pub(super) mod trend;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Json};
use plimsoll::clock::wall;
use serde::Serialize;

use super::api::{Asked, Shared, complaint};
use super::guard::Asker;
use crate::capture::shelf::{Item, Shelf};

/// The most digests that one answer is made from: the newest ones.
pub(super) const DIGESTS_MAX: usize = 500;
/// … and so many bytes of them; a digest is a few KB.
const DIGESTS_BYTES_MAX: u64 = 32 << 20;
/// The most rows of an answer.
const ROWS_MAX: usize = 200;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/api/memory/snapshots", get(list))
        .route("/api/memory/snapshots/{id}", get(detail))
        .route("/api/memory/diff-analysis", get(diff_analysis))
        .route("/api/memory/trend", get(trend_json))
        .route("/api/memory/trend.md", get(trend_markdown))
        .route("/api/memory/trend/save", post(trend_save))
        .route("/api/heap/snapshot", post(ask))
}

/// What went wrong, and with which status it is answered.
pub(super) struct Wrong(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Wrong {
    fn into_response(self) -> Response<Body> {
        complaint(self.0, &self.1)
    }
}

type Answer<T> = Result<T, Wrong>;

/// Runs what reads files on a thread that may wait for a disk.
async fn read<T: Send + 'static>(work: impl FnOnce() -> Answer<T> + Send + 'static) -> Answer<T> {
    let failed = |_| Wrong(StatusCode::INTERNAL_SERVER_ERROR, "reading the captures failed".to_owned());
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

fn shelf(shared: &Shared) -> Answer<Shelf> {
    let off = || Wrong(StatusCode::NOT_FOUND, "heap captures are off (plimsoll run --heap)".to_owned());
    shared.control.shelf().ok_or_else(off)
}

/// One capture as listed.
#[derive(Serialize)]
struct Listed {
    id: String,
    at_unix: f64,
    trigger: &'static str,
    pid: i32,
    /// Absent once the file has gone and only the digest is left.
    format: Option<&'static str>,
    bytes: Option<u64>,
    digest: bool,
}

fn listed(item: &Item) -> Listed {
    Listed {
        id: item.id.clone(),
        at_unix: item.unix_ms as f64 / 1000.0,
        trigger: item.trigger.as_str(),
        pid: item.pid,
        format: item.file.as_ref().map(|(format, ..)| format.extension()),
        bytes: item.file.as_ref().map(|(.., bytes)| *bytes),
        digest: item.digest.is_some(),
    }
}

async fn list(State(shared): State<Shared>) -> Answer<Json<Vec<Listed>>> {
    let shelf = shelf(&shared)?;
    read(move || Ok(Json(digests::items(&shelf)?.iter().map(listed).collect()))).await
}

/// One capture with the largest rows of its digest.
#[derive(Serialize)]
struct Detail {
    #[serde(flatten)]
    listed: Listed,
    rows: Vec<digests::RowView>,
}

async fn detail(
    State(shared): State<Shared>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<String>,
) -> Answer<Json<Detail>> {
    let shelf = shelf(&shared)?;
    read(move || {
        let item = digests::find(&shelf, &id)?;
        let digest = digests::read(&item)?;
        let rows = digests::rows(&digest, asker).into_iter().take(ROWS_MAX).collect();
        Ok(Json(Detail { listed: listed(&item), rows }))
    })
    .await
}

async fn diff_analysis(
    State(shared): State<Shared>,
    Extension(asker): Extension<Asker>,
    Asked(which): Asked<diff::Which>,
) -> Answer<Json<diff::Analysis>> {
    let shelf = shelf(&shared)?;
    let trend = trend(&shared).await?;
    read(move || diff::analyse(&shelf, &which, trend.overall.as_str(), asker).map(Json)).await
}

/// The trend of what was captured.
async fn trend(shared: &Shared) -> Answer<Arc<crate::trend::Analysis>> {
    // Where the program's memory ends is what it is told to lead to.
    let limit = shared.control.snapshot().memory.budget_bytes;
    shared.trends.get(shelf(shared)?, limit, wall()).await
}

async fn trend_json(
    State(shared): State<Shared>,
    Extension(asker): Extension<Asker>,
) -> Answer<Json<serde_json::Value>> {
    Ok(Json(trend::json(&*trend(&shared).await?, asker)))
}

async fn trend_markdown(State(shared): State<Shared>, Extension(asker): Extension<Asker>) -> Answer<Response<Body>> {
    let text = trend::markdown(&shared.control.snapshot().name, &*trend(&shared).await?, asker)?;
    Ok(([(axum::http::header::CONTENT_TYPE, "text/markdown; charset=utf-8")], text).into_response())
}

/// Where a report went; `success`, `filepath` and `message` are incident 3's words for it.
#[derive(Serialize)]
struct Saved {
    success: bool,
    filepath: String,
    message: String,
    saved: String,
    bytes: u64,
}

async fn trend_save(State(shared): State<Shared>, Extension(asker): Extension<Asker>) -> Answer<Json<Saved>> {
    authorised(asker)?;
    let text = trend::markdown(&shared.control.snapshot().name, &*trend(&shared).await?, asker)?;
    let shelf = shelf(&shared)?;
    read(move || {
        let path = shelf.save_report(&text).map_err(|why| Wrong(StatusCode::INSUFFICIENT_STORAGE, why))?;
        let saved = path.display().to_string();
        let message = format!("trend report saved to {saved}");
        Ok(Json(Saved { success: true, filepath: saved.clone(), message, saved, bytes: text.len() as u64 }))
    })
    .await
}

/// The ticket of a capture that was asked for: served once `heap.served_total` of the status has reached it.
#[derive(Serialize, serde::Deserialize)]
pub(super) struct Ticket {
    pub(super) ticket: u64,
}

async fn ask(State(shared): State<Shared>, Extension(asker): Extension<Asker>) -> Answer<(StatusCode, Json<Ticket>)> {
    authorised(asker)?;
    let ticket = shared.control.capture().map_err(|why| Wrong(StatusCode::CONFLICT, why))?;
    Ok((StatusCode::ACCEPTED, Json(Ticket { ticket })))
}

fn authorised(asker: Asker) -> Answer<()> {
    match asker {
        Asker::Authorised => Ok(()),
        Asker::Anybody => Err(Wrong(StatusCode::UNAUTHORIZED, "this needs the token".to_owned())),
    }
}
