//! `POST /api/v1/write`: the remote-write receiver.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, Limited};
use remote::receive::{Encoding, ReceiveError};

use crate::State;

/// A compressed request may have this many bytes.
const BODY_BYTES_MAX: usize = 32 << 20;

pub(crate) async fn write(Shared(state): Shared<State>, request: Request) -> Response {
    let Ok(running) = state.running() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable").into_response();
    };
    let Some(receiver) = running.receiver.clone() else {
        let what = "remote write receiver needs to be enabled with --web.enable-remote-write-receiver\n";
        return (StatusCode::NOT_FOUND, what).into_response();
    };
    let (parts, body) = request.into_parts();
    let encoding = match encoding(&parts.headers) {
        Ok(encoding) => encoding,
        Err(error) => return refusal(&error),
    };
    let body = match read_body(body).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    // A commit writes to the log.
    let outcome = tokio::task::spawn_blocking(move || Arc::clone(&receiver).receive(encoding, &body)).await;
    match outcome {
        Ok(Ok(written)) => (StatusCode::NO_CONTENT, written.headers()).into_response(),
        Ok(Err(error)) => refusal(&error),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, ReceiveError> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    Encoding::from_headers(text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING))
}

/// A whole body, if it is not too large.
pub(crate) async fn read_body(body: Body) -> Result<Bytes, Box<Response>> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => {
            let too_large = error.is::<http_body_util::LengthLimitError>();
            let status = if too_large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
            Err(Box::new((status, format!("reading the request: {error}\n")).into_response()))
        }
    }
}

/// 4xx for what must not be sent again, 5xx for what may be.
fn refusal(error: &ReceiveError) -> Response {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, error.written().headers(), format!("{error}\n")).into_response()
}
