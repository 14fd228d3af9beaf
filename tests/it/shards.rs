//! Routers, shards and a querier as real processes: what was acknowledged is found once, whoever is killed or
//! stopped and whatever moves, and no answer lacks something without saying so.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use model::Labels;
use serde_json::Value;

use crate::process::{Server, command, escape, get};
use crate::remote_write::{bytes, double, first, int, samples, snappy};

/// A series' number and a time.
pub(crate) type Key = (usize, i64);

pub(crate) const SERIES: usize = 40;

pub(crate) fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Half of the series are of pods.
pub(crate) fn labels(series: usize) -> Labels {
    let number = series.to_string();
    let own = if series.is_multiple_of(2) { "pod" } else { "instance" };
    Labels::from_pairs([("__name__", "x"), ("namespace", "n"), ("number", &number), (own, &number)])
}

/// The value of a series at a time: nobody else would come to it.
pub(crate) fn value((series, ts): Key) -> f64 {
    let mixed = ts.wrapping_mul(31) % 1_000_003;
    f64::from(i32::try_from(mixed).unwrap()) + f64::from(u32::try_from(series).unwrap()) / 64.0
}

/// Where a process listens: at an address of this machine, or of a network namespace.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) address: String,
    pub(crate) namespace: Option<String>,
}

impl Site {
    /// On this machine, whatever the name of the process.
    pub(crate) fn here(_: &str) -> Self {
        Self { address: free_address(), namespace: None }
    }
}

/// Where a process is, by its name.
pub(crate) type Sites<'a> = &'a mut dyn FnMut(&str) -> Site;

/// One process of the cell, which can be started again at its address.
pub(crate) struct Process {
    dir: PathBuf,
    pub(crate) address: String,
    namespace: Option<String>,
    flags: Vec<String>,
    server: Option<Server>,
}

impl Process {
    pub(crate) fn new(dir: &Path, name: &str, flags: &[String]) -> Self {
        Self::at(Site::here(name), dir, name, flags)
    }

    pub(crate) fn at(site: Site, dir: &Path, name: &str, flags: &[String]) -> Self {
        let Site { address, namespace } = site;
        let mut process =
            Self { dir: dir.join(name), address, namespace, flags: flags.to_vec(), server: None };
        process.start();
        process
    }

    pub(crate) fn start(&mut self) {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        self.server = Some(match &self.namespace {
            Some(namespace) => Server::start_on(namespace, &self.address, &self.dir, &flags),
            None => Server::start_at(&self.address, &self.dir, &flags),
        });
    }

    pub(crate) fn kill(&mut self) {
        self.server.take().unwrap().kill();
    }

