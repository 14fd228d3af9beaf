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

/// Adds the CORS headers for the origins that may read the API, and answers preflight requests.
pub(crate) async fn cors(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = state.options().cors_origin.as_deref();
    let origin = origin.filter(|origin| {
        allowed.is_none_or(|regex| origin.to_str().is_ok_and(|origin| regex.is_match(origin)))
    });
    let preflight = request.method() == Method::OPTIONS && request.uri().path().starts_with("/api/v1/");
    let mut response =
        if preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        let allowed = HeaderValue::from_static("Accept, Authorization, Content-Type, Origin");
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        let methods = HeaderValue::from_static("GET, POST, OPTIONS");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Date"));
    }
    response
}
