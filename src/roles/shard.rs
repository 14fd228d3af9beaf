//! The shard's HTTP side: what routers send, and what queriers ask.

use std::sync::Arc;

use axum::Router as Routes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use remote::router::{Admission, EPOCH_HEADER, Fence, Origin, ROUTER_HEADER, SEQ_HEADER, SHARD_WRITE_PATH};
use scraper::Shutdown;

use super::parts::Store;
use super::router::{read, refusal};
use super::{Flags, map};

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    receiver: Store,
    fence: Arc<Fence>,
}

/// What a shard answers besides a server's own paths. A shard needs no map; one with a map knows sooner
/// which one is in force.
pub(super) fn routes(flags: &Flags, receiver: Store, stop: &Shutdown) -> Routes {
    let fence = Arc::new(Fence::default());
    if let Some(path) = flags.map.clone() {
        let fence = Arc::clone(&fence);
        map::watch(path, stop.clone(), move |read| match read {
            Ok(map) => {
                fence.hear(map.epoch());
            }
            Err(error) => tracing::error!("the slot map cannot be read: {error}"),
        });
    }
    Routes::new().route(SHARD_WRITE_PATH, post(write)).with_state(Shared { receiver, fence })
}

async fn write(State(shared): State<Shared>, request: Request) -> Response {
    let headers = request.headers().clone();
    let Some(origin) = origin(&headers) else {
        let what = format!("{ROUTER_HEADER}, {EPOCH_HEADER} and {SEQ_HEADER} are needed\n");
        return (StatusCode::BAD_REQUEST, what).into_response();
    };
    match shared.fence.admit(origin) {
        Admission::Stale(epoch) => {
            let what =
                format!("this shard knows slot map {epoch}, the request was made by {}\n", origin.epoch);
            return (StatusCode::CONFLICT, what).into_response();
        }
        Admission::Repeated(written) => return (StatusCode::NO_CONTENT, written.headers()).into_response(),
        Admission::New => {}
    }
    let (encoding, body) = match read(request).await {
        Ok(read) => read,
        Err(response) => return *response,
    };
    let Some(receiver) = shared.receiver.get().map(Arc::clone) else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the store is being opened\n").into_response();
    };
    // A commit writes to the log.
    match tokio::task::spawn_blocking(move || receiver.receive(encoding, &body)).await {
        Ok(Ok(written)) => {
            shared.fence.stored(origin, written);
            (StatusCode::NO_CONTENT, written.headers()).into_response()
        }
        Ok(Err(error)) => refusal(&error),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn origin(headers: &HeaderMap) -> Option<Origin<'_>> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let number = |name: &str| text(name)?.parse().ok();
    Some(Origin { router: text(ROUTER_HEADER)?, epoch: number(EPOCH_HEADER)?, seq: number(SEQ_HEADER)? })
}

/// Whether a body ended because it was longer than allowed.
pub(super) fn is_too_long(error: &axum::Error) -> bool {
    use std::error::Error as _;
    error.source().is_some_and(|source| source.to_string().contains("length limit"))
}
