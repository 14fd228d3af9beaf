//! Least squares and exponential smoothing.

use model::Value;

use super::kahan::Sum;
use crate::eval::range::{Remarks, Window};

const IGNORED: &str = "ignored histograms in a range containing both floats and histograms";

#[expect(clippy::cast_precision_loss, reason = "milliseconds in seconds, as floats")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// Slope and value at `origin` of the straight line nearest to the floats.
#[expect(clippy::float_cmp, reason = "a constant series is constant in all bits")]
fn line(window: &Window<'_>, origin: i64) -> (f64, f64) {
    let first = window.values[0];
    if window.values.iter().all(|value| *value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let (mut x, mut y, mut xy, mut xx) = (Sum::default(), Sum::default(), Sum::default(), Sum::default());
    for (ts, value) in window.ts.iter().zip(window.values) {
        let at = seconds(ts - origin);
        x.add(at);
        y.add(*value);
        xy.add(at * value);
        xx.add(at * at);
    }
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 samples")]
    let n = window.values.len() as f64;
    let covariance = xy.value() - x.value() * y.value() / n;
    let variance = xx.value() - x.value() * x.value() / n;
    let slope = covariance / variance;
    (slope, y.value() / n - slope * x.value() / n)
}

/// Whether there are two floats; remarks on histograms among them.
fn has_line(window: &Window<'_>, remarks: &Remarks<'_>) -> bool {
    if !window.values.is_empty() && !window.histograms.is_empty() {
        remarks.info(IGNORED);
    }
    window.values.len() >= 2
}

pub(super) fn deriv(window: &Window<'_>, remarks: &Remarks<'_>) -> Option<Value> {
    // The origin at the first sample keeps the numbers small and the result exact.
    has_line(window, remarks).then(|| Value::Float(line(window, window.ts[0]).0))
}

pub(super) fn predict_linear(window: &Window<'_>, remarks: &Remarks<'_>, ahead: f64) -> Option<Value> {
    has_line(window, remarks).then(|| {
        let (slope, intercept) = line(window, window.time);
        Value::Float(slope * ahead + intercept)
    })
}

/// Double exponential smoothing with factors for level and trend.
pub(super) fn smoothed(window: &Window<'_>, remarks: &Remarks<'_>, level: f64, trend: f64) -> Option<Value> {
    if !has_line(window, remarks) {
        return None;
    }
    let values = window.values;
    let (mut before, mut now, mut slope) = (0.0, values[0], values[1] - values[0]);
    for (at, value) in values.iter().enumerate().skip(1) {
        if at > 1 {
            slope = trend * (now - before) + (1.0 - trend) * slope;
        }
        let next = level * value + (1.0 - level) * (now + slope);
        before = now;
        now = next;
    }
    Some(Value::Float(now))
}
