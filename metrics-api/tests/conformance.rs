//! Answers beside those captured from the real metrics-server: same shape, and for our own input the
//! right values.
#![allow(clippy::unwrap_used, reason = "a test ends where its assumptions do")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use metrics_api::{NodeInfo, PodInfo, Source, State, Unavailable, router};
use model::{Querier, Timestamp};
use serde_json::Value;
use tower::ServiceExt as _;

mod store;

use store::Series;

#[derive(Default)]
struct Cluster {
    series: Option<Series>,
    nodes: Vec<NodeInfo>,
    pods: Vec<PodInfo>,
}

impl Source for Cluster {
    fn querier(&self) -> Result<Box<dyn Querier>, Unavailable> {
        let series = self.series.clone().ok_or_else(|| Unavailable("the store is being opened".into()))?;
        Ok(Box::new(series))
    }

    fn nodes(&self) -> Vec<NodeInfo> {
        self.nodes.clone()
    }

    fn pods(&self) -> Vec<PodInfo> {
        self.pods.clone()
    }

    fn now(&self) -> Timestamp {
        NOW
    }
}

const NOW: Timestamp = 1_795_236_760_000;
const LAST: Timestamp = NOW - 16_000;
const BEFORE: Timestamp = LAST - 14_965;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn cluster() -> Cluster {
    let mut series = Series::default();
    for (node, cpu) in [("load-1", 2.0), ("load-2", 3.0)] {
        let used = cpu * 14.965;
        series.add(
            &[("__name__", "node_cpu_usage_seconds_total"), ("node", node)],
            &[(BEFORE, 100.0), (LAST, 100.0 + used)],
        );
        series.add(
            &[("__name__", "node_memory_working_set_bytes"), ("node", node)],
            &[(LAST, 4_000_001_000.0)],
        );
    }
    for (pod, cpus) in [("pod-5-5", 0.051), ("pod-5-6", 0.0)] {
        series.container(("ns-5", pod), "c1", &[(BEFORE, 1.0), (LAST, 1.0 + cpus * 14.965)], 53_104_768.0);
        series.container(("ns-5", pod), "c0", &[(BEFORE, 1.0), (LAST, 1.0 + cpus * 14.965)], 53_084_288.0);
    }
    // One container of this pod has a single point: the pod is not shown by halves.
    series.container(("ns-6", "half"), "a", &[(BEFORE, 1.0), (LAST, 2.0)], 1024.0);
    series.container(("ns-6", "half"), "b", &[(LAST, 2.0)], 1024.0);
    let node = |name: &str| NodeInfo {
        name: name.to_owned(),
        labels: labels(&[("kubernetes.io/hostname", name), ("load", "1")]),
        cpu_millicores: 8000,
        memory_bytes: 16 << 30,
        ..NodeInfo::default()
    };
    let pod = |namespace: &str, name: &str| PodInfo {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        labels: labels(&[("app", "app-5"), ("tier", "t")]),
        ..PodInfo::default()
    };
    Cluster {
        series: Some(series),
        nodes: vec![node("load-1"), node("load-2"), node("idle")],
        pods: vec![pod("ns-5", "pod-5-5"), pod("ns-5", "pod-5-6"), pod("ns-6", "half")],
    }
}

fn server(cluster: Cluster) -> Router {
    router(State::new(Arc::new(cluster)).with_core_api())
}

async fn get(router: &Router, path: &str, accept: &str) -> (StatusCode, Value) {
    let request = Request::get(path).header("Accept", accept).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

const V1BETA1: &str = "/apis/metrics.k8s.io/v1beta1";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// Keys and types, with lists by their first element.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let open = |key: &str| matches!(key, "labels");
            map.iter()
                .map(|(key, value)| (key.clone(), if open(key) { "map".into() } else { shape(value) }))
                .collect()
        }
        Value::Array(items) => Value::Array(items.first().map(shape).into_iter().collect()),
        Value::String(_) => "string".into(),
        Value::Number(_) => "number".into(),
        Value::Bool(_) => "bool".into(),
        Value::Null => Value::Null,
    }
}

