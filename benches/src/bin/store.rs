//! What the store costs, without a server around it: CPU nanoseconds an operation and bytes a series.
//!
//! ```text
//! cargo run --release -p benches --bin store -- [PART ...] [SERIES=n] [STEPS=n] [BATCH=n]
//! ```
//! `PART` is `xor`, `create`, `append`, `log`, `churn`, `select` or `replay`; all of them without a word. CPU time is that of all
//! threads of the process, from the kernel. Each part runs in a process of its own, so that the memory
//! of one does not hide that of another.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use benches::cpu_seconds;
use benches::load;
use model::{Labels, MatchOp, Matcher, Querier as _, Samples, Selection, TimeRange};
use tsdb::{Db, LogOnly, Options, SeriesRef};

/// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STEP_MS: i64 = 15_000;
const START_MS: i64 = 1_790_000_000_000 / 7_200_000 * 7_200_000;
const PARTS: [&str; 7] = ["xor", "create", "append", "log", "churn", "select", "replay"];

type Failure = Box<dyn std::error::Error>;

/// Anonymous memory of this process, in bytes.
fn anonymous_bytes() -> f64 {
    status_bytes("RssAnon:")
}

fn status_bytes(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
}

fn say(what: &str, value: f64, unit: &str) {
    println!("{what:<58} {value:>10.2} {unit}");
}

/// What the command line sets.
struct Size {
    series: usize,
    steps: i64,
    batch: usize,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (settings, parts): (Vec<&String>, Vec<&String>) =
        arguments.iter().partition(|text| text.contains('='));
    let settings: BTreeMap<&str, &str> = settings.iter().filter_map(|text| text.split_once('=')).collect();
    let number = |name: &str, default: usize| settings.get(name).map_or(Ok(default), |text| text.parse());
    let size = Size {
        series: number("SERIES", 200_000)?,
        steps: i64::try_from(number("STEPS", 240)?)?,
        batch: number("BATCH", 2_000)?,
    };
    match (parts.as_slice(), settings.get("DIR")) {
        ([part], dir) if dir.is_some() || part.as_str() != "replay" => {
            measure(part, &size, Path::new(dir.copied().unwrap_or_default()))
        }
        _ => each_in_a_process(&parts, &arguments),
    }
}

fn each_in_a_process(parts: &[&String], arguments: &[String]) -> Result<(), Failure> {
    let chosen = PARTS.iter().filter(|part| parts.is_empty() || parts.iter().any(|text| text == *part));
    for part in chosen {
        let settings = arguments.iter().filter(|text| text.contains('='));
        let dir = tempfile::tempdir()?;
        let run = |part: &str| {
            let dir = format!("DIR={}", dir.path().display());
            Command::new(std::env::current_exe()?).arg(part).args(settings.clone()).arg(dir).status()
        };
        if *part == "replay" {
            run("fill")?;
        }
        run(part)?;
    }
    Ok(())
}

fn measure(part: &str, size: &Size, dir: &Path) -> Result<(), Failure> {
    let own = tempfile::tempdir()?;
    let dir = if dir.as_os_str().is_empty() { own.path() } else { dir };
    match part {
        "xor" => xor(),
        "create" => create(size, dir)?,
        "append" => append(size, dir)?,
        "log" => log(size, dir)?,
        "churn" => churn(size, dir)?,
        "select" => select(size, dir)?,
        "fill" => {
            let db = open(dir)?;
            fill(&db, size, &mut Costs::default())?;
            std::process::exit(0); // without a word to the store, as after `kill -9`
        }
        "replay" => replay(size, dir)?,
        other => return Err(format!("{other:?} is none of {PARTS:?}").into()),
    }
    Ok(())
}

fn open(dir: &Path) -> Result<Db, Failure> {
    Ok(Db::open(dir, Options { retention_ms: None, ..Options::default() })?)
}

