//! Reading the log takes no more memory than the head that it rebuilds, and 64 MiB.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use model::{HistogramValue, IntHistogram, Labels, Span};
use tsdb::{Compression, Db, Options};

use super::simulation::Dice;

/// Where the child finds its directory.
const DIR: &str = "REPLAYED_STORE_DIR";
const MIB: u64 = 1 << 20;
const SERIES: u32 = 40;
const STEPS: i64 = 7_000;
const BUCKETS: u32 = 160;

fn options() -> Options {
    Options { retention_ms: None, wal_compression: Compression::None, ..Options::default() }
}

/// A large log of few series: histograms whose buckets have nothing to do with each other.
fn fill(dir: &Path) -> u64 {
    let db = Db::open(dir, options()).unwrap();
    let mut dice = Dice(1);
    for step in 0..STEPS {
        let mut batch = db.appender();
        let spans = vec![Span { offset: 0, length: BUCKETS }];
        // The same for all, as making them is most of the work.
        let positive: Vec<u64> = (0..BUCKETS).map(|_| dice.below(1 << 12)).collect();
        let histogram = HistogramValue::Int(IntHistogram {
            count: positive.iter().sum(),
            positive_spans: spans,
            positive,
            ..IntHistogram::default()
        });
        for n in 0..SERIES {
            let labels = Labels::from_pairs([("__name__", "m"), ("n", &n.to_string())]);
            let series = batch.series(&labels).unwrap();
            batch.append_histogram(series, step * 500, &histogram).unwrap();
        }
        batch.commit().unwrap();
        if step % 1_000 == 0 {
            // Moves full chunks to files, and cuts nothing: the hour and a half is not over.
            db.maintain(0).unwrap();
        }
    }
    let stats = db.stats();
    assert_eq!(stats.blocks, 0);
    stats.wal_bytes
}

/// Memory of this process that is no file's.
fn memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Opens the store and says what memory that took. Without a directory it does nothing.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let (done, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = memory_bytes();
    let db = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(memory_bytes(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let db = Db::open(Path::new(&dir), options()).unwrap();
        done.store(true, Ordering::Relaxed);
        db
    });
    println!("\npeak {}", peak.load(Ordering::Relaxed).saturating_sub(before));
    let chunks = db.stats().head_chunks;
    assert!(chunks > u64::from(SERIES) * 40, "{chunks} chunks");
}

#[test]
fn replay_takes_little_more_memory_than_the_head_that_it_rebuilds() {
    let dir = tempfile::tempdir().unwrap();
    let log = fill(dir.path());
    assert!(log > 90 * MIB, "the log has {log} bytes, which is too little for a test");
    for mapped in [true, false] {
        if !mapped {
            // Only the log has the samples now.
            std::fs::remove_dir_all(dir.path().join("chunks_head")).unwrap();
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "replay_memory::child", "--nocapture"])
            .env(DIR, dir.path())
            // What the system's allocator keeps for other threads is not the store's.
            .env("MALLOC_ARENA_MAX", "1")
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let peak = told
            .lines()
            .find_map(|line| line.strip_prefix("peak "))
            .unwrap_or_else(|| unreachable!("{told}"));
        let peak: u64 = peak.parse().unwrap();
        // An open chunk of each series, which takes as much as its samples, twice: the vector grows by doubling.
        let head = u64::from(SERIES) * 240 * u64::from(BUCKETS) * 2 * 2;
        println!("log {log}, peak {peak}, head {head}");
        assert!(peak < head + 64 * MIB, "{peak} bytes, for a head of {head} and a log of {log}");
    }
}
