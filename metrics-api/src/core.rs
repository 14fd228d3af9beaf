//! The sliver of the core API that `kubectl top` and `kubectl get` read besides the metrics, for
//! clients that talk to this process directly: nodes with what they can allocate, and pods.

use axum::Router;
use axum::extract::{Path, Query, State as Shared};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::errors::ApiError;
use crate::metrics::json as answer;
use crate::objects::ObjectMeta;
use crate::selector::{FieldSelector, LabelSelector};
use crate::{NodeInfo, PodInfo, State, accept, discovery, quantity};

pub(crate) fn router() -> Router<State> {
    Router::new()
        .route("/api", get(versions))
        .route("/api/v1", get(resources))
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/nodes/{name}", get(node))
        .route("/api/v1/pods", get(all_pods))
        .route("/api/v1/namespaces/{namespace}/pods", get(pods))
        .route("/api/v1/namespaces/{namespace}/pods/{name}", get(pod))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Selectors {
    label_selector: String,
    field_selector: String,
}

async fn versions(headers: HeaderMap) -> Result<Response, ApiError> {
    let Some(version) = accept::discovery(&headers)? else {
        return Ok(discovery::document(
            &json!({"kind": "APIVersions", "versions": ["v1"]}),
            "application/json",
        ));
    };
    let resources = [
        discovery::aggregated("nodes", "Cluster", "Node"),
        discovery::aggregated("pods", "Namespaced", "Pod"),
    ];
    let item = json!({
        "metadata": {},
        "versions": [{"version": "v1", "resources": resources, "freshness": "Current"}],
    });
    Ok(discovery::aggregated_list(version, &[item]))
}

async fn resources() -> Response {
    let resource = |name: &str, singular: &str, namespaced: bool, kind: &str, short: &str| {
        json!({
            "name": name, "singularName": singular, "namespaced": namespaced, "kind": kind,
            "verbs": ["get", "list"], "shortNames": [short],
        })
    };
    let list = json!({
        "kind": "APIResourceList", "groupVersion": "v1",
        "resources": [resource("nodes", "node", false, "Node", "no"), resource("pods", "pod", true, "Pod", "po")],
    });
    discovery::document(&list, "application/json")
}

fn node_object(node: &NodeInfo) -> Value {
    let metadata = ObjectMeta {
        name: node.name.clone(),
        uid: node.uid.clone(),
        creation_timestamp: quantity::time(node.created_ms),
        labels: node.labels.clone(),
        ..ObjectMeta::default()
    };
    let resources = json!({
        "cpu": quantity::cpu(node.cpu_millicores * 1_000_000),
        "memory": quantity::memory(node.memory_bytes),
    });
    json!({
        "kind": "Node", "apiVersion": "v1", "metadata": metadata,
        "status": {
            "capacity": resources, "allocatable": resources,
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "Hostname", "address": node.name}],
            "nodeInfo": {
                "osImage": node.system.os_image, "kernelVersion": node.system.kernel, "operatingSystem": node.system.os, "architecture": node.system.arch,
            },
        },
    })
}

fn pod_object(pod: &PodInfo) -> Value {
    let metadata = ObjectMeta {
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        uid: pod.uid.clone(),
        creation_timestamp: quantity::time(pod.created_ms),
        labels: pod.labels.clone(),
    };
    let containers: Vec<Value> = pod.containers.iter().map(|name| json!({"name": name})).collect();
    json!({
        "kind": "Pod", "apiVersion": "v1", "metadata": metadata,
        "spec": {"nodeName": pod.node, "containers": containers},
        "status": {"phase": "Running", "startTime": quantity::time(pod.created_ms)},
    })
}

fn list(kind: &str, items: &[Value], headers: &HeaderMap) -> Response {
    let list = json!({"kind": kind, "apiVersion": "v1", "metadata": {}, "items": items});
    answer(&list, accept::wants_pretty(headers, None))
}

async fn nodes(
    Shared(state): Shared<State>,
    Query(selectors): Query<Selectors>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    accept::core(&headers)?;
    let labels = LabelSelector::parse(&selectors.label_selector)?;
    let fields = FieldSelector::parse(&selectors.field_selector, false)?;
    let nodes = state.source.nodes();
    let selected = nodes.iter().filter(|node| labels.matches(&node.labels) && fields.matches("", &node.name));
    Ok(list("NodeList", &selected.map(node_object).collect::<Vec<_>>(), &headers))
}

async fn node(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let nodes = state.source.nodes();
    let node =
        nodes.iter().find(|node| node.name == name).ok_or_else(|| ApiError::not_found("nodes", &name))?;
    Ok(answer(&node_object(node), accept::wants_pretty(&headers, None)))
}

async fn all_pods(
    shared: Shared<State>,
    selectors: Query<Selectors>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    pod_list(&shared, None, &selectors, &headers)
}

async fn pods(
    shared: Shared<State>,
    Path(namespace): Path<String>,
    selectors: Query<Selectors>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    pod_list(&shared, Some(&namespace), &selectors, &headers)
}

fn pod_list(
    state: &State,
    namespace: Option<&str>,
    selectors: &Selectors,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    accept::core(headers)?;
    let labels = LabelSelector::parse(&selectors.label_selector)?;
    let fields = FieldSelector::parse(&selectors.field_selector, true)?;
    let pods = state.source.pods();
    let selected = pods.iter().filter(|pod| {
        namespace.is_none_or(|namespace| namespace == pod.namespace)
            && labels.matches(&pod.labels)
            && fields.matches(&pod.namespace, &pod.name)
    });
    Ok(list("PodList", &selected.map(pod_object).collect::<Vec<_>>(), headers))
}

async fn pod(
    Shared(state): Shared<State>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let pods = state.source.pods();
    let found = pods.iter().find(|pod| pod.namespace == namespace && pod.name == name);
    let pod = found.ok_or_else(|| ApiError::not_found("pods", &name))?;
    Ok(answer(&pod_object(pod), accept::wants_pretty(&headers, None)))
}
