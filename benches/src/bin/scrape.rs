//! Scraping beside rivals, and its parts alone.
//!
//! ```text
//! cargo build --release
//! cargo run --release -p benches --bin scrape -- [MODE] [RIVAL=PROGRAM ...]
//! ```
//! `MODE` is `plain` or `gzip` (60 targets of 1,530 series every second, in each server after the other),
//! `idle` (memory of a target without series), `schedule` (5,000 targets every 15 s: when each is asked) or
//! `parse` (pages against the scrape cache, per core). `RIVAL` is `prometheus` or `victoria-metrics` with the
//! path of its program. Everything is on loopback and stops by itself.

use std::path::Path;
use std::time::{Duration, Instant};

use benches::fakes::{Fakes, Pages, page};
use benches::rivals::{Rival, rivals};
use benches::{Measured, free_address, get, wait};
use scraper::cache::{Cache, NameHasher, Slot};
use scraper::exposition::{Event, Format, ParseOptions, Parser};

const TARGETS: usize = 60;
const SERIES: usize = 1_530;
const WARM_UP: Duration = Duration::from_secs(8);
const MEASURED: Duration = Duration::from_secs(24);
const IDLE_MEASURED: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (programs, modes): (Vec<String>, Vec<String>) =
        arguments.into_iter().partition(|text| text.contains('='));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    match modes.first().map_or("plain", String::as_str) {
        "plain" => servers(&runtime, &rivals(&programs), false),
        "gzip" => servers(&runtime, &rivals(&programs), true),
        "idle" => idle(&runtime, &rivals(&[])[0]),
        "schedule" => schedule(&runtime, &rivals(&[])[0]),
        "parse" => parse(),
        other => Err(format!("{other:?} is no mode").into()),
    }
}

/// Arguments for a server that runs on a configuration file.
fn arguments(rival: &Rival, address: &str, data: &Path, config: &str) -> std::io::Result<Vec<String>> {
    let mut arguments = (rival.arguments)(address, data);
    let path = data.with_extension("yml");
    std::fs::write(&path, config)?;
    arguments.retain(|argument| !argument.starts_with("--config.file"));
    let flag = if rival.name == "victoria-metrics" { "-promscrape.config" } else { "--config.file" };
    arguments.push(format!("{flag}={}", path.display()));
    Ok(arguments)
}

/// Runs a server on a configuration for a while.
struct Run {
    server: Measured,
    _dir: tempfile::TempDir,
}

impl Run {
    fn start(rival: &Rival, config: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let address = free_address()?;
        let server =
            Measured::start(&rival.program, &arguments(rival, &address, &dir.path().join("data"), config)?)?;
        wait(Instant::now(), PATIENCE, || get(&address, rival.ready_path).is_some()).ok_or("not ready")?;
        Ok(Self { server, _dir: dir })
    }
}

