//! What it costs to hand series to Thanos: CPU, bytes, and memory beside the store.
//!
//! ```text
//! cargo bench -p thanos --bench series -- [SERIES] [STEPS]
//! ```
//! The client takes frames and counts them; its part of the CPU time is small. There is no socket in between.
#![allow(clippy::unwrap_used, reason = "a measurement ends where its assumptions do")]

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use model::Labels;
use prost::Message as _;
use thanos::{Limits, Store};
use tower::ServiceExt as _;

/// The fields of a `SeriesRequest` that are asked for here.
#[derive(Clone, PartialEq, prost::Message)]
struct Ask {
    #[prost(int64, tag = "2")]
    max_time: i64,
    #[prost(message, repeated, tag = "3")]
    matchers: Vec<Matcher>,
    #[prost(string, repeated, tag = "14")]
    without: Vec<String>,
    #[prost(int64, tag = "16")]
    batch: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Matcher {
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    value: String,
}

fn status(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

/// CPU seconds of all threads so far, from the kernel: hundredths.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

fn fill(db: &tsdb::Db, series: usize, steps: i64) {
    let mut refs = Vec::new();
    let mut batch = db.appender();
    for number in 0..series {
        let texts = [
            ("__name__", "container_cpu_usage_seconds_total".to_owned()),
            ("namespace", format!("namespace-{:02}", number % 50)),
            ("pod", format!("workload-{:05}-{:05x}", number / 4, number)),
            ("container", "app".to_owned()),
            ("cpu", format!("cpu{:02}", number % 4)),
            ("id", format!("/kubepods/burstable/pod{number:08x}")),
            ("image", format!("registry.local/team/app:1.2.{}", number % 9)),
            ("instance", format!("10.0.{}.1:10250", number % 200)),
            ("job", "kubelet".to_owned()),
            ("metrics_path", "/metrics/cadvisor".to_owned()),
            ("name", format!("k8s_app_{number}")),
            ("node", format!("node-{:03}", number % 200)),
        ];
        refs.push(
            batch.series(&Labels::from_pairs(texts.iter().map(|(name, value)| (name, value)))).unwrap(),
        );
    }
    for step in 0..steps {
        for (value, series) in (0_u32..).zip(&refs) {
            batch.append(*series, step * 15_000, f64::from(value % 1_000) * step as f64).unwrap();
        }
        batch.commit().unwrap();
        batch = db.appender();
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let (series, steps) =
        (numbers.first().copied().unwrap_or(100_000), numbers.get(1).copied().unwrap_or(48));
    let dir = tempfile::tempdir().unwrap();
    let db = tsdb::Db::open(dir.path(), tsdb::Options::default()).unwrap();
    fill(&db, series, i64::try_from(steps).unwrap());
    let external = Labels::from_pairs([("cluster", "c1"), ("replica", "a")]);
    let store = Store::new(Arc::new(db), external, Limits::default());
    println!("{series} series of 12 labels x {steps} samples, 2 external labels");
    for (what, without, batch) in
        [("one series a frame", false, 0), ("without replica, batches of 64", true, 64)]
    {
        let name = |name: &str, value: &str| Matcher { name: name.to_owned(), value: value.to_owned() };
        let ask = Ask {
            max_time: i64::MAX,
            matchers: vec![name("__name__", "container_cpu_usage_seconds_total")],
            without: if without { vec!["replica".to_owned()] } else { Vec::new() },
            batch,
        };
        let message = ask.encode_to_vec();
        let mut body = vec![0];
        body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend_from_slice(&message);
        // The peak so far shall not count.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let (cpu, memory) = (cpu_seconds(), status("VmRSS:"));
        let request = Request::post("/thanos.Store/Series").header("content-type", "application/grpc");
        let answer = store.routes().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let (mut body, mut bytes) = (answer.into_body(), 0);
        while let Some(frame) = body.frame().await {
            bytes += frame.unwrap().into_data().map_or(0, |data| data.len());
        }
        let (cpu, memory) = (cpu_seconds() - cpu, status("VmHWM:") - memory);
        let each = |value: f64| value / series as f64;
        println!(
            "{what:<32} {:>7.2} us CPU a series {:>7.0} B a series {memory:>7.1} MiB at most beside the store",
            each(cpu * 1e6),
            each(bytes as f64)
        );
    }
    assert_eq!(store.stats().series, 2 * series as u64);
}
