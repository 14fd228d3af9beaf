//! `POST /api/v1/otlp/v1/metrics`: OTLP metrics over HTTP.

use std::io::Read as _;
use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use remote::otlp::{Format, OtlpError};

use crate::State;
use crate::write::read_body;

/// A decompressed request may have this many bytes.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;

pub(crate) async fn write(Shared(state): Shared<State>, request: Request) -> Response {
    let Ok(running) = state.running() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable").into_response();
    };
    let Some(receiver) = running.otlp.clone() else {
        let what = "otlp write receiver needs to be enabled with --web.enable-otlp-receiver\n";
        return (StatusCode::NOT_FOUND, what).into_response();
    };
    let (parts, body) = request.into_parts();
    let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    let format = match content_type {
        "application/x-protobuf" => Format::Protobuf,
        "application/json" => Format::Json,
        other => {
            let what = format!(
                "unsupported content type: {other:?}, supported: application/json, application/x-protobuf\n"
            );
            return (StatusCode::UNSUPPORTED_MEDIA_TYPE, what).into_response();
        }
    };
    let zipped = match text(header::CONTENT_ENCODING) {
        "" | "identity" => false,
        "gzip" => true,
        other => {
            let what = format!("unsupported compression: {other:?}, supported: gzip\n");
            return (StatusCode::UNSUPPORTED_MEDIA_TYPE, what).into_response();
        }
    };
    let body = match read_body(body).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let outcome = tokio::task::spawn_blocking(move || {
        let body = if zipped { unzip(&body)? } else { body.to_vec() };
        Arc::clone(&receiver).receive(format, &body)
    });
    match outcome.await {
        Ok(Ok(())) => {
            // An empty `ExportMetricsServiceResponse` in the request's encoding.
            let answer = if format == Format::Json { "{}" } else { "" };
            ([(header::CONTENT_TYPE, content_type)], answer).into_response()
        }
        Ok(Err(error)) => {
            let status = match &error {
                OtlpError::Malformed(_) | OtlpError::Partial { .. } => StatusCode::BAD_REQUEST,
                OtlpError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, format!("{error}\n")).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn unzip(body: &[u8]) -> Result<Vec<u8>, OtlpError> {
    let mut out = Vec::new();
    let read = flate2::read::MultiGzDecoder::new(body).take(MESSAGE_BYTES_MAX + 1).read_to_end(&mut out);
    match read {
        Err(error) => Err(OtlpError::Malformed(format!("decompressing: {error}"))),
        Ok(bytes) if bytes as u64 > MESSAGE_BYTES_MAX => {
            Err(OtlpError::Malformed(format!("the request has more than {MESSAGE_BYTES_MAX} bytes")))
        }
        Ok(_) => Ok(out),
    }
}
