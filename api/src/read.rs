//! `POST /api/v1/read`: remote read, served.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use model::Labels;
use remote::read::{ReadError, ReadQuery, answer, parse, stream};
use tokio::sync::OwnedSemaphorePermit;

use crate::State;
use crate::reading::Reading;
use crate::write::read_body;

/// The type of a streamed answer.
const STREAMED: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
/// Pieces of an answer that wait for the client.
const PIECES_AHEAD: usize = 4;

pub(crate) async fn read(Shared(state): Shared<State>, request: Request) -> Response {
    let Ok(running) = state.running() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable").into_response();
    };
    if let Some(note) = state.history_note() {
        // The protocol has no place for a warning, and half an answer must not pass for a whole one.
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{note}\n")).into_response();
    }
    let reading = Reading::strict(running);
    // Shards hand out samples, not chunks.
    let own_store = running.cell.is_none().then(|| Arc::clone(&running.store));
    let body = match read_body(request.into_body()).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let limits = &state.options().remote_read;
    let permit = match &limits.slots {
        Some(slots) => Arc::clone(slots).acquire_owned().await.ok(),
        None => None,
    };
    let limits = limits.clone();
    let external = state.options().external_labels.clone();
    let parsed = match parse(&body) {
        Ok(request) => request,
        Err(error) => return refusal(&error),
    };
    drop(body);
    if let Some(store) = own_store.filter(|_| parsed.streamed) {
        return streamed(store, parsed.queries, external, (permit, limits.frame_bytes_max)).await;
    }
    let outcome = tokio::task::spawn_blocking(move || {
        let answered = reading.on(|querier| answer(querier, &parsed.queries, &external, limits.samples_max));
        drop(permit);
        answered
    });
    match outcome.await {
        Ok(Ok(answer)) => {
            let headers =
                [(header::CONTENT_TYPE, "application/x-protobuf"), (header::CONTENT_ENCODING, "snappy")];
            (headers, answer).into_response()
        }
        Ok(Err(error)) => refusal(&error),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn refusal(error: &ReadError) -> Response {
    let status = match error {
        ReadError::Malformed(_) | ReadError::TooManySamples(_) => StatusCode::BAD_REQUEST,
        ReadError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, format!("{error}\n")).into_response()
}

/// Answers with a stream of chunks. It is read from the store as fast as the client takes it; a client that
/// leaves ends it. What fails on the way cuts the answer off, so that half of one does not look whole.
async fn streamed(
    store: Arc<tsdb::Db>,
    queries: Vec<ReadQuery>,
    external: Labels,
    (permit, frame_bytes_max): (Option<OwnedSemaphorePermit>, usize),
) -> Response {
    let (pieces, mut taken) = tokio::sync::mpsc::channel::<Result<Vec<u8>, ReadError>>(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut give = |piece| pieces.blocking_send(Ok(piece)).is_ok();
        let done = stream(&store.snapshot(), &queries, &external, frame_bytes_max, &mut give);
        drop(permit);
        if let Err(error) = done {
            let _ = pieces.blocking_send(Err(error));
        }
    });
    // What fails before anything was sent still has a status of its own.
    let first = taken.recv().await;
    if let Some(Err(error)) = &first {
        return refusal(error);
    }
    let rest = futures::stream::poll_fn(move |context| taken.poll_recv(context));
    let body = Body::from_stream(futures::stream::iter(first).chain(rest));
    ([(header::CONTENT_TYPE, STREAMED)], body).into_response()
}