fn servers(runtime: &tokio::runtime::Runtime, rivals: &[Rival], gzip: bool) -> Outcome {
    println!(
        "{TARGETS} targets x {SERIES} series every 1 s, 302 B a sample, {}, {} s after {} s",
        if gzip { "gzip" } else { "plain" },
        MEASURED.as_secs(),
        WARM_UP.as_secs()
    );
    println!(
        "{:<17} {:>13} {:>11} {:>9} {:>13} {:>13}",
        "server", "CPU-s/M smpl", "idle CPU-s", "missed", "RSS B/series", "anon B/series"
    );
    for rival in rivals {
        let empty = Run::start(rival, "scrape_configs: []\n")?;
        std::thread::sleep(Duration::from_secs(4));
        let (rss, anon) = (empty.server.memory_bytes("VmRSS"), empty.server.memory_bytes("RssAnon"));
        // What a server does without targets, such as looking at its own machine.
        let idle = empty.server.cpu_seconds();
        std::thread::sleep(IDLE_MEASURED);
        let idle = (empty.server.cpu_seconds() - idle) / IDLE_MEASURED.as_secs_f64() * MEASURED.as_secs_f64();
        drop(empty);
        let fakes = runtime.block_on(Fakes::start(TARGETS, Pages { series: SERIES, gzip }))?;
        let run = Run::start(rival, &fakes.config(TARGETS, "1s"))?;
        std::thread::sleep(WARM_UP);
        let scrapes = || fakes.arrivals().values().map(Vec::len).sum::<usize>();
        let (cpu, before) = (run.server.cpu_seconds(), scrapes());
        std::thread::sleep(MEASURED);
        let (cpu, done) = (run.server.cpu_seconds() - cpu - idle, scrapes() - before);
        let expected = TARGETS * usize::try_from(MEASURED.as_secs())?;
        let series = (TARGETS * SERIES) as f64;
        let above = |line: &str, empty: u64| (run.server.memory_bytes(line) as f64 - empty as f64) / series;
        println!(
            "{:<17} {:>13.3} {:>11.2} {:>9} {:>13.0} {:>13.0}",
            rival.name,
            cpu / ((done * SERIES) as f64 / 1e6),
            idle,
            expected.saturating_sub(done),
            above("VmRSS", rss),
            above("RssAnon", anon)
        );
    }
    Ok(())
}

/// Memory of targets that show nothing, less that of their five own series, which is measured as series of a page.
fn idle(runtime: &tokio::runtime::Runtime, rival: &Rival) -> Outcome {
    const IDLE: usize = 2_000;
    let anonymous = |config: &str, seconds| -> Result<f64, Box<dyn std::error::Error>> {
        let run = Run::start(rival, config)?;
        std::thread::sleep(Duration::from_secs(seconds));
        Ok(run.server.memory_bytes("VmRSS") as f64)
    };
    let empty = anonymous("scrape_configs: []\n", 6)?;
    let fakes = runtime.block_on(Fakes::start(IDLE, Pages { series: 0, gzip: false }))?;
    let targets = anonymous(&fakes.config(IDLE, "10s"), 16)?;
    let one = runtime.block_on(Fakes::start(1, Pages { series: 5 * IDLE, gzip: false }))?;
    let series = anonymous(&one.config(1, "10s"), 16)?;
    println!(
        "{IDLE} idle targets: {:.0} B RSS each, of which their series are {:.0} B",
        (targets - empty) / IDLE as f64,
        (series - empty) / IDLE as f64
    );
    Ok(())
}

/// How far from its usual moment each scrape begins.
fn schedule(runtime: &tokio::runtime::Runtime, rival: &Rival) -> Outcome {
    const MANY: usize = 5_000;
    const INTERVAL_MS: i64 = 15_000;
    const ROUNDS: usize = 4;
    let fakes = runtime.block_on(Fakes::start(MANY, Pages { series: 0, gzip: false }))?;
    let run = Run::start(rival, &fakes.config(MANY, "15s"))?;
    // Targets are scraped once out of step, soon after the start.
    std::thread::sleep(Duration::from_secs(20));
    let from = benches::now_ms();
    std::thread::sleep(Duration::from_secs(15 * ROUNDS as u64));
    drop(run);
    let (mut deviations, mut missed) = (Vec::new(), 0);
    for times in fakes.arrivals().values() {
        let times: Vec<i64> = times.iter().copied().filter(|at| *at >= from).collect();
        missed += ROUNDS.saturating_sub(times.len() + 1);
        let mut moments: Vec<i64> = times.iter().map(|at| at.rem_euclid(INTERVAL_MS)).collect();
        moments.sort_unstable();
        let Some(usual) = moments.get(moments.len() / 2).copied() else { continue };
        deviations.extend(moments.iter().map(|at| (at - usual).abs().min(INTERVAL_MS - (at - usual).abs())));
    }
    deviations.sort_unstable();
    let part = |per_mille: usize| {
        let at = deviations.len().saturating_sub(1) * per_mille / 1_000;
        deviations.get(at).copied().unwrap_or(0)
    };
    println!(
        "{MANY} targets every 15 s, {} scrapes: {missed} missed; off schedule by {} ms (50 %), {} ms (99 %), {} ms (99.9 %), {} ms (all)",
        deviations.len(),
        part(500),
        part(990),
        part(999),
        part(1_000)
    );
    Ok(())
}

