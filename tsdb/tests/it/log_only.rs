//! A log without a head, as an agent has it.

use std::collections::BTreeMap;
use std::path::Path;

use model::{HistogramValue, IntHistogram, Labels, Querier as _, Selection, StorageError, TimeRange};
use tsdb::{AppendError, Db, FloatChunks, LogOnly, Logged, Metadata, MetricKind, Options, Position, Tail};

const MIN: i64 = 60_000;

fn options() -> Options {
    Options { log_only: Some(LogOnly::default()), ..Options::default() }
}

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

/// What a follower of the log hears.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) names: BTreeMap<u64, Labels>,
    /// Series and time, with the value.
    pub(super) samples: Vec<(String, i64, f64)>,
    pub(super) histograms: usize,
    pub(super) skipped: usize,
}

impl Heard {
    pub(super) fn all(tail: &mut Tail) -> Self {
        let mut heard = Self::default();
        while let Some(logged) = tail.read().unwrap() {
            match logged {
                Logged::Series(entries) => heard.names.extend(entries),
                Logged::Samples(entries) => {
                    let named =
                        entries.iter().map(|(n, (ts, _), value)| (heard.names[n].to_string(), *ts, *value));
                    heard.samples.extend(named);
                }
                Logged::Histograms(entries) => heard.histograms += entries.len(),
                Logged::Skipped { .. } => heard.skipped += 1,
                Logged::Exemplars(_) | Logged::Metadata(_) => {}
            }
        }
        heard
    }
}

fn segments(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir.join("wal")).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn nothing_but_a_log_is_written_and_nothing_can_be_selected() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), options()).unwrap();
    let mut tail = db.tail(None).unwrap();
    for step in 0..300 {
        commit(&db, 0..20, step * MIN);
        db.maintain(step * MIN).unwrap();
    }
    db.cut_head().unwrap();
    let snapshot = db.snapshot();
    let refused = snapshot.select(&Selection::new(&[], TimeRange::ALL)).err();
    assert!(matches!(refused, Some(StorageError::Unavailable(what)) if what.contains("a log only")));
    assert_eq!(snapshot.label_values("n", &[], TimeRange::ALL, 0).unwrap(), [""; 0]);
    let stats = db.stats();
    assert_eq!((stats.head_series, stats.head_chunks, stats.blocks), (20, 0, 0));
    assert_eq!(Heard::all(&mut tail).samples.len(), 20 * 300);
    drop((snapshot, tail, db));
    let left = std::fs::read_dir(dir.path()).unwrap();
    let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["lock", "wal", "wal-names"]);
}

#[test]
fn order_is_kept_also_over_restarts_and_late_samples_go_to_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let window = |out_of_order_window_ms| Options { out_of_order_window_ms, ..options() };
    let db = Db::open(dir.path(), window(0)).unwrap();
    commit(&db, 0..3, 10_000);
    drop(db);
    let db = Db::open(dir.path(), window(5_000)).unwrap();
    let mut tail = db.tail(None).unwrap();
    let mut batch = db.appender();
    let series = batch.series(&labels(1)).unwrap();
    batch.append(series, 10_000, 10_000.0).unwrap();
    assert_eq!(batch.append(series, 10_000, 7.0), Err(AppendError::Duplicate));
    assert_eq!(batch.append(series, 4_999, 7.0), Err(AppendError::OutOfOrder));
    batch.append(series, 5_000, 7.0).unwrap();
    batch.commit().unwrap();
    let mut batch = db.appender();
    assert_eq!(batch.append(series, 9_999, 8.0), Ok(()));
    // The newest stays the newest.
    assert_eq!(batch.append(series, 4_999, 7.0), Err(AppendError::OutOfOrder));
    batch.append(series, 12_000, 9.0).unwrap();
    batch.commit().unwrap();
    let name = labels(1).to_string();
    let heard = [(5_000, 7.0), (9_999, 8.0), (12_000, 9.0)].map(|(ts, value)| (name.clone(), ts, value));
    assert_eq!(Heard::all(&mut tail).samples, heard);
    assert_eq!(db.stats().samples_out_of_order, 2);
    assert!(!dir.path().join("wbl").exists());
}

#[test]
fn histograms_markers_and_metadata_are_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options { float_chunks: FloatChunks::Xor2, ..options() }).unwrap();
    let mut tail = db.tail(None).unwrap();
    let mut batch = db.appender();
    let series = batch.series(&labels(1)).unwrap();
    let value = HistogramValue::Int(IntHistogram { sum: 1.0, ..IntHistogram::default() });
    batch.append_histogram_started(series, (1_000, 500), &value).unwrap();
    batch.metadata(series, &Metadata { kind: MetricKind::Counter, ..Metadata::default() }).unwrap();
    batch.commit().unwrap();
    let mut batch = db.appender();
    batch.append(series, 2_000, f64::from_bits(model::STALE_NAN)).unwrap();
    batch.commit().unwrap();
    let heard = Heard::all(&mut tail);
    assert_eq!((heard.histograms, heard.samples.len()), (1, 1));
    assert!(model::is_stale_nan(heard.samples[0].2));
}

