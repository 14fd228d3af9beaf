//! What the API group consists of: constants, served before and without storage.

use axum::extract::State as Shared;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::errors::ApiError;
use crate::{State, accept};

const VERBS: [&str; 2] = ["get", "list"];

fn versions() -> Value {
    json!([{"groupVersion": crate::objects::GROUP_VERSION, "version": "v1beta1"}])
}

fn preferred() -> Value {
    json!({"groupVersion": crate::objects::GROUP_VERSION, "version": "v1beta1"})
}

/// `GET /apis`: the aggregated document of exactly the version asked for, else the legacy list.
pub(crate) async fn groups(headers: HeaderMap) -> Result<Response, ApiError> {
    let Some(version) = accept::discovery(&headers)? else {
        let group =
            json!({"name": "metrics.k8s.io", "versions": versions(), "preferredVersion": preferred()});
        let list = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]});
        return Ok(document(&list, "application/json"));
    };
    let item = json!({
        "metadata": {"name": "metrics.k8s.io"},
        "versions": [{
            "version": "v1beta1",
            "resources": [
                aggregated("nodes", "Cluster", "NodeMetrics"),
                aggregated("pods", "Namespaced", "PodMetrics"),
            ],
            "freshness": "Current",
        }],
    });
    Ok(aggregated_list(version, &[item]))
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

/// `GET /apis/metrics.k8s.io`
pub(crate) async fn group() -> Response {
    let group = json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": "metrics.k8s.io",
        "versions": versions(), "preferredVersion": preferred(),
    });
    document(&group, "application/json")
}

/// `GET /apis/metrics.k8s.io/v1beta1`
pub(crate) async fn resources(Shared(_): Shared<State>) -> Response {
    let resource = |name: &str, namespaced: bool, kind: &str| json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": VERBS});
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": crate::objects::GROUP_VERSION,
        "resources": [resource("nodes", false, "NodeMetrics"), resource("pods", true, "PodMetrics")],
    });
    document(&list, "application/json")
}

pub(crate) fn document(value: &Value, content_type: &str) -> Response {
    let headers = [(header::CONTENT_TYPE, content_type), (header::VARY, "Accept")];
    (headers, value.to_string()).into_response()
}
