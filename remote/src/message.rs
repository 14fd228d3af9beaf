//! The messages that remote write, remote read and their answers share: labels, samples, histograms.
//!
//! Source: `prometheus/prompb/types.proto` of Prometheus' published interface, field by field.

use model::{FloatHistogram, Histogram, IntHistogram, Labels, Span};
use tsdb::MetricKind;

use crate::wire::{Writer, varint_len};

/// The time of a sample and the one from which on it counts, 0 where that is unknown, in milliseconds since the epoch.
pub(crate) type Times = (i64, i64);

/// A field of 1.0's `TimeSeries` that only routers write and only shards read: `{type = 1, help = 3, unit = 4}`, texts
/// where 2.0's `Metadata` has references. Whoever else comes across it passes it over.
pub(crate) const ROUTED_METADATA: u32 = 1001;

/// What an enum of both versions means; they have the same numbers.
pub(crate) fn kind_of(number: u64) -> MetricKind {
    match number {
        1 => MetricKind::Counter,
        2 => MetricKind::Gauge,
        3 => MetricKind::Histogram,
        4 => MetricKind::GaugeHistogram,
        5 => MetricKind::Summary,
        6 => MetricKind::Info,
        7 => MetricKind::StateSet,
        _ => MetricKind::Unknown,
    }
}

/// `TimeSeries.labels` = 1: a `Label{name = 1, value = 2}` each.
pub(crate) fn push_labels(series: &mut Writer, labels: &Labels) {
    for (name, value) in labels {
        series.message(1, |label| {
            label.bytes(1, name.as_bytes());
            label.bytes(2, value.as_bytes());
        });
    }
}

/// `Sample{value = 1, timestamp = 2, start_timestamp = 3}`
pub(crate) fn push_sample(series: &mut Writer, number: u32, times: Times, value: f64) {
    series.message(number, |sample| push_fields(sample, times, value));
}

/// The fields of a sample.
pub(crate) fn push_fields(sample: &mut Writer, (ts, start_ts): Times, value: f64) {
    sample.double(1, value);
    sample.int64(2, ts);
    sample.int64(3, start_ts);
}

/// The bytes that these fields take; at most 31.
pub(crate) fn sample_len((ts, start_ts): Times, value: f64) -> usize {
    let int64 = |value: i64| if value == 0 { 0 } else { 1 + varint_len(value.cast_unsigned()) };
    let double = if value.to_bits() == 0 { 0 } else { 9 };
    double + int64(ts) + int64(start_ts)
}

/// `Exemplar{labels = 1, value = 2, timestamp = 3}`
pub(crate) fn push_exemplar(series: &mut Writer, number: u32, (ts, value): (i64, f64), labels: &Labels) {
    series.message(number, |exemplar| {
        push_labels(exemplar, labels);
        exemplar.double(2, value);
        exemplar.int64(3, ts);
    });
}

/// `Histogram` with float counts.
pub(crate) fn push_histogram(series: &mut Writer, number: u32, times: Times, histogram: &FloatHistogram) {
    series.message(number, |message| {
        message.member_double(2, histogram.count);
        push_shape(message, histogram);
        message.member_double(7, histogram.zero_count);
        push_spans(message, 8, &histogram.negative_spans);
        message.packed_doubles(10, &histogram.negative);
        push_spans(message, 11, &histogram.positive_spans);
        message.packed_doubles(13, &histogram.positive);
        push_rest(message, times, histogram);
    });
}

/// `Histogram` with integer counts, of which each bucket's is told as the difference from the one before.
pub(crate) fn push_int_histogram(series: &mut Writer, number: u32, times: Times, histogram: &IntHistogram) {
    series.message(number, |message| {
        message.member_uint64(1, histogram.count);
        push_shape(message, histogram);
        message.member_uint64(6, histogram.zero_count);
        push_spans(message, 8, &histogram.negative_spans);
        message.packed_sint64(9, deltas(&histogram.negative));
        push_spans(message, 11, &histogram.positive_spans);
        message.packed_sint64(12, deltas(&histogram.positive));
        push_rest(message, times, histogram);
    });
}

fn deltas(counts: &[u64]) -> impl ExactSizeIterator<Item = i64> + '_ {
    counts.iter().enumerate().map(|(at, count)| {
        let before = at.checked_sub(1).map_or(0, |at| counts[at]);
        count.wrapping_sub(before).cast_signed()
    })
}

fn push_shape<N>(message: &mut Writer, histogram: &Histogram<N>) {
    message.double(3, histogram.sum);
    message.sint64(4, histogram.schema.into());
    message.double(5, histogram.zero_threshold);
}

fn push_rest<N>(message: &mut Writer, (ts, start_ts): Times, histogram: &Histogram<N>) {
    let hint = match histogram.reset_hint {
        model::ResetHint::Unknown => 0,
        model::ResetHint::Reset => 1,
        model::ResetHint::NotReset => 2,
        model::ResetHint::Gauge => 3,
    };
    message.uint64(14, hint);
    message.int64(15, ts);
    message.packed_doubles(16, &histogram.custom_values);
    message.int64(17, start_ts);
}

/// `BucketSpan{offset = 1, length = 2}` each.
fn push_spans(histogram: &mut Writer, number: u32, spans: &[Span]) {
    for span in spans {
        histogram.message(number, |message| {
            message.sint64(1, span.offset.into());
            message.uint64(2, span.length.into());
        });
    }
}
