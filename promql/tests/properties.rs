//! Properties of random queries over random stores.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "a test may"
)]

#[path = "support/generate.rs"]
mod generate;
#[path = "support/naive.rs"]
mod naive;
#[path = "support/storage.rs"]
mod storage;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use generate::Random;
use model::{Labels, Matcher, Querier, Selection, SeriesSet, StorageError, TimeRange};
use naive::Naive;
use promql::{Engine, EngineOptions, ParseOptions, QueryOptions, QueryValue, parse};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

static ENGINE: LazyLock<Engine> =
    LazyLock::new(|| Engine::new(EngineOptions { workers: 2, ..EngineOptions::default() }));
static ALONE: LazyLock<Engine> =
    LazyLock::new(|| Engine::new(EngineOptions { workers: 1, ..EngineOptions::default() }));

/// Values by series and time.
type Points = BTreeMap<(Labels, i64), f64>;

const START: i64 = 60_000;
const END: i64 = 560_000;
const STEP: i64 = 50_000;

fn points(value: QueryValue) -> Points {
    let mut out = Points::new();
    let QueryValue::Matrix(series) = value else { panic!("no matrix") };
    for series in series {
        for (ts, value) in series.samples.ts.iter().zip(&series.samples.values) {
            out.insert((series.labels.clone(), *ts), *value);
        }
    }
    out
}

fn naive(store: &storage::Memory, expr: &promql::Expr) -> Result<Points, String> {
    let model = Naive { store, start: START, end: END };
    let mut out = Points::new();
    for ts in (START..=END).step_by(STEP as usize) {
        for (labels, value) in model.vector(expr, ts)? {
            out.insert((labels, ts), value);
        }
    }
    Ok(out)
}

fn close(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs()))
}

