//! The face of encoded chunks says what the face of samples says.

use std::path::Path;
use std::sync::Arc;

use model::{
    FloatHistogram, HistogramValue, IntHistogram, Labels, Matcher, Querier, Samples, Selection, Span,
    TimeRange,
};
use proptest::prelude::*;
use tsdb::disk::Disk;
use tsdb::disk::memory::Memory;
use tsdb::{ChunkEncoding, Db, FloatChunks, Options, Snapshot};

const SERIES: u8 = 4;

#[derive(Clone, Debug)]
enum Step {
    /// A series, milliseconds since the newest, a number, and what is made of it.
    Commit(Vec<(u8, i64, u64, Kind)>),
    Maintain,
    Cut,
    Delete(u8, i64, i64),
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Float,
    Int,
    FloatHistogram,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Runs of one kind, so that there are chunks worth the name.
    let kind = prop_oneof![6 => Just(Kind::Float), 1 => Just(Kind::Int), 1 => Just(Kind::FloatHistogram)];
    let sample = (0..SERIES, prop_oneof![5 => 1i64..40, 1 => -3_000i64..0], any::<u64>());
    let commit = (kind, prop::collection::vec(sample, 1..80)).prop_map(|(kind, samples)| {
        Step::Commit(samples.into_iter().map(|(n, after, number)| (n, after, number, kind)).collect())
    });
    let step = prop_oneof![
        10 => commit,
        2 => Just(Step::Maintain),
        1 => Just(Step::Cut),
        1 => (0..SERIES, 0i64..5_000, 0i64..5_000).prop_map(|(n, a, b)| Step::Delete(n, a.max(b), a.min(b))),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..30)
}

fn labels(n: u8) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("n", &n.to_string())])
}

fn int(number: u64) -> IntHistogram {
    let (a, b) = (number % 50, number / 64 % 50);
    IntHistogram {
        count: a + b,
        sum: number as f64,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive: vec![a, b],
        ..IntHistogram::default()
    }
}

fn value(number: u64, kind: Kind) -> Option<HistogramValue> {
    match kind {
        Kind::Float => None,
        Kind::Int => Some(HistogramValue::Int(int(number))),
        Kind::FloatHistogram => {
            Some(HistogramValue::Float(FloatHistogram { zero_count: 0.5, ..int(number).to_float() }))
        }
    }
}

fn options(float_chunks: FloatChunks) -> Options {
    Options {
        float_chunks,
        retention_ms: None,
        block_range_ms: 4_000,
        out_of_order_window_ms: 3_000,
        ..Options::default()
    }
}

fn open(disk: &Memory, float_chunks: FloatChunks) -> Db {
    let options = options(float_chunks);
    Db::open_on(Arc::new(disk.clone()), Path::new("/data"), options, &mut |_| {}).unwrap()
}

fn commit(db: &Db, now: i64, samples: &[(u8, i64, u64, Kind)]) -> i64 {
    let (mut batch, mut newest) = (db.appender(), now);
    for &(n, after, number, kind) in samples {
        let series = batch.series(&labels(n)).unwrap();
        let ts = newest + after;
        // Whatever is refused is in neither face.
        let start = if number % 3 == 0 { 0 } else { ts / 500 * 500 };
        let added = match value(number, kind) {
            None => batch.append_started(series, (ts, start), f64::from_bits(number)),
            Some(histogram) => batch.append_histogram_started(series, (ts, start), &histogram),
        };
        newest = if added.is_ok() { newest.max(ts) } else { newest };
    }
    batch.commit().unwrap();
    newest
}

/// Compares both faces; returns how many chunks there were.
fn compare(snapshot: &Snapshot, range: TimeRange) -> usize {
    let selection = Selection::new(&[], range);
    let (samples, chunks) =
        (snapshot.select(&selection).unwrap(), snapshot.select_chunks(&selection).unwrap());
    assert_eq!(samples.len(), chunks.len());
    let (mut expected, mut count) = (Samples::default(), 0);
    for index in 0..samples.len() {
        assert_eq!(samples.labels(index), chunks.labels(index));
        samples.samples(index, range, &mut expected).unwrap();
        let (mut found, mut last) = (Samples::default(), i64::MIN);
        chunks
            .chunks(index, range, &mut |chunk| {
                assert!(last < chunk.min_ts, "chunks of {} overlap", chunks.labels(index));
                assert!(range.overlaps(TimeRange::new(chunk.min_ts, chunk.max_ts)));
                let mut all = Samples::default();
                chunk.decode(TimeRange::ALL, &mut all).unwrap();
                let times: Vec<i64> = all.iter().map(|sample| sample.ts).collect();
                assert_eq!((times.first(), times.last()), (Some(&chunk.min_ts), Some(&chunk.max_ts)));
                assert_eq!(chunk.encoding == ChunkEncoding::Xor, all.histogram_ts.is_empty());
                chunk.decode(range, &mut found).unwrap();
                (last, count) = (chunk.max_ts, count + 1);
            })
            .unwrap();
        let bits = |samples: &Samples| samples.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(found.ts, expected.ts);
        assert_eq!(bits(&found), bits(&expected));
        assert_eq!(found.histogram_ts, expected.histogram_ts);
        for (a, b) in found.histograms.iter().zip(&expected.histograms) {
            assert_eq!((a.count, a.sum.to_bits(), &a.positive), (b.count, b.sum.to_bits(), &b.positive));
        }
    }
    count
}

