//! The shard's HTTP side: what routers send, and what queriers ask.

use std::sync::{Arc, OnceLock};

use axum::Router as Routes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use cluster::SHARD_QUERY_PATH;
use model::QueryCancelled;
use remote::router::{Admission, EPOCH_HEADER, Fence, Origin, ROUTER_HEADER, SEQ_HEADER, SHARD_WRITE_PATH};
use scraper::Shutdown;

use super::parts::Store;
use super::router::{read, refusal};
use super::{Flags, map};

/// A question is an expression, matchers and 2 KiB of slots.
const QUESTION_BYTES_MAX: usize = 4 << 20;

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    store: Arc<OnceLock<Store>>,
    fence: Arc<Fence>,
}

/// What a shard answers besides a server's own paths. A shard needs no map; one with a map knows sooner
/// which one is in force.
pub(super) fn routes(flags: &Flags, store: Arc<OnceLock<Store>>, stop: &Shutdown) -> Routes {
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
    Routes::new()
        .route(SHARD_WRITE_PATH, post(write))
        .route(SHARD_QUERY_PATH, post(query).get(epoch))
        .with_state(Shared { store, fence })
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
    let Some(store) = shared.store.get() else { return opening() };
    // What waited for this shard is older than the newest of its history, and would be taken for out of order
    // when that is there. The router keeps it.
    if let tsdb::History::Attaching(_) = store.db.history() {
        let what = "the shard is reading its samples from before its start\n";
        return (StatusCode::SERVICE_UNAVAILABLE, what).into_response();
    }
    let receiver = Arc::clone(&store.receiver);
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

fn opening() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the store is being opened\n").into_response()
}

/// Sets its flag when the handler is dropped, which is what happens when the querier hangs up.
struct CancelOnDrop(Arc<QueryCancelled>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// The newest slot map heard of; 0 if none was.
async fn epoch(State(shared): State<Shared>) -> String {
    shared.fence.epoch().to_string()
}

async fn query(State(shared): State<Shared>, body: axum::body::Body) -> Response {
    let bad = |what: String| (StatusCode::BAD_REQUEST, format!("{what}\n")).into_response();
    let body = match axum::body::to_bytes(body, QUESTION_BYTES_MAX).await {
        Ok(body) => body,
        Err(error) => return bad(format!("reading the request: {error}")),
    };
    let request = match cluster::Request::decode(&body) {
        Ok(request) => request,
        Err(error) => return bad(error.to_string()),
    };
    if !shared.fence.hear(request.epoch) {
        let what = format!(
            "this shard knows slot map {}, the question was by {}\n",
            shared.fence.epoch(),
            request.epoch
        );
        return (StatusCode::CONFLICT, what).into_response();
    }
    if shared.store.get().is_none() {
        return opening();
    }
    let cancel = CancelOnDrop(Arc::new(QueryCancelled::new()));
    let cancelled = Arc::clone(&cancel.0);
    let answer = tokio::task::spawn_blocking(move || {
        let Some(store) = shared.store.get() else { return Vec::new() };
        // Asked before the snapshot is taken: what comes back meanwhile is one refusal too many.
        if let Some(why) = lacks(store.db.history()) {
            return cluster::Answer::StoreError(why).encode();
        }
        let (snapshot, exemplars) =
            (store.db.snapshot(), |selectors: &[_], range| store.db.exemplars(selectors, range));
        cluster::answer(&store.engine, (&snapshot, &exemplars), &request.ask, Some(&cancelled))
    });
    let answer = answer.await;
    drop(cancel);
    match answer {
        Ok(answer) => answer.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Why a store has not everything that was acknowledged, if it has not.
fn lacks(history: tsdb::History) -> Option<String> {
    match history {
        tsdb::History::Attached => None,
        tsdb::History::Attaching(_) => Some("it is reading its samples from before its start".to_owned()),
        tsdb::History::Failed(why) => {
            Some(format!("its samples from before its start cannot be read: {why}"))
        }
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