fn captured(case: &str) -> Option<Value> {
    let root = std::env::var_os("PYROMETER_SHARED").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"));
    let path = root.join("data/kubelet/metrics-server-live").join(format!("{case}.body"));
    let Ok(text) = std::fs::read_to_string(&path) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", path.display());
        eprintln!("SKIPPED: {} is missing", path.display());
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn answers_have_the_shape_of_metrics_servers() {
    let server = server(cluster());
    let partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for (case, path, accept) in [
        ("node-get", "/nodes/load-1", "*/*"),
        ("nodes-sel", "/nodes?labelSelector=load%3D1", "*/*"),
        ("pod-get", "/namespaces/ns-5/pods/pod-5-5", "application/json, */*"),
        ("pods-field", "/pods?fieldSelector=metadata.name%3Dpod-5-5", "*/*"),
        ("pods-field-bad", "/pods?fieldSelector=spec.nodeName%3Da", "*/*"),
        ("ns-empty", "/namespaces/none/pods", "*/*"),
        ("badsel", "/pods?labelSelector=%3D%3D", "*/*"),
        ("node-404", "/nodes/nope", "*/*"),
        ("pod-404", "/namespaces/ns-5/pods/nope", "*/*"),
        ("node-nometrics", "/nodes/idle", "*/*"),
        ("watch", "/nodes?watch=true", "*/*"),
        ("cbor-node", "/nodes/load-1", "application/cbor"),
        ("html-node", "/nodes/load-1", "text/html"),
        ("pods-field-ns", "/pods?fieldSelector=metadata.namespace%3Dns-5", "*/*"),
        ("pods-ns-sel", "/namespaces/ns-5/pods?labelSelector=app%3Dapp-5", "*/*"),
        ("table-nodes", "/nodes", TABLE),
        ("table-node-get", "/nodes/load-1", TABLE),
        ("table-pods", "/namespaces/ns-5/pods", TABLE),
        ("partialmeta", "/nodes/load-1", partial),
        ("resources", "", "*/*"),
        ("group", "/..", "*/*"),
        ("apis-aggregated-v2", "/../..", v2),
    ] {
        let Some(expected) = captured(case) else { return };
        let path = match path {
            "/.." => "/apis/metrics.k8s.io".to_owned(),
            "/../.." => "/apis".to_owned(),
            path => format!("{V1BETA1}{path}"),
        };
        let (status, answer) = get(&server, &path, accept).await;
        assert_eq!(shape(&answer), shape(&expected), "{case}: {answer:#}");
        assert_eq!(answer["kind"], expected["kind"], "{case}");
        assert_eq!(u64::from(status.as_u16()), expected["code"].as_u64().unwrap_or(200), "{case}");
        assert_eq!(answer["reason"], expected["reason"], "{case}");
        if expected["kind"] == "APIGroupDiscoveryList" {
            assert_eq!(answer["items"][0]["metadata"]["name"], expected["items"][0]["metadata"]["name"]);
        }
        if expected["kind"] == "Status" && case != "node-nometrics" {
            assert_eq!(answer["message"], expected["message"], "{case}");
        }
    }
}

#[tokio::test]
async fn yaml_is_written_as_by_metrics_server() {
    let request = Request::get(format!("{V1BETA1}/nodes/load-1")).header("Accept", "application/yaml");
    let response = server(cluster()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/yaml");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let start = "apiVersion: metrics.k8s.io/v1beta1\nkind: NodeMetrics\nmetadata:\n  creationTimestamp: \"";
    assert!(text.starts_with(start), "{text}");
    for line in ["    load: \"1\"\n", "  memory: \"4000001000\"\n", "\nwindow: 14.965s\n"] {
        assert!(text.contains(line), "{line:?}: {text}");
    }
}

#[tokio::test]
async fn openapi_of_version_2_has_no_reference_into_the_void() {
    let server = server(cluster());
    let (_, document) = get(&server, "/openapi/v2", "application/json").await;
    let definitions = document["definitions"].as_object().unwrap();
    let text = document.to_string();
    assert!(!text.contains("#/components") && !text.contains("allOf"));
    for reference in text.split("\"#/definitions/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(definitions.contains_key(name), "{name}");
    }
    for name in [
        "metrics.v1beta1.NodeMetrics",
        "custom_metrics.v1beta2.MetricValueList",
        "external_metrics.v1beta1.ExternalMetricValueList",
    ] {
        assert!(definitions.contains_key(&format!("io.k8s.metrics.pkg.apis.{name}")), "{name}");
    }
}

#[tokio::test]
async fn values_are_those_of_the_series() {
    let server = server(cluster());
    let (_, node) = get(&server, &format!("{V1BETA1}/nodes/load-1"), "*/*").await;
    assert_eq!(node["timestamp"], "2026-11-21T04:52:24Z");
    assert_eq!((&node["window"], &node["usage"]["memory"]), (&"14.965s".into(), &"4000001000".into()));
    let cpu = node["usage"]["cpu"].as_str().unwrap();
    assert!(cpu == "2" || cpu.starts_with("1999999999") || cpu.starts_with("2000000000"), "{cpu}");

    let (_, pods) = get(&server, &format!("{V1BETA1}/pods"), "*/*").await;
    let items = pods["items"].as_array().unwrap();
    let names: Vec<&str> = items.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["pod-5-5", "pod-5-6"], "sorted, idle pods included, half-known ones not");
    let containers: Vec<&str> =
        items[0]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(containers, ["c0", "c1"], "containers are sorted");
    assert_eq!(items[1]["containers"][0]["usage"]["cpu"], "0");
}

/// Decodes the fields of a protobuf message: number and bytes, of a varint its value in eight bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = varint(&mut bytes);
        if key & 7 == 0 {
            out.push((key >> 3, value.to_le_bytes().to_vec()));
        } else {
            let (content, rest) = bytes.split_at(usize::try_from(value).unwrap());
            out.push((key >> 3, content.to_vec()));
            bytes = rest;
        }
    }
    out
}

