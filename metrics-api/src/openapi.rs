//! OpenAPI v3 of the group, as much as `kubectl explain` and the aggregator's crawler read. Constants,
//! like all of discovery.

use axum::response::Response;
use serde_json::{Value, json};

use crate::discovery::document;

const SCHEMAS: &str = "#/components/schemas/";
const METRICS: &str = "io.k8s.metrics.pkg.apis.metrics.v1beta1.";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

fn reference(name: &str) -> Value {
    json!({"allOf": [{"$ref": format!("{SCHEMAS}{name}")}], "default": {}})
}

fn text(description: &str) -> Value {
    json!({"description": description, "type": "string"})
}

fn with_description(mut schema: Value, description: &str) -> Value {
    schema["description"] = description.into();
    schema
}

fn usage() -> Value {
    json!({
        "description": "CPU in cores, averaged over the window, and memory as the working set in bytes.",
        "type": "object",
        "additionalProperties": reference(QUANTITY),
    })
}

/// An object with kind and metadata besides `properties`.
fn object(kind: &str, description: &str, list: bool, mut properties: Value) -> Value {
    let meta = format!("{META}{}", if list { "ListMeta" } else { "ObjectMeta" });
    properties["apiVersion"] = text("Version of this representation of the object.");
    properties["kind"] = text("The REST resource that this object represents.");
    properties["metadata"] = with_description(reference(&meta), "Standard metadata.");
    json!({
        "description": description,
        "type": "object",
        "properties": properties,
        "x-kubernetes-group-version-kind": [{"group": "metrics.k8s.io", "kind": kind, "version": "v1beta1"}],
    })
}

fn moments(mut properties: Value) -> Value {
    let time = reference(&format!("{META}Time"));
    properties["timestamp"] =
        with_description(time, "When the newest sample was taken: the end of the window.");
    let window = reference(&format!("{META}Duration"));
    properties["window"] = with_description(window, "The time between the two samples of the CPU counter.");
    properties
}

fn list_of(kind: &str) -> Value {
    let items = json!({"type": "array", "items": reference(&format!("{METRICS}{kind}")), "description": "The objects."});
    object(&format!("{kind}List"), &format!("A list of {kind}."), true, json!({"items": items}))
}

fn schemas() -> Value {
    let container = json!({
        "description": "Usage of one container.",
        "type": "object",
        "required": ["name", "usage"],
        "properties": {"name": text("The container's name as in pod.spec.containers."), "usage": usage()},
    });
    let containers = json!({
        "description": "Usage of every container, in order of names.",
        "type": "array",
        "items": reference(&format!("{METRICS}ContainerMetrics")),
    });
    let object_meta = json!({
        "description": "Metadata that every object has.",
        "type": "object",
        "properties": {
            "name": text("Name, unique within a namespace."),
            "namespace": text("The space within which each name is unique."),
            "creationTimestamp": with_description(reference(&format!("{META}Time")), "When this answer was made."),
            "labels": {
                "description": "Labels of the node or pod.", "type": "object",
                "additionalProperties": {"type": "string", "default": ""},
            },
        },
    });
    let list_meta = json!({
        "description": "Metadata of a list.",
        "type": "object",
        "properties": {
            "continue": text("Token for the next page, if there is one."),
            "remainingItemCount": {"description": "Objects behind this page.", "type": "integer", "format": "int64"},
        },
    });
    let pairs = [
        (
            format!("{METRICS}NodeMetrics"),
            object("NodeMetrics", "Resource usage of a node.", false, moments(json!({"usage": usage()}))),
        ),
        (format!("{METRICS}NodeMetricsList"), list_of("NodeMetrics")),
        (
            format!("{METRICS}PodMetrics"),
            object(
                "PodMetrics",
                "Resource usage of a pod.",
                false,
                moments(json!({"containers": containers})),
            ),
        ),
        (format!("{METRICS}PodMetricsList"), list_of("PodMetrics")),
        (format!("{METRICS}ContainerMetrics"), container),
        (format!("{META}ObjectMeta"), object_meta),
        (format!("{META}ListMeta"), list_meta),
        (format!("{META}Time"), json!({"description": "RFC 3339.", "type": "string", "format": "date-time"})),
        (format!("{META}Duration"), json!({"description": "Such as 14.965s.", "type": "string"})),
        (QUANTITY.to_owned(), json!({"description": "A number with a unit: 250m, 128Mi.", "type": "string"})),
    ];
    pairs.into_iter().collect::<serde_json::Map<_, _>>().into()
}

fn operation(kind: &str, list: bool) -> Value {
    let schema = format!("{SCHEMAS}{METRICS}{kind}{}", if list { "List" } else { "" });
    let content = json!({"schema": {"$ref": schema}});
    json!({"get": {
        "tags": ["metrics_v1beta1"],
        "responses": {"200": {
            "description": "OK",
            "content": {"application/json": content, "application/vnd.kubernetes.protobuf": content},
        }},
        "x-kubernetes-action": if list { "list" } else { "get" },
        "x-kubernetes-group-version-kind": {"group": "metrics.k8s.io", "version": "v1beta1", "kind": kind},
    }})
}

/// `GET /openapi/v3`: where the documents are.
pub(crate) async fn index() -> Response {
    let path = |path: &str| json!({"serverRelativeURL": format!("/openapi/v3/{path}")});
    let group_version = "apis/metrics.k8s.io/v1beta1";
    document(&json!({"paths": {group_version: path(group_version)}}), "application/json")
}

/// `GET /openapi/v3/apis/metrics.k8s.io/v1beta1`
pub(crate) async fn group_version() -> Response {
    let root = "/apis/metrics.k8s.io/v1beta1";
    let paths = [
        ("/nodes", operation("NodeMetrics", true)),
        ("/nodes/{name}", operation("NodeMetrics", false)),
        ("/pods", operation("PodMetrics", true)),
        ("/namespaces/{namespace}/pods", operation("PodMetrics", true)),
        ("/namespaces/{namespace}/pods/{name}", operation("PodMetrics", false)),
    ];
    let paths: serde_json::Map<String, Value> =
        paths.into_iter().map(|(path, operation)| (format!("{root}{path}"), operation)).collect();
    let whole = json!({
        "openapi": "3.0.0",
        "info": {"title": "Pyrometer", "version": "v1beta1"},
        "paths": paths,
        "components": {"schemas": schemas()},
    });
    document(&whole, "application/json")
}
