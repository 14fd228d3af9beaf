//! Every endpoint of the HTTP API beside the installed Prometheus: both scrape one constant page and run the
//! same rules, and must answer alike but for times, durations and versions.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value, json};

use crate::process::{Server, escape, get, installed, request};
use crate::prometheus::Prometheus;

const PAGE: &str = "# HELP jobs_total Jobs that were done.\n# TYPE jobs_total counter\njobs_total{kind=\"a\"} 5\n\
                    jobs_total{kind=\"b\\\"\"} 7\n# HELP level How high.\n# TYPE level gauge\nlevel -1e-07\n\
                    # TYPE took summary\ntook{quantile=\"0.5\"} 2\ntook_sum 9\ntook_count 4\nuntyped 3\n";

/// A target that always says the same. Dropping it ends it.
struct Target {
    address: String,
    stop: Arc<AtomicBool>,
}

impl Target {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, stop) = (listener.local_addr().unwrap().to_string(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::spawn(move || answer(stream));
            }
        });
        Self { address, stop }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = std::net::TcpStream::connect(&self.address);
    }
}

/// Answers each request of a connection with the page.
fn answer(mut stream: std::net::TcpStream) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        head.extend_from_slice(&buffer[..count]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        head.clear();
        let length = PAGE.len();
        let page = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\n\r\n{PAGE}"
        );
        if stream.write_all(page.as_bytes()).is_err() {
            return;
        }
    }
}

const RULES: &str = "groups:
- name: both
  interval: 1s
  limit: 7
  rules:
  - {record: 'jobs:sum', expr: 'sum(jobs_total)', labels: {team: a}}
  - alert: High
    expr: 'jobs_total > 5'
    for: 1h
    keep_firing_for: 5m
    labels: {severity: page}
    annotations: {summary: 'Kind {{ $labels.kind }} at {{ $value }}'}
  - {alert: Low, expr: 'level > 0'}
- name: after
  interval: 1s
  rules: [{record: 'jobs:max', expr: 'max(jobs_total)', labels: {team: b}}, {alert: Late, expr: 'level > 0', labels: {team: b}}]
- name: more
  interval: 1s
  rules: [{alert: Never, expr: 'level > 0', labels: {team: a}}, {record: 'jobs:min', expr: 'min(jobs_total)'}]
";

/// Paths whose answers must be equal.
const PATHS: &[&str] = &[
    "/api/v1/targets",
    "/api/v1/targets?state=active",
    "/api/v1/targets?state=dropped",
    "/api/v1/targets?state=other",
    "/api/v1/nothing",
    "/api/v1/query?query=%20",
    "/api/v1/targets?scrapePool=page",
    "/api/v1/targets?scrapePool=none",
    "/api/v1/targets/metadata",
    "/api/v1/targets/metadata?limit=2",
    "/api/v1/targets/metadata?metric=level",
    "/api/v1/targets/metadata?match_target={job=\"page\"}",
    "/api/v1/targets/metadata?match_target={job=\"other\"}",
    "/api/v1/scrape_pools",
    "/api/v1/metadata",
    "/api/v1/metadata?metric=level",
    "/api/v1/metadata?metric=none",
    "/api/v1/rules",
    "/api/v1/rules?type=alert",
    "/api/v1/rules?type=record",
    "/api/v1/rules?type=other",
    "/api/v1/alerts",
    "/api/v1/alertmanagers",
    "/api/v1/labels",
    "/api/v1/labels?match[]=level",
    "/api/v1/labels?match[]={",
    "/api/v1/label/job/values",
    "/api/v1/label/none/values",
    "/api/v1/label/__name__/values?match[]={kind=\"a\"}",
    "/api/v1/series?match[]=jobs_total",
    "/api/v1/series?match[]=level&match[]=untyped",
    "/api/v1/series",
    "/api/v1/series?match[]={}",
    "/api/v1/series?match[]=level&start=5&end=1",
    "/api/v1/query?query=level&time=TIME",
    "/api/v1/query?query=jobs_total{kind=\"a\"}&time=TIME",
    "/api/v1/query?query=1%2B1&time=TIME",
    "/api/v1/query?query=\"text\"&time=TIME",
    "/api/v1/query?query=sum(",
    "/api/v1/query?query=level&timeout=x",
    "/api/v1/query_range?query=vector(1)&start=0&end=30&step=15",
    "/api/v1/query_range?query=vector(1)&start=0&end=30&step=0",
    "/api/v1/query_range?query=vector(1)&start=30&end=0&step=1",
    "/api/v1/query_range?query=vector(1)&start=0&end=100000&step=1",
    "/api/v1/query_range?query=vector(1)&start=0&end=30",
    "/api/v1/query_range?query=vector(1)&end=30&step=1",
    "/api/v1/query_exemplars?query=level&start=0&end=30",
    "/api/v1/query_exemplars?query=sum(&start=0&end=30",
    "/api/v1/query_exemplars?query=level",
    "/api/v1/metadata?limit=x",
    "/nothing",
    "/api/v1/format_query?query=sum(level)by(job)",
    "/api/v1/format_query?query=sum(",
];

