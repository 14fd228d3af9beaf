//! What sending by remote write costs: CPU seconds a million samples, of reading the log, encoding, compressing and
//! HTTP together.
//!
//! ```text
//! cargo bench -p remote --bench send -- [SERIES] [STEPS]
//! ```
//! CPU time is that of this process, from the kernel, less that of appending alone. The receiver is another process,
//! this program with `--sink`, which answers and does nothing.

/// The series that other servers are sent in our measurements.
#[path = "../../benches/src/load.rs"]
#[expect(dead_code, unreachable_pub, reason = "its requests are for receivers")]
mod load;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::Labels;
use remote::receive::Protocol;
use remote::send::{Destination, QueueOptions, Sender};
use tsdb::{Db, Options};

/// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const PATIENCE: Duration = Duration::from_secs(90);
const START_MS: i64 = 1_790_000_000_000;
const STEP_MS: i64 = 15_000;

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Takes everything.
fn sink() -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || answer(stream));
    }
    Ok(())
}

fn answer(stream: TcpStream) -> Option<()> {
    let mut out = stream.try_clone().ok()?;
    let mut input = BufReader::new(stream);
    let mut body = Vec::new();
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if input.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(text) = line.strip_prefix("content-length: ") {
                length = text.parse().ok()?;
            }
            if line.is_empty() {
                break;
            }
        }
        body.resize(length, 0);
        input.read_exact(&mut body).ok()?;
        // More than any request has: all of it is taken.
        out.write_all(
            b"HTTP/1.1 204 No Content\r\nx-prometheus-remote-write-samples-written: 1000000\r\n\r\n",
        )
        .ok()?;
    }
}

struct Sink(Child, String);

impl Sink {
    fn start() -> Outcome<Self> {
        let mut child =
            Command::new(std::env::current_exe()?).arg("--sink").stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut address)?;
        Ok(Self(child, address.trim().to_owned()))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

/// CPU seconds of appending, and of sending if that is wanted, and the bytes that were sent.
fn run(all: &[Labels], steps: i64, protocol: Option<Protocol>) -> Outcome<(f64, u64)> {
    let (dir, sink) = (tempfile::tempdir()?, Sink::start()?);
    let db = Arc::new(Db::open(&dir.path().join("data"), Options::default())?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let destination = |protocol| Destination {
        name: "bench".to_owned(),
        url: format!("http://{}/api/v1/write", sink.1),
        protocol,
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
        now: || START_MS,
    };
    let sender = protocol
        .map(|protocol| runtime.block_on(async { Sender::start(&db, destination(protocol)) }))
        .transpose()?;
    let began = cpu_seconds();
    for step in 0..steps {
        let mut appender = db.appender();
        for labels in all {
            let reference = appender.series(labels)?;
            appender.append(reference, START_MS + step * STEP_MS, step as f64)?;
        }
        appender.commit()?;
    }
    let mut bytes = 0;
    if let Some(sender) = sender {
        let wanted = all.len() as u64 * steps.unsigned_abs();
        let deadline = Instant::now() + PATIENCE;
        while sender.stats().samples < wanted {
            if Instant::now() > deadline {
                return Err(format!("not all was sent: {:?}", sender.stats()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bytes = sender.stats().bytes;
    }
    Ok((cpu_seconds() - began, bytes))
}

fn main() -> Outcome<()> {
    if std::env::args().nth(1).as_deref() == Some("--sink") {
        return sink();
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut numbers = std::env::args().skip(1).filter(|text| text != "--bench");
    let series: usize = numbers.next().map_or(Ok(50_000), |text| text.parse())?;
    let steps: i64 = numbers.next().map_or(Ok(40), |text| text.parse())?;
    let all: Vec<Labels> = (0..series).map(|id| Labels::from_pairs(load::labels(id))).collect();
    let millions = series as f64 * steps as f64 / 1e6;
    let (alone, _) = run(&all, steps, None)?;
    println!("appending alone: {:.3} CPU-s per million samples", alone / millions);
    for (name, protocol) in [("1.0", Protocol::V1), ("2.0", Protocol::V2)] {
        let (cpu, bytes) = run(&all, steps, Some(protocol))?;
        println!(
            "sending by {name}: {:.3} CPU-s per million samples, {:.1} bytes a sample",
            (cpu - alone) / millions,
            bytes as f64 / millions / 1e6
        );
    }
    Ok(())
}
