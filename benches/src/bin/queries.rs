//! Dashboard queries beside rivals: CPU-seconds a query, ratios, and the memory of one large query.
//!
//! ```text
//! cargo build --release
//! cargo run --release -p benches --bin queries -- [pods=2000] [keep=DIR] [only=TEXT] [RIVAL=PROGRAM ...]
//! ```
//! `RIVAL` is `prometheus` or `victoria-metrics` with the path of its program. The data of 2,000 pods (200,000
//! series of twelve labels, one hour at 15 s) are written to Pyrometer and to VictoriaMetrics by remote
//! write; Prometheus gets a copy of Pyrometer's directory. With `keep` the loaded directories stay there and
//! are taken again. Everything runs on loopback, one server after the other, and stops by itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use benches::get;
use benches::pods::Pods;
use benches::rivals::rivals;
use benches::served::{Failure, Line, Server, escape, prepare, repeat, settle};
/// A query is repeated until it has run this long, at least three times.
const ENOUGH: Duration = Duration::from_millis(400);

const BUCKET: &str = "http_request_duration_seconds_bucket";

/// A query; at one time, or over the whole hour at 15 s.
struct Query {
    name: &'static str,
    text: String,
    is_range: bool,
}

#[rustfmt::skip]
fn queries() -> Vec<Query> {
    let cpu = "container_cpu_usage_seconds_total";
    let instant = |name, text: &str| Query { name, text: text.to_owned(), is_range: false };
    let range = |name, text: &str| Query { name, text: text.to_owned(), is_range: true };
    vec![
        instant("one series", &format!("{cpu}{{pod=\"app-7-00000000\"}} or {cpu}{{instance=\"10.0.0.7:10250\"}}")),
        range("one series, hour", &format!("{cpu}{{instance=\"10.0.0.7:10250\"}}")),
        instant("12k series", "http_requests_total"),
        instant("regex on app", "http_requests_total{app=~\"app-1.*\"}"),
        instant("regex on name", "{__name__=~\"container_.*_total\",namespace=\"namespace-3\"}"),
        instant("regex refused", "http_requests_total{pod!~\"app-[0-4].*\",code=\"500\"}"),
        instant("count 100k", &format!("count({BUCKET})")),
        instant("count by app 100k", &format!("count by (app) ({BUCKET})")),
        instant("sum by namespace 100k", &format!("sum by (namespace) ({BUCKET})")),
        instant("sum by le 100k", &format!("sum by (le) ({BUCKET})")),
        instant("rate by pod", &format!("sum by (pod) (rate({cpu}[5m]))")),
        instant("rate by namespace", &format!("sum by (namespace) (rate({cpu}[5m]))")),
        range("rate by namespace, hour", &format!("sum by (namespace) (rate({cpu}[5m]))")),
        range("rate by app 12k, hour", "sum by (app) (rate(http_requests_total[5m]))"),
        instant("increase by app 12k", "sum by (app) (increase(http_requests_total[1h]))"),
        range("irate by pod, hour", &format!("sum by (pod) (irate({cpu}{{namespace=\"namespace-3\"}}[2m]))")),
        instant("irate by app 12k", "sum by (app) (irate(http_requests_total[5m]))"),
        instant("topk of rates", &format!("topk(10, sum by (pod) (rate({cpu}[5m])))")),
        range("topk of rates, hour", "topk(5, sum by (app) (rate(http_requests_total{code=\"500\"}[5m])))"),
        instant("p95 of 100k", &format!("histogram_quantile(0.95, sum by (le) (rate({BUCKET}[5m])))")),
        instant("p99 by app of 100k", &format!("histogram_quantile(0.99, sum by (le, app) (rate({BUCKET}[5m])))")),
        range("p99 of an app, hour", &format!("histogram_quantile(0.99, sum by (le) (rate({BUCKET}{{app=\"app-5\"}}[5m])))")),
        instant("error ratio", "sum(rate(http_requests_total{code=\"500\"}[5m])) / sum(rate(http_requests_total[5m]))"),
        range("error ratio by app, hour", "sum by (app) (rate(http_requests_total{code=\"500\"}[5m])) / sum by (app) (rate(http_requests_total{method=\"GET\"}[5m]))"),
        instant("join node", &format!("sum by (node) (rate({cpu}[5m]) * on (namespace, pod) group_left (uid) kube_pod_info)")),
        range("join requests, hour", "container_memory_working_set_bytes{namespace=\"namespace-3\"} / on (namespace, pod) group_left (resource) kube_pod_container_resource_requests{resource=\"memory\",namespace=\"namespace-3\"}"),
        instant("join requests", "container_memory_working_set_bytes / on (namespace, pod, container) kube_pod_container_resource_requests{resource=\"memory\"}"),
        instant("quantile_over_time", "quantile_over_time(0.9, container_memory_working_set_bytes[1h])"),
        instant("subquery of a rate", &format!("max_over_time(sum(rate({cpu}[5m]))[1h:1m])")),
        instant("subquery by app 12k", "avg_over_time(sum by (app) (rate(http_requests_total[5m]))[30m:1m])"),
        range("count pods, hour", "count by (namespace) (kube_pod_info)"),
    ]
}

/// What the command line says.
struct Settings {
    pods: usize,
    keep: Option<PathBuf>,
    only: Option<String>,
    servers: Vec<Server>,
}

