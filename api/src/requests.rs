//! Counts of HTTP requests by route and status.

use std::collections::BTreeMap;
use std::sync::Mutex;

use axum::extract::{MatchedPath, Request, State as Shared};
use axum::middleware::Next;
use axum::response::Response;

use crate::State;

/// Requests by route and status code. The routes are few and fixed, so the map is small.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<BTreeMap<(String, u16), u64>>);

impl Requests {
    fn add(&self, route: &str, code: u16) {
        if let Ok(mut counts) = self.0.lock() {
            *counts.entry((route.to_owned(), code)).or_default() += 1;
        }
    }

    /// All counts, in order of routes.
    pub(crate) fn counts(&self) -> Vec<(String, u16, u64)> {
        let Ok(counts) = self.0.lock() else { return Vec::new() };
        counts.iter().map(|((route, code), count)| (route.clone(), *code, *count)).collect()
    }
}

pub(crate) async fn count(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = next.run(request).await;
    state.0.requests.add(route.as_deref().unwrap_or("unknown"), response.status().as_u16());
    response
}
