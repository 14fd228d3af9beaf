//! `POST /api/v1/read`: remote read, served.

use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use remote::read::{ReadError, answer, parse};

use crate::State;
use crate::reading::Reading;
use crate::write::read_body;

pub(crate) async fn read(Shared(state): Shared<State>, request: Request) -> Response {
    let Ok(running) = state.running() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable").into_response();
    };
    if let Some(note) = state.history_note() {
        // The protocol has no place for a warning, and half an answer must not pass for a whole one.
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{note}\n")).into_response();
    }
    let reading = Reading::strict(running);
    let body = match read_body(request.into_body()).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let limits = &state.options().remote_read;
    let permit = match &limits.slots {
        Some(slots) => Arc::clone(slots).acquire_owned().await.ok(),
        None => None,
    };
    let (external, samples_max) = (state.options().external_labels.clone(), limits.samples_max);
    let outcome = tokio::task::spawn_blocking(move || {
        let queries = parse(&body)?;
        let answered = reading.on(|querier| answer(querier, &queries, &external, samples_max));
        drop(permit);
        answered
    });
    match outcome.await {
        Ok(Ok(answer)) => {
            let headers =
                [(header::CONTENT_TYPE, "application/x-protobuf"), (header::CONTENT_ENCODING, "snappy")];
            (headers, answer).into_response()
        }
        Ok(Err(error)) => {
            let status = match &error {
                ReadError::Malformed(_) | ReadError::TooManySamples(_) => StatusCode::BAD_REQUEST,
                ReadError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, format!("{error}\n")).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
