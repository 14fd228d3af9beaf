//! The newest points alone give the same answers as a store of all samples.
#![allow(clippy::unwrap_used, reason = "a test ends where its assumptions do")]

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use metrics_api::{Newest, NodeInfo, PodInfo, Source, State, Unavailable, router};
use model::{Labels, Querier, Timestamp};
use proptest::prelude::*;
use tower::ServiceExt as _;

#[expect(dead_code, reason = "other tests use more of it")]
mod store;

use store::Series;

const NOW: Timestamp = 1_795_236_760_000;
const PODS: [&str; 4] = ["a", "b", "c", "d"];
const NAMESPACES: [&str; 3] = ["n", "ns", "o"];
const PATHS: [&str; 6] =
    ["pods", "nodes", "nodes/node-0", "namespaces/n/pods", "namespaces/ns/pods", "namespaces/ns/pods/b"];

/// A cluster whose samples are in a store, or of whose samples only the newest are kept.
struct World {
    series: Series,
    newest: Option<Newest>,
}

impl Source for World {
    fn querier(&self) -> Result<Box<dyn Querier>, Unavailable> {
        Ok(Box::new(self.series.clone()))
    }

    fn newest(&self) -> Option<&Newest> {
        self.newest.as_ref()
    }

    fn nodes(&self) -> Vec<NodeInfo> {
        let node = |at| NodeInfo { name: format!("node-{at}"), ..NodeInfo::default() };
        (0..3).map(node).collect()
    }

    fn pods(&self) -> Vec<PodInfo> {
        let pod = |namespace: &str, name: &str| PodInfo {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..PodInfo::default()
        };
        NAMESPACES.iter().flat_map(|namespace| PODS.map(|name| pod(namespace, name))).collect()
    }

    fn now(&self) -> Timestamp {
        NOW
    }
}

