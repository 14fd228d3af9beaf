//! What 2.0 has beside samples, and what is answered to what is wrong with a request.

use std::sync::Arc;

use model::{HistogramValue, Matcher, Querier as _, Samples, Selection, TimeRange};
use prost::Message as _;
use tsdb::{Db, FloatChunks, MetricKind};

use super::*;
use crate::oracle::{v1, v2};

const V1: Encoding = Encoding { protocol: Protocol::V1, compression: Compression::Snappy };
const V2: Encoding = Encoding { protocol: Protocol::V2, compression: Compression::Snappy };
const SYMBOLS: [&str; 7] = ["", "__name__", "a", "x", "1", "Says a.", "seconds"];
const NOW: i64 = 1_800_000_000_000;

fn receiver() -> (tempfile::TempDir, Arc<Db>, Receiver) {
    let dir = tempfile::tempdir().unwrap();
    let options = tsdb::Options { float_chunks: FloatChunks::Xor2, ..tsdb::Options::default() };
    let db = Arc::new(Db::open(dir.path(), options).unwrap());
    (dir, Arc::clone(&db), Receiver::new(db, [1, 2]).by_clock(|| NOW))
}

fn body(timeseries: Vec<v2::TimeSeries>) -> Vec<u8> {
    let message = v2::Request { symbols: SYMBOLS.map(str::to_owned).to_vec(), timeseries }.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&message).unwrap()
}

fn sample(timestamp: i64, value: f64) -> v1::Sample {
    v1::Sample { value, timestamp, start_timestamp: 0 }
}

