//! Remote write out: to ourselves and to the real Prometheus, through outages and restarts.

use std::path::Path;

use serde_json::Value;

use crate::process::{Server, escape, get, installed};
use crate::prometheus::Prometheus;

/// The samples of `up` until `at`: time and value by job and path, on any server.
fn samples(url: &str, selector: &str, at: i64) -> Vec<(String, Value)> {
    let query = escape(&format!("{selector}[10m]"));
    let (_, body) = get(&format!("{url}/api/v1/query?query={query}&time={at}"), &[]);
    let answer: Value = serde_json::from_str(&body).unwrap_or_default();
    let rows = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    let mut found: Vec<_> = rows
        .into_iter()
        .map(|row| {
            (format!("{}{}", row["metric"]["instance"], row["metric"]["metrics_path"]), row["values"].clone())
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn write_config(path: &Path, urls: &[&str]) {
    let mut text = "global: {external_labels: {dc: here}}\nremote_write:\n".to_owned();
    for url in urls {
        text.push_str(&format!(
            "- url: {url}/api/v1/write\n  write_relabel_configs:\n  - source_labels: [__name__]\n    regex: process_.*\n    \
             action: drop\n  queue_config: {{batch_send_deadline: 200ms, max_backoff: 200ms}}\n"
        ));
    }
    std::fs::write(path, text).unwrap();
}

#[test]
fn every_sample_arrives_through_outages_and_restarts() {
    if !installed("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let receiver = Server::start(
        &dir.path().join("receiver"),
        &["--kubernetes=off", "--web.enable-remote-write-receiver"],
    );
    // This one is not there yet.
    let late = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let config = dir.path().join("prom.yml");
    write_config(&config, &[&receiver.url, &format!("http://{late}")]);
    let flag = format!("--config.file={}", config.display());
    let flags = ["--kubernetes=off", "--scrape.built-in=on", "--storage.remote.flush-deadline=1s", &flag];
    let sender = Server::start(&dir.path().join("sender"), &flags);
    sender.wait_for_rows("count(up) == 3");
    // The receiver has series of this name of its own: they lack the label.
    receiver.wait_for_rows("count(up{dc=\"here\"}) == 3");
    assert!(!receiver.query("prometheus_tsdb_head_series{dc=\"here\"}").is_empty());
    assert!(receiver.query("process_cpu_seconds_total{dc=\"here\"}").is_empty(), "dropped by relabelling");
    sender.kill();

    let sender = Server::start(&dir.path().join("sender"), &flags);
    sender.wait_for_history();
    sender.wait_for_rows("count(count_over_time(up[10m]) >= 2) == 3");
    let theirs =
        Prometheus::start_at(&dir.path().join("theirs"), &late, &["--web.enable-remote-write-receiver"]);
    let at = crate::prometheus::now_s();
    let sent = samples(&sender.url, "up", at);
    // The restarted one scrapes itself under another address.
    assert_eq!(sent.len(), 4);
    for url in [&receiver.url, &theirs.url] {
        sender.wait_for("all samples", |_| (samples(url, "up{dc=\"here\"}", at) == sent).then_some(()));
    }
    let (_, metrics) = sender.get("/metrics");
    assert!(metrics.contains("prometheus_remote_storage_samples_failed_total{remote_name="), "{metrics}");
    assert_eq!(sender.interrupt(), Some(0));
    theirs.stop();
}

/// The numbers of the segments of a log, and whether there is a checkpoint.
fn log_of(dir: &Path) -> (Vec<u32>, bool) {
    let names = std::fs::read_dir(dir.join("data/wal")).unwrap();
    let names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let mut segments: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    segments.sort_unstable();
    (segments, names.iter().any(|name| name.starts_with("checkpoint.")))
}

/// An agent keeps what a receiver has not taken, through its own end, and no more than that.
#[test]
fn an_agent_keeps_its_log_until_it_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let agent_dir = dir.path().join("agent");
    let late = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let config = dir.path().join("prom.yml");
    let text = format!(
        "global: {{external_labels: {{dc: here}}}}\nremote_write:\n- url: http://{late}/api/v1/write\n  \
         queue_config: {{batch_send_deadline: 200ms, max_backoff: 200ms}}\n"
    );
    std::fs::write(&config, text).unwrap();
    let flag = format!("--config.file={}", config.display());
    let flags = [
        "--agent",
        "--kubernetes=off",
        "--scrape.built-in=on",
        "--storage.agent.retention.min-time=1s",
        "--storage.agent.wal-truncate-frequency=2s",
        "--storage.remote.flush-deadline=1s",
        &flag,
    ];
    let agent = Server::start(&agent_dir, &flags);
    let grown = |agent: &Server, to: u32| {
        agent.wait_for("segments", |_| Some(log_of(&agent_dir)).filter(|log| log.0.last() >= Some(&to)))
    };
    // Nobody takes it: segments end, and stay.
    let (segments, has_checkpoint) = grown(&agent, 2);
    assert_eq!((segments.first(), has_checkpoint), (Some(&0), false), "{segments:?}");
    agent.wait_for("scrapes", |agent| {
        let (_, body) = agent.get("/api/v1/targets");
        (body.matches("\"health\":\"up\"").count() == 3).then_some(())
    });
    let from = crate::prometheus::now_s() + 1;
    agent.kill();

    let agent = Server::start(&agent_dir, &flags);
    let receiver = Server::start_at(
        &late,
        &dir.path().join("receiver"),
        &["--kubernetes=off", "--web.enable-remote-write-receiver"],
    );
    // What was scraped before the agent was killed, too.
    // The restarted one scrapes itself under another address.
    receiver.wait_for_rows(&format!("count(up{{dc=\"here\"}} @ {from}) >= 3"));
    agent.wait_for("the log to be shortened", |_| {
        let (segments, has_checkpoint) = log_of(&agent_dir);
        (has_checkpoint && !segments.contains(&0)).then_some(())
    });
    assert!(!agent_dir.join("data/chunks_head").exists(), "an agent has no head");
    // It goes on with the series that only the checkpoint names.
    let now = crate::prometheus::now_s();
    receiver.wait_for_rows(&format!("count(timestamp(up{{dc=\"here\"}}) > {now}) >= 3"));
    assert_eq!(agent.interrupt(), Some(0));
}