fn answers(world: World) -> Vec<(u16, String)> {
    let server = router(State::new(Arc::new(world)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let get = |path: &&str| {
        runtime.block_on(async {
            let request = Request::get(format!("/apis/metrics.k8s.io/v1beta1/{path}"));
            let answer = server.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        })
    };
    PATHS.iter().map(get).collect()
}

/// A sample of a page: which series, its value; and whether it is there at all.
type Sample = (usize, usize, usize, f64);

/// Pages of one node each, one after the other.
#[derive(Clone, Debug)]
struct Page {
    node: usize,
    ts: Timestamp,
    samples: Vec<Sample>,
}

fn pages() -> impl Strategy<Value = Vec<Page>> {
    let value = prop_oneof![6 => 0.0..1e6_f64, 1 => Just(model::stale_nan())];
    let sample = (0..NAMESPACES.len(), 0..PODS.len(), 0..7_usize, value);
    let page = (0..3_usize, 0..20_000_i64, prop::collection::vec(sample, 0..30));
    prop::collection::vec(page, 0..16).prop_map(|pages| {
        let mut ts = NOW - 10_000 * 16;
        let mut in_order = Vec::new();
        for (node, step, samples) in pages {
            ts = (ts + step).min(NOW);
            in_order.push(Page { node, ts, samples });
        }
        in_order
    })
}

/// The labels of a sample's series, and its value: of a start a time near those of the samples.
fn series(page: &Page, (namespace, pod, kind, value): Sample) -> (Labels, f64) {
    let name = [
        "container_cpu_usage_seconds_total",
        "container_cpu_usage_seconds_total",
        "container_memory_working_set_bytes",
        "container_start_time_seconds",
        "node_cpu_usage_seconds_total",
        "node_memory_working_set_bytes",
        "something_else",
    ][kind];
    let node = format!("node-{}", page.node);
    let mut pairs =
        vec![("__name__", name), ("metrics_path", "/metrics/resource"), ("job", "kubelet"), ("node", &node)];
    if kind < 4 {
        // A pod is on one node, but for the last of each namespace, which moves.
        pairs.extend([
            ("namespace", NAMESPACES[namespace]),
            ("pod", PODS[pod]),
            ("container", ["x", "y"][pod % 2]),
        ]);
    }
    let value = if kind == 3 && !model::is_stale_nan(value) {
        (NOW - 300_000) as f64 / 1000.0 + value / 1e6 * 300.0
    } else {
        value
    };
    (Labels::from_pairs(pairs), value)
}

proptest! {
    #[test]
    fn the_newest_points_answer_as_a_store_does(pages in pages()) {
        let newest = Newest::new();
        let mut stored: BTreeMap<Labels, Vec<(Timestamp, f64)>> = BTreeMap::new();
        for page in &pages {
            let mut taking = newest.page();
            for sample in &page.samples {
                // A container is on the node of its pod's number.
                if sample.2 < 4 && sample.1 % 3 != page.node {
                    continue;
                }
                let (labels, value) = series(page, *sample);
                let samples = stored.entry(labels.clone()).or_default();
                if samples.last().is_none_or(|(ts, _)| *ts < page.ts) {
                    samples.push((page.ts, value));
                    let number = taking.series(&labels);
                    prop_assert!(taking.append(number, page.ts, value));
                }
            }
        }
        let mut series = Series::default();
        for (labels, samples) in &stored {
            series.put(&labels.iter().collect::<Vec<_>>(), samples);
        }
        let expected = answers(World { series, newest: None });
        let given = answers(World { series: Series::default(), newest: Some(newest) });
        for ((path, expected), given) in PATHS.iter().zip(&expected).zip(&given) {
            prop_assert_eq!(given, expected, "{}", path);
        }
    }
}

fn container(node: &str, pod: &str, name: &str) -> Labels {
    Labels::from_pairs([
        ("__name__", name),
        ("metrics_path", "/metrics/resource"),
        ("node", node),
        ("namespace", "ns"),
        ("pod", pod),
        ("container", "x"),
    ])
}

fn shown(newest: Newest) -> serde_json::Value {
    let list = answers(World { series: Series::default(), newest: Some(newest) }).swap_remove(0);
    serde_json::from_str(&list.1).unwrap()
}

#[test]
fn a_container_that_moves_counts_from_there() {
    let newest = Newest::new();
    let take = |node, ts, cpu| {
        let mut page = newest.page();
        for (name, value) in
            [("container_cpu_usage_seconds_total", cpu), ("container_memory_working_set_bytes", 4096.0)]
        {
            let series = page.series(&container(node, "a", name));
            assert!(page.append(series, ts, value));
        }
    };
    take("node-1", NOW - 60_000, 500.0);
    take("node-1", NOW - 45_000, 510.0);
    take("node-2", NOW - 30_000, 1.0);
    take("node-1", NOW - 40_000, 511.0);
    take("node-2", NOW - 20_000, 6.0);
    let list = shown(newest);
    assert_eq!(list["items"][0]["containers"][0]["usage"]["cpu"], "500m");
    assert_eq!(list["items"][0]["window"], "10s");
}

#[test]
fn containers_that_are_gone_make_room_and_numbers_are_given_anew() {
    let newest = Newest::new();
    let mut first = 0;
    for at in 0..40_000_i64 {
        let mut page = newest.page();
        let labels = container("node-1", &format!("pod-{at}"), "container_cpu_usage_seconds_total");
        let series = page.series(&labels);
        first = if at == 0 { series } else { first };
        assert!(page.append(series, NOW - 80_000_000 + at * 1000, 1.0));
    }
    let mut page = newest.page();
    assert!(!page.append(first, NOW, 1.0), "its row is gone");
    let again = page.series(&container("node-1", "pod-0", "container_cpu_usage_seconds_total"));
    assert!(page.append(again, NOW, 1.0));
    drop(page);
    assert!(newest.rows() < 3_000, "{} rows", newest.rows());
}

#[test]
fn a_page_may_be_of_many_new_containers() {
    let newest = Newest::new();
    for ts in [NOW - 15_000, NOW] {
        let mut page = newest.page();
        let series: Vec<u64> = (0..5_000)
            .map(|at| {
                page.series(&container("node-1", &format!("pod-{at}"), "container_memory_working_set_bytes"))
            })
            .collect();
        assert!(series.iter().all(|series| page.append(*series, ts, 1.0)));
    }
    assert_eq!(newest.rows(), 5_000);
}