/// The same cases each time: comparisons of rounded numbers may differ from the definition once in a
/// million. `PYROMETER_PROPERTY_SEED` and `PYROMETER_PROPERTY_CASES` ask for others, and for more.
fn config() -> ProptestConfig {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    ProptestConfig {
        cases: number("PYROMETER_PROPERTY_CASES").unwrap_or(1000),
        rng_seed: RngSeed::Fixed(u64::from(number("PYROMETER_PROPERTY_SEED").unwrap_or(1))),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// A store that hands series out in order, whether or not it must.
struct Ordered(storage::Memory);

impl Querier for Ordered {
    fn select(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
        self.0.select(selection)
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

/// Queries in which something was shared.
static SHARED: AtomicUsize = AtomicUsize::new(0);

/// How many parts of a query are computed for others.
fn count_shared(text: &str) -> usize {
    let expr = parse(text, &ParseOptions::experimental()).unwrap();
    let plan = ENGINE.explain(&expr, (START, END), STEP, &QueryOptions::default());
    plan.map_or(0, |plan| plan.to_string().matches("as before").count())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_engine_agrees_with_the_definition(seed: u64) {
        let mut random = Random::repeating(seed);
        let store = generate::store(&mut random);
        let text = generate::vector(&mut random, 3);
        let expr = parse(&text, &ParseOptions::default()).unwrap();
        let want = naive(&store, &expr);
        // In another order, a variance differs in its last bit.
        let ordered = Ordered(store);
        let querier: &dyn Querier = if text.contains("std") { &ordered } else { &ordered.0 };
        let got = ENGINE.range(querier, &expr, START, END, STEP, &QueryOptions::default());
        match (got, want) {
            (Ok(got), Ok(want)) => {
                let got = points(got.value);
                prop_assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "{}", text);
                for (key, value) in &got {
                    prop_assert!(close(*value, want[key]), "{text}\n{key:?}: {value}, want {}", want[key]);
                }
            }
            (Err(_), Err(_)) => {}
            (got, want) => prop_assert!(false, "{text}\n{got:?}\n{want:?}"),
        }
    }

    #[test]
    fn what_is_printed_reads_back_the_same(seed: u64) {
        let text = generate::vector(&mut Random::repeating(seed), 4);
        let expr = parse(&text, &ParseOptions::default()).unwrap();
        for form in [expr.to_string(), expr.pretty()] {
            let again = parse(&form, &ParseOptions::default()).unwrap();
            prop_assert_eq!(&again, &expr, "{}", form);
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_workers(seed: u64) {
        let mut random = Random::repeating(seed);
        let mut store = generate::store(&mut random);
        generate::add_histograms(&mut store, &mut random);
        let text = generate::anything(&mut random, 3);
        let expr = parse(&text, &ParseOptions::experimental()).unwrap();
        let ask = |engine: &Engine, with_costs| {
            let options = QueryOptions { with_costs, ..QueryOptions::default() };
            let answer = engine.range(&store, &expr, START, END, STEP / 10, &options);
            answer.map_err(|error| error.to_string()).map(|o| (format!("{:?}", o.value), o.warnings, o.infos))
        };
        // Nor on whether costs are counted.
        prop_assert_eq!(ask(&ENGINE, true), ask(&ALONE, false), "{}", text);
    }

    fn shared_and_unshared_agree(seed: u64) {
        let mut random = Random::repeating(seed);
        let mut store = generate::store(&mut random);
        generate::add_histograms(&mut store, &mut random);
        let text = generate::anything(&mut random, 3);
        // In the same order always, so that sums are the same to the last bit.
        let store = Ordered(store);
        let ask = |distinct, with_costs| {
            let expr = parse(&generate::marked(&text, distinct), &ParseOptions::experimental()).unwrap();
            let options = QueryOptions { with_costs, ..QueryOptions::default() };
            let answer = ENGINE.range(&store, &expr, START, END, STEP, &options);
            answer.map_err(|_| ()).map(|o| {
                let steps = o.costs.map(|costs| costs.samples_per_step);
                (format!("{:?}", o.value), o.warnings, o.infos, o.stats.samples, steps)
            })
        };
        if count_shared(&generate::marked(&text, false)) > 0 {
            SHARED.fetch_add(1, Ordering::Relaxed);
        }
        prop_assert_eq!(count_shared(&generate::marked(&text, true)), 0, "{}", text);
        for with_costs in [false, true] {
            prop_assert_eq!(ask(false, with_costs), ask(true, with_costs), "{}", generate::marked(&text, false));
        }
    }

    #[test]
    fn an_instant_is_a_range_of_one_step(seed: u64) {
        let mut random = Random::repeating(seed);
        let mut store = generate::store(&mut random);
        generate::add_histograms(&mut store, &mut random);
        let text = generate::anything(&mut random, 3);
        let expr = parse(&text, &ParseOptions::experimental()).unwrap();
        let options = QueryOptions::default();
        let instant = ENGINE.instant(&store, &expr, START, &options);
        let range = ENGINE.range(&store, &expr, START, START, STEP, &options);
        let (Ok(instant), Ok(range)) = (&instant, &range) else {
            prop_assert_eq!(instant.is_ok(), range.is_ok(), "{}", text);
            return Ok(());
        };
        let QueryValue::Vector(samples) = &instant.value else { panic!("no vector") };
        let samples: BTreeMap<_, _> = samples.iter().map(|s| (&s.labels, format!("{:?}", s.value))).collect();
        let QueryValue::Matrix(series) = &range.value else { panic!("no matrix") };
        let only = |s: &promql::MatrixSeries| s.samples.iter().map(|s| format!("{:?}", s.value)).collect::<String>();
        let range: BTreeMap<_, _> = series.iter().map(|s| (&s.labels, only(s))).collect();
        prop_assert_eq!(samples, range, "{}", text);
    }

    #[test]
    fn each_step_of_a_range_is_an_instant(seed: u64) {
        let mut random = Random::repeating(seed);
        let mut store = generate::store(&mut random);
        generate::add_histograms(&mut store, &mut random);
        let text = generate::anything(&mut random, 2);
        // The end of the query is another for an instant, and of equals the first are picked.
        if ["end()", "topk", "bottomk", "limitk"].iter().any(|word| text.contains(word)) {
            return Ok(());
        }
        let expr = parse(&text, &ParseOptions::experimental()).unwrap();
        let options = QueryOptions::default();
        let Ok(range) = ENGINE.range(&store, &expr, START, END, STEP, &options) else { return Ok(()) };
        let QueryValue::Matrix(series) = &range.value else { panic!("no matrix") };
        let at = START + 5 * STEP;
        let mut steps = BTreeMap::new();
        for series in series {
            for sample in series.samples.iter().filter(|sample| sample.ts == at) {
                steps.insert(&series.labels, format!("{:?}", sample.value));
            }
        }
        let instant = ENGINE.instant(&store, &expr, at, &options);
        let Ok(promql::Outcome { value: QueryValue::Vector(samples), .. }) = &instant else {
            panic!("{text}: {instant:?}")
        };
        let samples: BTreeMap<_, _> = samples.iter().map(|s| (&s.labels, format!("{:?}", s.value))).collect();
        prop_assert_eq!(steps, samples, "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,60}") {
        let _ = parse(&text, &ParseOptions::experimental());
    }

    #[test]
    fn any_tokens_are_read_or_refused(seed: u64) {
        let mut random = Random::new(seed);
        let mut text = String::new();
        for _ in 0..random.below(25) {
            text.push_str(random.one_of(&[
                "a", "b{", "}", "x=\"1\"", "[5m", "]", ":", "(", ")", "sum", "by", "on", "group_left", "rate", "+",
                "-", "==", "and", "offset", "@", "start()", "5m", "1e3", "\"s\"", ",", "bool", "{", "anchored",
                "fill(1)", "step()", "^", "#\n",
            ]));
            text.push_str(random.one_of(&["", " "]));
        }
        if let Ok(expr) = parse(&text, &ParseOptions::experimental()) {
            let again = parse(&expr.to_string(), &ParseOptions::experimental());
            prop_assert_eq!(again.as_ref(), Ok(&expr), "{}", text);
        }
    }
}

#[test]
fn what_is_shared_comes_out_as_if_it_were_not() {
    shared_and_unshared_agree();
    let (shared, cases) = (SHARED.load(Ordering::Relaxed), config().cases);
    assert!(shared > cases as usize / 4, "{shared} of {cases} queries have equal parts");
}

#[test]
fn long_durations_keep_their_last_second() {
    let options = ParseOptions::experimental();
    for text in ["7707 * 7777277077s", "x[9000000001s]", "1s", "9223372036s"] {
        let expr = parse(text, &options).unwrap();
        assert_eq!(parse(&expr.to_string(), &options).unwrap(), expr, "{text}: {expr}");
    }
}