/// Reads a page against the cache as a scrape does; the number of samples.
fn read(
    body: &[u8],
    format: Format,
    cache: &mut Cache,
    hasher: &NameHasher,
) -> Result<usize, Box<dyn std::error::Error>> {
    let mut reading = cache.read(hasher);
    let mut slots: Vec<Slot> = Vec::with_capacity(SERIES);
    let mut parser = Parser::new(body, format, ParseOptions::default());
    let mut sum = 0.0;
    while let Some(event) = parser.next(&mut |rest| reading.predict(rest))? {
        if let Event::Sample(sample) = event {
            slots.push(reading.place(sample.series));
            sum += sample.value;
        }
    }
    std::hint::black_box(sum);
    let changes = reading.finish();
    let points = slots.iter().map(|slot| (*slot, false));
    cache.advance(&changes, points, |n| Ok(Some(tsdb::SeriesRef(u64::from(n) + 1))));
    Ok(slots.len())
}

fn parse() -> Outcome {
    const ROUNDS: usize = 400;
    let text = page(7, SERIES, 1);
    let hasher = NameHasher::new();
    for (name, format, body) in
        [("text", Format::Text004, text.clone().into_bytes()), ("protobuf", Format::Protobuf, protobuf(7))]
    {
        let mut cache = Cache::default();
        let samples = read(&body, format, &mut cache, &hasher)?;
        let mut best = f64::INFINITY;
        for _ in 0..10 {
            let began = Instant::now();
            for _ in 0..ROUNDS / 10 {
                read(&body, format, &mut cache, &hasher)?;
            }
            best = best.min(began.elapsed().as_secs_f64() / (ROUNDS / 10) as f64);
        }
        println!(
            "{name}: {samples} samples in {} B, parsed and found in the cache at {:.0} MB/s, {:.1} ns a sample",
            body.len(),
            body.len() as f64 / best / 1e6,
            best / samples as f64 * 1e9
        );
    }
    println!("scrape cache: {} B a series", scraper::cache::ENTRY_BYTES);
    Ok(())
}

fn push_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn push_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    push_varint(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// The same page as delimited `MetricFamily` messages.
fn protobuf(target: usize) -> Vec<u8> {
    let text = page(target, SERIES, 1);
    let mut families: std::collections::BTreeMap<&str, Vec<u8>> = std::collections::BTreeMap::new();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let Some((labels, value)) = rest.split_once("} ") else { continue };
        let mut metric = Vec::new();
        for (label, value) in labels.split("\",").filter_map(|pair| pair.split_once("=\"")) {
            let mut pair = Vec::new();
            push_bytes(&mut pair, 1, label.as_bytes());
            push_bytes(&mut pair, 2, value.trim_end_matches('"').as_bytes());
            push_bytes(&mut metric, 1, &pair);
        }
        let mut counter = vec![1 << 3 | 1];
        counter.extend_from_slice(&value.parse::<f64>().unwrap_or(0.0).to_le_bytes());
        push_bytes(&mut metric, 3, &counter);
        push_bytes(families.entry(name).or_default(), 4, &metric);
    }
    let mut out = Vec::new();
    for (name, metrics) in families {
        let mut family = Vec::new();
        push_bytes(&mut family, 1, name.as_bytes());
        push_bytes(&mut family, 2, b"Requests by duration.");
        family.extend([3 << 3, 0]);
        family.extend(metrics);
        push_varint(&mut out, family.len());
        out.extend(family);
    }
    out
}