/// The head waits for a snapshot, but not for ever.
fn has_expired(snapshot: &Snapshot) -> bool {
    snapshot.select(&Selection::new(&[], TimeRange::ALL)).is_err()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn chunks_hold_the_samples(steps in steps(), a in 0i64..12_000, b in 0i64..12_000, xor2: bool) {
        let (disk, float_chunks) = (Memory::new(), if xor2 { FloatChunks::Xor2 } else { FloatChunks::Xor });
        let (mut db, mut now, mut older) = (open(&disk, float_chunks), 100_000, None);
        for (at, step) in steps.iter().enumerate() {
            match step {
                Step::Commit(samples) => now = commit(&db, now, samples),
                Step::Maintain => drop(db.maintain(now).unwrap()),
                Step::Cut => drop(db.cut_head().unwrap()),
                &Step::Delete(n, from, to) => {
                    let range = TimeRange::new(now - from, now - to);
                    db.delete(&[Matcher::equal("n", &n.to_string())], range).unwrap();
                }
                Step::Reopen => {
                    drop((older.take(), db));
                    db = open(&disk, float_chunks);
                }
            }
            let snapshot = db.snapshot();
            compare(&snapshot, TimeRange::ALL);
            compare(&snapshot, TimeRange::new(now - a.max(b), now - a.min(b)));
            if at % 4 == 0 {
                older = Some(snapshot);
            } else if let Some(old) = older.take_if(|old| has_expired(old)) {
                assert!(old.select_chunks(&Selection::new(&[], TimeRange::ALL)).is_err());
            } else if let Some(old) = &older {
                compare(old, TimeRange::ALL);
            }
        }
    }
}

#[test]
fn what_nothing_has_touched_is_handed_on_byte_by_byte() {
    let disk = Memory::new();
    let options = Options { retention_ms: None, ..Options::default() };
    let db = Db::open_on(Arc::new(disk.clone()), Path::new("/data"), options, &mut |_| {}).unwrap();
    for step in 0..2_000 {
        let mut batch = db.appender();
        let series = batch.series(&labels(1)).unwrap();
        batch.append(series, step * 15_000, (step * step) as f64).unwrap();
        batch.commit().unwrap();
    }
    db.maintain(0).unwrap();
    assert!(!db.blocks().is_empty());
    let snapshot = db.snapshot();
    let set = snapshot.select_chunks(&Selection::new(&[], TimeRange::ALL)).unwrap();
    let mut files = Vec::new();
    for (path, _) in disk.files() {
        let name = path.to_string_lossy();
        if name.contains("chunks/") || name.contains("chunks_head/") {
            files.push(disk.read(&path).unwrap());
        }
    }
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    set.chunks(0, TimeRange::ALL, &mut |chunk| chunks.push(chunk.bytes.to_vec())).unwrap();
    assert!((16..25).contains(&chunks.len()), "{}", chunks.len());
    let stored =
        |chunk: &Vec<u8>| files.iter().any(|file| file.windows(chunk.len()).any(|part| part == chunk));
    assert!(chunks[..chunks.len() - 1].iter().all(stored), "only the open chunk is nowhere on disk");
    assert_eq!(compare(&snapshot, TimeRange::ALL), chunks.len());
    // A range asks for chunks, not for samples.
    let mut few = 0;
    set.chunks(0, TimeRange::new(15_000, 16_000), &mut |chunk| {
        assert_eq!(chunk.bytes, chunks[0]);
        few += 1;
    })
    .unwrap();
    assert_eq!(few, 1);
    // A deletion within a chunk leaves the others as they are.
    db.delete(&[], TimeRange::new(30_000, 40_000)).unwrap();
    let snapshot = db.snapshot();
    let set = snapshot.select_chunks(&Selection::new(&[], TimeRange::ALL)).unwrap();
    let mut after: Vec<Vec<u8>> = Vec::new();
    set.chunks(0, TimeRange::ALL, &mut |chunk| after.push(chunk.bytes.to_vec())).unwrap();
    assert_ne!(after[0], chunks[0]);
    assert_eq!(after[1..], chunks[1..]);
}