/// More of them, to which Prometheus 2 had other answers.
const PATHS_SINCE_3: &[&str] = &[
    "/api/v1/rules?rule_name[]=High",
    "/api/v1/rules?rule_group[]=both",
    "/api/v1/rules?rule_group[]=none",
    "/api/v1/rules?rule_group[]=",
    "/api/v1/rules?rule_group[]=more&rule_group[]=both&rule_name[]=Never&rule_name[]=High",
    "/api/v1/rules?file[]=none",
    "/api/v1/rules?match[]={team=\"a\"}",
    "/api/v1/rules?match[]={team=\"b\"}&match[]={severity=~\"p.*\"}",
    "/api/v1/rules?match[]={",
    "/api/v1/rules?exclude_alerts=true",
    "/api/v1/rules?exclude_alerts=T&type=alert",
    "/api/v1/rules?group_limit=1",
    "/api/v1/rules?group_limit=2",
    "/api/v1/rules?group_limit=2&type=alert",
    "/api/v1/rules?group_limit=3",
    "/api/v1/rules?group_limit=0",
    "/api/v1/rules?group_limit=-3",
    "/api/v1/rules?group_next_token=x",
    "/api/v1/rules?group_limit=&group_next_token=x",
    "/api/v1/rules?group_limit=1&group_next_token=x",
    "/api/v1/query?query=level&time=x",
    "/api/v1/query?query=",
    "/api/v1/query",
    "/api/v1/query_range?query=level[5m]&start=0&end=30&step=1",
    "/api/v1/status/tsdb?limit=0",
    "/api/v1/query?query=level&limit=-1",
    "/api/v1/query?query=level&lookback_delta=x",
    "/api/v1/labels?limit=-1",
    "/api/v1/metadata?limit_per_metric=x",
];

fn write_files(dir: &std::path::Path, target: &str) -> String {
    std::fs::write(dir.join("rules.yml"), RULES).unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s, external_labels: {{cluster: eu}}}}
rule_files: ['{rules}']
alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:9']}}]}}]}}
scrape_configs:
- job_name: page
  static_configs:
  - {{targets: ['{target}'], labels: {{zone: z}}}}
  - {{targets: ['127.0.0.1:9'], labels: {{zone: dropped}}}}
  relabel_configs:
  - {{source_labels: [zone], regex: dropped, action: drop}}
",
        rules = dir.join("rules.yml").display()
    );
    let path = dir.join("both.yml");
    std::fs::write(&path, &config).unwrap();
    config
}

