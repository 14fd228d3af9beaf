//! `/api/v1/query_exemplars`: exemplars of the series that an expression reads.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use model::{Exemplar, Labels};
use serde_json::{Value, json};

use crate::State;
use crate::envelope::{ApiError, success_with};
use crate::params::Params;
use crate::reading::Reading;
use crate::targets::object;

pub(crate) async fn exemplars(Shared(state): Shared<State>, params: Params) -> Result<Response, ApiError> {
    let start = params.time("start")?.unwrap_or(model::TimeRange::ALL.start);
    let end = params.time("end")?.unwrap_or(model::TimeRange::ALL.end);
    if end < start {
        return Err(ApiError::bad_data(
            "invalid parameter \"end\": end timestamp must not be before start timestamp".to_owned(),
        ));
    }
    let text = params.get("query").unwrap_or_default();
    let expr = promql::parse(text, &state.options().grammar)
        .map_err(|error| ApiError::bad_data(error.to_string()))?;
    let selectors: Vec<_> = expr.selectors().into_iter().map(|selector| selector.matchers.clone()).collect();
    if selectors.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let reading = Reading::new(&state, &params)?;
    let (found, warnings) = reading.exemplars(selectors, model::TimeRange::new(start, end)).await?;
    let series: Vec<Value> = found.iter().map(|(labels, exemplars)| entry(labels, exemplars)).collect();
    Ok(success_with(&series, &warnings))
}

fn entry(labels: &Labels, exemplars: &[Exemplar]) -> Value {
    let exemplars: Vec<Value> = exemplars
        .iter()
        .map(|exemplar| {
            let mut value = String::new();
            model::float::push_json(&mut value, exemplar.value);
            json!({
                "labels": object(&exemplar.labels),
                "value": value,
                "timestamp": seconds(exemplar.ts),
            })
        })
        .collect();
    json!({"seriesLabels": object(labels), "exemplars": exemplars})
}

/// A timestamp as a JSON number of seconds, whole where it is.
#[expect(clippy::cast_precision_loss, reason = "milliseconds since the epoch are far below 2^53")]
fn seconds(ts: model::Timestamp) -> Value {
    if ts % 1000 == 0 { json!(ts / 1000) } else { json!(ts as f64 / 1000.0) }
}
