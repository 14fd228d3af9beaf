//! Points of OTLP as samples of series.

use std::collections::BTreeMap;

use model::{Histogram, HistogramValue, Labels, LabelsBuilder, METRIC_NAME, Span, Timestamp, float};
use tsdb::Exemplar;

use super::message::{
    Buckets, Common, ExponentialPoint, HistogramPoint, KeyValue, Metric, NumberPoint, Request,
    ResourceMetrics, Scope, ScopeMetrics, SummaryPoint, Temporality,
};
use super::names::{self, Kind};
use super::{Options, Point, PointValue, Promote};

/// The bit of a point's flags that says that there is no value, i.e. that the series has ended.
const NO_VALUE: u32 = 1;
/// Attributes of a resource that become `job` and `instance`.
const IDENTIFYING: [&str; 3] = ["service.name", "service.namespace", "service.instance.id"];
/// The finest resolution of native histograms.
const SCHEMA_MAX: i32 = 8;
const SCHEMA_MIN: i32 = -4;
/// The width of the zero bucket where the point gives none.
const ZERO_THRESHOLD: f64 = 1e-128;

type Visit<'v> = &'v mut dyn FnMut(Result<Point, String>);

/// Calls `visit` with each sample, and with what is wrong where there can be none.
pub(super) fn each_point(options: &Options, request: &Request, visit: Visit<'_>) {
    for resource in &request.resource_metrics {
        let source = Source::new(options, resource);
        let mut newest = None;
        for scope in &resource.scope_metrics {
            let labels = source.scope_labels(scope);
            for metric in &scope.metrics {
                let mut writer = Writer { options, base: &labels, metric, newest: &mut newest, visit };
                writer.metric();
            }
        }
        if let Some(ts) = newest {
            source.push_info(resource, ts, visit);
        }
    }
}

/// What the series of a resource share.
struct Source<'o> {
    options: &'o Options,
    job: Option<String>,
    instance: Option<String>,
    promoted: Vec<(String, String)>,
}

impl<'o> Source<'o> {
    fn new(options: &'o Options, resource: &ResourceMetrics) -> Self {
        let attributes = &resource.resource.attributes;
        let find =
            |key: &str| attributes.iter().find(|pair| pair.key == key).map(|pair| pair.value.0.clone());
        let job = find("service.name").map(|name| match find("service.namespace") {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name,
        });
        let promotes = |key: &str| match &options.promote {
            Promote::Only(keys) => keys.iter().any(|k| k == key),
            Promote::AllBut(keys) => !keys.iter().any(|k| k == key),
        };
        let promoted = attributes.iter().filter(|pair| promotes(&pair.key));
        let promoted = promoted.map(|pair| (pair.key.clone(), pair.value.0.clone())).collect();
        Self { options, job, instance: find("service.instance.id"), promoted }
    }

    /// The labels of every series of a scope.
    fn scope_labels(&self, metrics: &ScopeMetrics) -> Vec<(String, String)> {
        let mut labels = self.promoted.clone();
        labels.extend(self.job.clone().map(|job| ("job".to_owned(), job)));
        labels.extend(self.instance.clone().map(|instance| ("instance".to_owned(), instance)));
        let Scope { name, version, attributes } = &metrics.scope;
        if self.options.promote_scope {
            for (key, value) in [("name", name), ("version", version), ("schema_url", &metrics.schema_url)] {
                labels.push((format!("otel_scope_{key}"), value.clone()));
            }
            let more =
                attributes.iter().map(|pair| (format!("otel_scope_{}", pair.key), pair.value.0.clone()));
            labels.extend(more);
        }
        labels
    }

