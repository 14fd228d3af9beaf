//! Start times come back wherever the samples have been.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use model::{HistogramValue, IntHistogram, Labels, Querier, Samples, Selection, TimeRange};
use proptest::prelude::*;
use tsdb::disk::memory::Memory;
use tsdb::{Db, FloatChunks, Options};

const SERIES: [&str; 3] = ["float", "histogram", "plain"];

fn options(float_chunks: FloatChunks) -> Options {
    Options {
        retention_ms: None,
        block_range_ms: 6_000,
        out_of_order_window_ms: 2_000,
        wal_segment_bytes_max: 33_000,
        float_chunks,
        ..Options::default()
    }
}

fn open(disk: &Memory, float_chunks: FloatChunks) -> Db {
    let options = options(float_chunks);
    Db::open_on(Arc::new(disk.clone()), Path::new("/data"), options, &mut |_| {}).unwrap()
}

/// By name and time: the start time, 0 where it is unknown.
type Starts = BTreeMap<(String, i64), i64>;

fn read(db: &Db) -> Starts {
    let (snapshot, mut samples, mut starts) = (db.snapshot(), Samples::default(), Starts::new());
    let set = snapshot.select(&Selection::new(&[], TimeRange::ALL)).unwrap();
    for index in 0..set.len() {
        let name = set.labels(index).get("__name__").unwrap().to_owned();
        set.samples(index, TimeRange::ALL, &mut samples).unwrap();
        let columns =
            [(&samples.ts, &samples.start_ts), (&samples.histogram_ts, &samples.histogram_start_ts)];
        for (times, known) in columns {
            assert!(known.is_empty() || known.len() == times.len());
            for (at, &ts) in times.iter().enumerate() {
                starts.insert((name.clone(), ts), known.get(at).copied().unwrap_or(0));
            }
        }
    }
    starts
}

/// Appends to all series; returns what was stored.
fn commit(db: &Db, samples: &[(i64, i64)], stored: &mut Starts) {
    for &(ts, start) in samples {
        let mut batch = db.appender();
        for name in SERIES {
            let series = batch.series(&Labels::from_pairs([("__name__", name)])).unwrap();
            let histogram = HistogramValue::Int(IntHistogram {
                count: ts.unsigned_abs(),
                zero_count: ts.unsigned_abs(),
                ..IntHistogram::default()
            });
            let start = if name == "plain" { 0 } else { start };
            let added = match name {
                "histogram" => batch.append_histogram_started(series, (ts, start), &histogram),
                _ => batch.append_started(series, (ts, start), ts as f64),
            };
            if added.is_ok() {
                stored.entry((name.to_owned(), ts)).or_insert(start);
            }
        }
        batch.commit().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn start_times_survive_log_blocks_and_compaction(
        steps in prop::collection::vec(
            (
                prop::collection::vec(
                    (prop_oneof![4 => 1i64..60, 1 => -1_500i64..0], prop::option::of(0i64..3_000)),
                    1..60,
                ),
                0u8..6,
            ),
            1..20,
        ),
    ) {
        let disk = Memory::new();
        let mut db = open(&disk, FloatChunks::Xor2);
        let (mut now, mut start, mut stored) = (100_000, 0, Starts::new());
        for (samples, then) in steps {
            let mut batch = Vec::new();
            for (after, new) in samples {
                let ts = now + after;
                now = now.max(ts);
                start = new.map_or(start, |back| ts - back);
                batch.push((ts, start));
            }
            commit(&db, &batch, &mut stored);
            match then {
                0 => drop(db.maintain(now).unwrap()),
                1 => drop(db.cut_head().unwrap()),
                2 => {
                    drop(db);
                    db = open(&disk, FloatChunks::Xor2);
                }
                _ => {}
            }
            prop_assert_eq!(read(&db), stored.clone());
        }
    }
}

#[test]
fn without_the_option_start_times_are_forgotten_and_old_chunks_are_read() {
    let disk = Memory::new();
    let mut stored = Starts::new();
    let samples = |from: i64| (from..from + 200).map(|n| (n * 10, n * 10 - 5)).collect::<Vec<_>>();
    let db = open(&disk, FloatChunks::Xor2);
    commit(&db, &samples(0), &mut stored);
    db.cut_head().unwrap();
    commit(&db, &samples(200), &mut stored);
    assert_eq!(read(&db), stored);
    drop(db);
    let db = open(&disk, FloatChunks::Xor);
    let found = read(&db);
    assert_eq!(found.len(), stored.len());
    let block = |(key, _): &(&(String, i64), &i64)| key.1 < 2_000;
    assert!(found.iter().zip(&stored).filter(|(found, _)| block(found)).all(|(a, b)| a == b));
    commit(&db, &samples(400), &mut stored);
    let found = read(&db);
    assert!(found.iter().filter(|(key, _)| key.1 >= 4_000).all(|(_, &start)| start == 0));
    assert_eq!(found.len(), stored.len());
}
