use std::collections::BTreeMap;

use model::Labels;
use proptest::prelude::*;
use prost::Message as _;

use super::super::split::split;
use super::*;
use crate::oracle::{v1, v2};
use crate::slots::slot_of;

type Series = (BTreeMap<String, String>, Vec<(i64, u64)>);

fn series() -> impl Strategy<Value = Series> {
    let name = prop_oneof![
        Just("namespace".to_owned()),
        Just("pod".to_owned()),
        "[a-z]{1,6}",
        Just("le".to_owned())
    ];
    let labels = prop::collection::btree_map(name, ".{1,12}", 0..6);
    (labels, prop::collection::vec((any::<i64>(), any::<u64>()), 0..4))
}

fn in_v1((labels, samples): &Series) -> v1::TimeSeries {
    let label = |(name, value): (&String, &String)| v1::Label { name: name.clone(), value: value.clone() };
    v1::TimeSeries {
        labels: labels.iter().map(label).collect(),
        samples: in_samples(samples),
        ..v1::TimeSeries::default()
    }
}

fn in_samples(samples: &[(i64, u64)]) -> Vec<v1::Sample> {
    let sample = |(timestamp, bits): &(i64, u64)| v1::Sample {
        value: f64::from_bits(*bits),
        timestamp: *timestamp,
        start_timestamp: 0,
    };
    samples.iter().map(sample).collect()
}

fn in_v2(all: &[Series]) -> v2::Request {
    let mut symbols = vec![String::new()];
    let mut timeseries = Vec::new();
    for (labels, samples) in all {
        let mut labels_refs = Vec::new();
        for text in labels.iter().flat_map(|(name, value)| [name, value]) {
            let at = symbols.iter().position(|known| known == text).unwrap_or_else(|| {
                symbols.push(text.clone());
                symbols.len() - 1
            });
            labels_refs.push(u32::try_from(at).unwrap());
        }
        timeseries.push(v2::TimeSeries {
            labels_refs,
            samples: in_samples(samples),
            ..v2::TimeSeries::default()
        });
    }
    v2::Request { symbols, timeseries }
}

/// What each shard is to get, series in order.
fn wanted(all: &[Series], map: &SlotMap) -> Vec<Vec<Vec<u8>>> {
    let mut out = vec![Vec::new(); map.shards().len()];
    for series in all {
        let slot = slot_of(&Labels::from_pairs(&series.0));
        map.writers(slot).iter().for_each(|shard| out[*shard].push(in_v1(series).encode_to_vec()));
    }
    out
}

proptest! {
    /// Both versions reach the owners of each series, and nobody else, as the same messages of 1.0.
    #[test]
    fn every_owner_gets_its_series_and_no_other(all in prop::collection::vec(series(), 0..20), shards in 1usize..6, replication in 1usize..4) {
        let place = |at: usize| Place { name: format!("s{at}"), url: format!("http://h{at}") };
        let map = SlotMap::first((0..shards).map(place).collect(), Vec::new(), replication.min(shards)).unwrap();
        let first = v1::WriteRequest { timeseries: all.iter().map(in_v1).collect(), ..Default::default() }.encode_to_vec();
        let second = in_v2(&all).encode_to_vec();
        for (protocol, message) in [(Protocol::V1, first), (Protocol::V2, second)] {
            let split = split(Encoding { protocol, ..V1 }, &message, &map, None).unwrap();
            let got: Vec<Vec<Vec<u8>>> = split
                .parts
                .iter()
                .map(|part| {
                    let request = v1::WriteRequest::decode(part.message.0.as_slice()).unwrap();
                    request.timeseries.iter().map(prost::Message::encode_to_vec).collect()
                })
                .collect();
            prop_assert_eq!(&got, &wanted(&all, &map), "{:?}", protocol);
            let samples: usize = all.iter().map(|(_, samples)| samples.len()).sum();
            prop_assert_eq!(split.total.samples, samples as u64);
        }
    }

    #[test]
    fn any_bytes_are_split_or_refused(bytes: Vec<u8>, second: bool) {
        let map = SlotMap::first(vec![Place { name: "s".into(), url: "http://h".into() }], Vec::new(), 1).unwrap();
        let protocol = if second { Protocol::V2 } else { Protocol::V1 };
        let _ = split(Encoding { protocol, ..V1 }, &bytes, &map, Some(&|_, _| true));
    }
}

/// What 1.0 has no place for reaches the shard all the same; a series that cannot be read keeps nothing else back.
#[test]
fn metadata_and_starts_go_on_and_bad_references_stay_behind() {
    let symbols = ["", "__name__", "a", "Says a.", "x"].map(str::to_owned).to_vec();
    let own = |timestamp, start_timestamp| v1::Sample { value: 1.0, timestamp, start_timestamp };
    let good = v2::TimeSeries {
        labels_refs: vec![1, 2],
        samples: vec![own(1_000, 0), own(2_000, 900)],
        histograms: vec![v1::Histogram { count_int: Some(0), timestamp: 1_000, ..v1::Histogram::default() }],
        metadata: Some(v2::Metadata { kind: 1, help_ref: 3, unit_ref: 0 }),
        created_timestamp: 700,
        ..v2::TimeSeries::default()
    };
    let exemplar = v2::Exemplar { labels_refs: vec![4, 9], value: 1.0, timestamp: 1 };
    let bad = |labels_refs: Vec<u32>| v2::TimeSeries { labels_refs, ..good.clone() };
    let timeseries = vec![
        bad(vec![1, 9]),
        bad(vec![1]),
        v2::TimeSeries { metadata: Some(v2::Metadata { kind: 1, help_ref: 9, unit_ref: 0 }), ..good.clone() },
        v2::TimeSeries { exemplars: vec![exemplar], ..good.clone() },
        good.clone(),
    ];
    let message = v2::Request { symbols, timeseries }.encode_to_vec();
    let map =
        SlotMap::first(vec![Place { name: "s".into(), url: "http://h".into() }], Vec::new(), 1).unwrap();
    let split = split(Encoding { protocol: Protocol::V2, ..V1 }, &message, &map, None).unwrap();
    assert_eq!((split.total.samples, split.fault.as_deref()), (2, Some("symbol 9 of 5 is referred to")));

    let request = v1::WriteRequest::decode(split.parts[0].message.0.as_slice()).unwrap();
    let [series] = request.timeseries.as_slice() else { unreachable!("{}", request.timeseries.len()) };
    assert_eq!(series.samples, [own(1_000, 700), own(2_000, 900)]);
    assert_eq!(series.histograms[0].start_timestamp, 700);
    let body: Bytes = snap::raw::Encoder::new().compress_vec(&split.parts[0].message.0).unwrap().into();
    let options = tsdb::Options { float_chunks: tsdb::FloatChunks::Xor2, ..tsdb::Options::default() };
    let disk = Arc::new(tsdb::disk::memory::Memory::new());
    let db = Arc::new(tsdb::Db::open_on(disk, "/data".as_ref(), options, &mut |_| {}).unwrap());
    let receiver = crate::receive::Receiver::new(Arc::clone(&db), [1, 2]);
    assert_eq!(receiver.receive(V1, &body).unwrap().samples, 2);
    assert_eq!(db.metadata(&[]).remove(0).1.help, "Says a.");
}
