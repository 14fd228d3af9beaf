//! The Metrics API alone, in a cluster of 100 nodes, 7,000 pods and 14,000 containers that are scraped every 15 s.
//!
//! ```text
//! cargo build --release && cargo run --release -p benches --bin metrics-api -- [full] [SECONDS]
//! ```
//! Prints each measure with its goal and with what metrics-server took on one machine. `full` measures the whole
//! server instead of `--mode=metrics-api-only`. Everything is on loopback and stops by itself.

use std::time::{Duration, Instant};

use benches::kubelets::{Kubelets, Size, TOKEN};
use benches::{Measured, free_address, now_ms, sibling, wait};
use reqwest::Client;
use tokio::runtime::Runtime;

const SIZE: Size = Size { nodes: 100, pods: 70, containers: 2 };
const PATIENCE: Duration = Duration::from_secs(90);
const SETTLE: Duration = Duration::from_secs(20);
const ROUNDS: usize = 21;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// One connection, read by the thread that waits for the answer: a client that hands pieces from thread to thread takes
/// twice as long over a list as the server.
struct Api {
    client: Client,
    runtime: Runtime,
    url: String,
}

impl Api {
    /// Reads an answer into `body`, and says how long it took to its last byte.
    fn get(&self, path: &str, accept: &str, body: &mut Vec<u8>) -> Outcome<Duration> {
        let since = Instant::now();
        let request = self.client.get(format!("{}/apis/metrics.k8s.io/v1beta1/{path}", self.url));
        let request = request.bearer_auth(TOKEN).header("Accept", accept);
        body.clear();
        self.runtime.block_on(async {
            let mut answer = request.send().await?.error_for_status()?;
            while let Some(piece) = answer.chunk().await? {
                body.extend_from_slice(&piece);
            }
            Ok(since.elapsed())
        })
    }

    fn count(&self, path: &str) -> usize {
        let mut body = Vec::new();
        let Ok(_) = self.get(path, "application/json", &mut body) else { return 0 };
        let list: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        list["items"].as_array().map_or(0, Vec::len)
    }

    /// Half of the rounds were quicker than this, in milliseconds; and the size of the answer.
    fn median(&self, path: &str, accept: &str) -> Outcome<(f64, usize)> {
        // The client's memory is there before the clock runs: of both ends it is the server that is measured.
        let (mut times, mut body) = (Vec::new(), Vec::new());
        for _ in 0..=ROUNDS {
            times.push(self.get(path, accept, &mut body)?);
        }
        times.remove(0);
        times.sort_unstable();
        Ok((times[ROUNDS / 2].as_secs_f64() * 1000.0, body.len()))
    }
}

/// The median of the same list taken by curl on one connection, which reads as fast as kubectl does; none without curl.
fn by_curl(api: &Api) -> Option<f64> {
    let url = format!("{}/apis/metrics.k8s.io/v1beta1/pods", api.url);
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sk", "--http1.1", "-A", "benches", "-w", "%{time_total}\n"]);
    curl.args(["-H", "Accept: application/json", "-H", &format!("Authorization: Bearer {TOKEN}")]);
    (0..ROUNDS).for_each(|_| {
        curl.args(["-o", "/dev/null", &url]);
    });
    let times = String::from_utf8(curl.output().ok()?.stdout).ok()?;
    let mut times: Vec<f64> = times.lines().map_while(|line| line.parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    (times.len() == ROUNDS).then(|| times[ROUNDS / 2] * 1000.0)
}

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let full = arguments.iter().any(|text| text == "full");
    let seconds: u64 = arguments.iter().find_map(|text| text.parse().ok()).unwrap_or(60);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let kubelets = runtime.block_on(Kubelets::start(SIZE))?;
    let dir = tempfile::tempdir()?;
    let kubeconfig = dir.path().join("kubeconfig");
    std::fs::write(&kubeconfig, kubelets.kubeconfig())?;
    let (web, secure) = (free_address()?, free_address()?);
    // The child's environment is ours; nothing else here reads it.
    let program = std::path::Path::new("/usr/bin/env");
    let server = Measured::start(
        program,
        &[
            format!("KUBECONFIG={}", kubeconfig.display()),
            sibling("pyrometer").display().to_string(),
            format!("--mode={}", if full { "full" } else { "metrics-api-only" }),
            "--kubernetes=kubeconfig".to_owned(),
            "--kubelet-insecure-tls".to_owned(),
            format!("--web.listen-address={web}"),
            format!("--kubernetes-api.listen-address={secure}"),
            format!("--storage.tsdb.path={}", dir.path().join("data").display()),
        ],
    )?;
    let client =
        Client::builder().danger_accept_invalid_certs(true).timeout(Duration::from_secs(30)).build()?;
    let own = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let api = Api { client, runtime: own, url: format!("https://{secure}") };
    let all = SIZE.nodes * SIZE.pods;
    let first = wait(Instant::now(), PATIENCE, || {
        std::thread::sleep(Duration::from_millis(200));
        api.count("pods") == all
    });
    let first = first.ok_or("not all pods have values")?;
    println!(
        "{} nodes, {all} pods, {} containers every 15 s; all have values after {:.1} s",
        SIZE.nodes,
        all * SIZE.containers,
        first.as_secs_f64()
    );
    std::thread::sleep(SETTLE);
    measure(&server, &kubelets, &api, seconds)
}