/// All leaves of a message under their path of field numbers; what does not parse is a leaf.
fn leaves(bytes: &[u8], path: &str, depth: usize, out: &mut BTreeMap<String, Vec<u8>>) {
    for (number, content) in fields(bytes) {
        let path = format!("{path}.{number}");
        if depth > 0 {
            leaves(&content, &path, depth - 1, out);
        } else if !content.is_empty() {
            out.insert(path, content);
        }
    }
}

#[tokio::test]
async fn protobuf_has_the_fields_of_metrics_servers() {
    let server = server(cluster());
    let request = Request::get(format!("{V1BETA1}/nodes/load-1"))
        .header("Accept", "application/vnd.kubernetes.protobuf, */*")
        .body(Body::empty())
        .unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/vnd.kubernetes.protobuf");
    let own = response.into_body().collect().await.unwrap().to_bytes();
    let root = std::env::var_os("PYROMETER_SHARED").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"));
    let Ok(real) = std::fs::read(root.join("data/kubelet/metrics-server-live/proto-node.body")) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "the captured answer is missing");
        eprintln!("SKIPPED: the captured answer is missing");
        return;
    };
    let read = |body: &[u8]| {
        assert_eq!(&body[..4], b"k8s\0");
        let mut out = BTreeMap::new();
        let unknown = fields(&body[4..]);
        leaves(&unknown[0].1, "meta", 0, &mut out);
        for (number, content) in fields(&unknown[1].1) {
            leaves(&content, &format!("object.{number}"), 0, &mut out);
        }
        out
    };
    let (own, real) = (read(&own), read(&real));
    // Creation is a moment, which the captured answer writes with explicit nanoseconds.
    let keys = |map: &BTreeMap<String, Vec<u8>>| {
        map.keys().filter(|key| *key != "object.2.2").cloned().collect::<Vec<_>>()
    };
    let zero_free: Vec<String> =
        keys(&real).into_iter().filter(|key| real[key].iter().any(|b| *b != 0)).collect();
    for key in zero_free {
        assert!(own.contains_key(&key), "{key} is missing: {own:?}");
    }
    for key in ["meta.1", "meta.2", "object.1.1", "object.2.1", "object.3.1"] {
        assert_eq!(own[key], real[key], "{key}");
    }
}

#[tokio::test]
async fn every_schema_that_openapi_refers_to_is_there() {
    let server = server(cluster());
    let (_, index) = get(&server, "/openapi/v3", "*/*").await;
    let path =
        index["paths"]["apis/metrics.k8s.io/v1beta1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let (_, document) = get(&server, &path, "*/*").await;
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let text = document.to_string();
    let mut references = 0;
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
        references += 1;
    }
    assert!(references > 20, "{references}");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let server = server(cluster());
    let (_, first) = get(&server, &format!("{V1BETA1}/pods?limit=1"), "*/*").await;
    assert_eq!(first["items"].as_array().unwrap().len(), 1);
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    let token = first["metadata"]["continue"].as_str().unwrap().replace('/', "%2F");
    let (_, second) = get(&server, &format!("{V1BETA1}/pods?limit=1&continue={token}"), "*/*").await;
    assert_eq!(second["items"][0]["metadata"]["name"], "pod-5-6");
    assert_eq!(second["metadata"].get("continue"), None);
    assert_eq!(get(&server, &format!("{V1BETA1}/pods?continue=x"), "*/*").await.0, StatusCode::GONE);
    assert_eq!(get(&server, &format!("{V1BETA1}/pods?limit=x"), "*/*").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn discovery_does_not_wait_for_storage() {
    let server = server(Cluster { series: None, ..cluster() });
    for path in ["/apis", "/apis/metrics.k8s.io", V1BETA1, "/api", "/api/v1/nodes"] {
        assert_eq!(get(&server, path, "*/*").await.0, StatusCode::OK, "{path}");
    }
    let (status, body) = get(&server, &format!("{V1BETA1}/nodes"), "*/*").await;
    assert_eq!((status, &body["reason"]), (StatusCode::SERVICE_UNAVAILABLE, &"ServiceUnavailable".into()));
    assert_eq!(body["details"]["retryAfterSeconds"], 1);
}

#[tokio::test]
async fn the_core_api_shows_what_percentages_need() {
    let server = server(cluster());
    let (_, nodes) =
        get(&server, "/api/v1/nodes", "application/vnd.kubernetes.protobuf,application/json").await;
    assert_eq!(nodes["items"][0]["status"]["allocatable"]["cpu"], "8");
    assert_eq!(nodes["items"][0]["status"]["allocatable"]["memory"], "16Gi");
    let (_, pods) = get(&server, "/api/v1/namespaces/ns-5/pods", "*/*").await;
    assert_eq!(pods["items"].as_array().unwrap().len(), 2);
    assert_eq!(get(&server, "/api/v1/nodes/nope", "*/*").await.0, StatusCode::NOT_FOUND);
}
