//! What is kept of queries, and what they may not take: the query log, the active queries, costs, and
//! ingestion that goes on beside queries that are refused.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::process::{Server, escape, request};

#[test]
fn queries_are_logged_and_the_log_moves_with_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("prometheus.yml");
    let write = |name: &str| {
        std::fs::write(&config, format!("global: {{query_log_file: {name}}}\nrule_files: [rules.yml]\n"))
            .unwrap();
    };
    let rule = "{record: two, expr: vector(2)}";
    let rules = format!("groups: [{{name: g, interval: 100ms, rules: [{rule}]}}]");
    std::fs::write(dir.path().join("rules.yml"), rules).unwrap();
    write("first.log");
    let file = format!("--config.file={}", config.display());
    // What a crash leaves.
    std::fs::create_dir_all(dir.path().join("data")).unwrap();
    let left = "[{\"query\":\"left\",\"timestamp_sec\":1},";
    std::fs::write(dir.path().join("data/queries.active"), left).unwrap();
    let server = Server::start(dir.path(), &["--kubernetes=off", "--web.enable-lifecycle", &file]);
    server.wait_for("readiness", |server| (server.get("/-/ready").0 == 200).then_some(()));
    let active = std::fs::read(dir.path().join("data/queries.active")).unwrap();
    assert!(active.starts_with(b"[\0"), "the last run's queries are forgotten");

    server.query("vector(41) + 1");
    server.get("/api/v1/query?query=label_replace(vector(1),%22a%22,%22%22,%22b%22,%22(%22)");
    write("second.log");
    assert_eq!(request("POST", &format!("{}/-/reload", server.url), &[], "").0, 200);
    server.json("/api/v1/query_range?query=time()&start=100&end=160&step=30");
    let lines = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(dir.path().join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let of_rule = server.wait_for("a query of a rule", |_| {
        lines("second.log").into_iter().find(|line| line.get("ruleGroup").is_some())
    });
    assert_eq!(of_rule["params"]["query"], "vector(2)");
    assert_eq!(of_rule["ruleGroup"]["name"], "g");
    assert!(of_rule["ruleGroup"]["file"].as_str().unwrap().ends_with("rules.yml"));
    let of_clients = |name: &str| -> Vec<Value> {
        lines(name).into_iter().filter(|line| line.get("httpRequest").is_some()).collect()
    };
    let (first, second) = (of_clients("first.log"), of_clients("second.log"));
    assert_eq!(first[0]["httpRequest"]["clientIP"], "127.0.0.1");
    assert_eq!(first[0]["params"]["query"], "vector(41) + 1");
    assert_eq!(first[0]["params"]["step"], 0);
    assert_eq!(first[0]["httpRequest"]["path"], "/api/v1/query");
    assert!(first[0]["stats"]["timings"]["evalTotalTime"].is_number(), "{first:?}");
    assert!(first[1]["error"].as_str().unwrap().contains("("), "{first:?}");
    assert_eq!((first.len(), second.len()), (2, 1));
    assert_eq!(second[0]["params"]["end"], "1970-01-01T00:02:40.000Z");

    write("no/such/folder.log");
    let (status, body) = request("POST", &format!("{}/-/reload", server.url), &[], "");
    assert_eq!(status, 500);
    assert!(body.contains("query_log_file"), "{body}");
}

/// A remote-write request with one sample of each of `count` series, compressed by storing literals.
fn remote_write(count: usize, ts: i64, value: f64) -> Vec<u8> {
    fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
        out.push(number << 3 | 2);
        varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
    fn varint(out: &mut Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            out.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        out.push(value.to_le_bytes()[0]);
    }
    let mut message = Vec::new();
    for at in 0..count {
        let mut series = Vec::new();
        for (name, value) in [("__name__", "load".to_owned()), ("n", at.to_string())] {
            let mut label = Vec::new();
            field(&mut label, 1, name.as_bytes());
            field(&mut label, 2, value.as_bytes());
            field(&mut series, 1, &label);
        }
        let mut sample = vec![1 << 3 | 1];
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(2 << 3);
        varint(&mut sample, ts.cast_unsigned());
        field(&mut series, 2, &sample);
        field(&mut message, 1, &series);
    }
    let mut body = Vec::new();
    varint(&mut body, message.len() as u64);
    for chunk in message.chunks(60) {
        body.push(u8::try_from(chunk.len() - 1).unwrap() << 2);
        body.extend_from_slice(chunk);
    }
    body
}

