//! Custom and external metrics by prometheus-adapter's rules, asked for as an autoscaler does.
#![allow(clippy::unwrap_used, reason = "a test ends where its assumptions do")]

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use metrics_api::{Adapter, NodeInfo, PodInfo, Source, State, Unavailable, adapter, router};
use model::{Querier, Timestamp};
use serde_json::{Value, json};
use tower::ServiceExt as _;

mod store;

use store::Series;

const NOW: Timestamp = 1_795_236_760_000;

/// What the store has, and pods by name with the value of their label `app`.
struct World {
    series: Option<Series>,
    pods: Vec<(&'static str, &'static str)>,
}

impl Source for World {
    fn querier(&self) -> Result<Box<dyn Querier>, Unavailable> {
        let series = self.series.clone().ok_or_else(|| Unavailable("the store is being opened".into()))?;
        Ok(Box::new(series))
    }

    fn nodes(&self) -> Vec<NodeInfo> {
        vec![NodeInfo { name: "node-1".into(), ..NodeInfo::default() }]
    }

    fn pods(&self) -> Vec<PodInfo> {
        let pod = |(name, app): &(&str, &str)| PodInfo {
            namespace: "default".into(),
            name: (*name).to_owned(),
            labels: BTreeMap::from([("app".to_owned(), (*app).to_owned())]),
            ..PodInfo::default()
        };
        self.pods.iter().map(pod).collect()
    }

    fn now(&self) -> Timestamp {
        NOW
    }
}

const RULES: &str = r#"
rules:
- seriesQuery: '{__name__=~"^http_.*_total$",namespace!="",pod!=""}'
  resources:
    overrides:
      namespace: {resource: namespace}
      pod: {resource: pod}
      service: {resource: service}
  name: {matches: "^(.*)_total$", as: "${1}_per_second"}
  metricsQuery: 'sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>)'
- seriesQuery: 'queue_depth'
  resources: {template: "<<.Resource>>"}
  metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
- seriesQuery: 'ratio'
  resources: {template: "<<.Resource>>"}
  metricsQuery: '<<.Series>>{<<.LabelMatchers>>}'
externalRules:
- seriesQuery: '{__name__="queue_messages"}'
  metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (queue)'
- seriesQuery: '{__name__="spot_price"}'
  resources: {namespaced: false}
  metricsQuery: 'max(<<.Series>>{<<.LabelMatchers>>})'
resourceRules:
  cpu:
    containerQuery: 'sum by (<<.GroupBy>>) (irate(container_cpu_usage_seconds_total{<<.LabelMatchers>>,container!=""}[4m]))'
    nodeQuery: 'sum by (<<.GroupBy>>) (irate(node_cpu_usage_seconds_total{<<.LabelMatchers>>}[4m]))'
    resources: {overrides: {node: {resource: node}, namespace: {resource: namespace}, pod: {resource: pod}}}
    containerLabel: container
  memory:
    containerQuery: 'sum by (<<.GroupBy>>) (container_memory_working_set_bytes{<<.LabelMatchers>>,container!=""})'
    nodeQuery: 'sum by (<<.GroupBy>>) (node_memory_working_set_bytes{<<.LabelMatchers>>})'
    resources: {overrides: {node: {resource: node}, namespace: {resource: namespace}, pod: {resource: pod}}}
    containerLabel: container
  window: 5m
"#;

/// A counter that rises by `per_second`, scraped each 15 s until `end`.
fn counter(per_second: f64, end: Timestamp) -> Vec<(Timestamp, f64)> {
    (0..=8)
        .map(|at| end - (8 - at) * 15_000)
        .map(|ts| (ts, (ts - end + 1_000_000) as f64 / 1000.0 * per_second))
        .collect()
}

fn requests(series: &mut Series, pod: &str, verb: &str, points: &[(Timestamp, f64)]) {
    let labels = [
        ("__name__", "http_requests_total"),
        ("namespace", "default"),
        ("pod", pod),
        ("service", "web"),
        ("verb", verb),
        ("job", "web"),
        ("instance", pod),
    ];
    series.put(&labels, points);
}

