//! `/api/v1/admin/tsdb/...`: what changes the store from outside, where it is allowed.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tsdb::Db;

use crate::State;
use crate::envelope::{ApiError, ErrorKind, success};
use crate::params::{Params, invalid};

/// The store, if the admin API is enabled.
fn store(state: &State) -> Result<Arc<Db>, ApiError> {
    if !state.options().admin {
        return Err(ApiError::new(ErrorKind::Disabled, "admin APIs disabled".to_owned()));
    }
    Ok(Arc::clone(&state.running()?.store))
}

/// Runs `work` off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, tsdb::CommitError> + Send + 'static,
) -> Result<T, ApiError> {
    let internal = |what: String| ApiError::new(ErrorKind::Internal, what);
    let outcome = tokio::task::spawn_blocking(work).await.map_err(|error| internal(error.to_string()))?;
    outcome.map_err(|error| internal(error.to_string()))
}

pub(crate) async fn delete_series(
    Shared(state): Shared<State>,
    params: Params,
) -> Result<Response, ApiError> {
    let store = store(&state)?;
    let selectors = params.required_selectors()?;
    let range = params.range()?;
    blocking(move || selectors.iter().try_for_each(|matchers| store.delete(matchers, range))).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn clean_tombstones(Shared(state): Shared<State>) -> Result<Response, ApiError> {
    let store = store(&state)?;
    blocking(move || store.clean_tombstones()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn snapshot(Shared(state): Shared<State>, params: Params) -> Result<Response, ApiError> {
    let store = store(&state)?;
    let skip_head = match params.get("skip_head") {
        None | Some("false" | "0" | "f" | "F" | "FALSE" | "False") => false,
        Some("true" | "1" | "t" | "T" | "TRUE" | "True") => true,
        Some(other) => return Err(invalid("skip_head", &format!("{other:?} is neither true nor false"))),
    };
    let name = snapshot_name(state.now());
    let dir: PathBuf = store.dir().join("snapshots").join(&name);
    blocking(move || store.copy_to(&dir, !skip_head)).await?;
    Ok(success(&json!({"name": name})))
}

/// Prometheus' form: the second, and 64 bits in hexadecimal that make it unique.
fn snapshot_name(now: model::Timestamp) -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let second = jiff::Timestamp::from_millisecond(now).unwrap_or_default();
    let unique = RandomState::new().hash_one(now);
    format!("{}-{unique:016x}", second.strftime("%Y%m%dT%H%M%SZ"))
}
