mod shard;
mod split;
mod spool;

use std::sync::Arc;
use std::time::Duration;

use model::Labels;
use parking_lot::Mutex;

use super::*;
use crate::slots::Place;
use shard::FakeShard;
use tsdb::disk::memory::Memory;

const V1: Encoding = Encoding { protocol: Protocol::V1, compression: Compression::Snappy };

fn now() -> Timestamp {
    1_000_000
}

/// A router over fake shards whose map can be changed.
struct Cell {
    disk: Arc<Memory>,
    map: Arc<Mutex<SlotMap>>,
    router: Router,
}

fn options(disk: &Arc<Memory>, map: &Arc<Mutex<SlotMap>>) -> Options {
    let map = Arc::clone(map);
    // Only the first time; the others find it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Options {
        name: "r".to_owned(),
        spool_dir: "/spool".into(),
        spool_bytes_max: 1 << 20,
        timeout: Duration::from_millis(500),
        pairs: true,
        client: reqwest::Client::builder().no_proxy().build().unwrap(),
        disk: Arc::clone(disk) as Arc<dyn Disk>,
        read_map: Arc::new(move || Ok(map.lock().clone())),
        now,
    }
}

fn places(shards: &[FakeShard]) -> Vec<Place> {
    let place = |(at, shard): (usize, &FakeShard)| Place { name: format!("s{at}"), url: shard.url.clone() };
    shards.iter().enumerate().map(place).collect()
}

impl Cell {
    fn new(shards: &[FakeShard], replication: usize) -> Self {
        let map = SlotMap::first(places(shards), Vec::new(), replication).unwrap();
        Self::with_map(map)
    }

    fn with_map(map: SlotMap) -> Self {
        let (disk, map) = (Arc::new(Memory::new()), Arc::new(Mutex::new(map)));
        let router = Router::start(options(&disk, &map)).unwrap();
        Self { disk, map, router }
    }

    async fn write(&self, ts: i64) -> Result<Written, RouteError> {
        self.router.route(V1, crate::send::request(samples(ts)).into()).await
    }

