use std::collections::BTreeMap;

use model::{HistogramValue, IntHistogram, Labels, Matcher, Span, TimeRange};
use tsdb::{AppendError, Db, Exemplar, FloatChunks, Logged, Options};

use super::reading::all;

fn fill(db: &Db, from: i64, to: i64) {
    for step in from..to {
        let mut batch = db.appender();
        for n in 0..10 {
            let name = if n < 7 { "big" } else { "small" };
            let labels = Labels::from_pairs([("__name__", name), ("n", &n.to_string()), ("job", "x")]);
            let series = batch.series(&labels).unwrap();
            batch.append(series, step * 1000, f64::from(n)).unwrap();
        }
        batch.commit().unwrap();
    }
}

#[test]
fn a_copy_is_a_data_directory() {
    let (dir, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = Options { retention_ms: None, out_of_order_window_ms: 3_600_000, ..Options::default() };
    let db = Db::open(dir.path(), options).unwrap();
    fill(&db, 0, 100);
    db.cut_head().unwrap();
    let blocks_only = all(&db.snapshot());
    fill(&db, 100, 200);
    let mut batch = db.appender();
    let series = batch.series(&Labels::from_pairs([("__name__", "late")])).unwrap();
    batch.append(series, 50_000, 1.0).unwrap();
    batch.commit().unwrap();
    let everything = all(&db.snapshot());
    let (with, without) = (copies.path().join("with"), copies.path().join("without"));
    db.copy_to(&with, true).unwrap();
    db.copy_to(&without, false).unwrap();
    drop(db);
    let open = |dir| all(&Db::open(dir, Options::default()).unwrap().snapshot());
    assert_eq!(open(&with), everything);
    assert_eq!(open(&without), blocks_only);
}

#[test]
fn cardinality_names_what_explodes() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options::default()).unwrap();
    fill(&db, 0, 1);
    let found = db.cardinality(2);
    let owned = |pairs: &[(&str, u64)]| -> Vec<(String, u64)> {
        pairs.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
    };
    assert_eq!((found.series, found.label_pairs), (10, 13));
    assert_eq!(found.series_by_metric, owned(&[("big", 7), ("small", 3)]));
    assert_eq!(found.values_by_label, owned(&[("n", 10), ("__name__", 2)]));
    assert_eq!(found.bytes_by_label, owned(&[("n", 10), ("__name__", 8)]));
    assert_eq!(found.series_by_pair, owned(&[("job=x", 10), ("__name__=big", 7)]));
}

#[test]
fn exemplars_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options::default()).unwrap();
    let mut batch = db.appender();
    let series = batch.series(&Labels::from_pairs([("__name__", "requests")])).unwrap();
    let exemplar = |ts| Exemplar { labels: Labels::from_pairs([("trace_id", "abc")]), ts, value: 0.5 };
    batch.append_exemplar(series, &exemplar(1000)).unwrap();
    batch.append_exemplar(series, &exemplar(2000)).unwrap();
    batch.commit().unwrap();
    let mut batch = db.appender();
    assert_eq!(batch.append_exemplar(series, &exemplar(2000)), Ok(()));
    assert_eq!(batch.append_exemplar(series, &exemplar(1500)), Err(AppendError::OutOfOrder));
    batch.commit().unwrap();
    drop(db);
    let db = Db::open(dir.path(), Options::default()).unwrap();
    let selector = vec![Matcher::equal("__name__", "requests")];
    let found = db.exemplars(&[selector], TimeRange::ALL);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].1, [exemplar(1000), exemplar(2000)]);
}

/// Every order of the kinds in one batch, with what the log says of it.
#[test]
fn a_series_that_changes_its_kind_within_a_batch_keeps_the_order() {
    let int = IntHistogram {
        count: 3,
        sum: 4.5,
        positive_spans: vec![Span { offset: 0, length: 1 }],
        positive: vec![3],
        ..IntHistogram::default()
    };
    let custom = IntHistogram { schema: -53, custom_values: vec![1.0], ..int.clone() };
    let kinds = [
        None,
        Some(HistogramValue::Int(int.clone())),
        Some(HistogramValue::Float(int.to_float())),
        Some(HistogramValue::Int(custom)),
    ];
    for float_chunks in [FloatChunks::Xor, FloatChunks::Xor2] {
        let dir = tempfile::tempdir().unwrap();
        let options = || Options { float_chunks, ..Options::default() };
        let db = Db::open(dir.path(), options()).unwrap();
        let mut tail = db.tail(None).unwrap();
        let mut batch = db.appender();
        let mut count = 0;
        for order in 0..256usize {
            let labels = Labels::from_pairs([("order", &order.to_string())]);
            let series = batch.series(&labels).unwrap();
            for (at, ts) in (0..4).zip(1..) {
                match &kinds[order >> (2 * at) & 3] {
                    None => batch.append(series, ts, ts as f64).unwrap(),
                    Some(histogram) => batch.append_histogram(series, ts, histogram).unwrap(),
                }
                count += 1;
            }
        }
        assert_eq!(batch.commit().unwrap(), count);
        let before = all(&db.snapshot());
        assert!(before.values().all(|samples| samples.iter().map(|sample| sample.0).eq(1..5)));
        let mut told: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
        while let Some(logged) = tail.read().unwrap() {
            let mut tell = |series, ts| told.entry(series).or_default().push(ts);
            match logged {
                Logged::Samples(entries) => entries.iter().for_each(|(n, (ts, _), _)| tell(*n, *ts)),
                Logged::Histograms(entries) => entries.iter().for_each(|(n, (ts, _), _)| tell(*n, *ts)),
                _ => {}
            }
        }
        assert!(told.len() == 256 && told.values().all(|times| *times == [1, 2, 3, 4]), "{told:?}");
        drop(db);
        let db = Db::open(dir.path(), options()).unwrap();
        assert_eq!(all(&db.snapshot()), before);
    }
}
