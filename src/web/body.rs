//! Request bodies that must arrive in time.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::idle::Expected;

struct Timely {
    body: Incoming,
    deadline: Pin<Box<Sleep>>,
    request: Arc<Expected>,
}

/// A body that fails if it has not arrived whole within `patience`. Most requests have none, and
/// those get no timer. Once it has arrived, `request` is under way.
pub(super) fn until(body: Incoming, patience: Duration, request: Arc<Expected>) -> Body {
    if body.is_end_stream() {
        request.arrived();
        return Body::empty();
    }
    Body::new(Timely { body, deadline: Box::pin(tokio::time::sleep(patience)), request })
}

impl HttpBody for Timely {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if frame.is_none() || self.body.is_end_stream() {
                self.request.arrived();
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let late = self.deadline.as_mut().poll(context);
        late.map(|()| Some(Err("the request did not arrive within --web.read-timeout".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
