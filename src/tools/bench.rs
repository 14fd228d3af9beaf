//! `tsdb bench write`: how fast samples are written, as promtool measures it.
//!
//! Each series gets a sample every 30 s; batches of a thousand series are written side by side, a hundred rounds at
//! a time. Nothing is cut into blocks meanwhile.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use model::Labels;
use tsdb::{Db, Options};

const INTERVAL_MS: i64 = 30_000;
const ROUNDS: u32 = 100;
const BATCH: usize = 1_000;

pub(super) fn write(out: &Path, file: Option<&Path>, metrics: usize, scrapes: u32) -> anyhow::Result<()> {
    if out.exists() {
        std::fs::remove_dir_all(out).with_context(|| out.display().to_string())?;
    }
    let db = Db::open(&out.join("storage"), Options::default())?;
    let series = stage("readData", || match file {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            read(&text, metrics).with_context(|| path.display().to_string())
        }
        None => Ok(made_up(metrics)),
    })?;
    let began = Instant::now();
    let total = stage("ingestScrapes", || {
        let mut total = 0;
        for first in (0..scrapes).step_by(ROUNDS.try_into()?) {
            total += ingest(&db, &series, first)?;
        }
        say!("ingestion completed");
        Ok(total)
    })?;
    say!(" > total samples: {total}");
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = total as f64 / began.elapsed().as_secs_f64();
    say!(" > samples/sec: {rate:.0}");
    stage("stopStorage", || Ok(db.close()?))
}

fn stage<T>(name: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    say!(">> start stage={name}");
    let began = Instant::now();
    let outcome = work()?;
    say!(">> completed stage={name} duration={:?}", began.elapsed());
    Ok(outcome)
}

/// Series of a file with a JSON object a line, each once.
fn read(text: &str, metrics: usize) -> anyhow::Result<Vec<Labels>> {
    let (mut seen, mut series) = (HashSet::new(), Vec::new());
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        if series.len() == metrics {
            break;
        }
        let labels: std::collections::BTreeMap<String, String> =
            serde_json::from_str(line).with_context(|| format!("line {}", at + 1))?;
        let labels = Labels::from_pairs(&labels);
        if seen.insert(labels.clone()) {
            series.push(labels);
        }
    }
    Ok(series)
}

fn made_up(metrics: usize) -> Vec<Labels> {
    let one = |number: usize| {
        Labels::from_pairs([
            ("__name__", format!("metric_{}", number / 100)),
            ("instance", format!("10.0.0.{}:9100", number % 100)),
            ("job", "bench".to_owned()),
        ])
    };
    (0..metrics).map(one).collect()
}

/// A hundred samples of each series from round `first` on; how many were written.
fn ingest(db: &Db, series: &[Labels], first: u32) -> anyhow::Result<u64> {
    let batches: Vec<&[Labels]> = series.chunks(BATCH).collect();
    let (next, total) = (AtomicUsize::new(0), AtomicU64::new(0));
    let work = || -> anyhow::Result<()> {
        while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
            total.fetch_add(ingest_batch(db, batch, first)?, Ordering::Relaxed);
        }
        Ok(())
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        running.into_iter().try_for_each(|worker| match worker.join() {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow::anyhow!("a thread that writes ended early")),
        })
    })?;
    Ok(total.into_inner())
}

fn ingest_batch(db: &Db, batch: &[Labels], first: u32) -> anyhow::Result<u64> {
    let (mut references, mut written) = (Vec::with_capacity(batch.len()), 0);
    for round in 1..=ROUNDS {
        let ts = i64::from(first + round) * INTERVAL_MS;
        let mut appender = db.appender();
        if references.is_empty() {
            for labels in batch {
                references.push(appender.series(labels)?);
            }
        }
        for reference in &references {
            appender.append(*reference, ts, 123_456_789.0 + 1_000.0 * f64::from(round))?;
            written += 1;
        }
        appender.commit()?;
    }
    Ok(written)
}
