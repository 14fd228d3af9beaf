//! What is asked when, and how answers become one store.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use model::{
    Labels, MatchOp, Matcher, Querier as _, QueryCancelled, Samples, Selection, StorageError, TimeRange,
};
use parking_lot::Mutex;
use proptest::prelude::*;
use reqwest::header::HeaderMap;
use tsdb::Db;
use tsdb::disk::memory::Memory;

use super::client::{Endpoint, samples};
use super::frames::Frames;
use super::fuzzing::read_answer;
use super::merged::{Endpoints, merge};
use super::{ReadQuery, answer, parse, stream};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

/// Labels and times.
type Given<'a> = (&'a [(&'a str, &'a str)], &'a [i64]);

/// A store with samples of the value 1 of these series.
fn store(series: &[Given<'_>]) -> Arc<Db> {
    let db = Db::open_on(Arc::new(Memory::new()), "/data".as_ref(), tsdb::Options::default(), &mut |_| {})
        .unwrap();
    let mut appender = db.appender();
    for (pairs, times) in series {
        let reference = appender.series(&labels(pairs)).unwrap();
        times.iter().for_each(|ts| appender.append(reference, *ts, 1.0).unwrap());
    }
    appender.commit().unwrap();
    Arc::new(db)
}

fn endpoint(url: &str) -> Endpoint {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    Endpoint {
        name: "other".into(),
        url: url.into(),
        transport: crate::send::carry_by(client),
        headers: HeaderMap::new(),
        timeout: Duration::from_secs(20),
        required: Labels::empty(),
        recent: true,
        external_labels: Labels::empty(),
    }
}

/// Answers each request with what `reply` makes of its body: a content type and a body.
fn serve(reply: impl Fn(&[u8]) -> (&'static str, Vec<u8>) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/read", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
            let body = loop {
                let read = stream.read(&mut buffer).unwrap_or(0);
                bytes.extend_from_slice(&buffer[..read]);
                let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
                let head = String::from_utf8_lossy(&bytes[..at]).to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                if bytes.len() >= at + 4 + length.parse::<usize>().unwrap() {
                    break bytes[at + 4..].to_vec();
                }
            };
            let (kind, body) = reply(&body);
            let status = if kind.is_empty() { "500 No" } else { "200 OK" };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    url
}

/// A server over a store, in either form.
fn server(db: Arc<Db>, external: Labels, streamed: bool, asked: Arc<Mutex<Vec<ReadQuery>>>) -> String {
    serve(move |body| {
        let request = parse(body).unwrap();
        assert!(request.streamed);
        asked.lock().extend(request.queries.clone());
        if !streamed {
            return (
                "application/x-protobuf",
                answer(&db.snapshot(), &request.queries, &external, 0).unwrap(),
            );
        }
        let mut out = Vec::new();
        // Frames of a chunk or two.
        stream(&db.snapshot(), &request.queries, &external, 100, &mut |piece| {
            out.extend(piece);
            true
        })
        .unwrap();
        ("application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse", out)
    })
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    endpoints: Endpoints,
}

impl Bench {
    fn new(all: Vec<Endpoint>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let endpoints = Endpoints::new(runtime.handle().clone());
        assert!(endpoints.is_empty());
        endpoints.apply(all);
        Self { runtime, endpoints }
    }
}

type Rows = Vec<(Labels, Vec<i64>)>;

fn rows(querier: &dyn model::Querier, matchers: &[Matcher], range: TimeRange) -> Rows {
    let set = querier.select(&Selection::new(matchers, range)).unwrap();
    let mut found = Samples::default();
    (0..set.len())
        .map(|at| {
            set.samples(at, range, &mut found).unwrap();
            let labels = set.labels(at);
            assert!(labels.iter().all(|(name, _)| set.may_have_label(name)));
            (labels, found.ts.clone())
        })
        .collect()
}

const NAMED: [(&str, &str); 1] = [("__name__", "a")];

fn named() -> [Matcher; 1] {
    [Matcher::equal("__name__", "a")]
}

#[test]
fn what_others_have_is_added_in_either_form() {
    let many: Vec<i64> = (1..900).map(|at| at * 1_000).collect();
    for streamed in [false, true] {
        let other = store(&[(&[("__name__", "a"), ("x", "0")], &[1, 2]), (&NAMED, &many)]);
        let asked = Arc::default();
        let url = server(other, labels(&[("dc", "there")]), streamed, Arc::clone(&asked));
        let external_labels = labels(&[("dc", "there"), ("__name__", "not added")]);
        let bench = Bench::new(vec![Endpoint { external_labels, ..endpoint(&url) }]);
        let own: Vec<i64> = vec![800_000, 899_500, 2_000_000];
        let local = store(&[(&NAMED, &own), (&[("__name__", "a"), ("y", "1")], &[5])]);
        let snapshot = local.snapshot();
        let merged = bench.endpoints.beside(&snapshot, 0, true);
        let mut both: Vec<i64> = many.iter().chain(&own).copied().collect();
        both.sort_unstable();
        both.dedup();
        let wanted: Rows = vec![
            (labels(&NAMED), both.clone()),
            (labels(&[("__name__", "a"), ("x", "0")]), vec![1, 2]),
            (labels(&[("__name__", "a"), ("y", "1")]), vec![5]),
        ];
        assert_eq!(rows(&merged, &named(), TimeRange::ALL), wanted);
        let part = TimeRange::new(700_500, 899_900);
        let wanted: Vec<i64> = both.into_iter().filter(|ts| (700_500..=899_900).contains(ts)).collect();
        assert_eq!(rows(&merged, &named(), part)[0].1, wanted);
        let set = merged.select_unordered(&Selection::new(&named(), TimeRange::ALL)).unwrap();
        assert_eq!(set.len(), 3);
        // Names and values are those that are here.
        assert_eq!(merged.label_names(&[], TimeRange::ALL, 0).unwrap(), ["__name__", "y"]);
        assert!(merged.label_values("x", &[], TimeRange::ALL, 0).unwrap().is_empty());
        assert!(merged.warnings().is_empty());
        let first = asked.lock()[0].clone();
        assert_eq!(first.matchers, [Matcher::equal("__name__", "a"), Matcher::equal("dc", "there")]);
        drop(bench.runtime);
    }
}

/// By Prometheus' rules: whom a question concerns, for which time, and with which conditions.
#[test]
fn a_server_is_asked_what_concerns_it() {
    let range = TimeRange::new(100, 200);
    let ask = |endpoint: &Endpoint, matchers: &[Matcher], local_from| {
        endpoint.question((matchers, range), local_from)
    };
    let all = endpoint("http://x/");
    let (query, added) = ask(&all, &named(), 0).unwrap();
    assert_eq!((query.range, query.matchers.len(), added.len()), (range, 1, 0));

    let old = Endpoint { recent: false, ..all.clone() };
    assert!(ask(&old, &named(), 99).is_none());
    let end = |from| ask(&old, &named(), from).unwrap().0.range.end;
    assert_eq!((end(100), end(150), end(1_000)), (100, 150, 200));

    let narrow = Endpoint { required: labels(&[("job", "j"), ("dc", "d")]), ..all.clone() };
    let both = [Matcher::equal("dc", "d"), Matcher::equal("job", "j"), Matcher::equal("x", "1")];
    assert!(ask(&narrow, &both, 0).is_some());
    assert!(ask(&narrow, &both[..1], 0).is_none());
    let by_pattern = [both[0].clone(), Matcher::new("job", MatchOp::Regex, "j").unwrap()];
    assert!(ask(&narrow, &by_pattern, 0).is_none());

    let outside = Endpoint { external_labels: labels(&[("dc", "d"), ("rack", "r")]), ..all };
    let (query, added) = ask(&outside, &[Matcher::new("dc", MatchOp::NotEqual, "d").unwrap()], 0).unwrap();
    assert_eq!(added, ["rack"]);
    assert_eq!(query.matchers.last(), Some(&Matcher::equal("rack", "r")));
    assert_eq!(query.matchers.len(), 2);
}

#[test]
fn who_does_not_answer_is_named() {
    let good = server(store(&[(&NAMED, &[7])]), Labels::empty(), true, Arc::default());
    for (what, url) in [
        ("500 Internal", serve(|_| ("", b"no\n".to_vec()))),
        ("text/html", serve(|_| ("text/html", Vec::new()))),
        ("ends within a frame", serve(|_| ("application/x-streamed-protobuf", vec![5, 0]))),
        ("decompressing", serve(|_| ("application/x-protobuf", vec![0xff; 9]))),
        ("tcp connect", "http://127.0.0.1:1/".to_owned()),
    ] {
        let bench = Bench::new(vec![Endpoint { name: "bad".into(), ..endpoint(&url) }, endpoint(&good)]);
        let local = store(&[]);
        let snapshot = local.snapshot();
        let merged = bench.endpoints.beside(&snapshot, 0, false);
        assert_eq!(rows(&merged, &named(), TimeRange::ALL), [(labels(&NAMED), vec![7])], "{what}");
        let warnings = merged.warnings();
        assert!(
            warnings.len() == 1 && warnings[0].contains("\"bad\"") && warnings[0].contains(what),
            "{warnings:?}"
        );
        let strict = bench.endpoints.beside(&snapshot, 0, true);
        let refused = strict.select(&Selection::new(&named(), TimeRange::ALL)).err();
        assert!(matches!(refused, Some(StorageError::Unavailable(_))), "{what}");
    }
}

#[test]
fn a_query_that_nobody_waits_for_does_not_wait_either() {
    // It takes connections and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bench = Bench::new(vec![endpoint(&format!("http://{}/", listener.local_addr().unwrap()))]);
    let cancelled = QueryCancelled::new();
    cancelled.set();
    let (local, matchers) = (store(&[]), named());
    let snapshot = local.snapshot();
    let merged = bench.endpoints.beside(&snapshot, 0, false);
    let selection = Selection::new(&matchers, TimeRange::ALL).until(Some(&cancelled));
    assert!(matches!(merged.select(&selection), Err(StorageError::Cancelled)));
    // And one that takes too long is a warning.
    let slow = Endpoint { timeout: Duration::from_millis(20), ..bench.endpoints.first() };
    bench.endpoints.apply(vec![slow]);
    let merged = bench.endpoints.beside(&snapshot, 0, false);
    assert!(rows(&merged, &named(), TimeRange::ALL).is_empty());
    assert!(merged.warnings()[0].contains("20ms"), "{:?}", merged.warnings());
}

/// A time of 0 to 60, and whether its sample is a histogram.
fn columns() -> impl Strategy<Value = std::collections::BTreeMap<i64, bool>> {
    prop::collection::btree_map(0i64..60, any::<bool>(), 0..30)
}

fn in_columns(all: &std::collections::BTreeMap<i64, bool>, value: f64, starts: bool) -> Samples {
    let mut samples = Samples::default();
    for (ts, is_histogram) in all {
        if *is_histogram {
            let histogram = model::FloatHistogram { sum: value, ..model::FloatHistogram::default() };
            samples.push_histogram(*ts, Arc::new(histogram));
            samples.histogram_start_ts.extend(starts.then_some(ts - 1));
        } else {
            samples.push_float(*ts, value);
            samples.start_ts.extend(starts.then_some(ts - 1));
        }
    }
    samples
}

proptest! {
    /// Two columns become one in order of time, in which the first one's samples stand.
    #[test]
    fn columns_become_one(first in columns(), second in columns(), shift in -60i64..61, starts: bool) {
        let second = second.into_iter().map(|(ts, kind)| (ts + shift, kind)).collect();
        let mut merged = in_columns(&first, 1.0, starts);
        let had_starts = (!merged.start_ts.is_empty(), !merged.histogram_start_ts.is_empty());
        merge(&mut merged, in_columns(&second, 2.0, false));
        let mut wanted = std::collections::BTreeMap::new();
        second.iter().for_each(|(ts, kind)| { wanted.insert(*ts, (*kind, 2.0)); });
        first.iter().for_each(|(ts, kind)| { wanted.insert(*ts, (*kind, 1.0)); });
        let floats: Vec<_> = merged.ts.iter().zip(&merged.values).map(|(ts, value)| (*ts, (false, *value))).collect();
        let histograms: Vec<_> =
            merged.histogram_ts.iter().zip(&merged.histograms).map(|(ts, one)| (*ts, (true, one.sum))).collect();
        prop_assert!(merged.ts.is_sorted() && merged.histogram_ts.is_sorted());
        let found: std::collections::BTreeMap<_, _> = floats.iter().chain(&histograms).copied().collect();
        prop_assert_eq!(found.len(), floats.len() + histograms.len());
        prop_assert_eq!(found, wanted);
        let lengths = (merged.ts.len(), merged.histogram_ts.len());
        prop_assert_eq!(merged.start_ts.len(), if had_starts.0 { lengths.0 } else { 0 });
        prop_assert_eq!(merged.histogram_start_ts.len(), if had_starts.1 { lengths.1 } else { 0 });
        for (at, start) in merged.start_ts.iter().enumerate() {
            let own = merged.values[at] == 1.0;
            prop_assert_eq!(*start, if own { merged.ts[at] - 1 } else { 0 });
        }
    }

    /// What a server has is what its answers have, in either form and bit by bit.
    #[test]
    fn answers_read_back(bits in prop::collection::vec((any::<u64>(), any::<bool>()), 1..200), counts: [u8; 2]) {
        let db = store(&[]);
        let mut appender = db.appender();
        let own = labels(&[("__name__", "a"), ("x", "\u{e4}")]);
        let (floats, histograms) = (labels(&NAMED), own);
        let histogram = |at: usize| model::IntHistogram {
            schema: 3,
            count: u64::from(counts[0]) + u64::from(counts[1]) + at as u64,
            sum: f64::from_bits(bits[at].0),
            zero_count: at as u64,
            positive_spans: vec![model::Span { offset: -1, length: 2 }],
            positive: counts.map(u64::from).to_vec(),
            ..model::IntHistogram::default()
        };
        let (of_floats, of_histograms) =
            (appender.series(&floats).unwrap(), appender.series(&histograms).unwrap());
        let (mut wanted, mut wanted_histograms) = (Vec::new(), Vec::new());
        for (at, (ts, (bits, is_histogram))) in (0..).map(|at| at * 15_000).zip(&bits).enumerate() {
            if *is_histogram {
                let value = histogram(at);
                wanted_histograms.push((ts, value.sum.to_bits(), value.to_float().count));
                appender.append_histogram(of_histograms, ts, &model::HistogramValue::Int(value)).unwrap();
            } else {
                wanted.push((ts, *bits));
                appender.append(of_floats, ts, f64::from_bits(*bits)).unwrap();
            }
        }
        appender.commit().unwrap();
        let query = ReadQuery { range: TimeRange::ALL, matchers: named().to_vec() };
        let (snapshot, none) = (db.snapshot(), Labels::empty());
        let whole = samples(&answer(&snapshot, std::slice::from_ref(&query), &none, 0).unwrap()).unwrap();
        let mut frames = Frames::default();
        stream(&snapshot, &[query], &none, 100, &mut |piece| { frames.push(&piece); true }).unwrap();
        let mut parts = Vec::new();
        while let Some(more) = frames.take().unwrap() {
            parts.extend(more);
        }
        prop_assert!(frames.is_at_end());
        let (mut read, mut streamed) = (Samples::default(), Samples::default());
        whole.iter().for_each(|series| series.decode(TimeRange::ALL, &mut read).unwrap());
        parts.iter().for_each(|series| series.decode(TimeRange::ALL, &mut streamed).unwrap());
        for found in [read, streamed] {
            let floats: Vec<_> = found.ts.iter().zip(&found.values).map(|(ts, v)| (*ts, v.to_bits())).collect();
            prop_assert_eq!(&floats, &wanted);
            let histograms = found.histogram_ts.iter().zip(&found.histograms);
            let histograms: Vec<_> =
                histograms.map(|(ts, one)| (*ts, one.sum.to_bits(), one.count)).collect();
            prop_assert_eq!(&histograms, &wanted_histograms);
        }
        prop_assert!(whole.iter().all(|series| series.labels == floats || series.labels == histograms));
    }

    /// Neither of nothing but noise, nor of an answer with some of it.
    #[test]
    fn no_answer_is_a_panic(noise: Vec<u8>, places: [prop::sample::Index; 4]) {
        read_answer(&noise);
        let many: Vec<i64> = (1..300).map(|at| at * 1_000).collect();
        let db = store(&[(&NAMED, &many)]);
        let queries = [ReadQuery { range: TimeRange::ALL, matchers: named().to_vec() }];
        let snapshot = db.snapshot();
        let whole = answer(&snapshot, &queries, &Labels::empty(), 0).unwrap();
        let _ = samples(&noise);
        let mut message = snap::raw::Decoder::new().decompress_vec(&whole).unwrap();
        let mut streamed = Vec::new();
        stream(&snapshot, &queries, &Labels::empty(), 1 << 20, &mut |piece| { streamed.extend(piece); true }).unwrap();
        // The one frame's length takes two bytes, and its checksum four.
        let mut framed = streamed.split_off(6);
        for (place, byte) in places.iter().zip(&noise) {
            *place.get_mut(&mut message) = *byte;
            *place.get_mut(&mut framed) = *byte;
        }
        read_answer(&message);
        read_answer(&framed);
    }
}
