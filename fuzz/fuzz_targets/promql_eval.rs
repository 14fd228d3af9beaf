//! Any query over a small store is answered or refused.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use model::{Labels, Matcher, Querier, Samples, Selection, SeriesSet, StorageError, TimeRange};
use promql::series::{self, SeriesValue};
use promql::{Engine, EngineOptions, Limits, ParseOptions, QueryOptions, parse};

struct Store(Vec<(Labels, Samples)>);
struct Selected<'a>(Vec<&'a (Labels, Samples)>);

impl Querier for Store {
    fn select(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
        let fits =
            |labels: &Labels| selection.matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")));
        Ok(Box::new(Selected(self.0.iter().filter(|(labels, _)| fits(labels)).collect())))
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

impl SeriesSet for Selected<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn visit_labels(&self, index: usize, visit: &mut dyn FnMut(&str, &str)) {
        self.0[index].0.iter().for_each(|(name, value)| visit(name, value));
    }

    fn samples(&self, index: usize, range: TimeRange, into: &mut Samples) -> Result<(), StorageError> {
        into.clear();
        let from = &self.0[index].1;
        for (ts, value) in from.ts.iter().zip(&from.values).filter(|(ts, _)| range.contains(**ts)) {
            into.push_float(*ts, *value);
        }
        for (ts, h) in from.histogram_ts.iter().zip(&from.histograms).filter(|(ts, _)| range.contains(**ts)) {
            into.push_histogram(*ts, Arc::clone(h));
        }
        Ok(())
    }
}

static STORE: LazyLock<Store> = LazyLock::new(|| {
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
    let mut series: Vec<_> = lines.iter().map(store).collect();
    series.sort_by(|a, b| a.0.cmp(&b.0));
    Store(series)
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
    let options = QueryOptions::default();
    let _ = ENGINE.instant(&*STORE, &expr, 400_000, &options);
    let _ = ENGINE.range(&*STORE, &expr, 0, 600_000, 60_000, &options);
});