fn measure(server: &Measured, kubelets: &Kubelets, api: &Api, seconds: u64) -> Outcome {
    let (cpu, (pages, bytes)) = (server.cpu_seconds(), kubelets.served());
    std::thread::sleep(Duration::from_secs(seconds));
    let cores = (server.cpu_seconds() - cpu) / seconds as f64;
    let (later, more) = kubelets.served();
    let anonymous = server.memory_bytes("RssAnon") as f64 / 1e6;
    let (resident, peak) =
        (server.memory_bytes("VmRSS") as f64 / 1e6, server.memory_bytes("VmHWM") as f64 / 1e6);
    println!("{} pages of {} bytes in {seconds} s", later - pages, (more - bytes) / (later - pages).max(1));
    let before = server.cpu_seconds();
    let (json, size) = api.median("pods", "application/json")?;
    // The kernel counts in hundredths of a second, so only all rounds together say something.
    let own = (server.cpu_seconds() - before) * 1000.0 / (ROUNDS + 1) as f64;
    let (protobuf, protobuf_size) = api.median("pods", "application/vnd.kubernetes.protobuf")?;
    let (nodes, _) = api.median("nodes", "application/json")?;
    let (namespace, _) = api.median("namespaces/namespace-3/pods", "application/json")?;
    let anonymous_later = server.memory_bytes("RssAnon") as f64 / 1e6;
    println!("{:<44} {:>12} {:>16} {:>10}", "measure", "measured", "metrics-server", "goal");
    let row = |name: &str, value: String, rival: &str, goal: &str| {
        println!("{name:<44} {value:>12} {rival:>16} {goal:>10}");
    };
    row("CPU, cores", format!("{cores:.4}"), "0.0079", "<= 0.004");
    row("anonymous memory, MB", format!("{anonymous:.1}"), "95", "<= 20");
    row("anonymous memory after 88 lists, MB", format!("{anonymous_later:.1}"), "", "");
    row("resident memory, MB (peak)", format!("{resident:.0} ({peak:.0})"), "145 (202)", "");
    row(
        &format!("list all pods, JSON, ms ({:.2} MB)", size as f64 / 1e6),
        format!("{json:.1}"),
        "63-77",
        "<= 10",
    );
    row("of it CPU of the server, ms", format!("{own:.0}"), "", "");
    let curl = by_curl(api).map_or("no curl".to_owned(), |ms| format!("{ms:.1}"));
    row("the same list, read by curl, ms", curl, "63-77", "<= 10");
    let name = format!("list all pods, protobuf, ms ({:.2} MB)", protobuf_size as f64 / 1e6);
    row(&name, format!("{protobuf:.1}"), "91", "");
    row("list all nodes, JSON, ms", format!("{nodes:.1}"), "", "");
    row("list pods of one namespace of 31, JSON, ms", format!("{namespace:.1}"), "", "");
    let (newest, oldest) = ages(api)?;
    row(
        "age of the newest point, s: best, worst node",
        format!("{newest:.0}, {oldest:.0}"),
        "12-30",
        "<= 16",
    );
    Ok(())
}

/// How old points of nodes are at read, whose samples are of the moment of the scrape.
fn ages(api: &Api) -> Outcome<(f64, f64)> {
    let mut body = Vec::new();
    api.get("nodes", "application/json", &mut body)?;
    let list: serde_json::Value = serde_json::from_slice(&body)?;
    let now = now_ms() as f64 / 1000.0;
    let seconds = |text: &str| -> Option<f64> {
        // Times are of today or yesterday: the time of day is enough.
        let time = text.split('T').nth(1)?.trim_end_matches('Z');
        let parts: Vec<f64> = time.split(':').filter_map(|part| part.parse().ok()).collect();
        Some(parts.iter().fold(0.0, |sum, part| sum * 60.0 + part))
    };
    let items = list["items"].as_array().ok_or("no items")?;
    let ages = items.iter().filter_map(|node| seconds(node["timestamp"].as_str()?));
    let ages: Vec<f64> = ages.map(|at| (now - at).rem_euclid(86_400.0)).collect();
    Ok((ages.iter().copied().fold(f64::MAX, f64::min), ages.iter().copied().fold(0.0, f64::max)))
}