/// The answer with what differs from moment to moment, or between two builds, replaced by its type.
fn masked(value: &Value, since_3: bool) -> Value {
    const MOVING: [&str; 9] = [
        "groupNextToken",
        "lastScrape",
        "lastScrapeDuration",
        "evaluationTime",
        "lastEvaluation",
        "activeAt",
        "globalUrl",
        "traceID",
        "startTime",
    ];
    match value {
        Value::Object(map) => {
            let one = |(key, value): (&String, &Value)| {
                let moving = MOVING.contains(&key.as_str());
                (key.clone(), if moving { json!(kind(value)) } else { masked(value, since_3) })
            };
            let mut out: Map<_, _> = map.iter().map(one).collect();
            if !since_3 {
                out.remove("droppedTargetCounts");
                if out.len() == 2 && out.contains_key("discoveredLabels") {
                    out.remove("scrapePool");
                }
            }
            Value::Object(out)
        }
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(|item| masked(item, since_3)).collect();
            // These come in the order of a Go map.
            if items.iter().all(|item| item.get("target").is_some()) {
                items.sort_by_key(|item| item["metric"].to_string());
            }
            Value::Array(items)
        }
        // 1 and 1.0 are one number.
        Value::Number(number) => json!(number.as_f64()),
        other => other.clone(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[test]
fn every_endpoint_answers_as_that_of_prometheus() {
    if !installed("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start();
    let config = write_files(dir.path(), &target.address);
    let theirs = Prometheus::start(&dir.path().join("theirs"), &config);
    let file = format!("--config.file={}", dir.path().join("both.yml").display());
    let ours = Server::start(&dir.path().join("ours"), &["--kubernetes=off", &file]);
    ours.wait_for("both to have scraped and evaluated", |ours| {
        let done = |url: &str| {
            let rows = |path: &str| {
                let (_, body) = get(&format!("{url}{path}"), &[]);
                serde_json::from_str::<Value>(&body).ok()
            };
            let up =
                rows("/api/v1/query?query=up").is_some_and(|up| up["data"]["result"][0]["value"][1] == "1");
            let sum = rows(&format!("/api/v1/query?query={}", escape("jobs:sum")));
            let alerts = rows("/api/v1/alerts");
            up && sum.is_some_and(|sum| sum["data"]["result"][0]["value"][1] == "12")
                && alerts.is_some_and(|alerts| {
                    alerts["data"]["alerts"].as_array().is_some_and(|all| all.len() == 1)
                })
        };
        (done(&ours.url) && done(&theirs.url)).then_some(())
    });
    let time = (crate::prometheus::now_s() + 1).to_string();
    let version = theirs.json("/api/v1/status/buildinfo")["data"]["version"].clone();
    let since_3 = !version.as_str().unwrap().starts_with("2.");
    let paths = PATHS.iter().chain(PATHS_SINCE_3.iter().filter(|_| since_3));
    let mut differences = Vec::new();
    for path in paths {
        let quote = |c: char| if "{}\"[]".contains(c) { escape(&c.to_string()) } else { c.to_string() };
        let path: String = path.replace("TIME", &time).chars().map(quote).collect();
        let (mine, its) =
            (get(&format!("{}{path}", ours.url), &[]), get(&format!("{}{path}", theirs.url), &[]));
        let json = |body: &str| {
            serde_json::from_str::<Value>(body).map_or(json!(body), |body| masked(&body, since_3))
        };
        if mine.0 != its.0 || json(&mine.1) != json(&its.1) {
            differences.push(format!(
                "{path}\n  ours   {} {}\n  theirs {} {}",
                mine.0,
                mine.1.trim(),
                its.0,
                its.1.trim()
            ));
        }
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
    same_headers(&ours.url, &theirs.url);
    theirs.stop();
}

/// The headers that are for clients are those of the other server.
fn same_headers(ours: &str, theirs: &str) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ask = |url: &str, method: &str, path: &str| -> Vec<String> {
        let client =
            reqwest::blocking::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let method = method.parse().unwrap();
        let answer =
            client.request(method, format!("{url}{path}")).header("Origin", "http://a.test").send().unwrap();
        let mut seen = vec![answer.status().as_u16().to_string()];
        for name in [
            "access-control-allow-origin",
            "access-control-allow-methods",
            "access-control-expose-headers",
            "vary",
        ] {
            let value = answer.headers().get(name);
            seen.push(value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned()));
        }
        seen
    };
    for (method, path) in [
        ("GET", "/api/v1/query?query=1"),
        ("POST", "/api/v1/query?query=1"),
        ("GET", "/api/v1/labels"),
        ("OPTIONS", "/api/v1/query"),
        ("OPTIONS", "/api/v1/nothing"),
        ("GET", "/api/v1/nothing"),
        ("HEAD", "/api/v1/query?query=1"),
        ("HEAD", "/api/v1/labels"),
        ("HEAD", "/metrics"),
        ("HEAD", "/federate?match[]=x"),
        ("HEAD", "/-/healthy"),
        ("HEAD", "/-/ready"),
        ("PUT", "/api/v1/query_range"),
        ("POST", "/-/healthy"),
        ("POST", "/-/reload"),
        ("GET", "/-/quit"),
    ] {
        let (mine, its) = (ask(ours, method, path), ask(theirs, method, path));
        // What its pages say about who may read them is no concern of an API's client.
        let is_answer = !matches!(mine[0].as_str(), "404" | "405");
        let of_api = if path.starts_with("/api") && is_answer { 5 } else { 1 };
        assert_eq!(mine[..of_api], its[..of_api], "{method} {path}");
    }
}

#[test]
fn what_the_document_names_is_served_by_those_methods_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let url = "--web.external-url=http://known.test/under";
    let server = Server::start(dir.path(), &["--kubernetes=off", "--web.route-prefix=/", url]);
    let base =
        format!("http://127.0.0.1:{}", server.url.rsplit(':').next().unwrap().split('/').next().unwrap());
    let (status, text) = get(&format!("{base}/api/v1/openapi.yaml?openapi_version=3.2"), &[]);
    assert_eq!(status, 200);
    let document: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(document["openapi"], "3.2.0");
    assert_eq!(document["servers"][0]["url"], "http://known.test/under/api/v1");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 38);
    for (path, operations) in paths.iter().filter(|(path, _)| *path != "/notifications/live") {
        let url = format!("{base}/api/v1{}", path.replace("{name}", "job"));
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let (status, body) = request(method, &url, &[], "");
            let is_documented = operations.get(method.to_lowercase()).is_some();
            assert_eq!(status != 405, is_documented, "{method} {path}: {status} {body}");
            assert!(!body.contains("page not found"), "{method} {path}: {body}");
        }
    }
}