/// The value of series `id` at `step`: a third counts slowly, a third counts fast, a third moves around.
fn value(id: usize, step: i64) -> f64 {
    let mut noise = (id as u64) << 20 ^ step.cast_unsigned();
    noise = (noise ^ noise >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    noise = (noise ^ noise >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    let noise = (noise >> 40) as f64 / f64::from(1 << 24);
    match id % 3 {
        0 => (step as f64 + noise).floor(),
        1 => (step as f64 * 1000.0 + noise * 900.0).floor(),
        _ => (noise * 100_000.0).round() / 1000.0,
    }
}

fn xor() {
    const ROUNDS: u32 = 4_000;
    for (kind, name) in ["slow counter", "fast counter", "gauge of three decimals"].iter().enumerate() {
        let chunks: Vec<Vec<(i64, f64)>> = (0..8)
            .map(|chunk| {
                (0..120).map(|n| (START_MS + n * STEP_MS + n % 3, value(kind + 3 * chunk, n))).collect()
            })
            .collect();
        let mut best = [f64::MAX; 3];
        for _ in 0..7 {
            let (mut out, start) = (Vec::with_capacity(2048), cpu_seconds());
            for round in 0..ROUNDS {
                out.clear();
                tsdb::probes::xor_encode(&chunks[round as usize % 8], &mut out);
                std::hint::black_box(&out);
            }
            best[0] = best[0].min(cpu_seconds() - start);
            let encoded: Vec<Vec<u8>> = chunks
                .iter()
                .map(|samples| {
                    let mut out = Vec::new();
                    tsdb::probes::xor_encode(samples, &mut out);
                    out
                })
                .collect();
            for (best, from) in best[1..].iter_mut().zip([i64::MIN, START_MS + 100 * STEP_MS]) {
                let (mut into, start) = (Samples::default(), cpu_seconds());
                for round in 0..ROUNDS {
                    into.clear();
                    tsdb::probes::xor_decode(&encoded[round as usize % 8], from, &mut into);
                    std::hint::black_box(&into);
                }
                *best = best.min(cpu_seconds() - start);
            }
        }
        let [encode, decode, end] = best.map(|seconds| seconds * 1e9 / f64::from(ROUNDS) / 120.0);
        say(&format!("XOR encode, {name}"), encode, "ns/sample");
        say(&format!("XOR decode, {name}"), decode, "ns/sample");
        say(&format!("XOR decode of the last 20 of 120, {name}"), end * 120.0, "ns");
    }
}

/// CPU seconds of each kind of work.
#[derive(Default)]
struct Costs {
    create: f64,
    append: f64,
    commit: f64,
    maintain: f64,
    peak_bytes: f64,
}

fn label_sets(range: std::ops::Range<usize>) -> Vec<Labels> {
    range.map(|id| Labels::from_pairs(load::labels(id))).collect()
}

/// Creates series with a first sample each.
fn make(
    db: &Db,
    ids: std::ops::Range<usize>,
    step: i64,
    costs: &mut Costs,
) -> Result<Vec<SeriesRef>, Failure> {
    let mut references = Vec::with_capacity(ids.len());
    for first in ids.clone().step_by(2_000) {
        let sets = label_sets(first..ids.end.min(first + 2_000));
        let start = cpu_seconds();
        let mut batch = db.appender();
        for (n, labels) in sets.iter().enumerate() {
            let series = batch.series(labels)?;
            batch.append(series, START_MS + step * STEP_MS, value(first + n, step))?;
            references.push(series);
        }
        batch.commit()?;
        costs.create += cpu_seconds() - start;
    }
    Ok(references)
}

fn step_all(
    db: &Db,
    series: &[(usize, SeriesRef)],
    step: i64,
    batch_len: usize,
    costs: &mut Costs,
) -> Result<(), Failure> {
    for part in series.chunks(batch_len) {
        let values: Vec<f64> = part.iter().map(|&(id, _)| value(id, step)).collect();
        let start = cpu_seconds();
        let mut batch = db.appender();
        for (&(_, series), &value) in part.iter().zip(&values) {
            batch.append(series, START_MS + step * STEP_MS, value)?;
        }
        let appended = cpu_seconds();
        batch.commit()?;
        costs.append += appended - start;
        costs.commit += cpu_seconds() - appended;
    }
    // The server does this every few seconds.
    let start = cpu_seconds();
    db.maintain(0)?;
    costs.maintain += cpu_seconds() - start;
    costs.peak_bytes = costs.peak_bytes.max(anonymous_bytes());
    Ok(())
}

fn fill(db: &Db, size: &Size, costs: &mut Costs) -> Result<Vec<(usize, SeriesRef)>, Failure> {
    let series: Vec<_> = make(db, 0..size.series, 0, costs)?.into_iter().enumerate().collect();
    for step in 1..size.steps {
        step_all(db, &series, step, size.batch, costs)?;
    }
    Ok(series)
}

fn create(size: &Size, dir: &Path) -> Result<(), Failure> {
    let db = open(dir)?;
    let (before, mut costs) = (anonymous_bytes(), Costs::default());
    let series = make(&db, 0..size.series, 0, &mut costs)?;
    let count = size.series as f64;
    say("create a series, with its record and first sample", costs.create / count * 1e6, "us");
    let bytes = anonymous_bytes() - before - 8.0 * series.len() as f64;
    say("memory of a new series", bytes / count, "B/series");
    Ok(())
}

fn append(size: &Size, dir: &Path) -> Result<(), Failure> {
    let db = open(dir)?;
    let (before, mut costs) = (anonymous_bytes(), Costs::default());
    let series = fill(&db, size, &mut costs)?;
    let own = 16.0 * series.len() as f64;
    let (count, samples) = (size.series as f64, size.series as f64 * (size.steps - 1) as f64);
    println!("{} series x {} steps in batches of {}", size.series, size.steps, size.batch);
    say("append", costs.append / samples * 1e9, "ns/sample");
    say("commit", costs.commit / samples * 1e9, "ns/sample");
    say("maintain", costs.maintain / samples * 1e9, "ns/sample");
    say("together", (costs.append + costs.commit + costs.maintain) / samples * 1e9, "ns/sample");
    say("log", db.stats().wal_bytes as f64 / samples, "B/sample");
    say("memory, filled", (anonymous_bytes() - before - own) / count, "B/series");
    say("memory, peak", (costs.peak_bytes - before - own) / count, "B/series");
    Ok(())
}

/// A log without a head, as an agent has it.
fn log(size: &Size, dir: &Path) -> Result<(), Failure> {
    let db = Db::open(dir, Options { log_only: Some(LogOnly::default()), ..Options::default() })?;
    let (before, mut costs) = (anonymous_bytes(), Costs::default());
    let size = &Size { steps: size.steps.min(20), ..*size };
    let series = fill(&db, size, &mut costs)?;
    let (count, own) = (size.series as f64, 16.0 * series.len() as f64);
    say("log only: create a series", costs.create / count * 1e6, "us");
    let samples = count * (size.steps - 1) as f64;
    say("log only: append and commit", (costs.append + costs.commit) / samples * 1e9, "ns/sample");
    say("log only: memory", (anonymous_bytes() - before - own) / count, "B/series");
    Ok(())
}

/// A tenth of the series is replaced, three times, twelve steps apart.
fn churn(size: &Size, dir: &Path) -> Result<(), Failure> {
    let db = open(dir)?;
    let (before, mut costs) = (anonymous_bytes(), Costs::default());
    let mut series = fill(&db, &Size { steps: 60, ..*size }, &mut costs)?;
    let (tenth, mut next, mut step) = (size.series / 10, size.series, 60);
    for _ in 0..3 {
        let gone: Vec<SeriesRef> = series.drain(..tenth).map(|(_, series)| series).collect();
        db.seal(&gone);
        series.extend((next..).zip(make(&db, next..next + tenth, step, &mut costs)?));
        next += tenth;
        for _ in 0..12 {
            step += 1;
            step_all(&db, &series, step, size.batch, &mut costs)?;
        }
    }
    let bytes = anonymous_bytes() - before - 16.0 * series.len() as f64;
    say("memory after 3 x 10 % churn, an active series", bytes / size.series as f64, "B/series");
    Ok(())
}

fn select(size: &Size, dir: &Path) -> Result<(), Failure> {
    let db = open(dir)?;
    make(&db, 0..size.series.max(1_000_000), 0, &mut Costs::default())?;
    let snapshot = db.snapshot();
    for (name, equal, regex) in [
        ("one metric, a tenth of its pods", ("__name__", "container_metric_7_total"), ("pod", "app-1.*")),
        ("one metric, all its nodes", ("__name__", "container_metric_7_total"), ("node", "node-.*")),
        ("one application, a tenth of its metrics", ("app", "app-7"), ("__name__", "container_metric_1.*")),
    ] {
        let matchers = [Matcher::equal(equal.0, equal.1), Matcher::new(regex.0, MatchOp::Regex, regex.1)?];
        let (mut best, mut found) = ([f64::MAX; 2], 0);
        for _ in 0..5 {
            let start = cpu_seconds();
            found = snapshot.select(&Selection::new(&matchers, TimeRange::ALL))?.len();
            best[0] = best[0].min(cpu_seconds() - start);
            let start = cpu_seconds();
            std::hint::black_box(tsdb::probes::postings(&db, &matchers));
            best[1] = best[1].min(cpu_seconds() - start);
        }
        say(&format!("postings: {name}"), best[1] * 1e3, "ms");
        say(&format!("select: {name} ({found} series)"), best[0] * 1e3, "ms");
    }
    for (label, name, value) in [
        ("pod", "__name__", "container_metric_7_total"),
        ("__name__", "node", "node-7"),
        ("pod", "node", "node-7"),
        ("node", "__name__", "container_metric_7_total"),
        ("container", "app", "app-7"),
    ] {
        let (matchers, mut best, mut found) = ([Matcher::equal(name, value)], f64::MAX, 0);
        for _ in 0..5 {
            let start = cpu_seconds();
            found = snapshot.label_values(label, &matchers, TimeRange::ALL, 0)?.len();
            best = best.min(cpu_seconds() - start);
        }
        say(&format!("values: {label} where {name}=\"{value}\" ({found})"), best * 1e3, "ms");
    }
    Ok(())
}

fn replay(size: &Size, dir: &Path) -> Result<(), Failure> {
    let (before, start, cpu) = (anonymous_bytes(), Instant::now(), cpu_seconds());
    let options = Options { retention_ms: None, ..Options::default() };
    let db = Db::open_at_once(dir, options, &mut |_| {})?;
    make(&db, 0..1_000, size.steps, &mut Costs::default())?;
    say("open after kill -9: until samples are taken, wall", start.elapsed().as_secs_f64() * 1e3, "ms");
    db.attach_history(&mut |_| {})?;
    say("open after kill -9: until history is there, wall", start.elapsed().as_secs_f64() * 1e3, "ms");
    say("open after kill -9: until history is there, CPU", (cpu_seconds() - cpu) * 1e3, "ms");
    say("memory after it", (anonymous_bytes() - before) / size.series as f64, "B/series");
    say("memory peak", (status_bytes("VmHWM:") - before) / size.series as f64, "B/series, files included");
    let matchers = [Matcher::equal("__name__", "container_metric_7_total")];
    let (snapshot, mut samples, mut count) = (db.snapshot(), Samples::default(), 0);
    let found = snapshot.select(&Selection::new(&matchers, TimeRange::ALL))?;
    for index in 0..found.len() {
        found.samples(index, TimeRange::ALL, &mut samples)?;
        count += samples.len();
    }
    say("samples of one metric in a hundred", count as f64, "");
    Ok(())
}
