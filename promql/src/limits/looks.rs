//! Proof that every part of the engine looks whether its answer is still wanted.
//!
//! One worker computes on the test's own thread, where each look is counted, and a chosen one finds the query cancelled.

use std::cell::Cell;

use model::{Labels, QueryCancelled, Samples};

use crate::{Engine, EngineOptions, ParseOptions, QueryError, QueryOptions, parse};
use storage::Memory;

#[path = "../../tests/support/storage.rs"]
#[expect(unreachable_pub, reason = "tests of other crates' kind use it too")]
mod storage;

thread_local! {
    static LOOKS: Cell<usize> = const { Cell::new(0) };
    static LAST: Cell<usize> = const { Cell::new(0) };
}

/// Counts a look at `flag`, and sets it if this is the one.
pub(super) fn count(flag: Option<&QueryCancelled>) {
    let looks = LOOKS.get() + 1;
    LOOKS.set(looks);
    if let Some(flag) = flag.filter(|_| looks == LAST.get()) {
        flag.set();
    }
}

const SERIES: usize = 600;
const STEPS: usize = 3;

/// Three metrics, each of as many series, with buckets and a label that falls as another rises.
fn store() -> Memory {
    let mut store = Memory::default();
    for at in 0..SERIES {
        let (x, y) = (format!("{at:04}"), format!("{:04}", SERIES - at));
        let (le, group) = (["1", "2", "+Inf"][at % 3], (at / 3).to_string());
        let mut samples = Samples::default();
        for ts in 0..30u32 {
            samples.push_float(i64::from(ts) * 10_000, f64::from(ts * 7) % 11.0 + at as f64);
        }
        for name in ["a", "b", "i_info"] {
            let labels =
                [("__name__", name), ("group", &group), ("instance", &x), ("le", le), ("x", &x), ("y", &y)];
            store.0.insert(Labels::from_pairs(labels), samples.clone());
        }
    }
    store
}

/// A query, and how many times at least it passes over its series, each time with a look at each of them.
const QUERIES: &[(&str, usize)] = &[
    ("a", 2),
    ("-a", 2),
    ("rate(a[1m])", 2),
    ("a > bool 2", 2),
    ("quantile_over_time(0.5, a[2m])", 2),
    ("sum(a)", 1),
    ("sum by (x) (rate(a[1m]))", 3),
    ("avg without (le) (a)", 3),
    ("quantile by (x) (0.9, a)", 6),
    ("count_values by (x) (\"v\", a)", 10),
    ("topk(900, a)", 6),
    ("bottomk by (le) (900, a)", 6),
    ("limitk(900, a)", 6),
    ("limit_ratio(1, a)", 6),
    ("a and b", 13),
    ("a or b", 15),
    ("a unless on (x) b", 11),
    ("a unless on () b", 7),
    ("a + b", 10),
    ("a * on (x) group_left (y) b", 10),
    ("a + on (x, le) fill (0) b{le=\"1\"}", 14),
    ("a + a", 12),
    ("(a + b) / (a + b)", 20),
    ("sort(a)", 4),
    ("sort_desc(a)", 4),
    ("sort_by_label(a, \"y\")", 4),
    ("label_replace(a, \"z\", \"$1\", \"x\", \"(.*)\")", 6),
    ("label_join(a, \"z\", \"-\", \"x\", \"y\")", 6),
    ("histogram_quantile(0.9, a)", 9),
    ("histogram_fraction(0, 1, rate(a[1m]))", 9),
    ("info(a, {__name__=\"i_info\"})", 14),
    ("max_over_time(a[1m:10s])", 7),
    ("absent(a)", 1),
    ("absent_over_time(a[1m])", 1),
    ("scalar(a) + a", 3),
    ("{__name__=~\"a|none\"} + 1", 5),
    ("a @ 100", 5),
    ("sum by (y) (a) / sum by (y) (b)", 12),
];

/// Evaluates over a few steps, cancelled at look `last`; how many looks there were.
fn looks(store: &Memory, text: &str, last: usize) -> (Result<usize, QueryError>, usize) {
    let engine = Engine::new(EngineOptions { workers: 1, ..EngineOptions::default() });
    let expr = parse(text, &ParseOptions::experimental()).unwrap();
    let flag = QueryCancelled::new();
    let options = QueryOptions { cancelled: Some(&flag), ..QueryOptions::default() };
    LOOKS.set(0);
    LAST.set(last);
    let end = 200_000 + 10_000 * (STEPS as i64 - 1);
    let result = if text.starts_with("sort") {
        engine.instant(store, &expr, end, &options)
    } else {
        engine.range(store, &expr, 200_000, end, 10_000, &options)
    };
    assert_eq!(engine.bytes_held(), 0, "{text}");
    (result.map(|outcome| format!("{:?}", outcome.value).len()), LOOKS.get())
}

#[test]
fn every_pass_over_series_looks_at_each_of_them() {
    let store = store();
    for (text, passes) in QUERIES {
        let (result, looks) = looks(&store, text, 0);
        assert!(result.is_ok(), "{text}: {result:?}");
        assert!(looks >= passes * SERIES, "{text}: {looks} looks are {:.2}", looks as f64 / SERIES as f64);
    }
}

/// Where nobody wants the answer any more, the next thing that is done is to end.
#[test]
fn wherever_a_query_is_cancelled_it_ends_there() {
    let store = store();
    for (text, _) in QUERIES {
        let all = looks(&store, text, 0).1;
        for last in (1..=all).step_by(all / 11 + 1).chain([all]) {
            let (result, looks) = looks(&store, text, last);
            // The last look of all may be one that is only about the book.
            let ended = matches!(result, Err(QueryError::Cancelled)) || last == all;
            assert!(ended, "{text}: cancelled at {last} of {all}");
            assert!(looks <= last + 4, "{text}: {} more looks after {last} of {all}", looks - last);
        }
    }
}
