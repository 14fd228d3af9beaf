//! Limits say their names, and hostile queries are refused rather than survived.

#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub, reason = "a test may")]

#[path = "support/storage.rs"]
mod storage;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::{
    Labels, Matcher, Querier, QueryCancelled, Samples, Selection, SeriesSet, StorageError, TimeRange,
};
use promql::{Engine, EngineOptions, Limits, ParseErrorKind, ParseOptions, QueryError, QueryOptions, parse};
use storage::Memory;

fn store(series: usize) -> Memory {
    let mut memory = Memory::default();
    for at in 0..series {
        let mut samples = Samples::default();
        (0..100).for_each(|step| samples.push_float(step * 10_000, 1.0));
        memory.0.insert(Labels::from_pairs([("__name__", "m"), ("at", &at.to_string())]), samples);
    }
    memory
}

fn engine(limits: Limits) -> Engine {
    Engine::new(EngineOptions { limits, workers: 2, ..EngineOptions::default() })
}

fn ask(engine: &Engine, store: &dyn Querier, text: &str) -> Result<promql::Outcome, QueryError> {
    let expr = parse(text, &ParseOptions::default()).unwrap();
    engine.range(store, &expr, 0, 990_000, 10_000, &QueryOptions::default())
}

#[test]
fn too_many_samples_name_the_expression_and_the_limit() {
    let engine = engine(Limits { samples_max: 1000, ..Limits::default() });
    let error = ask(&engine, &store(50), "1 + sum(rate(m[1m])) + count(m > 0 or m)").unwrap_err();
    let QueryError::Limit { limit, allowed, expr, .. } = &error else { panic!("{error}") };
    assert_eq!((*limit, *allowed), ("samples_max", 1000));
    assert!(expr.contains("m > 0"), "{expr}");
    assert!(error.to_string().contains("samples_max=1000"), "{error}");
}

#[test]
fn an_aggregation_holds_its_groups_and_not_its_series() {
    let engine = engine(Limits { samples_max: 1000, ..Limits::default() });
    let outcome = ask(&engine, &store(200), "sum(rate(m[1m]))").unwrap();
    assert!(outcome.stats.samples_peak <= 400, "{:?}", outcome.stats);
    assert_eq!(outcome.stats.series, 200);
    assert_eq!(outcome.stats.samples, 200 * 100);
}

#[test]
fn bytes_are_limited_by_query_and_in_total_and_given_back() {
    let limits = Limits { bytes_per_query_max: 20_000, ..Limits::default() };
    let by_query = engine(limits);
    let error = ask(&by_query, &store(50), "m").unwrap_err();
    assert!(matches!(error, QueryError::Limit { limit: "bytes_per_query_max", .. }), "{error}");
    assert_eq!(by_query.bytes_held(), 0);
    let in_total = engine(Limits { bytes_total_max: 20_000, ..Limits::default() });
    let error = ask(&in_total, &store(50), "m").unwrap_err();
    assert!(matches!(error, QueryError::Limit { limit: "bytes_total_max", .. }), "{error}");
    ask(&in_total, &store(1), "m").unwrap();
    assert_eq!(in_total.bytes_held(), 0);
}

#[test]
fn a_query_ends_at_its_deadline() {
    let engine = engine(Limits { timeout: Duration::ZERO, ..Limits::default() });
    assert!(matches!(ask(&engine, &store(5), "m"), Err(QueryError::Timeout(_))));
}

/// A store that calls something before each series is read.
struct Watched<'a>(Memory, &'a (dyn Fn() + Sync));

struct WatchedSet<'a>(Box<dyn SeriesSet + 'a>, &'a (dyn Fn() + Sync));

/// Reading takes its time, and is counted.
fn slowly(reads: &AtomicUsize) -> impl Fn() + Sync {
    || {
        reads.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Querier for Watched<'_> {
    fn select(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
        Ok(Box::new(WatchedSet(self.0.select(selection)?, self.1)))
    }

    fn label_names(&self, _: &[Matcher], _: TimeRange, _: usize) -> Result<Vec<String>, StorageError> {
        Ok(Vec::new())
    }

    fn label_values(
        &self,
        _: &str,
        _: &[Matcher],
        _: TimeRange,
        _: usize,
    ) -> Result<Vec<String>, StorageError> {
        Ok(Vec::new())
    }
}

impl SeriesSet for WatchedSet<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn visit_labels(&self, index: usize, visit: &mut dyn FnMut(&str, &str)) {
        self.0.visit_labels(index, visit);
    }

    fn samples(&self, index: usize, range: TimeRange, into: &mut Samples) -> Result<(), StorageError> {
        (self.1)();
        self.0.samples(index, range, into)
    }
}

