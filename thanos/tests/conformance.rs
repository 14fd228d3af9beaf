//! The StoreAPI as an independent client sees it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its assumptions do")]

mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use model::{
    HistogramValue, IntHistogram, Labels, Matcher, Querier as _, Samples, Selection, Span, TimeRange,
};
use proptest::prelude::*;
use thanos::{Limits, Store};
use tower::ServiceExt as _;
use tsdb::{ChunkEncoding, Db, FloatChunks, Options, RawChunk};
use wire::{Answer, Chunk, Message, Series, answer, fields, framed, series_request, texts, unframed};

const OK: i64 = 0;
const INVALID_ARGUMENT: i64 = 3;
const DEADLINE_EXCEEDED: i64 = 4;
const RESOURCE_EXHAUSTED: i64 = 8;
const UNIMPLEMENTED: i64 = 12;

/// What came back: messages, status, and what it says.
struct Reply {
    messages: Vec<Vec<u8>>,
    status: i64,
    text: String,
}

async fn ask(store: &Arc<Store>, path: &str, body: Vec<u8>) -> axum::response::Response {
    let request = Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::from(body))
        .unwrap();
    store.routes().oneshot(request).await.unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn finish(response: axum::response::Response) -> Reply {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let head = response.headers().clone();
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or(head);
    let text = |name: &str| trailers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    Reply {
        status: text("grpc-status").parse().unwrap(),
        text: text("grpc-message"),
        messages: unframed(&body.to_bytes()),
    }
}

fn call(store: &Arc<Store>, path: &str, message: &Message) -> Reply {
    runtime().block_on(async { finish(ask(store, path, framed(&message.0)).await).await })
}

fn series(store: &Arc<Store>, request: &Message) -> Answer {
    let reply = call(store, "/thanos.Store/Series", request);
    assert_eq!(reply.status, OK, "{}", reply.text);
    answer(&reply.messages)
}

fn refused(store: &Arc<Store>, request: &Message) -> (i64, String) {
    let reply = call(store, "/thanos.Store/Series", request);
    (reply.status, reply.text)
}

/// A store with a series for each set of labels, each with `samples`.
fn store_of(
    all: &[&[(&str, &str)]],
    samples: &[(i64, f64)],
    external: &[(&str, &str)],
) -> (tempfile::TempDir, Arc<Store>) {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options::default()).unwrap();
    let mut batch = db.appender();
    for pairs in all {
        let series = batch.series(&Labels::from_pairs(pairs.iter().copied())).unwrap();
        for (ts, value) in samples {
            batch.append(series, *ts, *value).unwrap();
        }
    }
    batch.commit().unwrap();
    (dir, Store::new(Arc::new(db), Labels::from_pairs(external.iter().copied()), Limits::default()))
}

fn names(answer: &Answer) -> Vec<String> {
    let one = |series: &Series| {
        let pairs = series.labels.iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join(",")
    };
    answer.series.iter().map(one).collect()
}

fn everything() -> Message {
    series_request(i64::MIN, i64::MAX).matcher(3, 2, "__name__", ".+")
}

#[test]
fn what_is_sent_is_what_is_published_byte_by_byte() {
    let (_dir, store) = store_of(&[&[("__name__", "up")]], &[(1_000, 1.0)], &[("replica", "a")]);
    let reply = call(&store, "/thanos.Store/Series", &everything());
    // One sample: count 1, time 1000 as a signed varint, the float's bits.
    let chunk: &[u8] = &[0, 1, 0xd0, 0x0f, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0];
    #[rustfmt::skip]
    let expected = [
        &[0x0a, 54][..],
            &[0x0a, 14, 0x0a, 8], b"__name__", &[0x12, 2], b"up",
            &[0x0a, 12, 0x0a, 7], b"replica", &[0x12, 1], b"a",
            &[0x12, 22, 0x08, 0xe8, 0x07, 0x10, 0xe8, 0x07],
                &[0x1a, 14, 0x12, 12], chunk,
    ].concat();
    assert_eq!(reply.messages, [expected]);
    let reply = call(&store, "/thanos.Store/Series", &everything().number(16, 10));
    assert_eq!(reply.messages[0][..4], [0x22, 56, 0x0a, 54]);

    let reply = call(&store, "/thanos.info.Info/Info", &Message::default());
    let set = [&[0x0a, 12, 0x0a, 7][..], b"replica", &[0x12, 1], b"a"].concat();
    let live = [&[0x10][..], &[0xff; 8], &[0x7f]].concat();
    let info = [&[0x0a, 14][..], &set, &[0x10, 0xe8, 0x07], &[0x18], &live[1..]].concat();
    #[rustfmt::skip]
    let expected = [
        &[0x0a, 14][..], &set,
        &[0x12, 7], b"sidecar",
        &[0x1a, 48, 0x08, 0xe8, 0x07], &live, &[0x18, 1, 0x28, 1],
            &[0x32, 29], &info,
    ].concat();
    assert_eq!(reply.messages, [expected]);
}