    fn signal(&self, name: &str) {
        self.server.as_ref().unwrap().signal(name);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

pub(crate) struct Cell {
    map: PathBuf,
    pub(crate) shards: Vec<Process>,
    pub(crate) routers: Vec<Process>,
    pub(crate) querier: Process,
}

fn slots(arguments: &[&str]) -> String {
    let output = command().arg("slots").args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

impl Cell {
    pub(crate) fn start(dir: &Path, shards: usize, routers: usize, replication: usize) -> Self {
        Self::start_by(dir, (shards, routers, replication), &[], &mut Process::url)
    }

    /// With more flags for routers, and shards reached at what `url` gives.
    pub(crate) fn start_by(
        dir: &Path,
        counts: (usize, usize, usize),
        more: &[&str],
        url: &mut dyn FnMut(&Process) -> String,
    ) -> Self {
        Self::start_at(dir, counts, more, (&mut Site::here, url))
    }

    /// With every process where `site` says by its name: `s0`, `r0` and so on, and `q`.
    pub(crate) fn start_at(
        dir: &Path,
        (shards, routers, replication): (usize, usize, usize),
        more: &[&str],
        (site, url): (Sites<'_>, &mut dyn FnMut(&Process) -> String),
    ) -> Self {
        let map = dir.join("map.json");
        let flag = format!("--cluster.slot-map={}", map.display());
        let shard = ["--kubernetes=off".to_owned(), "--role=shard".to_owned()];
        let shards: Vec<Process> = (0..shards)
            .map(|at| format!("s{at}"))
            .map(|name| Process::at(site(&name), dir, &name, &shard))
            .collect();
        // Routers and queriers want a map that names the routers.
        let sites: Vec<Site> = (0..routers).map(|at| site(&format!("r{at}"))).collect();
        let mut arguments = vec!["create".to_owned(), map.display().to_string()];
        for (at, shard) in shards.iter().enumerate() {
            arguments.push(format!("--shard=s{at}={}", url(shard)));
        }
        let routers = sites.iter().enumerate();
        arguments.extend(routers.map(|(at, site)| format!("--router=r{at}=http://{}", site.address)));
        arguments.push(format!("--replication={replication}"));
        slots(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let routers = sites
            .into_iter()
            .enumerate()
            .map(|(at, site)| {
                let name = format!("r{at}");
                let own = ["--role=router".to_owned(), flag.clone(), format!("--router.name={name}")];
                let flags: Vec<String> =
                    own.into_iter().chain(more.iter().map(|flag| (*flag).to_owned())).collect();
                Process::at(site, dir, &name, &flags)
            })
            .collect();
        let flags = ["--kubernetes=off".to_owned(), "--role=querier".to_owned(), flag];
        let querier = Process::at(site("q"), dir, "q", &flags);
        Self { map, shards, routers, querier }
    }

    /// Begins to give slots to a new shard.
    pub(crate) fn add_shard(&mut self, dir: &Path) {
        let name = format!("s{}", self.shards.len());
        let flags = ["--kubernetes=off".to_owned(), "--role=shard".to_owned()];
        let fresh = Process::new(dir, &name, &flags);
        slots(&["add", &self.map.display().to_string(), &format!("{name}={}", fresh.url()), "--lead=2s"]);
        self.shards.push(fresh);
    }

    pub(crate) fn until_drained(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        for router in &self.routers {
            loop {
                let (status, body) = get(&format!("{}/api/v1/router/backlog", router.url()), &[]);
                if status == 200 && body.contains("\"shards\":[]") {
                    break;
                }
                assert!(Instant::now() < deadline, "samples still wait: {body}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// The answer to a query of now.
    pub(crate) fn query(&self, text: &str, strict: bool) -> (u16, Value) {
        let strict = if strict { "&partial_response=false" } else { "" };
        let (status, body) =
            get(&format!("{}/api/v1/query?query={}{strict}", self.querier.url(), escape(text)), &[]);
        (status, serde_json::from_str(&body).unwrap_or_default())
    }

    /// All samples, by series and time.
    pub(crate) fn found(&self) -> BTreeMap<Key, f64> {
        let (status, answer) = self.query("x[30m]", true);
        assert_eq!((status, &answer["warnings"]), (200, &Value::Null), "{answer}");
        let mut found = BTreeMap::new();
        for row in answer["data"]["result"].as_array().unwrap() {
            let series = row["metric"]["number"].as_str().unwrap().parse().unwrap();
            for pair in row["values"].as_array().unwrap() {
                let ts = milliseconds(&pair[0]);
                let twice = found.insert((series, ts), pair[1].as_str().unwrap().parse().unwrap());
                assert!(twice.is_none(), "series {series} has two samples at {ts}");
            }
        }
        found
    }
}

/// What was sent, and what of that was acknowledged.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) sent: BTreeSet<Key>,
    pub(crate) acknowledged: BTreeSet<Key>,
    refusals: Vec<String>,
    batches: usize,
    /// Batches that were to be sent again later.
    pub(crate) put_off: usize,
}

pub(crate) fn post(address: &str, body: &[u8]) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    // A router that is stopped answers nothing.
    stream.set_read_timeout(Some(Duration::from_secs(4)))?;
    let head = format!(
        "POST /api/v1/write HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/x-protobuf\r\n\
         Content-Encoding: snappy\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Ok((status, answer))
}

/// Writes to routers in turn until it is stopped; now and then a batch again, or two in the wrong order.
pub(crate) fn write(routers: &[String], log: &Mutex<Log>, stop: &AtomicBool, mut random: u64) {
    let mut before: Option<Vec<Key>> = None;
    let mut held_back: Option<Vec<Key>> = None;
    let send = |keys: &[Key], at: usize| {
        log.lock().unwrap().sent.extend(keys);
        let body = remote::send::request(keys.iter().map(|key| (labels(key.0), key.1, value(*key))));
        let outcome = post(&routers[at % routers.len()], &body);
        let mut log = log.lock().unwrap();
        log.batches += 1;
        match outcome {
            Ok((204, _)) => log.acknowledged.extend(keys),
            Ok((400, text)) => log.refusals.push(text),
            Ok((503, text)) if text.to_ascii_lowercase().contains("\r\nretry-after: ") => log.put_off += 1,
            _ => {}
        }
    };
    let mut last = 0;
    for at in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let ts = now_ms().max(last + 1);
        last = ts;
        let keys: Vec<Key> = (0..SERIES).map(|series| (series, ts)).collect();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match random >> 60 {
            0 | 1 => {
                send(&keys, at);
                before.iter().for_each(|keys| send(keys, at + 1));
            }
            2 | 3 if held_back.is_none() => held_back = Some(keys.clone()),
            _ => {
                send(&keys, at);
                held_back.take().iter().for_each(|keys| send(keys, at + 1));
            }
        }
        before = Some(keys);
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// Asks again and again how many samples there are: all that were acknowledged before, or a warning. Every
/// other question is put to the shards as an aggregation, the others as series.
pub(crate) fn watch(cell: &Cell, log: &Mutex<Log>, since: Instant, until: Duration) -> (usize, usize) {
    let (mut complete, mut partial) = (0, 0);
    while since.elapsed() < until {
        let known = log.lock().unwrap().acknowledged.len();
        let text = [
            "sum(count_over_time(x[30m]))",
            "sum(sum(count_over_time(x[30m])) by (number) * 1)",
            "sum(count_over_time(x[30m]) * on (number) group_left () (0 * last_over_time(x[30m]) + 1))",
        ][(complete + partial) % 3];
        let (status, answer) = cell.query(text, false);
        let sent = log.lock().unwrap().sent.len();
        if status != 200 || !answer["warnings"].is_null() {
            partial += 1;
            continue;
        }
        complete += 1;
        let count = answer["data"]["result"][0]["value"][1].as_str().unwrap_or("0").parse::<f64>().unwrap();
        let count = format!("{count:.0}").parse::<usize>().unwrap();
        if count < known {
            explain(cell, &log.lock().unwrap());
        }
        assert!(
            count >= known,
            "{text}: {count} samples, {known} were acknowledged, and no warning: {answer}"
        );
        assert!(count <= sent, "{text}: {count} samples, {sent} were sent");
    }
    (complete, partial)
}

/// Says which acknowledged samples no answer has, and which shards have them.
fn explain(cell: &Cell, log: &Log) {
    let times = |url: &str, series: usize| -> BTreeSet<i64> {
        let query = escape(&format!("x{{number=\"{series}\"}}[30m]"));
        let (_, body) = get(&format!("{url}/api/v1/query?query={query}"), &[]);
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        let values = answer["data"]["result"][0]["values"].as_array().cloned().unwrap_or_default();
        values.iter().map(|pair| milliseconds(&pair[0])).collect()
    };
    let map = remote::slots::SlotMap::read(&cell.map).unwrap();
    for series in 0..SERIES {
        let wanted = log.acknowledged.iter().filter(|key| key.0 == series).map(|key| key.1);
        let found = times(&cell.querier.url(), series);
        let missing: Vec<i64> = wanted.filter(|ts| !found.contains(ts)).collect();
        if missing.is_empty() {
            continue;
        }
        println!(
            "series {series} lacks {} samples from {} to {:?}",
            missing.len(),
            missing[0],
            missing.last()
        );
        println!("  held by {:?}", map.holders(remote::slots::slot_of(&labels(series))));
        for (at, shard) in cell.shards.iter().enumerate() {
            let own = times(&shard.url(), series);
            let has = missing.iter().filter(|ts| own.contains(ts)).count();
            println!(
                "  s{at}: {} samples from {:?} to {:?}, {has} of these",
                own.len(),
                own.first(),
                own.last()
            );
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "milliseconds of this century")]
pub(crate) fn milliseconds(seconds: &Value) -> i64 {
    (seconds.as_f64().unwrap_or(0.0) * 1000.0).round() as i64
}

pub(crate) fn check(cell: &Cell, log: &Mutex<Log>) {
    cell.until_drained();
    let log = log.lock().unwrap();
    let found = cell.found();
    if log.acknowledged.iter().any(|key| !found.contains_key(key)) {
        explain(cell, &log);
    }
    let lost: Vec<_> = log.acknowledged.iter().filter(|key| !found.contains_key(key)).collect();
    assert!(
        lost.is_empty(),
        "{} of {} are lost: {:?}",
        lost.len(),
        log.acknowledged.len(),
        &lost[..lost.len().min(9)]
    );
    for (key, found) in &found {
        assert!(log.sent.contains(key), "{key:?} was never sent");
        assert_eq!(found.to_bits(), value(*key).to_bits(), "{key:?}");
    }
    assert!(log.refusals.is_empty(), "{:?}", log.refusals);
    println!(
        "{} of {} samples acknowledged in {} batches, all found once",
        log.acknowledged.len(),
        log.sent.len(),
        log.batches
    );
}

#[test]
fn nothing_acknowledged_is_lost_whoever_dies_and_whatever_moves() {
    let dir = tempfile::tempdir().unwrap();
    let mut cell = Cell::start(dir.path(), 3, 2, 2);
    let log = Arc::new(Mutex::new(Log::default()));
    let stop = Arc::new(AtomicBool::new(false));
    let routers: Vec<String> = cell.routers.iter().map(|router| router.address.clone()).collect();
    let writers: Vec<_> = (0..1)
        .map(|seed| {
            let (log, stop, routers) = (Arc::clone(&log), Arc::clone(&stop), routers.clone());
            std::thread::spawn(move || write(&routers, &log, &stop, seed))
        })
        .collect();
    let mut seen = (0, 0);
    let mut watch_for = |cell: &Cell, ms: u64| {
        let (complete, partial) = watch(cell, &log, Instant::now(), Duration::from_millis(ms));
        seen = (seen.0 + complete, seen.1 + partial);
    };
    watch_for(&cell, 1_500);
    // A shard dies: the others answer for it, and its samples wait.
    cell.shards[0].kill();
    watch_for(&cell, 2_500);
    cell.shards[0].start();
    watch_for(&cell, 1_500);
    // One does not answer any more.
    cell.shards[1].signal("-STOP");
    watch_for(&cell, 2_500);
    cell.shards[1].signal("-CONT");
    watch_for(&cell, 1_000);
    // A shard comes, while a router sleeps through it and another shard dies.
    cell.routers[1].signal("-STOP");
    let map = cell.map.display().to_string();
    cell.add_shard(dir.path());
    watch_for(&cell, 1_200);
    cell.routers[1].signal("-CONT");
    cell.shards[2].kill();
    watch_for(&cell, 1_500);
    cell.shards[2].start();
    watch_for(&cell, 3_500);
    slots(&["finish", &map, "--window=2s"]);
    watch_for(&cell, 2_000);
    // Another one goes.
    slots(&["remove", &map, "s1", "--lead=2s"]);
    watch_for(&cell, 6_500);
    slots(&["finish", &map, "--window=2s"]);
    watch_for(&cell, 1_500);
    // The querier is stopped, and dies: it has nothing to lose, and begins with what is in force.
    cell.querier.signal("-STOP");
    std::thread::sleep(Duration::from_millis(700));
    cell.querier.signal("-CONT");
    watch_for(&cell, 700);
    cell.querier.kill();
    cell.querier.start();
    watch_for(&cell, 700);
    // A router dies while it holds samples.
    cell.shards[0].kill();
    watch_for(&cell, 700);
    cell.routers[0].kill();
    watch_for(&cell, 700);
    cell.shards[0].start();
    cell.routers[0].start();
    watch_for(&cell, 1_500);
    stop.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    check(&cell, &log);
    let shown = slots(&["show", &map]);
    assert!(shown.starts_with("epoch 5, replication 2\n"), "{shown}");
    println!("{} complete answers, {} with warnings", seen.0, seen.1);
    assert!(seen.0 > 10, "{seen:?}");
}

#[test]
fn with_one_copy_a_dead_shard_is_named_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut cell = Cell::start(dir.path(), 2, 1, 1);
    let log = Mutex::new(Log::default());
    let routers = [cell.routers[0].address.clone()];
    let write_for = |ms: u64, seed: u64| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| write(&routers, &log, &stop, seed));
            std::thread::sleep(Duration::from_millis(ms));
            stop.store(true, Ordering::Relaxed);
        });
    };
    write_for(700, 7);
    assert!(cell.found().len() > SERIES);
    cell.shards[1].kill();
    write_for(1_500, 8);
    let (status, answer) = cell.query("count(x)", false);
    let warnings = answer["warnings"].to_string();
    assert!(status == 200 && warnings.contains("shard s1 does not answer"), "{answer}");
    let (status, answer) = cell.query("count(x)", true);
    assert_eq!((status, &answer["errorType"]), (503, &Value::from("unavailable")), "{answer}");
    let (status, names) = get(&format!("{}/api/v1/label/number/values", cell.querier.url()), &[]);
    assert!(status == 200 && names.contains("not complete"), "{names}");
    // A router that starts anew still has what waits.
    cell.routers[0].kill();
    cell.routers[0].start();
    cell.shards[1].start();
    write_for(700, 9);
    check(&cell, &log);
    let (status, names) = get(&format!("{}/api/v1/label/number/values", cell.querier.url()), &[]);
    let names: Value = serde_json::from_str(&names).unwrap();
    assert_eq!((status, names["data"].as_array().unwrap().len()), (200, SERIES), "{names}");
    let (status, page) = get(&format!("{}/federate?match[]=x", cell.querier.url()), &[]);
    assert_eq!((status, page.lines().filter(|line| line.starts_with("x{")).count()), (200, SERIES), "{page}");
    let (_, page) = get(&format!("{}/metrics", cell.routers[0].url()), &[]);
    assert!(page.contains("pyrometer_router_drained_samples_total{shard=\"s1\"}"), "{page}");
}

#[test]
fn a_querier_serves_the_metrics_apis_from_its_shards() {
    let dir = tempfile::tempdir().unwrap();
    let mut cell = Cell::start(dir.path(), 3, 1, 1);
    let node = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
    let now = now_ms();
    let kubelet = |name: &str| {
        Labels::from_pairs([("__name__", name), ("metrics_path", "/metrics/resource"), ("node", &node)])
    };
    let samples = [
        (kubelet("node_cpu_usage_seconds_total"), now - 15_000, 100.0),
        (kubelet("node_cpu_usage_seconds_total"), now, 107.5),
        (kubelet("node_memory_working_set_bytes"), now, 4096.0),
    ];
    let (status, answer) = post(&cell.routers[0].address, &remote::send::request(samples)).unwrap();
    assert_eq!(status, 204, "{answer}");
    cell.until_drained();

    let nodes = |cell: &Cell| {
        let (status, body) = get(&format!("{}/apis/metrics.k8s.io/v1beta1/nodes", cell.querier.url()), &[]);
        (status, serde_json::from_str::<Value>(&body).unwrap_or_default())
    };
    let (status, list) = nodes(&cell);
    assert_eq!((status, &list["items"][0]["usage"]["cpu"]), (200, &Value::from("500m")), "{list}");
    assert_eq!(list["items"][0]["usage"]["memory"], "4Ki");

    // Half of the objects would be taken for all of them.
    cell.shards[1].kill();
    let (status, refused) = nodes(&cell);
    assert_eq!((status, &refused["kind"]), (503, &Value::from("Status")), "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("shard s1"), "{refused}");
}

/// A request with a sample and an exemplar of each series.
fn with_exemplars(series: std::ops::Range<usize>, ts: i64) -> Vec<u8> {
    let one = |at: usize| {
        let trace = format!("t{at}");
        let label = bytes(1, &[bytes(1, b"trace_id"), bytes(2, trace.as_bytes())].concat());
        let exemplar = bytes(3, &[label, double(2, 0.25), int(3, ts)].concat());
        let labels = labels(at);
        let labels: Vec<(&str, &[u8])> =
            labels.iter().map(|(name, value)| (name, value.as_bytes())).collect();
        first(&labels, &[samples(&[(ts, 1.0)]), exemplar].concat())
    };
    snappy(&series.flat_map(one).collect::<Vec<u8>>())
}

#[test]
fn exemplars_are_read_from_shards_once_each() {
    let dir = tempfile::tempdir().unwrap();
    let mut cell = Cell::start(dir.path(), 3, 1, 2);
    let now = now_ms();
    for ts in [now - 1_000, now] {
        let (status, answer) = post(&cell.routers[0].address, &with_exemplars(0..SERIES, ts)).unwrap();
        assert_eq!(status, 204, "{answer}");
    }
    cell.until_drained();
    let ask = |cell: &Cell, what: &str| {
        let (start, end) = ((now - 500) / 1000, now / 1000 + 1);
        let url = format!("{}/api/v1/query_exemplars?start={start}&end={end}{what}", cell.querier.url());
        let (status, body) = get(&url, &[]);
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let query = format!("&query={}", escape("rate(x{number=~\".+\"}[5m]) / x{number=\"1\"}"));
    let check = |cell: &Cell| {
        let (status, answer) = ask(cell, &format!("{query}&partial_response=false"));
        assert_eq!((status, &answer["warnings"]), (200, &Value::Null), "{answer}");
        let all = answer["data"].as_array().unwrap();
        assert_eq!(all.len(), SERIES, "{answer}");
        for series in all {
            let own = series["exemplars"].as_array().unwrap();
            let trace = format!("t{}", series["seriesLabels"]["number"].as_str().unwrap());
            let newest: Vec<_> = own.iter().filter(|one| milliseconds(&one["timestamp"]) == now).collect();
            assert_eq!(newest.len(), 1, "{series}");
            assert_eq!(
                (&newest[0]["value"], &newest[0]["labels"]["trace_id"]),
                (&"0.25".into(), &trace.into())
            );
        }
    };
    check(&cell);
    // Each slot has another copy; then some have none.
    cell.shards[0].kill();
    check(&cell);
    cell.shards[2].kill();
    let (status, answer) = ask(&cell, &query);
    let warnings = answer["warnings"].to_string();
    assert!(status == 200 && warnings.contains("shard s2 does not answer"), "{answer}");
    assert!(!answer["data"].as_array().unwrap().is_empty(), "{answer}");
    let (status, answer) = ask(&cell, &format!("{query}&partial_response=false"));
    assert_eq!((status, &answer["errorType"]), (503, &Value::from("unavailable")), "{answer}");
    // Back from its log, it has them still.
    cell.shards[0].start();
    cell.shards[2].start();
    check(&cell);
}

#[test]
fn an_agent_answers_no_queries() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Server::start(dir.path(), &["--kubernetes=off", "--agent"]);
    let (status, body) = agent.get("/api/v1/query?query=up");
    assert_eq!((status, body.contains("unavailable with Prometheus Agent")), (422, true), "{body}");
    assert_eq!(agent.get("/api/v1/targets").0, 200);
    assert_eq!(agent.get("/federate?match[]=up").0, 500);
    assert_eq!(agent.get("/-/ready").0, 200);
}