#[test]
fn a_query_that_nobody_waits_for_ends_with_the_series_that_its_workers_are_at() {
    const WORKERS: usize = 4;
    let engine = Engine::new(EngineOptions { workers: WORKERS, ..EngineOptions::default() });
    let expr = parse("sum(rate(m[1m]))", &ParseOptions::default()).unwrap();
    let store = store(5000);
    for at in [1, 2, 17, 600, 4096, 4999] {
        let (reads, late, flag) = (AtomicUsize::new(0), AtomicUsize::new(0), QueryCancelled::new());
        let watch = || {
            late.fetch_add(usize::from(flag.is_set()), Ordering::Relaxed);
            if reads.fetch_add(1, Ordering::Relaxed) + 1 == at {
                flag.set();
            }
        };
        let store = Watched(store.clone(), &watch);
        let options = QueryOptions { cancelled: Some(&flag), ..QueryOptions::default() };
        let result = engine.range(&store, &expr, 0, 500_000, 10_000, &options);
        assert!(matches!(result, Err(QueryError::Cancelled)), "{at}: {result:?}");
        // A worker that has looked just before reads one more.
        let late = late.load(Ordering::Relaxed);
        assert!(late < WORKERS, "{at}: {late} series were read after that");
        // It has left its place, once.
        assert_eq!((engine.stats().running, engine.bytes_held()), (0, 0));
    }
}

#[test]
fn equal_selectors_decode_their_series_once() {
    for query in ["m / (m + m)", "rate(m[5m]) / ignoring(x) rate(m[1m]) + m"] {
        let (reads, store) = (AtomicUsize::new(0), store(20));
        let watch = slowly(&reads);
        let store = Watched(store, &watch);
        let outcome = ask(&engine(Limits::default()), &store, query).unwrap();
        let alone = ask(&engine(Limits::default()), &store.0, query).unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), 20, "{query}");
        // Some are NaN, which equals nothing.
        assert!(format!("{:?}", outcome.value) == format!("{:?}", alone.value), "{query}");
    }
    // Where nothing may be kept, each decodes for itself; the answer is the same.
    let (reads, store) = (AtomicUsize::new(0), store(20));
    let watch = slowly(&reads);
    let store = Watched(store, &watch);
    let limits = Limits { bytes_per_query_max: 90_000, ..Limits::default() };
    ask(&engine(limits), &store, "sum(m) + count(m)").unwrap();
    assert!((21..=40).contains(&reads.load(Ordering::Relaxed)), "{reads:?}");
}

#[test]
fn equal_parts_are_computed_once_and_counted_as_often_as_they_are_named() {
    for (query, decoded) in [
        ("rate(m[5m]) / ignoring(x) rate(m[5m])", 20),
        ("sum(rate(m[5m])) / count(rate(m[5m]))", 20),
        ("max_over_time(rate(m[5m])[1m:10s]) - min_over_time(rate(m[5m])[1m:10s])", 20),
    ] {
        let (reads, store) = (AtomicUsize::new(0), store(20));
        let watch = slowly(&reads);
        let store = Watched(store, &watch);
        let engine = engine(Limits::default());
        let outcome = ask(&engine, &store, query).unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), decoded, "{query}");
        // As without sharing.
        let apart = query.replacen("m[", "m{x!=\"\"}[", 1).replace("x!=\"\"", "x=\"\"");
        let apart = ask(&engine, &store.0, &apart).unwrap();
        assert_eq!((outcome.stats.samples, outcome.stats.series), (apart.stats.samples, apart.stats.series));
        assert_eq!(format!("{:?}", outcome.value), format!("{:?}", apart.value), "{query}");
        assert_eq!(engine.bytes_held(), 0);
    }
}

#[test]
fn what_is_kept_for_others_never_takes_more_than_half_of_a_limit() {
    let query = "(m - m offset 10s) / m + sum(rate(m[1m])) / count(rate(m[1m]))";
    let apart = "(m - m offset 10s) / m{x=\"\"} + sum(rate(m[1m])) / count(rate(m{x=\"\"}[1m]))";
    let asked = |text: &str, bytes| {
        let engine = engine(Limits { bytes_per_query_max: bytes, ..Limits::default() });
        let answer = ask(&engine, &store(20), text).map(|outcome| format!("{:?}", outcome.value));
        assert_eq!(engine.bytes_held(), 0);
        answer.ok()
    };
    let wanted = asked(apart, 0).unwrap();
    for bytes in (20_000..400_000).step_by(10_000) {
        if asked(apart, bytes).is_some() {
            assert_eq!(asked(query, bytes + bytes / 2).as_ref(), Some(&wanted), "{bytes}");
        }
    }
}