    /// `target_info`: the attributes that identify nothing, as labels of a series that is always 1.
    fn push_info(&self, resource: &ResourceMetrics, ts: Timestamp, visit: Visit<'_>) {
        let attributes = &resource.resource.attributes;
        let identifies = |pair: &KeyValue| IDENTIFYING.contains(&pair.key.as_str());
        if self.job.is_none() && self.instance.is_none() || attributes.iter().all(identifies) {
            return;
        }
        let kept = attributes.iter().filter(|pair| self.options.keep_identifying || !identifies(pair));
        let mut labels: Vec<(String, String)> =
            kept.map(|pair| (pair.key.clone(), pair.value.0.clone())).collect();
        labels.extend(self.job.clone().map(|job| ("job".to_owned(), job)));
        labels.extend(self.instance.clone().map(|instance| ("instance".to_owned(), instance)));
        let labels = build(self.options, "target_info", &labels, &[], None);
        visit(Ok(Point { labels, ts, value: PointValue::Float(1.0), exemplars: Vec::new() }));
    }
}

/// A label set. Attributes whose names become equal are joined by `;`, as the specification asks.
fn build(
    options: &Options,
    name: &str,
    base: &[(String, String)],
    attributes: &[KeyValue],
    last: Option<(&str, &str)>,
) -> Labels {
    let mut joined: BTreeMap<String, String> = BTreeMap::new();
    let own = attributes.iter().map(|pair| (pair.key.as_str(), pair.value.0.as_str()));
    let mut sorted: Vec<_> = own.collect();
    sorted.sort_unstable();
    for (key, value) in sorted {
        let entry = joined.entry(names::label(options.translation, key)).or_default();
        if !entry.is_empty() {
            entry.push(';');
        }
        entry.push_str(value);
    }
    let mut builder = LabelsBuilder::new();
    for (key, value) in joined.iter().filter(|(_, value)| !value.is_empty()) {
        builder.set(key, value);
    }
    for (key, value) in base.iter().filter(|(_, value)| !value.is_empty()) {
        builder.set(&names::label(options.translation, key), value);
    }
    if let Some((key, value)) = last {
        builder.set(key, value);
    }
    builder.set(METRIC_NAME, name);
    builder.build()
}

fn milliseconds(nanos: u64) -> Timestamp {
    i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX)
}

/// The samples of one metric.
struct Writer<'a, 'v> {
    options: &'a Options,
    base: &'a [(String, String)],
    metric: &'a Metric,
    newest: &'a mut Option<Timestamp>,
    visit: Visit<'v>,
}

impl Writer<'_, '_> {
    fn metric(&mut self) {
        let metric = self.metric;
        if let Some(gauge) = &metric.gauge {
            self.numbers(&gauge.data_points, Kind::Gauge);
        } else if let Some(sum) = &metric.sum {
            let kind = if sum.is_monotonic { Kind::Counter } else { Kind::Other };
            if self.is_cumulative(sum.aggregation_temporality) {
                self.numbers(&sum.data_points, kind);
            }
        } else if let Some(histogram) = &metric.histogram {
            if self.is_cumulative(histogram.aggregation_temporality) {
                let name = self.name(Kind::Other);
                for point in &histogram.data_points {
                    if self.options.histograms_to_custom {
                        self.custom(&name, point);
                    } else {
                        self.classic(&name, point);
                    }
                }
            }
        } else if let Some(histogram) = &metric.exponential_histogram {
            if self.is_cumulative(histogram.aggregation_temporality) {
                let name = self.name(Kind::Other);
                histogram.data_points.iter().for_each(|point| self.exponential(&name, point));
            }
        } else if let Some(summary) = &metric.summary {
            let name = self.name(Kind::Other);
            summary.data_points.iter().for_each(|point| self.summary(&name, point));
        }
    }

    fn is_cumulative(&mut self, temporality: Temporality) -> bool {
        if temporality == Temporality::Cumulative {
            return true;
        }
        let what = format!("invalid temporality and type combination for metric {:?}", self.metric.name);
        (self.visit)(Err(what));
        false
    }

    fn name(&self, kind: Kind) -> String {
        names::metric(self.options.translation, &self.metric.name, &self.metric.unit, kind)
    }

