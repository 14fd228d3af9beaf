//! The server around the store, beside rivals: label values for completion, recording rules, small queries, large
//! answers, and how soon a query that nobody waits for ends.
//!
//! ```text
//! cargo build --release
//! cargo run --release -p benches --bin server -- [pods=2000] [keep=DIR] [only=PART] [RIVAL=PROGRAM ...]
//! ```
//! `PART` is `requests`, `rules`, `cancelled` or `completion`.
//! `RIVAL` is `prometheus` or `victoria-metrics`, as of the `queries` bench, and the data are those (`keep` may name the same
//! directory, whose hour must not have passed for the rules to have something to do): 200,000 series of an hour, and
//! the CPU counters of 500 times as many pods at one time. Everything runs on loopback, one server after the other,
//! and stops by itself, in less than six minutes with both rivals: on a machine that is busy otherwise the last is left
//! out. The last lines are a table of all with our share of what Prometheus takes.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use benches::pods::Pods;
use benches::rivals::rivals;
use benches::served::{Failure, Server, escape, prepare, repeat, settle};
use benches::{Measured, free_address, get, wait};

/// A request is repeated until it has run this long.
const ENOUGH: Duration = Duration::from_secs(2);
/// Rules are evaluated so long.
const RULES_FOR: Duration = Duration::from_secs(30);
const RULES: usize = 1000;
/// A rival whose turn comes later is left out.
const TURNS_UNTIL: Duration = Duration::from_secs(240);

fn main() -> Result<(), Failure> {
    let (mut pods, mut keep, mut only, mut programs) = (2000, None, None, Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("pods", count)) => pods = count.parse::<usize>()?,
            Some(("keep", dir)) => keep = Some(PathBuf::from(dir)),
            Some(("only", part)) => only = Some(part.to_owned()),
            Some(_) => programs.push(argument),
            None => return Err(format!("{argument:?} is not NAME=VALUE").into()),
        }
    }
    let own_dir = tempfile::tempdir()?;
    let dir = keep.unwrap_or_else(|| own_dir.path().to_owned());
    std::fs::create_dir_all(&dir)?;
    let wants = |part: &str| only.as_ref().is_none_or(|only| only == part);
    let (mut table, since) = (Table::default(), Instant::now());
    for server in rivals(&programs).into_iter().map(Server::from) {
        if since.elapsed() > TURNS_UNTIL {
            println!("{} is left out: {} s have passed", server.rival.name, since.elapsed().as_secs());
            continue;
        }
        table.servers.push(server.rival.name);
        let end = prepare(&server, &dir.join("hour"), &|| Pods::new(pods), 240)?;
        if wants("requests") || wants("rules") {
            hour(&server, &dir.join("hour"), (end, &wants), &mut table)?;
        }
        if wants("cancelled") && server.rival.name == "pyrometer" {
            cancelled(&server, &dir.join("hour"), end)?;
        }
        if wants("completion") {
            prepare(&server, &dir.join("million"), &|| Pods::cpu_only(pods * 500), 1)?;
            completion(&server, &dir.join("million"), &mut table)?;
        }
    }
    table.print();
    Ok(())
}

/// What was measured, by measure and server.
#[derive(Default)]
struct Table {
    servers: Vec<&'static str>,
    rows: Vec<Row>,
}

struct Row {
    measure: &'static str,
    /// The most that we may take of what Prometheus takes.
    goal: f64,
    /// Of each server that was measured.
    figures: Vec<(&'static str, f64)>,
}

impl Table {
    /// Of the server that is being measured.
    fn add(&mut self, measure: &'static str, goal: f64, figure: f64) {
        let Some(&server) = self.servers.last() else { return };
        match self.rows.iter_mut().find(|row| row.measure == measure) {
            Some(row) => row.figures.push((server, figure)),
            None => self.rows.push(Row { measure, goal, figures: vec![(server, figure)] }),
        }
    }

