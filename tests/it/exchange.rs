//! One directory, two servers: what Prometheus wrote we read, what we wrote Prometheus reads, and both
//! give the same answers.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::answers::difference;
use crate::process::{Server, escape, get, installed, run};
use crate::prometheus::{Prometheus, now_s, page};

/// What both servers are asked.
const EXPRESSIONS: &[&str] = &[
    "requests_total",
    "level",
    "level{zone=~\"a|b\"} > 0",
    "sum by (job) (rate(requests_total[5m]))",
    "increase(requests_total{code!~\"4..\"}[10m])",
    "irate(requests_total[2m])",
    "topk(3, requests_total)",
    "sum without (code) (requests_total) / on (job) group_left sum by (job) (requests_total)",
    "requests_total{code=\"500\"} / ignoring (code) requests_total{code=\"200\"}",
    "histogram_quantile(0.9, rate(latency_bucket[5m]))",
    "avg_over_time(level[10m])",
    "quantile_over_time(0.5, requests_total[7m])",
    "max_over_time(rate(requests_total[2m])[10m:30s])",
    "deriv(requests_total[5m])",
    "requests_total offset 10m",
    "label_replace(requests_total, \"short\", \"$1\", \"job\", \"j(.)\")",
    "count_values(\"v\", requests_total % 3)",
    "absent(nothing{a=\"b\"})",
    "requests_total and on (job) (requests_total > 100)",
    "stddev by (code) (requests_total)",
    "-level",
    "time() - timestamp(requests_total)",
    "vector(1) == bool 1",
    "hour()",
    "1 + 2 * 3",
    "\"text\"",
];

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
}

/// Rows in an order of their own, so that answers can be compared.
fn sorted(mut answer: Value) -> Value {
    if let Some(rows) = answer["data"]["result"].as_array_mut() {
        rows.sort_by_key(|row| row["metric"].to_string());
    }
    // Prometheus 2.42 has no annotations.
    for key in ["warnings", "infos"] {
        answer.as_object_mut().unwrap().remove(key);
    }
    answer
}

#[test]
fn blocks_of_prometheus_give_the_answers_of_prometheus() {
    if !(installed("prometheus") && installed("promtool")) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let end = now_s() / 60 * 60 - 53;
    let text = dir.path().join("page.txt");
    std::fs::write(&text, page(end)).unwrap();
    let made = dir.path().join("made");
    let path = |path: &Path| path.display().to_string();
    run("promtool", &["tsdb", "create-blocks-from", "openmetrics", &path(&text), &path(&made)]);
    copy(&made, &dir.path().join("data"));
    copy(&made, &dir.path().join("theirs"));
    let ours = Server::start(dir.path(), &["--kubernetes=off"]);
    ours.wait_for_history();
    let theirs = Prometheus::start(&dir.path().join("theirs"), "");

    // Samples lie 7 s behind each quarter of a minute, and no evaluation does, nor a multiple of a
    // subquery's step: open and closed ends of ranges, in which 2.42 differs, make no difference.
    let at = end - 1801;
    let span = format!("start={}&end={at}&step=45", end - 3001);
    let mut compared = 0;
    for expression in EXPRESSIONS {
        let query = escape(expression);
        let mut paths = vec![format!("/api/v1/query?query={query}&time={at}")];
        if *expression != "\"text\"" {
            paths.push(format!("/api/v1/query_range?query={query}&{span}"));
        }
        for path in paths {
            let (ours, theirs) = (sorted(ours.json(&path)), sorted(theirs.json(&path)));
            assert_eq!(difference(&ours, &theirs, 1e-12), None, "{expression} by {path}");
            compared += 1;
        }
    }
    for path in [
        "/api/v1/labels?match[]=requests_total".to_owned(),
        "/api/v1/labels?match[]=requests_total&match[]=latency_bucket".to_owned(),
        "/api/v1/label/code/values".to_owned(),
        "/api/v1/label/__name__/values?match[]=%7B__name__%3D~%22l.%2B%22%7D".to_owned(),
        "/api/v1/label/zone/values?match[]=level".to_owned(),
        "/api/v1/series?match[]=level".to_owned(),
        format!("/api/v1/series?match[]=requests_total%7Bjob%3D%22j1%22%7D&start={}&end={end}", end - 60),
        "/api/v1/series?match[]=nothing".to_owned(),
    ] {
        assert_eq!(ours.json(&path), theirs.json(&path), "{path}");
        compared += 1;
    }
    assert!(compared > 50);
    compare_refusals(&ours, &theirs);
}

fn compare_refusals(ours: &Server, theirs: &Prometheus) {
    for (path, status) in [
        ("/api/v1/query?query=sum(", 400),
        ("/api/v1/query?query=up&time=x", 400),
        ("/api/v1/query_range?query=up&start=1&end=0&step=1", 400),
        ("/api/v1/query_range?query=up&start=0&end=100000&step=1", 400),
        ("/api/v1/query_range?query=up[1m]&start=0&end=10&step=1", 400),
        ("/api/v1/series", 400),
        ("/api/v1/query?query=rate(up[5m])%20%2B%20on()%20group_left()%20nope(1)", 400),
        ("/api/v1/nothing", 404),
    ] {
        let (our_status, body) = ours.get(path);
        let (their_status, theirs) = get(&format!("{}{path}", theirs.url), &[]);
        assert_eq!((our_status, our_status), (status, their_status), "{path}: {body}: {theirs}");
    }
}

#[test]
fn what_we_wrote_opens_in_prometheus_and_in_promtool() {
    if !(installed("prometheus") && installed("promtool")) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--kubernetes=off"]);
    server.wait_for_rows("count(up) == 3");
    let rows = server.wait_for_rows("max(timestamp(up))");
    let until: f64 = rows[0]["value"][1].as_str().unwrap().parse().unwrap();
    let everything = format!("/api/v1/query?query={}&time={until}", escape("{__name__=~\".+\"}[10m]"));
    let ours = sorted(server.json(&everything));
    assert!(ours["data"]["result"].as_array().unwrap().len() > 50);
    assert_eq!(server.interrupt(), Some(0));

    let data = dir.path().join("data");
    let theirs = Prometheus::start(&data, "");
    assert_eq!(sorted(theirs.json(&everything)), ours, "read by Prometheus from our log");
    theirs.stop();

    // And back: Prometheus has had the directory, we have it again.
    let server = Server::start(dir.path(), &["--kubernetes=off"]);
    server.wait_for_history();
    assert_eq!(sorted(server.json(&everything)), ours, "read by us after Prometheus");
}
