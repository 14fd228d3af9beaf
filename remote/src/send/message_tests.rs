//! What is sent is what `prost` and our own receiver read, in both versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Histogram, HistogramValue, Labels, Matcher, ResetHint, Span, TimeRange};
use proptest::prelude::*;
use prost::Message as _;
use tsdb::disk::memory::Memory;
use tsdb::{Db, FloatChunks, Metadata, MetricKind, Position};

use super::batch::{Batch, Press};
use super::metadata::{FamilyMetadata, request};
use super::series::Names;
use crate::oracle::{v1, v2};
use crate::receive::{Compression, Encoding, Protocol, Receiver, Written};

/// A series with what it has: floats of time, start and bits; histograms of time and start; exemplars of time.
#[derive(Clone, Debug)]
struct Series {
    labels: BTreeMap<String, String>,
    floats: BTreeMap<i64, (i64, u64)>,
    histograms: BTreeMap<i64, (i64, HistogramValue)>,
    exemplars: BTreeMap<i64, (u64, BTreeMap<String, String>)>,
    said: Option<(u8, String, String)>,
}

fn histogram() -> impl Strategy<Value = HistogramValue> {
    (prop::collection::vec(0u64..1 << 40, 1..5), -4i32..9, any::<bool>(), any::<bool>()).prop_map(
        |(positive, schema, is_float, is_custom)| {
            let length = u32::try_from(positive.len()).unwrap();
            let count = positive.iter().sum();
            let int = Histogram {
                schema: if is_custom { model::histogram::CUSTOM_BUCKETS_SCHEMA } else { schema },
                sum: 4.5,
                count,
                zero_count: 0,
                zero_threshold: if is_custom { 0.0 } else { 1e-5 },
                positive_spans: vec![Span { offset: 0, length }],
                negative_spans: Vec::new(),
                positive,
                negative: Vec::new(),
                custom_values: if is_custom { (0..length).map(f64::from).collect() } else { Vec::new() },
                reset_hint: ResetHint::Unknown,
            };
            if is_float { HistogramValue::Float(int.to_float()) } else { HistogramValue::Int(int) }
        },
    )
}

fn series() -> impl Strategy<Value = Series> {
    let labels = prop::collection::btree_map("[a-d]{1,2}", "\\PC{1,9}", 0..6);
    let floats = prop::collection::btree_map(1i64..1000, (0i64..1000, any::<u64>()), 0..4);
    let histograms = prop::collection::btree_map(1001i64..2000, (0i64..1000, histogram()), 0..3);
    let own = prop::collection::btree_map("[a-d]{1,2}", "\\PC{1,9}", 0..3);
    let exemplars = prop::collection::btree_map(1i64..1000, (any::<u64>(), own), 0..3);
    let said = prop::option::of((0u8..8, "\\PC{0,9}", "\\PC{0,5}"));
    (labels, floats, histograms, exemplars, said).prop_map(|(labels, floats, histograms, exemplars, said)| {
        Series { labels, floats, histograms, exemplars, said }
    })
}

/// Series of names of their own.
fn several() -> impl Strategy<Value = Vec<Series>> {
    prop::collection::vec(series(), 0..6).prop_map(|mut all| {
        for (at, series) in all.iter_mut().enumerate() {
            series.labels.insert("__name__".to_owned(), format!("m{at}"));
        }
        all
    })
}

fn kind(number: u8) -> MetricKind {
    crate::message::kind_of(number.into())
}

fn batch(protocol: Protocol, all: &[Series]) -> Batch {
    let mut names = Names::new(protocol, Labels::empty(), None);
    let mut batch = Batch::new(protocol, Position::default(), Vec::new());
    for (number, series) in (0u64..).zip(all) {
        names.learn(number, &Labels::from_pairs(&series.labels));
        if let Some((number_of_kind, help, unit)) = &series.said {
            let metadata = Metadata { kind: kind(*number_of_kind), help: help.clone(), unit: unit.clone() };
            names.describe(number, &metadata);
        }
        let name = names.get(number).unwrap();
        for (ts, (start, bits)) in &series.floats {
            batch.push_float(name, (*ts, *start), f64::from_bits(*bits));
        }
        for (ts, (start, value)) in &series.histograms {
            batch.push_histogram(name, (*ts, *start), value);
        }
        for (ts, (bits, own)) in &series.exemplars {
            batch.push_exemplar(name, *ts, f64::from_bits(*bits), &Labels::from_pairs(own));
        }
    }
    batch
}

