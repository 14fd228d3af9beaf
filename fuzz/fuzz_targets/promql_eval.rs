//! Any query over a small store is answered or refused.

#![no_main]

#[path = "../../promql/tests/support/storage.rs"]
mod storage;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use model::Samples;
use promql::series::{self, SeriesValue};
use promql::{Engine, EngineOptions, Limits, ParseOptions, QueryOptions, parse};
use storage::Memory;

static STORE: LazyLock<Memory> = LazyLock::new(|| {
    let lines = [
        r#"a{x="1"} 1+1x9 stale 3 _x3 NaN 5"#,
        r#"a{x="2"} 5-1x9 0+2x9"#,
        r#"b{x="1",le="1"} 1+1x20"#,
        r#"b{x="1",le="+Inf"} 2+2x20"#,
        r#"h{x="1"} {{schema:1 sum:1 count:3 buckets:[1 2]}}+{{schema:1 sum:1 count:1 buckets:[1]}}x20"#,
        r#"h{x="2"} {{schema:-53 sum:1 count:3 custom_values:[1 2] buckets:[1 2]}}x9 7x9"#,
    ];
    let store = |line: &&str| {
        let series = series::parse(line).expect("a well-formed line");
        let mut samples = Samples::default();
        for (ts, value) in (0..).step_by(30_000).zip(series.values) {
            match value {
                SeriesValue::Omitted => {}
                SeriesValue::Stale => samples.push_float(ts, model::stale_nan()),
                SeriesValue::Float(value) => samples.push_float(ts, value),
                SeriesValue::Histogram(h, _) => samples.push_histogram(ts, Arc::new(*h)),
            }
        }
        (series.labels, samples)
    };
    Memory(lines.iter().map(store).collect())
});

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let limits = Limits {
        samples_max: 1_000_000,
        bytes_per_query_max: 64 << 20,
        timeout: Duration::from_secs(2),
        ..Limits::default()
    };
    Engine::new(EngineOptions { limits, workers: 1, ..EngineOptions::default() })
});

fuzz_target!(|text: &str| {
    let Ok(expr) = parse(text, &ParseOptions::experimental()) else { return };
    let options = QueryOptions { with_costs: text.len() % 2 == 0, ..QueryOptions::default() };
    let _ = ENGINE.instant(&*STORE, &expr, 400_000, &options);
    let _ = ENGINE.range(&*STORE, &expr, 0, 600_000, 60_000, &options);
});
