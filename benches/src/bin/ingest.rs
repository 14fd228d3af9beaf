//! Remote-write ingest beside rivals: CPU a million samples, memory, bytes on disk, those of the blocks that a snapshot
//! makes of it all, with their indexes, and restart.
//!
//! ```text
//! cargo build --release
//! cargo run --release -p benches --bin ingest -- [SERIES] [STEPS] [RIVAL=PROGRAM ...]
//! ```
//! `RIVAL` is `prometheus` or `victoria-metrics` with the path of its program. Everything runs one after
//! the other on loopback, in temporary directories, and stops by itself.

use std::time::{Duration, Instant};

use benches::load::{Load, SERIES_PER_REQUEST, Sender};
use benches::rivals::{Rival, rivals};
use benches::{Measured, disk_bytes, file_bytes, free_address, get, now_ms, post, wait};

const SENDERS: usize = 2;
const STEP_MS: i64 = 15_000;
const PATIENCE: Duration = Duration::from_secs(300);
/// A server that has not shown all it acknowledged by then has lost some of it.
const HISTORY_PATIENCE: Duration = Duration::from_secs(20);

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
        "{:<17} {:>14} {:>12} {:>12} {:>13} {:>12} {:>13} {:>12} {:>14}",
        "server",
        "CPU-s/M smpl",
        "RSS MiB",
        "RSS B/series",
        "written B/smpl",
        "disk B/smpl",
        "block B/smpl",
        "ready ms",
        "history ms (CPU), last step"
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
    let blocks = post(&address, "/api/v1/admin/tsdb/snapshot").map(|_| file_bytes(&data.join("snapshots")));
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
    let last_step =
        format!("/api/v1/query?query=count(container_metric_7_total%5B1s%5D)&time={}", end / 1000);
    let last_step = last_step.replace("count(", "count(last_over_time(").replace(")&", "))&");
    let kept = get(&address, &last_step).is_some_and(|body| body.contains(&expected));
    println!(
        "{:<17} {:>14.3} {:>12.1} {:>12.0} {:>13.2} {:>12.2} {:>13} {:>12} {:>10} ({:.2}) {}",
        rival.name,
        cpu / samples * 1e6,
        rss as f64 / 1_048_576.0,
        (rss - idle_rss.min(rss)) as f64 / series as f64,
        written as f64 / samples,
        disk as f64 / samples,
        blocks.map_or("-".to_owned(), |bytes| format!("{:.3}", bytes as f64 / samples)),
        ms(ready),
        ms(history),
        server.cpu_seconds(),
        if kept { "kept" } else { "lost" },
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
