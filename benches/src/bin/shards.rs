//! Past one machine, measured on one: what routing, sending and asking shards cost, and how long a client waits
//! when a shard dies.
//!
//! ```text
//! cargo build --release --bin pyrometer && cargo run --release -p benches --bin shards -- [SERIES] [STEPS]
//! ```
//! CPU time is that of the measured process, from the kernel. Three shards, one router and one querier run
//! beside each other and this program on loopback.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::load::{Load, Sender};
use benches::{Measured, free_address, get, metric, now_ms, sibling, wait};
use model::Labels;
use remote::send::{Destination, QueueOptions};
use tsdb::{Db, Options};

/// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const PATIENCE: Duration = Duration::from_secs(30);
const STEP_MS: i64 = 15_000;

/// Three shards, a router and a querier.
struct Cell {
    shards: Vec<(String, Measured)>,
    router: (String, Measured),
    querier: (String, Measured),
    _dir: tempfile::TempDir,
}

fn start(address: &str, dir: &Path, flags: &[String]) -> Outcome<Measured> {
    let mut arguments =
        vec![format!("--web.listen-address={address}"), format!("--storage.tsdb.path={}", dir.display())];
    arguments.extend_from_slice(flags);
    let process = Measured::start(&sibling("pyrometer"), &arguments)?;
    wait(Instant::now(), PATIENCE, || get(address, "/-/ready").is_some()).ok_or("a process is not ready")?;
    Ok(process)
}

impl Cell {
    fn start(replication: usize) -> Outcome<Self> {
        let dir = tempfile::tempdir()?;
        let map: PathBuf = dir.path().join("map.json");
        let shard = ["--role=shard".to_owned(), "--kubernetes=off".to_owned()];
        let mut shards = Vec::new();
        let mut create = Command::new(sibling("pyrometer"));
        create.arg("slots").arg("create").arg(&map).arg(format!("--replication={replication}"));
        for at in 0..3 {
            let address = free_address()?;
            create.arg(format!("--shard=s{at}=http://{address}"));
            let process = start(&address, &dir.path().join(format!("s{at}")), &shard)?;
            shards.push((address, process));
        }
        let address = free_address()?;
        create.arg(format!("--router=r=http://{address}"));
        if !create.output()?.status.success() {
            return Err("no slot map".into());
        }
        let map = format!("--cluster.slot-map={}", map.display());
        let flags = ["--role=router".to_owned(), "--router.name=r".to_owned(), map.clone()];
        let router = start(&address, &dir.path().join("r"), &flags)?;
        let router = (address, router);
        let address = free_address()?;
        let flags = ["--role=querier".to_owned(), "--kubernetes=off".to_owned(), map];
        let querier = start(&address, &dir.path().join("q"), &flags)?;
        Ok(Self { shards, router, querier: (address, querier), _dir: dir })
    }
}

/// Posts bodies; how many samples were taken, at `per_body` each, and the longest wait for an answer.
fn post(sender: &mut Sender, bodies: &[Vec<u8>], per_body: usize) -> Outcome<(usize, Duration)> {
    let (mut taken, mut longest) = (0, Duration::ZERO);
    for body in bodies {
        let began = Instant::now();
        let status = sender.post(body)?;
        longest = longest.max(began.elapsed());
        if status == 204 {
            taken += per_body;
        } else {
            return Err(format!("status {status}").into());
        }
    }
    Ok((taken, longest))
}

fn routing(series: usize, steps: i64) -> Outcome<()> {
    let cell = Cell::start(1)?;
    let mut load = Load::new(0, series);
    let mut sender = Sender::connect(&cell.router.0, "/api/v1/write")?;
    let start = now_ms() - steps * STEP_MS;
    let (mut samples, mut bytes) = (0, 0);
    let before = cell.router.1.cpu_seconds();
    let began = Instant::now();
    for step in 0..steps {
        let bodies: Vec<Vec<u8>> = load.requests(start + step * STEP_MS).collect();
        bytes += bodies.iter().map(Vec::len).sum::<usize>();
        samples += post(&mut sender, &bodies, series.min(2_000))?.0;
    }
    let cpu = cell.router.1.cpu_seconds() - before;
    println!("router, {series} series x {steps} steps, 3 shards, one copy, 2,000 series a request:");
    println!(
        "  {:.2} M samples/s per core ({:.3} CPU-s per million, {:.1} s in all, {} bytes a sample in)",
        samples as f64 / cpu / 1e6,
        cpu / samples as f64 * 1e6,
        began.elapsed().as_secs_f64(),
        bytes / samples
    );
    println!("  memory of the router: {:.0} MB at most", cell.router.1.memory_bytes("VmHWM") as f64 / 1e6);
    Ok(())
}

fn pause(how: &str, signal: &str) -> Outcome<()> {
    let cell = Cell::start(2)?;
    let mut load = Load::new(0, 20_000);
    let mut sender = Sender::connect(&cell.router.0, "/api/v1/write")?;
    let (mut before, mut after) = (Duration::ZERO, Duration::ZERO);
    for step in 0..20 {
        if step == 10 {
            cell.shards[0].1.signal(signal)?;
        }
        let bodies: Vec<Vec<u8>> = load.requests(now_ms()).collect();
        let (_, longest) = post(&mut sender, &bodies, 2_000)?;
        let side = if step < 10 { &mut before } else { &mut after };
        *side = longest.max(*side);
    }
    println!(
        "a shard of three is {how}, two copies: the longest answer took {before:.0?} before, {after:.0?} after"
    );
    Ok(())
}

