//! Twins of metrics-server's own test cases, by the names that its specification gives them, and where we differ on
//! purpose (*better*). Those marked with `it` need a process that scrapes, and are in `tests/it/metrics_server.rs`.
//!
//! | case | twin |
//! |---|---|
//! | decode: normal | it `decode_the_normal_page` |
//! | decode: no timestamp, so that of the request | it `decode_without_timestamps_samples_are_of_the_time_of_the_scrape` |
//! | decode: containers only; node only | `decode_containers_only_and_node_only` |
//! | decode: missing CPU or memory of a container drops the pod | `decode_missing_container_cpu_or_memory_drops_the_pod` |
//! | decode: zero CPU or memory of a container drops the pod | *better*: `decode_better_a_container_that_has_used_no_cpu_is_shown`, `decode_better_zero_is_a_value` |
//! | decode: missing CPU or memory of a node drops it | `decode_missing_node_cpu_or_memory_drops_the_node` |
//! | decode: zero CPU or memory of a node drops it | *better*: `decode_better_zero_is_a_value` |
//! | decode: malformed timestamp fails the scrape | it `decode_a_malformed_timestamp_fails_the_whole_scrape` |
//! | node storage: two batches, then values | `node_storage_two_batches_then_values` |
//! | node storage: same point twice | `node_storage_same_point_twice_keeps_the_value` |
//! | node storage: counter exposed; zero start time | `node_storage_counter_exposed_and_zero_start_time_works` |
//! | node storage: restart is empty | `node_storage_restart_is_empty_for_one_cycle_and_then_works` |
//! | node storage: decreased counter is empty | `node_storage_decreased_counter_is_empty` |
//! | node storage: older than the one before is empty | *better*: `node_storage_better_a_point_older_than_the_two_changes_nothing` |
//! | node storage: between the two, smaller window | `node_storage_a_point_between_the_two_shortens_the_window` |
//! | node storage: absent from a batch, so forgotten | *better*: `node_storage_better_a_failed_scrape_keeps_the_last_point` |
//! | pod storage: two batches, then values | `pod_storage_two_batches_then_values` |
//! | pod storage: same point twice | `pod_storage_same_point_twice_keeps_the_value` |
//! | pod storage: between the two, smaller window | `pod_storage_a_point_between_the_two_shortens_the_window` |
//! | pod storage: earliest container's timestamp | `pod_storage_earliest_container_timestamp` |
//! | pod storage: restart with a container of 10 s | `pod_storage_restart_with_a_new_container_of_ten_seconds` |
//! | pod storage: long running container needs two cycles | `pod_storage_long_running_container_needs_two_cycles` |
//! | pod storage: fresh container of 10 s in one cycle | `pod_storage_fresh_container_in_one_cycle` |
//! | pod storage: start after timestamp; age of 9 s | `pod_storage_start_after_the_point_or_nine_seconds_before_is_none` |
//! | pod storage: zero start time | `pod_storage_zero_start_time_works` |
//! | pod storage: not all containers | `pod_storage_not_all_containers_is_none` |
//! | pod storage: decreased, so without containers | *better*: `pod_storage_better_a_decreased_counter_hides_the_pod_rather_than_emptying_it` |
//! | pod storage: containers in no order | *better*: `pod_storage_better_containers_are_in_order` |
//! | scraper: all nodes merged; requests counted; time passed on | it `scraper_all_nodes_are_merged_and_requests_are_counted` |
//! | scraper: one failing node spoils no other | *better*, it `scraper_better_one_failing_node_keeps_its_last_point_and_spoils_no_other` |
//! | scraper: timeouts of a source and of all | *better*, it `scraper_better_a_slow_node_times_out_by_itself_and_delays_no_other` |
//! | scraper: list error, so partial | *better*, it `scraper_better_without_a_list_of_nodes_the_last_one_is_good` |
//! | api: list and get by label, field, both; not found; without metrics | `api_list_and_get_by_label_and_field` |
//! | api: lister error | `api_a_store_that_cannot_be_read_is_an_error` |
//! | api: empty | `api_empty_store_lists_nothing_and_an_unknown_namespace_is_no_error` |
//! | api: freshness | `api_items_tell_how_fresh_they_are` |
//! | api: table | `api_tables_have_a_column_for_each_resource` |
//! | api: selectors, watch | `api_selectors_that_cannot_be_read_and_watches_are_refused` |
//! | ready: only nodes; only pods; both | `ready_with_nodes_and_pods_and_not_with_one_of_them` |
//! | quantities: larger than signed | `quantities_larger_than_a_signed_number` |
#![allow(clippy::unwrap_used, reason = "a test ends where its assumptions do")]

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use metrics_api::{NodeInfo, PodInfo, Source, State, Unavailable, router};
use model::{Querier, Timestamp};
use serde_json::{Value, json};
use tower::ServiceExt as _;

