//! What an operator should know of now: a configuration that was refused, history that is not there.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use crate::State;
use crate::envelope::success;
use crate::targets::rfc3339;

/// Followers see a change within this time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The texts that are true now.
fn active(state: &State) -> Vec<String> {
    let mut texts = Vec::new();
    if state.0.config.read().is_ok_and(|config| config.loaded_ms > 0 && !config.last_reload_ok) {
        texts.push("Configuration reload has failed.".to_owned());
    }
    if state.is_stopping() {
        texts.push("Pyrometer is shutting down and gracefully stopping all operations.".to_owned());
    } else if state.running().is_err() {
        texts.push("Pyrometer is starting and opening the store.".to_owned());
    }
    texts.extend(state.history_note());
    texts
}

fn entry(text: &str, since: i64, active: bool) -> Value {
    json!({"text": text, "date": rfc3339(Some(since)), "active": active})
}

pub(crate) async fn list(Shared(state): Shared<State>) -> Response {
    let now = state.now();
    let all: Vec<Value> = active(&state).iter().map(|text| entry(text, now, true)).collect();
    success(&all)
}

/// A client that is told of changes.
struct Follower {
    state: State,
    /// What it knows, and since when.
    known: BTreeMap<String, i64>,
    waiting: Vec<Value>,
    _slot: OwnedSemaphorePermit,
}

impl Follower {
    fn look(&mut self) {
        let now = self.state.now();
        let texts = active(&self.state);
        for text in &texts {
            if !self.known.contains_key(text) {
                self.known.insert(text.clone(), now);
                self.waiting.push(entry(text, now, true));
            }
        }
        let waiting = &mut self.waiting;
        self.known.retain(|text, since| {
            let stays = texts.contains(text);
            if !stays {
                waiting.push(entry(text, *since, false));
            }
            stays
        });
    }

    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            if let Some(value) = (!self.waiting.is_empty()).then(|| self.waiting.remove(0)) {
                return Some((Ok(Event::default().data(value.to_string())), self));
            }
            if self.state.is_stopping() {
                return None;
            }
            self.look();
            if self.waiting.is_empty() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }
}

/// The same as a stream of events; 204 when there are too many followers.
pub(crate) async fn live(Shared(state): Shared<State>) -> Response {
    let Ok(slot) = Arc::clone(&state.0.followers).try_acquire_owned() else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let follower = Follower { state, known: BTreeMap::new(), waiting: Vec::new(), _slot: slot };
    let events = futures::stream::unfold(follower, Follower::next);
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}
