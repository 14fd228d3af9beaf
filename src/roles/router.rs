//! The router's HTTP side.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router as Routes;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use remote::receive::{Encoding, ReceiveError};
use remote::router::{Options, RouteError, Router};
use remote::slots::SlotMap;
use scraper::Shutdown;

use super::{Flags, map, metrics};

/// A compressed request may have this many bytes.
const BODY_BYTES_MAX: usize = 32 << 20;

/// Starts a router. `data_dir` is where its spool is unless a flag says otherwise.
///
/// Queriers ask the routers of the map what waits for whom, so one that is not in it may not take samples:
/// answers could lack them without a word.
pub(super) fn start(
    flags: &Flags,
    host_name: &str,
    data_dir: &Path,
    stop: &Shutdown,
) -> anyhow::Result<Arc<Router>> {
    let path = flags.map_file(data_dir)?;
    let timeout = Duration::from_millis(flags.shard_timeout.0.max(1).unsigned_abs());
    let client = super::client(timeout)?;
    let name = flags.router_name.as_deref().unwrap_or(host_name);
    let known = SlotMap::read(&path)?;
    anyhow::ensure!(
        known.routers().iter().any(|router| router.name == name),
        "{}: routers: {name:?} is not among them, so no querier would ask it what it holds; see --router.name",
        path.display()
    );
    let read_from = path.clone();
    let router = Router::start(Options {
        name: name.to_owned(),
        spool_dir: flags.spool_dir.clone().unwrap_or_else(|| data_dir.join("spool")),
        spool_bytes_max: flags.spool_bytes_max.0,
        timeout,
        pairs: flags.pairs,
        client,
        disk: Arc::new(tsdb::disk::real::Real),
        read_map: Arc::new(move || SlotMap::read(&read_from)),
        now: crate::wire::now,
    })?;
    let router = Arc::new(router);
    let (watching, runtime) = (Arc::downgrade(&router), tokio::runtime::Handle::current());
    map::watch(path, stop.clone(), move |read| {
        let Some(router) = watching.upgrade() else { return };
        // A new shard gets a task of its own.
        let _entered = runtime.enter();
        if let Err(error) = read.map_err(Into::into).and_then(|_| router.reload()) {
            tracing::error!("the slot map in force stays: {error}");
        }
    });
    Ok(router)
}

/// What a router answers. `/metrics` and health are its own only where nobody else answers.
pub(super) fn routes(router: Arc<Router>, alone: bool) -> Routes {
    let mut routes =
        Routes::new().route("/api/v1/write", post(write)).route("/api/v1/router/backlog", get(backlog));
    if alone {
        routes = routes
            .route("/metrics", get(page))
            .route("/-/healthy", get(|| async { "Pyrometer is Healthy.\n" }))
            .route("/-/ready", get(|| async { "Pyrometer is Ready.\n" }));
    } else {
        routes = routes.route("/api/v1/router/metrics", get(page));
    }
    routes.with_state(router)
}

async fn backlog(State(router): State<Arc<Router>>) -> Response {
    axum::Json(router.backlog()).into_response()
}

async fn page(State(router): State<Arc<Router>>) -> Response {
    let page = metrics::router_page(&router.stats());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

async fn write(State(router): State<Arc<Router>>, request: Request) -> Response {
    let (encoding, body) = match read(request).await {
        Ok(read) => read,
        Err(response) => return *response,
    };
    match router.route(encoding, body).await {
        Ok(written) => (StatusCode::NO_CONTENT, written.headers()).into_response(),
        Err(RouteError::Receive(error)) => refusal(&error),
        Err(error @ RouteError::Unavailable(_)) => {
            let wait = [(header::RETRY_AFTER, HeaderValue::from_static("5"))];
            (StatusCode::SERVICE_UNAVAILABLE, wait, format!("{error}\n")).into_response()
        }
    }
}

/// The encoding and the body of a remote-write request.
pub(super) async fn read(request: Request) -> Result<(Encoding, Bytes), Box<Response>> {
    let (parts, body) = request.into_parts();
    let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let encoding = Encoding::from_headers(text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING));
    let encoding = encoding.map_err(|error| Box::new(refusal(&error)))?;
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await;
    let body = body.map_err(|error| {
        let status = if crate::roles::shard::is_too_long(&error) {
            StatusCode::PAYLOAD_TOO_LARGE
        } else {
            StatusCode::BAD_REQUEST
        };
        Box::new((status, format!("reading the request: {error}\n")).into_response())
    })?;
    Ok((encoding, body))
}

/// 4xx for what must not be sent again, 5xx for what may be.
pub(super) fn refusal(error: &ReceiveError) -> Response {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, error.written().headers(), format!("{error}\n")).into_response()
}
