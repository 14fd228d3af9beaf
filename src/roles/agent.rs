//! Agent mode: what asks for samples is refused, in Prometheus' words.

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

/// Paths below `/api/v1/` that an agent answers.
const ANSWERED: [&str; 10] = [
    "targets",
    "targets/metadata",
    "scrape_pools",
    "metadata",
    "features",
    "notifications",
    "notifications/live",
    "write",
    "otlp/v1/metrics",
    "router/",
];

/// `routes` without queries.
pub(super) fn refuse_queries(routes: axum::Router) -> axum::Router {
    routes.layer(middleware::from_fn(refuse))
}

async fn refuse(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let Some((_, below)) = path.split_once("/api/v1/") else {
        if path.ends_with("/federate") {
            return (StatusCode::INTERNAL_SERVER_ERROR, "unsupported operation with WAL-only storage\n")
                .into_response();
        }
        return next.run(request).await;
    };
    let is_status = below.starts_with("status/") && below != "status/tsdb" && below != "status/tsdb/blocks";
    if is_status
        || ANSWERED.iter().any(|path| below == *path || path.ends_with('/') && below.starts_with(path))
    {
        return next.run(request).await;
    }
    let body = r#"{"status":"error","errorType":"execution","error":"unavailable with Prometheus Agent"}"#;
    (StatusCode::UNPROCESSABLE_ENTITY, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
