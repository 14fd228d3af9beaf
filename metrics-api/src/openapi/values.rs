//! Schemas of custom and external metrics.

use serde_json::{Value, json};

use super::{META, QUANTITY, object_of, package, reference, shared, text, with_description};

fn seconds(description: &str) -> Value {
    json!({"description": description, "type": "integer", "format": "int64"})
}

fn time() -> Value {
    with_description(
        reference(&format!("{META}Time")),
        "When the oldest of the samples was taken that the value is made of.",
    )
}

fn value() -> Value {
    with_description(reference(QUANTITY), "The value.")
}

fn list(group: &str, version: &str, kind: &str) -> (String, Value) {
    let package = format!("{}.{version}.", package(group));
    let items = json!({"type": "array", "items": reference(&format!("{package}{kind}")), "description": "The values."});
    let gvk = json!({"group": group, "kind": format!("{kind}List"), "version": version});
    let schema = object_of(&gvk, "Values of a metric.", true, json!({"items": items}));
    (format!("{package}{kind}List"), schema)
}

/// `custom.metrics.k8s.io` in one of its versions.
pub(super) fn custom(version: &str) -> Value {
    let group = "custom.metrics.k8s.io";
    let package = format!("{}.{version}.", package(group));
    let reference_schema = json!({
        "description": "The object that a value is about.",
        "type": "object",
        "properties": {
            "kind": text("The object's kind."), "apiVersion": text("The kind's group and version."),
            "namespace": text("The object's namespace."), "name": text("The object's name."),
        },
    });
    let selector = json!({"description": "The selector of the request, if it had one.", "type": "object"});
    let window = seconds("The time that the value covers; absent of what is measured at one moment.");
    let mut properties = json!({
        "describedObject": reference(&format!("{package}ObjectReference")), "timestamp": time(), "value": value(),
    });
    let identifier = json!({
        "description": "What is measured.",
        "type": "object",
        "required": ["name"],
        "properties": {"name": text("The metric's name."), "selector": selector},
    });
    if version == "v1beta2" {
        properties["metric"] = reference(&format!("{package}MetricIdentifier"));
        properties["windowSeconds"] = window;
    } else {
        properties["metricName"] = text("The metric's name.");
        properties["window"] = window;
        properties["selector"] = selector;
    }
    let metric_value = json!({"description": "A value of a metric of an object.", "type": "object", "properties": properties});
    let mut out: serde_json::Map<String, Value> = shared().into_iter().collect();
    out.extend([list(group, version, "MetricValue")]);
    out.insert(format!("{package}MetricValue"), metric_value);
    out.insert(format!("{package}ObjectReference"), reference_schema);
    if version == "v1beta2" {
        out.insert(format!("{package}MetricIdentifier"), identifier);
    }
    out.into()
}

/// `external.metrics.k8s.io/v1beta1`
pub(super) fn external() -> Value {
    let (group, version) = ("external.metrics.k8s.io", "v1beta1");
    let package = format!("{}.{version}.", package(group));
    let labels = json!({
        "description": "Labels of the series.", "type": "object",
        "additionalProperties": {"type": "string", "default": ""},
    });
    let metric_value = json!({
        "description": "A value of a metric of nothing in the cluster.",
        "type": "object",
        "properties": {
            "metricName": text("The metric's name."), "metricLabels": labels, "timestamp": time(), "value": value(),
            "window": seconds("The time that the value covers; absent of what is measured at one moment."),
        },
    });
    let mut out: serde_json::Map<String, Value> = shared().into_iter().collect();
    out.extend([list(group, version, "ExternalMetricValue")]);
    out.insert(format!("{package}ExternalMetricValue"), metric_value);
    out.into()
}
