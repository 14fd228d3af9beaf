//! What a series of the head costs. Run alone and optimised:
//! `cargo test --release -p tsdb --test it memory -- --ignored --nocapture`

use std::time::Instant;

use model::Labels;
use tsdb::{Db, Options, SeriesRef};

/// Anonymous memory of this process, in bytes.
fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// 12 labels as cAdvisor has them: 100 containers a node, 50 series a container.
fn labels(n: usize) -> Labels {
    let (metric, container) = (n % 50, n / 50);
    let node = container / 100;
    Labels::from_pairs([
        ("__name__", format!("container_metric_{metric}_total").as_str()),
        ("container", ["app", "sidecar", "init"][container % 3]),
        ("cpu", "total"),
        ("id", &format!("/kubepods/burstable/pod{container:032x}")),
        ("image", &format!("registry.example/team/app:{}", container % 40)),
        ("instance", &format!("10.0.{}.{}:10250", node / 250, node % 250)),
        ("job", "kubelet"),
        ("metrics_path", "/metrics/cadvisor"),
        ("name", &format!("{container:064x}")),
        ("namespace", &format!("team-{}", container % 60)),
        ("node", &format!("node-{node}")),
        ("pod", &format!("app-{}-{container:05x}", container % 40)),
    ])
}

#[test]
#[ignore = "a measurement"]
fn bytes_and_time_of_a_series() {
    let count = std::env::var("SERIES").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000usize);
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options { retention_ms: None, ..Options::default() }).unwrap();
    let before = anonymous_bytes();
    let start = Instant::now();
    let mut references: Vec<SeriesRef> = Vec::with_capacity(count);
    let mut labels_time = std::time::Duration::ZERO;
    for first in (0..count).step_by(5000) {
        let made = Instant::now();
        let sets: Vec<Labels> = (first..count.min(first + 5000)).map(labels).collect();
        labels_time += made.elapsed();
        let mut batch = db.appender();
        for labels in &sets {
            let series = batch.series(labels).unwrap();
            batch.append(series, 0, 1.0).unwrap();
            references.push(series);
        }
        batch.commit().unwrap();
    }
    let created = start.elapsed() - labels_time;
    let fresh = anonymous_bytes() - before;
    println!(
        "{count} series created: {:.2} us each with log; {} B each",
        created.as_secs_f64() * 1e6 / count as f64,
        (fresh - 8 * count as u64) / count as u64
    );
    let (steps, start) = (240i64, Instant::now());
    let mut n_commits = 0;
    for step in 1..=steps {
        for part in references.chunks(5000) {
            let mut batch = db.appender();
            for (n, &series) in part.iter().enumerate() {
                let value = if n % 3 == 0 { step as f64 * 17.0 } else { (step % 5) as f64 * 0.25 + n as f64 };
                batch.append(series, step * 15_000, value).unwrap();
            }
            batch.commit().unwrap();
            if n_commits % 8 == 0 {
                db.maintain(0).unwrap();
            }
            n_commits += 1;
        }
        if step % 60 == 0 {
            let bytes = anonymous_bytes() - before - 8 * count as u64;
            println!("step {step}: {} B a series, {:?}", bytes / count as u64, start.elapsed());
        }
    }
    let samples = steps as f64 * count as f64;
    println!("{:.0} ns a sample with log", start.elapsed().as_secs_f64() * 1e9 / samples);
    println!("{:.2} bytes of log a sample", db.stats().wal_bytes as f64 / samples);
    drop(db);
    let start = Instant::now();
    let db = Db::open(dir.path(), Options { retention_ms: None, ..Options::default() }).unwrap();
    println!("opened again in {:?}", start.elapsed());
    let start = Instant::now();
    db.cut_head().unwrap();
    let stats = db.stats();
    println!(
        "cut in {:?}; {:.2} block bytes a sample; head now {} series, {} B each of before",
        start.elapsed(),
        stats.blocks_bytes as f64 / samples,
        stats.head_series,
        (anonymous_bytes() - before) / count as u64
    );
}