fn message(mut batch: Batch) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(&batch.body(&mut Press::default())).unwrap()
}

/// Labels, and of each sample its kind, time, start and bits or count: in order.
type Read = Vec<(BTreeMap<String, String>, (char, i64, i64, u64))>;

fn wanted(all: &[Series]) -> Read {
    let mut out = Vec::new();
    for series in all {
        let mut push = |item| out.push((series.labels.clone(), item));
        series.floats.iter().for_each(|(ts, (start, bits))| push(('f', *ts, *start, *bits)));
        for (ts, (start, value)) in &series.histograms {
            push(match value {
                HistogramValue::Int(int) => ('i', *ts, *start, int.count),
                HistogramValue::Float(float) => ('h', *ts, *start, float.count.to_bits()),
            });
        }
        series.exemplars.iter().for_each(|(ts, (bits, _))| push(('e', *ts, 0, *bits)));
    }
    out
}

fn items(samples: &[v1::Sample], histograms: &[v1::Histogram]) -> Vec<(char, i64, i64, u64)> {
    let float = |one: &v1::Sample| ('f', one.timestamp, one.start_timestamp, one.value.to_bits());
    let histogram = |one: &v1::Histogram| match (one.count_int, one.count_float) {
        (Some(count), None) => ('i', one.timestamp, one.start_timestamp, count),
        (None, Some(count)) => ('h', one.timestamp, one.start_timestamp, count.to_bits()),
        both => unreachable!("{both:?}"),
    };
    samples.iter().map(float).chain(histograms.iter().map(histogram)).collect()
}

fn read_v1(request: &v1::WriteRequest) -> Read {
    let mut out = Vec::new();
    for series in &request.timeseries {
        let labels: BTreeMap<_, _> =
            series.labels.iter().map(|one| (one.name.clone(), one.value.clone())).collect();
        let exemplars = series.exemplars.iter().map(|one| ('e', one.timestamp, 0, one.value.to_bits()));
        let all = items(&series.samples, &series.histograms).into_iter().chain(exemplars);
        out.extend(all.map(|item| (labels.clone(), item)));
    }
    out
}

fn read_v2(request: &v2::Request) -> Read {
    let text = |at: u32| request.symbols[usize::try_from(at).unwrap()].clone();
    let mut out = Vec::new();
    for series in &request.timeseries {
        let labels: BTreeMap<_, _> =
            series.labels_refs.chunks_exact(2).map(|pair| (text(pair[0]), text(pair[1]))).collect();
        let exemplars = series.exemplars.iter().map(|one| ('e', one.timestamp, 0, one.value.to_bits()));
        let all = items(&series.samples, &series.histograms).into_iter().chain(exemplars);
        out.extend(all.map(|item| (labels.clone(), item)));
    }
    out
}

