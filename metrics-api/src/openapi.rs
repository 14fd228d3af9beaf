//! OpenAPI v2 and v3 of the groups, as much as `kubectl explain` and the aggregator's crawler read. Constants,
//! like all of discovery.

mod values;

use axum::extract::Path;
use axum::http::Uri;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use crate::discovery::document;
use crate::errors::ApiError;

const SCHEMAS: &str = "#/components/schemas/";
const DEFINITIONS: &str = "#/definitions/";
const METRICS: &str = "io.k8s.metrics.pkg.apis.metrics.v1beta1.";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

/// The package of a group's kinds.
fn package(group: &str) -> String {
    format!(
        "io.k8s.metrics.pkg.apis.{}",
        group
            .trim_end_matches(".metrics.k8s.io")
            .trim_end_matches(".k8s.io")
            .replace("custom", "custom_metrics")
            .replace("external", "external_metrics")
    )
}

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
fn object(kind: &str, description: &str, list: bool, properties: Value) -> Value {
    let gvk = json!({"group": "metrics.k8s.io", "kind": kind, "version": "v1beta1"});
    object_of(&gvk, description, list, properties)
}

fn object_of(gvk: &Value, description: &str, list: bool, mut properties: Value) -> Value {
    let meta = format!("{META}{}", if list { "ListMeta" } else { "ObjectMeta" });
    properties["apiVersion"] = text("Version of this representation of the object.");
    properties["kind"] = text("The REST resource that this object represents.");
    properties["metadata"] = with_description(reference(&meta), "Standard metadata.");
    json!({
        "description": description,
        "type": "object",
        "properties": properties,
        "x-kubernetes-group-version-kind": [gvk],
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
    ];
    pairs.into_iter().chain(shared()).collect::<serde_json::Map<_, _>>().into()
}

/// Schemas that all groups use.
fn shared() -> [(String, Value); 5] {
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
    [
        (format!("{META}ObjectMeta"), object_meta),
        (format!("{META}ListMeta"), list_meta),
        (format!("{META}Time"), json!({"description": "RFC 3339.", "type": "string", "format": "date-time"})),
        (format!("{META}Duration"), json!({"description": "Such as 14.965s.", "type": "string"})),
        (QUANTITY.to_owned(), json!({"description": "A number with a unit: 250m, 128Mi.", "type": "string"})),
    ]
}

/// A group in one of its versions.
struct GroupVersion {
    group: &'static str,
    version: &'static str,
    schemas: fn() -> Value,
    /// Path, package and kind of the answer, the kind that it is about, and whether it is a list of such.
    paths: &'static [(&'static str, &'static str, &'static str, bool)],
}

const CUSTOM_PATHS: &[(&str, &str, &str, bool)] = &[
    ("/{resource}/{name}/{metric}", "MetricValueList", "MetricValueList", false),
    ("/namespaces/{namespace}/metrics/{metric}", "MetricValueList", "MetricValueList", false),
    ("/namespaces/{namespace}/{resource}/{name}/{metric}", "MetricValueList", "MetricValueList", false),
];

const GROUP_VERSIONS: [GroupVersion; 4] = [
    GroupVersion {
        group: "metrics.k8s.io",
        version: "v1beta1",
        schemas,
        paths: &[
            ("/nodes", "NodeMetricsList", "NodeMetrics", true),
            ("/nodes/{name}", "NodeMetrics", "NodeMetrics", false),
            ("/pods", "PodMetricsList", "PodMetrics", true),
            ("/namespaces/{namespace}/pods", "PodMetricsList", "PodMetrics", true),
            ("/namespaces/{namespace}/pods/{name}", "PodMetrics", "PodMetrics", false),
        ],
    },
    GroupVersion {
        group: "custom.metrics.k8s.io",
        version: "v1beta2",
        schemas: || values::custom("v1beta2"),
        paths: CUSTOM_PATHS,
    },
    GroupVersion {
        group: "custom.metrics.k8s.io",
        version: "v1beta1",
        schemas: || values::custom("v1beta1"),
        paths: CUSTOM_PATHS,
    },
    GroupVersion {
        group: "external.metrics.k8s.io",
        version: "v1beta1",
        schemas: values::external,
        paths: &[(
            "/namespaces/{namespace}/{metric}",
            "ExternalMetricValueList",
            "ExternalMetricValueList",
            true,
        )],
    },
];

impl GroupVersion {
    /// `io.k8s.metrics.pkg.apis.metrics.v1beta1.`
    fn package(&self) -> String {
        format!("{}.{}.", package(self.group), self.version)
    }

