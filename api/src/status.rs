//! What this server is and how it is doing.

use axum::extract::State as Shared;
use axum::http::Uri;
use axum::response::Response;
use serde_json::json;

use crate::State;
use crate::envelope::{ApiError, ErrorKind, success};
use crate::targets::rfc3339;

/// The Prometheus release whose API this is; clients decide by it what they may ask.
const COMPATIBLE_VERSION: &str = "3.14.0";

pub(crate) async fn build_info(Shared(state): Shared<State>) -> Response {
    let build = &state.options().build;
    success(&json!({
        "version": COMPATIBLE_VERSION,
        "revision": build.revision,
        "branch": "",
        "buildUser": format!("pyrometer@{}", build.version),
        "buildDate": "",
        "goVersion": build.rust_version,
    }))
}

pub(crate) async fn version(Shared(state): Shared<State>) -> Response {
    let build = &state.options().build;
    axum::response::IntoResponse::into_response(axum::Json(json!({
        "version": build.version, "revision": build.revision, "compatible": COMPATIBLE_VERSION,
    })))
}

pub(crate) async fn runtime_info(Shared(state): Shared<State>) -> Result<Response, ApiError> {
    let store = state.running()?.store.stats();
    let config = state.0.config.read().map(|config| config.clone()).unwrap_or_default();
    Ok(success(&json!({
        "startTime": rfc3339(Some(state.0.started_ms)),
        "CWD": "",
        "hostname": "",
        "serverTime": rfc3339(Some(state.now())),
        "reloadConfigSuccess": config.last_reload_ok,
        "lastConfigTime": rfc3339(Some(config.loaded_ms)),
        "corruptionCount": 0,
        "goroutineCount": crate::process::Process::read().threads.unwrap_or(0),
        "GOMAXPROCS": std::thread::available_parallelism().map_or(1, usize::from),
        "GOMEMLIMIT": 0,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": state.options().retention,
        "timeSeriesCount": store.head_series,
    })))
}

pub(crate) async fn config(Shared(state): Shared<State>) -> Response {
    let text = state.0.config.read().map(|config| config.text.clone()).unwrap_or_default();
    success(&json!({"yaml": text}))
}

pub(crate) async fn flags(Shared(state): Shared<State>) -> Response {
    success(&state.options().flags)
}

pub(crate) async fn tsdb(Shared(state): Shared<State>) -> Result<Response, ApiError> {
    let store = state.running()?.store.stats();
    Ok(success(&json!({
        "headStats": {
            "numSeries": store.head_series,
            "numLabelPairs": 0,
            "chunkCount": store.head_chunks,
            "minTime": store.head_min_ts.unwrap_or(0),
            "maxTime": store.head_max_ts.unwrap_or(0),
        },
        "seriesCountByMetricName": [],
        "labelValueCountByLabelName": [],
        "memoryInBytesByLabelName": [],
        "seriesCountByLabelValuePair": [],
    })))
}

pub(crate) async fn wal_replay(Shared(state): Shared<State>) -> Response {
    let (min, max, current) = state.0.progress.read().map(|progress| *progress).unwrap_or_default();
    success(&json!({"min": min, "max": max, "current": current}))
}

pub(crate) async fn unknown(uri: Uri) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("{} is not supported", uri.path()))
}
