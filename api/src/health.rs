//! `/-/...`: health, and what an operator may demand.

use axum::extract::State as Shared;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::{Demand, State};

pub(crate) async fn healthy() -> &'static str {
    "Pyrometer is Healthy.\n"
}

pub(crate) async fn ready(Shared(state): Shared<State>) -> Response {
    if state.running().is_ok() {
        return "Pyrometer is Ready.\n".into_response();
    }
    let stopping = if state.is_stopping() { "true" } else { "false" };
    let header = (HeaderName::from_static("x-prometheus-stopping"), stopping);
    (StatusCode::SERVICE_UNAVAILABLE, [header], "Service Unavailable").into_response()
}

pub(crate) async fn reload(Shared(state): Shared<State>) -> Response {
    demand(&state, Demand::Reload).await
}

pub(crate) async fn quit(Shared(state): Shared<State>) -> Response {
    demand(&state, Demand::Quit).await
}

async fn demand(state: &State, demand: Demand) -> Response {
    if !state.options().lifecycle {
        return (StatusCode::FORBIDDEN, "Lifecycle API is not enabled.\n").into_response();
    }
    let state = state.clone();
    // Reading a configuration touches files.
    let outcome = tokio::task::spawn_blocking(move || match state.0.demands.get() {
        Some(handler) => handler(demand),
        None => Err("the server is still starting".to_owned()),
    });
    match outcome.await {
        Ok(Ok(())) if demand == Demand::Quit => "Requesting termination... Goodbye!\n".into_response(),
        Ok(Ok(())) => StatusCode::OK.into_response(),
        Ok(Err(what)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{what}\n")).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the demand ended abnormally\n").into_response(),
    }
}
