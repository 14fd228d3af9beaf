//! Our directory under a real Prometheus server, and back.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use model::{HistogramValue, IntHistogram, Labels, Span};
use tsdb::{Db, LogOnly, Options, Position};

use super::log_only::Heard;
use super::reading::all;

/// A running server, killed when dropped.
struct Server {
    process: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts a server on a directory; `None` where Prometheus is not installed.
    fn start(dir: &Path, config: &Path) -> Option<Self> {
        let late = "storage: {tsdb: {out_of_order_time_window: 1h}}";
        std::fs::write(config, format!("global: {{scrape_interval: 1h}}\n{late}\n")).unwrap();
        let path = format!("--storage.tsdb.path={}", dir.display());
        let more = ["--storage.tsdb.retention.time=100y", "--enable-feature=native-histograms"];
        Self::start_with(config, &[&[path.as_str()], &more[..]].concat())
    }

    /// Starts an agent on a directory, which scrapes itself.
    fn start_agent(dir: &Path, config: &Path) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let jobs = format!("[{{job_name: self, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]");
        std::fs::write(config, format!("global: {{scrape_interval: 1s}}\nscrape_configs: {jobs}\n")).unwrap();
        let version = Command::new("prometheus").arg("--version").output().ok()?;
        // The flag was another one before.
        let is_old = String::from_utf8_lossy(&version.stdout).contains("version 2.");
        let mode = if is_old { "--enable-feature=agent" } else { "--agent" };
        let path = format!("--storage.agent.path={}", dir.display());
        Self::start_on(port, config, &[mode, &path])
    }

    fn start_with(config: &Path, arguments: &[&str]) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_on(port, config, arguments)
    }

    fn start_on(port: u16, config: &Path, arguments: &[&str]) -> Option<Self> {
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .args(arguments)
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = match process {
            Ok(process) => process,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "prometheus: {error}");
                eprintln!("SKIPPED: prometheus: {error}");
                return None;
            }
        };
        let server = Self { process, port };
        let start = Instant::now();
        while !server.get("/-/ready").is_some_and(|answer| answer.contains("200 OK")) {
            assert!(start.elapsed() < Duration::from_secs(30), "Prometheus does not get ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(server)
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// The single value that an instant query returns.
    fn query(&self, query: &str, time_s: i64) -> f64 {
        let answer = self.get(&format!("/api/v1/query?query={query}&time={time_s}")).unwrap();
        let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        body["data"]["result"][0]["value"][1].as_str().unwrap_or("NaN").parse().unwrap()
    }

    /// The value of one of its own metrics.
    fn metric(&self, name: &str) -> Option<f64> {
        let page = self.get("/metrics")?;
        let line = page.lines().find(|line| line.split(' ').next() == Some(name))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Ends the server in an orderly way.
    fn stop(mut self) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        self.process.wait().unwrap();
    }
}

const START_S: i64 = 1_700_000_000;

/// Appends a minute a step; `late`: with samples that come late, and series that have no other.
fn fill(db: &Db, (from, to): (i64, i64), late: bool) {
    for step in from..to {
        let ts = (START_S + step * 60) * 1000;
        let mut batch = db.appender();
        for n in 0..20 {
            let labels = Labels::from_pairs([("__name__", "pingpong"), ("n", &n.to_string())]);
            let series = batch.series(&labels).unwrap();
            batch.append(series, ts, (step * n) as f64).unwrap();
            if late && step % 7 == 0 && step > 60 {
                let late = [("__name__", "pingpong"), ("late", "only"), ("n", &n.to_string())];
                let only = batch.series(&Labels::from_pairs(late)).unwrap();
                batch.append(series, ts - 90_000, step as f64).unwrap();
                batch.append(only, ts - 3_500_000, step as f64).unwrap();
            }
        }
        let series = batch.series(&Labels::from_pairs([("__name__", "native")])).unwrap();
        let counts = vec![step.unsigned_abs(), step.unsigned_abs() / 2];
        let histogram = IntHistogram {
            count: counts.iter().sum(),
            sum: step as f64,
            positive_spans: vec![Span { offset: 3, length: 2 }],
            positive: counts,
            ..IntHistogram::default()
        };
        batch.append_histogram(series, ts, &HistogramValue::Int(histogram.clone())).unwrap();
        // Every four minutes: a step that takes another width with a sign than without.
        if step % 4 == 0 {
            let series = batch.series(&Labels::from_pairs([("__name__", "slow")])).unwrap();
            batch.append_histogram(series, ts, &HistogramValue::Int(histogram)).unwrap();
        }
        batch.commit().unwrap();
        if step % 10 == 0 {
            db.maintain(ts).unwrap();
        }
    }
}

#[test]
fn prometheus_reads_our_directory_and_we_read_it_back() {
    let (dir, config) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = config.path().join("prometheus.yml");
    let options = Options {
        retention_ms: None,
        wal_segment_bytes_max: 100_000,
        out_of_order_window_ms: 3_600_000,
        ..Options::default()
    };
    // Blocks, a checkpoint, mapped head chunks and a log.
    let steps = 20 * 60;
    let db = Db::open(dir.path(), options.clone()).unwrap();
    fill(&db, (0, steps), true);
    assert!(db.stats().blocks > 3);
    let ours = all(&db.snapshot());
    let late = ours.iter().filter(|(labels, _)| labels.contains("late=")).map(|(_, samples)| samples.len());
    assert_eq!(late.clone().count(), 20);
    assert!(late.min() > Some(150));
    drop(db);
    let Some(server) = Server::start(dir.path(), &config) else { return };
    let end = START_S + steps * 60;
    let count = |server: &Server, name: &str| {
        server.query(&format!("sum(count_over_time({name}[100h]))"), end + 3600 * 20)
    };
    let expected = |name: &str| {
        let series = ours.iter().filter(|(labels, _)| labels.starts_with(name));
        series.map(|(_, samples)| samples.len()).sum::<usize>() as f64
    };
    assert_eq!(count(&server, "pingpong"), expected("pingpong"));
    assert_eq!(count(&server, "native"), expected("native"));
    let last = server.query("histogram_count(native)", end - 60);
    assert_eq!(last, ((steps - 1) + (steps - 1) / 2) as f64);
    for step in (0..steps).step_by(20) {
        let at = START_S + step * 60;
        assert_eq!(server.query("histogram_count(slow)", at), (step + step / 2) as f64, "step {step}");
    }
    server.stop();
    let db = Db::open(dir.path(), options).unwrap();
    assert_eq!(all(&db.snapshot()), ours);
    fill(&db, (steps, steps + 200), true);
    db.cut_head().unwrap();
    let ours = all(&db.snapshot());
    drop(db);
    let Some(server) = Server::start(dir.path(), &config) else { return };
    let expected: usize =
        ours.iter().filter(|(labels, _)| labels.starts_with("pingpong")).map(|(_, s)| s.len()).sum();
    assert_eq!(count(&server, "pingpong"), expected as f64);
}

#[test]
fn an_agent_of_prometheus_goes_on_where_ours_ended_and_ours_where_that_one_did() {
    let (dir, config) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = config.path().join("prometheus.yml");
    let log_only = Some(LogOnly { min_ms: 0, max_ms: 3_600_000, truncate_every_ms: 1_200_000 });
    let options = || Options { log_only, wal_segment_bytes_max: 100_000, ..Options::default() };
    let db = Db::open(dir.path(), options()).unwrap();
    db.keep_log_from(None);
    fill(&db, (0, 95), false);
    assert_eq!(db.stats().head_series, 22);
    let ours = Heard::all(&mut db.tail(Some(Position::default())).unwrap());
    assert!(std::fs::read_dir(dir.path().join("wal")).unwrap().count() >= 2, "a checkpoint and a segment");
    drop(db);
    let Some(server) = Server::start_agent(dir.path(), &config) else { return };
    let start = Instant::now();
    while server.metric("prometheus_agent_samples_appended_total{type=\"float\"}").unwrap_or(0.0) < 100.0
        && server.metric("prometheus_agent_samples_appended_total").unwrap_or(0.0) < 100.0
    {
        assert!(start.elapsed() < Duration::from_secs(30), "the agent appends nothing");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(server.metric("prometheus_agent_corruptions_total"), Some(0.0));
    assert!(server.metric("prometheus_agent_active_series").unwrap() >= 22.0 + 100.0);
    server.stop();
    let db = Db::open(dir.path(), options()).unwrap();
    fill(&db, (95, 100), false);
    let both = Heard::all(&mut db.tail(Some(Position::default())).unwrap());
    let (pingpong, theirs): (Vec<_>, Vec<_>) =
        both.samples.iter().partition(|(series, ..)| series.starts_with("pingpong"));
    assert_eq!(pingpong.len(), ours.samples.len() + 5 * 20);
    assert!(theirs.iter().any(|(series, _, value)| series.contains("job=\"self\"") && *value == 1.0));
    // Ours took the references of that one for its own.
    let names: std::collections::BTreeSet<String> = both.names.values().map(Labels::to_string).collect();
    assert_eq!(db.stats().head_series, names.len() as u64);
    drop(db);
    let Some(server) = Server::start_agent(dir.path(), &config) else { return };
    assert_eq!(server.metric("prometheus_agent_corruptions_total"), Some(0.0));
    assert!(server.metric("prometheus_agent_active_series").unwrap() >= names.len() as f64);
    server.stop();
}
