use std::sync::Arc;

use model::{Labels, Matcher, Querier as _, Samples, Selection, TimeRange};
use proptest::prelude::*;
use prost::Message as _;
use tsdb::Db;

use super::*;
use crate::oracle::{v1, v2};

fn receiver() -> (tempfile::TempDir, Arc<Db>, Receiver) {
    let dir = tempfile::tempdir().unwrap();
    let db = Arc::new(Db::open(dir.path(), tsdb::Options::default()).unwrap());
    (dir, Arc::clone(&db), Receiver::new(db, [1, 2]))
}

fn series(pairs: &[(&str, &str)], samples: &[(i64, f64)]) -> v1::TimeSeries {
    let label = |(name, value): &(&str, &str)| v1::Label { name: (*name).into(), value: (*value).into() };
    let sample = |(timestamp, value): &(i64, f64)| v1::Sample {
        timestamp: *timestamp,
        value: *value,
        start_timestamp: 0,
    };
    v1::TimeSeries {
        labels: pairs.iter().map(label).collect(),
        samples: samples.iter().map(sample).collect(),
        ..v1::TimeSeries::default()
    }
}

fn body(timeseries: Vec<v1::TimeSeries>) -> Vec<u8> {
    let message = v1::WriteRequest { timeseries, ..v1::WriteRequest::default() }.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&message).unwrap()
}

const V1: Encoding = Encoding { protocol: Protocol::V1, compression: Compression::Snappy };

fn stored(db: &Db, name: &str) -> Vec<(Labels, Samples)> {
    let snapshot = db.snapshot();
    let matchers = [Matcher::equal("__name__", name)];
    let set = snapshot.select(&Selection::new(&matchers, TimeRange::ALL)).unwrap();
    (0..set.len())
        .map(|index| {
            let mut samples = Samples::default();
            set.samples(index, TimeRange::ALL, &mut samples).unwrap();
            (set.labels(index), samples)
        })
        .collect()
}

#[test]
fn both_versions_store_the_same() {
    let (_dir, db, receiver) = receiver();
    for step in 0..3 {
        let request = body(vec![series(&[("__name__", "a"), ("x", "1")], &[(1000 + step, 0.5)])]);
        assert_eq!(receiver.receive(V1, &request).unwrap().samples, 1);
    }
    // The same series, its symbols in another order each time, compressed otherwise.
    for (step, symbols, labels_refs) in [
        (3, ["", "__name__", "a", "x", "1"], vec![1, 2, 3, 4]),
        (4, ["", "1", "x", "a", "__name__"], vec![4, 3, 2, 1]),
    ] {
        let samples = vec![v1::Sample { value: 0.5, timestamp: 1000 + step, start_timestamp: 0 }];
        let timeseries = vec![v2::TimeSeries { labels_refs, samples, ..v2::TimeSeries::default() }];
        let symbols = symbols.map(str::to_owned).to_vec();
        let message = v2::Request { symbols, timeseries }.encode_to_vec();
        let encoding = Encoding { protocol: Protocol::V2, compression: Compression::Zstd };
        let request = zstd::bulk::compress(&message, 1).unwrap();
        assert_eq!(receiver.receive(encoding, &request).unwrap().samples, 1);
    }
    let all = stored(&db, "a");
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].0, Labels::from_pairs([("__name__", "a"), ("x", "1")]));
    assert_eq!(all[0].1.ts, [1000, 1001, 1002, 1003, 1004]);
}

#[test]
fn good_samples_are_kept_beside_refused_ones() {
    let (_dir, db, receiver) = receiver();
    receiver.receive(V1, &body(vec![series(&[("__name__", "a")], &[(5000, 1.0)])])).unwrap();
    let request = body(vec![
        series(&[("__name__", "a")], &[(4000, 1.0)]),
        series(&[("x", "no name")], &[(5000, 1.0)]),
        series(&[("__name__", "b"), ("x", "1"), ("x", "2")], &[(5000, 1.0)]),
        series(&[("__name__", "b")], &[(5000, 1.0)]),
    ]);
    let error = receiver.receive(V1, &request).unwrap_err();
    let ReceiveError::Partial { refused, first, written } = error else { unreachable!("{error}") };
    assert_eq!((refused, written.samples), (3, 1));
    assert!(first.starts_with("a: out of order"), "{first}");
    assert_eq!(stored(&db, "b").len(), 1);
}