fn world() -> World {
    let mut series = Series::default();
    requests(&mut series, "web-1", "GET", &counter(2.0, NOW - 3_000));
    requests(&mut series, "web-1", "POST", &counter(0.5, NOW - 4_000));
    requests(&mut series, "web-2", "GET", &counter(1.25, NOW - 9_000));
    // Its target went away ten minutes ago.
    requests(&mut series, "gone-1", "GET", &counter(1.0, NOW - 600_000));
    for (instance, last) in [("web-1", 1.0), ("web-2", 1.0), ("gone-1", 0.0)] {
        let points: Vec<_> = (0..60)
            .map(|at| NOW - 900_000 + at * 15_000)
            .map(|ts| (ts, if ts > NOW - 600_000 { last } else { 1.0 }))
            .collect();
        series.put(&[("__name__", "up"), ("job", "web"), ("instance", instance)], &points);
    }
    let depth = [("__name__", "queue_depth"), ("namespace", "default"), ("node", "node-1"), ("pod", "web-1")];
    series.put(&depth, &[(NOW - 5_000, 12_000.0)]);
    for (pod, value) in [("web-1", f64::NAN), ("web-2", 0.25)] {
        series.put(&[("__name__", "ratio"), ("namespace", "default"), ("pod", pod)], &[(NOW - 5_000, value)]);
    }
    for (path, value) in [("/a", 1.0), ("/b", 2.0)] {
        series.put(
            &[("__name__", "ratio"), ("namespace", "default"), ("pod", "twice"), ("path", path)],
            &[(NOW - 5_000, value)],
        );
    }
    for (queue, value, ts) in [("a", 30.0, NOW - 1_000), ("b", 4.5, NOW - 2_000), ("c", 7.0, NOW - 3_000)] {
        series.put(
            &[("__name__", "queue_messages"), ("namespace", "default"), ("queue", queue)],
            &[(ts, value)],
        );
    }
    series.put(&[("__name__", "spot_price"), ("zone", "eu")], &[(NOW - 7_000, 0.031)]);
    // As a Prometheus without the kubelets' resource page has it.
    for (name, points) in [
        ("container_cpu_usage_seconds_total", counter(0.25, NOW - 6_000)),
        ("container_memory_working_set_bytes", vec![(NOW - 6_000, 1024.0)]),
    ] {
        series.put(
            &[("__name__", name), ("namespace", "default"), ("pod", "web-2"), ("container", "c")],
            &points,
        );
    }
    World { series: Some(series), pods: vec![("web-1", "web"), ("web-2", "web"), ("other", "x")] }
}

fn server(world: World) -> Router {
    let adapter = Adapter::new(Arc::new(promql::Engine::new(promql::EngineOptions::default())));
    adapter.set_rules(adapter::parse(RULES).unwrap());
    router(State::new(Arc::new(world)).with_adapter(Arc::new(adapter)))
}

async fn get(router: &Router, path: &str) -> (StatusCode, Value) {
    with_accept(router, path, "application/vnd.kubernetes.protobuf, */*").await
}

