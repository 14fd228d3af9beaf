//! Twins of metrics-server's own cases about scraping: what only a process that scrapes can show. Its other cases have
//! theirs in `metrics-api/tests/metrics_server.rs`, where the table of all of them is.

use std::time::Duration;

use serde_json::Value;

use crate::cluster::{Cluster, Secured};
use crate::kubelets::{Kubelets, Mood, Pod, now_ms};
use crate::process::installed;

const NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";
const PODS: &str = "/apis/metrics.k8s.io/v1beta1/pods";

/// Two nodes with a pod each, scraped every second.
fn start() -> Option<(Cluster, Kubelets, Secured)> {
    if !installed("openssl") {
        return None;
    }
    let cluster = Cluster::start();
    let kubelets = cluster.run(Kubelets::start());
    for node in ["n1", "n2"] {
        let pod = Pod { started_ms: now_ms() - 600_000, ..Pod::new(&[("main", 0.25), ("side", 0.0)], 1.0) };
        kubelets.contents().pods.insert((node.to_owned(), format!("web-{node}-0")), pod);
    }
    let config = kubelets.config(&["n1", "n2"], "900ms");
    let pyrometer = cluster.pyrometer_of("p", (&config, "rules: []\n"), &[]);
    Some((cluster, kubelets, pyrometer))
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|it| it["metadata"]["name"].as_str().unwrap()).collect()
}

fn timestamp(pyrometer: &Secured, node: &str) -> Option<String> {
    let (status, answer) = pyrometer.get(&format!("{NODES}/{node}"));
    (status == 200).then(|| answer["timestamp"].as_str().unwrap().to_owned())
}

/// Waits until a node has a later point than it has now.
fn wait_for_a_newer_point(pyrometer: &Secured, node: &str) {
    let before = timestamp(pyrometer, node);
    pyrometer.server.wait_for(node, |_| (timestamp(pyrometer, node) > before).then_some(()));
}

/// The last value of a series about scraping a node.
fn said(pyrometer: &Secured, name: &str, node: &str) -> Option<f64> {
    let rows = pyrometer.server.query(&format!("{name}{{job=\"kubelets\",node=\"{node}\"}}"));
    rows.first()?["value"][1].as_str()?.parse().ok()
}