#[test]
fn series_are_sorted_by_the_labels_that_are_sent() {
    let all: &[&[(&str, &str)]] = &[
        &[("__name__", "up")],
        // As stored, this one is later; with z=1 it is earlier.
        &[("__name__", "up"), ("a", "b")],
        &[("__name__", "up"), ("replica", "0"), ("zone", "2")],
        &[("__name__", "up"), ("replica", "1"), ("zone", "1")],
        &[("__name__", "up"), ("replica", "1"), ("zone", "2")],
        &[("__name__", "up"), ("z", "overridden")],
    ];
    let (_dir, store) = store_of(all, &[(1, 1.0)], &[("replica", "x"), ("z", "1")]);
    let found = series(&store, &everything());
    let expected = [
        "__name__=up,a=b,replica=x,z=1",
        "__name__=up,replica=x,z=1",
        "__name__=up,replica=x,z=1",
        "__name__=up,replica=x,z=1,zone=1",
        "__name__=up,replica=x,z=1,zone=2",
        "__name__=up,replica=x,z=1,zone=2",
    ];
    assert_eq!(names(&found), expected);
    let found = series(&store, &everything().text(14, "replica"));
    let short = expected.map(|text| text.replace("replica=x,", ""));
    assert_eq!(names(&found), short);
    // Without chunks each comes once, also where several series become one.
    let found = series(&store, &everything().text(14, "replica").number(8, 1));
    assert_eq!(names(&found), [&short[0], &short[1], &short[3], &short[4]].map(String::clone));
    assert!(found.series.iter().all(|series| series.chunks.is_empty()));
    let found = series(&store, &everything().text(14, "replica").number(8, 1).number(15, 2));
    assert_eq!(names(&found), short[..2]);
    let found = series(&store, &everything().number(16, 4));
    assert_eq!((names(&found), found.in_frames), (expected.map(str::to_owned).to_vec(), vec![4, 2]));
}

#[test]
fn external_labels_are_judged_and_not_looked_for() {
    let (_dir, store) =
        store_of(&[&[("__name__", "up"), ("cluster", "own")]], &[(5, 1.0)], &[("cluster", "c1")]);
    let with = |kind, value| {
        series_request(0, 10).matcher(3, 0, "__name__", "up").matcher(3, kind, "cluster", value)
    };
    assert_eq!(names(&series(&store, &with(0, "c1"))), ["__name__=up,cluster=c1"]);
    assert_eq!(names(&series(&store, &with(2, "c."))), ["__name__=up,cluster=c1"]);
    for (kind, value) in [(0, "own"), (1, "c1"), (2, "d."), (3, "c."), (0, "")] {
        assert_eq!(series(&store, &with(kind, value)), Answer::default(), "{kind} {value}");
    }
    let only = series_request(0, 10).matcher(3, 0, "cluster", "c1");
    let (status, text) = refused(&store, &only);
    assert_eq!(status, INVALID_ARGUMENT);
    assert!(text.contains("external"), "{text}");
    // Nothing to be found, whatever else is asked.
    assert_eq!(series(&store, &series_request(0, 10).matcher(3, 0, "cluster", "c2")), Answer::default());
    assert_eq!(series(&store, &series_request(6, 10).matcher(3, 0, "__name__", "up")), Answer::default());
    assert_eq!(series(&store, &series_request(10, 0).matcher(3, 0, "__name__", "up")), Answer::default());
    store.set_external_labels(Labels::empty());
    assert_eq!(names(&series(&store, &with(0, "own"))), ["__name__=up,cluster=own"]);
    let info = call(&store, "/thanos.info.Info/Info", &Message::default());
    assert!(fields(&info.messages[0]).iter().all(|(field, _)| *field != 1));
}

