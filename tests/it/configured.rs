//! A configuration file in Prometheus' format: its targets are scraped, and it can be replaced.

use std::path::Path;

use crate::process::{Server, request};

fn write(path: &Path, job: &str, target: &str) {
    let text = format!(
        "global:\n  scrape_interval: 1s\n  external_labels: {{dc: here}}\nscrape_configs:\n- job_name: {job}\n  \
         static_configs:\n  - targets: ['{target}']\n    labels: {{team: storage}}\n  metric_relabel_configs:\n  \
         - source_labels: [__name__]\n    regex: process_.*\n    action: drop\n"
    );
    std::fs::write(path, text).unwrap();
}

#[test]
fn targets_of_a_file_are_scraped_and_a_bad_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let other = Server::start(&dir.path().join("other"), &["--kubernetes=off"]);
    let target = other.url.trim_start_matches("http://");
    let path = dir.path().join("prom.yml");
    write(&path, "first", target);
    let file = format!("--config.file={}", path.display());
    let server =
        Server::start(&dir.path().join("own"), &["--kubernetes=off", "--web.enable-lifecycle", &file]);
    assert!(server.greeting[1].contains("1 targets of"), "{:?}", server.greeting);

    server.wait_for_rows("up{job=\"first\", team=\"storage\"} == 1");
    server.wait_for_rows("prometheus_tsdb_head_series{job=\"first\"} > 0");
    assert!(server.query("process_cpu_seconds_total{job=\"first\"}").is_empty(), "dropped by relabelling");
    let config = server.json("/api/v1/status/config");
    assert!(config["data"]["yaml"].as_str().unwrap().contains("job_name: first"), "{config}");

    // A file with a mistake is refused with its place, and the old targets go on.
    std::fs::write(&path, "scrape_configs:\n- job_name: second\n  schema: http\n").unwrap();
    let reload = format!("{}/-/reload", server.url);
    let (status, body) = request("POST", &reload, &[], "");
    assert_eq!(status, 500);
    assert!(body.contains("prom.yml:3:3: unknown field `schema`"), "{body}");
    let (_, metrics) = server.get("/metrics");
    assert!(metrics.contains("prometheus_config_last_reload_successful 0"), "{metrics}");
    assert_eq!(server.query("up{job=\"first\"} == 1").len(), 1);
    let notes = server.json("/api/v1/notifications");
    assert!(notes.to_string().contains("Configuration reload has failed."), "{notes}");

    // A good one takes the place of the old: its series begin, the old ones end.
    write(&path, "second", target);
    assert_eq!(request("POST", &reload, &[], "").0, 200);
    assert_eq!(server.json("/api/v1/notifications")["data"].as_array().unwrap().len(), 0);
    assert!(server.json("/api/v1/status/tsdb/blocks")["data"]["blocks"].is_array());
    assert_eq!(server.json("/api/v1/features")["data"]["promql"]["experimental_functions"], false);
    server.wait_for_rows("up{job=\"second\"} == 1");
    server.wait_for("the end of the old series", |server| {
        server.query("prometheus_tsdb_head_series{job=\"first\"}").is_empty().then_some(())
    });

    // A signal does the same, and a mistake in the file changes nothing then either.
    write(&path, "third", target);
    server.signal("-HUP");
    server.wait_for_rows("up{job=\"third\"} == 1");
    std::fs::write(&path, "scrape_configs: 7\n").unwrap();
    server.signal("-HUP");
    server.wait_for("the refusal", |server| {
        let (_, metrics) = server.get("/metrics");
        metrics.contains("prometheus_config_last_reload_successful 0").then_some(())
    });
    assert_eq!(server.query("up{job=\"third\"} == 1").len(), 1);
}

#[test]
fn changed_files_come_into_force_by_themselves_where_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prom.yml");
    std::fs::write(&path, "scrape_config_files: ['jobs/*.yml']\n").unwrap();
    let file = format!("--config.file={}", path.display());
    let server = Server::start(
        &dir.path().join("data"),
        &[
            "--kubernetes=off",
            "--enable-feature=auto-reload-config",
            "--config.auto-reload-interval=100ms",
            &file,
        ],
    );
    std::fs::create_dir(dir.path().join("jobs")).unwrap();
    let target = server.url.trim_start_matches("http://");
    let job = format!(
        "scrape_configs:\n- job_name: included\n  scrape_interval: 1s\n  static_configs: [{{targets: ['{target}']}}]\n"
    );
    std::fs::write(dir.path().join("jobs/a.yml"), job).unwrap();
    server.wait_for_rows("up{job=\"included\"} == 1");
    // A mistake changes nothing.
    std::fs::write(dir.path().join("jobs/a.yml"), "scrape_configs: 7\n").unwrap();
    server.wait_for("the refusal", |server| {
        let (_, metrics) = server.get("/metrics");
        metrics.contains("prometheus_config_last_reload_successful 0").then_some(())
    });
    assert_eq!(server.query("up{job=\"included\"} == 1").len(), 1);
}

#[test]
fn remote_write_is_taken_where_it_is_enabled() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("a"), &["--kubernetes=off"]);
    assert_eq!(request("POST", &format!("{}/api/v1/write", server.url), &[], "x").0, 404);
    let server =
        Server::start(&dir.path().join("b"), &["--kubernetes=off", "--web.enable-remote-write-receiver"]);
    server.wait_for_history();
    let url = format!("{}/api/v1/write", server.url);
    assert_eq!(request("POST", &url, &[], "garbage").0, 400);
    let headers = [("Content-Type", "text/plain")];
    assert_eq!(request("POST", &url, &headers, "x").0, 415);
    // An empty message, in snappy's block format.
    assert_eq!(request("POST", &url, &[], "\0").0, 204);
}