#[expect(dead_code, reason = "other tests use more of it")]
mod store;

use store::Series;

/// Seconds and values of a counter.
type Points<'a> = &'a [(i64, f64)];

/// CPU by container, the second of the pod's point, and its window.
type PodShown = (Vec<(String, String)>, i64, String);

const BEGIN_S: i64 = 1_795_236_000;

fn at(points: Points<'_>) -> Vec<(Timestamp, f64)> {
    points.iter().map(|(second, value)| ((BEGIN_S + second) * 1000, *value)).collect()
}

struct World {
    series: Series,
    now_s: i64,
}

impl World {
    /// A store seen at a second.
    fn seen(now_s: i64) -> Self {
        Self { series: Series::default(), now_s }
    }

    fn node(mut self, name: &str, cpu: Points<'_>, memory: Points<'_>) -> Self {
        for (metric, points) in
            [("node_cpu_usage_seconds_total", cpu), ("node_memory_working_set_bytes", memory)]
        {
            if !points.is_empty() {
                self.series.add(&[("__name__", metric), ("node", name)], &at(points));
            }
        }
        self
    }

    /// A container of pod `p`; `start` is a second, or none if the page has no such line.
    fn container(mut self, name: &str, start: Option<i64>, cpu: Points<'_>, memory: Points<'_>) -> Self {
        let labels = |metric| [("__name__", metric), ("namespace", "ns"), ("pod", "p"), ("container", name)];
        for (metric, points) in
            [("container_cpu_usage_seconds_total", cpu), ("container_memory_working_set_bytes", memory)]
        {
            if !points.is_empty() {
                self.series.add(&labels(metric), &at(points));
            }
        }
        if let Some(start) = start {
            let value = if start == 0 { 0.0 } else { (BEGIN_S + start) as f64 };
            let scraped: Vec<_> = cpu.iter().map(|(second, _)| ((BEGIN_S + second) * 1000, value)).collect();
            self.series.add(&labels("container_start_time_seconds"), &scraped);
        }
        self
    }

    fn get(self, path: &str) -> Value {
        ask(self, path, "application/json").1
    }

    /// Usage of the node, with its window.
    fn node_usage(self) -> Option<(String, String)> {
        let node = self.get("nodes/n");
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some((text(&node["usage"]["cpu"])?, text(&node["window"])?))
    }

    /// CPU by container, the pod's second and its window; none if the pod is not shown.
    fn pod_usage(self) -> Option<PodShown> {
        let pod = self.get("namespaces/ns/pods/p");
        let containers = pod["containers"].as_array()?.iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let used = containers.map(|it| (text(&it["name"]), text(&it["usage"]["cpu"]))).collect();
        let ts: jiff::Timestamp = pod["timestamp"].as_str()?.parse().unwrap();
        Some((used, ts.as_second() - BEGIN_S, text(&pod["window"])))
    }
}

impl Source for World {
    fn querier(&self) -> Result<Box<dyn Querier>, Unavailable> {
        Ok(Box::new(self.series.clone()))
    }

    fn nodes(&self) -> Vec<NodeInfo> {
        let node = |name: &str| NodeInfo { name: name.to_owned(), ..NodeInfo::default() };
        ["n", "n2"].map(node).into()
    }

    fn pods(&self) -> Vec<PodInfo> {
        let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
        vec![PodInfo { namespace: "ns".into(), name: "p".into(), labels, ..PodInfo::default() }]
    }

    fn now(&self) -> Timestamp {
        (BEGIN_S + self.now_s) * 1000
    }
}