#[test]
fn requests_that_make_no_sense_are_refused_with_a_reason() {
    let (_dir, store) = store_of(&[&[("__name__", "up")]], &[(5, 1.0)], &[]);
    let all = series_request(0, 10);
    let cases = [
        (all.clone(), INVALID_ARGUMENT, "no%20matchers"),
        (all.clone().matcher(3, 2, "a", "("), INVALID_ARGUMENT, "a"),
        (all.clone().matcher(3, 9, "a", "b"), INVALID_ARGUMENT, "type"),
        (Message(vec![0xff; 40]), INVALID_ARGUMENT, ""),
        (all.clone().bytes(3, b"\x12\x7f"), INVALID_ARGUMENT, ""),
        (all.clone().bytes(3, b"\x12\x02\xff\xfe"), INVALID_ARGUMENT, ""),
        ((0..1_001).fold(all, |all, _| all.matcher(3, 0, "a", "b")), INVALID_ARGUMENT, "1000"),
    ];
    for (request, status, text) in cases {
        let reply = refused(&store, &request);
        assert!(reply.0 == status && reply.1.contains(text), "{reply:?}, expected {status} {text}");
    }
    assert_eq!(call(&store, "/thanos.Store/Nothing", &Message::default()).status, UNIMPLEMENTED);
    // Too long, cut off, and not gRPC at all.
    let long = Message::default().bytes(99, &vec![0; 2 << 20]);
    assert_ne!(refused(&store, &long).0, OK);
    runtime().block_on(async {
        let cut_off = framed(&everything().0)[..9].to_vec();
        let reply = finish(ask(&store, "/thanos.Store/Series", cut_off).await).await;
        assert_ne!(reply.status, OK);
    });
    assert_eq!(store.stats().series, 0);
}

#[test]
fn names_and_values_are_completed() {
    let all: &[&[(&str, &str)]] =
        &[&[("__name__", "up"), ("job", "a")], &[("__name__", "up"), ("job", "b"), ("replica", "own")]];
    let (_dir, store) = store_of(all, &[(5, 1.0)], &[("cluster", "c1"), ("replica", "x")]);
    let ask = |path: &str, request: Message| {
        let reply = call(&store, &format!("/thanos.Store/{path}"), &request);
        assert_eq!(reply.status, OK, "{}", reply.text);
        texts(&reply.messages[0], 1)
    };
    let names = |request| ask("LabelNames", request);
    let all = || Message::default().number(3, 0).number(4, 10);
    assert_eq!(names(all()), ["__name__", "cluster", "job", "replica"]);
    assert_eq!(names(all().number(8, 2)), ["__name__", "cluster"]);
    assert_eq!(names(all().text(7, "replica")), ["__name__", "cluster", "job"]);
    assert_eq!(names(all().matcher(6, 0, "cluster", "c2")), Vec::<String>::new());
    assert_eq!(names(Message::default().number(3, 6).number(4, 10)), Vec::<String>::new());
    let values = |label: &str, request: fn(Message) -> Message| {
        ask("LabelValues", request(Message::default().text(1, label).number(4, 0).number(5, 10)))
    };
    assert_eq!(values("job", |all| all), ["a", "b"]);
    assert_eq!(values("job", |all| all.number(9, 1)), ["a"]);
    assert_eq!(values("job", |all| all.matcher(7, 0, "cluster", "c1").matcher(7, 1, "job", "a")), ["b"]);
    assert_eq!(values("replica", |all| all), ["x"]);
    assert_eq!(values("replica", |all| all.text(8, "replica")), Vec::<String>::new());
    assert_eq!(values("cluster", |all| all.matcher(7, 0, "job", "a")), ["c1"]);
    assert_eq!(values("cluster", |all| all.matcher(7, 0, "job", "none")), Vec::<String>::new());
    let reply = call(&store, "/thanos.Store/LabelValues", &Message::default().number(5, 10));
    assert_eq!(reply.status, INVALID_ARGUMENT);
    let health =
        |service: &str| call(&store, "/grpc.health.v1.Health/Check", &Message::default().text(1, service));
    assert_eq!((health("").status, health("thanos.Store").messages), (OK, vec![vec![8, 1]]));
    assert_ne!(health("other").status, OK);
}

