//! Remote-write ingest beside rivals: CPU a million samples, memory, bytes on disk, restart.
//!
//! ```text
//! cargo build --release
//! cargo run --release -p benches --bin ingest -- [SERIES] [STEPS] [RIVAL=PROGRAM ...]
//! ```
//! `RIVAL` is `prometheus` or `victoria-metrics` with the path of its program. Everything runs one after
//! the other on loopback, in temporary directories, and stops by itself.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use benches::load::{Load, SERIES_PER_REQUEST, Sender};
use benches::{Measured, free_address, get, sibling, wait};

const SENDERS: usize = 2;
const STEP_MS: i64 = 15_000;
const PATIENCE: Duration = Duration::from_secs(300);
/// A server that has not shown all it acknowledged by then has lost some of it.
const HISTORY_PATIENCE: Duration = Duration::from_secs(20);

/// A server that takes remote write.
struct Rival {
    name: &'static str,
    program: PathBuf,
    write_path: &'static str,
    ready_path: &'static str,
    arguments: fn(&str, &Path) -> Vec<String>,
}

fn rivals(extra: &[String]) -> Vec<Rival> {
    let mut rivals = vec![Rival {
        name: "pyrometer",
        program: sibling("pyrometer"),
        write_path: "/api/v1/write",
        ready_path: "/-/ready",
        arguments: |address, dir| {
            let own = ["--web.enable-remote-write-receiver".to_owned(), "--kubernetes=off".to_owned()];
            [format!("--web.listen-address={address}"), format!("--storage.tsdb.path={}", dir.display())]
                .into_iter()
                .chain(own)
                .collect()
        },
    }];
    for text in extra {
        match text.split_once('=') {
            Some(("prometheus", program)) => rivals.push(Rival {
                name: "prometheus",
                program: program.into(),
                write_path: "/api/v1/write",
                ready_path: "/-/ready",
                arguments: |address, dir| {
                    let config = dir.with_extension("yml");
                    let _ = std::fs::write(&config, "scrape_configs: []\n");
                    vec![
                        format!("--web.listen-address={address}"),
                        format!("--storage.tsdb.path={}", dir.display()),
                        format!("--config.file={}", config.display()),
                        "--web.enable-remote-write-receiver".to_owned(),
                    ]
                },
            }),
            Some(("victoria-metrics", program)) => rivals.push(Rival {
                name: "victoria-metrics",
                program: program.into(),
                write_path: "/api/v1/write",
                ready_path: "/health",
                arguments: |address, dir| {
                    vec![
                        format!("-httpListenAddr={address}"),
                        format!("-storageDataPath={}", dir.display()),
                        // Show what has been acknowledged, without the usual half minute's delay.
                        "-search.latencyOffset=0s".to_owned(),
                    ]
                },
            }),
            _ => eprintln!("{text:?} is not RIVAL=PROGRAM"),
        }
    }
    rivals
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (programs, numbers): (Vec<String>, Vec<String>) =
        arguments.into_iter().partition(|text| text.contains('='));
    let series: usize = numbers.first().map_or(Ok(200_000), |text| text.parse())?;
    let steps: i64 = numbers.get(1).map_or(Ok(60), |text| text.parse())?;
    println!(
        "{series} series x {steps} steps of 15 s, 12 labels, {SERIES_PER_REQUEST} samples a request, {SENDERS} senders"
    );
    println!(
        "{:<17} {:>14} {:>12} {:>12} {:>13} {:>12} {:>12} {:>14}",
        "server",
        "CPU-s/M smpl",
        "RSS MiB",
        "RSS B/series",
        "written B/smpl",
        "disk B/smpl",
        "ready ms",
        "history ms (CPU)"
    );
    for rival in rivals(&programs) {
        measure(&rival, series, steps)?;
    }
    Ok(())
}

fn measure(rival: &Rival, series: usize, steps: i64) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let address = free_address()?;
    let arguments = (rival.arguments)(&address, &data);
    let server = Measured::start(&rival.program, &arguments)?;
    wait(Instant::now(), PATIENCE, || get(&address, rival.ready_path).is_some()).ok_or("not ready")?;
    let (idle_cpu, idle_rss) = (server.cpu_seconds(), server.memory_bytes("VmRSS"));

    let end = now_ms() / STEP_MS * STEP_MS;
    let start = end - (steps - 1) * STEP_MS;
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (address, share) = (&address, series / SENDERS);
            scope.spawn(move || send(rival, address, Load::new(sender * share, share), start, steps));
        }
    });
    let samples = (series / SENDERS * SENDERS) as f64 * steps as f64;
    let cpu = server.cpu_seconds() - idle_cpu;
    let rss = server.memory_bytes("VmRSS");
    let written = server.written_bytes();
    let disk = disk_bytes(&data);
    server.kill()?;

    let restarted = Instant::now();
    let server = Measured::start(&rival.program, &arguments)?;
    let ready = wait(restarted, PATIENCE, || get(&address, rival.ready_path).is_some());
    let query = format!(
        "/api/v1/query?query=count(last_over_time(container_metric_7_total%5B1h%5D))&time={}",
        end / 1000
    );
    let expected = format!("\"{}\"", series / 100);
    let history = wait(restarted, HISTORY_PATIENCE, || {
        get(&address, &query).is_some_and(|body| body.contains(&expected))
    });
    let ms = |duration: Option<Duration>| duration.map_or("never".to_owned(), |d| d.as_millis().to_string());
    println!(
        "{:<17} {:>14.3} {:>12.1} {:>12.0} {:>13.2} {:>12.2} {:>12} {:>10} ({:.2})",
        rival.name,
        cpu / samples * 1e6,
        rss as f64 / 1_048_576.0,
        (rss - idle_rss.min(rss)) as f64 / series as f64,
        written as f64 / samples,
        disk as f64 / samples,
        ms(ready),
        ms(history),
        server.cpu_seconds(),
    );
    server.kill()?;
    Ok(())
}

fn send(rival: &Rival, address: &str, mut load: Load, start: i64, steps: i64) {
    let Ok(mut sender) = Sender::connect(address, rival.write_path) else { return };
    let mut refused = 0;
    for step in 0..steps {
        for body in load.requests(start + step * STEP_MS) {
            refused += u64::from(!matches!(sender.post(&body), Ok(200..=299)));
        }
    }
    if refused > 0 {
        eprintln!("{}: {refused} requests were refused", rival.name);
    }
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Bytes of all files below `dir`, as allocated on disk.
fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
