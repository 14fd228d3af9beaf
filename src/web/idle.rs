//! Connections on which no request is under way, or one that its client still sends, so that the oldest of them can make room for a new one.
//!
//! Without this, clients that open connections and say nothing keep everybody else waiting for as long as they
//! may take to say something. A connection costs an entry of about 60 bytes here.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// All of them, the one that has been idle for longest first.
#[derive(Default)]
pub(crate) struct IdleConnections {
    order: Mutex<Order>,
    /// There is one more.
    added: Notify,
}

#[derive(Default)]
struct Order {
    next: u64,
    connections: BTreeMap<u64, CancellationToken>,
}

impl IdleConnections {
    fn add(&self, closed: CancellationToken) -> u64 {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let place = order.next;
        order.next += 1;
        order.connections.insert(place, closed);
        drop(order);
        self.added.notify_one();
        place
    }

    fn remove(&self, place: u64) {
        self.order.lock().unwrap_or_else(PoisonError::into_inner).connections.remove(&place);
    }

    /// Has the oldest one closed; whether there was one.
    pub(super) fn close_oldest(&self) -> bool {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = order.connections.pop_first();
        if let Some((_, closed)) = &oldest {
            closed.cancel();
        }
        oldest.is_some()
    }

    /// Waits until there may be one more.
    pub(super) async fn added(&self) {
        self.added.notified().await;
    }
}

/// What a connection is doing: idle from its beginning, between requests, and never again once this is dropped.
pub(super) struct Doing {
    all: Arc<IdleConnections>,
    closed: CancellationToken,
    requests: AtomicUsize,
    place: Mutex<Option<u64>>,
}

impl Doing {
    pub(super) fn new(all: &Arc<IdleConnections>) -> Arc<Self> {
        let closed = CancellationToken::new();
        let place = Mutex::new(Some(all.add(closed.clone())));
        Arc::new(Self { all: Arc::clone(all), closed, requests: AtomicUsize::new(0), place })
    }

    /// Is over once the connection must make room.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// A request that is under way once its client has said all of it.
    pub(super) fn expect(self: &Arc<Self>) -> Arc<Expected> {
        Arc::new(Expected { doing: Arc::clone(self), under_way: OnceLock::new() })
    }

    /// A request has begun. It is under way until what this gives is dropped.
    fn begin(self: &Arc<Self>) -> UnderWay {
        if self.requests.fetch_add(1, Ordering::Relaxed) == 0 {
            let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = place.take() {
                self.all.remove(place);
            }
        }
        UnderWay(Arc::clone(self))
    }
}

impl Drop for Doing {
    fn drop(&mut self) {
        let place = self.place.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = place.take() {
            self.all.remove(place);
        }
    }
}

/// A request whose client may still be sending it: until that is done, the connection counts as idle, for a client may
/// take its time.
pub(super) struct Expected {
    doing: Arc<Doing>,
    under_way: OnceLock<UnderWay>,
}

impl Expected {
    /// All of it is here, or no more of it is waited for.
    pub(super) fn arrived(&self) {
        self.under_way.get_or_init(|| self.doing.begin());
    }
}

/// A request that is under way.
struct UnderWay(Arc<Doing>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let doing = &self.0;
        if doing.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            let mut place = doing.place.lock().unwrap_or_else(PoisonError::into_inner);
            if place.is_none() {
                *place = Some(doing.all.add(doing.closed.clone()));
            }
        }
    }
}

/// The request is under way until its answer has been taken from here.
pub(super) fn until_answered(response: Response, request: Arc<Expected>) -> Response {
    request.arrived();
    response.map(|body| Body::new(Answered { body, _request: request }))
}

struct Answered {
    body: Body,
    _request: Arc<Expected>,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(all: &IdleConnections) -> usize {
        all.order.lock().unwrap().connections.len()
    }

    #[test]
    fn the_one_that_has_been_idle_for_longest_makes_room() {
        let all = Arc::<IdleConnections>::default();
        let [first, second, third] = [(); 3].map(|()| Doing::new(&all));
        let is_closed = |doing: &Doing| doing.closed.is_cancelled();
        // Busy ones are not there, with one request or two.
        let (one, two) = (first.begin(), first.begin());
        assert_eq!(count(&all), 2);
        drop(one);
        assert!(all.close_oldest());
        assert!(!is_closed(&first) && is_closed(&second) && !is_closed(&third));
        // Who has just been answered comes last.
        drop(two);
        assert!(all.close_oldest());
        assert!(!is_closed(&first) && is_closed(&third));
        // A request counts once it has arrived.
        let request = first.expect();
        assert_eq!(count(&all), 1);
        request.arrived();
        request.arrived();
        assert_eq!(count(&all), 0);
        drop(request);
        assert_eq!(count(&all), 1);
        drop(first);
        assert!(!all.close_oldest());
    }
}