#[test]
fn a_long_series_goes_on_in_the_next_frame_and_never_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options::default()).unwrap();
    let mut state = 1_u64;
    let mut batch = db.appender();
    let long = batch.series(&Labels::from_pairs([("__name__", "b")])).unwrap();
    for name in ["a", "c"] {
        let series = batch.series(&Labels::from_pairs([("__name__", name)])).unwrap();
        batch.append(series, 1, 1.0).unwrap();
    }
    for ts in 1..=150_000 {
        // Numbers that do not compress.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        batch.append(long, ts, f64::from_bits(state >> 2)).unwrap();
    }
    batch.commit().unwrap();
    let store = Store::new(Arc::new(db), Labels::empty(), Limits::default());
    for request in [everything(), everything().number(16, 100)] {
        let reply = call(&store, "/thanos.Store/Series", &request);
        assert!(reply.messages.iter().all(|frame| frame.len() <= 1 << 20));
        let found = answer(&reply.messages);
        let parts: Vec<_> = found.series.iter().map(|series| series.labels[0].1.as_str()).collect();
        assert_eq!((parts[0], parts[parts.len() - 1]), ("a", "c"));
        assert!(parts.len() > 3 && parts[1..parts.len() - 1].iter().all(|name| *name == "b"));
        let chunks =
            found.series.iter().filter(|series| series.labels[0].1 == "b").flat_map(|series| &series.chunks);
        let samples: i64 =
            chunks.map(|chunk| i64::from(u16::from_be_bytes([chunk.data[0], chunk.data[1]]))).sum();
        assert_eq!(samples, 150_000);
    }
    assert_eq!(store.stats().samples, 2 * 150_002);
}

#[test]
fn histograms_have_their_encodings() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options::default()).unwrap();
    let int = IntHistogram {
        count: 3,
        sum: 4.5,
        positive_spans: vec![Span { offset: 1, length: 2 }],
        positive: vec![1, 2],
        ..IntHistogram::default()
    };
    let values = [HistogramValue::Int(int.clone()), HistogramValue::Float(int.to_float())];
    let mut batch = db.appender();
    for (name, value) in ["f", "i"].into_iter().zip(values.iter().rev()) {
        let series = batch.series(&Labels::from_pairs([("__name__", name)])).unwrap();
        (1..4).for_each(|ts| batch.append_histogram(series, ts, value).unwrap());
    }
    batch.commit().unwrap();
    let store = Store::new(Arc::new(db), Labels::empty(), Limits::default());
    let found = series(&store, &everything());
    let kinds: Vec<i64> = found.series.iter().map(|series| series.chunks[0].kind).collect();
    assert_eq!(kinds, [2, 1]);
    for one in &found.series {
        let samples = decoded(&one.chunks, TimeRange::ALL);
        assert_eq!(samples.histogram_ts, [1, 2, 3]);
        assert!(samples.histograms.iter().all(|histogram| histogram.count == 3.0 && histogram.sum == 4.5));
    }
}

