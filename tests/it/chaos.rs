//! What a network and a disk do to a cell: connections that go silent and come back with what they held, a spool that
//! is full, batches that come twice, late and by old maps. Each by seed; what was acknowledged is found once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::process::{Server, escape};
use crate::shards::{Cell, Key, Log, SERIES, check, labels, milliseconds, now_ms, value, watch, write};
use remote::router::{EPOCH_HEADER, ROUTER_HEADER, SEQ_HEADER, SHARD_WRITE_PATH};

/// Numbers that look random, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A place on the way to a server. While it is silent it takes what comes and keeps it; afterwards it goes on, as TCP
/// does when a cable is plugged in again.
struct Proxy {
    address: String,
    silent: Arc<AtomicBool>,
}

impl Proxy {
    fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (silent, server) = (Arc::new(AtomicBool::new(false)), server.to_owned());
        let quiet = Arc::clone(&silent);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&server) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let quiet = Arc::clone(&quiet);
                    std::thread::spawn(move || forward(from, to, &quiet));
                }
            }
        });
        Self { address, silent }
    }

    fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, silent: &AtomicBool) {
    let mut buffer = [0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        while silent.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            let _ = (to.shutdown(Shutdown::Write), from.shutdown(Shutdown::Read));
            return;
        }
    }
}

#[test]
fn a_shard_that_is_cut_off_and_comes_back_loses_nothing_and_has_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut proxies = Vec::new();
    let cell = Cell::start_by(dir.path(), (3, 2, 2), &[], &mut |shard| {
        proxies.push(Proxy::before(&shard.address));
        format!("http://{}", proxies[proxies.len() - 1].address)
    });
    let (log, stop) = (Mutex::new(Log::default()), AtomicBool::new(false));
    let routers: Vec<String> = cell.routers.iter().map(|router| router.address.clone()).collect();
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| write(&routers, &log, &stop, 11));
        scope.spawn(|| {
            let mut random = Random(5);
            for _ in 0..5 {
                std::thread::sleep(Duration::from_millis(500 + random.below(700)));
                let proxy = &proxies[usize::try_from(random.below(3)).unwrap()];
                proxy.set_silent(true);
                // Shorter and longer than a router's patience with a shard.
                std::thread::sleep(Duration::from_millis(300 + random.below(1_500)));
                proxy.set_silent(false);
            }
        });
        let seen = watch(&cell, &log, Instant::now(), Duration::from_secs(11));
        stop.store(true, Ordering::Relaxed);
        seen
    });
    check(&cell, &log);
    println!("{} complete answers, {} with warnings", seen.0, seen.1);
    assert!(seen.0 > 5, "{seen:?}");
}