/// Status and JSON of an answer.
fn ask(source: impl Source + 'static, path: &str, accept: &str) -> (u16, Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let server = router(State::new(Arc::new(source)));
        let request = Request::get(format!("/apis/metrics.k8s.io/v1beta1/{path}")).header("Accept", accept);
        let answer = server.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    })
}

const MEMORY: Points<'static> =
    &[(0, 1024.0), (10, 2048.0), (15, 2048.0), (20, 2048.0), (25, 2048.0), (30, 2048.0)];

fn usage(cpu: &str, window: &str) -> Option<(String, String)> {
    Some((cpu.to_owned(), window.to_owned()))
}

fn pod(containers: &[(&str, &str)], second: i64, window: &str) -> Option<PodShown> {
    let owned = containers.iter().map(|(name, cpu)| ((*name).to_owned(), (*cpu).to_owned())).collect();
    Some((owned, second, window.to_owned()))
}

#[test]
fn node_storage_two_batches_then_values() {
    assert_eq!(World::seen(5).node("n", &[(0, 10.0)], MEMORY).node_usage(), None, "one point is no rate");
    let world = World::seen(20).node("n", &[(0, 10.0), (15, 25.0)], MEMORY);
    assert_eq!(world.node_usage(), usage("1", "15s"));
}

#[test]
fn node_storage_same_point_twice_keeps_the_value() {
    // The kubelet has not sampled again; a store does not take a point twice.
    let world = World::seen(35).node("n", &[(0, 10.0), (15, 25.0)], MEMORY);
    assert_eq!(world.node_usage(), usage("1", "15s"));
}

#[test]
fn node_storage_decreased_counter_is_empty() {
    assert_eq!(World::seen(20).node("n", &[(0, 10.0), (15, 1.0)], MEMORY).node_usage(), None);
    // And there again one cycle later, from the points after the restart.
    let world = World::seen(31).node("n", &[(0, 10.0), (15, 1.0), (30, 4.0)], MEMORY);
    assert_eq!(world.node_usage(), usage("200m", "15s"));
}

#[test]
fn node_storage_a_point_between_the_two_shortens_the_window() {
    let world = World::seen(20).node("n", &[(0, 10.0), (10, 22.0), (15, 25.0)], MEMORY);
    assert_eq!(world.node_usage(), usage("600m", "5s"));
}

#[test]
fn node_storage_better_a_failed_scrape_keeps_the_last_point() {
    let cpu: Points<'_> = &[(0, 10.0), (15, 25.0)];
    // Two ticks later, where metrics-server has forgotten the node after the first.
    assert_eq!(World::seen(46).node("n", cpu, MEMORY).node_usage(), usage("1", "15s"));
    // But not for ever: the autoscaler does not look at the time.
    assert_eq!(World::seen(200).node("n", cpu, MEMORY).node_usage(), None);
}

#[test]
fn node_storage_one_failing_node_does_not_spoil_the_others() {
    let world = World::seen(20).node("n", &[(0, 10.0)], MEMORY).node("n2", &[(0, 1.0), (15, 2.5)], MEMORY);
    let list = world.get("nodes");
    let names: Vec<&Value> =
        list["items"].as_array().unwrap().iter().map(|it| &it["metadata"]["name"]).collect();
    assert_eq!(names, [&json!("n2")]);
}

#[test]
fn decode_missing_node_cpu_or_memory_drops_the_node() {
    assert_eq!(World::seen(20).node("n", &[], MEMORY).node_usage(), None);
    assert_eq!(World::seen(20).node("n", &[(0, 1.0), (15, 2.0)], &[]).node_usage(), None);
}

#[test]
fn decode_containers_only_and_node_only() {
    let world = World::seen(20).container("c", Some(-600), &[(0, 1.0), (15, 2.5)], MEMORY);
    assert_eq!(world.pod_usage(), pod(&[("c", "100m")], 15, "15s"));
    let world = World::seen(20).node("n", &[(0, 1.0), (15, 2.5)], MEMORY);
    assert_eq!(world.get("pods")["items"], json!([]));
}

#[test]
fn decode_missing_container_cpu_or_memory_drops_the_pod() {
    let whole = |world: World| world.container("a", None, &[(0, 1.0), (15, 2.5)], MEMORY);
    assert_eq!(whole(World::seen(20)).container("b", None, &[(0, 1.0), (15, 2.5)], &[]).pod_usage(), None);
}

