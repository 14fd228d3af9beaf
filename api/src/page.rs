//! The web page's files, and the headers that let other pages read the API.

use axum::extract::{Request, State as Shared};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::State;

/// Only this process may be asked, and nothing from elsewhere runs.
const CONTENT_SECURITY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:";

pub(crate) async fn file(uri: Uri) -> Response {
    match ui::file(uri.path()) {
        Some(file) => {
            let headers = [
                (header::CONTENT_TYPE, file.content_type),
                (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY),
                (header::CACHE_CONTROL, "no-cache"),
            ];
            (headers, file.bytes).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Prometheus' pages for an expression, to which its links in alerts lead, are a part of ours. The place is relative, for
/// there may be a prefix before it.
pub(crate) async fn of_expression(uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    let place = if query.is_empty() { "./".to_owned() } else { format!("./?{query}") };
    (StatusCode::FOUND, [(header::LOCATION, place)]).into_response()
}

/// Says in words what a status says alone.
pub(crate) async fn in_words(response: Response) -> Response {
    let text = match response.status() {
        StatusCode::NOT_FOUND => "404 page not found\n",
        StatusCode::METHOD_NOT_ALLOWED => "Method Not Allowed\n",
        _ => return response,
    };
    if response.headers().contains_key(header::CONTENT_TYPE) {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    parts.headers.insert(header::CONTENT_TYPE, kind);
    Response::from_parts(parts, text.into())
}

/// Refuses `HEAD` where it would take a whole answer to leave out, as Prometheus does.
pub(crate) async fn refuse_heads(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_data = path.starts_with("/api/v1/") || path == "/metrics" || path == "/federate";
    if request.method() == Method::HEAD && is_data {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET")]).into_response();
    }
    next.run(request).await
}

/// Adds the CORS headers for the origins that may read the API, and answers preflight requests.
pub(crate) async fn cors(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = state.options().cors_origin.as_deref();
    let origin = origin.filter(|origin| {
        allowed.is_none_or(|regex| origin.to_str().is_ok_and(|origin| regex.is_match(origin)))
    });
    let is_api = request.uri().path().starts_with("/api/v1/");
    let preflight = request.method() == Method::OPTIONS && is_api;
    let mut response =
        if preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    if is_api || origin.is_some() {
        // Whoever keeps answers must not give that of one origin to another. Compression has added its own.
        response.headers_mut().append(header::VARY, HeaderValue::from_static("Origin"));
    }
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        // Where anybody may, all are told the same.
        let who = if allowed.is_none() { HeaderValue::from_static("*") } else { origin };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, who);
        let allowed = HeaderValue::from_static("Accept, Authorization, Content-Type, Origin");
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        let methods = HeaderValue::from_static("GET, POST, OPTIONS");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Date"));
    }
    response
}