#[test]
fn a_full_spool_puts_writers_off_until_the_shard_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut cell =
        Cell::start_by(dir.path(), (2, 1, 1), &["--router.spool-size=48KB"], &mut |shard| shard.url());
    let log = Mutex::new(Log::default());
    let routers = [cell.routers[0].address.clone()];
    let write_until = |seed: u64, done: &dyn Fn(&Log) -> bool| {
        let (stop, deadline) = (AtomicBool::new(false), Instant::now() + Duration::from_secs(30));
        std::thread::scope(|scope| {
            scope.spawn(|| write(&routers, &log, &stop, seed));
            while !done(&log.lock().unwrap()) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(done(&log.lock().unwrap()), "in vain");
    };
    write_until(1, &|log| log.acknowledged.len() > 10 * SERIES);
    cell.shards[1].kill();
    write_until(2, &|log| log.put_off >= 5);
    let (held, put_off) = {
        let log = log.lock().unwrap();
        (log.acknowledged.len(), log.put_off)
    };
    assert!(held > 12 * SERIES, "some were held: {held}");
    cell.shards[1].start();
    cell.until_drained();
    // From here on everything is taken again.
    write_until(3, &|log| log.acknowledged.len() > held + 20 * SERIES);
    assert!(log.lock().unwrap().put_off <= put_off + 1);
    check(&cell, &log);
}

/// A request of a router to a shard, as the network may deliver it: at any time, and more than once.
struct Delivery {
    epoch: u64,
    seq: u64,
    keys: Vec<Key>,
}

fn deliver(address: &str, router: &str, delivery: &Delivery) -> u16 {
    let body = remote::send::request(delivery.keys.iter().map(|key| (labels(key.0), key.1, value(*key))));
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST {SHARD_WRITE_PATH} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/x-protobuf\r\n\
         Content-Encoding: snappy\r\n{ROUTER_HEADER}: {router}\r\n{EPOCH_HEADER}: {}\r\n{SEQ_HEADER}: {}\r\n\
         Content-Length: {}\r\n\r\n",
        delivery.epoch,
        delivery.seq,
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// All samples of a server, by series and time; none twice.
fn samples(server: &Server) -> BTreeMap<Key, f64> {
    let answer = server.json(&format!("/api/v1/query?query={}", escape("x[30m]")));
    let mut found = BTreeMap::new();
    for row in answer["data"]["result"].as_array().unwrap() {
        let series = row["metric"]["number"].as_str().unwrap().parse().unwrap();
        for pair in row["values"].as_array().unwrap() {
            let sample = pair[1].as_str().unwrap().parse::<f64>().unwrap();
            assert_eq!(found.insert((series, milliseconds(&pair[0])), sample), None);
        }
    }
    found
}

#[test]
fn batches_may_come_twice_late_and_by_old_maps() {
    for seed in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let shard = Server::start(dir.path(), &["--kubernetes=off", "--role=shard"]);
        shard.wait_for_history();
        let address = shard.url.trim_start_matches("http://").to_owned();
        let mut random = Random(seed);
        let start = now_ms() - 200_000;
        let mut waiting: Vec<Delivery> = Vec::new();
        let (mut wanted, mut refused, mut repeated) = (BTreeSet::new(), BTreeSet::new(), 0);
        let mut heard = 0;
        for seq in 1..=150u64 {
            // The map changes now and then; a router may not have heard of it.
            let newest = 1 + seq / 40;
            let epoch = newest - random.below(4).saturating_sub(2).min(newest - 1);
            let ts = start + i64::try_from(seq).unwrap() * 1_000;
            let keys = (0..5).map(|at| (at * 3 + usize::try_from(seq % 3).unwrap(), ts)).collect();
            waiting.push(Delivery { epoch, seq, keys });
            while waiting.len() > 6 || seq == 150 && !waiting.is_empty() {
                let at = usize::try_from(random.below(waiting.len() as u64)).unwrap();
                let delivery = &waiting[at];
                let status = deliver(&address, "r", delivery);
                if delivery.epoch < heard {
                    assert_eq!(status, 409, "seed {seed}: {} after {heard}", delivery.epoch);
                    // A good router reads the map and sends it again, under a new number; one in three has died.
                    if random.below(3) == 0 {
                        refused.extend(waiting.remove(at).keys);
                    } else {
                        waiting[at].epoch = heard;
                        waiting[at].seq += 1_000;
                    }
                    continue;
                }
                heard = delivery.epoch;
                assert_eq!(status, 204, "seed {seed}");
                wanted.extend(delivery.keys.iter().copied());
                if random.below(3) > 0 {
                    waiting.remove(at);
                } else {
                    repeated += 1;
                }
            }
        }
        let found = samples(&shard);
        assert!(
            repeated > 20 && !refused.is_empty(),
            "seed {seed}: {repeated} repeated, {} refused",
            refused.len()
        );
        assert_eq!(found.keys().copied().collect::<BTreeSet<_>>(), wanted, "seed {seed}");
        assert!(found.iter().all(|(key, found)| found.to_bits() == value(*key).to_bits()), "seed {seed}");
    }
}