    fn print(&self) {
        print!("{:<52}", "measure");
        self.servers.iter().for_each(|server| print!(" {server:>17}"));
        println!(" {:>13} {:>6}", "of prometheus", "goal");
        for Row { measure, goal, figures } in &self.rows {
            print!("{measure:<52}");
            let of = |server: &str| Some(figures.iter().find(|(other, _)| *other == server)?.1);
            for server in &self.servers {
                of(server).map_or_else(|| print!(" {:>17}", "-"), |figure| print!(" {figure:>17.3}"));
            }
            let share = of("pyrometer").zip(of("prometheus")).map(|(ours, theirs)| ours / theirs);
            let share = share.map_or("-".to_owned(), |share| format!("{share:.3}"));
            println!(" {share:>13} {goal:>6.2}");
        }
    }
}

/// What is asked of the hour, and the rules over it: one start, as that of a rival may take long.
fn hour(
    server: &Server,
    dir: &Path,
    (end, wants): (i64, &dyn Fn(&str) -> bool),
    table: &mut Table,
) -> Result<(), Failure> {
    let (rules_file, config) = (dir.join("rules.yml"), dir.join("with-rules.yml"));
    std::fs::write(&rules_file, "groups: []\n")?;
    std::fs::write(&config, format!("rule_files: ['{}']\n", rules_file.display()))?;
    let has_rules = server.rival.name != "victoria-metrics" && wants("rules");
    let data = dir.join(server.rival.name);
    let (running, address) = server.start_with(&data, has_rules.then_some(&*config))?;
    settle(&running);
    if wants("requests") {
        requests(server, &running, &address, (end, table))?;
    }
    if has_rules {
        std::fs::write(&rules_file, rules_text()?)?;
        rules(server, &running, &address, table)?;
    }
    running.stop()?;
    Ok(())
}

/// Small queries over two connections, and an answer of 100 series with 11,000 points each.
fn requests(
    server: &Server,
    running: &Measured,
    address: &str,
    (end, table): (i64, &mut Table),
) -> Result<(), Failure> {
    let name = server.rival.name;
    let text = escape("container_cpu_usage_seconds_total{namespace=\"namespace-0\",pod=\"app-0-00000000\"}");
    let path = format!("/api/v1/query?query={text}&time={}{}", end / 1000, server.extra);
    let (before, since) = (running.cpu_seconds(), Instant::now());
    let counts: Vec<std::io::Result<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| ask_on(address, &path, ENOUGH))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Ok(0))).collect()
    });
    let count: u64 = counts.into_iter().collect::<std::io::Result<Vec<u64>>>()?.into_iter().sum();
    let cpu_us = (running.cpu_seconds() - before) * 1e6 / count as f64;
    let rate = count as f64 / since.elapsed().as_secs_f64();
    println!("{name:<17} small query, 2 connections: {rate:>7.0}/s, CPU {cpu_us:>6.0} us a request");
    table.add("small query on 2 connections, CPU us", 0.5, cpu_us);

    let wide = escape("container_memory_working_set_bytes{app=~\"app-[0-4]\"}");
    let (start, end) = (end / 1000 - 3600, end / 1000);
    let path = format!("/api/v1/query_range?query={wide}&start={start}&end={end}&step=0.328{}", server.extra);
    let idle = running.memory_bytes("VmRSS");
    running.reset_peak()?;
    let line = repeat(running, address, &path, ENOUGH)?;
    let peak = running.memory_bytes("VmHWM").saturating_sub(idle);
    println!(
        "{name:<17} 11,000 points, {} MB: CPU {:>7.1} ms, {:>7.1} ms, peak {:>6.1} MiB above idle",
        line.bytes / 1_000_000,
        line.cpu_ms,
        line.wall_ms,
        peak as f64 / 1_048_576.0
    );
    table.add("11,000 points of 100 series, CPU ms", 0.2, line.cpu_ms);
    table.add("11,000 points of 100 series, MiB at peak above idle", 0.2, peak as f64 / 1_048_576.0);
    Ok(())
}