    fn push(
        &mut self,
        name: &str,
        common: &Common,
        last: Option<(&str, &str)>,
        value: PointValue,
        exemplars: Vec<Exemplar>,
    ) {
        let ts = milliseconds(common.time_unix_nano);
        *self.newest = Some(self.newest.map_or(ts, |newest| newest.max(ts)));
        let labels = build(self.options, name, self.base, &common.attributes, last);
        (self.visit)(Ok(Point { labels, ts, value, exemplars }));
    }

    /// A float, or the marker of the series' end.
    fn float(&mut self, name: &str, common: &Common, last: Option<(&str, &str)>, value: f64) {
        let value = if common.flags & NO_VALUE == 0 { value } else { model::stale_nan() };
        self.push(name, common, last, PointValue::Float(value), Vec::new());
    }

    #[expect(clippy::cast_precision_loss, reason = "samples are floats")]
    fn numbers(&mut self, points: &[NumberPoint], kind: Kind) {
        let name = self.name(kind);
        for point in points {
            let value = point.as_double.or(point.as_int.map(|value| value as f64)).unwrap_or(0.0);
            let value = if point.common.flags & NO_VALUE == 0 { value } else { model::stale_nan() };
            let exemplars = self.exemplars(&point.common, |_| true);
            self.push(&name, &point.common, None, PointValue::Float(value), exemplars);
        }
    }

    /// The exemplars of a point whose values are `wanted`, in order of time.
    #[expect(clippy::cast_precision_loss, reason = "samples are floats")]
    fn exemplars(&self, common: &Common, wanted: impl Fn(f64) -> bool) -> Vec<Exemplar> {
        let mut found: Vec<Exemplar> = common
            .exemplars
            .iter()
            .map(|exemplar| {
                let mut labels = LabelsBuilder::new();
                for (name, value) in [("trace_id", &exemplar.trace_id), ("span_id", &exemplar.span_id)] {
                    if !value.is_empty() {
                        labels.set(name, value);
                    }
                }
                for pair in &exemplar.filtered_attributes {
                    labels.set(&names::label(self.options.translation, &pair.key), &pair.value.0);
                }
                let value = exemplar.as_double.or(exemplar.as_int.map(|value| value as f64)).unwrap_or(0.0);
                Exemplar { labels: labels.build(), ts: milliseconds(exemplar.time_unix_nano), value }
            })
            .filter(|exemplar| wanted(exemplar.value))
            .collect();
        found.sort_by_key(|exemplar| exemplar.ts);
        found
    }

    #[expect(clippy::cast_precision_loss, reason = "samples are floats")]
    fn classic(&mut self, name: &str, point: &HistogramPoint) {
        let common = &point.common;
        if let Some(sum) = point.sum {
            self.float(&format!("{name}_sum"), common, None, sum);
        }
        self.float(&format!("{name}_count"), common, None, point.count as f64);
        let bucket = format!("{name}_bucket");
        let mut below = f64::NEG_INFINITY;
        let mut total = 0u64;
        for (bound, count) in point.explicit_bounds.iter().zip(&point.bucket_counts) {
            total = total.saturating_add(*count);
            self.bucket(&bucket, common, (below, *bound), total as f64);
            below = *bound;
        }
        self.bucket(&bucket, common, (below, f64::INFINITY), point.count as f64);
    }

    /// A bucket's cumulative count, with the exemplars that lie in it.
    fn bucket(&mut self, name: &str, common: &Common, (below, bound): (f64, f64), count: f64) {
        let value = if common.flags & NO_VALUE == 0 { count } else { model::stale_nan() };
        let exemplars = self.exemplars(common, |value| value > below && value <= bound);
        let le = float::format_fixed(bound);
        self.push(name, common, Some(("le", &le)), PointValue::Float(value), exemplars);
    }

