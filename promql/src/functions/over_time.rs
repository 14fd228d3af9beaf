//! `*_over_time`: aggregations of one series over time.

use std::collections::VecDeque;
use std::sync::Arc;

use model::{Samples, Value};

use super::kahan::{Mean, Sum, Variance};
use super::quantile as quantiles;
use crate::eval::column::Column;
use crate::eval::range::{Remarks, Window, Windows};
use crate::histogram;

const MIXED: &str = "encountered a mix of histograms and floats";
const IGNORED: &str = "ignored histograms in a range containing both floats and histograms";

/// A function of the floats alone; remarks on histograms among them.
pub(super) fn floats(window: &Window<'_>, remarks: &Remarks<'_>, f: fn(&[f64]) -> f64) -> Option<Value> {
    has_floats(window, remarks).then(|| Value::Float(f(window.values)))
}

/// Whether there are floats; remarks on histograms among them.
fn has_floats(window: &Window<'_>, remarks: &Remarks<'_>) -> bool {
    if window.values.is_empty() {
        return false;
    }
    if !window.histograms.is_empty() {
        remarks.info(IGNORED);
    }
    true
}

/// A function of the floats and their times.
pub(super) fn float_times(
    window: &Window<'_>,
    remarks: &Remarks<'_>,
    f: fn(&Window<'_>) -> f64,
) -> Option<Value> {
    has_floats(window, remarks).then(|| Value::Float(f(window)))
}

/// The smallest value; NaN only if there is nothing else.
pub(super) fn min(values: &[f64]) -> f64 {
    values.iter().fold(f64::NAN, |min, value| if *value < min || min.is_nan() { *value } else { min })
}

/// The largest value; NaN only if there is nothing else.
pub(super) fn max(values: &[f64]) -> f64 {
    values.iter().fold(f64::NAN, |max, value| if *value > max || max.is_nan() { *value } else { max })
}

/// The extremes of all windows of a series of floats. Of a window's values, those are remembered that may
/// still win when the ones before them have left: so each value is taken in and let go once.
pub(super) fn extremes(
    samples: &Samples,
    windows: &Windows,
    remarks: &Remarks<'_>,
    wins: fn(f64, f64) -> bool,
    out: &mut Column,
) -> bool {
    if !samples.histograms.is_empty() {
        return false;
    }
    let values = &samples.values;
    let mut candidates: VecDeque<usize> = VecDeque::new();
    let mut next = 0;
    windows.slide_floats(&samples.ts, remarks, |step, _, range| {
        for at in next.max(range.start)..range.end {
            if values[at].is_nan() {
                continue;
            }
            while candidates.back().is_some_and(|last| !wins(values[*last], values[at])) {
                candidates.pop_back();
            }
            candidates.push_back(at);
        }
        next = next.max(range.end);
        while candidates.front().is_some_and(|first| *first < range.start) {
            candidates.pop_front();
        }
        if !range.is_empty() {
            out.set_float(step, candidates.front().map_or(f64::NAN, |first| values[*first]));
        }
    });
    true
}

/// The population variance.
pub(super) fn variance(values: &[f64]) -> f64 {
    let mut variance = Variance::default();
    values.iter().for_each(|value| variance.add(*value));
    variance.value()
}

/// The median distance from the median; NaN if any value is.
pub(super) fn mad(values: &[f64]) -> f64 {
    if values.iter().any(|value| value.is_nan()) {
        return f64::NAN;
    }
    let mut values = values.to_vec();
    let median = quantiles::quantile(0.5, &mut values);
    values.iter_mut().for_each(|value| *value = (*value - median).abs());
    quantiles::quantile(0.5, &mut values)
}

pub(super) fn quantile(window: &Window<'_>, remarks: &Remarks<'_>, q: f64) -> Option<Value> {
    if quantiles::is_invalid(q) && !window.values.is_empty() {
        remarks.evaluator.annotations.warn(remarks.at, &quantiles::invalid(q));
    }
    has_floats(window, remarks).then(|| Value::Float(quantiles::quantile(q, &mut window.values.to_vec())))
}

/// Whether floats and histograms are mixed, which has no sum; warns if so.
fn is_mixed(window: &Window<'_>, remarks: &Remarks<'_>) -> bool {
    let mixed = !window.values.is_empty() && !window.histograms.is_empty();
    if mixed {
        remarks.warn(MIXED);
    }
    mixed
}

pub(super) fn sum(window: &Window<'_>, remarks: &Remarks<'_>) -> Option<Value> {
    if is_mixed(window, remarks) {
        return None;
    }
    if !window.histograms.is_empty() {
        return histogram::sum(window.histograms, remarks).map(|h| Value::Histogram(Arc::new(h)));
    }
    let mut sum = Sum::default();
    window.values.iter().for_each(|value| sum.add(*value));
    Some(Value::Float(sum.value()))
}

pub(super) fn avg(window: &Window<'_>, remarks: &Remarks<'_>) -> Option<Value> {
    if is_mixed(window, remarks) {
        return None;
    }
    if !window.histograms.is_empty() {
        return histogram::mean(window.histograms, remarks).map(|h| Value::Histogram(Arc::new(h)));
    }
    let mut mean = Mean::default();
    window.values.iter().for_each(|value| mean.add(*value));
    Some(Value::Float(mean.value()))
}

#[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 samples")]
pub(super) fn count(window: &Window<'_>) -> Option<Value> {
    Some(Value::Float(window.len() as f64))
}

pub(super) fn last(window: &Window<'_>) -> Option<Value> {
    if window.histogram_ts.last() > window.ts.last() {
        return window.histograms.last().map(|h| Value::Histogram(Arc::clone(h)));
    }
    window.values.last().map(|value| Value::Float(*value))
}

pub(super) fn first(window: &Window<'_>) -> Option<Value> {
    match (window.ts.first(), window.histogram_ts.first()) {
        (Some(float), histogram) if histogram.is_none_or(|histogram| float < histogram) => {
            window.values.first().map(|value| Value::Float(*value))
        }
        _ => window.histograms.first().map(|h| Value::Histogram(Arc::clone(h))),
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds in seconds, as floats")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

pub(super) fn first_time(window: &Window<'_>) -> Option<Value> {
    let first = [window.ts.first(), window.histogram_ts.first()].into_iter().flatten().min();
    first.map(|ts| Value::Float(seconds(*ts)))
}

pub(super) fn last_time(window: &Window<'_>) -> Option<Value> {
    window.ts.last().max(window.histogram_ts.last()).map(|ts| Value::Float(seconds(*ts)))
}

/// The time of the last value that `replaces` all before it; NaN is replaced by anything.
pub(super) fn time_of_extreme(window: &Window<'_>, replaces: fn(f64, f64) -> bool) -> f64 {
    let mut best = 0;
    for (at, value) in window.values.iter().enumerate() {
        if replaces(*value, window.values[best]) || window.values[best].is_nan() {
            best = at;
        }
    }
    seconds(window.ts[best])
}