/// Asks on one connection until `enough` has passed; how often.
fn ask_on(address: &str, path: &str, enough: Duration) -> std::io::Result<u64> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let (since, mut count, mut line, mut body) = (Instant::now(), 0, String::new(), Vec::new());
    while since.elapsed() < enough {
        stream.write_all(head.as_bytes())?;
        let mut length = 0;
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let text = line.trim().to_ascii_lowercase();
            if let Some(value) = text.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if text.starts_with("transfer-encoding:") {
                length = usize::MAX;
            }
            if text.is_empty() {
                break;
            }
        }
        if length == usize::MAX {
            chunks(&mut reader, &mut line, &mut body)?;
        } else {
            body.resize(length, 0);
            reader.read_exact(&mut body)?;
        }
        count += 1;
    }
    Ok(count)
}

fn chunks(reader: &mut BufReader<TcpStream>, line: &mut String, body: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        line.clear();
        reader.read_line(line)?;
        let length = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        body.resize(length + 2, 0);
        reader.read_exact(body)?;
        if length == 0 {
            return Ok(());
        }
    }
}

fn rules_text() -> Result<String, std::fmt::Error> {
    let mut text = "groups:\n".to_owned();
    for rule in 0..RULES {
        if rule % 20 == 0 {
            writeln!(text, "- name: group-{rule}\n  interval: 15s\n  rules:")?;
        }
        let (namespace, metric) =
            (rule % 20, ["container_cpu_usage_seconds_total", "http_requests_total"][rule % 2]);
        let by = ["pod", "app", "node", "container"][rule / 20 % 4];
        writeln!(
            text,
            "  - {{record: 'r:{rule}', expr: 'sum by ({by}) (rate({metric}{{namespace=\"namespace-{namespace}\"}}[1h]))'}}"
        )?;
    }
    Ok(text)
}

