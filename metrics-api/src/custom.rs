//! `custom.metrics.k8s.io`: metrics of objects, by rules over the store.

use axum::extract::{Path, Query, State as Shared};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::accept;
use crate::adapter::values::{Found, Missing, View, Wanted};
use crate::errors::ApiError;
use crate::metrics::{blocking, json};
use crate::objects::ListMeta;
use crate::selector::{LabelSelector, Requirement, Test};
use crate::{State, quantity};

/// The group.
pub(crate) const GROUP: &str = "custom.metrics.k8s.io";

/// Parameters of a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Parameters {
    label_selector: String,
    metric_label_selector: String,
    watch: Option<String>,
    pretty: Option<String>,
}

/// What a path below a version asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    namespace: Option<String>,
    resource: String,
    /// `*` for all that fit the label selector.
    name: String,
    metric: String,
}

impl Asked {
    fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        let asked = |namespace: Option<&str>, resource: &str, name: &str, metric: &str| {
            let full = ![resource, name, metric].contains(&"") && namespace != Some("");
            full.then(|| Self {
                namespace: namespace.map(str::to_owned),
                resource: resource.to_owned(),
                name: name.to_owned(),
                metric: metric.to_owned(),
            })
        };
        match parts.as_slice() {
            ["namespaces", namespace, "metrics", metric] => asked(None, "namespaces", namespace, metric),
            ["namespaces", namespace, resource, name, metric] => {
                asked(Some(namespace), resource, name, metric)
            }
            [resource, name, metric] => asked(None, resource, name, metric),
            _ => None,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetricValueList {
    kind: &'static str,
    api_version: String,
    metadata: ListMeta,
    items: Vec<MetricValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    described_object: ObjectReference,
    /// In v1beta2.
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<MetricIdentifier>,
    /// In v1beta1.
    #[serde(skip_serializing_if = "Option::is_none")]
    metric_name: Option<String>,
    timestamp: String,
    /// In v1beta2.
    #[serde(skip_serializing_if = "Option::is_none")]
    window_seconds: Option<i64>,
    /// In v1beta1.
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<i64>,
    value: String,
    /// In v1beta1, `null` for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct MetricIdentifier {
    name: String,
    selector: serde_json::Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectReference {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    name: String,
    api_version: String,
}

/// A selector as an object; `null` for one that selects everything.
fn selector_object(selector: &LabelSelector) -> serde_json::Value {
    if selector.is_empty() {
        return serde_json::Value::Null;
    }
    let (mut labels, mut expressions) = (serde_json::Map::new(), Vec::new());
    for Requirement { key, test } in selector.requirements() {
        let mut expression = |operator: &str, values: &[String]| {
            let mut object = serde_json::json!({"key": key, "operator": operator});
            if !values.is_empty() {
                object["values"] = values.into();
            }
            expressions.push(object);
        };
        match test {
            Test::In(values) if values.len() == 1 => {
                labels.insert(key.clone(), values[0].clone().into());
            }
            Test::In(values) => expression("In", values),
            Test::NotIn(values) => expression("NotIn", values),
            Test::Exists => expression("Exists", &[]),
            Test::Absent => expression("DoesNotExist", &[]),
            // Refused before a query is made of it.
            Test::Above(_) | Test::Below(_) => {}
        }
    }
    let mut out = serde_json::Map::new();
    if !labels.is_empty() {
        out.insert("matchLabels".to_owned(), labels.into());
    }
    if !expressions.is_empty() {
        out.insert("matchExpressions".to_owned(), expressions.into());
    }
    out.into()
}

/// What an absent metric is answered with: the adapter's words, and the reason.
pub(crate) fn missing(missing: Missing, metric: &str, of: &str) -> ApiError {
    match missing {
        Missing::Absent(reason) => ApiError::metric_not_found(&format!(
            "the server could not find the metric {metric} for {of}: {reason}"
        )),
        Missing::Selector(error) => error.into(),
        Missing::Query(what) => ApiError::internal(what),
        Missing::Storage(error) => error.into(),
    }
}

pub(crate) async fn v1beta1(
    shared: Shared<State>,
    Path(path): Path<String>,
    parameters: Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    answer(shared.0, "v1beta1", &path, parameters.0, &headers).await
}

pub(crate) async fn v1beta2(
    shared: Shared<State>,
    Path(path): Path<String>,
    parameters: Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    answer(shared.0, "v1beta2", &path, parameters.0, &headers).await
}

async fn answer(
    state: State,
    version: &'static str,
    path: &str,
    parameters: Parameters,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    accept::core(headers)?;
    if matches!(parameters.watch.as_deref(), Some("true" | "1")) {
        return Err(ApiError::no_watch("", GROUP));
    }
    let unknown = || ApiError::unknown(&format!("/apis/{GROUP}/{version}/{path}"));
    let asked = Asked::parse(path).ok_or_else(unknown)?;
    let objects = LabelSelector::parse(&parameters.label_selector)?;
    let metric = LabelSelector::parse(&parameters.metric_label_selector)?;
    let pretty = accept::wants_pretty(headers, parameters.pretty.as_deref());
    let Some(adapter) = state.adapter.clone() else { return Err(unknown()) };
    let resolved = adapter.current();
    let kind = resolved.kind(&asked.resource).ok_or_else(|| {
        ApiError::metric_not_found(&format!(
            "the server could not find the metric {} for {}: no rule and no cluster knows such a resource",
            asked.metric, asked.resource
        ))
    })?;
    let names = if asked.name == "*" {
        let listed =
            state.source.names(&kind, asked.namespace.as_deref(), &objects, &parameters.label_selector);
        listed.await?
    } else {
        vec![asked.name.clone()]
    };
    let list = blocking(move || {
        let querier = state.source.querier()?;
        let view = View { engine: adapter.engine(), querier: &*querier, now: state.source.now() };
        let namespace = asked.namespace.as_deref();
        let wanted =
            Wanted { kind: &kind, namespace, names: &names, metric: &asked.metric, selector: &metric };
        let of =
            if asked.name == "*" { kind.qualified() } else { format!("{} {}", kind.qualified(), asked.name) };
        let found = resolved.values(view, wanted).map_err(|error| missing(error, &asked.metric, &of))?;
        let selector = selector_object(&metric);
        let item = |found: Found| item(version, &kind, namespace, &asked.metric, &selector, found);
        Ok(MetricValueList {
            kind: "MetricValueList",
            api_version: format!("{GROUP}/{version}"),
            metadata: ListMeta::default(),
            items: found.into_iter().map(item).collect(),
        })
    })
    .await?;
    Ok(json(&list, pretty))
}

fn item(
    version: &str,
    kind: &k8s::ResourceKind,
    namespace: Option<&str>,
    metric: &str,
    selector: &serde_json::Value,
    found: Found,
) -> MetricValue {
    let described_object = ObjectReference {
        kind: kind.kind.clone(),
        namespace: namespace.map(str::to_owned),
        name: found.object,
        api_version: kind.api_version(),
    };
    let window = found.window_ms.map(|ms| ms / 1000);
    let (timestamp, value) = (quantity::time(found.ts), found.quantity);
    let value = MetricValue {
        described_object,
        metric: None,
        metric_name: None,
        timestamp,
        window_seconds: None,
        window: None,
        value,
        selector: None,
    };
    if version == "v1beta2" {
        let metric = MetricIdentifier { name: metric.to_owned(), selector: selector.clone() };
        MetricValue { metric: Some(metric), window_seconds: window, ..value }
    } else {
        MetricValue {
            metric_name: Some(metric.to_owned()),
            window,
            selector: Some(selector.clone()),
            ..value
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let of = |path: &str| {
            Asked::parse(path).map(|a| format!("{:?} {} {} {}", a.namespace, a.resource, a.name, a.metric))
        };
        assert_eq!(of("namespaces/d/pods/*/m").as_deref(), Some("Some(\"d\") pods * m"));
        assert_eq!(
            of("namespaces/d/deployments.apps/x/m").as_deref(),
            Some("Some(\"d\") deployments.apps x m")
        );
        assert_eq!(of("namespaces/d/metrics/m").as_deref(), Some("None namespaces d m"));
        assert_eq!(of("namespaces/d/m").as_deref(), Some("None namespaces d m"));
        assert_eq!(of("nodes/n/m").as_deref(), Some("None nodes n m"));
        for bad in
            ["", "nodes", "nodes/n", "nodes//m", "namespaces/d/pods/*", "a/b/c/d", "namespaces//pods/x/m"]
        {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn selectors_as_objects() {
        let of = |text: &str| selector_object(&LabelSelector::parse(text).unwrap()).to_string();
        assert_eq!(of(""), "null");
        assert_eq!(of("verb=GET"), r#"{"matchLabels":{"verb":"GET"}}"#);
        assert_eq!(
            of("a in (x,y),!b"),
            r#"{"matchExpressions":[{"key":"a","operator":"In","values":["x","y"]},{"key":"b","operator":"DoesNotExist"}]}"#
        );
    }
}
