//! The endpoints.

use std::collections::HashMap;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::{Agent, AgentError, Look, cadvisor, resource, summary};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) fn build(agent: Agent) -> Router {
    Router::new()
        .route("/metrics/resource", get(serve_resource))
        .route("/metrics/cadvisor", get(serve_cadvisor))
        .route("/stats/summary", get(serve_summary))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(agent)
}

/// Looks at the host and renders the outcome, both on a thread that may block.
async fn render(
    agent: Agent,
    render: impl FnOnce(&Agent, Result<Look, AgentError>) -> Response + Send + 'static,
) -> Response {
    let rendered = tokio::task::spawn_blocking(move || {
        let look = agent.look();
        if let Err(error) = &look {
            tracing::warn!(%error, "the host could not be read");
        }
        render(&agent, look)
    });
    rendered.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

fn text(page: String) -> Response {
    ([(header::CONTENT_TYPE, TEXT)], page).into_response()
}

/// A kubelet that fails answers 200 with `resource_scrape_error 1` and nothing else.
async fn serve_resource(State(agent): State<Agent>) -> Response {
    render(agent, |_, look| {
        text(look.map_or_else(|_| resource::render_error(), |look| resource::render(&look.latest)))
    })
    .await
}

async fn serve_cadvisor(State(agent): State<Agent>) -> Response {
    render(agent, |agent, look| match look {
        Ok(look) => text(cadvisor::render(&look.latest, agent.machine())),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    })
    .await
}

async fn serve_summary(State(agent): State<Agent>, Query(query): Query<HashMap<String, String>>) -> Response {
    let brief = query.get("only_cpu_and_memory").is_some_and(|value| value == "true");
    render(agent, move |agent, look| match look {
        Ok(look) => axum::Json(summary::build(agent, &look, brief)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    })
    .await
}