#[test]
fn the_log_goes_when_it_is_read_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), options()).unwrap();
    let mut tail = db.tail(None).unwrap();
    // Nobody has said that anything is read: at three hours everything is there.
    for step in 0..180 {
        commit(&db, 0..10, step * MIN);
        db.maintain(step * MIN).unwrap();
    }
    assert_eq!(segments(dir.path()), ["00000000", "00000001"]);
    // What is read of the ended segment is not enough, all of it is.
    db.keep_log_from(Some(Position { segment: 0, offset: 100 }));
    db.maintain(181 * MIN).unwrap();
    assert_eq!(segments(dir.path()), ["00000000", "00000001"]);
    assert_eq!(Heard::all(&mut tail).samples.len(), 1800);
    db.keep_log_from(Some(tail.position()));
    db.maintain(190 * MIN).unwrap();
    assert_eq!(segments(dir.path()), ["00000001", "checkpoint.00000000"]);
    // A follower that comes back knows the series, whose references are as before.
    commit(&db, 0..10, 191 * MIN);
    let mut again = db.tail(Some(tail.position())).unwrap();
    let heard = Heard::all(&mut again);
    assert_eq!((heard.samples.len(), heard.names.len(), heard.skipped), (10, 10, 0));
    // Nobody follows: two hours and five minutes are kept.
    db.keep_log_from(None);
    for step in 192..600 {
        commit(&db, 0..10, step * MIN);
        db.maintain(step * MIN).unwrap();
        assert!(segments(dir.path()).len() <= 3);
    }
}

#[test]
fn what_nobody_reads_goes_for_its_age() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), options()).unwrap();
    let mut tail = db.tail(None).unwrap();
    for step in 0..60 * 24 {
        commit(&db, 0..10, step * MIN);
        db.maintain(step * MIN).unwrap();
        // Two hours of one segment, and four hours after its end.
        assert!(segments(dir.path()).len() <= 5, "{:?}", segments(dir.path()));
    }
    let heard = Heard::all(&mut tail);
    assert_eq!(heard.skipped, 1);
    let oldest = heard.samples.iter().map(|sample| sample.1).min().unwrap();
    assert!((60 * 24 - 8 * 60 - 1..60 * 24 - 4 * 60).contains(&(oldest / MIN)), "{oldest}");
}

#[test]
fn series_without_samples_leave_with_the_log_and_their_names_stay_as_long_as_it_uses_them() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), options()).unwrap();
    commit(&db, 0..100, 0);
    let mut behind = db.tail(Some(Position::default())).unwrap();
    let mut batch = db.appender();
    let gone = batch.series(&labels(50)).unwrap();
    drop(batch);
    for step in 1..127 {
        commit(&db, 0..10, step * MIN);
        db.maintain(step * MIN).unwrap();
        db.keep_log_from(Some(db.tail(None).unwrap().position()));
    }
    // Since the end of the first segment, at two hours, only ten had a sample.
    assert_eq!(db.stats().head_series, 10);
    assert_eq!(db.appender().append(gone, 200 * MIN, 1.0), Err(AppendError::UnknownSeries));
    let heard = Heard::all(&mut behind);
    assert_eq!((heard.names.len(), heard.skipped), (100, 1));
    // The next round takes the names of the ninety, too.
    for step in 127..400 {
        commit(&db, 0..10, step * MIN);
        db.maintain(step * MIN).unwrap();
        db.keep_log_from(Some(db.tail(None).unwrap().position()));
    }
    assert_eq!(Heard::all(&mut db.tail(None).unwrap()).names.len(), 10);
    drop((behind, db));
    let db = Db::open(dir.path(), options()).unwrap();
    assert_eq!(db.stats().head_series, 10);
    // A restart after a while: what is read can go soon, but not the series, which are in use again.
    db.keep_log_from(Some(db.tail(None).unwrap().position()));
    for step in 1000..1010 {
        db.maintain(step * MIN).unwrap();
        commit(&db, 0..10, step * MIN);
    }
    assert_eq!(db.stats().head_series, 10);
    assert_eq!(segments(dir.path()).len(), 2);
}

#[test]
fn a_store_with_a_head_goes_on_where_a_log_ended_and_the_other_way_round() {
    let dir = tempfile::tempdir().unwrap();
    let server = || Options { retention_ms: None, ..Options::default() };
    let db = Db::open(dir.path(), options()).unwrap();
    commit(&db, 0..10, 1_000);
    drop(db);
    let db = Db::open(dir.path(), server()).unwrap();
    assert_eq!(super::reading::all(&db.snapshot()).len(), 10);
    commit(&db, 0..10, 2_000);
    db.cut_head().unwrap();
    let before = super::reading::all(&db.snapshot());
    drop(db);
    let db = Db::open(dir.path(), options()).unwrap();
    commit(&db, 0..12, 3_000);
    db.maintain(3_000).unwrap();
    drop(db);
    let db = Db::open(dir.path(), server()).unwrap();
    let after = super::reading::all(&db.snapshot());
    assert_eq!((before.len(), after.len()), (10, 12));
    assert!(after.iter().all(|(series, samples)| samples.len() == before.get(series).map_or(1, |_| 3)));
}