fn histogram(timestamp: i64, count: u64) -> v1::Histogram {
    v1::Histogram {
        count_int: Some(count),
        zero_count_int: Some(0),
        sum: 5.0,
        positive_spans: vec![v1::BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![1, 1],
        timestamp,
        ..v1::Histogram::default()
    }
}

fn series(labels_refs: &[u32], samples: Vec<v1::Sample>) -> v2::TimeSeries {
    v2::TimeSeries { labels_refs: labels_refs.to_vec(), samples, ..v2::TimeSeries::default() }
}

fn read(db: &Db, name: &str) -> Samples {
    let snapshot = db.snapshot();
    let matchers = [Matcher::equal("__name__", name)];
    let set = snapshot.select(&Selection::new(&matchers, TimeRange::ALL)).unwrap();
    let mut samples = Samples::default();
    (0..set.len()).for_each(|index| set.samples(index, TimeRange::ALL, &mut samples).unwrap());
    samples
}

#[test]
fn everything_that_a_series_may_have_is_stored() {
    let (_dir, db, receiver) = receiver();
    let (int, float) = (histogram(NOW, 3), {
        let counts = vec![0.5, 1.5];
        v1::Histogram {
            count_int: None,
            zero_count_int: None,
            count_float: Some(2.0),
            zero_count_float: Some(0.0),
            positive_deltas: Vec::new(),
            positive_counts: counts,
            ..histogram(NOW + 1, 0)
        }
    });
    let custom = v1::Histogram { schema: -53, custom_values: vec![1.0, 2.5], ..histogram(NOW + 2, 3) };
    let exemplar = |labels_refs: Vec<u32>| v2::Exemplar { labels_refs, value: 0.25, timestamp: NOW };
    let metadata = Some(v2::Metadata { kind: 1, help_ref: 5, unit_ref: 6 });
    let request = body(vec![
        v2::TimeSeries {
            exemplars: vec![exemplar(vec![3, 4])],
            metadata,
            created_timestamp: NOW - 500,
            ..series(&[1, 2], vec![sample(NOW, 1.0), sample(NOW + 1, 2.0)])
        },
        v2::TimeSeries { histograms: vec![int, float, custom], ..series(&[1, 3], Vec::new()) },
        // Samples and histograms in one series, against the specification: taken.
        v2::TimeSeries { histograms: vec![histogram(NOW + 1, 3)], ..series(&[1, 4], vec![sample(NOW, 1.0)]) },
        // An exemplar in a series of its own, as Prometheus sends them.
        v2::TimeSeries { exemplars: vec![exemplar(vec![3, 2])], ..series(&[1, 4], Vec::new()) },
    ]);
    let wanted = Written { samples: 3, histograms: 4, exemplars: 2 };
    assert_eq!(receiver.receive(V2, &request).unwrap(), wanted);

    assert_eq!(read(&db, "a").ts, [NOW, NOW + 1]);
    let kinds: Vec<_> = read(&db, "x").histograms.iter().map(|one| (one.schema, one.count)).collect();
    assert_eq!(kinds, [(0, 3.0), (0, 2.0), (-53, 3.0)]);
    let said = db.metadata(&[Matcher::equal("__name__", "a")]).remove(0).1;
    assert_eq!(
        (said.kind, said.help.as_str(), said.unit.as_str()),
        (MetricKind::Counter, "Says a.", "seconds")
    );
    let exemplars = db.exemplars(&[vec![Matcher::equal("__name__", "a")]], TimeRange::ALL);
    assert_eq!(exemplars[0].1[0].labels.get("x"), Some("1"));
}

/// The start of a sample is its own, else its series', else unknown.
#[test]
fn starts_are_kept() {
    let (_dir, db, receiver) = receiver();
    let own = v1::Sample { start_timestamp: NOW - 7, ..sample(NOW, 1.0) };
    let all =
        v2::TimeSeries { created_timestamp: NOW - 9, ..series(&[1, 2], vec![own, sample(NOW + 1, 2.0)]) };
    let started = v1::Histogram { start_timestamp: NOW - 5, ..histogram(NOW, 3) };
    let other = v2::TimeSeries { histograms: vec![started], ..series(&[1, 3], Vec::new()) };
    receiver.receive(V2, &body(vec![all, other, series(&[1, 4], vec![sample(NOW, 1.0)])])).unwrap();
    assert_eq!(read(&db, "a").start_ts, [NOW - 7, NOW - 9]);
    assert_eq!(read(&db, "x").histogram_start_ts, [NOW - 5]);
    assert!(read(&db, "1").start_ts.iter().all(|start| *start == 0));
}

/// What, its series, the status, and how many samples, histograms and exemplars are stored.
type Case = (&'static str, Vec<v2::TimeSeries>, u16, (u64, u64, u64));

fn exemplars_of(labels_refs: Vec<u32>, timestamp: i64) -> Vec<v2::Exemplar> {
    vec![v2::Exemplar { labels_refs, value: 1.0, timestamp }]
}

/// Statuses and counts as Prometheus 3.5.3 gives them (asked on 2026-11-21 with `--enable-feature=exemplar-storage,
/// native-histograms`), but for what is marked: it panics at references that lead nowhere, and calls a histogram that
/// contradicts itself its own fault, with 500, upon which senders repeat it for ever.
fn cases() -> Vec<Case> {
    let none = Vec::new;
    let bad_metadata = Some(v2::Metadata { kind: 1, help_ref: 99, unit_ref: 0 });
    let with = |series: v2::TimeSeries| vec![series];
    let a = |samples| series(&[1, 2], samples);
    vec![
        ("duplicate", with(a(vec![sample(NOW, 2.0)])), 400, (0, 0, 0)),
        ("repeated", with(a(vec![sample(NOW, 1.0)])), 204, (1, 0, 0)),
        ("late and good", with(a(vec![sample(NOW - 9, 1.0), sample(NOW + 1, 1.0)])), 400, (1, 0, 0)),
        (
            "no name",
            vec![series(&[3, 4], vec![sample(NOW, 1.0)]), a(vec![sample(NOW + 2, 1.0)])],
            400,
            (1, 0, 0),
        ),
        ("twice x", with(series(&[1, 2, 3, 4, 3, 4], vec![sample(NOW, 1.0)])), 400, (0, 0, 0)),
        ("unsorted", with(series(&[3, 4, 1, 2], vec![sample(NOW, 1.0)])), 204, (1, 0, 0)),
        ("future", with(a(vec![sample(NOW + 3_600_000, 1.0)])), 400, (0, 0, 0)),
        ("no samples", with(a(none())), 204, (0, 0, 0)),
        ("nothing", Vec::new(), 204, (0, 0, 0)),
        (
            "late exemplar",
            with(v2::TimeSeries {
                exemplars: exemplars_of(vec![3, 4], NOW - 9),
                ..a(vec![sample(NOW + 3, 1.0)])
            }),
            400,
            (1, 0, 0),
        ),
        // The panics.
        (
            "odd",
            vec![series(&[1, 2, 3], vec![sample(NOW, 1.0)]), a(vec![sample(NOW + 4, 1.0)])],
            400,
            (1, 0, 0),
        ),
        (
            "nowhere",
            vec![series(&[1, 99], vec![sample(NOW, 1.0)]), a(vec![sample(NOW + 5, 1.0)])],
            400,
            (1, 0, 0),
        ),
        (
            "metadata",
            with(v2::TimeSeries { metadata: bad_metadata, ..a(vec![sample(NOW + 6, 1.0)]) }),
            400,
            (1, 0, 0),
        ),
        (
            "exemplar",
            with(v2::TimeSeries {
                exemplars: exemplars_of(vec![98, 99], NOW),
                ..a(vec![sample(NOW + 7, 1.0)])
            }),
            400,
            (1, 0, 0),
        ),
        // The 500.
        (
            "histogram",
            vec![
                v2::TimeSeries { histograms: vec![histogram(NOW, 1)], ..series(&[1, 6], none()) },
                v2::TimeSeries { histograms: vec![histogram(NOW, 3)], ..series(&[1, 6], none()) },
            ],
            400,
            (0, 1, 0),
        ),
    ]
}

#[test]
fn statuses_are_those_of_prometheus() {
    for (what, timeseries, status, (samples, histograms, exemplars)) in cases() {
        let (_dir, _db, receiver) = receiver();
        let exemplars_before = v2::TimeSeries {
            exemplars: exemplars_of(vec![], NOW),
            ..series(&[1, 2], vec![sample(NOW, 1.0)])
        };
        receiver.receive(V2, &body(vec![exemplars_before])).unwrap();
        let outcome = receiver.receive(V2, &body(timeseries));
        let (found, written) = match &outcome {
            Ok(written) => (204, *written),
            Err(error) => (error.status(), error.written()),
        };
        assert_eq!(
            (found, written),
            (status, Written { samples, histograms, exemplars }),
            "{what}: {outcome:?}"
        );
    }
}

#[test]
fn a_series_of_bad_text_is_refused_and_the_others_stand() {
    let (_dir, db, receiver) = receiver();
    // prost writes no such text: another of the same length, changed behind its back.
    let label = |name: &str, value: &str| v1::Label { name: name.into(), value: value.into() };
    let of = |labels| v1::TimeSeries { labels, samples: vec![sample(NOW, 1.0)], ..v1::TimeSeries::default() };
    let timeseries =
        vec![of(vec![label("__name__", "b"), label("x", "#")]), of(vec![label("__name__", "a")])];
    let mut message = v1::WriteRequest { timeseries, ..v1::WriteRequest::default() }.encode_to_vec();
    *message.iter_mut().find(|byte| **byte == b'#').unwrap() = 0xff;
    let request = snap::raw::Encoder::new().compress_vec(&message).unwrap();
    let error = receiver.receive(V1, &request).unwrap_err();
    assert_eq!((error.status(), error.written().samples), (400, 1), "{error}");
    assert!(error.to_string().contains("UTF-8"), "{error}");
    assert_eq!(read(&db, "a").ts, [NOW]);
}

/// What routers write into a 1.0 series for shards.
#[test]
fn metadata_comes_through_a_router() {
    let (_dir, db, receiver) = receiver();
    let mut message = crate::wire::Writer::default();
    message.message(1, |series| {
        crate::message::push_labels(series, &model::Labels::from_pairs([("__name__", "a")]));
        crate::message::push_sample(series, 2, (NOW, 0), 1.0);
        series.message(crate::message::ROUTED_METADATA, |metadata| {
            metadata.uint64(1, 2);
            metadata.bytes(3, b"Says a.");
        });
    });
    let request = snap::raw::Encoder::new().compress_vec(&message.0).unwrap();
    receiver.receive(V1, &request).unwrap();
    let said = db.metadata(&[]).remove(0).1;
    assert_eq!((said.kind, said.help.as_str()), (MetricKind::Gauge, "Says a."));
}

#[test]
fn only_accepted_messages_are_taken() {
    let (_dir, _db, receiver) = receiver();
    assert!(receiver.check(V1).is_ok() && receiver.check(V2).is_ok());
    let receiver = receiver.accepting(vec![Protocol::V2]);
    assert_eq!(receiver.check(V1).unwrap_err().status(), 415);
    assert!(receiver.check(V2).is_ok());
}

#[test]
fn int_histograms_stay_so() {
    let (_dir, db, receiver) = receiver();
    receiver
        .receive(
            V2,
            &body(vec![v2::TimeSeries {
                histograms: vec![histogram(NOW, 3)],
                ..series(&[1, 2], Vec::new())
            }]),
        )
        .unwrap();
    let mut tail = db.tail(Some(tsdb::Position::default())).unwrap();
    let mut found = 0;
    while let Some(logged) = tail.read().unwrap() {
        if let tsdb::Logged::Histograms(all) = logged {
            assert!(all.iter().all(|(_, _, value)| matches!(value, HistogramValue::Int(_))));
            found += all.len();
        }
    }
    assert_eq!(found, 1);
}