/// Many requests for the same series at once, each with samples of its own times: whoever commits first, all
/// that is acknowledged is there.
#[test]
fn nothing_is_lost_to_a_quicker_request() {
    let dir = tempfile::tempdir().unwrap();
    let options = tsdb::Options { out_of_order_window_ms: 3_600_000, ..tsdb::Options::default() };
    let db = Arc::new(Db::open(dir.path(), options).unwrap());
    let receiver = Receiver::new(Arc::clone(&db), [1, 2]).taking_late();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let receiver = &receiver;
            scope.spawn(move || {
                for at in 0..200 {
                    let ts = 1_000_000 + at * 4 + thread;
                    let all =
                        (0..20).map(|n| series(&[("__name__", "a"), ("n", &n.to_string())], &[(ts, 1.0)]));
                    assert_eq!(receiver.receive(V1, &body(all.collect())).unwrap().samples, 20);
                }
            });
        }
    });
    let all = stored(&db, "a");
    assert_eq!(all.len(), 20);
    let wanted: Vec<i64> = (1_000_000..1_000_800).collect();
    assert!(all.iter().all(|(_, samples)| samples.ts == wanted));
}

#[test]
fn malformed_requests_store_nothing() {
    let (_dir, db, receiver) = receiver();
    let timeseries = vec![series(&[("__name__", "a")], &[(1, 1.0)])];
    let good = v1::WriteRequest { timeseries, ..v1::WriteRequest::default() }.encode_to_vec();
    for cut in 1..good.len() {
        let request = snap::raw::Encoder::new().compress_vec(&good[..cut]).unwrap();
        assert!(receiver.receive(V1, &request).is_err(), "cut at {cut}");
    }
    assert!(matches!(receiver.receive(V1, b"\xff\xff\xff"), Err(ReceiveError::Malformed(_))));
    let bomb = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
    assert!(matches!(receiver.receive(V1, &bomb), Err(ReceiveError::TooLarge { .. })));
    assert!(stored(&db, "a").is_empty());
}

#[test]
fn headers_decide() {
    let encoding = |kind, compression| Encoding::from_headers(kind, compression);
    assert_eq!(encoding(None, None).unwrap(), V1);
    let v2 =
        encoding(Some("application/x-protobuf;proto=io.prometheus.write.v2.Request"), Some("zstd")).unwrap();
    assert_eq!(v2, Encoding { protocol: Protocol::V2, compression: Compression::Zstd });
    for (kind, compression) in
        [(Some("text/plain"), None), (Some("application/x-protobuf;proto=x"), None), (None, Some("gzip"))]
    {
        assert!(matches!(encoding(kind, compression), Err(ReceiveError::Unsupported(_))));
    }
}

proptest! {
    /// What `prost` encodes, the walk in place reads: every label, every sample, bit for bit.
    #[test]
    fn the_walk_reads_what_prost_writes(
        all in prop::collection::vec(
            (prop::collection::vec((".{0,8}", ".{0,8}"), 0..5), prop::collection::vec((any::<i64>(), any::<u64>()), 0..5)),
            0..5,
        )
    ) {
        let timeseries: Vec<v1::TimeSeries> = all
            .iter()
            .map(|(labels, samples)| {
                let pairs: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                let samples: Vec<_> = samples.iter().map(|(ts, bits)| (*ts, f64::from_bits(*bits))).collect();
                series(&pairs, &samples)
            })
            .collect();
        let message = v1::WriteRequest { timeseries, ..v1::WriteRequest::default() }.encode_to_vec();
        let mut read = Vec::new();
        let symbols = super::request::Symbols::default();
        symbols.each_series(super::Protocol::V1, &message, |series| {
            let pairs = series.labels().unwrap().into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            let mut samples = Vec::new();
            series.visit(|item| {
                if let super::request::Item::Sample(sample) = item {
                    samples.push((sample.ts, sample.value.to_bits()));
                }
                Ok(())
            })?;
            read.push((pairs, samples));
            Ok(())
        })
        .unwrap();
        prop_assert_eq!(read, all);
    }
}
