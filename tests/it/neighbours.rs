//! What other programs ask of a Prometheus: remote read, federation, administration, exemplars.

use model::{MatchOp, Matcher, TimeRange};
use remote::read::{ChunkedSeries, Frames, ReadQuery, ReadRequest};

use crate::process::{Server, escape, get, installed, request, run};
use crate::prometheus::{Prometheus, now_s, page};

/// A server of ours with an hour of samples that ends at `end`.
pub(crate) fn with_history(dir: &std::path::Path, end: i64, flags: &[&str]) -> Server {
    std::fs::create_dir_all(dir).unwrap();
    let text = dir.join("page.txt");
    std::fs::write(&text, page(end)).unwrap();
    let data = dir.join("data").display().to_string();
    run("promtool", &["tsdb", "create-blocks-from", "openmetrics", &text.display().to_string(), &data]);
    let flags: Vec<&str> = ["--kubernetes=off"].iter().chain(flags).copied().collect();
    let server = Server::start(dir, &flags);
    server.wait_for_history();
    server
}

#[test]
fn prometheus_reads_from_us_and_federates_us_and_we_federate_it() {
    if !(installed("prometheus") && installed("promtool")) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let end = now_s() - 20;
    let ours = with_history(&dir.path().join("ours"), end, &[]);
    let target = ours.url.trim_start_matches("http://");
    let theirs_dir = dir.path().join("theirs");
    let config = format!(
        "scrape_configs:\n- job_name: federate\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  honor_labels: true\n  \
         metrics_path: /federate\n  params: {{'match[]': ['{{__name__=~\"requests_.*|level\"}}']}}\n  \
         static_configs: [{{targets: ['{target}']}}]\nremote_read:\n- url: {}/api/v1/read\n  read_recent: true\n",
        ours.url
    );
    let theirs = Prometheus::start(&theirs_dir, &config);

    // Through remote read: the whole hour, which Prometheus itself does not have.
    let query = escape("sum by (job) (increase(requests_total[30m]))");
    let path = format!("/api/v1/query?query={query}&time={}", end - 607);
    let (mine, through) = (ours.json(&path), theirs.json(&path));
    assert_eq!(mine["data"]["result"].as_array().unwrap().len(), 5);
    assert_eq!(crate::answers::difference(&sorted(mine), &sorted(through), 1e-12), None);

    // Through federation: what the page shows is what Prometheus stores, names and labels unchanged.
    let (status, page) = ours.get("/federate?match[]=level");
    assert_eq!(status, 200);
    assert!(page.starts_with("# TYPE level untyped\nlevel{zone=\"a\",instance=\"\"} "), "{page}");
    assert!(page.contains("zone=\"ä\\\"\\\\\""), "{page}");
    ours.wait_for("Prometheus to federate us", |_| {
        let up = theirs.json(&format!(
            "/api/v1/query?query={}",
            escape("scrape_samples_scraped{job=\"federate\"} == 18")
        ));
        (!up["data"]["result"].as_array().unwrap().is_empty()).then_some(())
    });

    let back = dir.path().join("back.yml");
    let text = format!(
        "scrape_configs:\n- job_name: back\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  honor_labels: true\n  metrics_path: /federate\n  \
         params: {{'match[]': ['up']}}\n  static_configs: [{{targets: ['{}']}}]\n",
        theirs.url.trim_start_matches("http://")
    );
    std::fs::write(&back, text).unwrap();
    let flag = format!("--config.file={}", back.display());
    let second = Server::start(&dir.path().join("second"), &["--kubernetes=off", &flag]);
    second.wait_for_rows("up{job=\"federate\"} == 1");
    theirs.stop();
}