    /// A histogram with explicit bounds as a native one.
    fn custom(&mut self, name: &str, point: &HistogramPoint) {
        let stale = point.common.flags & NO_VALUE != 0;
        let (span, counts) = span_of(0, &point.bucket_counts);
        let histogram = Histogram {
            schema: model::histogram::CUSTOM_BUCKETS_SCHEMA,
            count: point.count,
            sum: if stale { model::stale_nan() } else { point.sum.unwrap_or(0.0) },
            positive_spans: span,
            positive: counts,
            custom_values: point.explicit_bounds.clone(),
            ..Histogram::default()
        };
        let exemplars = self.exemplars(&point.common, |_| true);
        self.push(
            name,
            &point.common,
            None,
            PointValue::Histogram(HistogramValue::Int(histogram)),
            exemplars,
        );
    }

    fn exponential(&mut self, name: &str, point: &ExponentialPoint) {
        if point.scale < SCHEMA_MIN {
            let what = format!(
                "cannot convert exponential to native histogram. Scale must be >= {SCHEMA_MIN}, was {}",
                point.scale
            );
            return (self.visit)(Err(what));
        }
        let coarser = (point.scale - SCHEMA_MAX).max(0);
        let (positive_spans, positive) = exponential_buckets(&point.positive, coarser);
        let (negative_spans, negative) = exponential_buckets(&point.negative, coarser);
        let stale = point.common.flags & NO_VALUE != 0;
        let histogram = Histogram {
            schema: point.scale - coarser,
            zero_threshold: point.zero_threshold.filter(|width| *width != 0.0).unwrap_or(ZERO_THRESHOLD),
            zero_count: point.zero_count,
            count: point.count,
            sum: if stale { model::stale_nan() } else { point.sum.unwrap_or(0.0) },
            positive_spans,
            positive,
            negative_spans,
            negative,
            ..Histogram::default()
        };
        let exemplars = self.exemplars(&point.common, |_| true);
        self.push(
            name,
            &point.common,
            None,
            PointValue::Histogram(HistogramValue::Int(histogram)),
            exemplars,
        );
    }

    #[expect(clippy::cast_precision_loss, reason = "samples are floats")]
    fn summary(&mut self, name: &str, point: &SummaryPoint) {
        let common = &point.common;
        self.float(&format!("{name}_sum"), common, None, point.sum.unwrap_or(0.0));
        self.float(&format!("{name}_count"), common, None, point.count as f64);
        for quantile in &point.quantile_values {
            let text = float::format_fixed(quantile.quantile);
            self.float(name, common, Some(("quantile", &text)), quantile.value.unwrap_or(0.0));
        }
    }
}

/// Consecutive buckets from index `first`, without the empty ones at either end.
fn span_of(first: i32, counts: &[u64]) -> (Vec<Span>, Vec<u64>) {
    let Some(start) = counts.iter().position(|count| *count > 0) else { return (Vec::new(), Vec::new()) };
    let end = counts.iter().rposition(|count| *count > 0).map_or(counts.len(), |last| last + 1);
    let kept = counts[start..end].to_vec();
    let offset = first.saturating_add(i32::try_from(start).unwrap_or(i32::MAX));
    (vec![Span { offset, length: u32::try_from(kept.len()).unwrap_or(u32::MAX) }], kept)
}

/// Buckets of base 2 as a native histogram has them: an upper bound is included there, so each index is
/// higher by one; `coarser` halves the resolution so many times.
fn exponential_buckets(buckets: &Buckets, coarser: i32) -> (Vec<Span>, Vec<u64>) {
    let index = |at: usize| {
        let own = i64::from(buckets.offset) + i64::try_from(at).unwrap_or(i64::MAX);
        (own >> coarser.min(62)) + 1
    };
    let Some(first) = (!buckets.bucket_counts.is_empty()).then(|| index(0)) else {
        return (Vec::new(), Vec::new());
    };
    let mut counts: Vec<u64> = Vec::new();
    for (at, count) in buckets.bucket_counts.iter().enumerate() {
        let place = usize::try_from(index(at) - first).unwrap_or(0);
        counts.resize(counts.len().max(place + 1), 0);
        counts[place] = counts[place].saturating_add(*count);
    }
    span_of(i32::try_from(first).unwrap_or(i32::MAX), &counts)
}
