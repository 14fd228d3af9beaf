//! What this server is and how it is doing.

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::response::Response;
use serde_json::{Value, json};

use crate::State;
use crate::envelope::{ApiError, ErrorKind, success};
use crate::params::Params;
use crate::targets::rfc3339;

/// The Prometheus release whose API this is; clients decide by it what they may ask.
pub(crate) const COMPATIBLE_VERSION: &str = "3.14.0";

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
        "CWD": state.options().working_dir,
        "hostname": state.options().host_name,
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

/// Entries of each list unless `limit` says otherwise, and at most.
const TOP: usize = 10;
const TOP_MAX: usize = 10_000;

pub(crate) async fn tsdb(Shared(state): Shared<State>, params: Params) -> Result<Response, ApiError> {
    let limit = params.get("limit").map_or(Some(TOP), |text| text.parse().ok());
    let Some(limit @ 1..) = limit else {
        return Err(ApiError::bad_data("limit must be a positive number".to_owned()));
    };
    if limit > TOP_MAX {
        return Err(ApiError::bad_data(format!("limit must not exceed {TOP_MAX}")));
    }
    let store = Arc::clone(&state.running()?.store);
    // Counting walks the whole index.
    let counted = tokio::task::spawn_blocking(move || (store.stats(), store.cardinality(limit))).await;
    let (stats, top) = counted.map_err(|error| ApiError::new(ErrorKind::Internal, error.to_string()))?;
    let list = |entries: Vec<(String, u64)>| -> Vec<Value> {
        entries.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
    };
    Ok(success(&json!({
        "headStats": {
            "numSeries": stats.head_series,
            "numLabelPairs": top.label_pairs,
            "chunkCount": stats.head_chunks,
            "minTime": stats.head_min_ts.unwrap_or(i64::MAX),
            "maxTime": stats.head_max_ts.unwrap_or(i64::MIN),
        },
        "seriesCountByMetricName": list(top.series_by_metric),
        "labelValueCountByLabelName": list(top.values_by_label),
        "memoryInBytesByLabelName": list(top.bytes_by_label),
        "seriesCountByLabelValuePair": list(top.series_by_pair),
    })))
}

/// The blocks, ascending by time.
pub(crate) async fn blocks(Shared(state): Shared<State>) -> Result<Response, ApiError> {
    Ok(success(&json!({"blocks": state.running()?.store.blocks()})))
}

/// What this server can do, for clients that ask before they use it.
pub(crate) async fn features(Shared(state): Shared<State>) -> Response {
    let options = state.options();
    let running = state.running().ok();
    let (written, otlp) = (
        running.is_some_and(|running| running.receiver.is_some()),
        running.is_some_and(|running| running.otlp.is_some()),
    );
    let engine = options.engine.options();
    success(&json!({
        "api": {
            "admin": options.admin, "lifecycle": options.lifecycle, "remote_write_receiver": written,
            "otlp_write_receiver": otlp, "query_stats": true, "query_warnings": true, "exclude_alerts": true,
            "label_values_match": true, "time_range_labels": true, "search": options.search_limit_max.is_some(), "time_range_series": true,
        },
        "promql": {
            "at_modifier": true, "negative_offset": true, "subqueries": true, "offset": true, "bool": true,
            "by": true, "without": true, "group_left": true, "group_right": true, "on": true, "ignoring": true,
            "duration_expr": true,
            "experimental_functions": options.grammar.experimental_functions,
            "anchored": options.grammar.extended_selectors, "smoothed": options.grammar.extended_selectors,
            "fill": options.grammar.fill_modifiers,
            "delayed_name_removal": engine.features.delayed_name_removal,
        },
        "tsdb": {"native_histograms": true, "exemplar_storage": true, "isolation": true, "snapshot": true},
        "scrape": {"native_histograms": true, "utf8": true},
    }))
}

pub(crate) async fn wal_replay(Shared(state): Shared<State>) -> Response {
    let (min, max, current) = state.0.progress.read().map(|progress| *progress).unwrap_or_default();
    success(&json!({"min": min, "max": max, "current": current}))
}
