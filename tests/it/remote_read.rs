//! Remote read from us: of the real Prometheus, and of a server of ours.

use std::path::Path;

use serde_json::Value;

use crate::answers::difference;
use crate::neighbours::with_history;
use crate::process::{Server, escape, installed, request, run};
use crate::prometheus::{Prometheus, newer, now_s, page};

/// What is asked of the server itself, and through one that reads from it.
const EXPRESSIONS: [&str; 6] = [
    "sum by (job) (increase(requests_total[30m]))",
    "level",
    "requests_total{code=~\"4..\"}",
    "histogram_quantile(0.9, rate(latency_bucket[5m]))",
    "count_over_time(level[20m])",
    "count({__name__=~\".+\"})",
];

fn sorted(mut answer: Value) -> Value {
    if let Some(rows) = answer["data"]["result"].as_array_mut() {
        rows.sort_by_key(|row| row["metric"].to_string());
    }
    answer["data"]["result"].take()
}

/// A server of ours that reads from `url`.
fn reader(dir: &Path, url: &str, more: &str) -> Server {
    std::fs::create_dir_all(dir).unwrap();
    let config = dir.join("reader.yml");
    let text =
        format!("global: {{external_labels: {{dc: there}}}}\nremote_read:\n- url: {url}/api/v1/read\n{more}");
    std::fs::write(&config, text).unwrap();
    let flag = format!("--config.file={}", config.display());
    let reader = Server::start(dir, &["--kubernetes=off", "--web.enable-lifecycle", &flag]);
    reader.wait_for_history();
    reader
}

/// `json` gives an answer of the server that is read from, itself.
fn compare(reader: &Server, json: impl Fn(&str) -> Value, end: i64) {
    for expression in EXPRESSIONS {
        let query = escape(expression);
        let at = end - 607;
        for path in [
            format!("/api/v1/query?query={query}&time={at}"),
            format!("/api/v1/query_range?query={query}&start={}&end={at}&step=45", at - 1200),
        ] {
            let (through, own) = (reader.json(&path), sorted(json(&path)));
            assert!(through["warnings"].is_null(), "{path}: {through}");
            assert!(!own.as_array().unwrap().is_empty(), "{path}");
            assert_eq!(difference(&sorted(through), &own, 1e-12), None, "{path}");
        }
    }
    let path = format!("/api/v1/series?match[]=level&start={}&end={end}", end - 3600);
    assert_eq!(reader.json(&path), json(&path));
    assert_eq!(
        reader.json("/api/v1/label/zone/values")["data"],
        serde_json::json!([]),
        "labels are not read"
    );
}

#[test]
fn a_server_over_prometheus_answers_as_prometheus() {
    if !(installed("prometheus") && installed("promtool")) {
        return;
    }
    for program in ["prometheus".to_owned()].into_iter().chain(newer()) {
        let dir = tempfile::tempdir().unwrap();
        let end = now_s() / 60 * 60 - 53;
        let (text, data) = (dir.path().join("page.txt"), dir.path().join("theirs"));
        std::fs::write(&text, page(end)).unwrap();
        let path = |path: &Path| path.display().to_string();
        run("promtool", &["tsdb", "create-blocks-from", "openmetrics", &path(&text), &path(&data)]);
        let config = "global: {external_labels: {dc: there}}\nscrape_configs: []\n";
        let theirs = Prometheus::start_of(&program, &data, config, &[]);
        let reader = reader(&dir.path().join("reader"), &theirs.url, "");
        compare(&reader, |path| theirs.json(path), end);
    }
}

#[test]
fn one_of_ours_over_another() {
    if !installed("promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let end = now_s() / 60 * 60 - 53;
    let config = dir.path().join("other.yml");
    std::fs::write(&config, "global: {external_labels: {dc: there}}\n").unwrap();
    let flag = format!("--config.file={}", config.display());
    let other = with_history(&dir.path().join("other"), end, &[&flag]);
    let required = "  required_matchers: {job: j1}\n";
    let at = end - 607;
    let count = |server: &Server, expression: &str| {
        let path = format!("/api/v1/query?query={}&time={at}", escape(&format!("count({expression})")));
        let answer = server.json(&path);
        answer["data"]["result"][0]["value"][1].as_str().unwrap_or("0").to_owned()
    };
    let narrow = reader(&dir.path().join("narrow"), &other.url, required);
    assert_eq!(count(&narrow, "requests_total"), "0", "only what has the condition is asked for");
    assert_eq!(count(&narrow, "requests_total{job=\"j1\"}"), "3");

    let rules = dir.path().join("rules.yml");
    let text = format!(
        "groups:\n- name: g\n  interval: 1s\n  rules: [{{record: \"level:count\", expr: count(level @ {at})}}]\n"
    );
    std::fs::write(&rules, text).unwrap();
    let rules = format!("rule_files: [{}]\n", rules.display());
    let reader = reader(&dir.path().join("reader"), &other.url, &rules);
    compare(&reader, |path| other.json(path), end);
    // Rules read there, too, and write here.
    let written = reader.wait_for_rows("level:count");
    assert_eq!(written[0]["value"][1], count(&other, "level"));

    // Away, it is named; and who wants all or nothing gets nothing.
    other.kill();
    let path = format!("/api/v1/query?query=level&time={at}");
    let answer = reader.json(&path);
    let warning = answer["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.starts_with("remote read from "), "{answer}");
    let (status, body) = reader.get(&format!("{path}&partial_response=false"));
    assert_eq!(status, 503, "{body}");

    // A reload without the section ends it.
    std::fs::write(dir.path().join("reader/reader.yml"), "scrape_configs: []\n").unwrap();
    assert_eq!(request("POST", &format!("{}/-/reload", reader.url), &[], "").0, 200);
    assert!(reader.json(&path)["warnings"].is_null());
}
