//! `external.metrics.k8s.io/v1beta1`: metrics of nothing in the cluster, by rules over the store.

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State as Shared};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::accept;
use crate::adapter::values::{Found, View};
use crate::errors::ApiError;
use crate::metrics::{blocking, json};
use crate::objects::ListMeta;
use crate::selector::LabelSelector;
use crate::{State, custom, quantity};

/// The group.
pub(crate) const GROUP: &str = "external.metrics.k8s.io";

/// Parameters of a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Parameters {
    label_selector: String,
    watch: Option<String>,
    pretty: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalMetricValueList {
    kind: &'static str,
    api_version: &'static str,
    metadata: ListMeta,
    items: Vec<ExternalMetricValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalMetricValue {
    metric_name: String,
    metric_labels: BTreeMap<String, String>,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<i64>,
    value: String,
}

pub(crate) async fn values(
    Shared(state): Shared<State>,
    Path((namespace, metric)): Path<(String, String)>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    accept::core(&headers)?;
    if matches!(parameters.watch.as_deref(), Some("true" | "1")) {
        return Err(ApiError::no_watch("", GROUP));
    }
    let selector = LabelSelector::parse(&parameters.label_selector)?;
    let pretty = accept::wants_pretty(&headers, parameters.pretty.as_deref());
    let unknown = || ApiError::unknown(&format!("/apis/{GROUP}/v1beta1/namespaces/{namespace}/{metric}"));
    let adapter = state.adapter.clone().ok_or_else(unknown)?;
    let list = blocking(move || {
        let querier = state.source.querier()?;
        let view = View { engine: adapter.engine(), querier: &*querier, now: state.source.now() };
        let found = adapter.current().external_values(view, &namespace, &metric, &selector);
        let found =
            found.map_err(|error| custom::missing(error, &metric, &format!("namespace {namespace}")))?;
        let item = |found: Found| ExternalMetricValue {
            metric_name: metric.clone(),
            metric_labels: found.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
            timestamp: quantity::time(found.ts),
            window: found.window_ms.map(|ms| ms / 1000),
            value: found.quantity,
        };
        Ok(ExternalMetricValueList {
            kind: "ExternalMetricValueList",
            api_version: "external.metrics.k8s.io/v1beta1",
            metadata: ListMeta::default(),
            items: found.into_iter().map(item).collect(),
        })
    })
    .await?;
    Ok(json(&list, pretty))
}
