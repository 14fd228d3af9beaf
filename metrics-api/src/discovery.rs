//! What the API groups consist of. Groups, versions and the resources of `metrics.k8s.io` are constants, served before
//! and without storage; custom and external metrics are those that exist now, and none while nobody can tell.

use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::adapter::Listed;
use crate::errors::ApiError;
use crate::metrics::blocking;
use crate::{State, accept, custom, external};

const VERBS: [&str; 2] = ["get", "list"];

/// Groups with their versions, the preferred one first.
const GROUPS: [(&str, &[&str]); 3] = [
    ("metrics.k8s.io", &["v1beta1"]),
    (custom::GROUP, &["v1beta2", "v1beta1"]),
    (external::GROUP, &["v1beta1"]),
];

fn group_version(group: &str, version: &str) -> Value {
    json!({"groupVersion": format!("{group}/{version}"), "version": version})
}

/// The group's name, versions and preferred version.
fn group_object((group, versions): (&str, &[&str])) -> Value {
    let all: Vec<Value> = versions.iter().map(|version| group_version(group, version)).collect();
    json!({"name": group, "versions": all, "preferredVersion": all[0]})
}

/// `GET /apis`: the aggregated document of exactly the version asked for, else the legacy list.
pub(crate) async fn groups(Shared(state): Shared<State>, headers: HeaderMap) -> Result<Response, ApiError> {
    let Some(version) = accept::discovery(&headers)? else {
        let list = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": GROUPS.map(group_object)});
        return Ok(document(&list, "application/json"));
    };
    let (custom, external) = listed(state).await;
    let items = GROUPS.map(|(group, versions)| {
        let resources = match group {
            custom::GROUP => parts_of_objects(&custom),
            external::GROUP => {
                external.iter().map(|it| of_namespace(it, "ExternalMetricValueList")).collect()
            }
            _ => vec![
                aggregated("nodes", "Cluster", "NodeMetrics"),
                aggregated("pods", "Namespaced", "PodMetrics"),
            ],
        };
        let version =
            |version: &&str| json!({"version": version, "resources": resources, "freshness": "Current"});
        let versions: Vec<Value> = versions.iter().map(version).collect();
        json!({"metadata": {"name": group}, "versions": versions})
    });
    Ok(aggregated_list(version, &items))
}

/// The custom and the external metrics that exist now.
async fn listed(state: State) -> (Vec<Listed>, Vec<Listed>) {
    let Some(adapter) = state.adapter.clone() else { return Default::default() };
    let both = blocking(move || {
        let (querier, now, resolved) = (state.source.querier()?, state.source.now(), adapter.current());
        Ok((resolved.list_custom(&*querier, now)?, resolved.list_external(&*querier, now)?))
    });
    both.await.unwrap_or_default()
}

/// Metrics as parts of objects: `pods/http_requests` is `http_requests` of `pods`.
fn parts_of_objects(listed: &[Listed]) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    for metric in listed {
        let (resource, part) = metric.name.split_once('/').unwrap_or((&metric.name, ""));
        let kind = json!({"group": "", "version": "", "kind": "MetricValueList"});
        let part = json!({"subresource": part, "responseKind": kind, "verbs": ["get"]});
        match out.last_mut().filter(|last| last["resource"] == resource) {
            Some(last) => {
                if let Some(parts) = last["subresources"].as_array_mut() {
                    parts.push(part);
                }
            }
            None => out.push(json!({
                "resource": resource, "responseKind": {"group": "", "version": "", "kind": ""},
                "scope": if metric.namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": "", "verbs": [], "subresources": [part],
            })),
        }
    }
    out
}

fn of_namespace(metric: &Listed, kind: &str) -> Value {
    json!({
        "resource": metric.name, "responseKind": {"group": "", "version": "", "kind": kind},
        "scope": "Namespaced", "singularResource": "", "verbs": ["get"],
    })
}

/// One resource of an aggregated discovery document.
pub(crate) fn aggregated(resource: &str, scope: &str, kind: &str) -> Value {
    let response_kind = json!({"group": "", "version": "", "kind": kind});
    json!({
        "resource": resource, "responseKind": response_kind, "scope": scope, "singularResource": "", "verbs": VERBS,
    })
}

/// An aggregated discovery document of `version`.
pub(crate) fn aggregated_list(version: &str, items: &[Value]) -> Response {
    let list = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    });
    let content_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    document(&list, &content_type)
}

/// `GET /apis/GROUP`
pub(crate) fn group(index: usize) -> Response {
    let mut group = group_object(GROUPS[index]);
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    document(&group, "application/json")
}

fn resource_list(group_version: &str, resources: &[Value]) -> Response {
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    });
    document(&list, "application/json")
}

/// `GET /apis/metrics.k8s.io/v1beta1`
pub(crate) async fn resources() -> Response {
    let resource = |name: &str, namespaced: bool, kind: &str| json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": VERBS});
    let resources = [resource("nodes", false, "NodeMetrics"), resource("pods", true, "PodMetrics")];
    resource_list(crate::objects::GROUP_VERSION, &resources)
}

fn metric_resource(metric: &Listed, kind: &str) -> Value {
    json!({"name": metric.name, "singularName": "", "namespaced": metric.namespaced, "kind": kind, "verbs": ["get"]})
}

/// `GET /apis/custom.metrics.k8s.io/VERSION`
pub(crate) async fn custom_resources(state: State, version: &str) -> Response {
    let (custom, _) = listed(state).await;
    let resources: Vec<Value> = custom.iter().map(|it| metric_resource(it, "MetricValueList")).collect();
    resource_list(&format!("{}/{version}", custom::GROUP), &resources)
}

/// `GET /apis/external.metrics.k8s.io/v1beta1`
pub(crate) async fn external_resources(Shared(state): Shared<State>) -> Response {
    let (_, external) = listed(state).await;
    let resources: Vec<Value> =
        external.iter().map(|it| metric_resource(it, "ExternalMetricValueList")).collect();
    resource_list(&format!("{}/v1beta1", external::GROUP), &resources)
}

/// What tells a document from another one.
pub(crate) fn tag(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02X}")).collect()
}

pub(crate) fn document(value: &Value, content_type: &str) -> Response {
    let text = value.to_string();
    let etag = format!("\"{}\"", tag(&text));
    let headers = [(header::CONTENT_TYPE, content_type), (header::VARY, "Accept"), (header::ETAG, &etag)];
    (headers, text).into_response()
}

/// Answers 304 to whoever has the document already.
pub(crate) async fn unless_known(request: Request, next: Next) -> Response {
    let known = request.headers().get(header::IF_NONE_MATCH).cloned();
    let response = next.run(request).await;
    let same = response.headers().get(header::ETAG).zip(known).is_some_and(|(tag, known)| *tag == known);
    if same && response.status() == StatusCode::OK {
        let headers = response.headers().clone();
        let mut empty = StatusCode::NOT_MODIFIED.into_response();
        for name in [header::ETAG, header::VARY] {
            empty.headers_mut().extend(headers.get(&name).map(|value| (name, value.clone())));
        }
        return empty;
    }
    response
}
