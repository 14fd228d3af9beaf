//! Series of a script into the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{FloatHistogram, Labels, METRIC_NAME, ResetHint, Samples, Span, stale_nan};
use promql::series::{self, SeriesValue};

use super::check::buckets;
use super::script::duration_ms;
use super::storage::Memory;

/// Adds the series of a `load` command.
pub fn load(store: &mut Memory, step_ms: i64, lines: &[String], with_custom_buckets: bool) {
    let mut starts: Option<(Labels, Vec<Option<i64>>)> = None;
    let mut classic: BTreeMap<Labels, BTreeMap<i64, Classic>> = BTreeMap::new();
    for line in lines {
        let (labels, rest) = series::parse_metric(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        if let Some(rest) = rest.strip_prefix("@st") {
            starts = Some((labels, start_offsets(rest)));
            continue;
        }
        let description = series::parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let offsets = starts.take().filter(|(of, _)| *of == labels).map(|(_, offsets)| offsets);
        let samples = store.0.entry(labels.clone()).or_default();
        for (at, value) in description.values.iter().enumerate() {
            let ts = at as i64 * step_ms;
            let start = offsets.as_ref().map(|all| all[at].map_or(0, |offset| ts + offset));
            match value {
                SeriesValue::Omitted => continue,
                SeriesValue::Stale => samples.push_float(ts, stale_nan()),
                SeriesValue::Float(value) => {
                    samples.push_float(ts, *value);
                    if with_custom_buckets {
                        note(&mut classic, &labels, ts, *value);
                    }
                }
                SeriesValue::Histogram(histogram, _) => {
                    samples.push_histogram(ts, Arc::new(FloatHistogram::clone(histogram)));
                    samples.histogram_start_ts.extend(start);
                    continue;
                }
            }
            samples.start_ts.extend(start);
        }
    }
    for (labels, points) in classic {
        let samples = store.0.entry(labels).or_default();
        for (ts, point) in points {
            if let Some(histogram) = point.into_custom() {
                samples.push_histogram(ts, Arc::new(histogram));
            }
        }
    }
    store.0.values_mut().for_each(hint);
}

/// Gives histograms the reset hints that they have when they are read from chunks: within a chunk,
/// which ends with a counter reset, it is known that there was none.
fn hint(samples: &mut Samples) {
    let mut before: Option<Arc<FloatHistogram>> = None;
    for histogram in &mut samples.histograms {
        let raw = Arc::clone(histogram);
        if raw.reset_hint != ResetHint::Gauge {
            let follows = before
                .as_ref()
                .is_some_and(|before| before.reset_hint != ResetHint::Gauge && fits_after(before, &raw));
            let reset_hint = if follows { ResetHint::NotReset } else { ResetHint::Unknown };
            *histogram = Arc::new(FloatHistogram { reset_hint, ..FloatHistogram::clone(&raw) });
        }
        before = Some(raw);
    }
}

/// Whether a histogram can be appended to the chunk of the one before.
fn fits_after(before: &FloatHistogram, after: &FloatHistogram) -> bool {
    let grown = |before: &[model::Span], b: &[f64], after: &[model::Span], a: &[f64]| {
        let after = buckets(after, a);
        buckets(before, b).iter().all(|(at, count)| after.get(at).is_some_and(|now| now >= count))
    };
    after.reset_hint != ResetHint::Reset
        && after.schema == before.schema
        && after.zero_threshold == before.zero_threshold
        && after.custom_values == before.custom_values
        && after.count >= before.count
        && after.zero_count >= before.zero_count
        && grown(&before.positive_spans, &before.positive, &after.positive_spans, &after.positive)
        && grown(&before.negative_spans, &before.negative, &after.negative_spans, &after.negative)
}

/// `_ _x2 -30s 0sx3 -30s+5sx2`: offsets of start timestamps.
fn start_offsets(text: &str) -> Vec<Option<i64>> {
    let mut out = Vec::new();
    for item in text.split_whitespace() {
        if let Some(rest) = item.strip_prefix('_') {
            let count = rest.strip_prefix('x').map_or(1, |count| count.parse().unwrap());
            out.extend(std::iter::repeat_n(None, count));
            continue;
        }
        let Some((body, count)) = item.split_once('x') else {
            out.push(Some(duration_ms(item)));
            continue;
        };
        let count: i64 = count.parse().unwrap();
        let sign = body[1..].find(['+', '-']).map(|at| at + 1);
        let (first, step) = match sign {
            Some(at) => (duration_ms(&body[..at]), duration_ms(body[at..].trim_start_matches('+'))),
            None => (duration_ms(body), 0),
        };
        out.extend((0..=count).map(|at| Some(first + at * step)));
    }
    out
}

/// A classic histogram at one time.
#[derive(Default)]
struct Classic {
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

fn note(classic: &mut BTreeMap<Labels, BTreeMap<i64, Classic>>, labels: &Labels, ts: i64, value: f64) {
    let name = labels.metric_name().unwrap_or("");
    let Some((base, part)) = name.rsplit_once('_') else { return };
    if !matches!(part, "bucket" | "count" | "sum") {
        return;
    }
    let le = labels.get("le").and_then(model::float::parse);
    if part == "bucket" && le.is_none() {
        return;
    }
    let mut key = labels.to_builder();
    key.set(METRIC_NAME, base).remove("le");
    let point = classic.entry(key.build()).or_default().entry(ts).or_default();
    match (part, le) {
        ("bucket", Some(le)) => point.buckets.push((le, value)),
        ("count", _) => point.count = Some(value),
        _ => point.sum = value,
    }
}

impl Classic {
    fn into_custom(mut self) -> Option<FloatHistogram> {
        if self.buckets.is_empty() {
            return None;
        }
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        // The same bound may be written in several ways; no store takes it twice.
        self.buckets.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            kept.1 = if same { kept.1.max(next.1) } else { kept.1 };
            same
        });
        let count = self.count.unwrap_or(self.buckets.last()?.1);
        let mut before = 0.0;
        let mut counts = Vec::new();
        for (_, total) in &self.buckets {
            if *total < before {
                return None;
            }
            counts.push(total - before);
            before = *total;
        }
        if self.buckets.last()?.0 != f64::INFINITY {
            counts.push(count - before);
        }
        let custom_values = self.buckets.iter().map(|b| b.0).filter(|le| le.is_finite()).collect();
        Some(FloatHistogram {
            schema: -53,
            count,
            sum: self.sum,
            positive_spans: vec![Span { offset: 0, length: counts.len() as u32 }],
            positive: counts,
            custom_values,
            ..FloatHistogram::default()
        })
    }
}
