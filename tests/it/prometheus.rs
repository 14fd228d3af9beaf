//! The installed Prometheus, and a page of samples for both servers.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::process::{PATIENCE, get};

/// A newer one than the one that is installed, from the folder in `PYROMETER_NEWER_DIR`; says so if there is none.
pub(crate) fn newer() -> Option<String> {
    let found = crate::process::newer("prometheus");
    if found.is_none() {
        eprintln!(
            "SKIPPED: PYROMETER_NEWER_DIR names no folder with a newer Prometheus than the installed one"
        );
    }
    found
}

/// A running Prometheus. Dropping it kills it.
pub(crate) struct Prometheus {
    child: Child,
    pub(crate) url: String,
}

impl Prometheus {
    /// On the data in `dir`, with `config` besides what is necessary.
    pub(crate) fn start(dir: &Path, config: &str) -> Self {
        let path = dir.with_extension("yml");
        std::fs::write(&path, if config.is_empty() { "scrape_configs: []\n" } else { config }).unwrap();
        Self::run(dir, &free_address(), &[&format!("--config.file={}", path.display())])
    }

    /// At an address, without a configuration.
    pub(crate) fn start_at(dir: &Path, address: &str, flags: &[&str]) -> Self {
        let path = dir.with_extension("yml");
        std::fs::write(&path, "scrape_configs: []\n").unwrap();
        let config = format!("--config.file={}", path.display());
        let flags: Vec<&str> = std::iter::once(config.as_str()).chain(flags.iter().copied()).collect();
        Self::run(dir, address, &flags)
    }

    /// One of several that are installed, with `config` besides what is necessary.
    pub(crate) fn start_of(program: &str, dir: &Path, config: &str, flags: &[&str]) -> Self {
        let path = dir.with_extension("yml");
        std::fs::write(&path, if config.is_empty() { "scrape_configs: []\n" } else { config }).unwrap();
        let config = format!("--config.file={}", path.display());
        let flags: Vec<&str> = std::iter::once(config.as_str()).chain(flags.iter().copied()).collect();
        Self::run_of(program, dir, &free_address(), &flags)
    }

    fn run(dir: &Path, address: &str, flags: &[&str]) -> Self {
        Self::run_of("prometheus", dir, address, flags)
    }

    fn run_of(program: &str, dir: &Path, address: &str, flags: &[&str]) -> Self {
        let child = Command::new(program)
            .arg(format!("--storage.tsdb.path={}", dir.display()))
            .arg(format!("--web.listen-address={address}"))
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let this = Self { child, url: format!("http://{address}") };
        let deadline = Instant::now() + PATIENCE;
        while get(&format!("{}/-/ready", this.url), &[]).0 != 200 {
            assert!(Instant::now() < deadline, "Prometheus is not ready");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        this
    }

    pub(crate) fn json(&self, path: &str) -> Value {
        let (_, body) = get(&format!("{}{path}", self.url), &[]);
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    pub(crate) fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.child.wait().unwrap();
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

pub(crate) fn now_s() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// An hour of counters, gauges and a histogram, every 15 s up to `end`, as OpenMetrics text.
pub(crate) fn page(end: i64) -> String {
    let mut out = String::new();
    let times: Vec<i64> = (0..240).map(|step| end - 3600 + step * 15).collect();
    out.push_str("# TYPE requests counter\n");
    for job in 0..5 {
        for code in ["200", "404", "500"] {
            let mut total = 0;
            for (step, ts) in times.iter().enumerate() {
                total = if job == 3 && step % 100 == 99 { 0 } else { total + (step * (job + 1)) % 17 };
                writeln!(out, "requests_total{{job=\"j{job}\",code=\"{code}\"}} {total} {ts}").unwrap();
            }
        }
    }
    out.push_str("# TYPE level gauge\n");
    for zone in ["a", "b", "ä\\\"\\\\"] {
        for (step, ts) in times.iter().enumerate() {
            let value = ["0.1", "-3.5e-7", "NaN", "+Inf", "1e21", "123456789"][(step / 7) % 6];
            writeln!(out, "level{{zone=\"{zone}\"}} {value} {ts}").unwrap();
        }
    }
    out.push_str("# TYPE latency histogram\n");
    for (le, share) in [("0.1", 1), ("0.5", 4), ("1.0", 7), ("+Inf", 9)] {
        for (step, ts) in times.iter().enumerate() {
            writeln!(out, "latency_bucket{{le=\"{le}\"}} {} {ts}", step * share).unwrap();
        }
    }
    for (name, factor) in [("latency_count", 9), ("latency_sum", 3)] {
        for (step, ts) in times.iter().enumerate() {
            writeln!(out, "{name} {} {ts}", step * factor).unwrap();
        }
    }
    out.push_str("# EOF\n");
    out
}