fn settings() -> Result<Settings, Failure> {
    let mut settings = Settings { pods: 2_000, keep: None, only: None, servers: Vec::new() };
    let mut programs = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("pods", count)) => settings.pods = count.parse()?,
            Some(("keep", dir)) => settings.keep = Some(dir.into()),
            Some(("only", text)) => settings.only = Some(text.to_owned()),
            Some(_) => programs.push(argument),
            None => return Err(format!("{argument:?} is not NAME=VALUE").into()),
        }
    }
    settings.servers = rivals(&programs).into_iter().map(Server::from).collect();
    Ok(settings)
}

fn main() -> Result<(), Failure> {
    let settings = settings()?;
    let own_dir = tempfile::tempdir()?;
    let dir = settings.keep.clone().unwrap_or_else(|| own_dir.path().to_owned());
    std::fs::create_dir_all(&dir)?;
    println!("{} pods, {} series, one hour at 15 s; CPU ms a query", settings.pods, settings.pods * 100);
    let servers = settings.servers.clone();
    let mut tables = Vec::new();
    for server in &servers {
        let end = prepare(server, &dir.join("hour"), &|| Pods::new(settings.pods), 240)?;
        tables.push(measure(server, &dir.join("hour"), end, settings.only.as_deref())?);
    }
    print_table(&servers, &tables, settings.only.as_deref());
    if settings.only.is_none() {
        let pods = settings.pods * 75;
        for server in &servers {
            let end = prepare(server, &dir.join("many"), &|| Pods::cpu_only(pods), 20)?;
            many_pods(server, &dir.join("many"), end, pods)?;
        }
    }
    Ok(())
}

fn path(server: &Server, query: &Query, end: i64) -> String {
    let (text, end) = (escape(&query.text), end / 1000);
    if query.is_range {
        let start = end - 3600;
        format!("/api/v1/query_range?query={text}&start={start}&end={end}&step=15{}", server.extra)
    } else {
        format!("/api/v1/query?query={text}&time={end}{}", server.extra)
    }
}

fn measure(server: &Server, dir: &Path, end: i64, only: Option<&str>) -> Result<Vec<Line>, Failure> {
    let (running, address) = server.start(&dir.join(server.rival.name))?;
    settle(&running);
    let mut lines = Vec::new();
    for query in queries().iter().filter(|query| only.is_none_or(|only| query.name.contains(only))) {
        lines.push(repeat(&running, &address, &path(server, query, end), ENOUGH)?);
    }
    let idle = running.memory_bytes("VmRSS");
    running.reset_peak()?;
    let text = format!("sum by (namespace) (rate({BUCKET}[5m]))");
    let query = Query { name: "", text, is_range: true };
    get(&address, &path(server, &query, end)).ok_or("no answer")?;
    let peak = running.memory_bytes("VmHWM").saturating_sub(idle);
    println!(
        "{:<17} {:>8.1} MiB above idle for sum by (namespace) (rate(x[5m])), hour, 100k series; idle {:.0} MiB",
        server.rival.name,
        peak as f64 / 1_048_576.0,
        idle as f64 / 1_048_576.0
    );
    running.stop()?;
    Ok(lines)
}

fn print_table(servers: &[Server], tables: &[Vec<Line>], only: Option<&str>) {
    print!("{:<26}", "query");
    for server in servers {
        print!(" {:>17} {:>9} {:>9}", server.rival.name, "wall ms", "bytes");
    }
    println!(" {:>9}", "of best");
    let names = queries().into_iter().filter(|query| only.is_none_or(|only| query.name.contains(only)));
    let mut worst: (f64, &str) = (0.0, "");
    for (at, query) in names.enumerate() {
        print!("{:<26}", query.name);
        for table in tables {
            print!(" {:>17.2} {:>9.2} {:>9}", table[at].cpu_ms, table[at].wall_ms, table[at].bytes);
        }
        let best = tables[1..].iter().map(|table| table[at].cpu_ms).fold(f64::INFINITY, f64::min);
        let ratio = tables[0][at].cpu_ms / best;
        println!(" {ratio:>9.3}");
        if ratio.is_finite() && ratio > worst.0 {
            worst = (ratio, query.name);
        }
    }
    let totals: Vec<f64> = tables.iter().map(|table| table.iter().map(|line| line.cpu_ms).sum()).collect();
    for (server, total) in servers.iter().zip(&totals) {
        println!("{:<17} {total:>9.1} CPU ms in all, {:.3} of it ours", server.rival.name, totals[0] / total);
    }
    println!("worst of the better rival: {:.3} ({})", worst.0, worst.1);
}

/// `sum by (namespace, pod) (rate(cpu[2m]))` over very many pods.
fn many_pods(server: &Server, dir: &Path, end: i64, pods: usize) -> Result<(), Failure> {
    let (running, address) = server.start(&dir.join(server.rival.name))?;
    settle(&running);
    let text = "sum by (namespace,pod) (rate(container_cpu_usage_seconds_total[2m]))".to_owned();
    let query = Query { name: "", text, is_range: false };
    let line = repeat(&running, &address, &path(server, &query, end), Duration::from_secs(3))?;
    println!(
        "{:<17} {pods} pods: sum by (namespace,pod) (rate(x[2m])) median {:.1} ms, CPU {:.1} ms, {} bytes",
        server.rival.name, line.wall_ms, line.cpu_ms, line.bytes
    );
    running.stop()?;
    Ok(())
}