/// 100,000 series as a kubelet has them, of one name.
fn asking(series: usize) -> Outcome<()> {
    let cell = Cell::start(1)?;
    let mut sender = Sender::connect(&cell.router.0, "/api/v1/write")?;
    let labels: Vec<Labels> = (0..series)
        .map(|id| {
            let mut labels = Labels::from_pairs(benches::load::labels(id)).to_builder();
            labels.set("__name__", "x").set("container", &format!("c{}", id % 100));
            labels.build()
        })
        .collect();
    let end = now_ms();
    for step in 0..41 {
        let ts = end - (40 - step) * STEP_MS;
        let bodies: Vec<Vec<u8>> = labels
            .chunks(2_000)
            .map(|chunk| {
                remote::send::request(chunk.iter().map(|labels| (labels.clone(), ts, step as f64 * 3.0)))
            })
            .collect();
        post(&mut sender, &bodies, 2_000)?;
    }
    let querier = &cell.querier;
    let moved = || {
        get(&querier.0, "/metrics")
            .and_then(|page| metric(&page, "pyrometer_querier_bytes_total"))
            .unwrap_or(0.0)
    };
    for (name, text) in [
        ("pushed down", "sum%20by%20(namespace)%20(rate(x[10m]))"),
        ("as series", "quantile%20by%20(namespace)%20(0.5,rate(x[10m]))"),
    ] {
        let (before, cpu) = (moved(), querier.1.cpu_seconds());
        querier.1.reset_peak()?;
        let resident = querier.1.memory_bytes("VmRSS");
        let began = Instant::now();
        let path = format!("/api/v1/query?query={text}&time={}&partial_response=false", end / 1000);
        let answer = get(&querier.0, &path).ok_or("no answer")?;
        let took = began.elapsed();
        println!(
            "{name}, {series} series on 3 shards: {:.3} MB moved, querier {:.0} MB at most ({:.0} before), {:.2} CPU-s, {took:.2?}, {} groups",
            (moved() - before) / 1e6,
            querier.1.memory_bytes("VmHWM") as f64 / 1e6,
            resident as f64 / 1e6,
            querier.1.cpu_seconds() - cpu,
            answer.matches("\"metric\"").count()
        );
    }
    Ok(())
}

/// CPU seconds of all threads so far.
fn own_cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Appends samples, with and without a sender that follows, to a receiver in another process.
fn sending(series: usize, steps: i64) -> Outcome<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new()?;
    let dir = tempfile::tempdir()?;
    let address = free_address()?;
    let flags = ["--web.enable-remote-write-receiver".to_owned(), "--kubernetes=off".to_owned()];
    let _receiver = start(&address, &dir.path().join("receiver"), &flags)?;
    let labels: Vec<Labels> = (0..series).map(|id| Labels::from_pairs(benches::load::labels(id))).collect();
    let mut cpu = [0.0; 2];
    for (run, cpu) in cpu.iter_mut().enumerate() {
        let db = Arc::new(Db::open(&dir.path().join(format!("{run}")), Options::default())?);
        let client = reqwest::Client::builder().no_proxy().build()?;
        let destination = Destination {
            name: "bench".to_owned(),
            url: format!("http://{address}/api/v1/write"),
            protocol: remote::receive::Protocol::V1,
            transport: remote::send::carry_by(client),
            headers: Default::default(),
            timeout: PATIENCE,
            external_labels: Labels::empty(),
            relabel: None,
            exemplars: false,
            histograms: false,
            metadata: None,
            queue: QueueOptions::default(),
            cursor_path: dir.path().join("cursor"),
            now: now_ms,
        };
        let sender = (run == 1)
            .then(|| runtime.block_on(async { remote::send::Sender::start(&db, destination) }))
            .transpose()?;
        let began = own_cpu_seconds();
        let end = now_ms();
        for step in 0..steps {
            let mut appender = db.appender();
            for labels in &labels {
                let reference = appender.series(labels)?;
                appender.append(reference, end - (steps - step) * STEP_MS, step as f64)?;
            }
            appender.commit()?;
        }
        if let Some(sender) = sender {
            let all = series as u64 * steps.unsigned_abs();
            wait(Instant::now(), PATIENCE * 2, || sender.stats().samples >= all).ok_or("not all was sent")?;
        }
        *cpu = own_cpu_seconds() - began;
    }
    let samples = series as f64 * steps as f64;
    println!("sender: {:.3} CPU-s per million samples", (cpu[1] - cpu[0]) / samples * 1e6);
    Ok(())
}

fn main() -> Outcome<()> {
    let mut numbers = std::env::args().skip(1);
    let series: usize = numbers.next().map_or(Ok(50_000), |text| text.parse())?;
    let steps: i64 = numbers.next().map_or(Ok(40), |text| text.parse())?;
    routing(series, steps)?;
    sending(series, steps)?;
    pause("killed", "-KILL")?;
    pause("stopped", "-STOP")?;
    asking(100_000)
}