#[test]
fn limits_have_names_and_a_client_that_does_not_read_is_told() {
    let texts: Vec<String> = (0..400).map(|number| format!("{number:05}")).collect();
    let samples: Vec<_> = (0..2_000).map(|ts| (ts, f64::from(i32::try_from(ts).unwrap()) * 1.1)).collect();
    let all: Vec<Vec<(&str, &str)>> =
        texts.iter().map(|text| vec![("__name__", "x"), ("n", text.as_str())]).collect();
    let all: Vec<&[(&str, &str)]> = all.iter().map(Vec::as_slice).collect();
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options::default()).unwrap();
    let mut batch = db.appender();
    for pairs in &all {
        let series = batch.series(&Labels::from_pairs(pairs.iter().copied())).unwrap();
        samples.iter().for_each(|(ts, value)| batch.append(series, *ts, *value).unwrap());
    }
    batch.commit().unwrap();
    let db = Arc::new(db);
    let limited = |limits| Store::new(Arc::clone(&db), Labels::empty(), limits);
    for (limits, name) in [
        (Limits { series_max: 399, ..Limits::default() }, "request-series"),
        (Limits { samples_max: 400 * 2_000 - 1, ..Limits::default() }, "request-samples"),
    ] {
        let (status, text) = refused(&limited(limits), &everything());
        assert!(status == RESOURCE_EXHAUSTED && text.contains(name), "{status} {text}");
    }
    let exact = Limits { series_max: 400, samples_max: 400 * 2_000, ..Limits::default() };
    assert_eq!(series(&limited(exact), &everything()).series.len(), 400);

    // One at a time, and the first does not read: it is left, told so, and the next has its turn.
    let hasty = Limits { concurrency: 1, patience: Duration::from_millis(1), ..Limits::default() };
    let store = limited(hasty);
    runtime().block_on(async {
        let first = ask(&store, "/thanos.Store/Series", framed(&everything().0)).await;
        let second = finish(ask(&store, "/thanos.Store/Series", framed(&everything().0)).await).await;
        // Whether the second was quick enough is not the question here, only that it had its turn.
        assert!([OK, DEADLINE_EXCEEDED].contains(&second.status));
        let first = finish(first).await;
        assert_eq!(first.status, DEADLINE_EXCEEDED, "{}", first.text);
        assert!(answer(&first.messages).series.len() < 400);
        // One that hangs up gives its turn back, too.
        drop(ask(&store, "/thanos.Store/Series", framed(&everything().0)).await);
        finish(ask(&store, "/thanos.Store/LabelNames", framed(&[])).await).await;
        ask(&store, "/thanos.Store/Series", framed(&everything().0)).await;
    });
}

#[test]
fn shards_are_disjoint_and_together_everything() {
    let texts: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    let all: Vec<Vec<(&str, &str)>> =
        texts.iter().map(|text| vec![("__name__", "x"), ("n", text.as_str()), ("p", &text[..1])]).collect();
    let all: Vec<&[(&str, &str)]> = all.iter().map(Vec::as_slice).collect();
    let (_dir, store) = store_of(&all, &[(1, 1.0)], &[("cluster", "c")]);
    for (by, labels) in [(0, vec!["n"]), (1, vec!["p", "cluster"]), (0, vec![]), (1, vec!["n"])] {
        let mut seen: BTreeMap<String, i64> = BTreeMap::new();
        let mut together = Vec::new();
        for index in 0..3 {
            let shard = Message::default().number(1, index).number(2, 3).number(3, by);
            let shard = labels.iter().fold(shard, |shard, label| shard.text(4, label));
            let found = series(&store, &everything().bytes(13, &shard.0));
            for one in &found.series {
                let counts = |name: &str| labels.contains(&name) == (by == 1);
                let key = one.labels.iter().filter(|(name, _)| counts(name));
                let key = key.map(|(name, value)| format!("{name}={value};")).collect();
                // Series of one group are in one shard.
                assert_eq!(*seen.entry(key).or_insert(index), index);
            }
            together.extend(names(&found));
        }
        together.sort();
        let mut whole = names(&series(&store, &everything()));
        whole.sort();
        assert_eq!(together, whole);
    }
}