/// Posts a binary body; the status.
fn post(url: &str, body: &[u8]) -> u16 {
    use std::io::{Read as _, Write as _};
    let host = url.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    let head = format!(
        "POST /api/v1/write HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Encoding: snappy\r\n\
         Content-Type: application/x-protobuf\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn ingestion_goes_on_beside_queries_that_want_too_much() {
    const SERIES: usize = 2_000;
    const ROUNDS: i64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--kubernetes=off", "--web.enable-remote-write-receiver", "--query.max-samples=100000"];
    let server = Server::start(dir.path(), &flags);
    server.wait_for("readiness", |server| (server.get("/-/ready").0 == 200).then_some(()));
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let start = now - ROUNDS * 1000;
    assert_eq!(post(&server.url, &remote_write(SERIES, start, 0.0)), 204);
    let (done, refused) = (AtomicBool::new(false), AtomicUsize::new(0));
    // Every series with every step, held at once: 2,000 x 3,600 samples.
    let bomb =
        escape("sort(load) or (load + on (n) load) or label_replace(load, \"m\", \"$1\", \"n\", \"(.*)\")");
    let path =
        format!("/api/v1/query_range?query={bomb}&start={}&end={}&step=1", start / 1000, start / 1000 + 3599);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let (status, body) = server.get(&path);
                    assert_eq!(status, 422, "{body:.200}");
                    assert!(
                        body.contains("samples_max=100000") && body.contains("while evaluating"),
                        "{body}"
                    );
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 1..ROUNDS {
            assert_eq!(post(&server.url, &remote_write(SERIES, start + round * 1000, 1.0)), 204);
        }
        while refused.load(Ordering::Relaxed) < 4 {
            std::thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
    });
    // Nothing of what was acknowledged is missing.
    let at = (start + ROUNDS * 1000) / 1000;
    let answer = server.json(&format!("/api/v1/query?query=sum(count_over_time(load[1h]))&time={at}"));
    let samples = SERIES * usize::try_from(ROUNDS).unwrap();
    assert_eq!(answer["data"]["result"][0]["value"][1], samples.to_string().as_str());
}

#[test]
fn stats_tell_what_steps_and_nodes_cost() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--kubernetes=off", "--web.enable-remote-write-receiver"];
    let server = Server::start(dir.path(), &flags);
    server.wait_for("readiness", |server| (server.get("/-/ready").0 == 200).then_some(()));
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let start = now - 600;
    for at in 0..20 {
        assert_eq!(post(&server.url, &remote_write(3, (start + at * 15) * 1000, 1.0)), 204);
    }
    let ask = |query: &str, stats: &str| {
        let (from, to) = (start + 120, start + 180);
        let query = escape(query);
        let path = format!("/api/v1/query_range?query={query}&start={from}&end={to}&step=15&stats={stats}");
        server.json(&path)["data"]["stats"].clone()
    };
    let stats = ask("sum(rate(load[1m]))", "all");
    let samples = &stats["samples"];
    // Four samples of each of three series in each of five windows.
    assert_eq!(samples["totalQueryableSamples"], 60, "{stats}");
    assert_eq!(samples["totalQueryableSamplesPerStep"][1], serde_json::json!([start + 135, 12]), "{stats}");
    assert_eq!(samples["totalQueryableSamplesPerStep"].as_array().unwrap().len(), 5);
    let nodes = stats["nodes"].as_array().unwrap();
    let node = |text: &str| nodes.iter().find(|node| node["expr"] == text).unwrap();
    assert_eq!(node("load[1m]")["series"], 3, "{stats}");
    assert_eq!(node("sum(rate(load[1m]))")["series"], 1, "{stats}");
    assert!(node("rate(load[1m])")["seconds"].as_f64().unwrap() > 0.0, "{stats}");
    // A subquery counts its windows, and not what is inside; what is pinned counts at each step.
    assert_eq!(ask("max_over_time(sum(load)[1m:15s])", "1")["samples"]["totalQueryableSamples"], 20);
    assert_eq!(ask(&format!("sum(load @ {start})"), "1")["samples"]["totalQueryableSamples"], 15);
    assert!(ask("load", "1")["samples"]["totalQueryableSamplesPerStep"].is_null());
    assert!(ask("load", "").is_null());
}