#[test]
fn decode_better_a_container_that_has_used_no_cpu_is_shown() {
    let world = World::seen(20).container("busy", Some(-600), &[(0, 1.0), (15, 2.5)], MEMORY).container(
        "idle",
        Some(-600),
        &[(0, 0.0), (15, 0.0)],
        MEMORY,
    );
    assert_eq!(world.pod_usage(), pod(&[("busy", "100m"), ("idle", "0")], 15, "15s"));
}

#[test]
fn pod_storage_earliest_container_timestamp() {
    let world = World::seen(20).container("a", Some(-600), &[(0, 1.0), (15, 2.5)], MEMORY).container(
        "b",
        Some(-600),
        &[(0, 1.0), (10, 2.0)],
        MEMORY,
    );
    assert_eq!(world.pod_usage(), pod(&[("a", "100m"), ("b", "100m")], 10, "10s"));
}

#[test]
fn pod_storage_restart_with_a_new_container_of_ten_seconds() {
    // Started at 15 s, and 5 core-seconds at 25 s.
    let world = World::seen(26).container("c", Some(15), &[(10, 500.0), (25, 5.0)], MEMORY);
    assert_eq!(world.pod_usage(), pod(&[("c", "500m")], 25, "10s"));
}

#[test]
fn pod_storage_long_running_container_needs_two_cycles() {
    assert_eq!(World::seen(20).container("c", Some(-600), &[(15, 2.5)], MEMORY).pod_usage(), None);
}

#[test]
fn pod_storage_fresh_container_in_one_cycle() {
    let world = World::seen(20).container("c", Some(5), &[(15, 10.0)], MEMORY);
    assert_eq!(world.pod_usage(), pod(&[("c", "1")], 15, "10s"));
    assert_eq!(
        World::seen(20).container("c", Some(6), &[(15, 9.0)], MEMORY).pod_usage(),
        None,
        "nine seconds"
    );
    assert_eq!(
        World::seen(20).container("c", Some(16), &[(15, 9.0)], MEMORY).pod_usage(),
        None,
        "in the future"
    );
}

#[test]
fn pod_storage_zero_start_time_works() {
    let world = World::seen(20).container("c", Some(0), &[(0, 1.0), (15, 2.5)], MEMORY);
    assert_eq!(world.pod_usage(), pod(&[("c", "100m")], 15, "15s"));
    let world = World::seen(20).container("c", None, &[(0, 1.0), (15, 2.5)], MEMORY);
    assert_eq!(world.pod_usage(), pod(&[("c", "100m")], 15, "15s"));
}

#[test]
fn pod_storage_not_all_containers_is_none() {
    let world = World::seen(20).container("a", Some(-600), &[(0, 1.0), (15, 2.5)], MEMORY).container(
        "b",
        Some(-600),
        &[(15, 2.5)],
        MEMORY,
    );
    assert_eq!(world.pod_usage(), None);
}

#[test]
fn pod_storage_better_a_decreased_counter_hides_the_pod_rather_than_emptying_it() {
    // metrics-server shows the pod without containers, which is easily taken for one that uses nothing.
    let world = World::seen(20).container("c", Some(-600), &[(0, 10.0), (15, 1.0)], MEMORY);
    assert_eq!(world.pod_usage(), None);
}

#[test]
fn quantities_larger_than_a_signed_number() {
    let world = World::seen(20).node("n", &[(0, 0.0), (15, 1.5e10)], &[(15, 1.8e19)]);
    let node = world.get("nodes/n");
    assert_eq!(node["usage"]["cpu"], "1G");
    assert_eq!(node["usage"]["memory"], "17578125000000000Ki");
}

#[test]
fn api_list_and_get_by_label_and_field() {
    let world = || World::seen(20).container("c", Some(-600), &[(0, 1.0), (15, 2.5)], MEMORY);
    for (query, count) in [
        ("", 1),
        ("?labelSelector=app%3Da", 1),
        ("?labelSelector=app%3Db", 0),
        ("?fieldSelector=metadata.name%3Dp", 1),
        ("?fieldSelector=metadata.name%3Dq", 0),
        ("?labelSelector=app%3Da&fieldSelector=metadata.namespace%3Dns", 1),
        ("?labelSelector=app%3Da&fieldSelector=metadata.namespace%3Dother", 0),
    ] {
        let list = world().get(&format!("pods{query}"));
        assert_eq!(list["items"].as_array().unwrap().len(), count, "{query}");
    }
    assert_eq!(world().get("nodes/n")["message"], "nodemetrics.metrics.k8s.io \"n\" not found");
    assert_eq!(world().get("nodes/none")["message"], "node \"none\" not found");
    assert_eq!(
        World::seen(5).get("namespaces/ns/pods/p")["message"],
        "podmetrics.metrics.k8s.io \"ns/p\" not found"
    );
}

