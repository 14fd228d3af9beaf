//! What a new user sees: one command, and this machine's metrics in kubectl, promtool and a browser.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::process::{Server, command, get, installed, request, run};

/// Starts a server and waits until every target has been scraped and the Metrics API has values.
fn lit() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    server.wait_for_rows("count(up == 1) == 3");
    for resource in ["nodes", "pods"] {
        server.wait_for(resource, |server| {
            let list = server.json(&format!("/apis/metrics.k8s.io/v1beta1/{resource}"));
            (!list["items"].as_array()?.is_empty()).then_some(())
        });
    }
    (dir, server)
}

#[test]
fn kubectl_top_shows_this_machine() {
    if !installed("kubectl") {
        return;
    }
    let (_dir, server) = lit();
    let cache = tempfile::tempdir().unwrap();
    let cache = format!("--cache-dir={}", cache.path().display());
    let kubectl = |arguments: &[&str]| {
        let all: Vec<&str> =
            [cache.as_str(), "--server", &server.url].iter().chain(arguments).copied().collect();
        run("kubectl", &all)
    };
    let nodes = kubectl(&["top", "nodes"]);
    let row: Vec<&str> = nodes.lines().nth(1).expect("a node").split_whitespace().collect();
    assert_eq!(row.len(), 5, "{nodes}");
    assert!(
        row[1].ends_with('m') && row[2].ends_with('%') && row[3].ends_with("Mi") && row[4].ends_with('%'),
        "{nodes}"
    );

    let pods = kubectl(&["top", "pods", "-A"]);
    assert!(pods.lines().count() > 1 && pods.starts_with("NAMESPACE"), "{pods}");
    let containers = kubectl(&["top", "pods", "-A", "--containers"]);
    // This test's own server is one of the processes of this machine.
    assert!(containers.lines().count() >= pods.lines().count(), "{containers}");
    let first: Vec<&str> = pods.lines().nth(1).unwrap().split_whitespace().collect();
    let one = kubectl(&["top", "pod", "-n", first[0], first[1]]);
    assert!(one.contains(first[1]), "{one}");

    assert!(kubectl(&["get", "nodes.metrics.k8s.io"]).contains(row[0]));
    assert!(kubectl(&["get", "nodes"]).contains(row[0]));
    let missing = crate::process::output(
        "kubectl",
        &[&cache, "--server", &server.url, "top", "pod", "-n", "x", "nope"],
    );
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("not found"), "{missing:?}");
}

