//! `changes` and `resets`.

use model::Value;

use super::started::Starts;
use crate::eval::column::Point;
use crate::eval::range::Window;
use crate::histogram;

/// Calls `f` with each pair of neighbours in time, floats and histograms together.
fn neighbours(window: &Window<'_>, mut f: impl FnMut(Point<'_>, Point<'_>)) {
    if window.histograms.is_empty() {
        for pair in window.values.windows(2) {
            f(Point::Float(pair[0]), Point::Float(pair[1]));
        }
        return;
    }
    let (mut float, mut histogram) = (0, 0);
    let mut last = None;
    while float + histogram < window.len() {
        let float_first = window
            .ts
            .get(float)
            .is_some_and(|ts| window.histogram_ts.get(histogram).is_none_or(|other| ts <= other));
        let point = if float_first {
            float += 1;
            Point::Float(window.values[float - 1])
        } else {
            histogram += 1;
            Point::Histogram(&window.histograms[histogram - 1])
        };
        if let Some(last) = last.replace(point) {
            f(last, point);
        }
    }
}

/// How often the value changed. From NaN to NaN is no change, from a float to a histogram is one.
#[expect(clippy::float_cmp, reason = "any change counts")]
pub(super) fn changes(window: &Window<'_>) -> Option<Value> {
    let mut count = 0.0;
    neighbours(window, |before, after| {
        let same = match (before, after) {
            (Point::Float(a), Point::Float(b)) => a == b || a.is_nan() && b.is_nan(),
            (Point::Histogram(a), Point::Histogram(b)) => histogram::equals(a, b),
            _ => false,
        };
        count += if same { 0.0 } else { 1.0 };
    });
    Some(Value::Float(count))
}

/// How often a counter was reset. A switch between floats and histograms is a reset.
pub(super) fn resets(window: &Window<'_>) -> Option<Value> {
    let mut count = 0.0;
    neighbours(window, |before, after| {
        let reset = match (before, after) {
            (Point::Float(a), Point::Float(b)) => b < a,
            (Point::Histogram(a), Point::Histogram(b)) => histogram::is_reset(a, b),
            _ => true,
        };
        count += if reset { 1.0 } else { 0.0 };
    });
    Some(Value::Float(count))
}

/// The same where start times tell of resets too.
pub(super) fn resets_of_started(window: &Window<'_>) -> Option<Value> {
    let Some(Value::Float(mut count)) = resets(window) else { return None };
    let floats = Starts { ts: window.ts, starts: window.start_ts };
    let histograms = Starts { ts: window.histogram_ts, starts: window.histogram_start_ts };
    for at in 1..window.ts.len() {
        let counted = window.values[at] < window.values[at - 1];
        count += if !counted && floats.is_reset(at) { 1.0 } else { 0.0 };
    }
    for at in 1..window.histogram_ts.len() {
        let counted = histogram::is_reset(&window.histograms[at - 1], &window.histograms[at]);
        count += if !counted && histograms.is_reset(at) { 1.0 } else { 0.0 };
    }
    Some(Value::Float(count))
}