    fn tag(&self) -> String {
        format!("{}_{}", self.group.trim_end_matches(".k8s.io").replace('.', "_"), self.version)
    }

    /// The operation of a path, but for its answer.
    fn operation(&self, kind: &str, list: bool) -> Value {
        let gvk = json!({"group": self.group, "version": self.version, "kind": kind});
        json!({
            "description": format!("{} {kind}", if list { "list objects of kind" } else { "read the specified" }),
            "tags": [self.tag()],
            "x-kubernetes-action": if list { "list" } else { "get" },
            "x-kubernetes-group-version-kind": gvk,
        })
    }

    fn v3(&self) -> Value {
        let mut paths = serde_json::Map::new();
        for (path, answer, kind, list) in self.paths {
            let content = json!({"schema": {"$ref": format!("{SCHEMAS}{}{answer}", self.package())}});
            let mut operation = self.operation(kind, *list);
            operation["responses"]["200"] = json!({
                "description": "OK",
                "content": {"application/json": content, "application/yaml": content, "application/vnd.kubernetes.protobuf": content},
            });
            paths.insert(format!("/apis/{}/{}{path}", self.group, self.version), json!({"get": operation}));
        }
        json!({
            "openapi": "3.0.0",
            "info": {"title": "Pyrometer", "version": self.version},
            "paths": paths,
            "components": {"schemas": (self.schemas)()},
        })
    }

    /// Adds what version 2 has of it.
    fn add_v2(
        &self,
        paths: &mut serde_json::Map<String, Value>,
        definitions: &mut serde_json::Map<String, Value>,
    ) {
        for (path, answer, kind, list) in self.paths {
            let mut operation = self.operation(kind, *list);
            operation["produces"] =
                json!(["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"]);
            operation["schemes"] = json!(["https"]);
            let schema = json!({"$ref": format!("{DEFINITIONS}{}{answer}", self.package())});
            operation["responses"]["200"] = json!({"description": "OK", "schema": schema});
            let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            let parameter = |name: &str| json!({"name": name, "in": "path", "required": true, "type": "string", "uniqueItems": true});
            let mut item = json!({"get": operation});
            item["parameters"] = names.map(parameter).collect();
            paths.insert(format!("/apis/{}/{}{path}", self.group, self.version), item);
        }
        if let Value::Object(schemas) = (self.schemas)() {
            definitions.extend(schemas.into_iter().map(|(name, schema)| (name, of_version_2(schema))));
        }
    }
}

/// A schema as version 2 writes it: a reference stands alone, and there are no defaults beside it.
fn of_version_2(schema: Value) -> Value {
    match schema {
        Value::Object(map) => {
            let mut out = serde_json::Map::new();
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("allOf", Value::Array(parts)) => {
                        for part in parts {
                            if let Value::Object(part) = of_version_2(part) {
                                out.extend(part);
                            }
                        }
                    }
                    ("$ref", Value::String(reference)) => {
                        out.insert(key, reference.replace(SCHEMAS, DEFINITIONS).into());
                    }
                    ("default", _) => {}
                    (_, value) => {
                        out.insert(key, of_version_2(value));
                    }
                }
            }
            out.into()
        }
        Value::Array(items) => items.into_iter().map(of_version_2).collect(),
        other => other,
    }
}

/// `GET /openapi/v3`: where the documents are.
pub(crate) async fn index() -> Response {
    let one = |it: &GroupVersion| {
        let path = format!("apis/{}/{}", it.group, it.version);
        let url = format!("/openapi/v3/{path}?hash={}", crate::discovery::tag(&it.v3().to_string()));
        (path, json!({"serverRelativeURL": url}))
    };
    let paths: serde_json::Map<String, Value> = GROUP_VERSIONS.iter().map(one).collect();
    document(&json!({"paths": paths}), "application/json")
}

/// `GET /openapi/v3/apis/GROUP/VERSION`
pub(crate) async fn group_version(Path((group, version)): Path<(String, String)>, uri: Uri) -> Response {
    match GROUP_VERSIONS.iter().find(|it| it.group == group && it.version == version) {
        Some(found) => document(&found.v3(), "application/json"),
        None => ApiError::unknown(uri.path()).into_response(),
    }
}

/// `GET /openapi/v2`
pub(crate) async fn v2() -> Response {
    let (mut paths, mut definitions) = Default::default();
    GROUP_VERSIONS.iter().for_each(|it| it.add_v2(&mut paths, &mut definitions));
    let whole = json!({
        "swagger": "2.0",
        "info": {"title": "Pyrometer", "version": "v1beta1"},
        "paths": paths,
        "definitions": definitions,
    });
    document(&whole, "application/json")
}