#[test]
fn the_metrics_api_alone_keeps_no_series() {
    let dir = tempfile::tempdir().unwrap();
    let alone = "--mode=metrics-api-only";
    let server = Server::start(dir.path(), &[alone]);
    for (resource, usage) in [("nodes", "/items/0/usage/memory"), ("pods", "/items/0/containers/0/usage/cpu")]
    {
        server.wait_for(resource, |server| {
            let list = server.json(&format!("/apis/metrics.k8s.io/v1beta1/{resource}"));
            list.pointer(usage)?.as_str().map(|_| ())
        });
    }
    assert_eq!(server.query(r#"{__name__=~".+"}"#), Vec::<Value>::new());
    drop(server);

    // Rules for custom metrics are queries, so with them there are series.
    let rules = dir.path().join("rules.yaml");
    std::fs::write(&rules, "rules: []\n").unwrap();
    let flag = format!("--kubernetes-api.adapter-rules={}", rules.display());
    let server = Server::start(dir.path(), &[alone, &flag]);
    server.wait_for_rows("container_memory_working_set_bytes");
}

#[test]
fn usage_agrees_with_the_kernel() {
    let (_dir, server) = lit();
    // The counter in the store against the kernel's own, read right around the sample.
    let rows = server.wait_for_rows("timestamp(node_cpu_usage_seconds_total)");
    let before: f64 = rows[0]["value"][1].as_str().unwrap().parse().unwrap();
    let fresh = server.wait_for("a newer sample", |server| {
        let low = kernel_cpu_seconds();
        let rows = server.query(&format!(
            "node_cpu_usage_seconds_total and timestamp(node_cpu_usage_seconds_total) > {before}"
        ));
        let value: f64 = rows.first()?["value"][1].as_str()?.parse().ok()?;
        Some((low, value, kernel_cpu_seconds()))
    });
    let (low, value, high) = fresh;
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    // The sample may be a second old (the agent's page cache) and the poll some more.
    assert!(value >= low - 3.0 * cores && value <= high + 0.5, "{low} {value} {high}");

    let nodes = server.json("/apis/metrics.k8s.io/v1beta1/nodes");
    let memory = nodes["items"][0]["usage"]["memory"].as_str().unwrap().to_owned();
    let kib: f64 = memory.trim_end_matches("Ki").parse().unwrap_or_else(|_| panic!("{memory}"));
    let total = meminfo_kib("MemTotal");
    assert!(kib > 0.0 && kib < total, "{kib} of {total} KiB");
}

/// CPU time that the kernel has spent on anything but idling, in seconds.
fn kernel_cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let fields: Vec<f64> =
        stat.lines().next().unwrap().split_whitespace().skip(1).map(|field| field.parse().unwrap()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    (fields[0] + fields[1] + fields[2] + fields[5] + fields[6]) / 100.0
}

fn meminfo_kib(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn promtool_reads_the_api() {
    if !installed("promtool") {
        return;
    }
    let (_dir, server) = lit();
    let url = server.url.as_str();
    let up = run("promtool", &["query", "instant", url, "up"]);
    assert!(up.lines().count() >= 3 && up.lines().all(|line| line.contains("=> 1 @[")), "{up}");
    let range = run("promtool", &["query", "range", "--step=1s", url, "count(up)"]);
    assert!(range.contains("=>") && range.contains("3 @["), "{range}");
    let series = run("promtool", &["query", "series", "--match=up", url]);
    assert_eq!(series.lines().count(), up.lines().count(), "{series}");
    let values = run("promtool", &["query", "labels", url, "job"]);
    assert_eq!(values.split_whitespace().collect::<Vec<_>>(), ["kubelet", "pyrometer"]);
    let bad = crate::process::output("promtool", &["query", "instant", url, "sum("]);
    assert!(!bad.status.success());
    assert!(String::from_utf8_lossy(&bad.stderr).contains("parse error"), "{bad:?}");
}

#[test]
fn promtool_finds_no_fault_with_any_page() {
    if !installed("promtool") {
        return;
    }
    let (_dir, server) = lit();
    let kubelet = server.json("/api/v1/targets")["data"]["activeTargets"].clone();
    let mut pages: Vec<String> = kubelet
        .as_array()
        .unwrap()
        .iter()
        .map(|target| target["scrapeUrl"].as_str().unwrap().to_owned())
        .collect();
    pages.sort();
    assert_eq!(pages.len(), 3, "{pages:?}");
    for url in pages {
        let (status, body) = get(&url, &[]);
        assert_eq!(status, 200, "{url}");
        let mut child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // The kubelet's own names break two of the linter's rules; ours break none.
        let complaints: Vec<&str> =
            text.lines().filter(|line| !url.contains("/metrics/") || line.contains("error")).collect();
        assert!(complaints.is_empty(), "{url}: {complaints:?}");
    }
}

#[test]
fn discovery_answers_by_exact_version() {
    let (_dir, server) = lit();
    let accept = |value| get(&format!("{}/apis", server.url), &[("Accept", value)]);
    let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let v2beta1 =
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    assert!(accept(v2).1.contains("apidiscovery.k8s.io/v2\""));
    assert!(accept(v2beta1).1.contains("apidiscovery.k8s.io/v2beta1\""));
    assert!(accept("application/json").1.contains("\"APIGroupList\""));
    assert_eq!(accept("text/html").0, 406);

    let nodes = format!("{}/apis/metrics.k8s.io/v1beta1/nodes", server.url);
    assert_eq!(get(&format!("{nodes}?watch=true"), &[]).0, 405);
    assert_eq!(get(&format!("{nodes}/nope"), &[]).0, 404);
    assert_eq!(get(&format!("{nodes}?labelSelector=%3D%3D"), &[]).0, 400);
    let (status, body) = request("POST", &nodes, &[], "{}");
    assert_eq!(status, 405);
    assert!(body.contains("\"kind\":\"Status\""), "{body}");
    let table = get(&nodes, &[("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")]).1;
    assert!(table.contains("\"kind\":\"Table\""), "{table}");
    let none = server.json("/apis/metrics.k8s.io/v1beta1/pods?labelSelector=no-such-label");
    assert_eq!(none["items"].as_array().unwrap().len(), 0);
}

#[test]
fn the_page_and_its_files_are_served() {
    let (_dir, server) = lit();
    assert_eq!(server.greeting.len(), 5, "{:?}", server.greeting);
    let (status, page) = server.get("/");
    assert_eq!(status, 200);
    assert!(page.contains("<title>Pyrometer</title>"));
    for file in ["/page.js", "/page.css"] {
        assert_eq!(server.get(file).0, 200, "{file}");
    }
    assert_eq!(server.get("/no-such-file"), (404, "404 page not found\n".to_owned()));
    let tsdb = server.json("/api/v1/status/tsdb?limit=2")["data"].clone();
    assert!(tsdb["headStats"]["numLabelPairs"].as_u64().unwrap() > 50, "{tsdb}");
    assert_eq!(tsdb["seriesCountByMetricName"].as_array().unwrap().len(), 2, "{tsdb}");
    assert_eq!(server.get("/api/v1/status/tsdb?limit=0").0, 400);
    assert_eq!(server.get("/-/ready").0, 200);
    let (status, body) = server.get("/api/v1/query?query=sum(");
    assert_eq!(status, 400);
    assert!(body.contains("\"errorType\":\"bad_data\"") && body.contains("1:5: parse error"), "{body}");
    assert_eq!(request("POST", &format!("{}/-/reload", server.url), &[], "").0, 403);
}

#[test]
fn top_shows_now_and_then_and_as_data() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--kubernetes=off"]);
    server.wait_for_rows("count_over_time(node_cpu_usage_seconds_total[1m]) >= 2");
    let top = |arguments: &[&str]| {
        let output = command()
            .arg("top")
            .args(arguments)
            .args(["--url", &server.url])
            .output()
            .expect("the binary starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let nodes = top(&["nodes", "--once"]);
    assert!(nodes.starts_with("NAME ") && nodes.contains("CPU%") && nodes.lines().count() == 2, "{nodes}");
    let pods: Vec<Value> = serde_json::from_str(&top(&["pods", "-o", "json", "--sort-by", "name"])).unwrap();
    assert!(pods.is_sorted_by_key(|pod| (pod["namespace"].to_string(), pod["name"].to_string())));
    assert!(pods.iter().all(|pod| pod["memory_bytes"].as_f64().is_some() && pod["timestamp_ms"].is_u64()));
    // Then is now, as far as the list goes.
    let then = (pods[0]["timestamp_ms"].as_u64().unwrap() / 1000 + 1).to_string();
    assert!(top(&["nodes", "--at", &then]).lines().count() == 2);
    assert_eq!(top(&["nodes", "--at", "1000"]).lines().count(), 1);
    let refused = command().args(["top", "nodes", "--once", "--url", "http://127.0.0.1:9"]).output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("127.0.0.1:9"));
}