/// The series of a streamed remote read, with their chunks.
fn streamed(url: &str, range: TimeRange, matchers: &[Matcher]) -> Vec<ChunkedSeries> {
    let queries = vec![ReadQuery { range, matchers: matchers.to_vec() }];
    let body = remote::read::request(&ReadRequest { queries, streamed: true });
    // The first call installs it; later ones find it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::blocking::Client::new();
    let answer = client
        .post(format!("{url}/api/v1/read"))
        .header("Content-Encoding", "snappy")
        .header("Content-Type", "application/x-protobuf")
        .header("Accept-Encoding", "gzip")
        .body(body)
        .send()
        .unwrap();
    assert_eq!(answer.status(), 200);
    let kind = answer.headers()["content-type"].to_str().unwrap();
    assert_eq!(kind, "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse");
    assert!(answer.headers().get("content-encoding").is_none());
    let (mut frames, mut all) = (Frames::default(), Vec::new());
    frames.push(&answer.bytes().unwrap());
    while let Some(series) = frames.take().unwrap() {
        all.extend(series);
    }
    assert!(frames.is_at_end());
    all
}

#[test]
fn a_streamed_remote_read_has_the_chunks_of_prometheus() {
    if !(installed("prometheus") && installed("promtool")) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let end = now_s() / 7200 * 7200 - 7200;
    let ours = with_history(&dir.path().join("ours"), end, &[]);
    let theirs_dir = dir.path().join("theirs");
    let data = dir.path().join("ours/data");
    let copied = std::process::Command::new("cp").arg("-r").arg(&data).arg(&theirs_dir).status().unwrap();
    assert!(copied.success());
    let _ = std::fs::remove_file(theirs_dir.join("lock"));
    let theirs = Prometheus::start(&theirs_dir, "");
    let job = Matcher::new("job", MatchOp::Regex, "j[1-3]").unwrap();
    let all = Matcher::new("__name__", MatchOp::NotEqual, "").unwrap();
    let ms = |ago: i64| (end - ago) * 1000;
    for (range, matchers) in [
        (TimeRange::new(ms(3600), ms(0)), vec![all.clone()]),
        (TimeRange::new(ms(1800), ms(1700)), vec![all.clone(), job]),
        (TimeRange::new(ms(90_000), ms(80_000)), vec![all]),
    ] {
        let (mine, its) = (streamed(&ours.url, range, &matchers), streamed(&theirs.url, range, &matchers));
        assert_eq!(mine.is_empty(), range.end < ms(3600));
        // Prometheus encodes a chunk anew that reaches beyond the range; we leave it to the reader to cut it.
        let is_whole = range == TimeRange::new(ms(3600), ms(0));
        assert!(!is_whole || mine == its, "{} and {} series", mine.len(), its.len());
        let samples = |all: &[ChunkedSeries]| -> Vec<_> {
            let decoded = |series: &ChunkedSeries| {
                let mut samples = model::Samples::default();
                series.decode(range, &mut samples).unwrap();
                // As text, for a NaN equals nothing.
                format!("{} {samples:?}", series.labels)
            };
            all.iter().map(decoded).collect()
        };
        assert!(samples(&mine) == samples(&its), "{range:?}");
    }
    theirs.stop();
}

/// Rows in an order of their own.
fn sorted(mut answer: serde_json::Value) -> serde_json::Value {
    answer["data"]["result"].as_array_mut().unwrap().sort_by_key(|row| row["metric"].to_string());
    answer
}