#[test]
fn node_storage_counter_exposed_and_zero_start_time_works() {
    // A kubelet tells no start of its node, so there is none to compare with.
    let world = World::seen(50).node("n", &[(0, 10.0), (15, 25.0), (30, 47.5), (45, 55.0)], MEMORY);
    assert_eq!(world.node_usage(), usage("500m", "15s"));
}

#[test]
fn node_storage_restart_is_empty_for_one_cycle_and_then_works() {
    // Without a start time a restart is a counter that has decreased.
    assert_eq!(World::seen(30).node("n", &[(0, 100.0), (15, 115.0), (30, 2.0)], MEMORY).node_usage(), None);
    let world = World::seen(45).node("n", &[(0, 100.0), (15, 115.0), (30, 2.0), (45, 17.0)], MEMORY);
    assert_eq!(world.node_usage(), usage("1", "15s"));
}

#[test]
fn node_storage_better_a_point_older_than_the_two_changes_nothing() {
    // The store has three points then, of which the newest two count; metrics-server shows nothing for a cycle.
    let world = World::seen(35).node("n", &[(0, 5.0), (10, 10.0), (25, 25.0)], MEMORY);
    assert_eq!(world.node_usage(), usage("1", "15s"));
}

#[test]
fn pod_storage_two_batches_then_values() {
    let one = World::seen(5).container("c", Some(-600), &[(0, 1.0)], MEMORY);
    assert_eq!(one.pod_usage(), None, "one point of a container that runs for long");
    let two = World::seen(20).container("c", Some(-600), &[(0, 1.0), (15, 16.0)], MEMORY);
    assert_eq!(two.pod_usage(), pod(&[("c", "1")], 15, "15s"));
}

#[test]
fn pod_storage_same_point_twice_keeps_the_value() {
    let world = World::seen(35).container("c", Some(-600), &[(0, 1.0), (15, 16.0)], MEMORY);
    assert_eq!(world.pod_usage(), pod(&[("c", "1")], 15, "15s"));
}

#[test]
fn pod_storage_a_point_between_the_two_shortens_the_window() {
    let world = World::seen(20).container("c", Some(-600), &[(0, 1.0), (5, 2.0), (15, 7.0)], MEMORY);
    assert_eq!(world.pod_usage(), pod(&[("c", "500m")], 15, "10s"));
}

#[test]
fn pod_storage_start_after_the_point_or_nine_seconds_before_is_none() {
    for start in [16, 6] {
        let world = World::seen(20).container("c", Some(start), &[(15, 9.0)], MEMORY);
        assert_eq!(world.pod_usage(), None, "{start}");
    }
}

#[test]
fn api_empty_store_lists_nothing_and_an_unknown_namespace_is_no_error() {
    for path in ["nodes", "pods", "namespaces/ns/pods", "namespaces/nowhere/pods"] {
        let list = World::seen(0).get(path);
        assert_eq!(list["items"], json!([]), "{path}");
        assert!(list["kind"].as_str().unwrap().ends_with("MetricsList"), "{path}");
    }
    assert_eq!(World::seen(0).get("namespaces/ns/pods/none")["message"], "pods \"none\" not found");
}

#[test]
fn api_selectors_that_cannot_be_read_and_watches_are_refused() {
    for (query, code) in [
        ("pods?labelSelector=a%20in%20b", 400),
        ("pods?fieldSelector=spec.nodeName%3Dn", 400),
        ("nodes?fieldSelector=metadata.namespace%3Dn", 400),
        ("pods?watch=true", 405),
        ("nodes?watch=1", 405),
        ("pods?limit=-1", 400),
    ] {
        let refused = World::seen(0).get(query);
        assert_eq!((&refused["kind"], &refused["code"]), (&json!("Status"), &json!(code)), "{query}");
    }
}

