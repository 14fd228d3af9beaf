//! `rate`, `increase`, `delta` and their instant kin.

use std::sync::Arc;

use model::Value;

use crate::eval::range::{Remarks, Window};
use crate::histogram;

/// What is extrapolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Growth of a counter a second.
    Rate,
    /// Growth of a counter.
    Increase,
    /// Difference of a gauge.
    Delta,
}

impl Kind {
    pub(super) fn is_counter(self) -> bool {
        self != Self::Delta
    }
}

const MIXED: &str = "encountered a mix of histograms and floats";

#[expect(clippy::cast_precision_loss, reason = "milliseconds in seconds, as floats")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// Informs about a counter whose name does not say that it is one.
fn check_counter_name(remarks: &Remarks<'_>) {
    let name = remarks.name();
    let counted = ["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| name.ends_with(suffix));
    if !name.is_empty() && !counted {
        let text = format!(
            "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
            crate::text::Quote(&name)
        );
        remarks.evaluator.annotations.info(remarks.at, &text);
    }
}

/// The difference over the window, extrapolated to its edges where samples come close to them.
pub(super) fn extrapolated(window: &Window<'_>, remarks: &Remarks<'_>, kind: Kind) -> Option<Value> {
    if !window.values.is_empty() && !window.histograms.is_empty() {
        remarks.warn(MIXED);
        return None;
    }
    if window.histograms.is_empty() {
        if window.values.len() < 2 {
            return None;
        }
        if kind.is_counter() {
            check_counter_name(remarks);
        }
        let raw = difference(window.values, kind.is_counter());
        let first = window.values[0];
        let factor = factor(window, window.ts, kind, (raw, first));
        return Some(Value::Float(raw * factor));
    }
    if window.histograms.len() < 2 {
        return None;
    }
    let raw = histogram::difference(window.histograms, kind.is_counter(), remarks)?;
    let first = window.histograms[0].count;
    let factor = factor(window, window.histogram_ts, kind, (raw.count, first));
    Some(Value::Histogram(Arc::new(histogram::multiplied(&raw, factor))))
}

/// Last minus first; for counters, what was lost in resets is added back.
fn difference(values: &[f64], is_counter: bool) -> f64 {
    let mut difference = values[values.len() - 1] - values[0];
    if is_counter {
        for pair in values.windows(2) {
            if pair[1] < pair[0] {
                difference += pair[0];
            }
        }
    }
    difference
}

/// By how much the difference between first and last sample is to be multiplied.
#[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 samples")]
fn factor(window: &Window<'_>, ts: &[i64], kind: Kind, (raw, first): (f64, f64)) -> f64 {
    /// A sample further from the edge than this many average gaps says that the series starts or ends.
    const NEAR: f64 = 1.1;
    let (first_ts, last_ts) = (ts[0], ts[ts.len() - 1]);
    let span = seconds(last_ts - first_ts);
    let gap = span / (ts.len() - 1) as f64;
    let mut left = seconds(first_ts - window.start);
    let mut right = seconds(window.end - last_ts);
    if left >= gap * NEAR {
        left = gap / 2.0;
    }
    if kind.is_counter() && raw > 0.0 && first >= 0.0 {
        // A counter was never below zero, so it does not start before the line reaches zero.
        left = left.min(span * (first / raw));
    }
    if right >= gap * NEAR {
        right = gap / 2.0;
    }
    let factor = (span + left + right) / span;
    if kind == Kind::Rate { factor / seconds(window.end - window.start) } else { factor }
}

/// `irate` and `idelta`: the last two samples.
pub(super) fn instant(window: &Window<'_>, remarks: &Remarks<'_>, is_rate: bool) -> Option<Value> {
    let (floats, histograms) = (window.ts.len(), window.histogram_ts.len());
    if floats + histograms < 2 {
        return None;
    }
    // The kinds of the last two samples, newest first.
    let tail = |ts: &[i64], back: usize| ts.len().checked_sub(back).map(|at| ts[at]);
    let last_float = tail(window.ts, 1);
    let last_histogram = tail(window.histogram_ts, 1);
    let is_float = last_float > last_histogram;
    let (same, other) = if is_float {
        (tail(window.ts, 2), last_histogram)
    } else {
        (tail(window.histogram_ts, 2), last_float)
    };
    if same <= other {
        remarks.warn(MIXED);
        return None;
    }
    let (last, before) = (last_float.max(last_histogram)?, same?);
    if last == before {
        return None;
    }
    let per_second = if is_rate { 1.0 / seconds(last - before) } else { 1.0 };
    if !is_float {
        let pair = &window.histograms[histograms - 2..];
        return histogram::instant_difference(&pair[0], &pair[1], is_rate, remarks).map(|h| {
            Value::Histogram(Arc::new(if is_rate {
                histogram::divided(&h, seconds(last - before))
            } else {
                h
            }))
        });
    }
    let (a, b) = (window.values[floats - 2], window.values[floats - 1]);
    if is_rate {
        check_counter_name(remarks);
    }
    let difference = if is_rate && b < a { b } else { b - a };
    Some(Value::Float(if is_rate { difference / seconds(last - before) } else { difference * per_second }))
}