    async fn until_drained(&self) {
        for _ in 0..600 {
            if self.router.backlog().shards.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        unreachable!("the spool does not drain: {:?}", self.router.stats());
    }
}

const SERIES: usize = 60;

fn samples(ts: i64) -> Vec<(Labels, i64, f64)> {
    let series = |at: usize| {
        let pod = format!("p{at}");
        Labels::from_pairs([("__name__", "x"), ("namespace", "n"), ("pod", pod.as_str())])
    };
    (0..SERIES).map(|at| (series(at), ts, at as f64)).collect()
}

/// How many shards have each series with all times.
fn copies(shards: &[FakeShard], times: &[i64]) -> Vec<usize> {
    let stored: Vec<_> = shards.iter().map(FakeShard::stored).collect();
    let has =
        |labels: &Labels| stored.iter().filter(|all| all.get(labels).is_some_and(|ts| ts == times)).count();
    samples(0).iter().map(|(labels, ..)| has(labels)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_series_reaches_all_its_owners_and_no_other_shard() {
    for replication in 1..=3 {
        let shards = [FakeShard::start().await, FakeShard::start().await, FakeShard::start().await];
        let cell = Cell::new(&shards, replication);
        for ts in [1_000, 2_000] {
            assert_eq!(cell.write(ts).await.unwrap().samples, SERIES as u64);
        }
        assert_eq!(copies(&shards, &[1_000, 2_000]), [replication; SERIES]);
        let map = cell.router.map();
        for (at, shard) in shards.iter().enumerate() {
            assert!(
                shard.stored().keys().all(|labels| map.writers(crate::slots::slot_of(labels)).contains(&at))
            );
        }
        assert_eq!(
            cell.router.stats().targets.iter().map(|t| t.samples).sum::<u64>(),
            120 * replication as u64
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_shard_misses_waits_on_disk_and_survives_a_restart() {
    let shards = [FakeShard::start().await, FakeShard::start().await];
    let cell = Cell::new(&shards, 2);
    cell.write(1_000).await.unwrap();
    shards[1].set(shard::Mode::Down);
    for ts in [2_000, 3_000] {
        assert_eq!(cell.write(ts).await.unwrap().samples, SERIES as u64);
    }
    let backlog = Backlog { shard: "s1".to_owned(), oldest: 2_000, newest: 3_000 };
    assert_eq!(cell.router.backlog().shards, std::slice::from_ref(&backlog));
    let Cell { disk, map, router } = cell;
    drop(router);
    let disk = Arc::new(disk.after_kill());
    let router = Router::start(options(&disk, &map)).unwrap();
    let cell = Cell { disk, map, router };
    assert_eq!(cell.router.backlog().shards, [backlog]);
    shards[1].set(shard::Mode::Up);
    cell.write(4_000).await.unwrap();
    cell.until_drained().await;
    assert_eq!(copies(&shards, &[1_000, 2_000, 3_000, 4_000]), [2; SERIES]);
    assert_eq!(cell.disk.files().len(), 0, "{:?}", cell.disk.files());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_too_late_stores_nothing_twice() {
    let shards = [FakeShard::start().await];
    let cell = Cell::new(&shards, 1);
    shards[0].set(shard::Mode::Late(Duration::from_millis(900)));
    cell.write(1_000).await.unwrap();
    shards[0].set(shard::Mode::Up);
    cell.until_drained().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(copies(&shards, &[1_000]), [1; SERIES]);
    assert_eq!(shards[0].repeated() + shards[0].requests(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_is_said_and_nothing_is_acknowledged() {
    let shards = [FakeShard::start().await, FakeShard::start().await];
    let map = SlotMap::first(places(&shards), Vec::new(), 1).unwrap();
    let (disk, map) = (Arc::new(Memory::new()), Arc::new(Mutex::new(map)));
    let router = Router::start(Options { spool_bytes_max: 4_000, ..options(&disk, &map) }).unwrap();
    let cell = Cell { disk, map, router };
    shards[0].set(shard::Mode::Down);
    let mut acknowledged = Vec::new();
    let mut refusals = 0;
    for ts in (1..40).map(|at| at * 1_000) {
        match cell.write(ts).await {
            Ok(_) => acknowledged.push(ts),
            Err(RouteError::Unavailable(why)) => {
                assert!(why.contains("s0") && why.contains("is full"), "{why}");
                refusals += 1;
            }
            Err(error) => unreachable!("{error}"),
        }
    }
    assert!(refusals > 5 && acknowledged.len() > 2, "{refusals} {acknowledged:?}");
    shards[0].set(shard::Mode::Up);
    cell.until_drained().await;
    // Whatever was acknowledged is there; of the rest, what the shard that was up took.
    let map = cell.router.map();
    for (labels, times) in shards[0].stored() {
        assert_eq!(map.writers(crate::slots::slot_of(&labels)), [0]);
        assert!(acknowledged.iter().all(|ts| times.contains(ts)), "{labels}: {times:?}");
    }
    assert_eq!(cell.write(99_000).await.unwrap().samples, SERIES as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_shard_refuses_is_counted_once_and_the_rest_stands() {
    let shards = [FakeShard::start().await, FakeShard::start().await];
    let cell = Cell::new(&shards, 2);
    cell.write(5_000).await.unwrap();
    let mut mixed = samples(6_000);
    mixed[3].1 = 1_000; // older than the window of the shards
    mixed[4].1 = 1_000;
    let error = cell.router.route(V1, crate::send::request(mixed).into()).await.unwrap_err();
    let RouteError::Receive(ReceiveError::Partial { refused, first, written }) = error else {
        unreachable!("{error}");
    };
    assert_eq!((refused, written.samples), (2, SERIES as u64 - 2));
    assert!(first.contains("too old") || first.contains("out of order"), "{first}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_with_an_old_map_reads_the_new_one() {
    let shards = [FakeShard::start().await, FakeShard::start().await];
    let cell = Cell::with_map(SlotMap::first(places(&shards[..1]), Vec::new(), 1).unwrap());
    cell.write(1_000).await.unwrap();
    let second = Place { name: "s1".to_owned(), url: shards[1].url.clone() };
    let next = cell.map.lock().with_shard(second, 2_000).unwrap();
    // The shard hears of the new map before the router does.
    shards[0].hear(2);
    *cell.map.lock() = next;
    cell.write(2_000).await.unwrap();
    assert_eq!(cell.router.map().epoch(), 2);
    assert_eq!(copies(&shards[..1], &[1_000, 2_000]), [1; SERIES]);
    let moved = shards[1].stored().len();
    assert!((20..40).contains(&moved), "{moved} series");
    // A map that this router cannot have yet.
    shards[0].hear(9);
    assert!(matches!(cell.write(3_000).await, Err(RouteError::Unavailable(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_goes_to_those_who_own_it_when_the_map_has_changed() {
    let shards = [FakeShard::start().await, FakeShard::start().await];
    let cell = Cell::with_map(SlotMap::first(places(&shards[..1]), Vec::new(), 1).unwrap());
    shards[0].set(shard::Mode::Down);
    cell.write(1_000).await.unwrap();
    let second = Place { name: "s1".to_owned(), url: shards[1].url.clone() };
    let moving = cell.map.lock().with_shard(second, 1_000).unwrap();
    *cell.map.lock() = moving;
    cell.router.reload().unwrap();
    shards[0].set(shard::Mode::Up);
    cell.until_drained().await;
    assert_eq!(copies(&shards[..1], &[1_000]), [1; SERIES]);
    let map = cell.router.map();
    let second =
        samples(0).iter().filter(|(l, ..)| map.writers(crate::slots::slot_of(l)).contains(&1)).count();
    assert_eq!(shards[1].stored().len(), second);
    assert!(second > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_a_pair_is_heard_and_both_are_told_that_it_is_written() {
    let shards = [FakeShard::start().await];
    let cell = Cell::new(&shards, 1);
    for (replica, ts) in [("a", 1_000), ("b", 1_005), ("a", 2_000)] {
        let with_pair = samples(ts).into_iter().map(|(labels, ts, value)| {
            let mut builder = labels.to_builder();
            builder.set("cluster", "c").set("__replica__", replica);
            (builder.build(), ts, value)
        });
        let body = crate::send::request(with_pair);
        assert_eq!(cell.router.route(V1, body.into()).await.unwrap().samples, SERIES as u64);
    }
    let stored = shards[0].stored();
    assert_eq!(stored.len(), SERIES);
    assert!(
        stored.iter().all(|(l, ts)| l.get("__replica__").is_none() && *ts == [1_000, 2_000]),
        "{stored:?}"
    );
    assert_eq!(cell.router.stats().duplicates, SERIES as u64);
}