/// What chunks have, decoded.
fn decoded(chunks: &[Chunk], range: TimeRange) -> Samples {
    let mut samples = Samples::default();
    for chunk in chunks {
        let encoding = match chunk.kind {
            0 => ChunkEncoding::Xor,
            1 => ChunkEncoding::Histogram,
            2 => ChunkEncoding::FloatHistogram,
            other => panic!("an unknown encoding {other}"),
        };
        let raw = RawChunk { min_ts: chunk.min, max_ts: chunk.max, encoding, bytes: &chunk.data };
        raw.decode(range, &mut samples).unwrap();
    }
    samples
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever was stored, in order or late, in blocks or not: chunks decoded are what the store gives.
    #[test]
    fn chunks_decoded_are_what_the_store_has(
        appends in prop::collection::vec((0_u8..6, 0_i64..5_000, any::<u64>()), 1..300),
        (cut, started, from, length) in (any::<bool>(), any::<bool>(), 0_i64..5_000, 0_i64..5_000),
        (batch, replica) in (0_i64..5, any::<bool>()),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            block_range_ms: 1_000,
            out_of_order_window_ms: 100_000,
            float_chunks: if started { FloatChunks::Xor2 } else { FloatChunks::Xor },
            ..Options::default()
        };
        let db = Db::open(dir.path(), options).unwrap();
        for part in appends.chunks(100) {
            let mut appender = db.appender();
            for (id, ts, bits) in part {
                let id = id.to_string();
                let pairs = [("__name__", "x"), ("id", id.as_str()), ("replica", &id[..1])];
                let series = appender.series(&Labels::from_pairs(pairs)).unwrap();
                // A time that is taken is refused; the store is asked what it has.
                let _ = appender.append(series, *ts, f64::from_bits(*bits));
            }
            appender.commit().unwrap();
            if cut {
                db.cut_head().unwrap();
            }
        }
        let range = TimeRange::new(from, from + length);
        let matchers = [Matcher::equal("__name__", "x")];
        let mut expected = BTreeMap::new();
        let snapshot = db.snapshot();
        let set = snapshot.select(&Selection::new(&matchers, range)).unwrap();
        for at in 0..set.len() {
            let mut samples = Samples::default();
            set.samples(at, range, &mut samples).unwrap();
            let bits: Vec<u64> = samples.values.iter().map(|value| value.to_bits()).collect();
            if !samples.ts.is_empty() {
                expected.insert(set.labels(at).get("id").unwrap().to_owned(), (samples.ts, bits));
            }
        }
        drop(set);
        drop(snapshot);
        let store = Store::new(Arc::new(db), Labels::from_pairs([("a", "external")]), Limits::default());
        let mut request = series_request(range.start, range.end).matcher(3, 0, "__name__", "x").number(16, batch);
        if replica {
            request = request.text(14, "replica");
        }
        let found = series(&store, &request);
        prop_assert!(found.series.is_sorted_by(|a, b| a.labels <= b.labels));
        let mut got = BTreeMap::new();
        for one in &found.series {
            let pairs: BTreeMap<_, _> = one.labels.iter().cloned().collect();
            prop_assert_eq!((pairs["a"].as_str(), pairs.contains_key("replica")), ("external", !replica));
            let samples = decoded(&one.chunks, range);
            let bits: Vec<u64> = samples.values.iter().map(|value| value.to_bits()).collect();
            if !samples.ts.is_empty() {
                prop_assert!(got.insert(pairs["id"].clone(), (samples.ts, bits)).is_none());
            }
        }
        prop_assert_eq!(got, expected);
    }

    /// Bytes of any kind are an answer or a refusal.
    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (_dir, store) = store_of(&[&[("__name__", "up")]], &[(1, 1.0)], &[("a", "b")]);
        for path in ["/thanos.Store/Series", "/thanos.Store/LabelNames", "/thanos.Store/LabelValues", "/thanos.info.Info/Info"] {
            for body in [bytes.clone(), framed(&bytes)] {
                let reply = runtime().block_on(async { finish(ask(&store, path, body).await).await });
                prop_assert!(reply.status <= 16);
            }
        }
    }
}