/// CPU of recording rules over the series of the hour, which must not have passed.
fn rules(server: &Server, running: &Measured, address: &str, table: &mut Table) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address)?;
    let head = "POST /-/reload HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\nHost: ";
    stream.write_all(format!("{head}{address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200") {
        return Err(format!("{} does not take the rules: {answer}", server.rival.name).into());
    }
    std::thread::sleep(Duration::from_secs(20));
    let evaluated = || {
        let page = get(address, "/metrics").unwrap_or_default();
        let lines = page.lines().filter(|line| line.starts_with("prometheus_rule_evaluations_total"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    let (count, cpu, since) = (evaluated(), running.cpu_seconds(), Instant::now());
    std::thread::sleep(RULES_FOR);
    let (count, cpu) = (evaluated() - count, running.cpu_seconds() - cpu);
    println!(
        "{:<17} {RULES} recording rules every 15 s: {:.3} cores, {:.3} ms a rule ({count} evaluated)",
        server.rival.name,
        cpu / since.elapsed().as_secs_f64(),
        cpu * 1e3 / count
    );
    table.add("1,000 recording rules, CPU ms a rule", 0.2, cpu * 1e3 / count);
    Ok(())
}

/// Heavy in different parts of the engine.
const HEAVY: [&str; 9] = [
    "sum by (pod) (rate(container_cpu_usage_seconds_total[10m]))",
    "sort_desc({__name__=~\"container.*\"})",
    "quantile_over_time(0.9, http_requests_total[10m])",
    "{__name__=~\"container.*\"} * on (pod, __name__, id) {__name__=~\"container.*\"}",
    "container_cpu_usage_seconds_total and on (pod) container_memory_working_set_bytes",
    "label_replace(http_requests_total, \"short\", \"$1\", \"pod\", \"(.*)-.*\")",
    "sort(http_request_duration_seconds_bucket)",
    "histogram_quantile(0.9, rate(http_request_duration_seconds_bucket{namespace=~\"namespace-1.*\"}[5m]))",
    "max_over_time(rate(http_requests_total[1m])[30m:15s])",
];

/// How long a heavy query goes on once its client has hung up. Only one query may run at a time, so that the answer to
/// another shows when the heavy one has left, with all that it held.
fn cancelled(server: &Server, dir: &Path, end: i64) -> Result<(), Failure> {
    const PLACES: u32 = 10;
    let address = free_address()?;
    let mut arguments = (server.rival.arguments)(&address, &dir.join(server.rival.name));
    arguments.push("--query.max-concurrency=1".to_owned());
    let running = Measured::start(&server.rival.program, &arguments)?;
    wait(Instant::now(), Duration::from_secs(60), || get(&address, "/-/ready").is_some())
        .ok_or("not ready")?;
    settle(&running);
    let probe = || -> Result<Duration, Failure> {
        let since = Instant::now();
        get(&address, "/api/v1/query?query=1").ok_or("no answer")?;
        Ok(since.elapsed())
    };
    let mut idle = (0..20).map(|_| probe()).collect::<Result<Vec<_>, _>>()?;
    idle.sort();
    println!("{:<17} {:>8.1?} for a query that does nothing", server.rival.name, idle[10]);
    let (start, end) = (end / 1000 - 3600, end / 1000);
    for text in HEAVY {
        let kind = if text.starts_with("sort") {
            format!("query?time={end}")
        } else {
            format!("query_range?start={start}&end={end}&step=15")
        };
        let path = format!("/api/v1/{kind}&query={}", escape(text));
        // One that ends in an error is as heavy until then.
        let _ = get(&address, &path);
        let since = Instant::now();
        let _ = get(&address, &path);
        let whole = since.elapsed();
        let (mut worst, mut place) = (Duration::ZERO, Duration::ZERO);
        for at in 0..PLACES {
            let mut stream = TcpStream::connect(&address)?;
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
            let after = whole * (2 * at + 1) / (2 * PLACES);
            std::thread::sleep(after);
            drop(stream);
            let gone = probe()?;
            if gone > worst {
                (worst, place) = (gone, after);
            }
        }
        println!(
            "{:<17} gone {worst:>8.1?} after its client, at most, which was after {place:.0?} of {whole:.0?}: {text}",
            server.rival.name
        );
    }
    running.stop()?;
    Ok(())
}

/// Label values among very many series.
fn completion(server: &Server, dir: &Path, table: &mut Table) -> Result<(), Failure> {
    let (running, address) = server.start(&dir.join(server.rival.name))?;
    settle(&running);
    let one = escape("{__name__=\"container_cpu_usage_seconds_total\",namespace=\"namespace-3\"}");
    let path = format!("/api/v1/label/pod/values?match[]={one}").replace("[]", "%5B%5D");
    let (before, since) = (running.cpu_seconds(), Instant::now());
    get(&address, &path).ok_or("no answer")?;
    let (first_ms, first_cpu) = (since.elapsed().as_secs_f64() * 1e3, running.cpu_seconds() - before);
    // What a server does for a label that is asked for again and again is part of this, and done by the second.
    let learning = repeat(&running, &address, &path, ENOUGH)?;
    settle(&running);
    let line = repeat(&running, &address, &path, ENOUGH)?;
    println!(
        "{:<17} label/pod/values with a matcher over a million series: {:>8.2} ms, CPU {:>8.2} ms, {} bytes; the first {first_ms:.1} ms, \
         CPU {:.0} ms; those of the first seconds CPU {:.2} ms each",
        server.rival.name,
        line.wall_ms,
        line.cpu_ms,
        line.bytes,
        first_cpu * 1e3,
        learning.cpu_ms
    );
    table.add("values of a label of 32,000 of 1,000,000 series, ms", 0.1, line.wall_ms);
    table.add("values of a label of 32,000 of 1,000,000 series, CPU", 0.1, line.cpu_ms);
    running.stop()?;
    Ok(())
}