#[test]
fn series_are_deleted_and_snapshots_taken_where_that_is_allowed() {
    if !installed("promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let end = now_s() - 20;
    let server = with_history(&dir.path().join("own"), end, &["--web.enable-admin-api"]);
    let post = |path: &str| request("POST", &format!("{}/api/v1/admin/tsdb/{path}", server.url), &[], "");
    let count = |what: &str| {
        let rows = server.query(&format!("count(count_over_time({what}[2h]))"));
        rows.first().map_or(0, |row| row["value"][1].as_str().unwrap().parse::<u32>().unwrap())
    };
    assert_eq!((count("requests_total"), count("level")), (15, 3));

    let (status, body) = post("snapshot");
    assert_eq!(status, 200, "{body}");
    let name = serde_json::from_str::<serde_json::Value>(&body).unwrap()["data"]["name"].clone();
    let copy = dir.path().join("own/data/snapshots").join(name.as_str().unwrap());
    let listed = run("promtool", &["tsdb", "list", &copy.display().to_string()]);
    assert!(listed.lines().count() >= 2, "{listed}");

    assert_eq!(post("delete_series").0, 400);
    let code = escape("requests_total{code=\"500\"}");
    assert_eq!(post(&format!("delete_series?match[]={code}&match[]=level")).0, 204);
    assert_eq!(post("clean_tombstones").0, 204);
    assert_eq!((count("requests_total"), count("level")), (10, 0));

    let closed = Server::start(&dir.path().join("closed"), &["--kubernetes=off"]);
    for path in ["snapshot", "clean_tombstones", "delete_series?match[]=up"] {
        let url = format!("{}/api/v1/admin/tsdb/{path}", closed.url);
        let (status, body) = request("POST", &url, &[], "");
        assert!(status == 500 && body.contains("admin APIs disabled"), "{status} {body}");
    }
}

#[test]
fn large_answers_are_compressed_for_those_who_can_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--kubernetes=off"]);
    let range = format!("{}/api/v1/query_range?query=vector(1)&start=0&end=10000&step=1", server.url);
    server.wait_for_history();
    let (_, plain) = get(&range, &[]);
    let (status, packed) = get(&range, &[("Accept-Encoding", "gzip")]);
    assert_eq!(status, 200);
    assert!(plain.len() > 100_000 && packed.len() < plain.len() / 4, "{} {}", plain.len(), packed.len());
}

#[test]
fn metrics_of_open_telemetry_are_taken_where_that_is_enabled() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("prom.yml");
    std::fs::write(&config, "otlp:\n  promote_resource_attributes: [host.name]\nstorage:\n  tsdb:\n    out_of_order_time_window: 30m\n").unwrap();
    let flag = format!("--config.file={}", config.display());
    let server =
        Server::start(&dir.path().join("own"), &["--kubernetes=off", "--web.enable-otlp-receiver", &flag]);
    server.wait_for_history();
    let send = |value: u32, ago_s: i64| {
        let nanos = (now_s() - ago_s) * 1_000_000_000;
        let body = format!(
            "{{\"resourceMetrics\":[{{\"resource\":{{\"attributes\":[{{\"key\":\"service.name\",\"value\":{{\"stringValue\":\"shop\"}}}},\
             {{\"key\":\"host.name\",\"value\":{{\"stringValue\":\"h\"}}}}]}},\"scopeMetrics\":[{{\"metrics\":[{{\"name\":\"orders\",\
             \"sum\":{{\"aggregationTemporality\":2,\"isMonotonic\":true,\"dataPoints\":[{{\"asInt\":\"{value}\",\"timeUnixNano\":\"{nanos}\"}}]}}}}]}}]}}]}}"
        );
        let url = format!("{}/api/v1/otlp/v1/metrics", server.url);
        request("POST", &url, &[("Content-Type", "application/json")], &body)
    };
    assert_eq!(send(7, 1), (200, "{}".to_owned()));
    // Late by ten minutes, which the configuration allows.
    assert_eq!(send(3, 600).0, 200);
    let rows = server.query("orders_total{job=\"shop\", host_name=\"h\"}[20m]");
    let values = rows[0]["values"].as_array().unwrap();
    assert_eq!((values[0][1].as_str(), values[1][1].as_str()), (Some("3"), Some("7")));
    assert_eq!(send(1, 7200).0, 400, "later than allowed");
    let url = format!("{}/api/v1/otlp/v1/metrics", server.url);
    assert_eq!(request("POST", &url, &[("Content-Type", "text/plain")], "").0, 415);
    assert_eq!(request("POST", &url, &[("Content-Type", "application/x-protobuf")], "\u{1}").0, 400);
}