#[test]
fn queries_beyond_the_concurrency_wait() {
    let limits = Limits { concurrency: 1, timeout: Duration::from_millis(200), ..Limits::default() };
    let engine = engine(limits);
    let (reads, store) = (AtomicUsize::new(0), store(5000));
    let watch = slowly(&reads);
    let store = Watched(store, &watch);
    let expr = parse("sum(m)", &ParseOptions::default()).unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| engine.instant(&store, &expr, 500_000, &QueryOptions::default()));
        while reads.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        let options = QueryOptions { timeout: Some(Duration::from_millis(20)), ..QueryOptions::default() };
        let second = engine.instant(&store, &expr, 500_000, &options);
        assert!(matches!(second, Err(QueryError::Timeout("query queue"))), "{second:?}");
        assert!(matches!(first.join().unwrap(), Err(QueryError::Timeout("expression evaluation"))));
    });
}

/// Runs `f` on a thread like those of a server.
fn on_a_small_stack(f: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        thread.spawn_scoped(scope, f).unwrap().join().unwrap();
    });
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in [("(", ")"), ("-", ""), ("sum(", ")"), ("a[", ""), ("a[5m:5m+(", ""), ("1^", "")] {
        let text = format!("{}a{}", open.repeat(20_000), close.repeat(20_000));
        assert!(parse(&text, &ParseOptions::experimental()).is_err(), "{open}");
    }
    let nested_chains = (0..30).fold("a".to_owned(), |inner, _| format!("({inner}){}", " + a".repeat(400)));
    let durations = format!("a[1s{}]", " + 1s".repeat(20_000));
    let offsets = format!("a offset (1s{})", " + 1s".repeat(20_000));
    on_a_small_stack(|| {
        for text in
            ["a + ".repeat(20_000) + "a", "a ^ ".repeat(20_000) + "a", nested_chains, durations, offsets]
        {
            let error = parse(&text, &ParseOptions::experimental()).unwrap_err();
            assert_eq!(error.kind, ParseErrorKind::TooDeep, "{}", &text[..40]);
            assert!(error.message.contains("more than"), "{error}");
        }
    });
}

#[test]
fn the_deepest_query_that_is_read_is_answered() {
    let (chain, depth) = (promql::HEIGHT_MAX - 2, promql::DEPTH_MAX - 2);
    let engine = engine(Limits::default());
    for text in [
        "1 + ".repeat(chain) + "scalar(m)",
        "1 + ".repeat(chain / 5) + "m",
        "m".to_owned() + &" + 1".repeat(chain),
        "m or ".repeat(chain / 5) + "m",
        "(m - m) + ".repeat(chain / 5) + "m",
        "abs(".repeat(depth) + "m" + &")".repeat(depth),
        "(".repeat(depth) + "m" + &")".repeat(depth),
        "-(".repeat(depth / 2) + "m" + &")".repeat(depth / 2),
        "sum(".repeat(depth) + "m" + &")".repeat(depth),
        "m + (".repeat(depth / 2) + "m" + &")".repeat(depth / 2),
        "min_over_time(".repeat(depth / 20) + "m" + &"[20s:10s])".repeat(depth / 20),
        (0..10).fold("m".to_owned(), |inner, _| format!("({inner}){}", " + m".repeat(100))),
        format!("sum_over_time(m[1s{}])", " + 1s".repeat(promql::DURATION_MAX)),
    ] {
        on_a_small_stack(|| {
            let expr = parse(&text, &ParseOptions::experimental()).unwrap();
            assert_eq!(expr.to_string(), text);
            assert!(expr.clone() == expr && !expr.selectors().is_empty());
            assert!(!format!("{expr:?}").is_empty() && !expr.pretty().is_empty());
            // Several series a time, on the workers' stacks, where the engine does not hold them all.
            let series = if text.ends_with(" + 1") { 600 } else { 1 };
            engine.instant(&store(series), &expr, 500_000, &QueryOptions::default()).unwrap();
            engine.explain(&expr, (0, 990_000), 10_000, &QueryOptions::default()).unwrap();
        });
    }
}

#[test]
fn a_plan_shows_what_its_parts_have_cost() {
    let engine = engine(Limits::default());
    let expr = parse("sum(rate(m[1m])) / 2", &ParseOptions::default()).unwrap();
    let options = QueryOptions { with_costs: true, ..QueryOptions::default() };
    let outcome = engine.range(&store(20), &expr, 0, 990_000, 10_000, &options).unwrap();
    let costs = outcome.costs.unwrap();
    let plan = engine.explain(&expr, (0, 990_000), 10_000, &options).unwrap();
    let plan = plan.with_costs(&costs).to_string();
    let line = |text: &str| plan.lines().find(|line| line.contains(text)).unwrap().to_owned();
    assert!(line("m[1m]").contains("20 series, 2000 samples"), "{plan}");
    assert!(line("sum").contains("1 series, 99 samples"), "{plan}");
    // Windows hold one sample, then two, ..., and six once they are full.
    assert_eq!(costs.samples_per_step.len(), 100);
    assert_eq!(costs.samples_per_step[..7], [20, 40, 60, 80, 100, 120, 120]);
}
