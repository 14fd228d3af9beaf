//! What the default run costs on this machine: start, memory, CPU a scrape, restart after `kill -9`.
//!
//! `cargo build --release && cargo run --release -p benches --bin first-light -- [SECONDS]`

use std::time::{Duration, Instant};

use benches::{Measured, free_address, get, metric, sibling, wait};

const PATIENCE: Duration = Duration::from_secs(30);
const HAS_UP: &str = "/api/v1/query?query=count(up%3D%3D1)";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds: u64 = std::env::args().nth(1).map_or(Ok(60), |text| text.parse())?;
    let program = sibling("pyrometer");
    let dir = tempfile::tempdir()?;
    let address = free_address()?;
    let arguments = [
        format!("--web.listen-address={address}"),
        format!("--storage.tsdb.path={}", dir.path().join("data").display()),
        "--kubernetes=off".to_owned(),
    ];
    let is_up = || get(&address, HAS_UP).is_some_and(|body| body.contains("\"value\""));

    let started = Instant::now();
    let server = Measured::start(&program, &arguments)?;
    let listening = wait(started, PATIENCE, || get(&address, "/-/healthy").is_some());
    let first_scrape = wait(started, PATIENCE, is_up);
    std::thread::sleep(Duration::from_secs(seconds));
    let page = get(&address, "/metrics").ok_or("no /metrics")?;
    let value = |name: &str| metric(&page, name).unwrap_or(f64::NAN);
    let (cpu, scrapes) = (server.cpu_seconds(), value("pyrometer_target_scrapes_total"));
    let samples = value("pyrometer_target_scrape_samples_total");
    let (rss, anonymous) = (server.memory_bytes("VmRSS"), server.memory_bytes("RssAnon"));
    let series = value("prometheus_tsdb_head_series");
    server.kill()?;

    let restarted = Instant::now();
    let server = Measured::start(&program, &arguments)?;
    let history = wait(restarted, PATIENCE, || {
        get(&address, "/api/v1/query?query=count(count_over_time(up%5B1h%5D)%3E2)")
            .is_some_and(|body| body.contains("\"value\""))
    });
    let resumed = wait(restarted, PATIENCE, || {
        get(&address, "/metrics")
            .is_some_and(|page| metric(&page, "pyrometer_target_scrape_samples_total") > Some(0.0))
    });
    server.kill()?;

    let binary = std::fs::metadata(&program)?.len();
    let ms =
        |duration: Option<Duration>| duration.map_or("never".to_owned(), |d| format!("{} ms", d.as_millis()));
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
    println!("binary size                                  {}", mib(binary));
    println!("exec to listening                            {}", ms(listening));
    println!("exec to first successful scrape              {}", ms(first_scrape));
    println!("RSS after {seconds} s (anonymous)                    {} ({})", mib(rss), mib(anonymous));
    println!("series in the head                           {series}");
    println!("scrapes, samples                             {scrapes}, {samples}");
    println!("CPU of the whole process a scrape            {:.2} ms", cpu * 1000.0 / scrapes);
    println!("CPU of the whole process, cores              {:.4}", cpu / seconds as f64);
    println!("kill -9 restart to first answer with history {}", ms(history));
    println!("kill -9 restart to first new sample          {}", ms(resumed));
    Ok(())
}