#[test]
fn decode_better_zero_is_a_value() {
    let zero: Points<'_> = &[(0, 0.0), (15, 0.0)];
    let world = World::seen(20).node("n", zero, zero);
    assert_eq!(world.node_usage(), usage("0", "15s"));
    let world = World::seen(20).container("c", Some(-600), &[(0, 1.0), (15, 2.5)], zero);
    let shown = world.get("namespaces/ns/pods/p");
    assert_eq!(shown["containers"][0]["usage"], json!({"cpu": "100m", "memory": "0"}));
}

#[test]
fn pod_storage_better_containers_are_in_order() {
    let cpu: Points<'_> = &[(0, 1.0), (15, 2.5)];
    let world = ["c", "a", "b"]
        .iter()
        .fold(World::seen(20), |world, name| world.container(name, Some(-600), cpu, MEMORY));
    assert_eq!(world.pod_usage(), pod(&[("a", "100m"), ("b", "100m"), ("c", "100m")], 15, "15s"));
}

/// A cluster whose store cannot be read.
struct Closed(World);

impl Source for Closed {
    fn querier(&self) -> Result<Box<dyn Querier>, Unavailable> {
        Err(Unavailable("the store is being opened".to_owned()))
    }

    fn nodes(&self) -> Vec<NodeInfo> {
        self.0.nodes()
    }

    fn pods(&self) -> Vec<PodInfo> {
        self.0.pods()
    }

    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

#[test]
fn api_a_store_that_cannot_be_read_is_an_error() {
    for path in ["nodes", "nodes/n", "pods", "namespaces/ns/pods", "namespaces/ns/pods/p"] {
        let (status, refused) = ask(Closed(World::seen(0)), path, "application/json");
        assert_eq!((status, &refused["kind"]), (503, &json!("Status")), "{path}");
        assert_eq!(refused["reason"], "ServiceUnavailable", "{path}");
        assert!(refused["message"].as_str().unwrap().contains("the store is being opened"), "{refused}");
    }
}

#[test]
fn api_items_tell_how_fresh_they_are() {
    // Metrics-server keeps a histogram of it; here whoever reads sees it, as the time is that of the sample.
    let time = |second: i64| jiff::Timestamp::from_second(BEGIN_S + second).unwrap().to_string();
    let (_, list) = ask(World::seen(37).node("n", &[(0, 1.0), (15, 2.5)], MEMORY), "nodes", "*/*");
    let item = &list["items"][0];
    assert_eq!(item["timestamp"], time(15));
    assert_eq!(item["metadata"]["creationTimestamp"], time(37));
}

#[test]
fn api_tables_have_a_column_for_each_resource() {
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let world = World::seen(20).container("a", Some(-600), &[(0, 1.0), (15, 2.5)], MEMORY).container(
        "b",
        Some(-600),
        &[(0, 1.0), (15, 2.5)],
        MEMORY,
    );
    let (status, table) = ask(world, "pods", accept);
    assert_eq!((status, &table["kind"]), (200, &json!("Table")));
    let columns: Vec<&Value> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(columns, [&json!("Name"), &json!("cpu"), &json!("memory"), &json!("Window")]);
    assert_eq!(table["rows"][0]["cells"], json!(["p", "200m", "4Ki", "15s"]));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

#[test]
fn ready_with_nodes_and_pods_and_not_with_one_of_them() {
    let cpu: Points<'_> = &[(0, 1.0), (15, 2.5)];
    let ready = |world: World| State::new(Arc::new(world)).has_values();
    assert!(!ready(World::seen(20)));
    assert!(!ready(World::seen(20).node("n", cpu, MEMORY)), "only nodes");
    assert!(!ready(World::seen(20).container("c", Some(-600), cpu, MEMORY)), "only pods");
    assert!(!ready(World::seen(5).node("n", cpu, MEMORY).container("c", Some(-600), &[(0, 1.0)], MEMORY)));
    assert!(ready(World::seen(20).node("n", cpu, MEMORY).container("c", Some(-600), cpu, MEMORY)));
    assert!(!State::new(Arc::new(Closed(World::seen(20)))).has_values(), "and there is a store");
}