async fn with_accept(router: &Router, path: &str, accept: &str) -> (StatusCode, Value) {
    let request = Request::get(path).header("Accept", accept).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

const V1BETA2: &str = "/apis/custom.metrics.k8s.io/v1beta2";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default";

#[tokio::test]
async fn pods_by_selector_with_the_star_percent_encoded() {
    let server = server(world());
    let path = format!("{V1BETA2}/namespaces/default/pods/%2A/http_requests_per_second");
    let (status, list) = get(&server, &format!("{path}?labelSelector=app%3Dweb")).await;
    assert_eq!(status, StatusCode::OK, "{list}");
    let expected = json!({
        "kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta2", "metadata": {},
        "items": [
            {
                "describedObject": {"kind": "Pod", "namespace": "default", "name": "web-1", "apiVersion": "v1"},
                "metric": {"name": "http_requests_per_second", "selector": null},
                "timestamp": "2026-11-21T04:52:36Z", "windowSeconds": 120, "value": "2500m",
            },
            {
                "describedObject": {"kind": "Pod", "namespace": "default", "name": "web-2", "apiVersion": "v1"},
                "metric": {"name": "http_requests_per_second", "selector": null},
                "timestamp": "2026-11-21T04:52:31Z", "windowSeconds": 120, "value": "1250m",
            },
        ],
    });
    assert_eq!(list, expected);

    let (_, list) =
        get(&server, &format!("{path}?labelSelector=app%3Dweb&metricLabelSelector=verb%3DPOST")).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(list["items"][0]["value"], "500m");
    assert_eq!(list["items"][0]["metric"]["selector"], json!({"matchLabels": {"verb": "POST"}}));

    let (_, list) = get(&server, &path.replace("v1beta2", "v1beta1")).await;
    let item = &list["items"][0];
    assert_eq!((&item["metricName"], &item["window"]), (&json!("http_requests_per_second"), &json!(120)));
    assert_eq!(item.get("metric"), None);
    assert!(item.as_object().unwrap().contains_key("selector"));
}

#[tokio::test]
async fn objects_namespaces_and_cluster_objects() {
    let server = server(world());
    let value = async |path: &str| {
        let (status, list) = get(&server, &format!("{V1BETA2}/{path}")).await;
        assert_eq!(status, StatusCode::OK, "{path}: {list}");
        assert_eq!(list["items"].as_array().unwrap().len(), 1);
        list["items"][0].clone()
    };
    let service = value("namespaces/default/services/web/http_requests_per_second").await;
    assert_eq!(service["value"], "3750m");
    assert_eq!(service["describedObject"]["kind"], "Service");
    let namespace = value("namespaces/default/metrics/queue_depth").await;
    assert_eq!(namespace["value"], "12k");
    let expected = json!({"kind": "Namespace", "name": "default", "apiVersion": "v1"});
    assert_eq!(namespace["describedObject"], expected);
    assert_eq!(namespace.get("windowSeconds"), None, "a gauge covers no time");
    assert_eq!(value("nodes/node-1/queue_depth").await["value"], "12k");
    assert_eq!(value("nodes/*/queue_depth").await["describedObject"]["name"], "node-1");
}

#[tokio::test]
async fn an_absent_value_is_an_error_with_its_reason() {
    let server = server(world());
    let pod = |name: &str, metric: &str| format!("{V1BETA2}/namespaces/default/pods/{name}/{metric}");
    for (path, expected) in [
        (
            pod("gone-1", "http_requests_per_second"),
            "the server could not find the metric http_requests_per_second for pods gone-1: its newest sample is of \
             2026-11-21T04:42:40Z (10m0s ago); target gone-1 of job web is down since 2026-11-21T04:42:55Z; scrape coverage 0/1",
        ),
        (
            pod("other", "http_requests_per_second"),
            "series http_requests_total exist, but none with namespace=\"default\",pod=\"other\"",
        ),
        (pod("web-1", "nope"), "no rule makes it of any series of the last 24 hours"),
        (pod("web-1", "ratio"), "its value is NaN, which is no quantity"),
        (pod("*", "http_requests_per_second?labelSelector=app%3Dnone"), "the selector fits no object"),
        (
            format!("{EXTERNAL}/queue_messages?labelSelector=queue%3Dz"),
            "series queue_messages exist, but none with queue=\"z\"",
        ),
        (format!("{EXTERNAL}/nope"), "no rule makes it"),
        (
            format!("{V1BETA2}/namespaces/default/unicorns/u/queue_depth"),
            "no rule and no cluster knows such a resource",
        ),
    ] {
        let (status, body) = get(&server, &path).await;
        assert_eq!((status, &body["reason"]), (StatusCode::NOT_FOUND, &json!("NotFound")), "{path}: {body}");
        assert_eq!(body["kind"], "Status");
        let message = body["message"].as_str().unwrap();
        assert!(message.contains(expected), "{path}: {message}");
    }
    // NaN of one pod leaves it out of a list, where the autoscaler takes the careful side for missing pods.
    let (_, list) = get(&server, &pod("*", "ratio?labelSelector=app%3Dweb")).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let (status, body) = get(&server, &pod("twice", "ratio")).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(body["message"].as_str().unwrap().contains("must group by <<.GroupBy>>"), "{body}");
    let (status, _) = get(&server, &pod("web-1", "ratio?metricLabelSelector=a%3E1")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(get(&server, &pod("web-1", "ratio?watch=true")).await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn external_metrics() {
    let server = server(world());
    let (status, list) =
        get(&server, &format!("{EXTERNAL}/queue_messages?labelSelector=queue+in+%28a%2Cb%29")).await;
    assert_eq!(status, StatusCode::OK, "{list}");
    let item = |queue: &str, value: &str, second: u32| json!({"metricName": "queue_messages", "metricLabels": {"queue": queue}, "timestamp": format!("2026-11-21T04:52:{second}Z"), "value": value});
    let expected = json!({
        "kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": {},
        "items": [item("a", "30", 39), item("b", "4500m", 38)],
    });
    assert_eq!(list, expected);
    let (_, list) = get(&server, &format!("{EXTERNAL}/spot_price")).await;
    assert_eq!(
        list["items"],
        json!([{"metricName": "spot_price", "metricLabels": {}, "timestamp": "2026-11-21T04:52:33Z", "value": "31m"}])
    );
}

#[tokio::test]
async fn discovery_lists_what_exists_now_and_groups_always() {
    let names = |list: &Value| {
        let all = list["resources"].as_array().unwrap();
        all.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let running = server(world());
    let (_, list) = get(&running, V1BETA2).await;
    let expected = [
        "namespaces/http_requests_per_second",
        "namespaces/queue_depth",
        "namespaces/ratio",
        "nodes/queue_depth",
        "pods/http_requests_per_second",
        "pods/queue_depth",
        "pods/ratio",
        "services/http_requests_per_second",
    ];
    assert_eq!(names(&list), expected);
    assert_eq!(
        list["resources"][3],
        json!({"name": "nodes/queue_depth", "singularName": "", "namespaced": false, "kind": "MetricValueList", "verbs": ["get"]})
    );
    let (_, list) = get(&running, "/apis/external.metrics.k8s.io/v1beta1").await;
    assert_eq!(names(&list), ["queue_messages", "spot_price"]);
    let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (_, groups) = with_accept(&running, "/apis", v2).await;
    assert_eq!(groups["items"].as_array().unwrap().len(), 3);
    let pods = &groups["items"][1]["versions"][0]["resources"][2];
    assert_eq!((&pods["resource"], &pods["scope"]), (&json!("pods"), &json!("Namespaced")));
    assert_eq!(pods["subresources"].as_array().unwrap().len(), 3);

    let starting = server(World { series: None, pods: Vec::new() });
    for path in ["/apis", V1BETA2, "/apis/custom.metrics.k8s.io", "/apis/external.metrics.k8s.io/v1beta1"] {
        assert_eq!(get(&starting, path).await.0, StatusCode::OK, "{path}");
    }
    let (status, _) = get(&starting, &format!("{V1BETA2}/namespaces/default/pods/web-1/ratio")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn resource_rules_stand_in_where_no_kubelet_has_told() {
    let mut world = world();
    let points = counter(0.5, NOW - 2_000);
    world.series.as_mut().unwrap().container(("default", "web-1"), "c", &points, 4096.0);
    let server = server(world);
    let (status, list) = get_json(&server, "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods").await;
    assert_eq!(status, StatusCode::OK, "{list}");
    let shown: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| {
            let usage = &pod["containers"][0]["usage"];
            (
                pod["metadata"]["name"].clone(),
                usage["cpu"].clone(),
                usage["memory"].clone(),
                pod["window"].clone(),
            )
        })
        .collect();
    // The first by the kubelet's own page, the second by the rules; none twice.
    let expected = [("web-1", "500m", "4Ki", "15s"), ("web-2", "250m", "1Ki", "5m0s")];
    assert_eq!(shown, expected.map(|(a, b, c, d)| (json!(a), json!(b), json!(c), json!(d))));
    assert_eq!(list["items"][1]["timestamp"], "2026-11-21T04:52:34Z");
}

async fn get_json(router: &Router, path: &str) -> (StatusCode, Value) {
    with_accept(router, path, "application/json").await
}

#[test]
fn rules_can_be_tried() {
    let world = world();
    let engine = promql::Engine::new(promql::EngineOptions::default());
    let trials = adapter::parse(RULES).unwrap().try_all(&engine, &world.series.unwrap(), NOW).unwrap();
    assert_eq!(trials.len(), 5);
    let pods = trials[0].paths.iter().find(|path| path.path.contains("/pods/")).unwrap();
    assert_eq!(
        pods.path,
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/http_requests_per_second"
    );
    assert!(
        pods.query.starts_with("sum(rate(http_requests_total{namespace=\"default\",pod=~\""),
        "{}",
        pods.query
    );
    assert_eq!(
        pods.values.as_ref().unwrap().iter().map(|it| it.value.as_str()).collect::<Vec<_>>(),
        ["2500m", "1250m"]
    );
    assert_eq!(
        trials[3].paths[0].path,
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue_messages"
    );
    let nothing = adapter::parse("rules:\n- seriesQuery: nope\n  metricsQuery: <<.Series>>\n").unwrap();
    let trials = nothing.try_all(&engine, &Series::default(), NOW).unwrap();
    assert_eq!(trials[0].warnings, ["seriesQuery fits no series of the last 10 minutes"]);
}
