//! Following the log.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{HistogramValue, IntHistogram, Labels, Matcher, TimeRange};
use tsdb::{Db, Exemplar, FloatChunks, LogOnly, Logged, Metadata, MetricKind, Options, Position, Tail};

fn labels(n: usize) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("n", &n.to_string())])
}

fn commit(db: &Db, series: std::ops::Range<usize>, ts: i64) {
    let mut batch = db.appender();
    for n in series {
        let series = batch.series(&labels(n)).unwrap();
        batch.append(series, ts, ts as f64).unwrap();
    }
    batch.commit().unwrap();
}

/// What a sender would send.
#[derive(Default)]
struct Sent {
    names: BTreeMap<u64, Labels>,
    samples: BTreeMap<(String, i64), u64>,
    skipped: usize,
    exemplars: usize,
    metadata: usize,
}

impl Sent {
    fn take_all(&mut self, tail: &mut Tail) {
        while let Some(logged) = tail.read().unwrap() {
            match logged {
                Logged::Series(entries) => self.names.extend(entries),
                Logged::Samples(entries) => {
                    for (series, (ts, start), value) in entries {
                        assert_eq!(start, 0, "none is kept here");
                        let name = self.names[&series].to_string();
                        assert!(self.samples.insert((name, ts), value.to_bits()).is_none(), "sent twice");
                    }
                }
                Logged::Histograms(_) => unreachable!("there are none"),
                Logged::Exemplars(entries) => self.exemplars += entries.len(),
                Logged::Metadata(entries) => self.metadata += entries.len(),
                Logged::Skipped { from, to } => {
                    assert!(from < to);
                    self.skipped += 1;
                }
            }
        }
    }
}

fn options() -> Options {
    Options { retention_ms: None, wal_segment_bytes_max: 70_000, ..Options::default() }
}

#[test]
fn everything_committed_is_yielded_once_over_segments_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), options()).unwrap();
    let (mut tail, mut sent) = (db.tail(None).unwrap(), Sent::default());
    assert!(!tail.wait(Duration::ZERO));
    let mut expected = BTreeMap::new();
    let mut expect = |series: std::ops::Range<usize>, ts: i64| {
        expected.extend(series.map(|n| ((labels(n).to_string(), ts), (ts as f64).to_bits())));
    };
    for ts in 1..40 {
        commit(&db, 0..700, ts);
        expect(0..700, ts);
        if ts % 3 == 0 {
            assert!(tail.wait(Duration::ZERO));
            sent.take_all(&mut tail);
        }
    }
    sent.take_all(&mut tail);
    let position = tail.position();
    assert!(position.segment > 0, "{position:?}");
    commit(&db, 600..800, 50);
    expect(600..800, 50);
    drop((tail, db));

    let db = Db::open(dir.path(), options()).unwrap();
    commit(&db, 0..800, 60);
    expect(0..800, 60);
    let mut tail = db.tail(Some(position)).unwrap();
    sent.names.clear();
    sent.take_all(&mut tail);
    assert_eq!((sent.skipped, sent.samples == expected), (0, true));
    assert!(!tail.wait(Duration::from_millis(1)));
}

#[test]
fn what_a_checkpoint_took_is_said_and_names_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), options()).unwrap();
    let mut behind = db.tail(Some(Position::default())).unwrap();
    for step in 0..60 {
        commit(&db, 0..1000, step * 600_000);
        db.maintain(step * 600_000).unwrap();
    }
    let mut sent = Sent::default();
    sent.take_all(&mut behind);
    assert_eq!(sent.skipped, 1);
    let newest = (labels(999).to_string(), 59 * 600_000);
    assert!(sent.samples.contains_key(&newest));
    assert!(!sent.samples.contains_key(&(labels(0).to_string(), 0)));
}

