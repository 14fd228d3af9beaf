//! `POST /api/v1/write`: the remote-write receiver.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, Limited};
use remote::receive::{Encoding, Protocol, ReceiveError, Written};

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
    let checked = encoding(&parts.headers).and_then(|encoding| receiver.check(encoding).map(|()| encoding));
    let encoding = match checked {
        Ok(encoding) => encoding,
        Err(error) => return refusal(&error, Protocol::V1),
    };
    let body = match read_body(body).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    // A commit writes to the log.
    let outcome = tokio::task::spawn_blocking(move || Arc::clone(&receiver).receive(encoding, &body)).await;
    match outcome {
        Ok(Ok(written)) => told(StatusCode::NO_CONTENT, written, encoding.protocol),
        Ok(Err(error)) => refusal(&error, encoding.protocol),
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

/// What was stored, for a writer of 2.0; one of 1.0 knows no such headers.
fn told(status: StatusCode, written: Written, protocol: Protocol) -> Response {
    match protocol {
        Protocol::V1 => status.into_response(),
        Protocol::V2 => (status, written.headers()).into_response(),
    }
}

/// 4xx for what must not be sent again, 5xx for what may be.
fn refusal(error: &ReceiveError, protocol: Protocol) -> Response {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match error {
        ReceiveError::Partial { .. } | ReceiveError::Storage(_) => told(status, error.written(), protocol),
        // It was not read as far as that.
        _ => status.into_response(),
    };
    *response.body_mut() = format!("{error}\n").into();
    response
}
