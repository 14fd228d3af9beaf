//! One scrape is one truth: what `kubectl top` shows, what an autoscaler is told and what PromQL says of the same series
//! are the same number of the same moment.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its assumptions do")]

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use metrics_api::{Adapter, NodeInfo, PodInfo, Source, State, Unavailable, adapter, router};
use model::{Querier, Timestamp, Value as Number};
use promql::{Engine, EngineOptions, ParseOptions, QueryOptions, QueryValue};
use proptest::prelude::*;
use serde_json::Value;
use tower::ServiceExt as _;

mod store;

use store::Series;

const NOW: Timestamp = 1_795_236_760_000;
const CPU: &str = r#"sum by (pod) (irate(container_cpu_usage_seconds_total{namespace="ns",pod="p"}[2m]))"#;
const RULES: &str = r#"
rules:
- seriesQuery: container_cpu_usage_seconds_total
  resources: {template: "<<.Resource>>"}
  name: {as: cpu}
  metricsQuery: 'sum by (<<.GroupBy>>) (irate(<<.Series>>{<<.LabelMatchers>>}[2m]))'
- seriesQuery: container_memory_working_set_bytes
  resources: {template: "<<.Resource>>"}
  name: {as: memory}
  metricsQuery: 'sum by (<<.GroupBy>>) (<<.Series>>{<<.LabelMatchers>>})'
"#;

struct World(Series);

impl Source for World {
    fn querier(&self) -> Result<Box<dyn Querier>, Unavailable> {
        Ok(Box::new(self.0.clone()))
    }

    fn nodes(&self) -> Vec<NodeInfo> {
        Vec::new()
    }

    fn pods(&self) -> Vec<PodInfo> {
        vec![PodInfo { namespace: "ns".into(), name: "p".into(), ..PodInfo::default() }]
    }

    fn now(&self) -> Timestamp {
        NOW
    }
}

fn get(server: &Router, path: &str) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let body = server.clone().oneshot(request).await.unwrap().into_body().collect().await.unwrap();
        serde_json::from_slice(&body.to_bytes()).unwrap()
    })
}

/// A quantity as a number.
fn number(quantity: &Value) -> f64 {
    let text = quantity.as_str().unwrap();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor = match &text[digits..] {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        other => panic!("{other}"),
    };
    text[..digits].parse::<f64>().unwrap() * factor
}

/// What the pages of a kubelet say of one container: by how much the counter rose from page to page, and its memory.
type Container = (Vec<f64>, u32);

proptest! {
    #[test]
    fn top_autoscaler_and_query_agree(
        containers in prop::collection::vec((prop::collection::vec(0.0..60.0_f64, 3), 0..u32::MAX), 1..4),
        gaps in prop::collection::vec(5_000..30_000_i64, 3),
        age in 0..14_000_i64,
    ) {
        let last = NOW - age;
        // From the newest page back.
        let times: Vec<Timestamp> = gaps.iter().scan(last, |at, gap| { let now = *at; *at -= gap; Some(now) }).collect();
        let mut series = Series::default();
        for (index, (rises, memory)) in (containers as Vec<Container>).iter().enumerate() {
            let mut total = 1_000.0;
            let mut points: Vec<(Timestamp, f64)> = times.iter().rev().zip(rises).map(|(ts, rise)| { total += rise; (*ts, total) }).collect();
            points.dedup_by_key(|(ts, _)| *ts);
            series.container(("ns", "p"), &format!("c{index}"), &points, f64::from(*memory));
        }
        let engine = Arc::new(Engine::new(EngineOptions { workers: 1, ..EngineOptions::default() }));
        let adapter = Adapter::new(Arc::clone(&engine));
        adapter.set_rules(adapter::parse(RULES).unwrap());
        let server = router(State::new(Arc::new(World(series.clone()))).with_adapter(Arc::new(adapter)));

        let top = get(&server, "/apis/metrics.k8s.io/v1beta1/namespaces/ns/pods/p");
        let sum = |resource: &str| -> f64 {
            top["containers"].as_array().unwrap().iter().map(|it| number(&it["usage"][resource])).sum()
        };
        let expr = promql::parse(CPU, &ParseOptions::default()).unwrap();
        let outcome = engine.instant(&series, &expr, last, &QueryOptions::default()).unwrap();
        let QueryValue::Vector(rows) = outcome.value else { panic!("no vector") };
        let Number::Float(stated) = rows[0].value else { panic!("no number") };
        let close = |a: f64, b: f64, step: f64| (a - b).abs() <= step + 1e-9 * b.abs();
        // Nanocores are cut off once a container.
        prop_assert!(close(sum("cpu"), stated, 4e-9), "{} {stated}", sum("cpu"));
        let root = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns/pods/p";
        let cpu = get(&server, &format!("{root}/cpu"))["items"][0].clone();
        prop_assert!(close(number(&cpu["value"]), stated, 1e-3), "{cpu} {stated}");
        prop_assert_eq!(&cpu["timestamp"], &top["timestamp"]);
        let memory = get(&server, &format!("{root}/memory"))["items"][0].clone();
        prop_assert_eq!(number(&memory["value"]), sum("memory"));
        prop_assert_eq!(&memory["timestamp"], &top["timestamp"]);
    }
}