#[test]
fn late_samples_are_told_once_whatever_becomes_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { out_of_order_window_ms: 100 * 60_000, ..options() };
    let db = Db::open(dir.path(), options()).unwrap();
    let (mut tail, mut sent, mut expected) = (db.tail(None).unwrap(), Sent::default(), BTreeMap::new());
    let mut add = |db: &Db, entries: &[(usize, i64)]| {
        let mut batch = db.appender();
        for &(n, ts) in entries {
            let series = batch.series(&labels(n)).unwrap();
            batch.append(series, ts, ts as f64).unwrap();
            expected.insert((labels(n).to_string(), ts), (ts as f64).to_bits());
        }
        batch.commit().unwrap();
    };
    let minute = 60_000;
    // A late sample beside new ones, twice in one batch, alone, and of a series that has nothing else.
    add(&db, &[(0, 200 * minute), (1, 200 * minute)]);
    add(&db, &[(0, 201 * minute), (0, 150 * minute), (0, 150 * minute)]);
    add(&db, &[(1, 110 * minute)]);
    add(&db, &[(2, 120 * minute)]);
    sent.take_all(&mut tail);
    let position = tail.position();
    drop((tail, db));

    // These come before it is known that they are late.
    let db = Db::open_at_once(dir.path(), options(), &mut |_| {}).unwrap();
    add(&db, &[(0, 199 * minute), (1, 203 * minute)]);
    add(&db, &[(1, 180 * minute)]);
    db.attach_history(&mut |_| {}).unwrap();
    let mut tail = db.tail(Some(position)).unwrap();
    sent.take_all(&mut tail);
    db.cut_head().unwrap();
    add(&db, &[(3, 202 * minute), (0, 204 * minute)]);
    sent.take_all(&mut tail);
    let position = tail.position();
    drop((tail, db));
    let db = Db::open(dir.path(), options()).unwrap();
    sent.take_all(&mut db.tail(Some(position)).unwrap());
    assert_eq!((sent.skipped, sent.samples == expected), (0, true));
    let there: usize = super::reading::all(&db.snapshot()).values().map(Vec::len).sum();
    assert_eq!(there, expected.len());
}

#[test]
fn a_waiting_reader_is_woken() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), options()).unwrap();
    let mut tail = db.tail(None).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            assert!(tail.wait(Duration::from_secs(60)));
            let mut sent = Sent::default();
            sent.take_all(&mut tail);
            sent.samples.len()
        });
        commit(&db, 0..1, 1);
        assert_eq!(reader.join().unwrap(), 1);
    });
}

#[test]
fn metadata_and_exemplars_survive_restarts_and_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), options()).unwrap();
    let metadata = |help: &str| Metadata {
        kind: MetricKind::Counter,
        unit: "seconds".to_owned(),
        help: help.to_owned(),
    };
    let exemplar = Exemplar { labels: Labels::from_pairs([("trace", "x")]), ts: 1, value: 2.0 };
    let mut tail = db.tail(None).unwrap();
    for help in ["old", "old", "new"] {
        let mut batch = db.appender();
        let series = batch.series(&labels(1)).unwrap();
        batch.metadata(series, &metadata(help)).unwrap();
        batch.append_exemplar(series, &exemplar).unwrap();
        batch.commit().unwrap();
    }
    let mut sent = Sent::default();
    sent.take_all(&mut tail);
    assert_eq!((sent.metadata, sent.exemplars), (2, 1));
    let check = |db: &Db| {
        assert_eq!(db.metadata(&[Matcher::equal("n", "1")]), [(labels(1), metadata("new"))]);
    };
    check(&db);
    drop((tail, db));
    let db = Db::open(dir.path(), options()).unwrap();
    check(&db);
    assert_eq!(db.exemplars(&[vec![]], TimeRange::ALL), [(labels(1), vec![exemplar])]);
    for step in 0..60 {
        commit(&db, 0..1000, step * 600_000);
        db.maintain(step * 600_000).unwrap();
    }
    let checkpoints = std::fs::read_dir(dir.path().join("wal")).unwrap();
    let names = checkpoints.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().any(|name| name.starts_with("checkpoint.")));
    drop(db);
    check(&Db::open(dir.path(), options()).unwrap());
}

#[test]
fn start_times_are_told_where_they_are_kept() {
    for (log_only, float_chunks) in
        [(None, FloatChunks::Xor2), (Some(LogOnly::default()), FloatChunks::Xor2), (None, FloatChunks::Xor)]
    {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), Options { float_chunks, log_only, ..options() }).unwrap();
        let mut tail = db.tail(None).unwrap();
        let histogram = HistogramValue::Int(IntHistogram::default());
        for (ts, start) in [(1_000, 500), (2_000, 500), (3_000, 0), (4_000, 3_500)] {
            let mut batch = db.appender();
            let series = batch.series(&labels(1)).unwrap();
            batch.append_started(series, (ts, start), 1.0).unwrap();
            let series = batch.series(&labels(2)).unwrap();
            batch.append_histogram_started(series, (ts, start), &histogram).unwrap();
            batch.commit().unwrap();
        }
        let mut told = (Vec::new(), Vec::new());
        while let Some(logged) = tail.read().unwrap() {
            match logged {
                Logged::Samples(entries) => told.0.extend(entries.into_iter().map(|entry| entry.1)),
                Logged::Histograms(entries) => told.1.extend(entries.into_iter().map(|entry| entry.1)),
                _ => {}
            }
        }
        let known = |start| if float_chunks == FloatChunks::Xor2 { start } else { 0 };
        let expected = [(1_000, known(500)), (2_000, known(500)), (3_000, 0), (4_000, known(3_500))];
        assert_eq!((told.0.as_slice(), told.1.as_slice()), (&expected[..], &expected[..]));
    }
}
