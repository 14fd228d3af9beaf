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

/// VictoriaMetrics, from the folder in `PYROMETER_NEWER_DIR`. Dropping it kills it.
struct Victoria(std::process::Child);

impl Victoria {
    fn start(program: &str, dir: &Path, address: &str) -> Self {
        let child = std::process::Command::new(program)
            .arg(format!("-storageDataPath={}", dir.display()))
            .arg(format!("-httpListenAddr={address}"))
            .args(["-retentionPeriod=1d", "-search.latencyOffset=0s", "-memory.allowedBytes=256MB"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let this = Self(child);
        let deadline = std::time::Instant::now() + crate::process::PATIENCE;
        while get(&format!("http://{address}/health"), &[]).0 != 200 {
            assert!(std::time::Instant::now() < deadline, "VictoriaMetrics does not answer");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        this
    }

    /// It writes what it has in memory, which it acknowledged, only now.
    fn stop(mut self) {
        let id = self.0.id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.0.wait().unwrap();
    }
}

impl Drop for Victoria {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every sample of `x` that VictoriaMetrics has, by time; a value that JSON has no number for is `null`.
fn exported(address: &str) -> Vec<(i64, Value)> {
    let (_, lines) =
        get(&format!("http://{address}/api/v1/export?match[]={}", escape("x{dc=\"here\"}")), &[]);
    let mut found = Vec::new();
    for line in lines.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let (times, values) = (row["timestamps"].as_array().unwrap(), row["values"].as_array().unwrap());
        found.extend(times.iter().zip(values).map(|(ts, value)| (ts.as_i64().unwrap(), value.clone())));
    }
    found.sort_by_key(|(ts, _)| *ts);
    found
}

#[test]
fn victoria_metrics_has_every_sample_once_after_both_were_down() {
    let Some(program) = crate::process::newer("victoria-metrics") else {
        return eprintln!("SKIPPED: PYROMETER_NEWER_DIR names no folder with victoria-metrics");
    };
    let dir = tempfile::tempdir().unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let config = dir.path().join("prom.yml");
    write_config(&config, &[&format!("http://{address}")]);
    let flag = format!("--config.file={}", config.display());
    let flags = [
        "--kubernetes=off",
        "--web.enable-remote-write-receiver",
        "--storage.remote.flush-deadline=1s",
        &flag,
    ];
    let data = dir.path().join("victoria");
    let theirs = Victoria::start(&program, &data, &address);
    let sender = Server::start(&dir.path().join("sender"), &flags);

    let base = crate::shards::now_ms() - 600_000;
    let push = |sender: &Server, samples: &[(i64, f64)]| {
        let labels = model::Labels::from_pairs([("__name__", "x"), ("job", "j")]);
        let samples = samples.iter().map(|(after, value)| (labels.clone(), base + after, *value));
        let address = sender.url.strip_prefix("http://").unwrap();
        assert_eq!(crate::shards::post(address, &remote::send::request(samples)).unwrap().0, 204);
    };
    let holds = |sender: &Server, wanted: &[(i64, Value)]| {
        let wanted: Vec<_> = wanted.iter().map(|(after, value)| (base + after, value.clone())).collect();
        sender.wait_for("samples in VictoriaMetrics", |_| (exported(&address) == wanted).then_some(()));
    };
    let at = |after: i64| {
        let query = format!("http://{address}/api/v1/query?query=x&time={}", (base + after).div_euclid(1000));
        serde_json::from_str::<Value>(&get(&query, &[]).1).unwrap()["data"]["result"].clone()
    };
    push(&sender, &[(0, 1.5), (15_000, -2.25e-7), (30_000, 12_345_678.0), (45_000, 0.0)]);
    let mut wanted: Vec<(i64, Value)> =
        vec![(0, 1.5.into()), (15_000, (-2.25e-7).into()), (30_000, 12_345_678.into()), (45_000, 0.into())];
    holds(&sender, &wanted);
    // A series that ends does so there as well.
    push(&sender, &[(60_000, model::stale_nan())]);
    wanted.push((60_000, Value::Null));
    holds(&sender, &wanted);
    assert_eq!(
        (at(50_000).as_array().map(Vec::len), at(70_000).as_array().map(Vec::len)),
        (Some(1), Some(0))
    );

    // It is away, and we are killed meanwhile.
    theirs.stop();
    push(&sender, &[(75_000, 7.0), (90_000, 8.0)]);
    sender.kill();
    let sender = Server::start(&dir.path().join("sender"), &flags);
    sender.wait_for_history();
    push(&sender, &[(105_000, 9.0)]);
    let theirs = Victoria::start(&program, &data, &address);
    wanted.extend([(75_000, 7.into()), (90_000, 8.into()), (105_000, 9.into())]);
    // What is sent again after a restart is there once or twice; a store keeps both, a query takes one.
    sender.wait_for("samples in VictoriaMetrics", |_| {
        let mut found = exported(&address);
        found.dedup();
        let wanted = wanted.iter().map(|(after, value)| (base + after, value.clone()));
        found.into_iter().eq(wanted).then_some(())
    });
    assert_eq!(at(106_000)[0]["value"][1], "9");
    theirs.stop();
}