#[test]
fn scraper_all_nodes_are_merged_and_requests_are_counted() {
    let Some((cluster, kubelets, pyrometer)) = start() else { return };
    let nodes = pyrometer.wait_for(NODES, |list| names(list).len() == 2);
    assert_eq!(names(&nodes), ["n1", "n2"]);
    let pods = pyrometer.wait_for(PODS, |list| names(list).len() == 2);
    assert_eq!(names(&pods), ["web-n1-0", "web-n2-0"]);
    // Each source is told how long we wait.
    for node in ["n1", "n2"] {
        assert_eq!(kubelets.contents().patience[node], "0.9");
    }
    for node in ["n1", "n2"] {
        assert_eq!(said(&pyrometer, "up", node), Some(1.0));
        assert_eq!(said(&pyrometer, "scrape_samples_scraped", node), Some(8.0));
        assert!(said(&pyrometer, "scrape_duration_seconds", node).unwrap() > 0.0);
    }
    let count = |pyrometer: &Secured, name: &str| {
        let (_, text) = pyrometer.server.get("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap().parse::<f64>().unwrap()
    };
    let failed = count(&pyrometer, "pyrometer_target_scrapes_failed_total");
    kubelets.set_mood("n1", Mood::Failing(500));
    let more = |_: &_| (count(&pyrometer, "pyrometer_target_scrapes_failed_total") > failed).then_some(());
    pyrometer.server.wait_for("a failed scrape to be counted", more);
    assert!(count(&pyrometer, "pyrometer_target_scrapes_total") > failed);
    cluster.stop();
}

#[test]
fn scraper_better_one_failing_node_keeps_its_last_point_and_spoils_no_other() {
    let Some((cluster, kubelets, pyrometer)) = start() else { return };
    pyrometer.wait_for(PODS, |list| names(list).len() == 2);
    kubelets.set_mood("n1", Mood::Failing(500));
    pyrometer.server.wait_for("the failure", |_| (said(&pyrometer, "up", "n1") == Some(0.0)).then_some(()));
    let last = timestamp(&pyrometer, "n1").unwrap();
    // Metrics-server forgets the node at the next tick. Here it stays, with the time of its point, and so do its pods.
    for _ in 0..3 {
        wait_for_a_newer_point(&pyrometer, "n2");
        assert_eq!(timestamp(&pyrometer, "n1").as_ref(), Some(&last));
    }
    let pods = pyrometer.get(PODS).1;
    assert_eq!(names(&pods), ["web-n1-0", "web-n2-0"]);
    kubelets.set_mood("n1", Mood::Well);
    wait_for_a_newer_point(&pyrometer, "n1");
    cluster.stop();
}

#[test]
fn scraper_better_a_slow_node_times_out_by_itself_and_delays_no_other() {
    let Some((cluster, kubelets, pyrometer)) = start() else { return };
    pyrometer.wait_for(NODES, |list| names(list).len() == 2);
    kubelets.set_mood("n1", Mood::Slow(Duration::from_secs(30)));
    pyrometer.server.wait_for("the timeout", |_| (said(&pyrometer, "up", "n1") == Some(0.0)).then_some(()));
    // It was waited for as long as it was told, and no longer than the next scrape's turn.
    let took = said(&pyrometer, "scrape_duration_seconds", "n1").unwrap();
    assert!(took >= 0.9, "{took}");
    // Metrics-server stores a tick when its slowest node has answered; here the others are stored as they answer.
    for _ in 0..3 {
        wait_for_a_newer_point(&pyrometer, "n2");
    }
    kubelets.set_mood("n1", Mood::Well);
    wait_for_a_newer_point(&pyrometer, "n1");
    cluster.stop();
}

#[test]
fn scraper_better_without_a_list_of_nodes_the_last_one_is_good() {
    let Some((cluster, kubelets, pyrometer)) = start() else { return };
    pyrometer.wait_for(PODS, |list| names(list).len() == 2);
    // The API server takes no token any more, and all watches end.
    cluster.fake.world.accept_tokens(&["nobody's"]);
    cluster.fake.world.end_watches();
    for node in ["n1", "n2"] {
        wait_for_a_newer_point(&pyrometer, node);
    }
    assert_eq!(names(&pyrometer.get(NODES).1), ["n1", "n2"]);
    assert_eq!(names(&pyrometer.get(PODS).1), ["web-n1-0", "web-n2-0"]);
    drop(kubelets);
    cluster.stop();
}

#[test]
fn decode_a_malformed_timestamp_fails_the_whole_scrape() {
    let Some((cluster, kubelets, pyrometer)) = start() else { return };
    pyrometer.wait_for(PODS, |list| names(list).len() == 2);
    let page = "node_cpu_usage_seconds_total 1 12\nnode_memory_working_set_bytes 2 1x\n";
    kubelets.set_mood("n1", Mood::Saying(page.to_owned()));
    pyrometer.server.wait_for("the failure", |_| (said(&pyrometer, "up", "n1") == Some(0.0)).then_some(()));
    let targets = pyrometer.server.json("/api/v1/targets")["data"]["activeTargets"].clone();
    let broken = targets.as_array().unwrap().iter().find(|target| target["labels"]["node"] == "n1").unwrap();
    assert_eq!(broken["health"], "down");
    assert!(!broken["lastError"].as_str().unwrap().is_empty(), "{broken}");
    cluster.stop();
}

#[test]
fn decode_without_timestamps_samples_are_of_the_time_of_the_scrape() {
    let Some((cluster, kubelets, pyrometer)) = start() else { return };
    let begun = now_ms() / 1000;
    let page = "node_cpu_usage_seconds_total 100\nnode_memory_working_set_bytes 4096\n";
    kubelets.set_mood("n1", Mood::Saying(page.to_owned()));
    let node = pyrometer.server.wait_for("a value", |_| {
        let (status, answer) = pyrometer.get(&format!("{NODES}/n1"));
        (status == 200 && answer["usage"]["cpu"] == "0").then_some(answer)
    });
    assert_eq!(node["usage"]["memory"], "4Ki");
    let at: jiff::Timestamp = node["timestamp"].as_str().unwrap().parse().unwrap();
    assert!((begun..=now_ms() / 1000).contains(&at.as_second()), "{node}");
    cluster.stop();
}

#[test]
fn decode_the_normal_page() {
    let Some((cluster, _kubelets, pyrometer)) = start() else { return };
    pyrometer.wait_for(PODS, |list| names(list).len() == 2);
    let (_, node) = pyrometer.get(&format!("{NODES}/n1"));
    assert_eq!(node["usage"]["memory"], "4000001000");
    let (_, pod) = pyrometer.get("/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/web-n1-0");
    let usage: Vec<(&str, &str)> = pod["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["name"].as_str().unwrap(), it["usage"]["memory"].as_str().unwrap()))
        .collect();
    assert_eq!(usage, [("main", "64Mi"), ("side", "64Mi")]);
    cluster.stop();
}