proptest! {
    #[test]
    fn prost_reads_what_is_sent(all in several()) {
        let first = v1::WriteRequest::decode(message(batch(Protocol::V1, &all)).as_slice()).unwrap();
        prop_assert_eq!(read_v1(&first), wanted(&all));
        let second = v2::Request::decode(message(batch(Protocol::V2, &all)).as_slice()).unwrap();
        prop_assert_eq!(read_v2(&second), wanted(&all));
        prop_assert_eq!(second.symbols[0].as_str(), "");
        let text = |at: u32| second.symbols[usize::try_from(at).unwrap()].as_str();
        let said: BTreeMap<_, _> = all.iter().map(|one| (one.labels.clone(), one.said.clone())).collect();
        for series in &second.timeseries {
            let labels = series.labels_refs.chunks_exact(2);
            let labels = labels.map(|pair| (text(pair[0]).to_owned(), text(pair[1]).to_owned())).collect();
            let found = series.metadata.as_ref().map(|one| {
                (u8::try_from(one.kind).unwrap(), text(one.help_ref).to_owned(), text(one.unit_ref).to_owned())
            });
            prop_assert_eq!(&found, &said[&labels]);
        }
    }

    /// All that is sent in either version is stored, and the same.
    #[test]
    fn our_receiver_stores_what_is_sent(all in several()) {
        for protocol in [Protocol::V1, Protocol::V2] {
            let options = tsdb::Options { float_chunks: FloatChunks::Xor2, ..tsdb::Options::default() };
            let db = Db::open_on(Arc::new(Memory::new()), "/data".as_ref(), options, &mut |_| {}).unwrap();
            let db = Arc::new(db);
            let receiver = Receiver::new(Arc::clone(&db), [1, 2]);
            let mut batch = batch(protocol, &all);
            let count = |of: fn(&Series) -> usize| all.iter().map(|series| of(series) as u64).sum::<u64>();
            let counts = Written {
                samples: count(|series| series.floats.len()),
                histograms: count(|series| series.histograms.len()),
                exemplars: count(|series| series.exemplars.len()),
            };
            prop_assert_eq!(batch.counts(), counts);
            let encoding = Encoding { protocol, compression: Compression::Snappy };
            prop_assert_eq!(receiver.receive(encoding, &batch.body(&mut Press::default())).unwrap(), counts);
            let mut tail = db.tail(Some(Position::default())).unwrap();
            let mut found = (0, Vec::new());
            while let Some(logged) = tail.read().unwrap() {
                match logged {
                    tsdb::Logged::Samples(samples) => found.0 += samples.len(),
                    tsdb::Logged::Histograms(more) => found.1.extend(more.into_iter().map(|(_, (ts, _), value)| (ts, value))),
                    _ => {}
                }
            }
            found.1.sort_by_key(|(ts, _)| *ts);
            let mut histograms: Vec<_> =
                all.iter().flat_map(|one| one.histograms.iter().map(|(ts, (_, value))| (*ts, value.clone()))).collect();
            histograms.sort_by_key(|(ts, _)| *ts);
            prop_assert_eq!(found.0 as u64, counts.samples);
            prop_assert_eq!(found.1.len(), histograms.len());
            let matchers = |name: &str| vec![vec![Matcher::equal("__name__", name)]];
            for series in &all {
                let stored = db.exemplars(&matchers(&series.labels["__name__"]), TimeRange::ALL);
                let stored: usize = stored.iter().map(|(_, all)| all.len()).sum();
                prop_assert_eq!(stored, series.exemplars.len());
            }
        }
    }
}

#[test]
fn a_text_is_sent_once_in_a_request() {
    let names: Vec<Series> = (0..50)
        .map(|n| Series {
            labels: [("__name__", "a".to_owned()), ("n", n.to_string()), ("namespace", "here".to_owned())]
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            floats: [(1, (0, 0))].into(),
            histograms: BTreeMap::new(),
            exemplars: BTreeMap::new(),
            said: Some((1, "Helps.".to_owned(), String::new())),
        })
        .collect();
    let sent = v2::Request::decode(message(batch(Protocol::V2, &names)).as_slice()).unwrap();
    // The empty one, three names, two values, a help, and fifty numbers.
    assert_eq!(sent.symbols.len(), 1 + 3 + 2 + 1 + 50);
}

#[test]
fn metadata_has_requests_of_its_own() {
    let metadata = Metadata { kind: MetricKind::StateSet, help: "Says a.".into(), unit: "s".into() };
    let body = request(&[FamilyMetadata { family: "a".into(), metadata }]);
    let message = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    let sent = v1::WriteRequest::decode(message.as_slice()).unwrap();
    let [one] = sent.metadata.as_slice() else { unreachable!("{}", sent.metadata.len()) };
    let found = (one.kind, one.metric_family_name.as_str(), one.help.as_str(), one.unit.as_str());
    assert_eq!(found, (7, "a", "Says a.", "s"));
}
