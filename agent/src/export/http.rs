//! The agent's HTTP door: metrics, health, status and reports, read-only.
//!
//! In: a listener and what was published last. Out: answers. It changes nothing, holds no lock
//! while it writes, and bounds connections and their time so that a stuck reader harms nobody.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parapet_core::flow::Timestamp;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Published;
use super::metrics::{CLASSIC, OPENMETRICS, wants_openmetrics};
use crate::clock::now;

/// Where the agent listens unless it is told otherwise: reachable from its own node only.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:9464";
/// Connections served at once; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 64;
/// A request's head must be here by then; an idle connection is closed by then.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// No connection lives longer, whoever does not read.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(120);
/// After a failed accept (no descriptor left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an error answer says.
#[derive(Debug, Serialize)]
struct Problem {
    error: String,
}

/// Serves until the future is dropped.
pub async fn serve(listener: TcpListener, published: Arc<Published>) {
    let router = router(published);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed, so that this only waits.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, router.clone(), place));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router, place: OwnedSemaphorePermit) {
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(CONNECTION_TIME_MAX, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended early"),
        Err(_) => tracing::debug!("a connection took too long"),
    }
    drop(place);
}

fn router(published: Arc<Published>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route(
            "/status",
            get(|State(all): State<Arc<Published>>| async move { Json(all.status(now())) }),
        )
        .route(
            "/report",
            get(|State(all): State<Arc<Published>>| async move { Json(all.report(None)) }),
        )
        .route("/flows", get(flows))
        .fallback(nothing_here)
        .method_not_allowed_fallback(only_get)
        .with_state(published)
}

async fn metrics(State(published): State<Arc<Published>>, request: Request) -> Response {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let openmetrics = wants_openmetrics(accept);
    let kind = HeaderValue::from_static(if openmetrics { OPENMETRICS } else { CLASSIC });
    match published.metrics(openmetrics, now()) {
        Ok(text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn readyz(State(published): State<Arc<Published>>) -> Response {
    let status = published.status(now());
    if status.ready {
        return "ok\n".into_response();
    }
    problem(StatusCode::SERVICE_UNAVAILABLE, status.waiting_for.join("; "))
}

/// The report with only the edges that had a packet after `?since=` nanoseconds since the epoch.
async fn flows(State(published): State<Arc<Published>>, request: Request) -> Response {
    let mut since = None;
    for pair in request.uri().query().unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
        let Some(("since", value)) = pair.split_once('=') else {
            return problem(StatusCode::BAD_REQUEST, format!("unknown parameter {pair:?}"));
        };
        let Ok(value) = value.parse() else {
            let message = format!("since={value}: not nanoseconds since the epoch");
            return problem(StatusCode::BAD_REQUEST, message);
        };
        since = Some(Timestamp(value));
    }
    Json(published.report(since)).into_response()
}

async fn nothing_here(request: Request) -> Response {
    let path = request.uri().path();
    let known = "/metrics, /livez, /readyz, /status, /report, /flows";
    problem(StatusCode::NOT_FOUND, format!("nothing at {path}; there is {known}"))
}

async fn only_get(method: Method) -> Response {
    problem(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not answered here, GET is"))
}

fn problem(status: StatusCode, error: String) -> Response {
    (status, Json(Problem { error })).into_response()
}
